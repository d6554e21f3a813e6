"""What can go wrong with a teacher."""

from trainer.errors import TrainerError


class TeacherError(TrainerError):
    """A teacher that cannot be loaded or does not fit; the message says what to do."""
