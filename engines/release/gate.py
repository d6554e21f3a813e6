"""The gate: whether a candidate may replace the version in place.

In: two manifests and the measurements. Out: findings, each a reason against. Pure: no file, no clock.

Loading has already checked that the candidate is signed, complete and agrees with its golden outputs.
``disagreements`` says whether it agrees on every other runtime too, which no force overrides.

Figures are compared only if both were measured on as many images of the same generator in the same
condition. A figure on other images is another quantity, and counts as a finding. A latency counts
only if its whole interval is beyond the margin: a noisy machine widens it, and refuses nothing.
"""

from dataclasses import dataclass

from engines.bundle.manifest import GeneratorMetric, Manifest
from engines.release.records import Latency, NoLatency, Parity


@dataclass(frozen=True)
class Margins:
    """How much worse a candidate may be; the margins allow for the noise of a repeated training.

    Attributes:
        auc_drop_max: of each generator's AUC, absolute.
        fpr_rise_max: of the false-positive rate at each threshold of the default set, absolute.
        latency_ratio_max: the candidate's latency per image, relative to the version in place.
    """

    auc_drop_max: float = 0.01
    fpr_rise_max: float = 0.01
    latency_ratio_max: float = 1.25


def findings(candidate: Manifest, in_place: Manifest, margins: Margins) -> tuple[str, ...]:
    """Findings from the figures; empty if there are none."""
    return (*_metrics(candidate, in_place, margins), *_thresholds(candidate, in_place, margins))


def latency_findings(latency: Latency | NoLatency, margins: Margins) -> tuple[str, ...]:
    """Findings from the latency; empty if there are none."""
    if isinstance(latency, NoLatency):
        return (f"{latency}: skip it with --skip-latency",) if latency.against else ()
    if latency.low <= margins.latency_ratio_max:
        return ()
    return (f"{latency}: slower by more than {margins.latency_ratio_max:g} times",)


def disagreements(parity: Parity) -> tuple[str, ...]:
    """Where the candidate differs, on this machine, from what its trainer measured."""
    return parity.problems


def _metrics(candidate: Manifest, in_place: Manifest, margins: Margins) -> list[str]:
    if not candidate.metrics:
        return ["the manifest has no metrics: evaluate the candidate before it is exported"]
    measured = {(metric.generator, metric.condition): metric for metric in candidate.metrics}
    reasons = []
    for before in in_place.metrics:
        now = measured.get((before.generator, before.condition))
        where = f"{before.generator} ({before.condition})"
        if now is None:
            reasons.append(f"{where}: not measured, the version in place was")
        elif problem := _compared(now, before, margins):
            reasons.append(f"{where}: {problem}")
    return reasons


def _compared(now: GeneratorMetric, before: GeneratorMetric, margins: Margins) -> str | None:
    counts_now, counts_before = (now.n_fake, now.n_real), (before.n_fake, before.n_real)
    if counts_now != counts_before:
        return (
            f"measured on {counts_now[0]} fake and {counts_now[1]} real images, the version in "
            f"place on {counts_before[0]} and {counts_before[1]}: not comparable"
        )
    if now.seen_in_training and not before.seen_in_training:
        return "seen in training, but not by the version in place: not comparable"
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
    old_points = before.points()
    return [
        f"false positives at {band}: {point.fpr:.2%}, the version in place "
        f"{old_points[band].fpr:.2%}: higher by more than {margins.fpr_rise_max:.2%}"
        for band, point in now.points().items()
        if point.fpr - old_points[band].fpr > margins.fpr_rise_max
    ]
