"""Tests: unit, integration, acceptance; the tree mirrors the source."""
