"""The documentation, and what generates its reference pages; no process of Synthgate imports this."""
