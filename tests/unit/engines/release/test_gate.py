"""The gate: nothing that is worse, and nothing that cannot be compared, passes unseen."""

import pytest

from engines.manifest import GeneratorMetric, Manifest, PreprocessSpec
from engines.release.gate import Margins, findings
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
        (manifest(metric(0.99, seen=True)), "seen in training, which it was not"),
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
