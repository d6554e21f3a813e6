"""What ``evaluate`` judges: the weights that a run chose, or an exported bundle.

In: a run's folder or a bundle's. Out: ``Judged``. Errors: ``CheckpointError``, ``BundleError``.
A bundle is loaded as a worker loads it, and asked through the very runtime that serves it.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.bundle.manifest import Manifest
from engines.bundle.verify import load_bundle
from engines.runtime import Runtime
from trainer.bundle.operating import bundle_stem, threshold_sets
from trainer.commands.calibrate import CALIBRATION, read_calibration
from trainer.commands.chosen import chosen_detector
from trainer.config import Config
from trainer.evaluation.families import Infer
from trainer.evaluation.judged import Judged, Subject
from trainer.evaluation.shipped import Shipped
from trainer.training import checkpoint
from trainer.training.initial_weights import GENERATORS, REGENERATORS, seen_generators


def judged_run(config: Config, folder: Path) -> Judged:
    """The chosen weights of a run; with its thresholds, if ``calibrate`` has set them."""
    best, lineage = checkpoint.load_best(folder, config)
    infer, detector = chosen_detector(config, folder)
    known = seen_generators(lineage)
    subject = Subject(
        kind="run",
        name=folder.name,
        sha256=hashlib.sha256((folder / checkpoint.BEST).read_bytes()).hexdigest(),
        code_commit=lineage["code_commit"],
        training_data_digest=lineage["data_digest"],
        teacher_id=lineage["teacher_id"],
        explained_variance=best.explained_variance,
        seen_fake=tuple(sorted(known.generators)),
        seen_regenerators=tuple(sorted(known.regenerators)),
    )
    return Judged(
        subject, infer, config.export.preprocess, _calibrated(config, folder), detector, ()
    )


def _calibrated(config: Config, folder: Path) -> Shipped | None:
    if not (folder / CALIBRATION).exists():
        return None
    measured = read_calibration(config, folder)
    sets = threshold_sets(bundle_stem(config.export), measured.sets)
    return Shipped(measured.fit.scale, measured.fit.bias, sets)


def judged_bundle(directory: Path, threads: int) -> Judged:
    """An exported bundle, verified, with all of its threshold sets."""
    bundle = load_bundle(directory, threads=threads)
    manifest = bundle.manifest
    calibration = manifest.calibration
    subject = Subject(
        kind="bundle",
        name=f"{manifest.name} {manifest.version}",
        sha256=bundle.sha256,
        code_commit=manifest.lineage.code_commit,
        training_data_digest=manifest.lineage.data_digest,
        teacher_id=manifest.lineage.teacher_id,
        explained_variance=manifest.explained_variance,
        seen_fake=known_generators(manifest),
        seen_regenerators=known_regenerators(manifest),
    )
    default = manifest.threshold_set(None)
    others = tuple(one for one in manifest.threshold_sets if one is not default)
    shipped = Shipped(calibration.scale, calibration.bias, (default, *others))
    infer = _in_batches(bundle.runtime)
    return Judged(subject, infer, manifest.preprocess, shipped, None, manifest.metrics)


def _in_batches(runtime: Runtime) -> Infer:
    """However many crops there are, the runtime gets no more at once than it takes."""

    def infer(image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        step = runtime.batch_max
        parts = [
            runtime.infer(np.ascontiguousarray(image_NHWC[start : start + step]))
            for start in range(0, len(image_NHWC), step)
        ]
        return np.concatenate(parts)

    return infer


def known_generators(manifest: Manifest) -> tuple[str, ...]:
    """Selectors of the generated folders that a bundle was trained on."""
    return _listed(manifest, GENERATORS) or _listed(manifest, "data.splits.train.fake")


def known_regenerators(manifest: Manifest) -> tuple[str, ...]:
    """The families whose pairs a bundle was trained on; of an older one, a set of pairs without a list is all."""
    if REGENERATORS in manifest.lineage.config:
        return _listed(manifest, REGENERATORS)
    named = manifest.lineage.config.get("data.regenerators")
    kinds = [one["kind"] for one in json.loads(named)] if isinstance(named, str) else []
    families = _listed(manifest, "data.pair_families")
    if not families and _listed(manifest, "data.pairs"):
        families = ("*",)
    return (*kinds, *families)


def _listed(manifest: Manifest, option: str) -> tuple[str, ...]:
    """A list of the training configuration; empty where the bundle is older than the option."""
    text = manifest.lineage.config.get(option)
    return tuple(json.loads(text)) if isinstance(text, str) else ()
