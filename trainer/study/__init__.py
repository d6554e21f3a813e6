"""A grid of trainings, and the report that compares them."""
