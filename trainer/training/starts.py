"""The first weights of a run, where they are not a pretrained file's: an earlier run's, or a bundle's.

In: the folder of a run or of a bundle. Out: a ``Start``. Errors: ``CheckpointError`` where it cannot be read or
does not fit, ``engines.bundle.manifest.BundleError`` where a bundle's files are not what its manifest says.

A run's folder knows more: its noise head, and which files it was trained on. A bundle is what is left on another
machine, and what a project publishes: backbone and classifier.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor

from engines.bundle.golden import Golden, read_golden
from engines.bundle.manifest import MANIFEST_FILE, Manifest, manifest_sha256
from engines.bundle.verify import verify_files
from trainer.data.batches import Batches
from trainer.detector import Detector, DetectorError
from trainer.detector.unfolding import fill
from trainer.training import checkpoint
from trainer.training.inference import classifier
from trainer.training.known import GENERATORS, REGENERATORS, Known, known_by

TRAINED_ON = "trained_on"  # SHA-256 of each file, a line each
_MEASURED_CROPS = 512  # whose moments the norms begin with; they follow the batches from there


class Start(Protocol):
    """Where a run begins."""

    @property
    def folder(self) -> Path:
        """Of the earlier run, or of the bundle."""
        ...

    @property
    def origin(self) -> str:
        """What it is, by digest, for a run's lineage."""
        ...

    @property
    def in_words(self) -> str:
        """What a user should know beside the folder's name."""
        ...

    @property
    def trained_on(self) -> frozenset[str]:
        """SHA-256 of files; empty where that is not told."""
        ...

    @property
    def known(self) -> Known:
        """Generators and regenerators that shaped its weights."""
        ...

    def load_into(self, detector: Detector, batches: Batches) -> None:
        """Fill a detector, which is to be trained on those batches."""
        ...


def read_start(folder: Path) -> Start:
    """A bundle's where the folder holds a manifest, else a run's."""
    return read_bundle_start(folder) if (folder / MANIFEST_FILE).exists() else read_run(folder)


@dataclass(frozen=True)
class RunStart:
    """The chosen weights of an earlier run."""

    folder: Path
    weights: dict[str, Tensor]
    origin: str
    trained_on: frozenset[str]
    known: Known
    in_words: str = ""

    def load_into(self, detector: Detector, batches: Batches) -> None:  # noqa: ARG002  a bundle's start needs them
        """Noise head and gate too."""
        try:
            detector.load_state_dict(self.weights)
        except RuntimeError as error:
            raise checkpoint.CheckpointError(
                f"the weights of {self.folder} do not fit this detector ({error}): train.start_from "
                "needs a run with the same [detector] and the same kind of teacher"
            ) from error


def read_run(folder: Path) -> RunStart:
    """Of a run of any configuration."""
    best, lineage = checkpoint.read_best(folder)
    digest = hashlib.sha256((folder / checkpoint.BEST).read_bytes()).hexdigest()
    return RunStart(folder, best.weights, f"sha256:{digest}", files_of(lineage), known_by(lineage))


def files_of(lineage: Mapping[str, str]) -> frozenset[str]:
    """SHA-256 of the files that shaped a run's weights; empty where the run is older than the list."""
    return frozenset(lineage.get(TRAINED_ON, "").split())


@dataclass(frozen=True)
class BundleStart:
    """Backbone and classifier of a bundle; the noise head begins anew."""

    folder: Path
    manifest: Manifest
    graph: onnx.GraphProto
    golden: Golden
    origin: str
    known: Known
    trained_on: frozenset[str] = frozenset()  # a bundle names folders, no files

    @property
    def in_words(self) -> str:
        """Which bundle, and what it was trained on."""
        name = f"{self.manifest.name} {self.manifest.version}"
        generators = ", ".join(sorted(self.known.generators))
        return f" (bundle {name}, which knows {generators})"

    def load_into(self, detector: Detector, batches: Batches) -> None:
        """Take the graph's weights, measure its norms on the first batches, and prove it by the golden outputs."""
        try:
            fill(detector, self.graph, _first_crops(batches))
        except DetectorError as error:
            raise checkpoint.CheckpointError(f"train.start_from, {self.folder}: {error}") from error
        self._prove(detector)

    def _prove(self, detector: Detector) -> None:
        found_K = classifier(detector.eval())(self.golden.image_NHWC)
        difference = float(np.abs(found_K - self.golden.logit_K).max())
        tolerance = self.manifest.tolerances["fp32"]
        if not difference <= tolerance:
            raise checkpoint.CheckpointError(
                f"the weights of {self.folder} do not give its golden outputs here (they differ by "
                f"{difference:.3g}, {tolerance:.3g} is allowed): its graph computes something else than this "
                "detector with the gate off, so start from its run's folder"
            )


def read_bundle_start(folder: Path) -> BundleStart:
    """Read what a training can go on from; every file is checked against its digest."""
    manifest = verify_files(folder)
    if manifest.precision != "fp32":
        raise checkpoint.CheckpointError(
            f"{folder} computes in {manifest.precision}: train.start_from needs the fp32 bundle that it was made of"
        )
    known = manifest.lineage.config
    if GENERATORS not in known or REGENERATORS not in known:
        raise checkpoint.CheckpointError(
            f"{folder} does not say which generators it knows, so nothing could be called unseen: start from a "
            "bundle that a later release exported"
        )
    generators, regenerators = (
        frozenset(json.loads(str(known[name]))) for name in (GENERATORS, REGENERATORS)
    )
    return BundleStart(
        folder,
        manifest,
        onnx.load(folder / manifest.model_file).graph,
        read_golden((folder / manifest.golden_file).read_bytes()),
        f"bundle {manifest.name} {manifest.version}, manifest sha256:{manifest_sha256(folder)}",
        Known(generators, regenerators),
    )


def _first_crops(batches: Batches) -> NDArray[np.uint8]:
    """uint8 [N, S, S, 3], the first that training will draw itself."""
    first = batches.at(0).image_NHWC
    more = (batches.at(step).image_NHWC for step in count(1))
    enough = -(-_MEASURED_CROPS // len(first)) - 1
    return np.concatenate([first, *islice(more, enough)])
