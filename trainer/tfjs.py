"""The weights of a model that was saved for TensorFlow.js.

In: a folder with ``model.json`` and its shards. Out: float tensors by name, and the layers of a Keras model.
Errors: ``TfjsError``.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import TrainerError

_MODEL = "model.json"


class TfjsError(TrainerError):
    """A model that cannot be read; the message says what to do."""


def read_tfjs(folder: Path) -> dict[str, NDArray[np.float32]]:
    """The float tensors by name, dequantised."""
    try:
        group = _content(folder)["weightsManifest"][0]
        buffer = b"".join((folder / shard).read_bytes() for shard in group["paths"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise TfjsError(
            f"{folder} holds no TF.js model that can be read ({error!r}): it needs {_MODEL} "
            "and every shard that it names"
        ) from error
    found: dict[str, NDArray[np.float32]] = {}
    offset = 0
    for entry in group["weights"]:
        quantization = entry.get("quantization")
        stored = np.dtype(quantization["dtype"] if quantization else entry["dtype"])
        count = math.prod(entry["shape"])
        if offset + count * stored.itemsize > len(buffer):
            raise TfjsError(f"{folder}: the shards end before {entry['name']}: copy them again")
        value = np.frombuffer(buffer, stored, count, offset).reshape(entry["shape"])
        offset += count * stored.itemsize
        if entry["dtype"] == "float32":
            scale = quantization["scale"] if quantization else 1.0
            minimum = quantization["min"] if quantization else 0.0
            found[entry["name"]] = (value.astype(np.float64) * scale + minimum).astype(np.float32)
    return found


def keras_layer(folder: Path, name: str) -> Mapping[str, Any]:
    """How a layer of a Keras model ("layers-model") was configured."""
    try:
        layers = _content(folder)["modelTopology"]["model_config"]["config"]["layers"]
        found: Mapping[str, Any] = {one["config"]["name"]: one["config"] for one in layers}[name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TfjsError(
            f"{folder / _MODEL} has no Keras layer {name}: give another model"
        ) from error
    return found


def _content(folder: Path) -> Any:  # noqa: ANN401  JSON, looked into by those who know its shape
    return json.loads((folder / _MODEL).read_bytes())
