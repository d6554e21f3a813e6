"""What a person can ask of the trainer: one file a command, in the order in which they are given.

Each module has ``add(parsers, common)``, which registers the command with its arguments.
"""

from trainer.commands import (
    average,
    calibrate,
    compare,
    crops,
    data,
    evaluate,
    export,
    fakes,
    finish,
    retrain,
    study,
    teacher,
    teacher_compare,
    teacher_convert,
    train,
)

COMMANDS = (
    data,
    teacher_convert,
    teacher,
    teacher_compare,
    fakes,
    train,
    average,
    compare,
    crops,
    evaluate,
    calibrate,
    export,
    finish,
    retrain,
    study,
)
