"""Training can be killed and resumed, is repeated by its seed, and stops where it goes astray."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.trainer import tiny_config, write_tiny_data
from tests.support.training import Quiet, equal, run
from trainer.errors import ConfigError
from trainer.training.checkpoint import Best, CheckpointError, load_best
from trainer.training.losses import Loss, LossError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated data that all tests here read."""
    return write_tiny_data(tmp_path_factory.mktemp("trainer") / "data")


@pytest.fixture(scope="module")
def whole(root: Path) -> tuple[Best, Quiet]:
    """An uninterrupted run."""
    reporter = Quiet()
    return run(tiny_config(root), root, "whole", reporter), reporter


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights after the last step."""
    content = torch.load(folder / "last.pt", weights_only=True)
    weights: dict[str, torch.Tensor] = content["weights"]
    return weights


def test_training_learns(whole: tuple[Best, Quiet]) -> None:
    """Both losses fall, unseen fakes are told from unseen photographs, noise is explained."""
    best, reporter = whole
    assert reporter.losses[-1][0] < reporter.losses[0][0]
    assert best.validation_auc > 0.8
    assert best.explained_variance is not None
    assert best.explained_variance > 0
    assert len(reporter.reports) == 3
    assert reporter.computed > 0


@pytest.mark.parametrize("dies_after", [0, 4, 7])
def test_a_killed_run_resumes_to_the_same_weights(
    whole: tuple[Best, Quiet], root: Path, dies_after: int
) -> None:
    """Killed in mid-epoch or between checkpoints, it ends bit for bit as the uninterrupted one."""
    name = f"killed{dies_after}"
    with pytest.raises(KeyboardInterrupt):
        run(tiny_config(root), root, name, Quiet(dies_after))
    has_checkpoint = (root.parent / name / "last.pt").exists()
    assert has_checkpoint == (dies_after >= 2)
    best = run(tiny_config(root), root, name, resume=has_checkpoint)
    assert equal(final_weights(root.parent / name), final_weights(root.parent / "whole"))
    assert equal(best.weights, whole[0].weights)


def test_a_run_says_how_it_ended(whole: tuple[Best, Quiet], root: Path) -> None:
    """run.json holds the pace and its shares, the device, and that this run is not ANL."""
    _, reporter = whole
    content = json.loads((root.parent / "whole" / "run.json").read_text())
    assert content["stopped"] == "at the end"
    assert (content["device"], content["processes"], content["precision"]) == ("cpu", 1, "fp32")
    assert content["pace"]["images"] == 8 * content["step"]
    shares = [content["pace"][f"{name}_share"] for name in ("data", "teacher", "student")]
    assert all(share >= 0 for share in shares)
    assert 0 < sum(shares) <= 1
    assert "does not count as ANL" in content["unlearnt"]
    assert reporter.summary is not None
    assert reporter.summary.step == content["step"]
    progress = (root.parent / "whole" / "progress.jsonl").read_text().splitlines()
    assert all(json.loads(line)["pace"]["validation_share"] > 0 for line in progress)


def test_batches_can_share_a_step(root: Path) -> None:
    """Steps in place of epochs, two batches to each, two threads that make them; killed, resumed."""
    changes = {
        "epochs = 3": "steps = 4\nvalidate_every_steps = 3\naccumulate = 2\ndata_workers = 2"
    }
    reporter = Quiet()
    config = tiny_config(root, changes)
    expected = run(config, root, "parts", reporter)
    assert len(reporter.losses) == 4
    assert len(reporter.reports) == 2
    with pytest.raises(KeyboardInterrupt):
        run(config, root, "parts-killed", Quiet(2))
    found = run(config, root, "parts-killed", resume=True)
    assert equal(found.weights, expected.weights)


def test_a_run_stops_that_gets_no_better(root: Path) -> None:
    """With patience 1 and weights that hardly move, the second validation is the last."""
    changes = {"lr = 0.01": "lr = 1e-12\nvalidate_every_steps = 1\npatience = 1"}
    reporter = Quiet()
    run(tiny_config(root, changes), root, "patient", reporter)
    assert reporter.summary is not None
    assert "without a better one" in reporter.summary.stopped
    assert reporter.summary.step < 9
    again = Quiet()
    run(tiny_config(root, changes), root, "patient", again, resume=True)
    assert again.losses == []


def test_the_last_step_is_kept_where_that_is_asked_for(root: Path) -> None:
    """Whatever the validation says of it: with this seed the first step is the best."""
    changes = {"lr = 0.01": 'lr = 0.02\nvalidate_every_steps = 1\nsteps = 5\nkeep = "last"'}
    changes |= {"seed = 3": "seed = 4"}
    reporter = Quiet()
    best = run(tiny_config(root, changes), root, "last", reporter)
    aucs = [float(np.mean(list(report.mean_auc.values()))) for report, _ in reporter.reports]
    assert max(aucs) > aucs[-1]  # else this shows nothing
    assert best.step == 5
    assert best.validation_auc == pytest.approx(aucs[-1])
    with pytest.raises(ConfigError, match=r"patience waits for a better validation"):
        tiny_config(root, {"lr = 0.01": 'patience = 1\nkeep = "last"'})


def test_low_precision_trains_too(root: Path) -> None:
    """In bf16 the first loss is that of fp32 but for rounding, and it is finite to the end."""
    low, full = Quiet(), Quiet()
    run(tiny_config(root, {"epochs = 3": 'steps = 2\nprecision = "bf16"'}), root, "bf16", low)
    run(tiny_config(root, {"epochs = 3": "steps = 2"}), root, "fp32", full)
    assert low.losses[0] == pytest.approx(full.losses[0], rel=0.1)
    assert low.losses != full.losses


def test_a_run_is_resumed_by_as_many_processes(whole: tuple[Best, Quiet], root: Path) -> None:
    """Another number would draw other batches: the message has both."""
    assert whole
    shutil.copytree(root.parent / "whole", root.parent / "of-two")
    content = torch.load(root.parent / "of-two" / "last.pt", weights_only=True)
    torch.save(content | {"processes": 2}, root.parent / "of-two" / "last.pt")
    with pytest.raises(CheckpointError, match="had 2 processes, now there are 1"):
        run(tiny_config(root), root, "of-two", resume=True)


def test_another_seed_gives_other_weights(whole: tuple[Best, Quiet], root: Path) -> None:
    """The seed matters."""
    best = run(tiny_config(root, {"seed = 3": "seed = 4"}), root, "seed4")
    assert not equal(best.weights, whole[0].weights)


def test_a_finished_run_is_not_written_over(whole: tuple[Best, Quiet], root: Path) -> None:
    """Without --resume a folder that holds a run is refused."""
    assert whole
    with pytest.raises(CheckpointError, match="continue it with --resume"):
        run(tiny_config(root), root, "whole")


def test_another_configuration_is_not_resumed(whole: tuple[Best, Quiet], root: Path) -> None:
    """The message names what differs."""
    assert whole
    changed = tiny_config(root, {"lr = 0.01": "lr = 0.02"})
    with pytest.raises(CheckpointError, match=r"train\.lr differ"):
        run(changed, root, "whole", resume=True)


def test_nothing_to_resume_is_said(root: Path) -> None:
    """--resume on an empty folder says what to do."""
    with pytest.raises(CheckpointError, match="train first"):
        run(tiny_config(root), root, "nothing", resume=True)


def test_a_broken_checkpoint_is_named(root: Path) -> None:
    """A file that is no checkpoint is refused."""
    (root.parent / "broken").mkdir()
    (root.parent / "broken" / "last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"last\.pt cannot be read"):
        run(tiny_config(root), root, "broken", resume=True)


def test_a_diverging_run_stops(root: Path) -> None:
    """A learning rate far too high ends in a message, not in weights of NaN."""
    changed = tiny_config(root, {"lr = 0.01": "lr = 1e30"})
    with pytest.raises(LossError, match=r"lower train\.lr"):
        run(changed, root, "diverging")
    assert not (root.parent / "diverging" / "best.pt").exists()


def test_the_lineage_is_kept_with_the_weights(whole: tuple[Best, Quiet], root: Path) -> None:
    """best.pt says which data, teacher and code made it."""
    _, lineage = load_best(root.parent / "whole", tiny_config(root))
    assert lineage["teacher_id"].startswith("random-tiny@0-plain")
    assert len(lineage["data_digest"]) == 64
    assert whole[0].step % 3 == 0


def test_weights_are_read_with_their_own_configuration(
    whole: tuple[Best, Quiet], root: Path
) -> None:
    """The export may be set anew; a detector of another kind is refused by name."""
    assert whole
    folder = root.parent / "whole"
    load_best(folder, tiny_config(root, {"batch_max = 4": "batch_max = 6"}))
    with pytest.raises(CheckpointError, match=r"detector\.head_width differ"):
        load_best(folder, tiny_config(root, {"head_width = 8": "head_width = 4"}))


def test_the_plain_control_asks_no_teacher(root: Path) -> None:
    """lambda_noise = 0 trains the backbone alone."""

    class Unasked(Quiet):
        """Accepts a run without targets."""

        def step(self, step: int, steps: int, loss: Loss, computed: int) -> None:
            """No target is computed, no noise is lost."""
            assert step < steps
            assert computed == 0
            assert loss.noise == 0

    plain = tiny_config(root, {"[train]": "[loss]\nlambda_noise = 0.0\n[train]"})
    best = run(plain, root, "plain", Unasked())
    assert best.explained_variance is None
    assert best.statistics is None
