"""Every family is opened from the folder that diffusers writes, and gets the inputs that its pipeline gives it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, FluxPipeline
from torch import Tensor, nn

from tests.unit.trainer.teachers import tiny_models
from trainer.config import TeacherConfig
from trainer.errors import TeacherError
from trainer.teachers.frozen import FrozenTeacher, Latents
from trainer.teachers.opening import open_teacher, packed, places, unpacked

LATENT: dict[str, tuple[str, int, Callable[[], DiffusionPipeline]]] = {
    "sd": ("unet2d-condition", 4, tiny_models.sd),
    "sdxl": ("unet2d-condition", 4, tiny_models.sdxl),
    "sd3": ("sd3", 16, tiny_models.sd3),
    "flux": ("flux", 16, tiny_models.flux),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder of each latent family."""
    root = tmp_path_factory.mktemp("families")
    return {name: tiny_models.write(make(), root / name) for name, (_, _, make) in LATENT.items()}


@pytest.fixture(scope="module")
def teachers(folders: dict[str, str]) -> dict[str, FrozenTeacher]:
    """Each opened without a word of what it is."""
    return {name: open_teacher(TeacherConfig(source=source)) for name, source in folders.items()}


def crops(height_px: int = 64, width_px: int = 64) -> Tensor:
    """Two crops in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, height_px, width_px, generator=generator) * 2 - 1


class _Recorder(nn.Module):
    """Stands for a network: returns zeros and keeps its inputs."""

    def __init__(self, inner: nn.Module, channels: int) -> None:
        super().__init__()
        self.config, self.channels = inner.config, channels
        self.inputs: dict[str, object] = {}

    def forward(self, *places: object, **named: object) -> object:
        self.inputs = named | {"places": places}
        sample = places[0] if places else named["hidden_states"]
        return type("Output", (), {"sample": torch.zeros_like(sample)})  # type: ignore[arg-type]  # a tensor


@pytest.mark.parametrize("name", LATENT)
def test_a_latent_family_is_read_from_its_folder(
    name: str, teachers: dict[str, FrozenTeacher]
) -> None:
    """Shape, precision, no gradient, the same again; frozen all through, the autoencoder too."""
    teacher, channels = teachers[name], LATENT[name][1]
    x_BCHW = crops(64, 96).requires_grad_()
    eps = teacher.noise(x_BCHW, [1, 2])
    assert (teacher.channels, teacher.stride) == (channels, 8)
    assert eps.shape == (2, channels, 8, 12)
    assert eps.dtype == torch.float32
    assert not eps.requires_grad
    assert torch.isfinite(eps).all()
    assert torch.equal(eps, teacher.noise(x_BCHW, [3, 4]))
    teacher.train()
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert not any(module.training for module in teacher.modules())


@pytest.mark.parametrize("name", LATENT)
def test_a_kind_that_is_named_must_be_the_folders(name: str, folders: dict[str, str]) -> None:
    """Naming another is an error that says which it is."""
    other = "flux" if name != "flux" else "sd3"
    with pytest.raises(TeacherError, match=f"teacher.kind to '{LATENT[name][0]}'"):
        open_teacher(TeacherConfig(kind=other, source=folders[name]))


def test_ids_differ_by_family_and_not_by_place(
    folders: dict[str, str], teachers: dict[str, FrozenTeacher], tmp_path: Path
) -> None:
    """The digest covers the weights; the path is left out."""
    assert len({teacher.teacher_id for teacher in teachers.values()}) == len(teachers)
    moved = tmp_path / "elsewhere" / "sd"
    shutil.copytree(folders["sd"], moved)
    assert open_teacher(TeacherConfig(source=str(moved))).teacher_id == teachers["sd"].teacher_id


def test_latents_are_the_shifted_and_scaled_mode(teachers: dict[str, FrozenTeacher]) -> None:
    """Z = (mode - shift) * scale; FLUX and SD3 shift, Stable Diffusion does not."""
    for name, shift in (("sd", 0.0), ("flux", 0.1)):
        space = teachers[name].space
        assert isinstance(space, Latents)
        vae = space.vae
        with torch.no_grad():
            mode = vae.encode(crops()).latent_dist.mode()
            expected = (mode - shift) * vae.config.scaling_factor
            assert torch.allclose(space.encode(crops()), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_kind_of_prediction_is_read_from_the_folder(kind: str, tmp_path: Path) -> None:
    """The same weights mean another epsilon, by the formula of the kind, under another id."""
    config = TeacherConfig(source=tiny_models.write(tiny_models.sd(kind), tmp_path / "m"))
    teacher = open_teacher(config.model_copy(update={"timestep_index": 100}))
    network = teacher.network
    with torch.no_grad():
        z_BCHW = teacher.space.encode(crops())
        predicted = network.predict(z_BCHW, 100)
    abar = DDPMScheduler(beta_schedule="scaled_linear").alphas_cumprod[100]
    signal, noise = abar.sqrt(), (1 - abar).sqrt()
    expected = {
        "epsilon": predicted,
        "v_prediction": signal * predicted + noise * z_BCHW,
        "sample": (z_BCHW - signal * predicted) / noise,
    }[kind]
    assert torch.allclose(teacher.noise(crops(), [0, 0]), expected, atol=1e-4)


def test_the_empty_prompt_is_what_the_pipeline_uses(
    folders: dict[str, str], teachers: dict[str, FrozenTeacher]
) -> None:
    """Stable Diffusion: the empty text through its own encoder; the encoder is dropped."""
    pipeline = DiffusionPipeline.from_pretrained(folders["sd"], safety_checker=None)
    ids = pipeline.tokenizer("", padding="max_length", max_length=8, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = pipeline.text_encoder(ids)[0]
    network = teachers["sd"].network
    assert torch.allclose(network.prompt.tokens(1), expected, atol=1e-6)  # type: ignore[attr-defined]  # a Conditional
    assert not any("Text" in type(module).__name__ for module in teachers["sd"].modules())


@pytest.mark.parametrize("zeros", [True, False])
def test_xl_takes_zeros_where_it_was_trained_so(zeros: bool, tmp_path: Path) -> None:  # noqa: FBT001  a parameter
    """force_zeros_for_empty_prompt is of the folder, for the tokens and the pooled text."""
    source = tiny_models.write(tiny_models.sdxl(zeros=zeros), tmp_path / "xl")
    prompt = open_teacher(TeacherConfig(source=source)).network.prompt  # type: ignore[attr-defined]  # a Conditional
    assert bool((prompt.tokens(1) == 0).all()) == zeros
    assert bool((prompt.pooled(1) == 0).all()) == zeros


def test_xl_is_told_the_size_of_its_own_pictures(folders: dict[str, str]) -> None:
    """Original and target size are the network's own (here 16 x 8 px), the corner is 0, 0."""
    teacher = open_teacher(TeacherConfig(source=folders["sdxl"]))
    network = teacher.network
    recorder = _Recorder(network.inner, 4)  # type: ignore[attr-defined]  # a Conditional
    network.inner = recorder  # type: ignore[attr-defined]  # a Conditional
    teacher.noise(crops(), [0, 0])
    added = recorder.inputs["added_cond_kwargs"]
    assert isinstance(added, dict)
    assert added["time_ids"].tolist() == [[128.0, 128.0, 0.0, 0.0, 128.0, 128.0]] * 2
    assert added["text_embeds"].shape == (2, 16)


