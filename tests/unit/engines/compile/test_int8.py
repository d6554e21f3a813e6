"""The int8 graph for CPUs: int8 throughout, but for the convolutions that see the pixels."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from engines.bundle.manifest import BundleError, PreprocessSpec
from engines.compile.int8 import FLOAT_CONVOLUTIONS, int8_graph, read_calibration
from engines.preprocess import Limits, prepare
from tests.support.bundles import encode, gradient_HWC
from tests.support.deep_model import CONVOLUTIONS, deep_model

RANDOM = np.random.default_rng(20261128)
CROPS = RANDOM.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)


def test_the_first_convolutions_keep_float_weights_and_the_others_do_not() -> None:
    """Even where the exporter gave no node a name."""
    graph = onnx.load_from_string(int8_graph(deep_model(RANDOM), "image_NHWC", list(CROPS))).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    weights = [made_by.get(one.input[1]) for one in graph.node if one.op_type == "Conv"]
    assert weights[:FLOAT_CONVOLUTIONS] == [None] * FLOAT_CONVOLUTIONS
    assert weights[FLOAT_CONVOLUTIONS:] == ["DequantizeLinear"] * (
        CONVOLUTIONS - FLOAT_CONVOLUTIONS
    )


SPEC = PreprocessSpec(version="1", crop_policy="grid", crop_px=32, max_crops=2)


def test_crops_are_those_of_the_one_preprocessing_and_strangers_are_passed_over(
    tmp_path: Path,
) -> None:
    (tmp_path / "deep").mkdir()
    files = {"b.png": "PNG", "deep/a.jpg": "JPEG"}
    for name, kind in files.items():
        (tmp_path / name).write_bytes(encode(gradient_HWC(40, 70), kind))
    (tmp_path / "notes.txt").write_text("no image")
    expected = [prepare((tmp_path / name).read_bytes(), SPEC, Limits()) for name in sorted(files)]
    found = read_calibration(tmp_path, SPEC)
    crops_NHWC = np.concatenate([one.image_NHWC for one in expected])
    np.testing.assert_array_equal(found.image_NHWC, crops_NHWC)
    read = [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in files]
    assert found.digests == set(read)


def test_int8_without_images_is_refused_with_what_to_name() -> None:
    with pytest.raises(BundleError, match="add --calibration DIR"):
        read_calibration(None, SPEC)


def test_a_directory_without_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(BundleError, match="holds no image"):
        read_calibration(tmp_path, SPEC)


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a directory"):
        read_calibration(tmp_path / "nowhere", SPEC)
