"""What evaluation refuses."""

from trainer.errors import TrainerError


class EvaluationError(TrainerError):
    """An evaluation that cannot be done as asked; the message says what to do."""
