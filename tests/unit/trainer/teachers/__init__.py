"""Unit tests of trainer/teachers."""
