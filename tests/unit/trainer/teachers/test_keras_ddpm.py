"""The Keras DDPM in torch: its quirks, and the reading of its weights."""

import numpy as np
import pytest
import torch
from torch import nn

from trainer.teachers.errors import TeacherError
from trainer.teachers.keras_ddpm import Attention, KerasDdpmUnet, state_of


def tiny() -> KerasDdpmUnet:
    """The same network, narrow."""
    torch.manual_seed(0)
    model: KerasDdpmUnet = KerasDdpmUnet(widths=(8, 16, 16, 16), time_features=16)
    model.eval()
    return model


def test_the_noise_has_the_shape_of_the_picture() -> None:
    """One index for all, or one for each picture, gives the same."""
    x_BCHW = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        one, each = tiny()(x_BCHW, 3).sample, tiny()(x_BCHW, torch.tensor([3, 3])).sample
    assert one.shape == x_BCHW.shape
    assert torch.equal(one, each)


def test_attention_adds_the_normalised_input() -> None:
    """With an output layer of zeros, what is left is the norm of the input, not the input."""
    attention = Attention(16, groups=8)
    nn.init.zeros_(attention.out.weight)
    nn.init.zeros_(attention.out.bias)
    x_BCHW = torch.rand(1, 16, 4, 4) * 5
    with torch.no_grad():
        found = attention(x_BCHW, torch.zeros(1, 16))
        assert torch.allclose(found, attention.norm(x_BCHW))
    assert not torch.allclose(found, x_BCHW)


def test_every_group_norm_has_the_eps_of_keras() -> None:
    """1e-3, where torch's own is 1e-5."""
    norms = [one for one in tiny().modules() if isinstance(one, nn.GroupNorm)]
    assert norms
    assert {one.eps for one in norms} == {1e-3}


def test_time_features_are_sines_then_cosines() -> None:
    """Index 0 gives zeros, then ones; the last frequency is a ten-thousandth."""
    model = tiny()
    seen: list[torch.Tensor] = []
    model.time1.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(torch.zeros(2, 3, 32, 32), torch.tensor([0, 100]))
    assert torch.allclose(seen[0][0], torch.tensor([0.0] * 8 + [1.0] * 8))
    assert torch.allclose(seen[0][1, 7], torch.tensor(100 / 10_000).sin(), atol=1e-6)


def keras_tensors(model: KerasDdpmUnet) -> dict[str, np.ndarray]:
    """The network's weights under Keras's names, numbered in the order of construction."""
    counts = {"conv2d": 67, "dense": 68, "group_normalization": 56}
    tensors: dict[str, np.ndarray] = {}

    def add(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            name, roles = (
                "conv2d",
                {"Conv2D": module.weight.permute(2, 3, 1, 0), "BiasAdd": module.bias},
            )
        elif isinstance(module, nn.Linear):
            name, roles = "dense", {"MatMul": module.weight.T, "BiasAdd": module.bias}
        else:
            assert isinstance(module, nn.GroupNorm)
            name, roles = (
                "group_normalization",
                {"Reshape_1": module.weight, "Reshape_2": module.bias},
            )
        for role, value in roles.items():
            assert value is not None
            tensors[f"unet/{name}_{counts[name]}/{role}/ReadVariableOp"] = value.detach().numpy()
        counts[name] += 1

    def block(parts: nn.Module) -> None:
        for one in parts.modules():
            if isinstance(one, nn.Conv2d | nn.Linear | nn.GroupNorm):
                add(one)

    # The order of the Keras builder: stem, time, down, middle, up, end.
    for part in (model.conv_in, model.time1, model.time2):
        add(part)
    for parts in (model.down, model.mid, model.up):
        block(parts)
    add(model.norm_out)
    add(model.conv_out)
    return tensors


def test_converted_weights_give_the_same_noise() -> None:
    """Through Keras's names, layouts and numbering and back, nothing changes."""
    model, other = tiny(), tiny()
    for value in other.parameters():
        nn.init.zeros_(value)
    other.load_state_dict(state_of(other, keras_tensors(model)))
    x_BCHW = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(x_BCHW, 5).sample, other(x_BCHW, 5).sample)


def test_another_network_is_not_converted() -> None:
    """A layer too few is an error that gives the counts."""
    tensors = {name: one for name, one in keras_tensors(tiny()).items() if "dense_68/" not in name}
    with pytest.raises(TeacherError, match="dense layers, this network"):
        state_of(tiny(), tensors)
