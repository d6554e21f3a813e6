"""The mean of several runs' weights: one detector, at the cost of one, of runs that differ in seed or data.

In: the folders of finished runs. Out: ``Finished`` of each, their mean, and its lineage. Errors:
``CheckpointError`` where they cannot be averaged.

Networks that set out from the same pretrained weights often lie in one basin, and their mean ranks what
none of them was trained on better than they do (Wortsman et al., *Model soups*, ICML 2022; Ramé et al.,
*Diverse weight averaging for out-of-distribution generalization*, NeurIPS 2022). Whether these do is
what the validation split must tell: a mean across a ridge is no detector at all.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from trainer.config import Config
from trainer.training import checkpoint
from trainer.training.checkpoint import Best, CheckpointError
from trainer.training.initial_weights import (
    STARTED_FROM,
    TRAINED_ON,
    SeenGenerators,
    seen_generators,
    trained_files,
)
from trainer.training.targets import Statistics

AVERAGED = "averaged"  # a JSON list with an object for each run
_OF_TRAINING_ALONE = {"weights", "gate_drop_p", "dropout_p"}  # of [detector]
_NO_OPTION_OF_TRAINING = ("export.", "evaluation.", "data.splits.")


@dataclass(frozen=True)
class Finished:
    """The chosen weights of one run, and where they come from."""

    folder: Path
    best: Best
    lineage: Mapping[str, str]
    sha256: str  # of its best.pt

    @property
    def config(self) -> Config:
        """The configuration that it was trained by."""
        return checkpoint.config_of(self.folder, self.lineage)


def finished_runs(folders: Sequence[Path], config: Config) -> list[Finished]:
    """Read the runs; the first was trained by this configuration, the others may differ from it.

    Raises:
        CheckpointError: fewer than two, one that is named twice, or weights that do not fit together.
    """
    if len(folders) < 2:  # noqa: PLR2004  a mean of one is that one
        raise CheckpointError("a mean needs two runs at least: name another")
    checkpoint.load_best(folders[0], config)  # refuses another configuration
    runs = [finished_run(folder) for folder in folders]
    again = [name for name, count in Counter(one.sha256 for one in runs).items() if count > 1]
    if again:
        twice = ", ".join(str(one.folder) for one in runs if one.sha256 in again)
        raise CheckpointError(f"{twice} hold the same weights: name each run once")
    for one in runs[1:]:
        _refuse_other_network(one, runs[0])
    return runs


def finished_run(folder: Path) -> Finished:
    """Read one, of whatever configuration."""
    best, lineage = checkpoint.read_best(folder)
    digest = hashlib.sha256((folder / checkpoint.BEST).read_bytes()).hexdigest()
    return Finished(folder, best, lineage, digest)


def _refuse_other_network(one: Finished, first: Finished) -> None:
    ours, theirs = (_network(each) for each in (first, one))
    if ours != theirs:
        raise CheckpointError(
            f"{one.folder} holds another network than {first.folder}: runs that are averaged need the "
            "same [detector]"
        )
    if first.lineage["teacher_id"] != one.lineage["teacher_id"]:
        raise CheckpointError(
            f"{one.folder} learnt of another teacher ({one.lineage['teacher_id']}) than {first.folder} "
            f"({first.lineage['teacher_id']}): their noise heads have no mean"
        )


def _network(one: Finished) -> tuple[object, ...]:
    """What weights mean: those of two backbones may have equal shapes, and crops be normalised in two ways."""
    shapes = {name: tuple(value.shape) for name, value in one.best.weights.items()}
    return shapes, one.config.detector.model_dump(exclude=_OF_TRAINING_ALONE)


def mean_weights(runs: Sequence[Finished]) -> dict[str, Tensor]:
    """Of every weight and running statistic, in fp64; counters are the first run's."""
    first = runs[0].best.weights
    found = {}
    for name, value in first.items():
        if not value.is_floating_point():
            found[name] = value.clone()
            continue
        stacked = torch.stack([one.best.weights[name].double() for one in runs])
        found[name] = stacked.mean(dim=0).to(value.dtype)
    return found


