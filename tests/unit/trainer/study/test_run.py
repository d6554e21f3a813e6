"""A study does what is left, keeps what came of it, and lets no failure stop the rest."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from engines.runtime.machine import processor_name
from tests.support.trainer import tiny_config, write_tiny_data
from trainer.config import Config
from trainer.config.study import StudyConfig
from trainer.config.toml import parse_toml
from trainer.data.errors import DataError
from trainer.study.adapter import Outcome, Task
from trainer.study.grid import StudyError, cells
from trainer.study.processes import Event, Failed, Finished, Started
from trainer.study.results import RESULTS, FamilyFigure, Results, locked
from trainer.study.run import Plan, execute, plan
from trainer.training.checkpoint import LAST

TEXT = """
base = "base.toml"
seeds = [1, 2]
folds = [["x"]]
[variants.plain]
changes = { "loss.lambda_noise" = 0.0 }
[variants.anl]
[variants.other]
changes = { "teacher.source" = "${OTHER}" }
[[rows]]
name = "first"
question = "?"
baseline = "plain"
variants = ["anl"]
[[rows]]
name = "second"
question = "?"
baseline = "plain"
variants = ["other"]
"""
BOTH = {'fake = ["x"]': 'fake = ["x", "v"]'}


class Watching:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.total, self.left = 0, 0
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keeps the text."""
        self.notes.append(text)

    def planned(self, total: int, left: int) -> None:
        """Keeps the numbers."""
        self.total, self.left = total, left

    def happened(self, event: Event) -> None:
        """Nothing to keep."""


def scripted(fails: Sequence[str] = (), stop_after: int | None = None) -> "Scripted":
    """A runner that trains nothing."""
    return Scripted(tuple(fails), stop_after)


