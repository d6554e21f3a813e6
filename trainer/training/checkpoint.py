"""A training run on disk: what a killed run needs to go on as if nothing had happened.

In: the state of a run. Out: ``last.pt`` (everything) and ``best.pt`` (the weights to export).
Errors: ``CheckpointError``. A file appears whole or not at all.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from pydantic import ValidationError
from torch import Tensor

from trainer.config import Config
from trainer.errors import TrainerError
from trainer.training.targets import Statistics

LAST, BEST = "last.pt", "best.pt"
_PLACES = {
    "roots",
    "weights",
    "source",
    "threads",
    "data_workers",
    "pairs",
    "manifest",
    "development",
}  # may differ from machine to machine
_BY_NAME = {"start_from"}  # a folder, of which the name alone is the same everywhere
_MEASURES = "evaluation."  # what is measured of a run changes nothing in it
_JUDGES = tuple(f"data.splits.{name}." for name in ("calibration", "threshold", "test"))


class CheckpointError(TrainerError):
    """A checkpoint that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Best:
    """The chosen weights and what was measured of them on the validation split."""

    weights: dict[str, Tensor]
    step: int
    validation_auc: float
    explained_variance: float | None
    statistics: Statistics | None


@dataclass(frozen=True)
class State:
    """Everything that a step depends on, but for the data and the configuration."""

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, object]
    best: Best | None
    statistics: Statistics | None
    stale: int  # validations since a better one
    processes: int  # that trained together


def save(path: Path, content: Mapping[str, object]) -> None:
    """Write atomically: a run that is killed here leaves the file that was there before."""
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        torch.save(dict(content), file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def save_state(folder: Path, state: State, config: Config) -> None:
    """Write ``last.pt``."""
    content = {
        "config": config.model_dump_json(),
        "step": state.step,
        "weights": state.weights,
        "average": state.average,
        "optimizer": state.optimizer,
        "best": _best_content(state.best) if state.best else None,
        "statistics": _pair(state.statistics),
        "stale": state.stale,
        "processes": state.processes,
    }
    save(folder / LAST, content)


def save_best(folder: Path, best: Best, config: Config, lineage: Mapping[str, str]) -> None:
    """Write ``best.pt``."""
    content = {"config": config.model_dump_json(), **lineage, **_best_content(best)}
    save(folder / BEST, content)


def _best_content(best: Best) -> dict[str, object]:
    return {
        "weights": best.weights,
        "step": best.step,
        "validation_auc": best.validation_auc,
        "explained_variance": best.explained_variance,
        "statistics": _pair(best.statistics),
    }


def _pair(statistics: Statistics | None) -> list[list[float]] | None:
    return [list(statistics.mean_C), list(statistics.std_C)] if statistics else None


def _statistics(pair: list[list[float]] | None) -> Statistics | None:
    return Statistics(tuple(pair[0]), tuple(pair[1])) if pair else None


def _best(content: Mapping[str, object]) -> Best:
    # torch.load gives plain containers; their types are those that save_best wrote.
    return Best(
        weights=content["weights"],  # type: ignore[arg-type]
        step=content["step"],  # type: ignore[arg-type]
        validation_auc=content["validation_auc"],  # type: ignore[arg-type]
        explained_variance=content["explained_variance"],  # type: ignore[arg-type]
        statistics=_statistics(content["statistics"]),  # type: ignore[arg-type]
    )


def load_state(folder: Path, config: Config) -> State:
    """Read ``last.pt``; refuse one that was made with another configuration."""
    content = _read(folder / LAST)
    _refuse_other_config(folder / LAST, str(content["config"]), config)
    best = content["best"]
    return State(
        step=content["step"],  # type: ignore[arg-type]  # as save_state wrote it
        weights=content["weights"],  # type: ignore[arg-type]
        average=content["average"],  # type: ignore[arg-type]
        optimizer=content["optimizer"],  # type: ignore[arg-type]
        best=_best(best) if isinstance(best, dict) else None,
        statistics=_statistics(content["statistics"]),  # type: ignore[arg-type]
        stale=content.get("stale", 0),  # type: ignore[arg-type]  # younger than some checkpoints
        processes=content.get("processes", 1),  # type: ignore[arg-type]  # the same
    )


def load_best(folder: Path, config: Config) -> tuple[Best, Mapping[str, str]]:
    """Read ``best.pt``: the weights, and the lineage that was written beside them.

    The configuration must be that of the training; only ``[export]``, ``[evaluation]`` and the files that
    calibrate and judge may have changed since, none of which moved a weight.
    """
    best, lineage = read_best(folder)
    _refuse_other_config(folder / BEST, lineage["config"], config, ("export.", *_JUDGES))
    return best, lineage


def read_best(folder: Path) -> tuple[Best, Mapping[str, str]]:
    """Read ``best.pt`` of any configuration, which is ``lineage["config"]``."""
    content = _read(folder / BEST)
    lineage = {key: value for key, value in content.items() if isinstance(value, str)}
    return _best(content), lineage


def config_of(folder: Path, lineage: Mapping[str, str]) -> Config:
    """The configuration that a run's ``best.pt`` was trained by."""
    try:
        return Config.model_validate_json(lineage["config"])
    except ValidationError as error:
        options = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
        raise CheckpointError(
            f"{folder / BEST} was trained by options that are no more, or have other values now ({options}): "
            "use the version that trained it, or train again"
        ) from error


def _read(path: Path) -> dict[str, object]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist: train first, or check --output") from error
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): train again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is no checkpoint of this trainer")
    return content


def _refuse_other_config(
    path: Path, saved: str, config: Config, free: tuple[str, ...] = ()
) -> None:
    before, now = _flat(_completed(saved)), _flat(json.loads(config.model_dump_json()))
    changed = sorted(
        key
        for key in before.keys() | now.keys()
        if before.get(key) != now.get(key) and not key.startswith((_MEASURES, *free))
    )
    if changed:
        raise CheckpointError(
            f"{path} was made with another configuration ({', '.join(changed)} differ): "
            "train into another --output, or restore the configuration"
        )


def _completed(saved: str) -> dict[str, object]:
    """A saved configuration, with the defaults of options that are younger than it."""
    # An option that is gone by now does not validate; it is then named as a difference.
    with contextlib.suppress(ValidationError):
        saved = Config.model_validate_json(saved).model_dump_json()
    content: dict[str, object] = json.loads(saved)
    return content


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """A tree by dotted name, without what only says where things are on this machine."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if key in _PLACES and not isinstance(value, dict):
            continue
        if key in _BY_NAME:
            flat[f"{prefix}{key}"] = Path(str(value)).name
        elif isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            parts = [_flat(one) if isinstance(one, dict) else one for one in value]
            flat[f"{prefix}{key}"] = json.dumps(parts)
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def flat_config(config: Config) -> dict[str, str | int | float | bool | None]:
    """The configuration by dotted name, for the manifest; the words of the card are left out.

    Where the pairs lie is this machine's own affair; that there were some is not: a bundle must say
    which regenerators it knows.
    """
    tree = json.loads(config.model_dump_json())
    flat = {
        key: value if isinstance(value, str | int | float | bool) else None
        for key, value in _flat(tree).items()
        if not key.startswith("export.card.")
    }
    return flat | {"data.pairs": json.dumps([one.name for one in config.data.pairs])}
