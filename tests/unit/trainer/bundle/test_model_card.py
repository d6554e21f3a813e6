"""Every threshold set is measured, kept and on the card; a development run has the bundle's crops."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.trainer import TINY, tiny_config
from tests.unit.trainer.evaluation.pictures import scored
from trainer.bundle.export import build_manifest
from trainer.bundle.model_card import EVALUATION, model_card, read_development
from trainer.config import Config, RatesConfig, parse_config
from trainer.evaluation.calibration import (
    CalibrationError,
    CalibrationResult,
    Fit,
    measure_thresholds,
)
from trainer.evaluation.metrics import SplitResult
from trainer.training.checkpoint import (
    Best,
    CheckpointError,
    SeenGenerators,
    measured_with,
    save_best,
)

FIT = Fit("platt", 1.0, 0.0, 40, 0.1, 0.5, 0.2, 0.6)


SETS = """
[export.threshold_sets.few-alarms]
review_fpr = 0.02
block_fpr = 0.01
[export.threshold_sets.few-misses]
review_fpr = 0.1
block_fpr = 0.05
"""


LINEAGE = {
    "code_commit": "c" * 40,
    "data_digest": "d" * 64,
    "teacher_id": "teacher",
    **SeenGenerators(frozenset(), frozenset()).as_lineage(),
}


NOTHING_TESTED = SplitResult((), {}, {}, {})


def config(sets: str = SETS) -> Config:
    """The tiny configuration, with sets beside the default."""
    return parse_config((TINY + sets).encode(), {})


def measured(count: int = 400) -> CalibrationResult:
    """Of two sources, the second with the higher logits."""
    values = np.linspace(-4, 4, count)
    reals = scored({"calm": list(values[: count // 2]), "loud": list(values[count // 2 :])}, {})
    return CalibrationResult(FIT, measure_thresholds(reals, FIT, config().export.rates()), "c")


def test_every_set_is_measured_at_its_own_rates() -> None:
    """The default first; each rate is at most what was asked, with its interval."""
    sets = {one.name: one for one in measured().sets}
    assert list(sets) == ["default", "few-alarms", "few-misses"]
    rates = {name: (one.review.fpr, one.block.fpr) for name, one in sets.items()}
    expected = {"default": (0.05, 0.01), "few-alarms": (0.02, 0.01), "few-misses": (0.1, 0.05)}
    assert rates == expected
    point = sets["few-alarms"].review
    assert point.fpr_ci_low < 0.02 < point.fpr_ci_high
    assert point.n_real == 400


def test_false_alarms_are_counted_by_source_for_each_set() -> None:
    """All of them are in the louder source, and the sets differ."""
    found = {one.name: one.false_alarms for one in measured().sets}
    calm, loud = found["few-misses"]
    assert (calm.folder, calm.review, calm.block, calm.n) == ("calm", 0, 0, 200)
    assert (loud.folder, loud.review, loud.block, loud.n) == ("loud", 40, 20, 200)
    assert found["few-alarms"][1].review == 8


DRAWINGS = """
[export.threshold_sets.drawings]
review_fpr = 0.05
block_fpr = 0.01
real = ["loud", "drawn_*"]
"""


def measured_with_drawings() -> CalibrationResult:
    """Two folders of photographs and one of drawings, which stands apart; a set for the latter two."""
    values = list(np.linspace(-4, 4, 400))
    reals = scored({"calm": values[:200], "drawn_a": [5.0] * 400, "loud": values[200:]}, {})
    rates = config(DRAWINGS).export.rates()
    return CalibrationResult(FIT, measure_thresholds(reals, FIT, rates, ["drawn_*"]), "c")


def test_a_set_is_measured_on_the_folders_that_it_names() -> None:
    """The default leaves out what stands apart: it is that of photographs alone."""
    default, drawings = measured_with_drawings().sets
    assert (default.review, default.block) == (measured().sets[0].review, measured().sets[0].block)
    assert default.measured_on == "real/calm, real/loud"
    assert (drawings.measured_on, drawings.review.n_real) == ("real/drawn_a, real/loud", 600)
    assert drawings.review.threshold > FIT.score(np.array([5.0], np.float32))[0]
    assert drawings.review.fpr == 0


def test_the_card_says_what_each_set_was_measured_on() -> None:
    """A folder has no figure in the columns of a set that never saw it."""
    best = Best({}, 7, 0.9, None, None)
    found = measured_with_drawings()
    card = model_card(config(DRAWINGS), best, LINEAGE, NOTHING_TESTED, found)
    assert "Thresholds of default, set on 400 real images (real/calm, real/loud)." in card
    assert "Thresholds of drawings, set on 600 real images (real/drawn_a, real/loud)." in card
    assert "| calm | 200 | 0 | 0 |  |  |" in card
    assert "| drawn_a | 400 |  |  | 0 | 0 |" in card
    manifest = build_manifest(config(DRAWINGS), best, LINEAGE, NOTHING_TESTED, found)
    assert manifest.threshold_set("drawings").measured_on == "real/drawn_a, real/loud"
    assert CalibrationResult.from_json(found.as_json()) == found


@pytest.mark.parametrize(
    ("rates", "apart", "told"),
    [
        (
            {"default": RatesConfig(review_fpr=0.1, block_fpr=0.1)},
            ["*"],
            "for export: evaluation.out_of_domain",
        ),
        (
            {"odd": RatesConfig(review_fpr=0.1, block_fpr=0.1, real=("scans",))},
            [],
            "for export.threshold_sets.odd: its `real` names none",
        ),
    ],
)
def test_a_set_without_images_is_refused(
    rates: dict[str, RatesConfig], apart: list[str], told: str
) -> None:
    """By its name, and with the option that leaves it none."""
    with pytest.raises(CalibrationError, match=told):
        measure_thresholds(scored({"d": [0.0] * 400}, {}), FIT, rates, apart)


def test_a_rate_that_the_images_do_not_support_names_its_set() -> None:
    """With the number of images, and what to do: the default set's rates, which come first, are fine."""
    reals = scored({"d": list(np.linspace(-4, 4, 149))}, {})
    rates = config().export.rates() | {"default": RatesConfig(review_fpr=0.1, block_fpr=0.05)}
    told = (
        r"^149 real images cannot support a false-positive rate of 0\.02 "
        r"\(export\.threshold_sets\.few-alarms\.review_fpr\): add .* until there are 150, or raise"
    )
    with pytest.raises(CalibrationError, match=told):
        measure_thresholds(reals, FIT, rates)


