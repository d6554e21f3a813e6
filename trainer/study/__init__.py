"""The study: a grid of trainings that says whether learning the noise helps, and its report."""
