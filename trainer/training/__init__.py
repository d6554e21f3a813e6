"""The loop: batches, targets, losses, checkpoints."""
