"""A residual dense network computes what its layers say, read off a TensorFlow.js folder.

The published weights come from npm, which the tests do not reach: random ones in the same layout, against
the same layers written down once more in numpy, [height, width, channels] as Keras has them.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.photographs import photograph_px
from trainer.config.fakes import FakesConfig
from trainer.fakes.make import open_family
from trainer.fakes.rdn import Rdn
from trainer.fakes.regenerator import RegeneratorError, shrunk

Floats = NDArray[np.float32]
WIDTH, GROWTH, BLOCKS, CONVOLUTIONS = 6, 3, 2, 2


def shapes() -> dict[str, tuple[int, int, int, int]]:
    """The kernels of a small network, by name."""
    found = {"F_m1": (3, 3, 3, WIDTH), "F_0": (3, 3, WIDTH, WIDTH)}
    for block in range(1, BLOCKS + 1):
        for one in range(CONVOLUTIONS):
            found[f"F_{block}_{one + 1}"] = (3, 3, WIDTH + one * GROWTH, GROWTH)
        found[f"LFF_{block}"] = (1, 1, WIDTH + CONVOLUTIONS * GROWTH, WIDTH)
    return found | {
        "GFF_1": (1, 1, BLOCKS * WIDTH, WIDTH),
        "GFF_2": (3, 3, WIDTH, WIDTH),
        "UPN1": (5, 5, WIDTH, 8),
        "UPN2": (3, 3, 8, 4),
        "UPN3": (3, 3, 4, 5),
        "SR": (3, 3, 5, 3),
    }


def random_weights() -> dict[str, Floats]:
    """Such that a photograph stays within 0 to 255 and no layer is idle."""
    random = np.random.default_rng(0)
    found: dict[str, Floats] = {}
    for name, shape in shapes().items():
        spread = 0.8 / np.sqrt(np.prod(shape[:3]))
        found[f"{name}/kernel"] = random.normal(0, spread, shape).astype(np.float32)
        found[f"{name}/bias"] = random.normal(0, 2, shape[3]).astype(np.float32)
    found["SR/bias"] += 120
    return found


def write_model(folder: Path, weights: dict[str, Floats], size: tuple[int, int] = (3, 3)) -> None:
    """A folder as TensorFlow.js writes a Keras model."""
    folder.mkdir(exist_ok=True)
    (folder / "shard.bin").write_bytes(b"".join(one.tobytes() for one in weights.values()))
    listed = [
        {"name": name, "shape": list(one.shape), "dtype": "float32"}
        for name, one in weights.items()
    ]
    layers = [{"class_name": "UpSampling2D", "config": {"name": "UPsample", "size": list(size)}}]
    content = {
        "modelTopology": {"model_config": {"config": {"layers": layers}}},
        "weightsManifest": [{"paths": ["shard.bin"], "weights": listed}],
    }
    (folder / "model.json").write_text(json.dumps(content))


def convolved(x_HWC: Floats, weights: dict[str, Floats], name: str) -> Floats:
    """Zeros around, one pixel at a time."""
    kernel, bias = weights[f"{name}/kernel"], weights[f"{name}/bias"]
    side = kernel.shape[0]
    around = side // 2
    padded = np.pad(x_HWC, ((around, around), (around, around), (0, 0)))
    out = np.empty((*x_HWC.shape[:2], kernel.shape[3]), np.float32)
    for row, column in np.ndindex(*x_HWC.shape[:2]):
        seen = padded[row : row + side, column : column + side]
        out[row, column] = np.tensordot(seen, kernel, axes=3) + bias
    return out


def drawn_by_layers(small_HWC: Floats, weights: dict[str, Floats], factor: int) -> Floats:
    """The published topology, layer by layer."""
    first = convolved(small_HWC, weights, "F_m1")
    x, found = convolved(first, weights, "F_0"), []
    for block in range(1, BLOCKS + 1):
        dense = x
        for one in range(1, CONVOLUTIONS + 1):
            new = np.maximum(convolved(dense, weights, f"F_{block}_{one}"), 0)
            dense = np.concatenate([dense, new], axis=2)
        x = convolved(dense, weights, f"LFF_{block}") + x
        found.append(x)
    fused = convolved(np.concatenate(found, axis=2), weights, "GFF_1")
    x = convolved(fused, weights, "GFF_2") + first
    for name in ("UPN1", "UPN2"):
        x = np.maximum(convolved(x, weights, name), 0)
    x = convolved(x, weights, "UPN3").repeat(factor, axis=0).repeat(factor, axis=1)
    return convolved(x, weights, "SR")


def test_it_draws_what_its_layers_compute(tmp_path: Path) -> None:
    """On 0 to 255, from the photograph at a third of its size."""
    weights = random_weights()
    write_model(tmp_path, weights)
    pixels_HWC = photograph_px(24)
    drawn_HWC = Rdn(tmp_path).regenerate(pixels_HWC)
    expected = drawn_by_layers(shrunk(pixels_HWC, 3).astype(np.float32), weights, 3)
    assert 0 < expected.min() < expected.max() < 255
    assert expected.std() > 5
    assert drawn_HWC.shape == pixels_HWC.shape
    assert np.abs(drawn_HWC - expected).max() <= 0.51  # rounded


def test_the_factor_is_the_models_own(tmp_path: Path) -> None:
    """Two for one folder, four for another, and sides must be multiples of it."""
    for factor in (2, 4):
        write_model(tmp_path / str(factor), random_weights(), (factor, factor))
        tool = Rdn(tmp_path / str(factor))
        assert tool.multiple_px == factor
        assert tool.regenerate(photograph_px(16)).shape == (16, 16, 3)


def test_other_weights_have_another_digest(tmp_path: Path) -> None:
    """What one set of weights drew never mixes with another's."""
    weights = random_weights()
    write_model(tmp_path / "a", weights)
    write_model(tmp_path / "b", weights | {"SR/bias": weights["SR/bias"] + 1})
    assert Rdn(tmp_path / "a").digest != Rdn(tmp_path / "b").digest


@pytest.mark.parametrize(
    ("without", "why"),
    [("GFF_2/bias", "GFF_2/bias"), ("F_2_2/kernel", "expected input.* 12 channels, but got 9")],
)
def test_a_network_that_lacks_a_weight_is_refused(tmp_path: Path, without: str, why: str) -> None:
    weights = {name: one for name, one in random_weights().items() if name != without}
    write_model(tmp_path, weights)
    with pytest.raises(RegeneratorError, match=rf"({why}).*@upscalerjs/esrgan-slim"):
        Rdn(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(RegeneratorError, match=r"models/x2, x3, x4 or x8 of the npm package"):
        Rdn(tmp_path)


def test_a_configuration_opens_it(tmp_path: Path) -> None:
    write_model(tmp_path / "x3", random_weights())
    family = {"kind": "rdn", "name": "esrgan-slim", "weights": str(tmp_path / "x3")}
    config = FakesConfig.model_validate({"families": (family,)})
    tool = open_family(config.families[0], config, [], tmp_path, print)
    assert isinstance(tool, Rdn)
