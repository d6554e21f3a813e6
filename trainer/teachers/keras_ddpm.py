"""The teacher of the reference bundle: a pixel-space DDPM written in Keras, saved for TensorFlow.js.

It is diffusers' ``UNet2DModel`` with two differences: its time features have a width of their own, and
its attention adds the normalised input (not the input) to what it attends to.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import wraps
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.errors import TeacherError

Weights = Mapping[str, NDArray[np.float32]]
_LAYERS = {"conv2d": nn.Conv2d, "dense": nn.Linear, "group_normalization": nn.GroupNorm}


# Options of ``UNet2DModel``: four levels, of which the last two attend with one head.
LAYOUT: Mapping[str, object] = {
    "sample_size": 64,
    "block_out_channels": (64, 128, 256, 512),
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "norm_eps": 1e-3,  # Keras' own
    "attention_head_dim": None,
    "down_block_types": ("DownBlock2D",) * 2 + ("AttnDownBlock2D",) * 2,
    "up_block_types": ("AttnUpBlock2D",) * 2 + ("UpBlock2D",) * 2,
    "downsample_padding": 0,  # TensorFlow's "same" padding lies right and below
    "time_embedding_dim": 256,
}


class KerasDdpmUnet(UNet2DModel):  # type: ignore[misc]  # diffusers ships no types
    """The U-Net; its options are those of ``UNet2DModel``."""

    # diffusers reads the options that a stored configuration may have from this signature.
    @wraps(UNet2DModel.__init__)  # type: ignore[misc]  # diffusers ships no types
    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        width = self.config.time_embedding_dim
        self.time_proj = Timesteps(width, flip_sin_to_cos=False, downscale_freq_shift=1)
        self.time_embedding = TimestepEmbedding(width, width)
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            for attention in getattr(block, "attentions", ()):
                attention.input_norm, attention.group_norm = attention.group_norm, None
                attention.register_forward_pre_hook(_normalised)


def _normalised(attention: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The input of an attention layer, which its residual connection adds too."""
    return (attention.get_submodule("input_norm")(inputs[0]), *inputs[1:])


def convert(source: Path, target: Path) -> int:
    """Write a TF.js model as a diffusers folder.

    Args:
        source: a folder with ``model.json`` and its shards.
        target: the folder to write.

    Returns:
        The number of parameters.

    Raises:
        TeacherError: the source holds another model, or cannot be read.
    """
    model = KerasDdpmUnet(**LAYOUT)
    fill(model, read_tfjs(source))
    scheduler = DDPMScheduler(
        num_train_timesteps=300, beta_schedule="squaredcos_cap_v2", clip_sample=False
    )
    model.save_pretrained(target / "unet")
    scheduler.save_pretrained(target / "scheduler")
    return sum(value.numel() for value in model.parameters())


def fill(model: KerasDdpmUnet, tensors: Weights) -> None:
    """Copy the weights of Keras's layers, which are numbered in the order of construction."""
    stored: dict[str, dict[int, dict[str, NDArray[np.float32]]]] = {}
    for name, value in tensors.items():
        match = re.search(r"/(conv2d|dense|group_normalization)_(\d+)/(\w+)/ReadVariableOp", name)
        if match:
            kind, number, role = match.group(1), int(match.group(2)), match.group(3)
            stored.setdefault(kind, {}).setdefault(number, {})[role] = value
    for kind, layer_type in _LAYERS.items():
        layers = [layer for layer in _layers(model) if isinstance(layer, layer_type)]
        numbered = sorted(stored.get(kind, {}).items())
        if len(numbered) != len(layers):
            raise TeacherError(
                f"the model has {len(numbered)} {kind} layers, this network {len(layers)}: give "
                "the DDPM of docs/concepts/teachers.md"
            )
        for layer, (_, values) in zip(layers, numbered, strict=True):
            weight, bias = _weights(kind, values)
            state = {"weight": weight, "bias": bias}
            layer.load_state_dict({key: torch.tensor(value) for key, value in state.items()})


def _layers(model: KerasDdpmUnet) -> Iterator[nn.Module]:
    """The layers in the order in which Keras made them."""
    yield model.conv_in
    yield from (model.time_embedding.linear_1, model.time_embedding.linear_2)
    for block in (*model.down_blocks, model.mid_block, *model.up_blocks):
        attentions = list(getattr(block, "attentions", ()))
        for number, part in enumerate(block.resnets):
            shortcut = [part.conv_shortcut] if part.conv_shortcut is not None else []
            yield from (*shortcut, part.time_emb_proj, part.norm1, part.conv1, part.norm2)
            yield part.conv2
            for at in attentions[number : number + 1]:
                yield from (at.input_norm, at.to_q, at.to_k, at.to_v, at.to_out[0])
        for sampler in (
            getattr(block, "downsamplers", None) or getattr(block, "upsamplers", None) or ()
        ):
            yield sampler.conv
    yield from (model.conv_norm_out, model.conv_out)


def _weights(kind: str, values: Weights) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight and bias of a layer in torch's layout."""
    if kind == "group_normalization":  # Keras reshapes gamma in Reshape_1 and beta in Reshape_2
        return values["Reshape_1"], values["Reshape_2"]
    if kind == "conv2d":
        return values["Conv2D"].transpose(3, 2, 0, 1), values["BiasAdd"]
    kernel = values["Tensordot"] if "Tensordot" in values else values["MatMul"]
    return kernel.T, values["BiasAdd"]


def read_tfjs(folder: Path) -> dict[str, NDArray[np.float32]]:
    """The float tensors of a TensorFlow.js model by name, dequantised.

    Raises:
        TeacherError: the folder lacks ``model.json`` or a shard.
    """
    try:
        group = json.loads((folder / "model.json").read_bytes())["weightsManifest"][0]
        buffer = b"".join((folder / shard).read_bytes() for shard in group["paths"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise TeacherError(
            f"{folder} is not a readable TF.js model ({error!r}): it needs model.json and every "
            "shard that it names"
        ) from error
    tensors: dict[str, NDArray[np.float32]] = {}
    offset = 0
    for entry in group["weights"]:
        quantization = entry.get("quantization")
        stored = np.dtype(quantization["dtype"] if quantization else entry["dtype"])
        count = math.prod(entry["shape"])
        if offset + count * stored.itemsize > len(buffer):
            raise TeacherError(f"{folder}: the shards end before {entry['name']}: copy them again")
        value = np.frombuffer(buffer, stored, count, offset).reshape(entry["shape"])
        offset += count * stored.itemsize
        if entry["dtype"] == "float32":
            scale = quantization["scale"] if quantization else 1.0
            minimum = quantization["min"] if quantization else 0.0
            tensors[entry["name"]] = (value.astype(np.float64) * scale + minimum).astype(np.float32)
    return tensors
