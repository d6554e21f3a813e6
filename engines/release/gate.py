"""Whether a candidate may follow the version in place.

In: two manifests, and what was measured. Out: findings, each a reason against. Pure: no file, no clock.
That the candidate is signed, whole and agrees with its golden outputs is settled before (loading refuses
it otherwise); that it does so on every other runtime too is what ``disagreements`` asks, and no force
passes.

Figures are compared only where both were measured on as many images of the same generator in the same
condition: an AUC on other images is another quantity, and counts as a finding, not as a pass. A latency
counts only where its whole interval is beyond the margin: a noisy machine makes it wide, and refuses
nothing.
"""

from dataclasses import dataclass

from engines.bundle.manifest import GeneratorMetric, Manifest, OperatingPoint
from engines.release.records import Latency, NoLatency, Parity


@dataclass(frozen=True)
class Margins:
    """How much worse is still not worse; each is there for the noise of a repeated training.

    Attributes:
        auc_drop_max: of each generator's AUC, absolute.
        fpr_rise_max: of the false-positive rate at each threshold of the default set, absolute.
        latency_ratio_max: the candidate's latency of an image as a multiple of the other's.
    """

    auc_drop_max: float = 0.01
    fpr_rise_max: float = 0.01
    latency_ratio_max: float = 1.25


def findings(candidate: Manifest, in_place: Manifest, margins: Margins) -> tuple[str, ...]:
    """What speaks against the candidate; empty: nothing."""
    return (*_metrics(candidate, in_place, margins), *_thresholds(candidate, in_place, margins))


def latency_findings(found: Latency | NoLatency, margins: Margins) -> tuple[str, ...]:
    """What the clock says against the candidate; empty: nothing."""
    if isinstance(found, NoLatency):
        return (f"{found}: skip it by --skip-latency",) if found.against else ()
    if found.low <= margins.latency_ratio_max:
        return ()
    return (f"{found}: slower by more than {margins.latency_ratio_max:g} times",)


def disagreements(found: Parity) -> tuple[str, ...]:
    """Where the candidate is not, on this machine, what its trainer measured; empty: nowhere."""
    return found.problems


def _metrics(candidate: Manifest, in_place: Manifest, margins: Margins) -> list[str]:
    if not candidate.metrics:
        return ["the manifest has no metrics: evaluate the candidate before it is exported"]
    measured = {(one.generator, one.condition): one for one in candidate.metrics}
    found = []
    for before in in_place.metrics:
        now = measured.get((before.generator, before.condition))
        where = f"{before.generator} ({before.condition})"
        if now is None:
            found.append(f"{where}: not measured, the version in place was")
        elif problem := _compared(now, before, margins):
            found.append(f"{where}: {problem}")
    return found


def _compared(now: GeneratorMetric, before: GeneratorMetric, margins: Margins) -> str | None:
    counts_now, counts_before = (now.n_fake, now.n_real), (before.n_fake, before.n_real)
    if counts_now != counts_before:
        return (
            f"measured on {counts_now[0]} fake and {counts_now[1]} real images, the version in "
            f"place on {counts_before[0]} and {counts_before[1]}: not comparable"
        )
    if now.seen_in_training and not before.seen_in_training:
        return "seen in training, which it was not by the version in place: not comparable"
    if before.auc - now.auc > margins.auc_drop_max:
        return (
            f"AUC {now.auc:.4f}, the version in place {before.auc:.4f}: lower by more than "
            f"{margins.auc_drop_max:g}"
        )
    return None


def _thresholds(candidate: Manifest, in_place: Manifest, margins: Margins) -> list[str]:
    now, before = candidate.threshold_set(), in_place.threshold_set()
    if (now.measured_on, now.review.n_real) != (before.measured_on, before.review.n_real):
        problem = (
            f"false positives: measured on {now.review.n_real} images of {now.measured_on}, the "
            f"version in place on {before.review.n_real} of {before.measured_on}: not comparable"
        )
        return [problem]
    pairs: list[tuple[str, OperatingPoint, OperatingPoint]] = [
        ("review", now.review, before.review),
        ("block", now.block, before.block),
    ]
    return [
        f"false positives at {band}: {point.fpr:.2%}, the version in place {old.fpr:.2%}: higher "
        f"by more than {margins.fpr_rise_max:.2%}"
        for band, point, old in pairs
        if point.fpr - old.fpr > margins.fpr_rise_max
    ]
