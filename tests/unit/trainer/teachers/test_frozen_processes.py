"""Epsilon from each kind of prediction, held to the scheduler's own algebra.

An oracle knows the picture and the noise that was added, and predicts exactly what a perfect network
of its kind would; the epsilon that comes back must be the noise that was added.
"""

import json

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
)
from torch import Tensor

from trainer.errors import TeacherError
from trainer.teachers.frozen import discrete_process, flow_process

# As Stable Diffusion's; the pixel-space DDPM of this project has 300 steps of a cosine.
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
COSINE = {"num_train_timesteps": 300, "beta_schedule": "squaredcos_cap_v2"}


def stored(scheduler: SchedulerMixin) -> dict[str, object]:
    """The configuration as a folder holds it."""
    settings: dict[str, object] = json.loads(scheduler.to_json_string())
    return settings


def pictures() -> tuple[Tensor, Tensor]:
    """Two pictures in [-1, 1], and noise."""
    generator = torch.Generator().manual_seed(0)
    x_BCHW = torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1
    return x_BCHW, torch.randn(2, 3, 8, 8, generator=generator)


def oracle(kind: str, scheduler: DDPMScheduler, index: int) -> Tensor:
    """What a perfect network of this kind predicts, v by the scheduler's own ``get_velocity``."""
    x_BCHW, noise_BCHW = pictures()
    if kind == "v_prediction":
        velocity: Tensor = scheduler.get_velocity(x_BCHW, noise_BCHW, torch.tensor([index, index]))
        return velocity
    return x_BCHW if kind == "sample" else noise_BCHW


@pytest.mark.parametrize("index", [0, 1, 10, 50, 200])
@pytest.mark.parametrize("schedule", [SD, COSINE], ids=["sd", "cosine"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_injected_noise_is_recovered(
    kind: str, schedule: dict[str, object], index: int
) -> None:
    """eps(oracle(x_t), x_t) is the noise of x_t, for every kind, schedule and step.

    In double precision: at the earliest step a prediction of the sample is divided by a sigma of
    0.01, which multiplies the rounding of single precision to about 1e-5 by itself.
    """
    scheduler = DDPMScheduler(**schedule, prediction_type=kind)
    process = discrete_process(stored(scheduler), index, "oracle")
    x_BCHW, noise_BCHW = (value.double() for value in pictures())
    x_t_BCHW = process.noisy(x_BCHW, noise_BCHW)
    prediction = oracle(kind, scheduler, index).double()
    assert torch.allclose(process.eps(prediction, x_t_BCHW), noise_BCHW, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_single_precision_is_enough(kind: str) -> None:
    """What training does, at the step that it uses."""
    scheduler = DDPMScheduler(**COSINE, prediction_type=kind)
    process = discrete_process(stored(scheduler), 0, "oracle")
    x_BCHW, noise_BCHW = pictures()
    actual = process.eps(oracle(kind, scheduler, 0), process.noisy(x_BCHW, noise_BCHW))
    assert torch.allclose(actual, noise_BCHW, atol=1e-4)


def test_the_kinds_differ_where_no_noise_was_added() -> None:
    """At x_t = x an oracle of v still gives sqrt(abar) v + sqrt(1 - abar) x."""
    scheduler = DDPMScheduler(**SD, prediction_type="v_prediction")
    process = discrete_process(stored(scheduler), 10, "oracle")
    x_BCHW, v_BCHW = pictures()
    abar = scheduler.alphas_cumprod[10]
    expected = abar.sqrt() * v_BCHW + (1 - abar).sqrt() * x_BCHW
    assert torch.allclose(process.eps(v_BCHW, x_BCHW), expected, atol=1e-6)


@pytest.mark.parametrize("sampler", [PNDMScheduler, DDIMScheduler, EulerDiscreteScheduler])
def test_a_sampler_in_the_folder_changes_nothing(sampler: type[DDPMScheduler]) -> None:
    """Folders name the sampler that draws pictures best; the forward process is the same."""
    x_BCHW, noise_BCHW = pictures()
    actual = discrete_process(stored(sampler(**SD)), 20, "sampler")
    expected = discrete_process(stored(DDPMScheduler(**SD)), 20, "ddpm")
    assert torch.equal(actual.noisy(x_BCHW, noise_BCHW), expected.noisy(x_BCHW, noise_BCHW))
    assert actual.label == expected.label


@pytest.mark.parametrize("index", [0, 1, 10, 50, 200])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_recovers_the_injected_noise(shift: float, index: int) -> None:
    """x_t by the scheduler's own scale_noise, v = noise - x, eps = x_t + (1 - sigma) v."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    process = flow_process(stored(scheduler), index, "oracle")
    x_BCHW, noise_BCHW = pictures()
    x_t_BCHW = process.noisy(x_BCHW, noise_BCHW)
    assert torch.allclose(process.eps(noise_BCHW - x_BCHW, x_t_BCHW), noise_BCHW, atol=1e-4)


@pytest.mark.parametrize(
    ("shift", "index", "sigma"),
    [(1.0, 0, 0.001), (1.0, 9, 0.010), (3.0, 0, 0.003 / 1.002), (1.0, 999, 1.0)],
)
def test_a_flow_index_counts_from_the_least_noise(shift: float, index: int, sigma: float) -> None:
    """Index 0 is the smallest sigma of the schedule as trained, shifted as the folder says."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    process = flow_process(stored(scheduler), index, "flow")
    x_BCHW, noise_BCHW = pictures()
    expected = (1 - sigma) * x_BCHW + sigma * noise_BCHW
    assert torch.allclose(process.noisy(x_BCHW, noise_BCHW), expected, atol=1e-6)
    assert process.time == pytest.approx(1000 * sigma, rel=1e-5)


def test_a_timestep_past_the_end_is_refused() -> None:
    """The message names the last one there is, for either process."""
    with pytest.raises(TeacherError, match="choose 0 to 299"):
        discrete_process(stored(DDPMScheduler(**COSINE)), 300, "short")
    with pytest.raises(TeacherError, match="choose 0 to 999"):
        flow_process(stored(FlowMatchEulerDiscreteScheduler()), 1000, "flow")


def test_a_scheduler_of_another_process_is_refused() -> None:
    """A flow schedule under a U-Net, continuous sigmas, or betas under a flow transformer."""
    with pytest.raises(TeacherError, match="has no betas"):
        discrete_process(stored(FlowMatchEulerDiscreteScheduler()), 0, "unet")
    with pytest.raises(TeacherError, match="EDMEulerScheduler has no betas"):
        discrete_process(stored(EDMEulerScheduler()), 0, "edm")
    with pytest.raises(TeacherError, match="not a flow-matching scheduler"):
        flow_process(stored(DDPMScheduler()), 0, "sd3")


def test_an_unknown_kind_of_prediction_is_refused() -> None:
    """Never read as epsilon."""
    settings = {**stored(DDPMScheduler()), "prediction_type": "score"}
    with pytest.raises(TeacherError, match="predicts 'score'"):
        discrete_process(settings, 0, "score")
