"""Unit tests of the worker: one file for each of its own."""
