"""How figures fall when pictures are recompressed, blurred, resized, or all of it in turn.

In: the logits of changed pictures. Out: a ``Point`` for each change. Errors: those of the parts.
The changes are those of ``trainer.evaluation.changes``, on whole pictures, alike for both classes;
the thresholds stay as shipped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.data.dataset import Picture, evenly
from trainer.evaluation.families import Scored
from trainer.evaluation.metrics import Bootstrap, Seen, Table, table
from trainer.evaluation.rates import ALL, Rate, rate
from trainer.evaluation.shipped import Shipped, points


@dataclass(frozen=True)
class Point:
    """One change: the families' figures, and what the thresholds of the default set do.

    ``caught`` are the shares of generated images at or above each threshold, the mean over the
    families of ``table.mean_over``; ``alarms`` are the real images that reach it.
    """

    change: str
    table: Table
    caught: dict[str, float]
    alarms: tuple[Rate, ...]


def thinned(pictures: Sequence[Picture], per_folder: int) -> list[Picture]:
    """At most so many of each folder, evenly spread; all of them where it is 0."""
    if per_folder == 0:
        return list(pictures)
    folders: dict[tuple[int, str], list[Picture]] = {}
    for one in pictures:
        folders.setdefault((one.source.label, one.source.folder), []).append(one)
    return [one for inside in folders.values() for one in evenly(inside, per_folder)]


def point(
    name: str, scored: Scored, seen: Seen, shipped: Shipped | None, bootstrap: Bootstrap
) -> Point:
    """The figures of one change."""
    found = table(scored, name, seen, bootstrap)
    if shipped is None:
        return Point(name, found, {}, ())
    default, caught = shipped.default, {}
    for threshold in points(default):
        shares = [
            rate(family, threshold, scored.of(1, family), shipped, default).value
            for family in found.mean_over
        ]
        caught[threshold] = float(np.mean(shares))
    alarms = tuple(rate(ALL, one, scored.of(0), shipped, default) for one in points(default))
    return Point(name, found, caught, alarms)