@pytest.mark.parametrize(("name", "told"), [("sd3", 1000 * 0.003 / 1.002), ("flux", 0.001)])
def test_a_flow_transformer_is_told_its_sigma(
    name: str, told: float, folders: dict[str, str]
) -> None:
    """SD3 takes 1,000 sigma (shifted by 3 here), FLUX sigma; with v = 0, eps is x_t itself."""
    teacher = open_teacher(TeacherConfig(source=folders[name]))
    network = teacher.network
    recorder = _Recorder(network.inner, 16)  # type: ignore[attr-defined]  # an Sd3 or Flux
    network.inner = recorder  # type: ignore[attr-defined]  # an Sd3 or Flux
    eps = teacher.noise(crops(), [0, 0])
    timestep = recorder.inputs["timestep"]
    assert isinstance(timestep, Tensor)
    assert timestep.tolist() == pytest.approx([told, told], rel=1e-4)
    with torch.no_grad():
        assert torch.allclose(eps, teacher.space.encode(crops()), atol=1e-5)


def test_flux_latents_are_packed_as_its_pipeline_packs_them() -> None:
    """Tokens, their places, and the way back."""
    latent_BCHW = torch.randn(2, 16, 4, 6)
    expected = FluxPipeline._pack_latents(latent_BCHW, 2, 16, 4, 6)
    assert torch.equal(packed(latent_BCHW), expected)
    assert torch.equal(unpacked(expected, 4, 6), latent_BCHW)
    grid = FluxPipeline._prepare_latent_image_ids(1, 2, 3, "cpu", torch.float32)
    assert torch.equal(places(4, 6), grid)


