"""Training can be killed and resumed, is repeated by its seed, and stops where it goes astray."""

from pathlib import Path

import pytest
import torch

from tests.support.trainer import tiny_config, write_tiny_data
from trainer.config import Config
from trainer.evaluation.families import Report
from trainer.training.checkpoint import Best, CheckpointError, load_best
from trainer.training.journal import Summary
from trainer.training.loop import train
from trainer.training.losses import Loss, LossError
from trainer.training.pace import Pace
from trainer.training.schedule import hash_of, learning_rate
from trainer.training.setup import build


class Quiet:
    """Notes the losses; may die after a step, as a killed process does."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.losses: list[tuple[float, float]] = []
        self.reports: list[tuple[Report, float | None]] = []
        self.computed = 0
        self.paces: list[Pace] = []
        self.summary: Summary | None = None
        self._dies_after = dies_after

    def step(self, step: int, steps: int, loss: Loss, computed: int) -> None:
        """Keep the loss."""
        assert step < steps
        self.computed = computed
        self.losses.append((loss.bce, loss.noise))
        if step == self._dies_after:
            raise KeyboardInterrupt

    def epoch(self, step: int, report: Report, explained_variance: float | None) -> None:
        """Keep the report."""
        assert step > 0
        self.reports.append((report, explained_variance))

    def pace(self, pace: Pace) -> None:
        """Keep the pace."""
        self.paces.append(pace)

    def finished(self, summary: Summary) -> None:
        """Keep the summary."""
        self.summary = summary


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated data that all tests here read."""
    return write_tiny_data(tmp_path_factory.mktemp("trainer") / "data")


def run(
    config: Config, root: Path, name: str, reporter: Quiet | None = None, *, resume: bool = False
) -> Best:
    """Train into a folder beside the data."""
    material = build(config, root.parent / "cache", lambda _text: None)
    return train(config, material, root.parent / name, reporter or Quiet(), resume=resume)


@pytest.fixture(scope="module")
def whole(root: Path) -> tuple[Best, Quiet]:
    """An uninterrupted run."""
    reporter = Quiet()
    return run(tiny_config(root), root, "whole", reporter), reporter


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are the same, bit for bit."""
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


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


def test_another_seed_gives_other_weights(whole: tuple[Best, Quiet], root: Path) -> None:
    """The seed matters."""
    best = run(tiny_config(root, {"seed = 3": "seed = 4"}), root, "seed4")
    assert not equal(best.weights, whole[0].weights)


def test_a_finished_run_is_not_written_over(whole: tuple[Best, Quiet], root: Path) -> None:
    """Without --resume a folder that holds a run is refused."""
    assert whole
    with pytest.raises(CheckpointError, match="go on with --resume"):
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


def test_the_learning_rate_rises_then_falls(root: Path) -> None:
    """Two steps of warm-up, the peak, then down to a hundredth."""
    config = tiny_config(root)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates[0] == pytest.approx(0.005)
    assert rates[1] == rates[2] == pytest.approx(0.01)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert learning_rate(config, 10, 10) == pytest.approx(0.0001)


def test_steps_have_seeds_of_their_own() -> None:
    """No two of a thousand steps share one."""
    assert len({hash_of(1, step) for step in range(1000)}) == 1000
