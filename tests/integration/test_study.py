"""A study whose cell is killed goes on where it was, and ends as if nothing had happened."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.trainer import TINY, write_tiny_data
from trainer.__main__ import main
from trainer.config import read_config
from trainer.config.study import read_study
from trainer.study.adapter import run_task
from trainer.study.cost import GATE_OFF, GATE_ON, PLAIN, Cost, Latency
from trainer.study.grid import cells, digest
from trainer.study.run import plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
_PATIENCE_S = 600.0
STUDY = """
base = "base.toml"
seeds = [5]
folds = [["x"]]
min_explained_variance = 0.0
resamples = 50
[variants.plain]
changes = { "loss.lambda_noise" = 0.0, "loss.lambda_glob" = 0.0, "detector.gate_drop_p" = 1.0 }
[variants.anl]
gates = ["off", "on"]
[variants.hopeless]
changes = { "train.lr" = 1e30 }
[[rows]]
name = "claim"
question = "Does it help?"
baseline = "plain"
variants = ["anl"]
[[rows]]
name = "broken"
question = "Does a training that fails stop the others?"
baseline = "plain"
variants = ["hopeless"]
"""
SIZES = {
    'fake = ["x"]': 'fake = ["x", "y"]',
    'fake = ["y"]': 'fake = ["z"]',
    '[data.splits.calibration]\nreal = ["c"]\nfake = ["z"]': '[data.splits.calibration]\nreal = ["c"]',
    "epochs = 3": "epochs = 12",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, the base and the study."""
    folder = tmp_path_factory.mktemp("study")
    write_tiny_data(folder / "data")
    text = TINY
    for before, after in SIZES.items():
        assert before in text
        text = text.replace(before, after, 1)
    (folder / "base.toml").write_text(text)
    (folder / "study.toml").write_text(STUDY)
    (folder / "out").mkdir()
    (folder / "out" / "cost.json").write_text(known(folder).model_dump_json())
    return folder


def known(folder: Path) -> Cost:
    """A cost measured before: tests/unit/trainer/study/test_cost.py measures one."""
    took = Latency(median_ms=1.25, p10_ms=1.0, p90_ms=2.0)
    return Cost(
        config_digest=digest(read_config(folder / "base.toml", {})),
        backbone="test_efficientnet",
        crop_px=64,
        rounds=60,
        nodes={PLAIN: 50, GATE_OFF: 50, GATE_ON: 90},
        same_operators=True,
        latency=dict.fromkeys((PLAIN, GATE_OFF, GATE_ON), took),
    )


def arguments(folder: Path) -> list[str]:
    """The options of all runs."""
    paths = {"config": "study.toml", "data": "data", "output": "out", "cache": "cache"}
    return ["study", *(part for k, v in paths.items() for part in (f"--{k}", str(folder / v)))]


def kill_when(checkpoint: Path, lock: Path) -> None:
    """Kill the process that holds a lock, once its checkpoint is there."""
    until_s = time.monotonic() + _PATIENCE_S
    while not checkpoint.exists():
        if time.monotonic() > until_s:
            return  # the test that reads the results says so
        time.sleep(0.02)
    os.kill(int(lock.read_text()), signal.SIGKILL)


@pytest.fixture(scope="module")
def killed(folder: Path) -> Path:
    """The study's folder after its second cell was killed in the middle."""
    second = folder / "out" / "cells" / "anl" / "x" / "seed5"
    killer = threading.Thread(target=kill_when, args=(second / "last.pt", second / "cell.lock"))
    killer.start()
    assert main([*arguments(folder), "--until", "claim"], {}) == 1
    killer.join()
    assert (second / "last.pt").exists()
    assert not (second / "logits.npz").exists()
    return folder / "out"


@pytest.fixture(scope="module")
def finished(folder: Path, killed: Path) -> Path:
    """The same folder after a second start."""
    assert main([*arguments(folder), "--until", "claim", "--retry-failed"], {}) == 0
    return killed


def records(out: Path) -> list[dict[str, object]]:
    """The lines of results.jsonl."""
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_the_second_start_does_the_second_cell_alone(finished: Path) -> None:
    """The first cell was not run again; the kill is on record; no checkpoint is left."""
    assert [(one["variant"], one["status"]) for one in records(finished)] == [
        ("plain", "done"),
        ("anl", "failed"),
        ("anl", "done"),
    ]
    assert "its process ended with status -9" in str(records(finished)[1]["error"])
    logs = [finished / "cells" / one / "x" / "seed5" / "cell.log" for one in ("plain", "anl")]
    assert [one.read_text().count("train: ") for one in logs] == [1, 2]
    assert not list(finished.rglob("last.pt"))


def test_a_resumed_cell_ends_as_an_uninterrupted_one(folder: Path, finished: Path) -> None:
    """Bit for bit the same logits, by the same keys."""
    study = read_study(folder / "study.toml", {})
    base = read_config(study.base, {})
    base = base.model_copy(
        update={"data": base.data.model_copy(update={"roots": (folder / "data",)})}
    )
    planned = plan(study, base, {}, folder / "out", folder / "cache").of(cells(study, "claim"))
    task = replace(planned[1].task, folder=folder / "whole")
    steps: list[tuple[int, int]] = []
    run_task(task, lambda step, total: steps.append((step, total)))
    assert steps[0][0] == 1
    assert steps[-1][0] == steps[-1][1]
    whole = np.load(folder / "whole" / "logits.npz")
    resumed = np.load(finished / "cells" / "anl" / "x" / "seed5" / "logits.npz")
    assert sorted(whole.files) == sorted(resumed.files)
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole.files)
    assert {str(key).rsplit("/", 1)[0] for key in whole["key"]} == {"real/e", "fake/x"}


def test_the_report_has_the_claim_and_the_cost(folder: Path, finished: Path) -> None:
    """Both gates are compared; the cost is the one that is known; a row not run is named."""
    content = json.loads((finished / "report.json").read_text())
    assert content["cost"] == known(folder).model_dump(mode="json")
    text = (finished / "report.md").read_text()
    assert "| claim | anl - plain |" in text
    assert "| claim | anl, gate on - plain |" in text
    assert "| gate off | 50 | 1.25 ms |" in text
    assert "Does a training that fails stop the others?\n\n" in text


def test_a_failed_cell_ends_the_command_with_an_error(
    folder: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its reason is recorded; the report is written all the same; nothing else runs again."""
    assert main(arguments(folder), {}) == 1
    assert "1 cells failed, the first hopeless/x/seed5" in " ".join(capsys.readouterr().err.split())
    last = records(finished)[-1]
    assert (last["variant"], last["status"]) == ("hopeless", "failed")
    assert "not finite" in str(last["error"])
    assert "failed: the loss is not finite" in (finished / "report.md").read_text()
    assert len(records(finished)) == 4


def test_without_time_the_report_is_written_of_what_is_there(folder: Path, finished: Path) -> None:
    """A budget of nothing starts no cell."""
    before = records(finished)
    (finished / "report.md").unlink()
    options = [*arguments(folder), "--until", "claim", "--budget-minutes", "0"]
    assert main([*options, "--retry-failed"], {}) == 0
    assert (finished / "report.md").exists()
    assert records(finished) == before


def test_a_row_alone_leaves_the_others_out(
    folder: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second row is its baseline, which is there, and its variant, which failed."""
    del finished
    options = [*arguments(folder), "--only", "broken", "--budget-minutes", "0", "--retry-failed"]
    assert main(options, {}) == 1
    assert "2 cells, 1 of them have a result already" in " ".join(capsys.readouterr().out.split())
