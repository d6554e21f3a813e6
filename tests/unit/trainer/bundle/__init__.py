"""Unit tests of trainer/bundle."""
