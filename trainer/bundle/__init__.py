"""What leaves the trainer: the graph, its manifest and its card."""
