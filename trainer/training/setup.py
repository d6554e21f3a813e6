"""From a configuration to what a run trains on: the one place where the parts are put together.

In: a configuration, a cache folder. Out: ``TrainInputs``. Errors: those of
the parts. Slow steps are reported through ``notify``.
"""

from collections.abc import Callable
from pathlib import Path

from engines.preprocess import ImageError
from trainer.config import Config
from trainer.data.batches import Batches
from trainer.data.dataset import Dataset, check_near, pictures_of, scan
from trainer.data.pairs import Pair, load_pairs, photographs_of
from trainer.errors import DataError
from trainer.teachers.opening import open_teacher
from trainer.training.checkpoint import SeenGenerators, commit
from trainer.training.loop import TrainInputs
from trainer.training.runs import initial_weights_of, lineage_of, notes_of
from trainer.training.targets import TargetStore
from trainer.training.validation import HeldOut, Validation

Notify = Callable[[str], None]


def build(
    config: Config, cache: Path, notify: Notify, dataset: Dataset | None = None
) -> TrainInputs:
    """Read the data and the first weights, and open the teacher.

    Args:
        config: of the run.
        cache: for the teacher's noise and perceptual hashes.
        notify: called with what a person should know.
        dataset: what ``scan`` found; None to scan here.
    """
    dataset = dataset or scan(config.data)
    notify(_summary(dataset))
    start = initial_weights_of(config.train.start_from, dataset)
    near = check_near(dataset, cache, strict=config.data.strict)
    for note in (*notes_of(start), *dataset.notes, *near):
        notify(note)
    pictures = pictures_of(dataset.splits["train"], config.data, notify, config.data.region_px)
    pairs = stored_pairs(dataset, config, "train", notify)
    batches = Batches(pictures, pairs, config)
    targets, teacher_id = None, "none"
    if batches.targets:
        teacher = open_teacher(config.teacher)
        teacher_id = teacher.teacher_id
        targets = TargetStore(teacher, config.teacher, cache / "targets")
    validation = validation_of(dataset, targets, config, notify)
    lineage = {"data_digest": dataset.digest, "teacher_id": teacher_id, "code_commit": commit()}
    seen = SeenGenerators(
        frozenset(dataset.folders("train", 1)), frozenset(pair.family for pair in pairs)
    )
    lineage |= lineage_of(start, dataset, seen)
    return TrainInputs(batches, validation, targets, lineage, start)


def validation_of(
    dataset: Dataset, targets: TargetStore | None, config: Config, notify: Notify
) -> Validation:
    """The validation split; with targets, the noise in some of its crops too."""
    pictures = tuple(pictures_of(dataset.splits["validation"], config.data, notify, None))
    heldout = None
    if targets is not None and pictures:
        notify("computing the teacher's noise of the held-out crops")
        heldout = HeldOut(pictures, targets, config)
    pairs: tuple[Pair, ...] = ()
    if config.train.validate_pairs:
        pairs = tuple(stored_pairs(dataset, config, "validation", notify))
        if not pairs:
            raise DataError(
                "train.validate_pairs: data.pairs holds no pair of a validation photograph: make some "
                "(python -m trainer fakes), or leave the option out"
            )
    return Validation(pictures, pairs, heldout)


def stored_pairs(dataset: Dataset, config: Config, split: str, notify: Notify) -> list[Pair]:
    """The pairs on disk whose photographs are in that split."""
    if not config.data.pairs:
        return []
    skipped: list[str] = []

    def on_skip(name: str, error: ImageError) -> None:
        skipped.append(name)
        notify(f"skipped {name}: {error}")

    files = dataset.pairs.get(split, ())
    pairs = load_pairs(files, strict=config.data.strict, on_skip=on_skip)
    families = ", ".join(sorted({pair.family for pair in pairs}))
    kind = "training" if split == "train" else split
    notify(
        f"{len(pairs)} pairs of {len(photographs_of(files))} {kind} photographs, by {families}; "
        f"{dataset.homeless_photographs} photographs of data.pairs are in no split; "
        f"{len(skipped)} files were skipped"
    )
    return pairs


def _summary(dataset: Dataset) -> str:
    parts = []
    for name, sources in dataset.splits.items():
        fake = sum(source.label for source in sources)
        parts.append(f"{name}: {len(sources) - fake} real, {fake} fake")
    return f"{'; '.join(parts)}; {dataset.duplicates} duplicates left out"
