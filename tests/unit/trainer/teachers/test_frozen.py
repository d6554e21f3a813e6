"""A teacher is frozen, deterministic, applied tile by tile, and refuses crops that do not fit."""

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from trainer.config import TeacherConfig
from trainer.errors import TeacherError
from trainer.teachers.frozen import FrozenTeacher, Pixels, discrete_process, tiled
from trainer.teachers.opening import open_teacher

TINY = TeacherConfig(kind="random-tiny", tile_px=32, tile_overlap_px=8)


class _Recorder(nn.Module):
    """A network that answers twice what it is shown, and a learned variance, and keeps what it saw."""

    def __init__(
        self, multiple: int = 1, largest: int | None = None, native: int | None = None
    ) -> None:
        super().__init__()
        self.multiple, self.largest, self.native = multiple, largest, native
        self.seen: list[Tensor] = []

    def predict(self, x_t_BCHW: Tensor, time: float) -> Tensor:
        del time
        self.seen.append(x_t_BCHW)
        return torch.cat([x_t_BCHW * 2, x_t_BCHW * 9], dim=1)


def recording(config: TeacherConfig, network: _Recorder) -> FrozenTeacher:
    """A teacher of pixels around a network that records."""
    process = discrete_process(DDPMScheduler().config, config.timestep_index, "recorder")
    return FrozenTeacher(network, Pixels(), process, config, "recorder")


def test_a_teacher_freezes_itself() -> None:
    """No parameter asks for a gradient, and no call of train() thaws it."""
    teacher = open_teacher(TINY)
    teacher.train()
    assert list(teacher.parameters())
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert not any(module.training for module in teacher.modules())


def test_no_gradient_passes_a_teacher() -> None:
    """Its noise is a constant to the student, even for an input that wants a gradient."""
    x_BCHW = torch.rand(1, 3, 32, 32, requires_grad=True)
    eps = open_teacher(TINY).noise(x_BCHW, [0])
    assert not eps.requires_grad
    assert eps.shape == x_BCHW.shape
    assert eps.dtype == torch.float32


def test_without_injection_the_network_sees_the_picture_itself() -> None:
    """x_t = x, and the seeds change nothing."""
    network = _Recorder()
    x_BCHW = torch.rand(1, 3, 32, 32) * 2 - 1
    teacher = recording(TINY, network)
    first, second = teacher.noise(x_BCHW, [0]), teacher.noise(x_BCHW, [1])
    assert torch.equal(network.seen[0], x_BCHW)
    assert torch.equal(first, second)


def test_injected_noise_is_drawn_from_the_crop_alone() -> None:
    """The same seed gives the same noise in any batch; another seed gives another."""
    network = _Recorder()
    teacher = recording(TINY.model_copy(update={"inject_noise": True}), network)
    x_BCHW = torch.rand(1, 3, 32, 32).expand(2, -1, -1, -1)
    teacher.noise(x_BCHW, [5, 6])
    teacher.noise(x_BCHW[:1], [6])
    assert torch.equal(network.seen[0][1], network.seen[1][0])
    assert not torch.equal(network.seen[0][0], network.seen[0][1])


def test_learned_variance_is_left_out() -> None:
    """Of a network with six channels, the first three are the noise."""
    x_BCHW = torch.rand(1, 3, 32, 32)
    assert torch.allclose(recording(TINY, _Recorder()).noise(x_BCHW, [0]), x_BCHW * 2)


@pytest.mark.parametrize(("size_px", "overlap_px"), [(32, 0), (40, 8), (64, 0), (72, 16)])
def test_tiles_cover_every_pixel(size_px: int, overlap_px: int) -> None:
    """A function of single pixels gives the same tile by tile."""
    x_BCHW = torch.rand(2, 3, size_px, size_px)
    actual = tiled(lambda tile: tile * 3 + 1, x_BCHW, 32, overlap_px)
    assert torch.allclose(actual, x_BCHW * 3 + 1)


