"""The report says what the cells allow, and no more."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.trainer import tiny_config
from trainer.config.study import StudyConfig
from trainer.config.toml import parse_toml
from trainer.study.adapter import Task
from trainer.study.cost import GATE_OFF, GATE_ON, PLAIN, Cost, Latency
from trainer.study.findings import Key
from trainer.study.grid import Cell, StudyError, cells
from trainer.study.report import check_curves, write_report
from trainer.study.results import CellRecord, FamilyFigure, Stamp
from trainer.study.run import Plan, Planned

TEXT = """
base = "base.toml"
seeds = [1, 2]
folds = [["x"], ["y"]]
resamples = 200
[variants.plain]
[variants.anl]
[variants.late]
changes = { "teacher.timestep_index" = 10 }
[variants.gated]
gates = ["off", "on"]
[[rows]]
name = "claim"
question = "Does it help?"
baseline = "plain"
variants = ["anl"]
[[rows]]
name = "steps"
question = "At which step?"
baseline = "plain"
variants = ["anl", "late"]
curve = "teacher.timestep_index"
[[rows]]
name = "gate"
question = "Does the gate help?"
baseline = "plain"
variants = ["gated"]
"""
STAMP = Stamp(config_digest="c", data_digest="d")
SHIFT = {"plain": 0.3, "anl": 2.5, "late": 0.3, "gated": 0.3}
COST = Cost(
    config_digest="c",
    backbone="lite",
    crop_px=224,
    rounds=3,
    nodes={PLAIN: 100, GATE_OFF: 100, GATE_ON: 140},
    same_operators=True,
    latency=dict.fromkeys(
        (PLAIN, GATE_OFF, GATE_ON), Latency(median_ms=1.0, p10_ms=0.9, p90_ms=1.1)
    ),
)


@pytest.fixture
def study() -> StudyConfig:
    """Two folds, two seeds, three rows."""
    return parse_toml(StudyConfig, TEXT.encode(), {}, "study")


def plan_of(study: StudyConfig, root: Path) -> Plan:
    """Every cell, with configurations that differ in the step alone."""
    found = []
    for cell in cells(study):
        config = tiny_config(root)
        step = study.variants[cell.variant].changes.get("teacher.timestep_index", 0)
        teacher = config.teacher.model_copy(update={"timestep_index": step})
        config = config.model_copy(update={"teacher": teacher})
        task = Task(cell.name, config, ("off",), root / cell.name, root)
        found.append(Planned(cell, task, STAMP))
    return Plan(tuple(found), {})


def done(root: Path, cell: Cell, explained: float | None) -> CellRecord:
    """A cell whose generated images lie ``SHIFT`` above the real ones."""
    random = np.random.default_rng([cell.seed, len(cell.variant), ord(cell.fold[0])])
    keys = [f"real/e/{i}.png" for i in range(30)] + [
        f"fake/{cell.fold[0]}/{i}.png" for i in range(30)
    ]
    values = random.normal(size=60).astype(np.float32)
    values[30:] += SHIFT[cell.variant]
    gates = ("off", "on") if cell.variant == "gated" else ("off",)
    names = [f"{gate}_{condition}" for gate in gates for condition in ("native", "aligned")]
    path = root / f"{cell.name.replace('/', '-')}.npz"
    np.savez(path, key=np.array(keys), **dict.fromkeys(names, values))  # type: ignore[arg-type]
    figures = tuple(
        FamilyFigure.model_validate(
            {"gate": gate, "condition": condition, "family": cell.fold[0]}
            | {"auc": 0.5 + SHIFT[cell.variant] / 10, "n_fake": 30, "n_real": 30}
        )
        for gate in gates
        for condition in ("native", "aligned")
    )
    return CellRecord(
        row=cell.row,
        variant=cell.variant,
        fold=cell.fold,
        seed=cell.seed,
        status="done",
        stamp=STAMP,
        code_commit="abcdef0123456",
        finished_at="2026-01-01T00:00:00+00:00",
        wall_s=90.0,
        learns_noise=explained is not None,
        explained_variance=explained,
        validation_auc=0.8,
        best_step=10,
        families=figures,
        logits=path.name,
    )


def all_done(study: StudyConfig, root: Path, explained: float = 0.45) -> dict[Key, CellRecord]:
    """Every cell of the study."""
    return {
        cell.key: done(root, cell, None if cell.variant == "plain" else explained)
        for cell in cells(study)
    }


def report(
    study: StudyConfig, records: dict[Key, CellRecord], root: Path
) -> tuple[str, dict[str, object]]:
    """What is written."""
    path = write_report(study, plan_of(study, root), records, COST, root)
    return path.read_text(), json.loads((root / "report.json").read_text())


def test_a_gain_over_all_cells_is_called_one(study: StudyConfig, tmp_path: Path) -> None:
    """The claim's sentence, both folds, no word of a preliminary result; plots where they belong."""
    text, content = report(study, all_done(study, tmp_path), tmp_path)
    claim = text.split("## The claim")[1].split("##")[0]
    assert "native: better (+0." in claim
    assert "ahead on 2 of 2 folds" in claim
    assert "Preliminary" not in text
    assert "not run yet" not in text.lower()
    assert "gated, gate on - plain" in text
    # A later row asks the same of the same runs: it says where the answer stands.
    assert "| steps | anl - plain |" not in text
    assert "`anl` less `plain`: see claim." in text
    assert not (tmp_path / "steps-anl.png").exists()
    rows = content["rows"]
    assert isinstance(rows, list)
    assert rows[0]["comparisons"][0]["difference"]["native"]["mean"]["low"] > 0
    for name in ("claim-anl.png", "steps-curve.png", "steps-late.png", "gate-gated-gate-on.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert f"]({name})" in text


