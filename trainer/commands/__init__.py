"""The commands of the trainer."""
