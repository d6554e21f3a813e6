"""A run that starts from the weights of an earlier one, or of a bundle.

In: the folder of that run or bundle, this run's data. Out: ``Start``. Errors: those of ``starts``,
``DataError`` where this run would be judged by files that the earlier one was trained on.

A checkpoint lists the files that shaped its weights, its own start's among them. So a photograph
that some run of the line has seen cannot come back as a held-out one. A bundle has no such list.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from trainer.data.dataset import Dataset
from trainer.data.files import Source
from trainer.errors import DataError
from trainer.training.known import Known
from trainer.training.starts import TRAINED_ON, Start, files_of, read_start

STARTED_FROM = "started_from"


def start_of(folder: str, dataset: Dataset) -> Start | None:
    """Read the start, and refuse what it knows among the files that are to judge this run."""
    if not folder:
        return None
    start = read_start(Path(folder))
    _refuse_known(
        start.folder,
        start.trained_on,
        dataset,
        "put them into data.splits.train, or set train.start_from to a run that has not seen them",
    )
    return start


def refuse_trained_on(folder: Path, lineage: Mapping[str, str], dataset: Dataset) -> None:
    """Nothing that shaped a run's weights may judge it: its splits may have changed since."""
    _refuse_known(
        folder,
        files_of(lineage),
        dataset,
        "take them out of that split: a run cannot be judged by what it has learnt",
    )


def lineage_of(start: Start | None, dataset: Dataset, known: Known) -> dict[str, str]:
    """What a checkpoint says of its files, of what it knows, and of its start."""
    seen = {one.sha256 for one in dataset.splits["train"]}
    if start is None:
        return {TRAINED_ON: "\n".join(sorted(seen)), **known.as_lineage()}
    return {
        TRAINED_ON: "\n".join(sorted(seen | start.trained_on)),
        **known.and_before(start.known).as_lineage(),
        STARTED_FROM: start.origin,
    }


def notes_of(start: Start | None) -> Iterable[str]:
    """What a user should know of a start."""
    if start is None:
        return
    yield f"starting from the weights of {start.folder}{start.in_words}"
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
