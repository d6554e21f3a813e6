"""A bundle whose engine takes its time over marked images: real work, chosen by the image itself.

In: how long one marked image should take here. Out: the bundle; :func:`marked` makes such an image.
"""

import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines.bundle.manifest import read_manifest, write_manifest
from tests.support.bundles import make_tiny_bundle, tiny_model
from tests.support.events import encoded

# Red and green of the crop's first pixel: golden noise has it in one image of 65,536.
MARK = (211, 3)
SIDE = 192  # of the matrices that are multiplied
TRIAL_ROUNDS = 300


def make_slow_bundle(directory: Path, *, seconds: float, crop_px: int = 32) -> Path:
    """Write a tiny bundle in which a marked image takes about that long on this machine."""
    make_tiny_bundle(directory, name="slow", crop_px=crop_px)
    rounds = int(seconds / _seconds_per_round(crop_px))
    onnx.save(_slow_model(crop_px, rounds), directory / "model.onnx")
    write_manifest(directory, read_manifest(directory))
    return directory


def marked(seed: int = 0, *, side_px: int = 32) -> bytes:
    """A PNG that a slow bundle takes its time over."""
    pixels_HWC = np.full((side_px, side_px, 3), 60 + seed, dtype=np.uint8)
    pixels_HWC[0, 0, :2] = MARK
    return encoded(pixels_HWC)


def _seconds_per_round(crop_px: int) -> float:
    model = _slow_model(crop_px, TRIAL_ROUNDS).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    image_NHWC: NDArray[np.uint8] = np.zeros((1, crop_px, crop_px, 3), dtype=np.uint8)
    image_NHWC[0, 0, 0, :2] = MARK
    started_s = time.perf_counter()
    session.run(None, {"image_NHWC": image_NHWC})
    return (time.perf_counter() - started_s) / TRIAL_ROUNDS


def _slow_model(crop_px: int, rounds: int) -> onnx.ModelProto:
    """The tiny model, whose logit waits for ``rounds`` matrix products for every marked image."""
    model = tiny_model(crop_px)
    graph = model.graph
    graph.initializer.extend(
        numpy_helper.from_array(value, name)
        for name, value in {
            "mark": np.array([*MARK], dtype=np.int32),
            "first": np.array([0, 0, 0], dtype=np.int64),
            "beyond": np.array([1, 1, 2], dtype=np.int64),
            "axes": np.array([1, 2, 3], dtype=np.int64),
            "rounds": np.array(rounds, dtype=np.int64),
            "go": np.array(1, dtype=np.bool_),
            "start": np.eye(SIDE, dtype=np.float32),
            "nothing": np.array(0, dtype=np.float32),
        }.items()
    )
    final = graph.node.pop()  # Reshape to logit_N
    final.output[0] = "quick_logit_N"
    graph.node.extend(
        [
            final,
            helper.make_node("Slice", ["image_NHWC", "first", "beyond", "axes"], ["corner_N112"]),
            helper.make_node("Cast", ["corner_N112"], ["corner_int"], to=TensorProto.INT32),
            helper.make_node("Equal", ["corner_int", "mark"], ["same"]),
            helper.make_node("Cast", ["same"], ["same_int"], to=TensorProto.INT64),
            helper.make_node("ReduceMin", ["same_int"], ["marked_N"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("ReduceMax", ["marked_N"], ["any_marked"], keepdims=0),
            helper.make_node("Mul", ["any_marked", "rounds"], ["trips"]),
            helper.make_node("Loop", ["trips", "go", "start"], ["end"], body=_body()),
            helper.make_node("ReduceSum", ["end"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "nothing"], ["zero"]),
            helper.make_node("Add", ["quick_logit_N", "zero"], ["logit_N"]),
        ]
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _body() -> onnx.GraphProto:
    shape = [SIDE, SIDE]
    turn = numpy_helper.from_array(np.eye(SIDE, k=1, dtype=np.float32), "turn")
    return helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still_go_on"]),
            helper.make_node("MatMul", ["before", "turn"], ["after"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("at", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, shape),
        ],
        [
            helper.make_tensor_value_info("still_go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, shape),
        ],
        [turn],
    )
