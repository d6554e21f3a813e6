"""A real bundle, tiny: a model whose logit depends on the pixels, and its golden outputs.

The reference logits are computed with numpy, apart from the ONNX graph, so that a bundle that
loads has passed a real comparison.
"""

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from engines.bundle.golden import Golden, write_golden
from engines.bundle.manifest import (
    Calibration,
    InputSpec,
    Lineage,
    Manifest,
    OperatingPoint,
    PreprocessSpec,
    ThresholdSet,
    read_manifest,
    write_manifest,
)
from engines.preprocess import PREPROCESS_VERSION, Limits, prepare

MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
# Reddish crops score as fake, bluish ones as real.
WEIGHT_3 = np.array([2.0, 0.5, -1.5], dtype=np.float32)
BIAS = 0.125


def make_tiny_bundle(
    directory: Path,
    *,
    name: str = "tiny",
    version: str = "0.1.0",
    crop_px: int = 32,
    max_crops: int = 1,
    batch_max: int = 8,
    bias: float = BIAS,
) -> Path:
    """Write a bundle into the (new or empty) directory; returns the directory.

    Another ``bias`` is another model, all of whose logits are moved by the difference.
    """
    directory.mkdir(parents=True, exist_ok=True)
    spec = PreprocessSpec(
        version=PREPROCESS_VERSION,
        crop_policy="center" if max_crops == 1 else "grid",
        crop_px=crop_px,
        max_crops=max_crops,
    )
    onnx.save(tiny_model(crop_px, bias), directory / "model.onnx")
    write_golden(directory / "golden.npz", tiny_golden(spec, bias))
    (directory / "MODEL_CARD.md").write_text("# A tiny model for tests: it looks at colour\n")
    write_manifest(directory, tiny_manifest(spec, name=name, version=version, batch_max=batch_max))
    return directory


def tiny_manifest(
    spec: PreprocessSpec, *, name: str = "tiny", version: str = "0.1.0", batch_max: int = 8
) -> Manifest:
    """The manifest of the tiny bundle, its ``files`` not yet filled in."""
    review, block = (
        OperatingPoint(threshold=at, fpr=0.1, fpr_ci_low=0.05, fpr_ci_high=0.2, n_real=100)
        for at in (0.5, 0.9)
    )
    return Manifest(
        name=name,
        version=version,
        created_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
        input=InputSpec(
            height_px=spec.crop_px,
            width_px=spec.crop_px,
            batch_opt=min(4, batch_max),
            batch_max=batch_max,
            mean=MEAN,
            std=STD,
        ),
        preprocess=spec,
        calibration=Calibration(
            id="platt-test", method="platt", scale=1.5, bias=-0.25, fitted_on="tests", n=100
        ),
        threshold_sets=(
            ThresholdSet(id="default", review=review, block=block, measured_on="tests"),
        ),
        default_threshold_set="default",
        lineage=Lineage(
            code_commit="0" * 40,
            data_digest="0" * 64,
            teacher_id="none",
            seed=0,
            created_by="tests",
            config={"crop_px": spec.crop_px},
        ),
        tolerances={"fp32": 1e-4},
        runtimes=("onnxruntime-cpu",),
    )


def tiny_model(crop_px: int, bias: float = BIAS) -> onnx.ModelProto:
    """uint8 [N, S, S, 3] -> logit [N]: normalise, average over the pixels, weigh the colours."""
    constants = {
        "to_unit": np.float32(255.0).reshape(1),
        "mean": np.array(MEAN, dtype=np.float32),
        "std": np.array(STD, dtype=np.float32),
        "weight": WEIGHT_3.reshape(3, 1),
        "bias": np.array([bias], dtype=np.float32),
        "flat": np.array([-1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image_NHWC"], ["float_NHWC"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float_NHWC", "to_unit"], ["unit_NHWC"]),
        helper.make_node("Sub", ["unit_NHWC", "mean"], ["centred_NHWC"]),
        helper.make_node("Div", ["centred_NHWC", "std"], ["normal_NHWC"]),
        helper.make_node("Transpose", ["normal_NHWC"], ["normal_NCHW"], perm=[0, 3, 1, 2]),
        helper.make_node("GlobalAveragePool", ["normal_NCHW"], ["pooled_NC11"]),
        helper.make_node("Flatten", ["pooled_NC11"], ["pooled_NC"], axis=1),
        helper.make_node("Gemm", ["pooled_NC", "weight", "bias"], ["logit_N1"]),
        helper.make_node("Reshape", ["logit_N1", "flat"], ["logit_N"]),
    ]
    image_shape = ["N", crop_px, crop_px, 3]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image_NHWC", TensorProto.UINT8, image_shape)],
        [helper.make_tensor_value_info("logit_N", TensorProto.FLOAT, ["N"])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def rewritten(directory: Path, **changes: Any) -> Path:  # noqa: ANN401  a manifest's fields
    """The bundle with its manifest changed, over the files as they now are, as an exporter would."""
    write_manifest(directory, read_manifest(directory).model_copy(update=changes))
    return directory


def reference_logit_N(  # noqa: N802  shape
    image_NHWC: NDArray[np.uint8], bias: float = BIAS
) -> NDArray[np.float32]:
    """What the model computes, in numpy and double precision."""
    normal_NHWC = (image_NHWC / 255.0 - np.array(MEAN)) / np.array(STD)
    logit_N: NDArray[np.float64] = normal_NHWC.mean(axis=(1, 2)) @ WEIGHT_3 + bias
    return logit_N.astype(np.float32)


def tiny_golden(spec: PreprocessSpec, bias: float = BIAS) -> Golden:
    """Golden inputs (noise, and one file a format) with their reference logits."""
    random = np.random.default_rng(20260131)
    side_px = spec.crop_px
    image_NHWC = random.integers(0, 256, (4, side_px, side_px, 3), dtype=np.uint8)
    encoded = tuple(encode(gradient_HWC(2 * side_px, 3 * side_px), one) for one in FORMATS)
    prepared = [prepare(data, spec, Limits()) for data in encoded]
    file_logits = [reference_logit_N(one.image_NHWC, bias).mean() for one in prepared]
    return Golden(
        image_NHWC=image_NHWC,
        logit_K=reference_logit_N(image_NHWC, bias),
        encoded=encoded,
        encoded_logit_M=np.array(file_logits, dtype=np.float32),
    )


FORMATS = ("JPEG", "PNG", "WEBP")


def gradient_HWC(height_px: int, width_px: int) -> NDArray[np.uint8]:  # noqa: N802  the shape
    """A smooth picture in which every place has its own colour."""
    y_HW, x_HW = np.mgrid[0:height_px, 0:width_px]
    red, green = 255 * y_HW // max(1, height_px - 1), 255 * x_HW // max(1, width_px - 1)
    return np.stack([red, green, (red + green) // 2], axis=2).astype(np.uint8)


def encode(pixels_HWC: NDArray[np.uint8], file_format: str) -> bytes:
    """The picture as a file of that format, with Pillow's defaults."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, file_format)
    return buffer.getvalue()