class Scripted:
    """Every task ends at once; those named fail; after some the study is cut short."""

    def __init__(self, fails: tuple[str, ...], stop_after: int | None) -> None:
        self._fails, self._stop_after = fails, stop_after
        self.ran: list[str] = []

    def __call__(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """The events of all."""
        for task in tasks[: self._stop_after]:
            self.ran.append(task.name)
            yield Started(task)
            (task.folder / LAST).write_bytes(b"a checkpoint")
            if task.name in self._fails:
                yield Failed(task, "no luck")
            else:
                figure = FamilyFigure(
                    gate="off", condition="native", family="x", auc=0.7, n_fake=5, n_real=9
                )
                yield Finished(task, Outcome(0.4, 0.8, 12, "teacher", (figure,), 3.5))


@pytest.fixture
def study() -> StudyConfig:
    """One fold, two seeds, two rows."""
    return parse_toml(StudyConfig, TEXT.encode(), {"OTHER": "${OTHER}"}, "study")


@pytest.fixture
def base(tmp_path: Path) -> Config:
    """Two families, so that one can be left out."""
    write_tiny_data(tmp_path / "data", count=2)
    (tmp_path / "data" / "fake" / "v").mkdir()
    (tmp_path / "data" / "fake" / "v" / "0.png").write_bytes(b"another picture")
    return tiny_config(tmp_path / "data", BOTH)


@pytest.fixture
def planned(study: StudyConfig, base: Config, tmp_path: Path) -> Plan:
    """All cells of both rows."""
    return plan(study, base, {"OTHER": "there"}, tmp_path / "out", tmp_path / "cache")


def run(planned: Plan, study: StudyConfig, folder: Path, runner: Scripted, **how: bool) -> Watching:
    """Run the first row."""
    folder.mkdir(exist_ok=True)
    watching = Watching()
    wanted = planned.of(cells(study, "first"))
    retry = how.get("retry_failed", False)
    execute(wanted, Results(folder), runner, watching, retry_failed=retry)
    return watching


def test_a_done_cell_is_never_run_again(planned: Plan, study: StudyConfig, tmp_path: Path) -> None:
    """Cut short after three, the study goes on with the fourth."""
    out = tmp_path / "out"
    run(planned, study, out, scripted(stop_after=3))
    again = scripted()
    watching = run(planned, study, out, again)
    assert again.ran == ["anl/x/seed2"]
    assert (watching.total, watching.left) == (4, 1)
    assert len((out / RESULTS).read_text().splitlines()) == 4


def test_a_result_says_what_it_is_of(planned: Plan, study: StudyConfig, tmp_path: Path) -> None:
    """The key, the digests, the figures, and where the logits are."""
    run(planned, study, tmp_path / "out", scripted())
    records = Results(tmp_path / "out").latest(planned.stamps())
    record = records["anl", ("x",), 2]
    assert (record.row, record.status, record.explained_variance) == ("first", "done", 0.4)
    assert record.processor == processor_name()
    assert record.learns_noise
    assert not records["plain", ("x",), 2].learns_noise
    assert record.logits == "cells/anl/x/seed2/logits.npz"
    assert record.families[0].auc == 0.7
    assert record.stamp.config_digest != records["plain", ("x",), 2].stamp.config_digest
    assert record.stamp.data_digest == records["plain", ("x",), 2].stamp.data_digest


def test_a_failed_cell_stops_no_other_and_waits_for_a_retry(
    planned: Plan, study: StudyConfig, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = scripted(fails=["anl/x/seed1"])
    run(planned, study, out, first)
    assert len(first.ran) == 4
    failed = Results(out).latest(planned.stamps())["anl", ("x",), 1]
    assert (failed.status, failed.error) == ("failed", "no luck")
    patient, retrying = scripted(), scripted()
    run(planned, study, out, patient)
    assert patient.ran == []
    run(planned, study, out, retrying, retry_failed=True)
    assert retrying.ran == ["anl/x/seed1"]
    assert Results(out).latest(planned.stamps())["anl", ("x",), 1].status == "done"


def test_a_line_cut_off_by_a_kill_is_passed_over(
    planned: Plan, study: StudyConfig, tmp_path: Path
) -> None:
    """Its cell runs again, and the next line begins on a line of its own."""
    out = tmp_path / "out"
    run(planned, study, out, scripted())
    whole = (out / RESULTS).read_bytes()
    (out / RESULTS).write_bytes(whole[:-40])
    again = scripted()
    run(planned, study, out, again)
    assert again.ran == ["anl/x/seed2"]
    results = Results(out)
    assert results.unreadable == 1
    assert len(results.latest(planned.stamps())) == 4


def test_results_of_other_choices_or_data_do_not_count(
    planned: Plan, study: StudyConfig, base: Config, tmp_path: Path
) -> None:
    """More epochs, or a picture more, is another study: its cells run, from their beginning."""
    out = tmp_path / "out"
    run(planned, study, out, scripted())
    longer = base.model_copy(update={"train": base.train.model_copy(update={"epochs": 9})})
    (tmp_path / "data" / "real" / "a" / "more.png").write_bytes(b"more")
    for changed in (longer, base):
        other = plan(study, changed, {"OTHER": "there"}, out, tmp_path / "cache")
        assert Results(out).latest(other.stamps()) == {}
        assert Results(out).stale(other.stamps()) >= 4
        again = scripted(stop_after=1)
        (out / "cells" / "plain" / "x" / "seed1" / LAST).write_bytes(b"of the other")
        assert any("starts again" in one for one in run(other, study, out, again).notes)


def test_the_checkpoint_of_a_done_cell_is_removed_and_of_a_failed_one_kept(
    planned: Plan, study: StudyConfig, tmp_path: Path
) -> None:
    """It is the largest file; a failed cell goes on from it when it is tried again."""
    run(planned, study, tmp_path / "out", scripted(fails=["anl/x/seed1"]))
    folder = tmp_path / "out" / "cells"
    assert not (folder / "plain" / "x" / "seed1" / LAST).exists()
    assert (folder / "anl" / "x" / "seed1" / LAST).exists()


def test_a_missing_variable_stops_its_own_row_alone(
    study: StudyConfig, base: Config, tmp_path: Path
) -> None:
    found = plan(study, base, {}, tmp_path / "out", tmp_path / "cache")
    assert len(found.of(cells(study, "first"))) == 4
    with pytest.raises(StudyError, match="set that environment variable, or stop before its row"):
        found.of(cells(study))


def test_data_that_leak_stop_the_study_before_any_training(
    study: StudyConfig, base: Config, tmp_path: Path
) -> None:
    """The left-out family's picture lies in a folder that training reads."""
    folder = tmp_path / "data" / "fake"
    (folder / "v" / "same.png").write_bytes((folder / "x" / "000.png").read_bytes())
    with pytest.raises(DataError, match="leak"):
        plan(study, base, {}, tmp_path / "out", tmp_path / "cache")


def test_two_studies_never_share_a_folder(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "study.lock", wait=False),
        pytest.raises(StudyError, match="another study"),
        locked(tmp_path / "study.lock", wait=False),
    ):
        pass
