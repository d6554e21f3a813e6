"""Tests of what is read of an upload before its decoder sees it, and of the decoding."""
