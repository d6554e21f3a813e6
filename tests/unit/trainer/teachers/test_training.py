"""A small diffusion model is trained, interrupted and resumed, and opened as a teacher."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from tests.support.trainer import write_tiny_data
from trainer.cli import main
from trainer.config import TeacherConfig, TeacherTraining, parse_toml
from trainer.data.dataset import Picture
from trainer.data.files import Source
from trainer.errors import ConfigError, TeacherError
from trainer.teachers.opening import open_teacher
from trainer.teachers.training import (
    build_network,
    large_enough,
    noise_error,
    random_crops,
    spread,
    train_teacher,
)

TINY = """
seed = 1
[data.splits.train]
real = ["a"]
[data.splits.validation]
real = ["b"]
[network]
resolution_px = 16
widths = [8, 8]
groups = 4
attention_levels = 1
[schedule]
steps = 20
[train]
steps = 4
batch = 4
lr = 0.01
warmup_steps = 1
checkpoint_every_steps = 2
measure_every_steps = 2
heldout_crops = 4
middle_index = 10
"""


class Steps:
    """Keeps the steps; may stop the run as a kill would."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.steps: list[int] = []
        self._stop_after = stop_after

    def __call__(self, step: int, steps: int, loss: float) -> None:
        """Take a step."""
        del steps, loss
        self.steps.append(step)
        if step == self._stop_after:
            raise KeyboardInterrupt


def configured(**train: object) -> TeacherTraining:
    """The tiny configuration; ``train`` replaces options of the loop."""
    config = parse_toml(TeacherTraining, TINY.encode(), {}, "tiny")
    return config.model_copy(update={"train": config.train.model_copy(update=train)})


def pictures(side_px: int = 24) -> tuple[list[Picture], list[Picture]]:
    """Smooth colours, to learn and to measure."""
    smooth = []
    for index in range(6):
        random = np.random.default_rng(index)
        ramp = np.linspace(0, 1, side_px)[:, None, None] * random.uniform(0, 255, size=3)
        pixels_HWC = np.broadcast_to(ramp, (side_px, side_px, 3)).astype(np.uint8)
        smooth.append(Picture(Source(Path(f"{index}.png"), 0, "a", str(index)), pixels_HWC))
    return smooth[:4], smooth[4:]


def run(folder: Path, config: TeacherTraining, *, resume: bool = False) -> dict[str, float]:
    """Train to the end."""
    return train_teacher(config, pictures(), folder, Steps(), resume=resume)


