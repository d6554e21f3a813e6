"""A diffusion model draws a photograph anew: as its sampler would, as far as the strength says, and reproducibly."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
)
from PIL import Image
from torch import Tensor

from tests.support.photographs import photograph_px
from tests.unit.trainer.teachers import tiny_models
from trainer.cli import main
from trainer.config import DiffusionConfig
from trainer.errors import TeacherError
from trainer.fakes.diffusion import Redrawer, redrawn, way_back
from trainer.fakes.regenerators import RegeneratorError
from trainer.teachers.frozen import Latents, Pixels
from trainer.teachers.opening import DiffusionModel, open_model

LATENT: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd": tiny_models.sd,
    "sdxl": tiny_models.sdxl,
    "sd3": tiny_models.sd3,
    "flux": tiny_models.flux,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder of every family, latent or of pixels."""
    root = tmp_path_factory.mktemp("families")
    actual = {name: tiny_models.write(make(), root / name) for name, make in LATENT.items()}
    actual["unet2d"] = str(tiny_models.pixel(root / "unet2d"))
    actual["keras-ddpm"] = str(tiny_models.converted(root / "keras-ddpm"))
    return actual


def redraw_config(
    source: str, low: float = 0.2, high: float = 0.2, steps: int = 3
) -> DiffusionConfig:
    """The configuration of a family."""
    return DiffusionConfig(
        kind="diffusion",
        name="redrawn",
        source=source,
        strength_min=low,
        strength_max=high,
        steps=steps,
    )


@dataclass
class Linear:
    """Stands for a network: its answer is a simple function of x_t and of the time."""

    multiple: int = 1
    largest: int | None = None
    native: int | None = None

    def predict(self, x_t_BCHW: Tensor, time: float) -> Tensor:
        """A number for each value."""
        return 0.5 * x_t_BCHW.roll(1, dims=-1) - time / 1000


@dataclass
class Knowing(Linear):
    """Knows the picture that is under the noise, and answers with a velocity or with the noise."""

    answer_BCHW: Tensor | None = None  # noqa: N815  the suffix is the tensor's shape

    def predict(self, x_t_BCHW: Tensor, time: float) -> Tensor:
        """Always what is right."""
        del x_t_BCHW, time
        assert self.answer_BCHW is not None
        return self.answer_BCHW


def model(network: Linear, scheduler: SchedulerMixin, *, flow: bool) -> DiffusionModel:
    """A model of pixels."""
    return DiffusionModel(network, Pixels(), json.loads(scheduler.to_json_string()), flow, "model")


def pictures() -> tuple[Tensor, Tensor]:
    """A picture in [-1, 1], and noise."""
    generator = torch.Generator().manual_seed(0)
    x_BCHW = torch.rand(1, 3, 8, 8, generator=generator) * 2 - 1
    return x_BCHW, torch.randn(1, 3, 8, 8, generator=generator)


