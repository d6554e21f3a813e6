"""Synthgate as a user meets it: whole commands, real processes."""
