"""The one kind of failure that a person can do something about.

Every expected error of the trainer is a ``TrainerError``: its message names what is wrong and what
to do. The command line prints it and exits 1; anything else is a defect and shows its traceback.
"""


class TrainerError(Exception):
    """A failure that the person at the command line can put right."""
