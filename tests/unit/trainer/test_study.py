"""Tests of trainer/study, its configuration and the shipped study."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.trainer import TINY
from trainer.config import Changes, StudyConfig, parse_config, read_study
from trainer.errors import ConfigError
from trainer.study.cells import Cell, plan, run_cell
from trainer.study.report import Interval, compare, read_figures, write_report

CONFIGS = Path(__file__).parents[3] / "trainer" / "configs"
STUDY = """
base = "base.toml"
seeds = [1, 2]
folds = [["x"], ["v"]]
[variants.plain]
"loss.lambda_noise" = 0.0
[variants.anl]
[variants.other]
"teacher.source" = "${OTHER}"
[[rows]]
name = "claim"
question = "Does it help?"
baseline = "plain"
variants = ["anl"]
[[rows]]
name = "teacher"
question = "Which teacher?"
baseline = "anl"
variants = ["anl", "other"]
"""


@pytest.fixture
def study(tmp_path: Path) -> StudyConfig:
    (tmp_path / "base.toml").write_text(TINY.replace('fake = ["x"]', 'fake = ["x", "v", "u"]'))
    (tmp_path / "study.toml").write_text(STUDY)
    return read_study(tmp_path / "study.toml")


def planned(
    study: StudyConfig, row: str, environment: Mapping[str, str] | None = None
) -> list[Cell]:
    folder = study.base.parent
    data: Changes = {"data.roots": (str(folder),)}
    return plan(study, study.selected((row,)), data, folder / "out", environment or {})


def test_a_row_has_a_cell_for_each_variant_fold_and_seed(study: StudyConfig) -> None:
    cells = planned(study, "claim")
    assert [cell.name for cell in cells[:4]] == [
        "plain/x/seed1",
        "anl/x/seed1",
        "plain/v/seed1",
        "anl/v/seed1",
    ]
    assert len(cells) == 8


def test_a_cell_is_the_base_with_its_changes_and_without_its_fold(study: StudyConfig) -> None:
    """The fold's generators are held out: they are the test's fakes."""
    cell = planned(study, "claim")[-2]
    config = parse_config(cell.config.encode(), {})
    assert (config.seed, config.loss.lambda_noise) == (2, 0.0)
    assert config.data.roots == (study.base.parent,)
    assert config.data.hold_out == ("v",)
    assert config.data.splits.test.fake == ()
    base = parse_config(study.base.read_bytes(), {})
    assert config.train == base.train


def test_a_variable_is_resolved_when_its_cell_runs(study: StudyConfig) -> None:
    """A row without the variable is planned; a row with it says what to set."""
    with pytest.raises(ConfigError, match=r"other/x/seed1 refers to \$\{OTHER\}"):
        planned(study, "teacher")
    cells = planned(study, "teacher", {"OTHER": "/secret"})
    assert "${OTHER}" in cells[1].config
    assert "/secret" not in cells[1].config


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"loss.lambda_noise"', '"loss.lambda"', "plain/x/seed1 is not valid: loss.lambda"),
        ('"loss.lambda_noise"', '"seed.lambda"', "'seed' is not a table"),
        ('["v"]', '["q"]', "'q' is not in data.splits.train.fake"),
        ('["v"]', '["x"]', "one fold only"),
        ('variants = ["anl"]', 'variants = ["anly"]', "claim names 'anly'"),
        ('name = "teacher"', 'name = "claim"', "same name"),
        ('"base.toml"', '"absent.toml"', "not a readable TOML file"),
    ],
)
def test_a_study_that_cannot_run_says_why(
    study: StudyConfig, before: str, after: str, message: str
) -> None:
    path = study.base.parent / "study.toml"
    assert before in STUDY
    path.write_text(STUDY.replace(before, after))
    with pytest.raises(ConfigError, match=message):
        planned(read_study(path), "claim")


def test_an_unknown_row_is_an_error(study: StudyConfig) -> None:
    with pytest.raises(ConfigError, match="unknown row 'clam': choose from claim, teacher"):
        study.selected(("clam",))


def test_the_shipped_study_has_valid_cells() -> None:
    study = read_study(CONFIGS / "study.toml")
    names = {"TRAINER_TEACHER": "a", "TRAINER_TEACHER_B": "b", "TRAINER_FAKES": "c"}
    assert len(plan(study, study.rows, {}, Path("out"), names)) == 5 * 3 * len(study.variants)


def finish(cell: Cell, aucs: Mapping[str, float], unlearnt: str | None = None) -> None:
    """Write what train and evaluate leave behind."""
    cell.folder.mkdir(parents=True)
    (cell.folder / "config.toml").write_text(cell.config)
    (cell.folder / "run.json").write_text(
        json.dumps({"explained_variance": 0.4, "unlearnt": unlearnt})
    )
    families = [
        {"generator": name, "condition": condition, "auc": auc, "n_fake": 3, "n_real": 4}
        for name, auc in aucs.items()
        for condition in ("native", "aligned")
    ]
    (cell.folder / "evaluate-test.json").write_text(json.dumps({"families": families}))


class Trainer:
    """Takes the commands of a cell and leaves the files that the real ones leave."""

    def __init__(self, statuses: Sequence[int] = (0, 0)) -> None:
        self.statuses = list(statuses)
        self.commands: list[list[str]] = []

    def __call__(self, arguments: Sequence[str], log: Path) -> int:
        """Run nothing; return the next status."""
        self.commands.append(list(arguments))
        log.write_text("step 1\nerror: the loss is not finite\n")
        name = "run.json" if arguments[0] == "train" else "evaluate-test.json"
        status = self.statuses[len(self.commands) - 1]
        if status == 0:
            (log.parent / name).touch()
        return status


def test_a_cell_is_trained_and_evaluated_once(study: StudyConfig, tmp_path: Path) -> None:
    cell, trainer = planned(study, "claim")[0], Trainer()
    assert not cell.done
    assert run_cell(cell, tmp_path, trainer) == ""
    assert [command[0] for command in trainer.commands] == ["train", "evaluate"]
    assert cell.done


def test_an_interrupted_training_is_resumed(study: StudyConfig, tmp_path: Path) -> None:
    cell, trainer = planned(study, "claim")[0], Trainer([-9, 0, 0])
    assert "failed: status -9" in run_cell(cell, tmp_path, trainer)
    (cell.folder / "last.pt").touch()
    assert run_cell(cell, tmp_path, trainer) == ""
    assert ["--resume" in command for command in trainer.commands] == [False, True, False]
    assert not (cell.folder / "last.pt").exists()


def test_a_failed_evaluation_does_not_train_again(study: StudyConfig, tmp_path: Path) -> None:
    cell, trainer = planned(study, "claim")[0], Trainer([0, 1, 0])
    assert "failed: the loss is not finite (see " in run_cell(cell, tmp_path, trainer)
    assert run_cell(cell, tmp_path, trainer) == ""
    assert [command[0] for command in trainer.commands] == ["train", "evaluate", "evaluate"]


def test_a_cell_of_another_configuration_starts_again(study: StudyConfig, tmp_path: Path) -> None:
    cell, trainer = planned(study, "claim")[0], Trainer([0, 0])
    finish(cell, {"x": 0.5})
    (cell.folder / "last.pt").touch()
    (cell.folder / "config.toml").write_text("seed = 9\n")
    assert not cell.done
    assert run_cell(cell, tmp_path, trainer) == ""
    assert "--resume" not in trainer.commands[0]


def test_differences_are_paired_and_their_interval_is_over_seeds(study: StudyConfig) -> None:
    """By hand: x gains 0.1 and 0.3, v 0.0 and 0.2; t of one degree of freedom is 12.706."""
    aucs = {
        "plain": {("x", 1): 0.6, ("x", 2): 0.5, ("v", 1): 0.7, ("v", 2): 0.6},
        "anl": {("x", 1): 0.7, ("x", 2): 0.8, ("v", 1): 0.7, ("v", 2): 0.8},
    }
    cells = planned(study, "claim")
    for cell in cells:
        finish(cell, {cell.fold: aucs[cell.variant][cell.fold, cell.seed]})
    found = compare(read_figures(cells), study.rows[0], "anl")
    assert found.pairs == 4
    assert found.rows["x"]["native"].mean == pytest.approx(0.2)
    assert found.mean["native"].mean == pytest.approx(0.15)
    assert found.mean["native"].half == pytest.approx(12.706 * 0.1, abs=1e-3)
    assert found.mean["native"].conclusion == "no difference shown"


def test_only_pairs_that_are_whole_and_learnt_are_compared(study: StudyConfig) -> None:
    cells = {cell.name: cell for cell in planned(study, "claim")}
    finish(cells["plain/x/seed1"], {"x": 0.5})
    finish(cells["anl/x/seed1"], {"x": 0.7})
    finish(cells["plain/v/seed1"], {"v": 0.5})
    finish(cells["anl/v/seed1"], {"v": 0.9}, unlearnt="too little")
    finish(cells["anl/x/seed2"], {"x": 0.9})
    found = compare(read_figures(list(cells.values())), study.rows[0], "anl")
    assert (found.pairs, set(found.rows)) == (1, {"x", "mean"})
    assert str(found.mean["native"]) == "+0.200"
    assert found.mean["native"].conclusion == "needs two seeds"


@pytest.mark.parametrize(
    ("interval", "conclusion"),
    [(Interval(0.1, 0.05), "better"), (Interval(-0.1, 0.05), "worse")],
)
def test_a_conclusion_needs_an_interval_without_zero(interval: Interval, conclusion: str) -> None:
    assert interval.conclusion == conclusion
    assert not math.isnan(interval.half)


def test_the_report_names_what_is_done_missing_and_failed(study: StudyConfig) -> None:
    cells = planned(study, "claim")
    for cell in cells[:2]:
        finish(cell, {"x": 0.75})
    output = study.base.parent / "out"
    rows = study.selected(())
    text = write_report(
        study, rows, cells, {"anl/v/seed2": "failed: no memory"}, output
    ).read_text()
    assert "| claim | anl - plain | 1 of 4 | +0.000 | +0.000 | needs two seeds |" in text
    assert "| teacher | other - anl | 0 of 4 | - | - | not run |" in text
    assert "| plain | 1 of 4 | 0.750 | 0.750 | 0.400 | 0 |" in text
    assert "\nDoes it help?\n\n| anl - plain | native | aligned |\n|---|---|---|\n| x |" in text
    assert "- anl/v/seed2: failed: no memory" in text
    assert (output / "differences.png").stat().st_size > 1000
    assert len((output / "figures.csv").read_text().splitlines()) == 5


def test_a_report_without_cells_is_written(study: StudyConfig, tmp_path: Path) -> None:
    text = write_report(study, study.rows, [], {}, tmp_path).read_text()
    assert text.count("not run") == 2
