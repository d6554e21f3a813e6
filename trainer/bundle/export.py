"""The trained detector as a bundle that proves itself.

In: a detector, the results of evaluation and calibration. Out: a bundle's directory, loaded once
by the very code of the worker. Errors: ``ExportError``, ``engines.bundle.manifest.BundleError``.

The graph takes raw uint8 NHWC and normalises inside. With ``gate = "off"`` it is the plain
backbone with its classifier: no node of the noise head is left.
"""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from engines.bundle.golden import Golden, write_golden
from engines.bundle.manifest import InputSpec, Manifest, PreprocessSpec, write_manifest
from engines.bundle.verify import load_bundle
from engines.preprocess import Limits, prepare
from engines.runtime.machine import this_machine
from trainer.bundle.runtimes import with_openvino
from trainer.config import Config
from trainer.detector import Detector
from trainer.errors import TrainerError
from trainer.evaluation.families import Infer

_OPSET = 18
_GOLDEN_SEED = 2026
_GOLDEN_CROPS = 8


class ExportError(TrainerError):
    """A bundle that cannot be written; the message says what to do."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how far the runtime is from torch."""

    directory: Path
    manifest: Manifest
    sha256: str
    parity_max_difference: float


class _Graph(nn.Module):
    """The part of a detector that inference needs, as a module of its own."""

    def __init__(self, detector: Detector, *, gated: bool) -> None:
        super().__init__()
        self._detector, self._gated = detector, gated

    def forward(self, image_NHWC: Tensor) -> Tensor:
        detector = self._detector
        return detector.classify_gated(image_NHWC) if self._gated else detector.classify(image_NHWC)


def write_onnx(detector: Detector, path: Path, crop_px: int, *, gated: bool) -> onnx.ModelProto:
    """Export the graph with a dynamic batch, in one file; returns it, checked."""
    detector.eval()
    model = traced(_Graph(detector, gated=gated), path, crop_px)
    _strip_places(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return model


def traced(graph: nn.Module, path: Path, crop_px: int) -> onnx.ModelProto:
    """Write a module that takes uint8 crops [N, S, S, 3] and gives logits [N], as torch exports it."""
    example = torch.zeros((2, crop_px, crop_px, 3), dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            graph,
            (example,),
            input_names=["image_NHWC"],
            output_names=["logit_N"],
            dynamic_shapes=({0: torch.export.Dim("N", min=1, max=4096)},),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch exported no graph: check the installed torch and onnxscript")
    program.save(path, external_data=False)
    return onnx.load(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about its own insides, which a user can do nothing about."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _strip_places(model: onnx.ModelProto) -> None:
    """Stack traces of the exporting machine say where its files lie: they are left out."""
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]


def export_bundle(
    detector: Detector,
    infer: Infer,
    manifest: Manifest,
    card: str,
    directory: Path,
) -> Exported:
    """Write every file, then load the bundle as a worker would.

    Args:
        detector: the chosen weights.
        infer: the torch function whose outputs are the reference.
        manifest: everything but the files; OpenVINO joins its runtimes where it was found right.
        card: the text of MODEL_CARD.md.
        directory: must not exist yet, or be empty.
    """
    if directory.exists() and any(directory.iterdir()):
        raise ExportError(f"{directory} is not empty: name a new --bundle directory")
    directory.mkdir(parents=True, exist_ok=True)
    gated = manifest.lineage.config.get("export.gate") == "on"
    crop_px = manifest.preprocess.crop_px
    write_onnx(detector, directory / manifest.model_file, crop_px, gated=gated)
    golden = make_golden(infer, manifest.preprocess)
    write_golden(directory / manifest.golden_file, golden)
    (directory / "MODEL_CARD.md").write_text(card)
    model = (directory / manifest.model_file).read_bytes()
    written = write_manifest(directory, with_openvino(manifest, model, golden, this_machine()))
    bundle = load_bundle(directory)
    bundle.runtime.close()
    return Exported(directory, written, bundle.sha256, bundle.golden_max_difference)


def input_spec(config: Config) -> InputSpec:
    """What the graph takes."""
    return InputSpec(
        height_px=config.export.crop_px,
        width_px=config.export.crop_px,
        batch_opt=config.export.batch_opt,
        batch_max=config.export.batch_max,
        mean=config.detector.mean,
        std=config.detector.std,
    )


def make_golden(infer: Infer, spec: PreprocessSpec) -> Golden:
    """Synthetic pictures, their encodings, and what torch says of them."""
    random = np.random.default_rng(_GOLDEN_SEED)
    side_px = spec.crop_px
    image_NHWC = np.stack([_scene(random, side_px, side_px) for _ in range(_GOLDEN_CROPS)])
    sizes = ((side_px, side_px), (side_px * 2, side_px + 40), (side_px // 2, side_px * 2))
    encoded = []
    for height_px, width_px in sizes:
        scene = Image.fromarray(_scene(random, height_px, width_px))
        encoded += [
            _encoded(scene, "JPEG", 85),
            _encoded(scene, "PNG", 0),
            _encoded(scene, "WEBP", 80),
        ]
    limits = Limits()
    logits = [infer(prepare(one, spec, limits).image_NHWC).mean() for one in encoded]
    return Golden(
        image_NHWC=image_NHWC,
        logit_K=infer(image_NHWC).astype(np.float32),
        encoded=tuple(encoded),
        encoded_logit_M=np.array(logits, dtype=np.float32),
    )


def _scene(random: np.random.Generator, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """Soft colours, an edge and grain: enough to move every part of a network."""
    coarse = random.uniform(0, 255, size=(4, 4, 3)).astype(np.uint8)
    soft = Image.fromarray(coarse).resize((width_px, height_px), Image.Resampling.BICUBIC)
    pixels_HWC = np.asarray(soft).astype(np.float64)
    pixels_HWC[:, int(random.integers(1, width_px)) :] *= random.uniform(0.3, 1.0)
    pixels_HWC += random.normal(0, random.uniform(0, 12), size=pixels_HWC.shape)
    return pixels_HWC.clip(0, 255).round().astype(np.uint8)


def _encoded(image: Image.Image, kind: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    options = {} if kind == "PNG" else {"quality": quality}
    image.save(buffer, kind, **options)
    return buffer.getvalue()
