"""Tests of the documentation's generator."""
