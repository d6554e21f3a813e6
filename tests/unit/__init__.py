"""Tests of one unit each, with no broker and no cache."""
