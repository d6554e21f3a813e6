"""Tools for those who work on Synthgate; no process of Synthgate imports them."""
