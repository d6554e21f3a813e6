"""``average``: two runs from the same weights become one that calibrates, evaluates, exports, and starts others."""

import json
from pathlib import Path

import pytest
import torch

from engines.bundle.verify import load_bundle
from tests.support.pairs import write_pairs
from tests.support.trainer import (
    TINY,
    command_options,
    write_config,
    write_drawn,
    write_tiny_data,
)
from trainer.cli import main
from trainer.training.checkpoint import read_best

SEEDS = (3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that went on from a third, and their mean."""
    folder = tmp_path_factory.mktemp("average")
    write_drawn(write_tiny_data(folder / "data"), "drawn_a")
    fakes = write_pairs(folder / "data", folder / "fakes", "a", "b")
    text = TINY.replace("[data.splits.train]", f'[data]\npairs = ["{fakes}"]\n[data.splits.train]')
    text = text.replace("[train]", "[train]\nvalidate_pairs = true")
    text = text.replace("[export]", "[export]\nreview_fpr = 0.5\nblock_fpr = 0.25")
    write_config(folder, "common", text.replace("epochs = 3", "epochs = 8"))
    later = text.replace("[train]", f'[train]\nstart_from = "{folder / "common"}"')
    for seed in SEEDS:
        write_config(folder, f"seed-{seed}", later.replace("seed = 3", f"seed = {seed}"))
    for name in ("common", *(f"seed-{seed}" for seed in SEEDS)):
        assert main(["train", *command_options(folder, name, name)], {}) == 0
    return folder


def average(folder: Path, config: str, output: str, *names: str) -> int:
    """The command's status."""
    runs = [str(folder / name) for name in names]
    return main(["average", *runs, *command_options(folder, config, output)], {})


def test_the_mean_goes_all_the_way_to_a_bundle(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Judged beside its runs, which its card and manifest name."""
    assert average(folder, "seed-3", "mean", "seed-3", "seed-4") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "the mean of the weights ranks the validation split at" in told
    assert "not ANL:" in told  # of tiny runs, whose noise heads learn nothing
    found = json.loads((folder / "mean" / "average.json").read_text())
    assert set(found["mean"]["report"]["mean_auc"]) == {
        "native", "aligned", "pairs, native", "pairs, jpeg90",
    }  # fmt: skip
    for name, figures in zip(("seed-3", "seed-4"), found["runs"], strict=True):
        best, _ = read_best(folder / name)
        # What training itself measured of these weights.
        assert figures["auc"] == pytest.approx(best.validation_auc)
        assert figures["explained_variance"] == pytest.approx(best.explained_variance, abs=1e-5)
    mean, _ = read_best(folder / "mean")
    assert mean.validation_auc == found["mean"]["auc"]
    assert mean.explained_variance == found["mean"]["explained_variance"] is not None
    for command in (["calibrate"], ["evaluate"], ["export", "--bundle", str(folder / "bundle")]):
        assert main([*command, *command_options(folder, "seed-3", "mean")], {}) == 0
    bundle = load_bundle(folder / "bundle")
    bundle.runtime.close()
    averaged = json.loads(str(bundle.manifest.lineage.config["train.averaged"]))
    assert [one["seed"] for one in averaged] == list(SEEDS)
    assert str(bundle.manifest.lineage.config["train.start_from"]).startswith("sha256:")
    card = (folder / "bundle" / "MODEL_CARD.md").read_text()
    assert "- the mean of 2 runs' weights: best.pt sha256:" in card


def test_runs_that_went_their_own_ways_are_told_to_have_no_mean(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Either ranks well; half way between them, neither's features are left, and these pictures can tell."""
    text = (folder / "common.toml").read_text().replace("epochs = 8", "epochs = 16")
    for seed in (7, 8):
        write_config(folder, f"own-{seed}", text.replace("seed = 3", f"seed = {seed}"))
        name = f"own-{seed}"
        assert main(["train", *command_options(folder, name, name)], {}) == 0
    assert average(folder, "own-7", "no mean", "own-7", "own-8") == 0
    assert "under every one of its runs: these weights do not belong together" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_run_starts_from_a_mean(folder: Path) -> None:
    """As from any other: with a learning rate of next to nothing it ends there."""
    assert average(folder, "seed-3", "a mean to start from", "seed-3", "seed-4") == 0
    text = (folder / "seed-3.toml").read_text()
    text = text.replace(str(folder / "common"), str(folder / "a mean to start from"))
    write_config(folder, "after", text.replace("lr = 0.01", "lr = 1e-12\nweight_decay = 0"))
    assert main(["train", *command_options(folder, "after", "after")], {}) == 0
    (mean, _), (after, _) = (read_best(folder / one) for one in ("a mean to start from", "after"))
    for name in mean.weights:
        if "running" not in name and "batches" not in name:
            torch.testing.assert_close(after.weights[name], mean.weights[name], atol=1e-6, rtol=0)


def test_a_development_run_may_be_a_mean(folder: Path) -> None:
    """The successor's card says of which runs."""
    assert average(folder, "seed-3", "development", "seed-3", "seed-4") == 0
    for command in ("calibrate", "evaluate"):
        assert main([command, *command_options(folder, "seed-3", "development")], {}) == 0
        assert main([command, *command_options(folder, "seed-4", "seed-4")], {}) == 0
    text = (folder / "seed-4.toml").read_text()
    write_config(
        folder,
        "successor",
        text.replace("[export]", f'[export]\ndevelopment = "{folder / "development"}"'),
    )
    bundle = folder / "successor bundle"
    export = ["export", "--bundle", str(bundle), *command_options(folder, "successor", "seed-4")]
    assert main(export, {}) == 0
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "; the mean of 2 runs' weights: best.pt sha256:" in card


def test_what_one_of_the_runs_was_trained_on_judges_no_mean(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though the first, whose configuration counts, has not seen it."""
    text = (folder / "common.toml").read_text().replace("epochs = 8", "steps = 2")
    write_config(folder, "more", text.replace('real = ["a"]', 'real = ["a", "drawn_a"]'))
    write_config(folder, "less", text.replace('real = ["e"]', 'real = ["e", "drawn_a"]'))
    for name in ("more", "less"):
        assert main(["train", *command_options(folder, name, name)], {}) == 0
    assert average(folder, "less", "leak", "less", "more") == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "files of the test split trained the run in" in told
    assert not (folder / "leak").exists()


def test_a_mean_that_nothing_judges_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A validation split of one class ranks nothing, and weights may not belong together."""
    text = (folder / "common.toml").read_text().replace("epochs = 8", "steps = 2")
    text = text.replace('fake = ["y"]', "fake = []").replace("validate_pairs = true\n", "")
    for seed in SEEDS:
        write_config(folder, f"blind-{seed}", text.replace("seed = 3", f"seed = {seed}"))
        name = f"blind-{seed}"
        assert main(["train", *command_options(folder, name, name)], {}) == 0
    assert average(folder, "blind-3", "blind", "blind-3", "blind-4") == 1
    assert "the validation split lacks real or generated" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (folder / "blind").exists()


def test_a_folder_that_holds_a_run_is_not_written_over(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "seed-3" / "best.pt").read_bytes()
    assert average(folder, "seed-3", "seed-3", "seed-3", "seed-4") == 1
    assert "holds a run already" in capsys.readouterr().err
    assert (folder / "seed-3" / "best.pt").read_bytes() == before
