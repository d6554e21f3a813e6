"""Generated pictures that look like photographs, beside photographs, large and small.

In: the pictures of a split, the names of such generators. Out: a ``Table`` at full size and one at
a common size. Errors: ``EvaluationError`` where the split has no such picture.

Most of what tells drawings from photographs is subject. Here both classes are photographs to the
eye. At the common size (the longer side of *every* picture, of either class, is resampled to it)
the traces of single pixels are weak, as they are in what sites show.
"""

from collections.abc import Sequence

from trainer.config import EvaluationConfig
from trainer.data.sources import Picture
from trainer.evaluation.errors import EvaluationError


def chosen(pictures: Sequence[Picture], config: EvaluationConfig) -> list[Picture]:
    """The pictures of the photo-like generators, and the photographs beside them."""
    reals, fakes = set(config.photographs), set(config.photo_like)
    held = {(one.source.label, one.source.folder) for one in pictures}
    for label, wanted, option in ((0, reals, "photographs"), (1, fakes, "photo_like")):
        missing = sorted(name for name in wanted if (label, name) not in held)
        if missing:
            raise EvaluationError(
                f"evaluation.{option}: the split has no {', '.join(missing)}: name folders of "
                "the evaluated split"
            )
    return [
        one
        for one in pictures
        if (one.source.folder in fakes if one.source.label else _photograph(one, reals))
    ]


def _photograph(picture: Picture, reals: set[str]) -> bool:
    return not reals or picture.source.folder in reals


def size_change(config: EvaluationConfig) -> str:
    """The change that brings pictures to the common size."""
    return f"longer{config.photo_like_px}"
