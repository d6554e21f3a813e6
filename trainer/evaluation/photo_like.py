"""Generated pictures that look like photographs, beside photographs, large and small.

In: the pictures of a split, the names of such generators. Out: a ``Table`` at full size and one at
a common size. No errors: what the split does not hold is named in the report.

Most of what tells drawings from photographs is subject. Here both classes are photographs to the
eye. At the common size (the longer side of *every* picture, of either class, is resampled to it)
the traces of single pixels are weak, as they are in what sites show.
"""

from collections.abc import Sequence

from trainer.config import EvaluationConfig
from trainer.data.dataset import Picture


def chosen(pictures: Sequence[Picture], config: EvaluationConfig) -> list[Picture]:
    """The pictures of the photo-like generators of this split, and the photographs beside them.

    Empty where the split has none of either: one configuration serves all splits.
    """
    reals, fakes = set(config.photographs), set(config.photo_like)
    kept = [
        one
        for one in pictures
        if (one.source.folder in fakes if one.source.label else _photograph(one, reals))
    ]
    return kept if {one.source.label for one in kept} == {0, 1} else []


def absent(pictures: Sequence[Picture], config: EvaluationConfig) -> list[str]:
    """What the configuration names and the split does not hold."""
    held = {(one.source.label, one.source.folder) for one in pictures}
    named = [(1, name) for name in config.photo_like] + [(0, name) for name in config.photographs]
    return [name for label, name in named if (label, name) not in held]


def _photograph(picture: Picture, reals: set[str]) -> bool:
    return not reals or picture.source.folder in reals


def size_change(config: EvaluationConfig) -> str:
    """The change that brings pictures to the common size."""
    return f"longer{config.photo_like_px}"
