"""The gate: nothing that is worse, and nothing that cannot be compared, passes unseen."""

import pytest

from engines.bundle.manifest import GeneratorMetric, Manifest, PreprocessSpec
from engines.release.gate import Margins, disagreements, findings, latency_findings
from engines.release.records import Latency, NoLatency, Parity, TimedVersion
from tests.support.bundles import tiny_manifest
from tests.unit.engines.release.candidates import metric

SPEC = PreprocessSpec(version="1", crop_policy="center", crop_px=32)


def manifest(*metrics: GeneratorMetric, review_fpr: float = 0.1, n_real: int = 100) -> Manifest:
    """A manifest with these figures."""
    base = tiny_manifest(SPEC)
    (old,) = base.threshold_sets
    review = old.review.model_copy(update={"fpr": review_fpr, "n_real": n_real})
    thresholds = (old.model_copy(update={"review": review}),)
    return base.model_copy(update={"metrics": metrics, "threshold_sets": thresholds})


@pytest.mark.parametrize("auc", [0.95, 0.9, 0.8901])
def test_better_equal_and_within_the_margin_pass(auc: float) -> None:
    assert findings(manifest(metric(auc)), manifest(metric(0.9)), Margins(0.01, 0.01)) == ()


@pytest.mark.parametrize(
    ("candidate", "told"),
    [
        (manifest(), "has no metrics"),
        (manifest(metric(0.88)), "flux1 (native): AUC 0.8800, the version in place 0.9000: lower"),
        (manifest(metric(0.99, n_fake=10)), "measured on 10 fake and 60 real images"),
        (manifest(metric(0.99, seen=True)), "seen in training, but not by"),
        (
            manifest(metric(0.99).model_copy(update={"generator": "other"})),
            "flux1 (native): not measured",
        ),
        (manifest(metric(0.9), review_fpr=0.12), "false positives at review: 12.00%"),
        (manifest(metric(0.9), n_real=99), "false positives: measured on 99 images of tests"),
    ],
)
def test_each_way_to_be_worse_or_not_comparable_is_found(candidate: Manifest, told: str) -> None:
    (found,) = findings(candidate, manifest(metric(0.9)), Margins(0.01, 0.01))
    assert told in found


def test_a_wider_margin_lets_more_pass() -> None:
    worse = manifest(metric(0.88), review_fpr=0.12)
    assert len(findings(worse, manifest(metric(0.9)), Margins(0.01, 0.01))) == 2
    assert findings(worse, manifest(metric(0.9)), Margins(0.03, 0.03)) == ()


def latency(low: float, ratio: float, high: float) -> Latency:
    """A candidate that takes so much longer."""
    old = TimedVersion(
        version="0.1.0", runtime="onnxruntime-cpu", precision="fp32", crops=1, image_ms=10.0
    )
    new = old.model_copy(update={"version": "0.2.0", "image_ms": 10.0 * ratio})
    return Latency(ratio=ratio, low=low, high=high, pairs=31, images=1, candidate=new, in_place=old)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (latency(0.4, 0.5, 0.6), None),
        (latency(1.0, 2.0, 9.0), None),  # a noisy machine: it may be as fast
        (latency(1.25, 1.3, 1.4), None),
        (latency(1.26, 1.3, 1.4), "1.3 (1.26 to 1.4, 31 pairs, batches of 1) times the latency"),
        (NoLatency(why="skipped on request"), None),
        (NoLatency(why="no runtime", against=True), "no runtime: skip it with --skip-latency"),
    ],
)
def test_a_latency_counts_where_its_whole_interval_is_beyond_the_margin(
    found: Latency | NoLatency, told: str | None
) -> None:
    against = latency_findings(found, Margins(latency_ratio_max=1.25))
    assert (against == ()) if told is None else (told in against[0])


def test_a_wider_margin_lets_a_slower_one_pass() -> None:
    assert latency_findings(latency(1.26, 1.3, 1.4), Margins(latency_ratio_max=1.5)) == ()


def test_what_cannot_run_here_is_no_disagreement_and_what_differs_is() -> None:
    left = Parity(not_checked=("tensorrt fp16 plan for sm_90 (a.plan): no GPU",))
    assert disagreements(left) == ()
    assert disagreements(Parity(problems=("it differs",))) == ("it differs",)