@pytest.mark.parametrize("steps", [1, 3, 50])
@pytest.mark.parametrize("flow", [False, True])
def test_who_knows_the_picture_brings_it_back(flow: bool, steps: int) -> None:  # noqa: FBT001
    """Whatever noise is put on, and in whatever steps it is taken off."""
    x_BCHW, noise_BCHW = pictures()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0) if flow else DDPMScheduler()
    network = Knowing(answer_BCHW=noise_BCHW - x_BCHW if flow else noise_BCHW)
    actual = redrawn(model(network, scheduler, flow=flow), x_BCHW, noise_BCHW, 0.6, steps)
    assert torch.allclose(actual, x_BCHW, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_way_back_is_ddims(kind: str) -> None:
    """Where the steps divide the schedule: step by step what diffusers' DDIMScheduler does."""
    settings = {"num_train_timesteps": 100, "prediction_type": kind, "clip_sample": False}
    sampler, network = DDIMScheduler(**settings), Linear()
    sampler.set_timesteps(10)
    x_BCHW, noise_BCHW = pictures()
    expected_BCHW = sampler.add_noise(x_BCHW, noise_BCHW, torch.tensor([40]))
    for index in (40, 30, 20, 10):
        step = sampler.step(network.predict(expected_BCHW, index), index, expected_BCHW)
        expected_BCHW = step.prev_sample
    ddpm = DDPMScheduler(**settings)
    actual = redrawn(model(network, ddpm, flow=False), x_BCHW, noise_BCHW, 40 / 99, 4)
    assert torch.allclose(actual, step.pred_original_sample, atol=1e-5)


def test_the_way_back_is_eulers_for_flow_matching() -> None:
    """Step by step what diffusers' FlowMatchEulerDiscreteScheduler does at the same sigmas."""
    x_BCHW, noise_BCHW = pictures()
    sampler, network = FlowMatchEulerDiscreteScheduler(), Linear()
    first, *_ = way_back(1000, 0.4, 4)
    sampler.set_timesteps(sigmas=[(index + 1) / 1000 for index in way_back(1000, 0.4, 4)])
    expected_BCHW = (1 - (first + 1) / 1000) * x_BCHW + (first + 1) / 1000 * noise_BCHW
    for time in sampler.timesteps:
        velocity_BCHW = network.predict(expected_BCHW, float(time))
        expected_BCHW = sampler.step(velocity_BCHW, time, expected_BCHW).prev_sample
    flow = model(network, FlowMatchEulerDiscreteScheduler(), flow=True)
    actual = redrawn(flow, x_BCHW, noise_BCHW, 0.4, 4)
    assert torch.allclose(actual, expected_BCHW, atol=1e-5)


@pytest.mark.parametrize(
    ("schedule_steps", "strength", "steps", "expected"),
    [
        (300, 0.1, 3, [30, 20, 10]),
        (1000, 0.25, 1, [250]),
        (100, 0.02, 8, [2, 1, 0]),  # a short schedule: each index once
        (100, 0.001, 4, [0]),
        (1000, 0.9999, 1, [998]),  # never noise alone: sigma 1 of flow matching
    ],
)
def test_steps_are_spread_from_the_strength_down(
    schedule_steps: int, strength: float, steps: int, expected: list[int]
) -> None:
    """The last one ends in the clean picture, so no step of index 0 is needed."""
    actual = way_back(schedule_steps, strength, steps)
    assert actual[0] == expected[0]
    assert sorted(set(actual), reverse=True) == actual
    assert actual == expected


@pytest.mark.parametrize("family", [*LATENT, "unet2d", "keras-ddpm"])
def test_every_family_redraws_a_photograph(family: str, sources: dict[str, str]) -> None:
    """From the folder that diffusers writes; the same again, and another picture otherwise."""
    photograph_HWC = photograph_px(64)
    drawn_HWC = Redrawer(redraw_config(sources[family])).regenerate(photograph_HWC)
    assert drawn_HWC.shape == (64, 64, 3)
    assert drawn_HWC.dtype == np.uint8
    assert (drawn_HWC != photograph_HWC).any()
    again_HWC = Redrawer(redraw_config(sources[family])).regenerate(photograph_HWC)
    assert (again_HWC == drawn_HWC).all()
    other_HWC = Redrawer(redraw_config(sources[family], 0.6, 0.6)).regenerate(photograph_HWC)
    assert (other_HWC != drawn_HWC).any()


def test_no_strength_leaves_the_autoencoder_at_work(sources: dict[str, str]) -> None:
    """What diffusers' own VAE makes of the photograph, and no noise."""
    photograph_HWC = photograph_px(64)
    drawn_HWC = Redrawer(redraw_config(sources["sd"], 0.0, 0.0)).regenerate(photograph_HWC)
    vae = AutoencoderKL.from_pretrained(sources["sd"], subfolder="vae")
    x_BCHW = torch.from_numpy(photograph_HWC).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        decoded = vae.decode(vae.encode(x_BCHW).latent_dist.mode()).sample[0]
    expected_HWC = ((decoded + 1) * 127.5).clamp(0, 255).permute(1, 2, 0).numpy()
    assert np.abs(drawn_HWC - expected_HWC).max() <= 1


def test_a_teacher_goes_without_the_decoder(sources: dict[str, str]) -> None:
    """Half of an autoencoder's weights, which only drawing needs."""
    without, kept = (open_model(sources["sd"], "", decodes=decodes) for decodes in (False, True))
    assert isinstance(without.space, Latents)
    assert isinstance(kept.space, Latents)
    count = [
        sum(weight.numel() for weight in space.vae.decoder.parameters())
        for space in (without.space, kept.space)
    ]
    assert count[0] == 0 < count[1]
    latents = without.space.encode(torch.zeros(1, 3, 32, 32))
    with pytest.raises(TeacherError, match="opened without its decoder"):
        without.space.decode(latents)


def test_each_picture_goes_its_own_way(sources: dict[str, str]) -> None:
    """A network of a little noise: the further in, the more of it is left in the picture."""
    plain_HWC = np.full((32, 32, 3), 128, np.uint8)
    changes = []
    for shade in range(100, 112):
        pixels_HWC = np.full_like(plain_HWC, shade)
        drawn_HWC = Redrawer(redraw_config(sources["unet2d"], 0.05, 0.5)).regenerate(pixels_HWC)
        changes.append(np.abs(drawn_HWC.astype(int) - pixels_HWC).mean())
    assert max(changes) > 2 * min(changes)


def test_a_model_of_pixels_must_change_something(sources: dict[str, str]) -> None:
    """A photograph that nothing was done to would be called a fake."""
    with pytest.raises(RegeneratorError, match="raise strength_min"):
        Redrawer(redraw_config(sources["unet2d"], 0.0, 0.3))


def test_a_region_over_the_models_largest_is_refused(sources: dict[str, str]) -> None:
    """Stable Diffusion 3 knows positions up to a size."""
    redrawer = Redrawer(redraw_config(sources["sd3"]))
    with pytest.raises(RegeneratorError, match=r"lower photographs\.region_px"):
        redrawer.regenerate(np.zeros((64, 4096, 3), np.uint8))


def test_strengths_out_of_order_are_refused(sources: dict[str, str]) -> None:
    """Before anything is loaded."""
    with pytest.raises(ValueError, match="strength_min is over strength_max"):
        redraw_config(sources["sd"], 0.5, 0.2)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """The message says what a folder needs."""
    with pytest.raises(TeacherError, match="name a diffusers folder or hub id"):
        Redrawer(redraw_config(str(tmp_path)))


def test_a_set_by_a_diffusion_model(tmp_path: Path, sources: dict[str, str]) -> None:
    """From the command; what was drawn at another strength never mixes with it."""
    (tmp_path / "data/real/phone").mkdir(parents=True)
    Image.fromarray(photograph_px(80)).save(tmp_path / "data/real/phone/1.png")
    text = f"""
[photographs]
region_px = 64
[[families]]
kind = "diffusion"
name = "ddpm"
source = "{sources["unet2d"]}"
strength_min = 0.1
strength_max = 0.2
steps = 2
"""
    config = tmp_path / "fakes.toml"
    config.write_text(text)
    command = ["fakes", "--config", str(config), "--data", str(tmp_path / "data")]
    command += ["--output", str(tmp_path / "out")]
    assert main(command, {}) == 0
    [line] = (tmp_path / "out/pairs.jsonl").read_text().splitlines()
    assert list(json.loads(line)["fake"]) == ["ddpm"]
    config.write_text(text.replace("strength_max = 0.2", "strength_max = 0.3"))
    assert main(command, {}) == 1
