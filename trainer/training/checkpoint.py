"""Runs on disk: their checkpoints and results, and what runs and bundles hand on to a later run.

In: the state of a run; the folder of a run, or a bundle. Out: ``last.pt`` (everything that a resumed run
needs), ``best.pt`` (the weights to export) and JSON files of results, each written atomically;
``FinishedRun`` for what judges or exports a run; ``InitialWeights`` for a run that starts from it. Errors:
``CheckpointError`` where the weights cannot be used, ``DataError`` where a run would be judged by files
that trained it, ``BundleError`` where a bundle's files differ from its manifest.

A run's checkpoint has all weights and lists the files that shaped them, those of its own start included.
So a photograph that some run of the line has seen cannot return as a held-out one. A bundle has the
weights of backbone and classifier (``NAME.weights.safetensors`` beside it) and no list of files; the noise
head starts anew.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from pydantic import ValidationError
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engines.bundle.files import atomic_writer, write_atomically
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
from trainer.errors import DataError, TrainerError
from trainer.evaluation.calibration import CalibrationError, CalibrationResult
from trainer.evaluation.scoring import Infer

LAST, BEST = "last.pt", "best.pt"
GENERATORS, REGENERATORS = "known_generators", "known_regenerators"  # keys of a lineage: JSON lists
STARTED_FROM = "started_from"  # key of a lineage
TRAINED_ON = "trained_on"  # key of a lineage: the SHA-256 of each file, one per line
CALIBRATION = "calibrate.json"
CALIBRATED_ON = ("calibration", "threshold")  # splits
AVERAGED = "averaged"  # in a lineage: a JSON list with an object for each run of a mean
# Options that may differ from machine to machine, and of which only the folder's name counts.
_PLACES = {
    "roots",
    "weights",
    "source",
    "threads",
    "data_workers",
    "pairs",
    "manifest",
    "development",
}
_BY_NAME = {"start_from"}
_EVALUATION = "evaluation."
# Options that may change after a training, because they moved no weight.
_AFTER_TRAINING = (
    "export.",
    "data.splits.calibration.",
    "data.splits.threshold.",
    "data.splits.test.",
)
_SCORING = ("export.crop_policy", "export.crop_px", "export.max_crops", "export.gate")


class CheckpointError(TrainerError):
    """A checkpoint that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of the noise per channel, over the data and never per image."""

    mean_C: tuple[float, ...]  # noqa: N815  the suffix is the tensor's shape
    std_C: tuple[float, ...]  # noqa: N815  the suffix is the tensor's shape


@dataclass(frozen=True)
class Best:
    """The chosen weights and what the validation split says about them."""

    weights: dict[str, Tensor]
    step: int
    validation_auc: float
    explained_variance: float | None
    statistics: Statistics | None


@dataclass(frozen=True)
class State:
    """Everything that a step depends on, apart from the data and the configuration."""

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, object]
    best: Best | None
    statistics: Statistics | None
    stale: int  # validations since a better one
    processes: int  # that trained together


@dataclass(frozen=True)
class SeenGenerators:
    """What a line of runs was trained on; an evaluation counts everything else as unseen.

    Attributes:
        generators: selectors of generated folders, such as ``sd1`` or ``sd*``.
        regenerators: families of regenerations.
    """

    generators: frozenset[str]
    regenerators: frozenset[str]

    def saw(self, generator: str) -> bool:
        """Whether training drew from a generator's folder, whole or in part."""
        patterns = [selector.split("[", 1)[0] for selector in self.generators]
        return any(fnmatchcase(generator, pattern) for pattern in patterns)

    def and_before(self, earlier: "SeenGenerators") -> "SeenGenerators":
        """Together with what an earlier run has seen."""
        return SeenGenerators(
            self.generators | earlier.generators, self.regenerators | earlier.regenerators
        )

    def as_lineage(self) -> dict[str, str]:
        """For a checkpoint or a manifest: two JSON lists."""
        return {
            GENERATORS: json.dumps(sorted(self.generators)),
            REGENERATORS: json.dumps(sorted(self.regenerators)),
        }


def seen_generators(lineage: Mapping[str, object]) -> SeenGenerators:
    """Read what ``SeenGenerators.as_lineage`` wrote."""
    lists = (json.loads(str(lineage[name])) for name in (GENERATORS, REGENERATORS))
    return SeenGenerators(*(frozenset(names) for names in lists))


def save(path: Path, content: Mapping[str, object]) -> None:
    """Write with torch: a run that is killed here keeps the file that was there before."""
    with atomic_writer(path) as file:
        torch.save(dict(content), file)


