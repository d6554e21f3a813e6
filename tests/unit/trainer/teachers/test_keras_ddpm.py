"""The reference's teacher: its differences from diffusers' U-Net, and the reading of its weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.trainer.teachers.tiny_models import keras_ddpm
from trainer.errors import TeacherError
from trainer.teachers.keras_ddpm import KerasDdpmUnet, fill, read_tfjs


def tiny() -> KerasDdpmUnet:
    """The same network, narrow."""
    model: KerasDdpmUnet = keras_ddpm().eval()
    return model


def test_the_noise_has_the_shape_of_the_picture() -> None:
    """One index for all, or one for each picture, gives the same."""
    x_BCHW = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        shared, each = tiny()(x_BCHW, 3).sample, tiny()(x_BCHW, torch.tensor([3, 3])).sample
    assert shared.shape == x_BCHW.shape
    assert torch.equal(shared, each)


def test_attention_adds_the_normalised_input() -> None:
    """With an output layer of zeros, the norm of the input is left, not the input."""
    attention = tiny().mid_block.attentions[0]
    nn.init.zeros_(attention.to_out[0].weight)
    nn.init.zeros_(attention.to_out[0].bias)
    x_BCHW = torch.rand(1, 16, 4, 4) * 5
    with torch.no_grad():
        out = attention(x_BCHW)
        assert torch.allclose(out, attention.input_norm(x_BCHW))
    assert not torch.allclose(out, x_BCHW)


def test_attention_has_one_head_and_is_in_the_last_two_levels() -> None:
    attended = [attention for name, attention in tiny().named_modules() if "attentions." in name]
    blocks = [module for module in attended if hasattr(module, "to_q")]
    assert len(blocks) == 2 * 2 + 1 + 2 * 3
    assert {block.heads for block in blocks} == {1}


def test_every_group_norm_has_the_eps_of_keras() -> None:
    """1e-3, where torch's own is 1e-5."""
    norms = [module for module in tiny().modules() if isinstance(module, nn.GroupNorm)]
    assert norms
    assert {norm.eps for norm in norms} == {1e-3}


def test_time_features_are_sines_then_cosines() -> None:
    """Index 0 gives zeros, then ones; the last frequency is a ten-thousandth."""
    model = tiny()
    seen: list[torch.Tensor] = []
    linear = model.time_embedding.linear_1
    linear.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(torch.zeros(2, 3, 32, 32), torch.tensor([0, 100]))
    assert torch.allclose(seen[0][0], torch.tensor([0.0] * 8 + [1.0] * 8))
    assert torch.allclose(seen[0][1, 7], torch.tensor(100 / 10_000).sin(), atol=1e-6)


class Keras:
    """Numbers layers and names their weights as Keras does."""

    def __init__(self) -> None:
        self.tensors: dict[str, np.ndarray] = {}
        self._counts = {"conv2d": 67, "dense": 68, "group_normalization": 56}

    def add(self, module: nn.Module) -> None:
        """A layer, in the order of construction."""
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None
            kind = "conv2d"
            roles = {"Conv2D": module.weight.permute(2, 3, 1, 0), "BiasAdd": module.bias}
        elif isinstance(module, nn.Linear):
            kind, roles = "dense", {"MatMul": module.weight.T, "BiasAdd": module.bias}
        else:
            assert isinstance(module, nn.GroupNorm)
            kind = "group_normalization"
            roles = {"Reshape_1": module.weight, "Reshape_2": module.bias}
        for role, value in roles.items():
            name = f"unet/{kind}_{self._counts[kind]}/{role}/ReadVariableOp"
            self.tensors[name] = value.detach().numpy()
        self._counts[kind] += 1

    def residual(self, block: nn.Module) -> None:
        """Keras makes the shortcut of a residual block first."""
        names = ("conv_shortcut", "time_emb_proj", "norm1", "conv1", "norm2", "conv2")
        for name in names:
            if getattr(block, name) is not None:
                self.add(getattr(block, name))

    def attention(self, block: nn.Module) -> None:
        """Its norm, the three projections, the output."""
        projections = [block.get_submodule(name) for name in ("to_q", "to_k", "to_v", "to_out.0")]
        for module in (block.get_submodule("input_norm"), *projections):
            self.add(module)


def keras_tensors(model: KerasDdpmUnet) -> dict[str, np.ndarray]:
    """The network's weights under Keras's names: stem, time, down, middle, up, end."""
    keras = Keras()
    for part in (model.conv_in, model.time_embedding.linear_1, model.time_embedding.linear_2):
        keras.add(part)
    for level, block in enumerate([*model.down_blocks, *model.up_blocks]):
        if level == len(model.down_blocks):
            first, second = model.mid_block.resnets
            keras.residual(first)
            keras.attention(model.mid_block.attentions[0])
            keras.residual(second)
        for number, part in enumerate(block.resnets):
            keras.residual(part)
            if hasattr(block, "attentions"):
                keras.attention(block.attentions[number])
        for sampler in (
            getattr(block, "downsamplers", None) or getattr(block, "upsamplers", None) or []
        ):
            keras.add(sampler.conv)
    keras.add(model.conv_norm_out)
    keras.add(model.conv_out)
    return keras.tensors


def test_converted_weights_give_the_same_noise() -> None:
    """Through Keras's names, layouts and numbering and back, nothing changes."""
    model, other = tiny(), tiny()
    for value in other.parameters():
        nn.init.zeros_(value)
    fill(other, keras_tensors(model))
    x_BCHW = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(x_BCHW, 5).sample, other(x_BCHW, 5).sample)


def test_another_network_is_not_converted() -> None:
    """A layer too few is an error that gives the counts."""
    tensors = {
        name: value for name, value in keras_tensors(tiny()).items() if "dense_68/" not in name
    }
    with pytest.raises(TeacherError, match="dense layers, this network"):
        fill(tiny(), tensors)


def write_tfjs(folder: Path, *, cut_bytes: int = 0) -> None:
    """A model of a float tensor, a quantised tensor and an index, in two shards."""
    plain, indices = np.array([1.5, -2.0], np.float32), np.array([7], np.int32)
    data = plain.tobytes() + np.array([[0, 255]], np.uint8).tobytes() + indices.tobytes()
    quantization = {"dtype": "uint8", "scale": 0.5, "min": -1.0}
    weights = [
        {"name": "plain", "shape": [2], "dtype": "float32"},
        {"name": "packed", "shape": [1, 2], "dtype": "float32", "quantization": quantization},
        {"name": "index", "shape": [1], "dtype": "int32"},
    ]
    group = {"paths": ["a.bin", "b.bin"], "weights": weights}
    (folder / "model.json").write_text(json.dumps({"weightsManifest": [group]}))
    (folder / "a.bin").write_bytes(data[:5])
    (folder / "b.bin").write_bytes(data[5 : len(data) - cut_bytes])


def test_float_tensors_are_read_and_dequantised(tmp_path: Path) -> None:
    """Across shards; tensors of other types are left out."""
    write_tfjs(tmp_path)
    tensors = read_tfjs(tmp_path)
    assert {name: value.tolist() for name, value in tensors.items()} == {
        "plain": [1.5, -2.0],
        "packed": [[-1.0, 126.5]],
    }


def test_a_model_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Without its files, or with too short a shard."""
    with pytest.raises(TeacherError, match=r"model\.json and every shard"):
        read_tfjs(tmp_path)
    write_tfjs(tmp_path, cut_bytes=2)
    with pytest.raises(TeacherError, match="the shards end before index"):
        read_tfjs(tmp_path)
