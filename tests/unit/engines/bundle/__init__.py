"""Tests of engines.bundle."""
