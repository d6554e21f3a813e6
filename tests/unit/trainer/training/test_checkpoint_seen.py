"""What counts as unseen is what no run of the line was trained on, by name."""

from pathlib import Path

import pytest

from tests.support.pairs import write_pairs
from tests.support.trainer import first_files, tiny_config, write_tiny_data
from tests.support.training import run
from trainer.commands.evaluate import run_model
from trainer.config import Config
from trainer.training.checkpoint import SeenGenerators, load_best, load_run, seen_generators


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated data that all tests here read."""
    return write_tiny_data(tmp_path_factory.mktemp("known") / "data")


def paired(
    root: Path, folder: Path, families: tuple[str, ...], changes: dict[str, str] | None = None
) -> Config:
    """The tiny configuration with pairs of its training photographs, for one epoch."""
    config = tiny_config(root, {"epochs = 3": "epochs = 1"} | (changes or {}))
    more = {"pairs": (folder,), "pair_families": families}
    return config.model_copy(update={"data": config.data.model_copy(update=more)})


def test_all_families_become_their_names(root: Path, tmp_path: Path) -> None:
    """An empty list of families is what the folder held then; evaluation calls no other one seen."""
    config = paired(root, write_pairs(root, tmp_path / "fakes", "a"), ())
    run(config, root, "all")
    subject = run_model(config, load_run(root.parent / "all", config)).info
    assert subject.seen_regenerators == ("one", "two")
    assert subject.saw_pairs("two")
    assert not subject.saw_pairs("three")
    assert (subject.saw("x"), subject.saw("w")) == (True, False)


def test_a_start_hands_on_what_it_knew(root: Path, tmp_path: Path) -> None:
    """What only the earlier run was trained on is not unseen by the later one."""
    folder = write_pairs(root, tmp_path / "fakes", "a")
    run(paired(root, folder, ("one",)), root, "first")
    manifest = first_files(root / "fake/w", 3, "train", "test")
    moved = {'fake = ["x"]': "fake = []", "[data.splits.train]": f"{manifest}[data.splits.train]"}
    later = paired(root, folder, ("two",), moved)
    train = later.train.model_copy(update={"start_from": str(root.parent / "first")})
    later = later.model_copy(update={"train": train})
    run(later, root, "second")
    _, lineage = load_best(root.parent / "second", later)
    known = seen_generators(lineage)
    assert known == SeenGenerators(frozenset({"x", "w"}), frozenset({"one", "two"}))
    assert known.saw("w")