def save_state(folder: Path, state: State, config: Config) -> None:
    """Write ``last.pt``."""
    content = {name: getattr(state, name) for name in ("step", "weights", "average", "optimizer")}
    content |= {"stale": state.stale, "processes": state.processes}
    content |= {"config": config.model_dump_json(), "statistics": _plain(state.statistics)}
    save(folder / LAST, content | {"best": _best_content(state.best) if state.best else None})


def save_best(folder: Path, best: Best, config: Config, lineage: Mapping[str, str]) -> None:
    """Write ``best.pt``."""
    save(folder / BEST, {"config": config.model_dump_json(), **lineage, **_best_content(best)})


def load_state(folder: Path, config: Config) -> State:
    """Read ``last.pt``; refuse a file that another configuration made."""
    content = _read(folder / LAST)
    _refuse_other_config(folder / LAST, str(content.pop("config")), config)
    best = content.pop("best")
    return State(
        best=_best(best) if isinstance(best, dict) else None,
        statistics=_statistics(content.pop("statistics")),
        **content,  # type: ignore[arg-type]  # torch.load gives what save_state wrote
    )


def load_best(folder: Path, config: Config) -> tuple[Best, Mapping[str, str]]:
    """Read ``best.pt``: the weights, and the lineage that was written beside them.

    The configuration must be that of the training; only ``[export]``, ``[evaluation]`` and the files that
    calibrate and test may have changed since, because they moved no weight.
    """
    best, lineage = read_best(folder)
    _refuse_other_config(folder / BEST, lineage["config"], config, _AFTER_TRAINING)
    return best, lineage


def read_best(folder: Path) -> tuple[Best, Mapping[str, str]]:
    """Read ``best.pt`` of any configuration, which is ``lineage["config"]``."""
    content = _read(folder / BEST)
    lineage = {key: value for key, value in content.items() if isinstance(value, str)}
    return _best(content), lineage


def config_of(folder: Path, lineage: Mapping[str, str]) -> Config:
    """The configuration that trained a run's ``best.pt``."""
    try:
        return Config.model_validate_json(lineage["config"])
    except ValidationError as error:
        options = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise CheckpointError(
            f"{folder / BEST} was trained with options that this version does not have, or has with "
            f"other values ({options}): use the version that trained it, or train again"
        ) from error


def measured_with(config: Config, *splits: str) -> dict[str, object]:
    """The options that results depend on, for the file that keeps them.

    Args:
        config: of the command that measures.
        splits: whose files were measured.
    """
    prefixes = tuple(f"data.splits.{name}." for name in splits)
    flat = _flat(json.loads(config.model_dump_json()))
    options = {key: value for key, value in flat.items() if key.startswith(prefixes + _SCORING)}
    if splits and config.data.manifest is not None:  # it decides which files a split has
        options["data.manifest"] = sha256_of(config.data.manifest)
    return {"measured_with": options}


def refuse_other_settings(
    content: Mapping[str, object], config: Config, path: Path, splits: Sequence[str], advice: str
) -> None:
    """Refuse results that were measured on other files or crops than the configuration names now.

    Raises:
        CheckpointError: names the options that differ, and ends with the advice.
    """
    kept, now = content.get("measured_with"), measured_with(config, *splits)["measured_with"]
    before = kept if isinstance(kept, dict) else {}
    assert isinstance(now, dict)  # noqa: S101  as written above; for mypy
    changed = [f"{key} was {before.get(key)}" for key in now if before.get(key) != now[key]]
    if changed:
        raise CheckpointError(
            f"{path} was measured with other options than the configuration has now "
            f"({', '.join(changed)}): {advice}"
        )


def unlearnt(config: Config, best: Best) -> str | None:
    """Why these weights do not count as ANL; None where they do, or where no noise was to be learnt.

    A student that did not learn its target says nothing about the effect of learning it, whatever its
    other figures.
    """
    wanted = config.train.min_explained_variance
    if config.loss.lambda_noise == 0 or wanted == 0:
        return None
    if best.explained_variance is None:
        return (
            "the explained variance of the teacher's noise was never measured (data.splits.validation "
            "has no image): this run does not count as ANL"
        )
    if best.explained_variance >= wanted:
        return None
    return (
        f"{best.explained_variance:.1%} of the teacher's noise is explained on held-out crops, "
        f"less than the {wanted:.0%} of train.min_explained_variance: this run does not count as ANL"
    )


