"""A run that starts from the weights of an earlier one.

In: the folder of that run, this run's data. Out: ``Start``. Errors: ``CheckpointError`` where the
weights do not fit or cannot be read, ``DataError`` where this run would be judged by files that the
earlier one was trained on.

A checkpoint lists the files that shaped its weights, its own start's among them. So a photograph
that some run of the line has seen cannot come back as a held-out one.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from trainer.data.errors import DataError
from trainer.data.sources import Dataset, Source
from trainer.detector import Detector
from trainer.training import checkpoint
from trainer.training.known import Known, known_by

TRAINED_ON = "trained_on"  # SHA-256 of each file, a line each
STARTED_FROM = "started_from"


@dataclass(frozen=True)
class Start:
    """The chosen weights of an earlier run."""

    folder: Path
    weights: dict[str, Tensor]
    digest: str  # SHA-256 of its best.pt
    trained_on: frozenset[str]  # SHA-256 of files; empty where the run is older than this list
    known: Known

    def load_into(self, detector: Detector) -> None:
        """Fill a detector."""
        try:
            detector.load_state_dict(self.weights)
        except RuntimeError as error:
            raise checkpoint.CheckpointError(
                f"the weights of {self.folder} do not fit this detector ({error}): train.start_from "
                "needs a run with the same [detector] and the same kind of teacher"
            ) from error


def earlier_run(folder: str, dataset: Dataset) -> Start | None:
    """Read the earlier run, and refuse what it knows among the files that are to judge this one."""
    if not folder:
        return None
    path = Path(folder)
    best, lineage = checkpoint.read_best(path)
    digest = hashlib.sha256((path / checkpoint.BEST).read_bytes()).hexdigest()
    trained_on = files_of(lineage)
    _refuse_known(
        path,
        trained_on,
        dataset,
        "put them into data.splits.train, or set train.start_from to a run that has not seen them",
    )
    return Start(path, best.weights, digest, trained_on, known_by(lineage))


def refuse_trained_on(folder: Path, lineage: Mapping[str, str], dataset: Dataset) -> None:
    """Nothing that shaped a run's weights may judge it: its splits may have changed since."""
    _refuse_known(
        folder,
        files_of(lineage),
        dataset,
        "take them out of that split: a run cannot be judged by what it has learnt",
    )


def files_of(lineage: Mapping[str, str]) -> frozenset[str]:
    """SHA-256 of the files that shaped a run's weights; empty where the run is older than the list."""
    return frozenset(lineage.get(TRAINED_ON, "").split())


def lineage_of(start: Start | None, dataset: Dataset, known: Known) -> dict[str, str]:
    """What a checkpoint says of its files, of what it knows, and of its start."""
    seen = {one.sha256 for one in dataset.splits["train"]}
    if start is None:
        return {TRAINED_ON: "\n".join(sorted(seen)), **known.as_lineage()}
    return {
        TRAINED_ON: "\n".join(sorted(seen | start.trained_on)),
        **known.and_before(start.known).as_lineage(),
        STARTED_FROM: f"sha256:{start.digest}",
    }


def notes_of(start: Start | None) -> Iterable[str]:
    """What a user should know of a start."""
    if start is None:
        return
    yield f"starting from the weights of {start.folder}"
    if not start.trained_on:
        yield (
            f"{start.folder} does not say which files it was trained on: see to it yourself that "
            "none of them is in this run's validation, calibration, threshold or test split"
        )


def _refuse_known(folder: Path, trained_on: frozenset[str], dataset: Dataset, advice: str) -> None:
    for name, sources in dataset.splits.items():
        known: list[Source] = [one for one in sources if one.sha256 in trained_on]
        if name != "train" and known:
            raise DataError(
                f"{len(known)} files of the {name} split trained the run in {folder} "
                f"({known[0].key} for one): {advice}"
            )
