"""What can be wrong with data that somebody else made."""

from trainer.errors import TrainerError


class DataError(TrainerError):
    """Data that cannot be used as they are; the message names the file or folder."""
