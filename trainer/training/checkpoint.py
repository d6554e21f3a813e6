"""A training run on disk: its checkpoints, its results, and the configuration that both belong to.

In: the state of a run. Out: ``last.pt`` (everything that a resumed run needs), ``best.pt`` (the weights to
export), JSON files of results. Errors: ``CheckpointError``. Each file is written atomically.
"""

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from pickle import UnpicklingError

import torch
from pydantic import ValidationError
from torch import Tensor

from engines.bundle.files import atomic_writer, write_atomically
from trainer.config import Config
from trainer.errors import TrainerError
from trainer.training.targets import Statistics

LAST, BEST = "last.pt", "best.pt"
GENERATORS, REGENERATORS = "known_generators", "known_regenerators"  # keys of a lineage: JSON lists
STARTED_FROM = "started_from"  # key of a lineage
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
