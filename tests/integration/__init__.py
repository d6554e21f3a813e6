"""Parts of Synthgate against a real broker and cache."""
