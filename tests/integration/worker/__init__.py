"""The worker against a real broker and cache: one behaviour a test."""
