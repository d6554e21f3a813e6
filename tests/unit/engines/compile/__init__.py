"""Tests of the store of versions, its channels and the gate."""
