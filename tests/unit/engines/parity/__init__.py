"""Tests of the comparison of runtimes."""
