"""Where Synthgate runs; nothing here is imported by the worker or the trainer."""