def test_overlapping_tiles_are_averaged() -> None:
    """Where two tiles lie, half of each counts."""
    number = iter([1.0, 3.0])
    actual = tiled(lambda tile: torch.full_like(tile, next(number)), torch.zeros(1, 1, 4, 6), 4, 2)
    assert actual[0, 0, 0].tolist() == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


def test_a_crop_below_a_tile_is_refused() -> None:
    """What is too small for the network says so."""
    with pytest.raises(TeacherError, match="enlarge the crop"):
        open_teacher(TINY).noise(torch.zeros(1, 3, 16, 40), [0])


def test_the_tile_is_the_networks_own_size_where_nobody_says() -> None:
    """A pixel-space network is applied at the size that it was trained at."""
    network = _Recorder(native=24)
    config = TINY.model_copy(update={"tile_px": None})
    teacher = recording(config, network)
    teacher.noise(torch.zeros(1, 3, 24, 40), [0])
    assert [tile.shape[2:] for tile in network.seen] == [(24, 24), (24, 24)]
    assert "24/8" in teacher.teacher_id


def test_without_a_size_the_crop_is_taken_whole() -> None:
    """Also one that is not square."""
    network = _Recorder()
    recording(TINY.model_copy(update={"tile_px": None}), network).noise(
        torch.zeros(1, 3, 24, 40), [0]
    )
    assert [tile.shape[2:] for tile in network.seen] == [(24, 40)]


def test_a_tile_that_no_network_takes_is_refused_before_training() -> None:
    """A U-Net of five levels cannot halve 40 px four times; the message says what can."""
    with pytest.raises(TeacherError, match="choose multiples of 16 px"):
        recording(TINY.model_copy(update={"tile_px": 40}), _Recorder(multiple=16))


def test_a_crop_that_no_network_takes_is_refused() -> None:
    """Where the crop is taken whole, it is the crop that must fit."""
    teacher = recording(TINY.model_copy(update={"tile_px": None}), _Recorder(multiple=16))
    with pytest.raises(TeacherError, match="a crop of 40 x 48 px"):
        teacher.noise(torch.zeros(1, 3, 40, 48), [0])


def test_a_resolution_above_the_largest_is_refused() -> None:
    """Position embeddings end somewhere."""
    teacher = recording(TINY.model_copy(update={"tile_px": None}), _Recorder(largest=32))
    with pytest.raises(TeacherError, match=r"over the 32 px .* smaller teacher\.tile_px"):
        teacher.noise(torch.zeros(1, 3, 40, 40), [0])


def test_an_overlap_above_the_networks_own_tile_is_refused() -> None:
    """The configuration alone cannot know the size."""
    config = TeacherConfig(kind="random-tiny", tile_overlap_px=32)
    with pytest.raises(TeacherError, match="tiles of 32 px"):
        open_teacher(config)


def test_low_precision_has_an_id_of_its_own_and_targets_in_fp32() -> None:
    """bf16 changes targets a little; they must not be mixed with the others."""
    x_BCHW = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    exact, low = open_teacher(TINY), open_teacher(TINY.model_copy(update={"dtype": "bf16"}))
    actual, expected = low.noise(x_BCHW, [0]), exact.noise(x_BCHW, [0])
    assert actual.dtype == torch.float32
    assert not torch.equal(actual, expected)
    # The whole error, not the worst pixel's, which differs from processor to processor.
    assert 0 < float((actual - expected).std()) < 0.05 * float(expected.std())
    assert torch.equal(actual, low.noise(x_BCHW, [0]))
    assert low.teacher_id == f"{exact.teacher_id}-bf16"


@pytest.mark.parametrize(
    "change",
    [
        {"timestep_index": 1},
        {"inject_noise": True},
        {"tile_overlap_px": 4},
        {"tile_px": 40},
        {"dtype": "bf16"},
    ],
)
def test_whatever_changes_a_target_changes_the_id(change: dict[str, object]) -> None:
    """Targets are filed under the id."""
    first = recording(TINY, _Recorder())
    second = recording(TINY.model_copy(update=change), _Recorder())
    assert first.teacher_id != second.teacher_id
