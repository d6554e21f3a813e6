"""What TensorFlow.js saved is read whole, or refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from trainer.tfjs import TfjsError, keras_layer, read_tfjs


def write_tfjs(folder: Path, shards: int = 2) -> None:
    """A float tensor quantised to bytes, and an integer one that is not wanted."""
    buffer = bytes([0, 1, 2, 255]) + np.array([7], dtype=np.int32).tobytes()
    cut = len(buffer) // shards
    weights = [
        {
            "name": "a/w",
            "shape": [2, 2],
            "dtype": "float32",
            "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0},
        },
        {"name": "a/n", "shape": [], "dtype": "int32"},
    ]
    (folder / "s1.bin").write_bytes(buffer[:cut])
    (folder / "s2.bin").write_bytes(buffer[cut:])
    manifest = {"weightsManifest": [{"paths": ["s1.bin", "s2.bin"], "weights": weights}]}
    (folder / "model.json").write_text(json.dumps(manifest))


def test_quantised_tensors_are_read_across_shards(tmp_path: Path) -> None:
    """Value = byte * scale + min; integer constants of the graph are left out."""
    write_tfjs(tmp_path)
    found = read_tfjs(tmp_path)
    assert list(found) == ["a/w"]
    assert np.allclose(found["a/w"], [[-1.0, -0.5], [0.0, 126.5]])


def test_a_truncated_shard_is_refused(tmp_path: Path) -> None:
    """Weights that end early name the tensor that is not there."""
    write_tfjs(tmp_path)
    (tmp_path / "s2.bin").write_bytes(b"")
    (tmp_path / "s1.bin").write_bytes(b"\0\0")
    with pytest.raises(TfjsError, match="end before a/w"):
        read_tfjs(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """The message says what the folder needs."""
    with pytest.raises(TfjsError, match=r"model\.json"):
        read_tfjs(tmp_path)


def test_a_model_that_is_no_keras_model_has_no_layers(tmp_path: Path) -> None:
    """A graph model has weights and no configuration of layers."""
    write_tfjs(tmp_path)
    with pytest.raises(TfjsError, match="has no Keras layer UPsample"):
        keras_layer(tmp_path, "UPsample")