def anl_doubts(config: Config, validation_images: int) -> tuple[str, ...]:
    """Why a run of this configuration cannot count as ANL, as far as it is known before training.

    Args:
        config: of the run.
        validation_images: that the validation split holds.

    Returns:
        A sentence for each reason, with what to do; empty where there is none.
    """
    if config.loss.lambda_noise == 0 or config.train.min_explained_variance == 0:
        return ()
    doubts = []
    if round(config.train.batch // 2 * config.teacher.share) == 0:
        doubts.append(
            f"no crop of a batch has a target (train.batch {config.train.batch}, teacher.share "
            f"{config.teacher.share:g}), so no noise is learnt: raise teacher.share, or set "
            "loss.lambda_noise = 0 for a plain backbone"
        )
    if validation_images == 0:
        doubts.append(
            "data.splits.validation has no image, so the explained variance cannot be measured and the "
            'model card will say "not ANL": name folders in data.splits.validation'
        )
    return tuple(doubts)


def flat_config(config: Config) -> dict[str, str | int | float | bool | None]:
    """The configuration by dotted name, for the manifest; the texts of the card are left out.

    Of ``data.pairs`` only the folders' names stay: the paths belong to this machine, but a bundle must say
    which regenerators it has seen.
    """
    flat = {
        key: value if isinstance(value, str | int | float | bool) else None
        for key, value in _flat(json.loads(config.model_dump_json())).items()
        if not key.startswith("export.card.")
    }
    return flat | {"data.pairs": json.dumps([path.name for path in config.data.pairs])}


def commit() -> str:
    """The commit of the code that runs, or "unknown" where there is no git."""
    try:
        git = subprocess.run(  # noqa: S603  a fixed command
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],  # noqa: S607  git is on the path
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return git.stdout.strip()


def sha256_of(path: Path) -> str:
    """The digest of a file that must exist."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): check the path"
        ) from error


def write_json(path: Path, content: object) -> None:
    """Write plain values as an indented JSON file."""
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path, command: str) -> dict[str, object]:
    """Read the results of an earlier command.

    Raises:
        CheckpointError: names the command to run.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{path} does not exist: run python -m trainer {command} first"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): run {command} again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a result of {command}: run it again")
    return content


def _best_content(best: Best) -> dict[str, object]:
    return {**vars(best), "statistics": _plain(best.statistics)}


def _best(content: Mapping[str, object]) -> Best:
    names = ("weights", "step", "validation_auc", "explained_variance")
    return Best(
        **{name: content[name] for name in names},  # type: ignore[arg-type]  # as save_best wrote it
        statistics=_statistics(content["statistics"]),
    )


def _plain(statistics: Statistics | None) -> dict[str, tuple[float, ...]] | None:
    return asdict(statistics) if statistics else None


def _statistics(content: object) -> Statistics | None:
    return Statistics(**content) if isinstance(content, dict) else None


def _read(path: Path) -> dict[str, object]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist: train first, or check --output") from error
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): train again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint of this trainer")
    return content


def _refuse_other_config(
    path: Path, saved: str, config: Config, may_differ: tuple[str, ...] = ()
) -> None:
    before, now = _flat(json.loads(saved)), _flat(json.loads(config.model_dump_json()))
    changed = sorted(
        key
        for key in before.keys() | now.keys()
        if before.get(key) != now.get(key) and not key.startswith((_EVALUATION, *may_differ))
    )
    if changed:
        raise CheckpointError(
            f"{path} was made with another configuration ({', '.join(changed)} differ): "
            "train into another --output, or restore the configuration"
        )


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """A tree by dotted name, without what only says where things are on this machine."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= _flat(value, f"{name}.")
        elif key in _BY_NAME:
            flat[name] = Path(str(value)).name
        elif isinstance(value, list):
            parts = [_flat(part) if isinstance(part, dict) else part for part in value]
            flat |= {} if key in _PLACES else {name: json.dumps(parts)}
        elif key not in _PLACES:
            flat[name] = value
    return flat


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
        return config_of(self.folder, self.lineage)

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
        content = read_json(path, "calibrate")
        result = CalibrationResult.from_json(content)
        again = "run python -m trainer calibrate again, and evaluate after it"
        measured, wanted = {one.name: one.rates for one in result.sets}, config.export.rates()
        other = [name for name in {**wanted, **measured} if measured.get(name) != wanted.get(name)]
        if other:
            raise CalibrationError(
                f"{path} was measured for other threshold sets or rates than [export] has now "
                f"({', '.join(other)}): {again}"
            )
        refuse_other_settings(content, config, path, CALIBRATED_ON, again)
        return result


def read_run(folder: Path) -> FinishedRun:
    """Read a run of whatever configuration."""
    best, lineage = read_best(folder)
    return FinishedRun(folder, best, lineage, _digest(folder))


def load_run(folder: Path, config: Config) -> FinishedRun:
    """Read a run; refuse it where another configuration trained it."""
    best, lineage = load_best(folder, config)
    return FinishedRun(folder, best, lineage, _digest(folder))


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / BEST).read_bytes()).hexdigest()


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
