"""From a diffusers folder or hub id to a diffusion model and a frozen teacher.

The family is that of the network's configuration (``unet/`` or ``transformer/``); a ``teacher.kind``
other than "auto" must be the same. The text condition is the one that the model's own pipeline uses
without a prompt: the empty text through every text encoder, or zeros where the model was trained so
(``force_zeros_for_empty_prompt`` of SDXL). The encoders run once and are dropped.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import diffusers  # resolves its names when they are used: importing every family takes seconds
import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from trainer.config import TeacherConfig
from trainer.errors import TeacherError
from trainer.teachers.frozen import (
    RGB,
    FrozenTeacher,
    Latents,
    Network,
    Pixels,
    Process,
    Space,
    discrete_process,
    flow_process,
)
from trainer.teachers.keras_ddpm import KerasDdpmUnet

FLUX_PACK = 2  # FLUX packs squares of two by two latents into one token
_NO_GUIDANCE = 1.0
# The class that a network's config.json names, by teacher.kind.
_CLASSES = {
    "unet2d": "UNet2DModel",
    "keras-ddpm": "KerasDdpmUnet",
    "unet2d-condition": "UNet2DConditionModel",
    "sd3": "SD3Transformer2DModel",
    "flux": "FluxTransformer2DModel",
}
_PIXEL_KINDS = {"unet2d", "keras-ddpm"}
# The pipeline of each latent family, and its component that is the network.
_PIPELINES = {
    "sd": ("StableDiffusionPipeline", "unet"),
    "sdxl": ("StableDiffusionXLPipeline", "unet"),
    "sd3": ("StableDiffusion3Pipeline", "transformer"),
    "flux": ("FluxPipeline", "transformer"),
}
# The components that encoding a prompt does not need.
_UNUSED = ("vae", "feature_extractor", "image_encoder")
_T5 = {"text_encoder_3", "tokenizer_3"}
_NEEDS = (
    "name a diffusers folder or hub id with unet/ or transformer/, and scheduler/, "
    "or make one with python -m trainer teacher or teacher-convert"
)


class Prompt(nn.Module):
    """The embedding of the empty prompt; its buffers follow the model to its device."""

    def __init__(self, token_NC: Tensor, pooled_C: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("token_NC", token_NC.float())
        self.register_buffer("pooled_C", None if pooled_C is None else pooled_C.float())

    def tokens(self, count: int) -> Tensor:
        """For each crop, [count, N, C]."""
        return self.get_buffer("token_NC").expand(count, -1, -1)

    def pooled(self, count: int) -> Tensor:
        """For each crop, [count, C]."""
        return self.get_buffer("pooled_C").expand(count, -1)


class Unconditional(nn.Module):
    """A pixel-space U-Net."""

    def __init__(self, network: "diffusers.UNet2DModel", name: str) -> None:
        super().__init__()
        if getattr(network, "class_embedding", None) is not None:
            raise TeacherError(f"{name} needs a class for each image: give an unconditional model")
        self.inner = network
        widths = network.config.block_out_channels
        self.multiple, self.largest = 2 ** (len(widths) - 1), None
        size = network.config.sample_size
        self.native = size if isinstance(size, int) else None

    def predict(self, x_t_BCHW: Tensor, time: float) -> Tensor:
        """Predict at x_t [B, 3, H, W] and an array index."""
        prediction: Tensor = self.inner(x_t_BCHW, int(time)).sample
        return prediction


class Conditional(nn.Module):
    """The latent U-Net of Stable Diffusion 1, 2 and XL."""

    multiple, largest, native = 1, None, None  # it pads its own skips

    def __init__(
        self, network: "diffusers.UNet2DConditionModel", prompt: Prompt, name: str
    ) -> None:
        super().__init__()
        config = network.config
        if config.class_embed_type is not None or config.num_class_embeds is not None:
            raise TeacherError(f"{name} needs a class for each image: give a text-to-image model")
        if config.addition_embed_type not in {None, "text_time"}:
            raise TeacherError(
                f"{name} needs {config.addition_embed_type!r}, which is not supported: "
                "give Stable Diffusion 1, 2 or XL"
            )
        self.inner, self.prompt = network, prompt
        # XL is conditioned on the size of the whole picture. A crop is native pixels of a large
        # picture; the crop's own size would mean a small picture that was scaled up.
        side_px = float(config.sample_size * 8)
        size = torch.tensor([[side_px, side_px, 0.0, 0.0, side_px, side_px]])
        self.register_buffer("size_1N", size, persistent=False)

    def predict(self, x_t_BCHW: Tensor, time: float) -> Tensor:
        """Predict at latents [B, 4, H, W] and an array index."""
        count = len(x_t_BCHW)
        added = None
        if self.inner.config.addition_embed_type == "text_time":
            size_1N = self.get_buffer("size_1N").expand(count, -1)
            added = {"text_embeds": self.prompt.pooled(count), "time_ids": size_1N}
        text = self.prompt.tokens(count)
        prediction: Tensor = self.inner(
            x_t_BCHW, int(time), encoder_hidden_states=text, added_cond_kwargs=added
        ).sample
        return prediction


class Sd3(nn.Module):
    """The transformer of Stable Diffusion 3."""

    native = None

    def __init__(self, network: "diffusers.SD3Transformer2DModel", prompt: Prompt) -> None:
        super().__init__()
        self.inner, self.prompt = network, prompt
        self.multiple = int(network.config.patch_size)
        self.largest = int(network.config.pos_embed_max_size) * self.multiple

    def predict(self, x_t_BCHW: Tensor, time: float) -> Tensor:
        """The velocity at latents [B, 16, H, W] and 1,000 sigma."""
        count = len(x_t_BCHW)
        velocity: Tensor = self.inner(
            hidden_states=x_t_BCHW,
            timestep=torch.full((count,), time, device=x_t_BCHW.device),
            encoder_hidden_states=self.prompt.tokens(count),
            pooled_projections=self.prompt.pooled(count),
        ).sample
        return velocity


class Flux(nn.Module):
    """The transformer of FLUX.1, without guidance where it is distilled."""

    native, largest, multiple = None, None, FLUX_PACK

    def __init__(self, network: "diffusers.FluxTransformer2DModel", prompt: Prompt) -> None:
        super().__init__()
        self.inner, self.prompt = network, prompt

    def predict(self, x_t_BCHW: Tensor, time: float) -> Tensor:
        """The velocity at latents [B, 16, H, W] and 1,000 sigma."""
        count, _, height, width = x_t_BCHW.shape
        device = x_t_BCHW.device
        text = self.prompt.tokens(count)
        guidance = None
        if self.inner.config.guidance_embeds:
            guidance = torch.full((count,), _NO_GUIDANCE, device=device)
        velocity: Tensor = self.inner(
            hidden_states=packed(x_t_BCHW),
            timestep=torch.full((count,), time / 1000, device=device),  # it multiplies by 1,000
            guidance=guidance,
            encoder_hidden_states=text,
            pooled_projections=self.prompt.pooled(count),
            txt_ids=torch.zeros(text.shape[1], 3, device=device),
            img_ids=places(height, width).to(device),
        ).sample
        return unpacked(velocity, height, width)


def packed(latent_BCHW: Tensor) -> Tensor:
    """Tokens [B, H/2 * W/2, 4 C]: each holds the four values of a channel, then the next's."""
    return nn.functional.pixel_unshuffle(latent_BCHW, FLUX_PACK).flatten(2).mT


