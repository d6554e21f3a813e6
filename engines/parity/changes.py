"""Which decisions change when logits do.

In: logits and their reference, the manifest's calibration and thresholds. Out: counts, a band at a
time. No errors of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from engines.manifest import Manifest


@dataclass(frozen=True)
class Changed:
    """How many of ``of`` inputs fall on the other side of one threshold."""

    threshold_set: str
    band: Literal["review", "block"]
    threshold: float
    changed: int
    of: int

    @property
    def share(self) -> float:
        """In 0..1."""
        return self.changed / self.of


def decisions_changed(
    manifest: Manifest, logit_N: Sequence[float], reference_N: Sequence[float]
) -> tuple[Changed, ...]:
    """The decisions that change, at both thresholds of each threshold set."""
    scores = [
        (manifest.score(one), manifest.score(reference))
        for one, reference in zip(logit_N, reference_N, strict=True)
    ]
    bands: tuple[Literal["review", "block"], ...] = ("review", "block")
    return tuple(
        Changed(
            threshold_set.id,
            band,
            at,
            sum((one >= at) != (reference >= at) for one, reference in scores),
            len(scores),
        )
        for threshold_set in manifest.threshold_sets
        for band in bands
        for at in [getattr(threshold_set, band).threshold]
    )


def by_set(changed: Sequence[Changed]) -> list[str]:
    """``few-alarms 7, 4 of 634``: at review, at block; a set is named where there are several."""
    names = list(dict.fromkeys(one.threshold_set for one in changed))
    told = []
    for name, short in zip(names, _without_what_all_begin_with(names), strict=True):
        found = [one for one in changed if one.threshold_set == name]
        counts = ", ".join(str(one.changed) for one in found)
        told.append(f"{short + ' ' if len(names) > 1 else ''}{counts} of {found[0].of}")
    return told


def _without_what_all_begin_with(names: Sequence[str]) -> list[str]:
    """``default`` and ``few-alarms`` of ``mine-1.0-default`` and ``mine-1.0-few-alarms``."""
    parts = [name.split("-") for name in names]
    shared = len(list(takewhile(lambda same: len(set(same)) == 1, zip(*parts, strict=False))))
    shared = min([shared, *(len(one) - 1 for one in parts)])
    return ["-".join(one[shared:]) for one in parts]