def test_what_is_written_is_what_is_read() -> None:
    """Sets, rates asked for, intervals and counts."""
    assert CalibrationResult.from_json(measured().as_json()) == measured()


def test_the_file_of_an_older_release_is_refused() -> None:
    """It knows one set and not what was asked of it: calibration takes moments, so it is done again."""
    old = measured().as_json()
    del old["sets"]
    with pytest.raises(CalibrationError, match="run python -m trainer calibrate again"):
        CalibrationResult.from_json(old)


def test_the_manifest_holds_every_set_and_keeps_the_default() -> None:
    """Ids are of the bundle's name, version and the set's name."""
    best = Best({}, 7, 0.9, None, None)
    manifest = build_manifest(config(), best, LINEAGE, NOTHING_TESTED, measured())
    ids = [one.id for one in manifest.threshold_sets]
    assert ids == ["tiny-0.1.0-default", "tiny-0.1.0-few-alarms", "tiny-0.1.0-few-misses"]
    assert manifest.threshold_set().id == "tiny-0.1.0-default"
    assert manifest.threshold_set("few-misses").review == measured().sets[2].review
    assert manifest.lineage.config["export.threshold_sets.few-alarms.block_fpr"] == 0.01


def test_a_version_with_build_metadata_makes_ids_too() -> None:
    """A version may hold a plus, an id may not; the short name finds the set all the same."""
    built = config().model_copy(
        update={"export": config().export.model_copy(update={"version": "0.1.0+b7"})}
    )
    best = Best({}, 7, 0.9, None, None)
    manifest = build_manifest(built, best, LINEAGE, NOTHING_TESTED, measured())
    assert manifest.threshold_set("few-misses").id == "tiny-0.1.0-b7-few-misses"


def test_the_card_lists_every_set() -> None:
    """A row for each threshold, a column for each in the table of sources."""
    best = Best({}, 7, 0.9, None, None)
    card = model_card(config(), best, LINEAGE, NOTHING_TESTED, measured())
    point = measured().sets[1].review
    found = f"2.00% [{point.fpr_ci_low:.2%}, {point.fpr_ci_high:.2%}]"
    row = f"| few-alarms | review | {point.threshold:.4f} | 2.00% | 400 | {found} |"
    assert row in card
    head = (
        "| source | n | default review | default block | few-alarms review | few-alarms block | "
        "few-misses review | few-misses block |"
    )
    assert head in card
    assert "| loud | 200 | 20 | 4 | 8 | 4 | 40 | 20 |" in card


def test_figures_of_other_crops_are_refused(tmp_path: Path) -> None:
    """Nine crops of a picture rank better than one: the card would promise too much."""
    config = tiny_config(tmp_path)
    save_best(
        tmp_path, Best({}, 1, 0.5, None, None), config,
        {"code_commit": "c", "data_digest": "d", "teacher_id": "t"},
    )  # fmt: skip
    nine = {"crop_policy": "grid", "max_crops": 9, "development": str(tmp_path)}
    asked = config.model_copy(update={"export": config.export.model_copy(update=nine)})
    (tmp_path / EVALUATION).write_text(json.dumps(measured_with(config, "test")))
    with pytest.raises(CheckpointError, match=r"max_crops was 1\): run python -m trainer evaluate"):
        read_development(asked)