def test_no_difference_is_claimed_where_the_interval_holds_zero(
    study: StudyConfig, tmp_path: Path
) -> None:
    text, _ = report(study, all_done(study, tmp_path), tmp_path)
    row = next(line for line in text.splitlines() if line.startswith("| steps | late - plain"))
    assert "[-0." in row
    assert "+0." in row


def test_a_run_that_learnt_too_little_is_listed_and_counts_for_nothing(
    study: StudyConfig, tmp_path: Path
) -> None:
    """One seed under 30 %: its pair leaves the claim's row, and stays in the others."""
    records = all_done(study, tmp_path)
    for key in [("anl", ("x",), 1), ("anl", ("y",), 1)]:
        records[key] = records[key].model_copy(update={"explained_variance": 0.29})
    text, _ = report(study, records, tmp_path)
    claim = text.split("## The claim")[1].split("##")[0]
    assert "2 runs do not count as ANL and were left out" in claim
    assert "**Preliminary**: 2 of 4" in claim
    assert "| claim | anl - plain | 2 of 4 |" in text
    assert "| steps | anl - plain | 4 of 4 |" in text
    cell = next(line for line in text.splitlines() if line.startswith("| anl/x/seed1 "))
    assert "does not count as ANL" in cell


def test_nothing_is_claimed_of_what_has_not_run(study: StudyConfig, tmp_path: Path) -> None:
    """A single pair is preliminary; without any, the report says that nothing is claimed."""
    text, _ = report(study, {}, tmp_path)
    assert "Nothing is claimed" in text
    assert text.count("Not run yet") == 3
    one = {
        key: record for key, record in all_done(study, tmp_path).items() if key[1:] == (("x",), 1)
    }
    text, _ = report(study, {key: one[key] for key in one if key[0] in {"plain", "anl"}}, tmp_path)
    assert "**Preliminary**: 1 of 4 pairs of runs" in text
    assert text.count("Not run yet") == 2
    most = {key: one for key, one in all_done(study, tmp_path).items() if key[0] != "late"}
    key = ("anl", ("x",), 1)  # leaves the claim's row and not the other, so that they differ
    most[key] = most[key].model_copy(update={"explained_variance": 0.29})
    text, _ = report(study, most, tmp_path)
    assert "| late | 0 of 4 | not run yet" in text


def test_a_failed_cell_is_named_with_its_error(study: StudyConfig, tmp_path: Path) -> None:
    records = all_done(study, tmp_path)
    key = ("anl", ("x",), 1)
    records[key] = records[key].model_copy(update={"status": "failed", "error": "a | b\nc"})
    text, _ = report(study, records, tmp_path)
    assert "failed: a / b c" in text
    assert "| claim | anl - plain | 3 of 4 |" in text


def test_different_teachers_under_one_name_are_told(study: StudyConfig, tmp_path: Path) -> None:
    records = all_done(study, tmp_path)
    for index, key in enumerate(one for one in records if one[0] == "anl"):
        records[key] = records[key].model_copy(update={"teacher_id": f"teacher{index % 2}"})
    text, _ = report(study, records, tmp_path)
    assert "the cells of `anl` had different teachers" in text


def test_cells_of_one_pair_on_different_processors_are_told(
    study: StudyConfig, tmp_path: Path
) -> None:
    """Another seed on another machine is no matter: its pair was trained there too."""
    records = all_done(study, tmp_path)
    for key in records:
        name = "old" if key[2] == 1 else "new"
        records[key] = records[key].model_copy(update={"processor": name})
    assert "different processors" not in report(study, records, tmp_path)[0]
    key = ("anl", ("x",), 1)
    records[key] = records[key].model_copy(update={"processor": "new"})
    text, _ = report(study, records, tmp_path)
    assert "trained on different processors (x/seed1)" in text


def test_lost_logits_say_which_line_to_remove(study: StudyConfig, tmp_path: Path) -> None:
    records = all_done(study, tmp_path)
    (tmp_path / records["anl", ("x",), 1].logits).unlink()
    with pytest.raises(StudyError, match=r"take the line of anl/x/seed1 out of results\.jsonl"):
        report(study, records, tmp_path)


def test_a_curve_over_words_is_refused(study: StudyConfig, tmp_path: Path) -> None:
    """Before hours of training, not after."""
    plan = plan_of(study, tmp_path)
    check_curves(study, plan)
    wrong = study.rows[1].model_copy(update={"curve": "teacher.kind"})
    with pytest.raises(StudyError, match="no option with a number"):
        check_curves(study.model_copy(update={"rows": (study.rows[0], wrong)}), plan)