def unpacked(token_BNC: Tensor, height: int, width: int) -> Tensor:
    """The inverse of ``packed``: [B, C, height, width]."""
    rows, columns = height // FLUX_PACK, width // FLUX_PACK
    map_BCHW = token_BNC.mT.reshape(len(token_BNC), -1, rows, columns)
    return nn.functional.pixel_shuffle(map_BCHW, FLUX_PACK)


def places(height: int, width: int) -> Tensor:
    """The position of each token, [H/2 * W/2, 3]: (0, row, column)."""
    rows = torch.arange(height // FLUX_PACK, dtype=torch.float32)
    columns = torch.arange(width // FLUX_PACK, dtype=torch.float32)
    grid = torch.meshgrid(torch.zeros(1), rows, columns, indexing="ij")
    return torch.stack(grid, dim=-1).reshape(-1, 3)


@dataclass(frozen=True)
class DiffusionModel:
    """A diffusion model with an empty prompt, and the schedule that it was trained with.

    Attributes:
        network: predicts noise or velocities.
        space: pixels or latents.
        schedule: the scheduler's configuration.
        flow: whether it predicts velocities (flow matching), not noise at discrete steps.
        name: the folder's, and a digest of all that a prediction depends on.
    """

    network: Network
    space: Space
    schedule: Mapping[str, object]
    flow: bool
    name: str

    @property
    def steps(self) -> int:
        """Of its schedule."""
        return int(str(self.schedule.get("num_train_timesteps", 1000)))  # diffusers' own default

    def process(self, index: int) -> Process:
        """A step of its forward process; 0 is the least noise."""
        process_of = flow_process if self.flow else discrete_process
        return process_of(self.schedule, index, self.name)


def open_teacher(config: TeacherConfig) -> FrozenTeacher:
    """Load the teacher of a configuration, frozen.

    Raises:
        TeacherError: the folder cannot be used.
    """
    if config.kind == "random-tiny":
        process: Process = discrete_process(
            diffusers.DDPMScheduler().config, config.timestep_index, "random-tiny"
        )
        network = Unconditional(_tiny_network(), "random-tiny")
        return FrozenTeacher(network, Pixels(), process, config, "random-tiny")
    model = open_model(config.source, config.variant, kind=config.kind)
    process = model.process(config.timestep_index)
    return FrozenTeacher(model.network, model.space, process, config, model.name)


def open_model(
    source: str, variant: str, *, kind: str = "auto", decodes: bool = False
) -> DiffusionModel:
    """Load a diffusion model.

    Args:
        source: a diffusers folder or hub id.
        variant: of the weights' file names; empty for none.
        kind: the family that it must be, or "auto".
        decodes: keep the decoder of an autoencoder, which a teacher does not need.

    Raises:
        TeacherError: the folder cannot be used.
    """
    folder, settings = network_settings(source)
    kind = _kind(source, kind, str(settings.get("_class_name")))
    ours = {"keras-ddpm": KerasDdpmUnet}
    model_class = ours.get(kind) or getattr(diffusers, _CLASSES[kind])
    network = _load_network(model_class, source, folder, variant or None)
    if kind in _PIXEL_KINDS:
        return _pixel_model(network, source)
    return _latent_model(kind, network, source, variant or None, decodes=decodes)


def _kind(source: str, expected: str, class_name: str) -> str:
    kind = {name: kind for kind, name in _CLASSES.items()}.get(class_name)
    if kind is None:
        raise TeacherError(
            f"{source!r} holds a {class_name}: this trainer opens {', '.join(_CLASSES.values())}"
        )
    if expected not in {"auto", kind}:
        raise TeacherError(
            f"{source!r} holds a {class_name}: set teacher.kind to {kind!r} or 'auto', "
            "or name another folder"
        )
    return kind


def _pixel_model(network: "diffusers.UNet2DModel", source: str) -> DiffusionModel:
    autoencoders = _pipeline_parts(source) & {"vae", "vqvae"}
    channels = network.config.in_channels
    if autoencoders or channels != RGB:
        raise TeacherError(
            f"{source!r} is not a model of RGB pixels ({channels} channels"
            f"{', with an autoencoder' if autoencoders else ''}): give a pixel-space DDPM, or a "
            "latent model of another family"
        )
    name = _name_of(source, [network], {})
    wrapped = Unconditional(network, name)
    return DiffusionModel(wrapped, Pixels(), _scheduler_settings(source), flow=False, name=name)


def _latent_model(
    kind: str, network: ModelMixin, source: str, variant: str | None, *, decodes: bool
) -> DiffusionModel:
    settings = _scheduler_settings(source)
    vae = _load_network(diffusers.AutoencoderKL, source, "vae", variant)
    packing = FLUX_PACK**2 if kind == "flux" else 1
    takes, has = network.config.in_channels // packing, vae.config.latent_channels
    if takes != has:
        raise TeacherError(
            f"the network of {source!r} takes {takes} channels, its VAE has {has}: models for "
            "inpainting, depth or edges need more than an image; give the plain text-to-image model"
        )
    space = Latents(vae, source, decodes=decodes)
    family = kind
    if kind == "unet2d-condition":
        family = "sdxl" if network.config.addition_embed_type == "text_time" else "sd"
    prompt = no_prompt(family, source, network, variant)
    # The digest covers all that a target depends on. Schedulers that differ in their sampler only
    # give the same targets and have the same process label, which is part of the id.
    scaling = {"shift": vae.config.shift_factor, "scale": vae.config.scaling_factor}
    name = _name_of(source, [network, vae, prompt], scaling)
    flow = kind != "unet2d-condition"
    conditioned = _conditioned(kind, network, prompt, name)
    return DiffusionModel(conditioned, space, settings, flow=flow, name=name)


def _conditioned(kind: str, network: ModelMixin, prompt: Prompt, name: str) -> Network:
    if kind == "sd3":
        return Sd3(network, prompt)
    if kind == "flux":
        return Flux(network, prompt)
    return Conditional(network, prompt, name)


@torch.no_grad()
def no_prompt(family: str, source: str, network: nn.Module, variant: str | None) -> Prompt:
    """The embedding of the empty prompt, by the folder's own text encoders.

    Args:
        family: "sd", "sdxl", "sd3" or "flux".
        source: a diffusers folder or hub id with ``model_index.json``.
        network: the denoising network, whose configuration an encoder may need.
        variant: of the encoders' file names.

    Raises:
        TeacherError: an encoder is missing.
    """
    class_name, place = _PIPELINES[family]
    unused = {*_UNUSED, "safety_checker"} if family == "sd" else set(_UNUSED)
    if family == "sd3" and not _pipeline_parts(source) >= _T5:
        unused |= _T5  # its pipeline takes zeros in place of its largest encoder
    try:
        pipeline = getattr(diffusers, class_name).from_pretrained(
            source, variant=variant, **dict.fromkeys(unused), **{place: network}
        )
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.float()  # weights may be stored in half precision
        return _encoded(family, pipeline)
    # A missing encoder surfaces as any of these, depending on what else is missing.
    except (OSError, ValueError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        raise TeacherError(
            f"the empty prompt cannot be encoded by {source!r} ({error}): it needs model_index.json "
            "and every tokenizer and text encoder that it names"
        ) from error


def _encoded(family: str, pipeline: "diffusers.DiffusionPipeline") -> Prompt:
    if family == "flux":
        token_BNC, pooled_BC, _ = pipeline.encode_prompt(prompt="", prompt_2=None)
        return Prompt(token_BNC[0], pooled_BC[0])
    if family == "sd":
        _, token_BNC = pipeline.encode_prompt("", "cpu", 1, True)  # noqa: FBT003  positional there
        return Prompt(token_BNC[0], None)
    more = {"prompt_3": None} if family == "sd3" else {}
    _, token_BNC, _, pooled_BC = pipeline.encode_prompt(prompt="", prompt_2=None, **more)
    return Prompt(token_BNC[0], pooled_BC[0])


def network_settings(source: str) -> tuple[str, Mapping[str, object]]:
    """("unet" or "transformer", its configuration)."""
    for folder in ("unet", "transformer"):
        try:
            # Only reads JSON: any model class does.
            return folder, _mapping(diffusers.UNet2DModel.load_config(source, subfolder=folder))
        except (OSError, ValueError) as error:
            last = error
    raise TeacherError(f"no diffusion model in {source!r} ({last}): {_NEEDS}") from last


def _scheduler_settings(source: str) -> Mapping[str, object]:
    try:
        return _mapping(diffusers.DDPMScheduler.load_config(source, subfolder="scheduler"))
    except (OSError, ValueError) as error:
        raise TeacherError(
            f"{source!r} has no readable scheduler ({error}): a step needs the schedule of the "
            "training; add scheduler/scheduler_config.json"
        ) from error


def _pipeline_parts(source: str) -> frozenset[str]:
    """The components that ``model_index.json`` names; none without that file."""
    try:
        index = _mapping(diffusers.DiffusionPipeline.load_config(source))
    except (OSError, ValueError):
        return frozenset()
    return frozenset(name for name, kind in index.items() if kind != [None, None])


def _mapping(content: object) -> Mapping[str, object]:
    if not isinstance(content, Mapping):
        raise ValueError("it is not a JSON object")  # noqa: TRY004  callers treat it as unreadable
    return content


def _load_network(
    kind: type[ModelMixin], source: str, folder: str, variant: str | None
) -> ModelMixin:
    """A network in fp32 with every weight that it needs."""
    try:
        # Loaded the same way whether accelerate is installed or not.
        network, loading = kind.from_pretrained(
            source,
            subfolder=folder,
            variant=variant,
            output_loading_info=True,
            low_cpu_mem_usage=False,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise TeacherError(
            f"{folder}/ of {source!r} cannot be loaded as {kind.__name__} ({error}): its weights "
            "must be those of its config.json; copy the folder again, or set teacher.variant"
        ) from error
    # diffusers only warns, and leaves missing weights at random.
    wrong = [key for name in ("missing_keys", "mismatched_keys") for key in loading[name]]
    if wrong:
        raise TeacherError(
            f"{folder}/ of {source!r} lacks {len(wrong)} weights of the network, such as {wrong[0]}: "
            "its weights are those of another network; copy or convert it again"
        )
    return network.float()  # weights may be stored in half precision


def _name_of(source: str, parts: list[nn.Module], settings: Mapping[str, object]) -> str:
    """The folder's name and a digest; its path differs between machines.

    Args:
        source: the folder or hub id.
        parts: the modules whose weights change a target.
        settings: other values that change it.
    """
    digest = hashlib.sha256()
    for value in (value for part in parts for value in part.state_dict().values()):
        digest.update(value.contiguous().numpy().tobytes())
    if settings:
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return f"{Path(source).name or source}-{digest.hexdigest()[:12]}"


def _tiny_network() -> "diffusers.UNet2DModel":
    """A random U-Net of a few thousand parameters, the same every time: for tests."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return diffusers.UNet2DModel(
            sample_size=32,
            block_out_channels=(8, 8),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
        )
