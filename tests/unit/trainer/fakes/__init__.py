"""Unit tests of trainer/fakes."""
