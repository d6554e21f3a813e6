"""Unit tests of trainer/study."""
