"""Unit tests of deploy/: what needs no server."""
