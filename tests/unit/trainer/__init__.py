"""Tests of the trainer: tiny random models and generated pictures."""
