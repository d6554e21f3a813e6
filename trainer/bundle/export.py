"""The trained detector as a bundle that proves itself.

In: a detector, the results of evaluation and calibration. Out: a bundle's directory, loaded once by the
worker's own code, and ``NAME.weights.safetensors`` beside it, which a later training may start from.
Errors: ``ExportError``, ``engines.bundle.manifest.BundleError``.

The graph takes raw uint8 NHWC and normalises inside. With ``gate = "off"`` it is the plain backbone with
its classifier: no node of the noise head is left.
"""

import hashlib
import io
import logging
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import structlog
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from engines.bundle.files import write_atomically
from engines.bundle.golden import Golden, check_golden, write_golden
from engines.bundle.manifest import (
    WEIGHTS_SHA256,
    BundleError,
    Calibration,
    GeneratorMetric,
    InputSpec,
    Lineage,
    Manifest,
    PreprocessSpec,
    weights_file,
    write_manifest,
)
from engines.bundle.verify import Bundle, load_bundle
from engines.preprocess import Limits, prepare
from engines.runtime import open_candidate
from engines.runtime.machine import Machine, this_machine
from engines.runtime.selection import Candidate
from trainer.config import Config
from trainer.detector import IN_BUNDLE, Detector
from trainer.errors import ExportError
from trainer.evaluation.calibration import CalibrationResult, bundle_stem, threshold_sets
from trainer.evaluation.metrics import SplitResult
from trainer.evaluation.scoring import Infer
from trainer.training.checkpoint import (
    AVERAGED,
    STARTED_FROM,
    Best,
    SeenGenerators,
    flat_config,
    seen_generators,
)

_OPSET = 18
_GOLDEN_SEED = 2026
_GOLDEN_CROPS = 8
_OPENVINO = "openvino-cpu"


class _Graph(nn.Module):
    """The part of a detector that inference needs, as a module of its own."""

    def __init__(self, detector: Detector, *, gated: bool) -> None:
        super().__init__()
        self._detector, self._gated = detector, gated

    def forward(self, image_NHWC: Tensor) -> Tensor:
        detector = self._detector
        return detector.classify_gated(image_NHWC) if self._gated else detector.classify(image_NHWC)


def build_manifest(
    config: Config,
    best: Best,
    lineage: Mapping[str, str],
    tested: SplitResult,
    measured: CalibrationResult,
) -> Manifest:
    """The manifest without its files, which are listed when they are written."""
    stem, fit = bundle_stem(config.export), measured.fit
    sets, seen = threshold_sets(stem, measured.sets), seen_generators(lineage)
    return Manifest(
        name=config.export.name,
        version=config.export.version,
        created_at=datetime.now(UTC),
        input=InputSpec(
            height_px=config.export.crop_px,
            width_px=config.export.crop_px,
            batch_opt=config.export.batch_opt,
            batch_max=config.export.batch_max,
            mean=config.detector.mean,
            std=config.detector.std,
        ),
        preprocess=config.export.preprocess,
        calibration=Calibration(
            id=f"{stem}-{fit.method}",
            method=fit.method,
            scale=fit.scale,
            bias=fit.bias,
            fitted_on=measured.fitted_on,
            n=fit.n,
            ece=fit.ece,
            nll=fit.nll,
        ),
        threshold_sets=sets,
        default_threshold_set=sets[0].id,
        metrics=tuple(
            GeneratorMetric(**vars(family), seen_in_training=seen.saw(family.generator))
            for family in tested.families
        ),
        explained_variance=best.explained_variance,
        lineage=_lineage(config, lineage, seen),
        tolerances={"fp32": config.export.tolerance},
        runtimes=("onnxruntime-cpu",),
    )


def _lineage(config: Config, lineage: Mapping[str, str], seen: SeenGenerators) -> Lineage:
    options = {"train.start_from": STARTED_FROM, "train.averaged": AVERAGED}
    origin = {name: lineage[key] for name, key in options.items() if key in lineage}
    return Lineage(
        code_commit=lineage["code_commit"],
        data_digest=lineage["data_digest"],
        teacher_id=lineage["teacher_id"],
        seed=config.seed,
        created_by="python -m trainer export",
        config=flat_config(config) | seen.as_lineage() | origin,
    )


