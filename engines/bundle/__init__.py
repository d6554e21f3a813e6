"""A bundle: its manifest, golden outputs, signatures and keys, and how it is verified."""
