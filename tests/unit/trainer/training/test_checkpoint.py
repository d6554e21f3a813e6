"""A run is known by its choices, not by where things lie on a machine."""

import json
from pathlib import Path

import pytest

from engines.bundle.manifest import read_manifest
from tests.support.trainer import TINY, tiny_config
from trainer.config import Config, parse_config
from trainer.training.checkpoint import (
    Best,
    CheckpointError,
    SeenGenerators,
    config_of,
    flat_config,
    load_best,
    measured_with,
    read_best,
    refuse_other_settings,
    save_best,
    seen_generators,
)

REFERENCE = Path(__file__).parents[4] / "engines" / "bundles" / "reference"
LINEAGE = {"code_commit": "c", "data_digest": "d", "teacher_id": "t"}


def config(data: str) -> Config:
    """The tiny configuration with more of its table of data."""
    text = TINY.replace("[data.splits.train]", f"[data]\n{data}\n[data.splits.train]", 1)
    return parse_config(text.encode(), {})


def test_a_run_is_the_same_where_its_pairs_lie_elsewhere(tmp_path: Path) -> None:
    """The folder of the pairs is this machine's; which families are drawn is the run's."""
    best = Best({}, 1, 0.5, None, None)
    save_best(tmp_path, best, config('pairs = ["/here/fakes"]'), LINEAGE)
    load_best(tmp_path, config('pairs = ["/there/fakes"]'))
    with pytest.raises(CheckpointError, match=r"data\.pair_families"):
        load_best(tmp_path, config('pairs = ["/here/fakes"]\npair_families = ["srgan"]'))


def test_a_bundle_says_which_sets_of_pairs_it_knows_and_not_where_they_lay() -> None:
    """By the folder's name alone."""
    flat = flat_config(config('roots = ["/home/me/data"]\npairs = ["/home/me/fakes"]'))
    assert flat["data.pairs"] == '["fakes"]'
    assert "/home/me" not in json.dumps(flat)


def test_a_bundle_lists_what_its_line_of_runs_has_seen() -> None:
    """The names of all that they saw, and not the patterns of the last configuration."""
    seen = SeenGenerators(frozenset({"sd1", "x"}), frozenset({"srgan", "taef2"}))
    lineage = flat_config(config('pairs = ["/x/fakes"]')) | seen.as_lineage()
    assert seen_generators(lineage) == seen
    shipped = seen_generators(read_manifest(REFERENCE).lineage.config)
    assert shipped.saw("dalle2")
    assert not shipped.saw("nobody")


def test_a_run_says_by_which_configuration_it_was_trained(tmp_path: Path) -> None:
    """One of an option that is no more says so, in place of a list of what pydantic found."""
    best, trained = Best({}, 1, 0.5, None, None), config("")
    save_best(tmp_path, best, trained, LINEAGE)
    _, lineage = read_best(tmp_path)
    assert config_of(tmp_path, lineage) == trained
    older = json.loads(lineage["config"])
    older["train"]["shrink_p"] = 0.3
    with pytest.raises(
        CheckpointError,
        match=r"options that this version does not have, .*\(train\.shrink_p\): use the version",
    ):
        config_of(tmp_path, {"config": json.dumps(older)})


def test_results_name_the_files_and_crops_that_they_were_measured_with(tmp_path: Path) -> None:
    """Results of other files, crops or another graph are refused, and so are those that name none."""
    before = tiny_config(tmp_path)
    path = tmp_path / "evaluate-test.json"
    others = {
        r"data\.splits\.test\.real was .*: again": {'real = ["e"]': 'real = ["e", "d"]'},
        r"crop_policy was center, .*max_crops was 1\): again": {
            "[export]\n": '[export]\ncrop_policy = "five_crop"\nmax_crops = 5\n'
        },
        r"gate was off\): again": {"[export]\n": '[export]\ngate = "on"\n'},
    }
    for message, changes in others.items():
        after = tiny_config(tmp_path, changes)
        refuse_other_settings(measured_with(before, "test"), before, path, ("test",), "again")
        refuse_other_settings(measured_with(after, "test"), after, path, ("test",), "again")
        with pytest.raises(CheckpointError, match=message):
            refuse_other_settings(measured_with(before, "test"), after, path, ("test",), "again")
    with pytest.raises(CheckpointError, match="again"):
        refuse_other_settings({}, before, path, ("test",), "again")


def test_a_manifest_of_splits_is_part_of_what_was_measured(tmp_path: Path) -> None:
    """It decides which files a split has; where it lies does not matter."""
    (tmp_path / "manifest.csv").write_text("one")
    config = tiny_config(tmp_path)
    config = config.model_copy(
        update={"data": config.data.model_copy(update={"manifest": tmp_path / "manifest.csv"})}
    )
    content = measured_with(config, "test")
    refuse_other_settings(content, config, tmp_path / "x.json", ("test",), "again")
    (tmp_path / "manifest.csv").write_text("two")
    with pytest.raises(CheckpointError, match=r"data\.manifest was"):
        refuse_other_settings(content, config, tmp_path / "x.json", ("test",), "again")
