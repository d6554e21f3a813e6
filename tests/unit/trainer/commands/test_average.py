"""Several runs as one: the mean of their weights, and all that any of them has seen."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.support.trainer import first_files, tiny_config, write_drawn, write_tiny_data
from tests.support.training import run
from trainer.commands.average import (
    advice,
    averageable_runs,
    mean_lineage,
    mean_statistics,
    mean_weights,
)
from trainer.training.checkpoint import CheckpointError, describe_mean, seen_generators

SHORT = {"epochs = 3": "steps = 2"}
MORE = SHORT | {
    "seed = 3": "seed = 4",
    'real = ["a"]': 'real = ["a", "drawn_a"]',
}
OTHERS = {
    "wider": SHORT | {"head_width = 8": "head_width = 4"},
    "plain": SHORT | {"[evaluation]": "[loss]\nlambda_noise = 0.0\n[evaluation]"},
    "otherwise normalised": SHORT | {"head_width = 8": "head_width = 8\nstd = [0.4, 0.4, 0.4]"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data with two short runs beside them, of which the second saw more."""
    root = write_tiny_data(tmp_path_factory.mktemp("averaging") / "data")
    write_drawn(root, "drawn_a")
    manifest = first_files(root / "fake/w", 4, "train", "test")
    more = MORE | {"[data.splits.train]": f"{manifest}[data.splits.train]"}
    for name, changes in {"one": SHORT, "two": more}.items():
        run(tiny_config(root, changes), root, name)
    return root


def folders(root: Path, *names: str) -> list[Path]:
    """Of the runs beside the data."""
    return [root.parent / name for name in names]


def test_every_weight_is_the_mean(root: Path) -> None:
    """Running statistics too; what counts batches has no mean."""
    runs = averageable_runs(folders(root, "one", "two"), tiny_config(root, SHORT))
    found = mean_weights(runs)
    first, second = (one.best.weights for one in runs)
    assert found.keys() == first.keys()
    moved = 0
    for name, value in found.items():
        assert value.dtype == first[name].dtype
        if value.is_floating_point():
            torch.testing.assert_close(value, (first[name] + second[name]) / 2)
            moved += not torch.equal(value, first[name])
        else:
            assert torch.equal(value, first[name])
    assert moved > len(found) / 2


def test_the_noise_is_told_by_the_mean_of_the_scales(root: Path) -> None:
    runs = averageable_runs(folders(root, "one", "two"), tiny_config(root, SHORT))
    found = mean_statistics(runs)
    first, second = (one.best.statistics for one in runs)
    assert found is not None
    assert first is not None
    assert second is not None
    assert first != second
    for channel, std in enumerate(found.std_C):
        assert std == pytest.approx((first.std_C[channel] + second.std_C[channel]) / 2)
        assert found.mean_C[channel] == pytest.approx(
            (first.mean_C[channel] + second.mean_C[channel]) / 2
        )


def test_a_mean_has_seen_what_any_of_its_runs_has(root: Path) -> None:
    """Files and generators; each run is listed with what it was trained by."""
    runs = averageable_runs(folders(root, "one", "two"), tiny_config(root, SHORT))
    lineage = mean_lineage(runs, "of today")
    files = [set(one.lineage["trained_on"].split()) for one in runs]
    assert set(lineage["trained_on"].split()) == files[0] | files[1] == files[1] > files[0]
    assert seen_generators(lineage).generators == {"x", "w"}
    assert lineage["code_commit"] == "of today"
    digests = [one.lineage["data_digest"] for one in runs]
    assert digests[0] != digests[1]
    assert lineage["data_digest"] not in digests
    assert mean_lineage([runs[0], runs[0]], "")["data_digest"] == digests[0]
    told = json.loads(lineage["averaged"])
    assert [one["best"] for one in told] == [f"sha256:{one.sha256}" for one in runs]
    assert [one["data_digest"] for one in told] == digests
    words = describe_mean(lineage)
    assert words.startswith("the mean of 2 runs' weights: best.pt sha256:")
    assert "seed 3, step 2; best.pt" in words
    assert words.endswith("seed 4, step 2")
    assert describe_mean(runs[0].lineage) == ""


def test_other_options_of_training_are_told(root: Path) -> None:
    """What a reader needs to make it again, beside the seed."""
    longer = tiny_config(root, {"epochs = 3": "steps = 3"})
    run(longer, root, "longer")
    runs = averageable_runs(folders(root, "one", "longer"), tiny_config(root, SHORT))
    words = describe_mean(mean_lineage(runs, ""))
    assert words.endswith("seed 3, step 3, `train.steps` 3")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("wider", "holds another network than"),
        ("otherwise normalised", "holds another network than"),
        ("plain", "learnt from another teacher"),
    ],
)
def test_runs_that_have_no_mean_are_refused(root: Path, name: str, why: str) -> None:
    run(tiny_config(root, OTHERS[name]), root, name)
    with pytest.raises(CheckpointError, match=why):
        averageable_runs(folders(root, "one", name), tiny_config(root, SHORT))


def test_what_is_no_two_runs_of_this_configuration_is_refused(root: Path) -> None:
    """One run; the same weights under two names; a first that another configuration trained."""
    config = tiny_config(root, SHORT)
    with pytest.raises(CheckpointError, match="needs at least two runs"):
        averageable_runs(folders(root, "one"), config)
    shutil.copytree(root.parent / "one", root.parent / "copy")
    with pytest.raises(CheckpointError, match=r"one, .*copy hold the same weights"):
        averageable_runs(folders(root, "one", "two", "copy"), config)
    with pytest.raises(
        CheckpointError, match=r"another configuration \(data.splits.train.real, .*seed"
    ):
        averageable_runs(folders(root, "two", "one"), config)
    with pytest.raises(CheckpointError, match="does not exist: train first"):
        averageable_runs(folders(root, "one", "missing"), config)


@pytest.mark.parametrize(
    ("mean", "surely", "told"),
    [
        (0.95, False, "at 0.9500, the best run alone at 0.9000"),
        (0.85, False, "under the best run alone (0.9000): take that run, or leave out the weakest"),
        (
            0.75,
            False,
            "under every one of its runs (0.8000 and more), by no more than other pictures",
        ),
        (0.75, True, "under every one of its runs: these weights do not belong together"),
    ],
)
def test_a_mean_is_judged_beside_its_runs(mean: float, surely: bool, told: str) -> None:  # noqa: FBT001  a parameter of the test
    assert told in advice([0.8, 0.9], mean, surely_under=surely)
