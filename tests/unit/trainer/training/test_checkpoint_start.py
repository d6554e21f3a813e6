"""A run may start from an earlier one, and is never judged by what that one has seen."""

import hashlib
from pathlib import Path

import pytest
import torch

from tests.support.trainer import tiny_config, write_tiny_data
from tests.support.training import Quiet, equal, run
from trainer.config import Config
from trainer.data.dataset import scan
from trainer.errors import DataError
from trainer.training.checkpoint import (
    BEST,
    CheckpointError,
    load_best,
    read_best,
    refuse_trained_on,
)
from trainer.training.loop import build


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated data that all tests here read."""
    return write_tiny_data(tmp_path_factory.mktemp("starting") / "data")


@pytest.fixture(scope="module")
def earlier(root: Path) -> Path:
    """The folder of a finished run."""
    run(tiny_config(root), root, "earlier")
    return root.parent / "earlier"


def starting(root: Path, folder: Path, changes: dict[str, str] | None = None) -> Config:
    """The tiny configuration, from that run on."""
    config = tiny_config(root, changes)
    train = config.train.model_copy(update={"start_from": str(folder)})
    return config.model_copy(update={"train": train})


def test_the_first_weights_are_those_of_the_earlier_run(root: Path, earlier: Path) -> None:
    """With a learning rate of next to nothing, the run ends where it began."""
    config = starting(root, earlier, {"lr = 0.01": "lr = 1e-12\nweight_decay = 0"})
    best = run(config, root, "stands still")
    first, _ = read_best(earlier)
    learnt = {name for name in first.weights if "running" not in name and "batches" not in name}
    for name in learnt:
        torch.testing.assert_close(best.weights[name], first.weights[name], atol=1e-6, rtol=0)


def test_a_start_is_part_of_the_lineage(root: Path, earlier: Path) -> None:
    """The digest of the earlier checkpoint is kept, and the list of files goes on."""
    config = starting(root, earlier)
    run(config, root, "later")
    _, lineage = load_best(root.parent / "later", config)
    digest = hashlib.sha256((earlier / BEST).read_bytes()).hexdigest()
    assert lineage["started_from"] == f"sha256:{digest}"
    _, before = read_best(earlier)
    assert set(before["trained_on"].split()) <= set(lineage["trained_on"].split())
    assert len(before["trained_on"].split()) > 10


def test_a_killed_run_with_a_start_resumes_to_the_same_weights(root: Path, earlier: Path) -> None:
    """What the checkpoint holds counts then, and not the start."""
    config = starting(root, earlier)
    whole = run(config, root, "whole from a start")
    with pytest.raises(KeyboardInterrupt):
        run(config, root, "killed from a start", Quiet(4))
    resumed = run(config, root, "killed from a start", resume=True)
    assert equal(resumed.weights, whole.weights)


def test_files_that_trained_the_earlier_run_cannot_judge(root: Path, earlier: Path) -> None:
    """Its training folder in this one's validation split is an error that names a file."""
    config = starting(root, earlier)
    splits = config.data.splits
    train, validation = splits.train, splits.validation
    turned = splits.model_copy(
        update={
            "train": train.model_copy(update={"real": validation.real}),
            "validation": validation.model_copy(update={"real": train.real[:1]}),
        }
    )
    data = config.data.model_copy(update={"splits": turned})
    with pytest.raises(DataError, match=r"files of the validation split trained the run .*real/"):
        build(config.model_copy(update={"data": data}), root.parent / "cache", print)


def test_nothing_judges_a_run_that_its_line_was_trained_on(root: Path, earlier: Path) -> None:
    """The splits that judge may change after a training, and may not bring its photographs back."""
    _, lineage = read_best(earlier)
    splits = tiny_config(root).data.splits
    test, train = splits.test, splits.train
    turned = splits.model_copy(
        update={
            "train": train.model_copy(update={"real": test.real}),
            "test": test.model_copy(update={"real": train.real}),
        }
    )
    data = tiny_config(root).data
    refuse_trained_on(earlier, lineage, scan(data))
    with pytest.raises(DataError, match=r"12 files of the test split .*: take them out"):
        refuse_trained_on(earlier, lineage, scan(data.model_copy(update={"splits": turned})))


def test_an_earlier_run_of_another_shape_is_refused(root: Path, earlier: Path) -> None:
    """The message says which part of the configuration must be the same."""
    config = starting(root, earlier)
    wider = config.detector.model_copy(update={"head_width": config.detector.head_width + 8})
    with pytest.raises(CheckpointError, match=r"start_from needs the \[detector\] that they were"):
        run(config.model_copy(update={"detector": wider}), root, "another shape")


def test_a_start_that_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere/best.pt does not exist"):
        build(starting(root, Path("nowhere")), root.parent / "cache", print)