def test_what_is_trained_opens_as_a_teacher(tmp_path: Path) -> None:
    """A diffusers folder of the averaged weights, with its schedule, of its own resolution."""
    measured = run(tmp_path / "teacher", configured())
    teacher = open_teacher(TeacherConfig(source=str(tmp_path / "teacher"), tile_overlap_px=0))
    assert teacher.teacher_id.endswith("@0-plain-16/0")
    held = spread(pictures()[1], 4, 16, 1)
    scheduler = DDPMScheduler.from_pretrained(tmp_path / "teacher", subfolder="scheduler")
    network = teacher.network.inner  # type: ignore[attr-defined]  # an Unconditional
    assert noise_error(network, scheduler, held, 0) == pytest.approx(measured["noise_mse_0"])
    assert scheduler.config.num_train_timesteps == 20


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Stopped after step 3, it goes on from the checkpoint of step 2, bit for bit."""
    run(tmp_path / "whole", configured())
    with pytest.raises(KeyboardInterrupt):
        train_teacher(configured(), pictures(), tmp_path / "cut", Steps(3), resume=False)
    again = Steps()
    train_teacher(configured(), pictures(), tmp_path / "cut", again, resume=True)
    assert again.steps == [3, 4]
    names = [
        tmp_path / run / "unet/diffusion_pytorch_model.safetensors" for run in ("whole", "cut")
    ]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_run_learns(tmp_path: Path) -> None:
    """On smooth pictures, the error at a noisy step falls far below that of predicting zero."""
    measured = run(tmp_path, configured(steps=60, measure_every_steps=60, ema_decay=0.8, batch=8))
    assert measured["noise_mse_10"] < 0.6


def test_measurements_are_lines_of_json(tmp_path: Path) -> None:
    """Step, loss, and the error at the earliest and at a middle index."""
    run(tmp_path, configured())
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert set(lines[0]) == {"step", "loss", "noise_mse_0", "noise_mse_10"}


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    """Neither by a new run nor by one of another configuration."""
    run(tmp_path, configured())
    with pytest.raises(TeacherError, match="already holds a run"):
        run(tmp_path, configured())
    with pytest.raises(TeacherError, match="another configuration"):
        run(tmp_path, configured(lr=0.02), resume=True)


def test_nothing_to_resume_is_an_error(tmp_path: Path) -> None:
    """The message says how to start."""
    with pytest.raises(TeacherError, match="train without --resume"):
        run(tmp_path, configured(), resume=True)


def test_the_command_trains_and_does_not_train_a_finished_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It leaves a diffusers folder with its lineage, and says what to do with it."""
    data = write_tiny_data(tmp_path / "data", count=3)
    (tmp_path / "teacher.toml").write_text(TINY)
    paths = {"config": tmp_path / "teacher.toml", "data": data, "output": tmp_path / "out"}
    command = [
        "teacher",
        *(part for key, path in paths.items() for part in (f"--{key}", str(path))),
    ]
    assert main(command, {}) == 0
    assert "set teacher.source" in capsys.readouterr().out
    lineage = json.loads((tmp_path / "out/training.json").read_text())
    assert lineage["step"] == 4
    assert (
        open_teacher(TeacherConfig(source=str(tmp_path / "out"), tile_overlap_px=0)).channels == 3
    )
    assert main([*command, "--resume"], {}) == 1
    assert "finished run: name another --output" in " ".join(capsys.readouterr().err.split())


def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to do, and leaves no folder that looks like a teacher."""
    monkeypatch.setattr(
        "trainer.teachers.training.nn.functional.mse_loss",
        lambda given, wanted: (given - wanted).square().mean() * float("nan"),
    )
    with pytest.raises(TeacherError, match=r"loss is nan at step 0: lower train\.lr"):
        run(tmp_path, configured())
    assert not (tmp_path / "unet").exists()


def test_photographs_below_the_resolution_are_left_out() -> None:
    """And where none is left, the message says so."""
    small, large = pictures(12)[0], pictures(24)[0]
    assert large_enough([*small, *large], 16, "train") == large
    with pytest.raises(TeacherError, match=r"lower network\.resolution_px"):
        large_enough(small, 16, "train")


def test_crops_are_native_pixels_drawn_by_the_generator_alone() -> None:
    """In [-1, 1]; the same generator gives the same crops."""
    first, second = (random_crops(pictures()[0], 5, 16, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (5, 3, 16, 16)
    assert float(first.abs().max()) <= 1
    values = {round((value + 1) * 127.5) for value in first.flatten().tolist()}
    assert values <= {
        int(value) for picture in pictures()[0] for value in np.unique(picture.pixels_HWC)
    }


def test_the_error_of_predicting_zero_is_one() -> None:
    """The scale on which teachers are compared."""
    network = build_network(configured().network)
    for value in network.parameters():
        torch.nn.init.zeros_(value)
    error = noise_error(network, DDPMScheduler(), torch.zeros(8, 3, 16, 16), 0)
    assert error == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("widths = [8, 8]", "widths = [8, 8, 8, 8, 8, 8]", "halved once for each width"),
        ("groups = 4", "groups = 3", "a multiple of groups"),
        ("attention_levels = 1", "attention_levels = 3", "more than there are widths"),
        ("middle_index = 10", "middle_index = 20", "below schedule.steps"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(before: str, after: str, message: str) -> None:
    """Before anything is read or trained."""
    with pytest.raises(ConfigError, match=message):
        parse_toml(TeacherTraining, TINY.replace(before, after).encode(), {}, "tiny")