def export_bundle(
    detector: Detector,
    infer: Infer,
    manifest: Manifest,
    card: str,
    directory: Path,
) -> Bundle:
    """Write every file, then load the bundle as a worker would.

    Args:
        detector: the chosen weights.
        infer: the torch function whose outputs are the reference.
        manifest: everything but the files; OpenVINO joins its runtimes where its outputs agree.
        card: the text of MODEL_CARD.md.
        directory: must not exist yet, or be empty.

    Raises:
        ExportError: the directory is not empty.
        BundleError: the runtime does not agree with torch.
    """
    if directory.exists() and any(directory.iterdir()):
        raise ExportError(f"{directory} is not empty: name a new --bundle directory")
    directory.mkdir(parents=True, exist_ok=True)
    gated = manifest.lineage.config.get("export.gate") == "on"
    write_onnx(detector, directory / manifest.model_file, manifest.preprocess.crop_px, gated=gated)
    golden = make_golden(infer, manifest.preprocess)
    write_golden(directory / manifest.golden_file, golden)
    (directory / "MODEL_CARD.md").write_text(card)
    weights = bundle_weights(detector)
    write_atomically(weights_file(directory), weights)
    model = (directory / manifest.model_file).read_bytes()
    write_manifest(
        directory,
        with_openvino(with_weights(manifest, weights), model, golden, this_machine()),
    )
    bundle = load_bundle(directory)
    bundle.runtime.close()
    return bundle


def bundle_weights(detector: Detector) -> bytes:
    """The weights of backbone and classifier as a safetensors file."""
    state = detector.state_dict()
    return save({k: v.cpu().contiguous() for k, v in state.items() if k.startswith(IN_BUNDLE)})


def with_weights(manifest: Manifest, weights: bytes) -> Manifest:
    """The manifest with the digest of the weights beside the bundle."""
    config = manifest.lineage.config | {WEIGHTS_SHA256: hashlib.sha256(weights).hexdigest()}
    return manifest.model_copy(
        update={"lineage": manifest.lineage.model_copy(update={"config": config})}
    )


def with_openvino(manifest: Manifest, model: bytes, golden: Golden, machine: Machine) -> Manifest:
    """The manifest with OpenVINO as its last runtime, if fp32 holds the manifest's tolerance there.

    A lower precision may hold a tolerance and still rank pictures worse: ``engines quantize`` measures
    its AUC, and adds what passes.
    """
    log = structlog.get_logger()
    if "openvino" not in machine.packages:
        log.info(
            "runtime_skipped", runtime=_OPENVINO, reason="the package openvino is not installed"
        )
        return manifest
    candidate = Candidate(_OPENVINO, (manifest.model_file,), "fp32", on_gpu=False)
    try:
        runtime = open_candidate(candidate, manifest, {manifest.model_file: model}, 1)
        try:
            check_golden(runtime, manifest, golden)
        finally:
            runtime.close()
    except BundleError as error:
        log.warning("runtime_skipped", runtime=_OPENVINO, reason=str(error))
        return manifest
    return manifest.model_copy(update={"runtimes": (*manifest.runtimes, _OPENVINO)})


def write_onnx(detector: Detector, path: Path, crop_px: int, *, gated: bool) -> onnx.ModelProto:
    """Export the graph with a dynamic batch into one file; return it, checked."""
    detector.eval()
    model = traced(_Graph(detector, gated=gated), path, crop_px)
    _strip_paths(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return model


def traced(graph: nn.Module, path: Path, crop_px: int) -> onnx.ModelProto:
    """Export a module that takes uint8 crops [N, S, S, 3] and gives logits [N]."""
    example = torch.zeros((2, crop_px, crop_px, 3), dtype=torch.uint8)
    # The exporter warns about its own code, and a user can do nothing about that.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
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


def _strip_paths(model: onnx.ModelProto) -> None:
    """Remove the stack traces, which hold paths of the exporting machine."""
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


def make_golden(infer: Infer, spec: PreprocessSpec) -> Golden:
    """Synthetic pictures, their encodings, and the logits that torch computes for them."""
    random = np.random.default_rng(_GOLDEN_SEED)
    side_px = spec.crop_px
    image_NHWC = np.stack([_scene(random, side_px, side_px) for _ in range(_GOLDEN_CROPS)])
    sizes = ((side_px, side_px), (side_px * 2, side_px + 40), (side_px // 2, side_px * 2))
    encoded = []
    for height_px, width_px in sizes:
        scene = Image.fromarray(_scene(random, height_px, width_px))
        encoded += [
            _encoded(scene, kind, quality)
            for kind, quality in (("JPEG", 85), ("PNG", 0), ("WEBP", 80))
        ]
    limits = Limits()
    logits = [infer(prepare(data, spec, limits).image_NHWC).mean() for data in encoded]
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
    image.save(buffer, kind, quality=quality)
    return buffer.getvalue()
