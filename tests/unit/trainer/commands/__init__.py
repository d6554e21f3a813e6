"""Unit tests of trainer/commands."""
