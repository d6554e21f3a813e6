"""The teacher is frozen, and what it returns is the epsilon of its scheduler's algebra."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer.config import TeacherConfig
from trainer.teachers.keras_ddpm import KerasDdpmUnet, TeacherError
from trainer.teachers.pixel import EpsilonTeacher, open_teacher, tiled

TINY = TeacherConfig(kind="random-tiny", tile_px=32, tile_overlap_px=8)


class _Oracle(nn.Module):
    """A network that knows x_0, and so can name the noise in any x_t exactly."""

    def __init__(self, x_0: Tensor, scheduler: DDPMScheduler) -> None:
        super().__init__()
        self._x_0, self._abar = x_0, scheduler.alphas_cumprod

    def forward(self, sample: Tensor, timestep: int) -> SimpleNamespace:
        abar = self._abar[timestep]
        return SimpleNamespace(sample=(sample - abar.sqrt() * self._x_0) / (1 - abar).sqrt())


def test_a_teacher_freezes_itself() -> None:
    """No parameter asks for a gradient, and no call of train() thaws it."""
    teacher = open_teacher(TINY)
    teacher.train()
    assert not any(one.requires_grad for one in teacher.parameters())
    assert not any(module.training for module in teacher.modules())


def test_no_gradient_passes_a_teacher() -> None:
    """Its noise is a constant to the student, even for an input that wants a gradient."""
    x_BCHW = torch.rand(1, 3, 32, 32, requires_grad=True)
    eps = open_teacher(TINY).noise(x_BCHW, [0])
    assert not eps.requires_grad
    assert eps.shape == x_BCHW.shape
    assert eps.dtype == torch.float32


@pytest.mark.parametrize("index", [0, 1, 10, 50, 200])
def test_injected_noise_follows_the_scheduler(index: int) -> None:
    """A network that inverts x_t = sqrt(abar) x + sqrt(1 - abar) eps returns that very eps."""
    scheduler = DDPMScheduler(num_train_timesteps=300, beta_schedule="squaredcos_cap_v2")
    x_BCHW = torch.rand(2, 3, 32, 32) * 2 - 1
    config = TINY.model_copy(
        update={"timestep_index": index, "inject_noise": True, "tile_overlap_px": 0}
    )
    teacher = EpsilonTeacher(_Oracle(x_BCHW, scheduler), scheduler, config, "oracle")
    expected = torch.stack(
        [torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(one)) for one in (5, 6)]
    )
    assert torch.allclose(teacher.noise(x_BCHW, [5, 6]), expected, atol=2e-4)


def test_without_injection_the_network_sees_the_picture_itself() -> None:
    """x_t = x: an oracle finds the noise that explains x as a noisy picture of itself."""
    scheduler = DDPMScheduler()
    x_BCHW = torch.rand(1, 3, 32, 32) * 2 - 1
    teacher = EpsilonTeacher(_Oracle(x_BCHW, scheduler), scheduler, TINY, "oracle")
    abar = scheduler.alphas_cumprod[0]
    expected = (1 - abar.sqrt()) / (1 - abar).sqrt() * x_BCHW
    assert torch.allclose(teacher.noise(x_BCHW, [0]), expected, atol=1e-5)


def test_learned_variance_is_left_out() -> None:
    """Of a network with six channels, the first three are the noise."""

    class SixChannels(nn.Module):
        def forward(self, sample: Tensor, _timestep: int) -> SimpleNamespace:
            return SimpleNamespace(sample=torch.cat([sample * 2, sample * 9], dim=1))

    x_BCHW = torch.rand(1, 3, 32, 32)
    teacher = EpsilonTeacher(SixChannels(), DDPMScheduler(), TINY, "six")
    assert torch.allclose(teacher.noise(x_BCHW, [0]), x_BCHW * 2)


@pytest.mark.parametrize(("size_px", "overlap_px"), [(32, 0), (40, 8), (64, 0), (72, 16)])
def test_tiles_cover_every_pixel(size_px: int, overlap_px: int) -> None:
    """A function of single pixels gives the same tile by tile."""
    x_BCHW = torch.rand(2, 3, size_px, size_px)
    found = tiled(lambda tile: tile * 3 + 1, x_BCHW, 32, overlap_px)
    assert torch.allclose(found, x_BCHW * 3 + 1)


def test_a_crop_below_a_tile_is_refused() -> None:
    """What is too small for the network says so."""
    with pytest.raises(TeacherError, match="enlarge the crop"):
        tiled(lambda tile: tile, torch.zeros(1, 3, 16, 16), 32, 0)


def test_a_timestep_past_the_end_is_refused() -> None:
    """The message names the last one there is."""
    with pytest.raises(TeacherError, match="choose 0 to 999"):
        open_teacher(TINY.model_copy(update={"timestep_index": 1000}))


def test_a_v_prediction_model_is_refused() -> None:
    """A model of another parametrisation is never read as epsilon."""
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    with pytest.raises(TeacherError, match="predicts v_prediction"):
        EpsilonTeacher(nn.Identity(), scheduler, TINY, "v")


def saved(folder: Path) -> Path:
    """A diffusers folder with a tiny network."""
    network = open_teacher(TINY).network
    assert isinstance(network, UNet2DModel)
    network.save_pretrained(folder / "unet")
    DDPMScheduler().save_pretrained(folder / "scheduler")
    return folder


def test_a_teacher_is_loaded_from_a_diffusers_folder(tmp_path: Path) -> None:
    """What was saved gives the same noise, and an id that does not depend on the place."""
    x_BCHW = torch.rand(1, 3, 32, 32)
    source = saved(tmp_path / "here" / "model")
    first = open_teacher(TINY.model_copy(update={"kind": "unet2d", "source": str(source)}))
    expected = open_teacher(TINY).noise(x_BCHW, [0])
    assert torch.allclose(first.noise(x_BCHW, [0]), expected, atol=1e-5)
    moved = saved(tmp_path / "there" / "model")
    second = open_teacher(TINY.model_copy(update={"kind": "unet2d", "source": str(moved)}))
    assert first.teacher_id == second.teacher_id
    assert "model" in first.teacher_id


def test_an_absent_teacher_is_refused(tmp_path: Path) -> None:
    """The message says what a teacher's folder holds."""
    config = TINY.model_copy(update={"kind": "unet2d", "source": str(tmp_path / "none")})
    with pytest.raises(TeacherError, match="teacher-convert"):
        open_teacher(config)


def test_a_teacher_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    """Diffusers would leave them at random; a teacher with random parts teaches nothing."""
    network = KerasDdpmUnet(widths=(8, 16, 16, 16), time_features=16)
    network.save_pretrained(tmp_path / "unet")
    DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    [weights] = (tmp_path / "unet").glob("*.safetensors")
    state = load_file(weights)
    del state["mid.0.0.conv1.weight"]
    save_file(state, weights)
    config = TINY.model_copy(update={"kind": "keras-ddpm", "source": str(tmp_path)})
    with pytest.raises(TeacherError, match=r"lacks 1 weights of the network, mid\.0\.0\.conv1"):
        open_teacher(config)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """A folder of another kind of network is no teacher of this one."""
    source = saved(tmp_path / "model")
    config = TINY.model_copy(update={"kind": "keras-ddpm", "source": str(source)})
    with pytest.raises(TeacherError, match="no diffusion model can be loaded"):
        open_teacher(config)
