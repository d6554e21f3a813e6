"""Earlier runs and bundles: their weights, what those have seen, and which pictures may judge them.

In: the folder of a run, or a bundle. Out: ``FinishedRun`` for what judges or exports a run;
``InitialWeights`` and a lineage for a run that starts from it. Errors: ``CheckpointError`` where the
weights cannot be used, ``DataError`` where a run would be judged by files that trained it,
``BundleError`` where a bundle's files differ from its manifest.

A run's checkpoint has all weights and lists the files that shaped them, those of its own start included.
So a photograph that some run of the line has seen cannot return as a held-out one. A bundle has the
weights of backbone and classifier (``NAME.weights.safetensors`` beside it) and no list of files; the noise
head starts anew.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engines.bundle.golden import Golden, read_golden
from engines.bundle.manifest import (
    MANIFEST_FILE,
    WEIGHTS_SHA256,
    Manifest,
    manifest_sha256,
    weights_file,
)
from engines.bundle.verify import verify_files
from trainer.config import Config
from trainer.data.dataset import Dataset, scan
from trainer.detector import IN_BUNDLE, Detector, classifier, gated_classifier
from trainer.errors import DataError
from trainer.evaluation.calibration import CalibrationError, CalibrationResult
from trainer.evaluation.scoring import Infer
from trainer.training import checkpoint
from trainer.training.checkpoint import (
    BEST,
    GENERATORS,
    REGENERATORS,
    STARTED_FROM,
    Best,
    CheckpointError,
    SeenGenerators,
    read_best,
    seen_generators,
    sha256_of,
    unlearnt,
)

TRAINED_ON = "trained_on"  # key of a lineage: the SHA-256 of each file, one per line


@dataclass(frozen=True)
class InitialWeights:
    """Where a run starts.

    Attributes:
        folder: of the earlier run, or of the bundle.
        weights: all of a detector, or backbone and classifier.
        origin: what they are, by digest, for the lineage.
        seen: generators and regenerators that shaped them.
        trained_on: SHA-256 of files; empty for a bundle.
        bundle: its manifest and golden outputs, which prove the weights; None for a run.
    """

    folder: Path
    weights: dict[str, Tensor]
    origin: str
    seen: SeenGenerators
    trained_on: frozenset[str] = frozenset()
    bundle: tuple[Manifest, Golden] | None = None

    def load_into(self, detector: Detector) -> None:
        """Fill a detector; of a bundle's weights, prove that they give its golden outputs."""
        state = detector.state_dict()
        if self.bundle is not None:  # the noise head and the gate stay as they are
            state = {k: v for k, v in state.items() if not k.startswith(IN_BUNDLE)}
        try:
            detector.load_state_dict(state | self.weights if self.bundle else self.weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"the weights of {self.folder} do not fit this detector ({error}): train.start_from "
                "needs the [detector] that they were trained with and, for a run, the same kind of teacher"
            ) from error
        if self.bundle is not None:
            self._prove(detector, *self.bundle)

    def _prove(self, detector: Detector, manifest: Manifest, golden: Golden) -> None:
        logit_K = classifier(detector.eval())(golden.image_NHWC)
        difference = float(np.abs(logit_K - golden.logit_K).max())
        if not difference <= manifest.tolerances["fp32"]:
            raise CheckpointError(
                f"the weights of {self.folder} do not give its golden outputs here (they differ by "
                f"{difference:.3g}, {manifest.tolerances['fp32']:.3g} is allowed): its graph computes "
                "something else than this detector with the gate off, so start from its run's folder"
            )


def read_initial_weights(folder: Path) -> InitialWeights:
    """Read a bundle where the folder holds a manifest, else the chosen weights of a run."""
    if (folder / MANIFEST_FILE).exists():
        return _read_bundle(folder)
    best, lineage = read_best(folder)
    origin = f"sha256:{sha256_of(folder / BEST)}"
    return InitialWeights(
        folder, best.weights, origin, seen_generators(lineage), trained_files(lineage)
    )


def _read_bundle(folder: Path) -> InitialWeights:
    manifest = verify_files(folder)
    if manifest.precision != "fp32":
        raise CheckpointError(
            f"{folder} computes in {manifest.precision}: train.start_from needs the fp32 bundle that it "
            "was made of"
        )
    kept = manifest.lineage.config
    if GENERATORS not in kept or REGENERATORS not in kept:
        raise CheckpointError(
            f"{folder} does not say which generators it has seen, so none could be called unseen: start "
            "from a bundle that python -m trainer export wrote"
        )
    return InitialWeights(
        folder,
        _read_weights(weights_file(folder), kept.get(WEIGHTS_SHA256)),
        f"bundle {manifest.name} {manifest.version}, manifest sha256:{manifest_sha256(folder)}",
        seen_generators(kept),
        bundle=(manifest, read_golden((folder / manifest.golden_file).read_bytes())),
    )


def _read_weights(path: Path, digest: object) -> dict[str, Tensor]:
    """Read a bundle's weights; an older manifest has no digest, and its golden outputs prove them."""
    if digest is not None and sha256_of(path) != digest:
        raise CheckpointError(
            f"{path} is not the file that the bundle's manifest names (another SHA-256): copy it again"
        )
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): train.start_from needs the weights that export wrote "
            "beside the bundle; copy them too"
        ) from error


def trained_files(lineage: Mapping[str, str]) -> frozenset[str]:
    """SHA-256 of the files that shaped a run's weights."""
    return frozenset(lineage[TRAINED_ON].split())


