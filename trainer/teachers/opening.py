"""From a folder to a diffusion model, and to a frozen teacher, whatever its family.

In: a local diffusers folder or a hub id. Out: a model, a teacher. Errors: ``TeacherError``.

The family is that of the network's own configuration (``unet/`` or ``transformer/``); a
``teacher.kind`` other than "auto" must be the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import diffusers  # resolves its names when they are used: importing every family takes seconds
import torch
from diffusers.models.modeling_utils import ModelMixin

from trainer.config import TeacherConfig
from trainer.teachers.errors import TeacherError
from trainer.teachers.frozen import FrozenTeacher, Network
from trainer.teachers.keras_ddpm import KerasDdpmUnet
from trainer.teachers.networks import FLUX_PACK, Conditional, Flux, Sd3, Unconditional
from trainer.teachers.processes import Process, discrete_process, flow_process
from trainer.teachers.prompts import Prompt, no_prompt
from trainer.teachers.spaces import RGB, Latents, Pixels, Space
from trainer.teachers.stored import (
    load_network,
    name_of,
    network_settings,
    pipeline_parts,
    scheduler_settings,
)

# The class that a network's config.json names, by the kind that the configuration does.
_CLASSES = {
    "unet2d": "UNet2DModel",
    "keras-ddpm": "KerasDdpmUnet",
    "unet2d-condition": "UNet2DConditionModel",
    "sd3": "SD3Transformer2DModel",
    "flux": "FluxTransformer2DModel",
}
_PIXEL_KINDS = {"unet2d", "keras-ddpm"}


@dataclass(frozen=True)
class DiffusionModel:
    """A diffusion model that is conditioned on nothing, and the schedule that it was trained with."""

    network: Network
    space: Space
    schedule: Mapping[str, object]  # its scheduler's configuration
    flow: bool  # flow matching: it predicts velocities, in place of noise at discrete steps
    name: str  # the folder's, and a digest of all that an answer of it depends on

    @property
    def steps(self) -> int:
        """Of its schedule."""
        return int(str(self.schedule.get("num_train_timesteps", 1000)))  # diffusers' own default

    def process(self, index: int) -> Process:
        """One step of its forward process; 0 is the least noise."""
        process_of = flow_process if self.flow else discrete_process
        return process_of(self.schedule, index, self.name)


def open_teacher(config: TeacherConfig) -> FrozenTeacher:
    """Load the teacher that the configuration names, frozen."""
    if config.kind == "random-tiny":
        process = discrete_process(
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
        decodes: keep the decoder of an autoencoder, which a teacher does without.
    """
    folder, settings = network_settings(source)
    found = _kind(source, kind, str(settings.get("_class_name")))
    ours = {"keras-ddpm": KerasDdpmUnet}
    model_class = ours.get(found) or getattr(diffusers, _CLASSES[found])
    network = load_network(model_class, source, folder, variant or None)
    if found in _PIXEL_KINDS:
        return _pixel_model(network, source)
    return _latent_model(found, network, source, variant or None, decodes=decodes)


def _kind(source: str, asked: str, class_name: str) -> str:
    found = {name: kind for kind, name in _CLASSES.items()}.get(class_name)
    if found is None:
        raise TeacherError(
            f"{source!r} holds a {class_name}: this trainer opens {', '.join(_CLASSES.values())}"
        )
    if asked not in {"auto", found}:
        raise TeacherError(
            f"{source!r} holds a {class_name}: set teacher.kind to {found!r} or 'auto', "
            "or name another folder"
        )
    return found


def _pixel_model(network: "diffusers.UNet2DModel | KerasDdpmUnet", source: str) -> DiffusionModel:
    autoencoders = pipeline_parts(source) & {"vae", "vqvae"}
    channels = network.config.get("in_channels", RGB)
    if autoencoders or channels != RGB:
        raise TeacherError(
            f"{source!r} is no model of RGB pixels ({channels} channels"
            f"{', with an autoencoder' if autoencoders else ''}): give a pixel-space DDPM, or a "
            "latent model of another family"
        )
    name = name_of(source, [network], {})
    wrapped = Unconditional(network, name)
    return DiffusionModel(wrapped, Pixels(), scheduler_settings(source), flow=False, name=name)


def _latent_model(
    kind: str, network: ModelMixin, source: str, variant: str | None, *, decodes: bool
) -> DiffusionModel:
    settings = scheduler_settings(source)
    vae = load_network(diffusers.AutoencoderKL, source, "vae", variant)
    _refuse_other_channels(kind, network, vae, source)
    space = Latents(vae, source, decodes=decodes)
    prompt = no_prompt(_family(kind, network), source, network, variant)
    # The digest is of all that a target depends on; where a scheduler's sampler alone differs,
    # the process' label (part of the id) is the same, and so are the targets.
    scaling = {"shift": vae.config.shift_factor, "scale": vae.config.scaling_factor}
    name = name_of(source, [network, vae, prompt], scaling)
    flow = kind != "unet2d-condition"
    conditioned = _conditioned(kind, network, prompt, name)
    return DiffusionModel(conditioned, space, settings, flow=flow, name=name)


def _family(kind: str, network: ModelMixin) -> str:
    if kind != "unet2d-condition":
        return kind
    return "sdxl" if network.config.addition_embed_type == "text_time" else "sd"


def _conditioned(kind: str, network: ModelMixin, prompt: Prompt, name: str) -> Network:
    if kind == "sd3":
        return Sd3(network, prompt)
    if kind == "flux":
        return Flux(network, prompt)
    return Conditional(network, prompt, name)


def _refuse_other_channels(
    kind: str, network: ModelMixin, vae: "diffusers.AutoencoderKL", source: str
) -> None:
    packing = FLUX_PACK**2 if kind == "flux" else 1
    takes, has = network.config.in_channels // packing, vae.config.latent_channels
    if takes != has:
        raise TeacherError(
            f"the network of {source!r} takes {takes} channels, its VAE has {has}: models for "
            "inpainting, depth or edges need more than an image; give the plain text-to-image one"
        )


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
