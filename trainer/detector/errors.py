"""What may be wrong with a detector."""

from trainer.errors import TrainerError


class DetectorError(TrainerError):
    """A backbone, head or weights that do not fit; the message says what to do."""
