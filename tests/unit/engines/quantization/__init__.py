"""Tests of the int8 graphs."""
