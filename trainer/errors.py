"""The failures that a person can do something about.

Every expected error of the trainer is a ``TrainerError``: its message names what is wrong and what to do.
The command line prints it and exits 1; anything else is a defect and shows its traceback.
"""


class TrainerError(Exception):
    """A failure that the person at the command line can put right."""


class ConfigError(TrainerError):
    """A configuration that cannot be used; the message says what to change."""


class DataError(TrainerError):
    """Data that cannot be used as they are; the message names the file or folder."""


class ExportError(TrainerError):
    """A bundle that cannot be written; the message says what to do."""


class TeacherError(TrainerError):
    """A teacher that cannot be loaded or does not fit; the message says what to do."""
