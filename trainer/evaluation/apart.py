"""Real pictures of other kinds than the rest of a split: drawings, screenshots, scans.

In: the pictures of a split, patterns of folders. Out: those that stand apart, and the others. Errors:
``EvaluationError`` where no other real picture is left.

Beside generated pictures they would tell kinds apart, and not forgery. What a platform needs to know of
them is how many are flagged.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from trainer.data.dataset import Picture
from trainer.evaluation.errors import EvaluationError


def set_apart(
    pictures: Sequence[Picture], patterns: Sequence[str]
) -> tuple[list[Picture], list[Picture]]:
    """The others, and those whose folder a pattern names; generated pictures are among the others."""
    apart = [one for one in pictures if one.source.label == 0 and named(one, patterns)]
    others = [one for one in pictures if one.source.label == 1 or not named(one, patterns)]
    if apart and not any(one.source.label == 0 for one in others):
        raise EvaluationError(
            "evaluation.apart names every real folder of this split: leave photographs to compare "
            "generated pictures with"
        )
    return others, apart


def absent(pictures: Sequence[Picture], patterns: Sequence[str]) -> list[str]:
    """The patterns that name no real folder of the split."""
    folders = {one.source.folder for one in pictures if one.source.label == 0}
    return [
        pattern
        for pattern in patterns
        if not any(fnmatchcase(folder, pattern) for folder in folders)
    ]


def named(picture: Picture, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns names the picture's folder."""
    return any(fnmatchcase(picture.source.folder, pattern) for pattern in patterns)