def test_a_distilled_flux_is_asked_without_guidance(tmp_path: Path) -> None:
    """FLUX.1-dev takes its guidance as an input: 1 is none."""
    source = tiny_models.write(tiny_models.flux(distilled=True), tmp_path / "dev")
    teacher = open_teacher(TeacherConfig(source=source))
    first = teacher.noise(crops(), [0, 0])
    assert torch.isfinite(first).all()
    recorder = _Recorder(teacher.network.inner, 16)  # type: ignore[attr-defined]  # a Flux
    teacher.network.inner = recorder  # type: ignore[attr-defined]  # a Flux
    teacher.noise(crops(), [0, 0])
    guidance = recorder.inputs["guidance"]
    assert isinstance(guidance, Tensor)
    assert guidance.tolist() == [1.0, 1.0]


def test_a_crop_that_is_no_multiple_of_the_latents_is_refused(
    teachers: dict[str, FrozenTeacher],
) -> None:
    """The message says what fits: 8 px for a U-Net, 16 where latents are taken in squares of two."""
    with pytest.raises(TeacherError, match="choose multiples of 8 px"):
        teachers["sd"].noise(crops(60, 60), [0, 0])
    with pytest.raises(TeacherError, match="choose multiples of 16 px"):
        teachers["flux"].noise(crops(72, 72), [0, 0])


def test_a_crop_past_the_positions_of_a_transformer_is_refused(
    teachers: dict[str, FrozenTeacher],
) -> None:
    """SD3 knows so many positions and no more: a tile is what helps."""
    with pytest.raises(TeacherError, match="over the 256 px that the teacher takes"):
        teachers["sd3"].noise(crops(272, 272), [0, 0])


def test_latents_can_be_asked_tile_by_tile(folders: dict[str, str]) -> None:
    """Tiles are cut from the latents of the whole crop."""
    config = TeacherConfig(source=folders["sd"], tile_px=64, tile_overlap_px=0)
    teacher = open_teacher(config)
    x_BCHW = crops(64, 128)
    with torch.no_grad():
        z_BCHW = teacher.space.encode(x_BCHW)
        expected = teacher.network.predict(z_BCHW[..., :8], 0)
    assert torch.allclose(teacher.noise(x_BCHW, [0, 0])[..., :8], expected, atol=1e-5)


def test_a_pixel_teacher_is_read_from_its_folder(tmp_path: Path) -> None:
    """What was saved gives the same noise, and an id that does not depend on the place."""
    source = tiny_models.pixel(tmp_path / "here" / "model")
    first = open_teacher(
        tiny_models.TINY.model_copy(update={"kind": "auto", "source": str(source)})
    )
    expected = open_teacher(tiny_models.TINY).noise(crops(32, 32), [0, 0])
    assert torch.allclose(first.noise(crops(32, 32), [0, 0]), expected, atol=1e-5)
    moved = tiny_models.pixel(tmp_path / "there" / "model")
    second = open_teacher(
        tiny_models.TINY.model_copy(update={"kind": "unet2d", "source": str(moved)})
    )
    assert first.teacher_id == second.teacher_id
    assert first.teacher_id.startswith("model-")


def test_a_converted_folder_says_what_it_is(tmp_path: Path) -> None:
    """The class in its config.json is enough; its tiles are of its own size."""
    teacher = open_teacher(TeacherConfig(source=str(tiny_models.converted(tmp_path))))
    assert teacher.teacher_id.endswith("@0-plain-64/16")
    with pytest.raises(TeacherError, match="holds a KerasDdpmUnet"):
        open_teacher(TeacherConfig(kind="unet2d", source=str(tmp_path)))