def mean_statistics(runs: Sequence[Finished]) -> Statistics | None:
    """Of the targets, by which the mean's noise head speaks; None where no run had a teacher."""
    known = [one.best.statistics for one in runs]
    each = [one for one in known if one is not None]
    if not each:
        return None
    mean_C, std_C = (
        tuple(fmean(values) for values in zip(*rows, strict=True))
        for rows in ([one.mean_C for one in each], [one.std_C for one in each])
    )
    return Statistics(mean_C, std_C)


def mean_lineage(runs: Sequence[Finished], code_commit: str) -> dict[str, str]:
    """What the mean knows is all that some run of it knows; each run is listed."""
    known = SeenGenerators(frozenset(), frozenset())
    for one in runs:
        known = known.and_before(seen_generators(one.lineage))
    lineage = {
        "data_digest": _one_digest([one.lineage["data_digest"] for one in runs]),
        "teacher_id": runs[0].lineage["teacher_id"],
        "code_commit": code_commit,
        TRAINED_ON: "\n".join(
            sorted(frozenset().union(*(trained_files(one.lineage) for one in runs)))
        ),
        AVERAGED: json.dumps([_told(one, runs[0]) for one in runs]),
        **known.as_lineage(),
    }
    starts = {one.lineage.get(STARTED_FROM) for one in runs}
    start = starts.pop() if len(starts) == 1 else None
    return lineage if start is None else lineage | {STARTED_FROM: start}


def _one_digest(digests: Sequence[str]) -> str:
    """The runs' own where they agree, else a digest of them all."""
    if len(set(digests)) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _told(one: Finished, first: Finished) -> dict[str, object]:
    ours, theirs = (checkpoint.flat_config(each.config) for each in (first, one))
    return {
        "best": f"sha256:{one.sha256}",
        "step": one.best.step,
        "code_commit": one.lineage["code_commit"],
        "data_digest": one.lineage["data_digest"],
        STARTED_FROM: one.lineage.get(STARTED_FROM),
        "seed": one.config.seed,
        "other_options": {
            key: theirs.get(key)
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
            and key != "seed"
            and not key.startswith(_NO_OPTION_OF_TRAINING)
        },
    }


def worth_of_mean(each: Sequence[float], mean: float, *, surely_under: bool) -> str:
    """What the validation split says of a mean beside its runs, and what to do.

    Args:
        each: mean AUC of the runs.
        mean: that of the mean of their weights.
        surely_under: whether the split's pictures can tell that every run ranks better than the mean.
    """
    told = f"the mean of the weights ranks the validation split at {mean:.4f}"
    if mean >= max(each):
        return f"{told}, the best run alone at {max(each):.4f}"
    if mean >= min(each):
        return f"{told}, under the best run alone ({max(each):.4f}): take that one, or leave out the weakest"
    if not surely_under:
        return (
            f"{told}, under every one of its runs ({min(each):.4f} and more), by no more than other pictures "
            "might make: python -m trainer compare judges them by other splits too"
        )
    return (
        f"{told}, under every one of its runs: these weights do not belong together, so do not use it (runs "
        "that are averaged need the same first weights, and a learning rate that ends low)"
    )


def averaged_in_words(lineage: Mapping[str, str]) -> str:
    """Of which runs weights are the mean; empty where they are one run's own."""
    if AVERAGED not in lineage:
        return ""
    runs = json.loads(lineage[AVERAGED])
    return f"the mean of {len(runs)} runs' weights: " + "; ".join(
        _run_in_words(one) for one in runs
    )


def _run_in_words(run: Mapping[str, object]) -> str:
    other = run["other_options"]
    options = (
        [f"`{key}` {value}" for key, value in other.items()] if isinstance(other, dict) else []
    )
    return ", ".join(
        [f"best.pt {run['best']}", f"seed {run['seed']}", f"step {run['step']}", *options]
    )
