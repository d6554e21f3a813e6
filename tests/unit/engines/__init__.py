"""Tests of the bundle, its checks, the preprocessing and the runtimes."""