def initial_weights_of(folder: str, dataset: Dataset) -> InitialWeights | None:
    """Read ``train.start_from``; refuse a run whose training files would judge this one."""
    if not folder:
        return None
    start = read_initial_weights(Path(folder))
    _refuse_seen(
        start.folder,
        start.trained_on,
        dataset,
        "put them into data.splits.train, or set train.start_from to a run that has not seen them",
    )
    return start


def refuse_trained_on(folder: Path, lineage: Mapping[str, str], dataset: Dataset) -> None:
    """Nothing that shaped a run's weights may judge it: its splits may have changed since."""
    _refuse_seen(
        folder,
        trained_files(lineage),
        dataset,
        "take them out of that split: a run cannot be judged by what it has learnt",
    )


def lineage_of(
    start: InitialWeights | None, dataset: Dataset, seen: SeenGenerators
) -> dict[str, str]:
    """What a checkpoint says about its files, about what it has seen, and about its start."""
    files = {source.sha256 for source in dataset.splits["train"]}
    if start is None:
        return {TRAINED_ON: "\n".join(sorted(files)), **seen.as_lineage()}
    return {
        TRAINED_ON: "\n".join(sorted(files | start.trained_on)),
        **seen.and_before(start.seen).as_lineage(),
        STARTED_FROM: start.origin,
    }


def notes_of(start: InitialWeights | None) -> Iterable[str]:
    """What a user should know about a start."""
    if start is None:
        return
    if start.bundle is None:
        yield f"starting from the weights of {start.folder}"
        return
    manifest, generators = start.bundle[0], ", ".join(sorted(start.seen.generators))
    yield (
        f"starting from the weights of {start.folder} (bundle {manifest.name} {manifest.version}, which "
        f"has seen {generators})"
    )
    yield (
        f"{start.folder} does not list the files it was trained on: make sure that none of them is in "
        "this run's validation, calibration, threshold or test split"
    )


def _refuse_seen(folder: Path, trained_on: frozenset[str], dataset: Dataset, advice: str) -> None:
    for name, sources in dataset.splits.items():
        seen = [source for source in sources if source.sha256 in trained_on]
        if name != "train" and seen:
            raise DataError(
                f"{len(seen)} files of the {name} split trained the run in {folder} "
                f"({seen[0].key} for example): {advice}"
            )


CALIBRATION = "calibrate.json"
CALIBRATED_ON = ("calibration", "threshold")  # splits
AVERAGED = "averaged"  # in a lineage: a JSON list with an object for each run of a mean


@dataclass(frozen=True)
class FinishedRun:
    """The chosen weights of a run, and where they come from."""

    folder: Path
    best: Best
    lineage: Mapping[str, str]
    sha256: str  # of its best.pt

    @property
    def config(self) -> Config:
        """The configuration that it was trained by."""
        return checkpoint.config_of(self.folder, self.lineage)

    def detector(self, config: Config) -> Detector:
        """The chosen weights, as a detector of this configuration."""
        return Detector.restored(config.detector, self.best.weights)

    def judging_data(self, config: Config) -> Dataset:
        """All splits; those that judge may have changed since training.

        Raises:
            DataError: a split that judges holds a file that the run was trained on.
        """
        dataset = scan(config.data)
        refuse_trained_on(self.folder, self.lineage, dataset)
        return dataset

    def calibration(self, config: Config) -> CalibrationResult:
        """What ``calibrate`` left in the run's folder.

        Raises:
            CalibrationError: it was measured for other threshold sets or rates.
            CheckpointError: it was measured on other files or crops, or there is none.
        """
        path = self.folder / CALIBRATION
        content = checkpoint.read_json(path, "calibrate")
        result = CalibrationResult.from_json(content)
        again = "run python -m trainer calibrate again, and evaluate after it"
        measured, wanted = {one.name: one.rates for one in result.sets}, config.export.rates()
        other = [name for name in {**wanted, **measured} if measured.get(name) != wanted.get(name)]
        if other:
            raise CalibrationError(
                f"{path} was measured for other threshold sets or rates than [export] has now "
                f"({', '.join(other)}): {again}"
            )
        checkpoint.refuse_other_settings(content, config, path, CALIBRATED_ON, again)
        return result


def read_run(folder: Path) -> FinishedRun:
    """Read a run of whatever configuration."""
    best, lineage = checkpoint.read_best(folder)
    return FinishedRun(folder, best, lineage, _digest(folder))


def load_run(folder: Path, config: Config) -> FinishedRun:
    """Read a run; refuse it where another configuration trained it."""
    best, lineage = checkpoint.load_best(folder, config)
    return FinishedRun(folder, best, lineage, _digest(folder))


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / checkpoint.BEST).read_bytes()).hexdigest()


def exported_graph(detector: Detector, config: Config) -> Infer:
    """The detector as the graph that is exported: with or without its gate."""
    graph = classifier if config.export.gate == "off" else gated_classifier
    return graph(detector)


def warn_if_unlearnt(config: Config, run: FinishedRun, console: Console) -> None:
    """Say it where a run must not be called ANL."""
    why_not = unlearnt(config, run.best)
    if why_not:
        console.print(f"[bold red]not ANL:[/] {why_not}", highlight=False)


def describe_mean(lineage: Mapping[str, str]) -> str:
    """Of which runs weights are the mean; empty where they are one run's own."""
    if AVERAGED not in lineage:
        return ""
    runs = json.loads(lineage[AVERAGED])
    return f"the mean of {len(runs)} runs' weights: " + "; ".join(map(_describe_run, runs))


def _describe_run(run: Mapping[str, object]) -> str:
    other = run["other_options"]
    options = (
        [f"`{key}` {value}" for key, value in other.items()] if isinstance(other, dict) else []
    )
    return ", ".join(
        [f"best.pt {run['best']}", f"seed {run['seed']}", f"step {run['step']}", *options]
    )
