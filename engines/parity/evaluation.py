"""Runtimes of one bundle on the same labelled pictures: AUC, logits and decisions.

In: open runtimes, pictures from folders. Out: each runtime's AUC, and how it differs from the first.
Errors: ``BundleError`` if a directory has no pictures, too few can be read, or a runtime fails.

Pictures are chosen by their names only, so the choice is the same at every call.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile, zip_longest
from pathlib import Path
from typing import Final

from engines.bundle.golden import infer_all
from engines.bundle.manifest import BundleError, Manifest, ThresholdBand
from engines.preprocess import ImageError, Limits, prepare
from engines.runtime import Runtime, RuntimeFailure

# How much AUC a precision below the model's may lose on the evaluation set.
AUC_LOSS_MAX: Final = 0.005


@dataclass(frozen=True)
class LabelledPicture:
    """A picture whose label is known from its folder."""

    path: Path
    is_fake: bool


@dataclass(frozen=True)
class AucCheck:
    """How a precision is compared with the model.

    Attributes:
        pictures: labelled pictures; those used for calibration are left out.
        auc_loss_max: how much AUC a precision may lose.
    """

    pictures: Sequence[LabelledPicture]
    auc_loss_max: float = AUC_LOSS_MAX


def labelled_pictures(
    directory: Path, per_folder: int | None = None
) -> tuple[LabelledPicture, ...]:
    """The pictures of ``real/NAME/*`` and ``fake/NAME/*``, at most ``per_folder`` from each folder."""
    pictures = tuple(
        LabelledPicture(path, is_fake)
        for kind, is_fake in (("real", False), ("fake", True))
        for folder in _folders(directory / kind)
        for path in _shuffled(folder)[:per_folder]
    )
    if not _both_classes(picture.is_fake for picture in pictures):
        raise BundleError(
            f"{directory} has no pictures to evaluate on: it needs folders real/NAME and fake/NAME"
        )
    return pictures


def sample_files(directory: Path, count: int) -> tuple[Path, ...]:
    """At most ``count`` files below the directory, spread evenly over its folders."""
    if not directory.is_dir():
        raise BundleError(f"{directory} is not a directory: name one that holds pictures")
    folders = [directory, *sorted(path for path in directory.rglob("*") if path.is_dir())]
    turns = zip_longest(*(_shuffled(folder) for folder in folders))
    files = [path for path in chain.from_iterable(turns) if path is not None]
    if not files:
        raise BundleError(f"{directory} holds no files: name a directory of pictures")
    return tuple(files[:count])


def _folders(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        yield from sorted(path for path in directory.iterdir() if path.is_dir())


def _shuffled(folder: Path) -> list[Path]:
    """A folder's files in an order that does not depend on their content."""
    files = (path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    return sorted(files, key=lambda path: hashlib.sha256(path.name.encode()).digest())


def _both_classes(is_fake: Iterable[bool]) -> bool:
    return set(is_fake) == {True, False}


def auc(real: Iterable[float], fake: Iterable[float]) -> float:
    """P(a fake's score > a real's), ties counting half: the area under the ROC curve."""
    real_scores, fake_scores = sorted(real), list(fake)
    wins = sum(
        (bisect_left(real_scores, score) + bisect_right(real_scores, score)) / 2
        for score in fake_scores
    )
    return wins / (len(real_scores) * len(fake_scores))


@dataclass(frozen=True)
class DecisionChange:
    """How many of ``of`` inputs fall on the other side of one threshold."""

    threshold_set: str
    band: ThresholdBand
    threshold: float
    changed: int
    of: int


def decisions_changed(
    manifest: Manifest, logit_N: Sequence[float], reference_N: Sequence[float]
) -> tuple[DecisionChange, ...]:
    """The decisions that differ from the reference, at both thresholds of each threshold set."""
    scores = [
        (manifest.score(logit), manifest.score(reference))
        for logit, reference in zip(logit_N, reference_N, strict=True)
    ]
    return tuple(
        DecisionChange(
            thresholds.id,
            band,
            point.threshold,
            sum(
                (score >= point.threshold) != (reference >= point.threshold)
                for score, reference in scores
            ),
            len(scores),
        )
        for thresholds in manifest.threshold_sets
        for band, point in thresholds.points().items()
    )


def changes_by_set(changes: Sequence[DecisionChange]) -> list[str]:
    """``few-alarms 7, 4 of 634``: at review, at block; a set is named only if there are several."""
    names = list(dict.fromkeys(change.threshold_set for change in changes))
    lines = []
    for name, short in zip(names, _without_common_prefix(names), strict=True):
        of_set = [change for change in changes if change.threshold_set == name]
        counts = ", ".join(str(change.changed) for change in of_set)
        lines.append(f"{short + ' ' if len(names) > 1 else ''}{counts} of {of_set[0].of}")
    return lines


def _without_common_prefix(names: Sequence[str]) -> list[str]:
    """``default`` and ``few-alarms`` from ``mine-1.0-default`` and ``mine-1.0-few-alarms``."""
    parts = [name.split("-") for name in names]
    shared = len(list(takewhile(lambda same: len(set(same)) == 1, zip(*parts, strict=False))))
    shared = min([shared, *(len(words) - 1 for words in parts)])
    return ["-".join(words[shared:]) for words in parts]


@dataclass(frozen=True)
class RuntimeEvaluation:
    """A runtime on the pictures; differences are from the reference, by picture."""

    auc: float
    auc_difference: float
    max_difference: float
    mean_difference: float
    changed: tuple[DecisionChange, ...]


@dataclass(frozen=True)
class ParityEvaluation:
    """The number of pictures, and a result for each runtime in the order given."""

    real: int
    fake: int
    refused: int
    results: tuple[RuntimeEvaluation, ...]


def evaluate(
    runtimes: Sequence[Runtime], manifest: Manifest, pictures: Sequence[LabelledPicture]
) -> ParityEvaluation:
    """Run every picture on every runtime; ``runtimes[0]`` is the reference.

    A picture is read and decoded once for all runtimes.
    """
    logits: list[list[float]] = [[] for _ in runtimes]
    is_fake: list[bool] = []
    for picture in pictures:
        try:
            prepared = prepare(picture.path.read_bytes(), manifest.preprocess, Limits())
        except ImageError:
            continue
        is_fake.append(picture.is_fake)
        for runtime, logit_N in zip(runtimes, logits, strict=True):
            try:
                logit_N.append(float(infer_all(runtime, prepared.image_NHWC).mean()))
            except RuntimeFailure as error:
                raise BundleError(f"{runtime.name} on {picture.path}: {error}") from error
    if not _both_classes(is_fake):
        raise BundleError("no real or no fake picture could be read: name other pictures")
    reference_auc = _auc(logits[0], is_fake)
    return ParityEvaluation(
        real=is_fake.count(False),
        fake=is_fake.count(True),
        refused=len(pictures) - len(is_fake),
        results=tuple(
            _result(manifest, logit_N, logits[0], is_fake, reference_auc) for logit_N in logits
        ),
    )


def check_auc_loss(
    name: str, evaluation: ParityEvaluation, result: RuntimeEvaluation, auc_loss_max: float
) -> None:
    """Raise ``BundleError`` if a result lost more AUC than allowed; ``name`` is what was run."""
    if -result.auc_difference > auc_loss_max:
        raise BundleError(
            f"{name} has an AUC of {result.auc:.4f}, the model {evaluation.results[0].auc:.4f}, on "
            f"{evaluation.real} real and {evaluation.fake} fake pictures: it loses more than "
            f"{auc_loss_max:.4f}. Choose another precision, calibrate on other or more pictures, "
            "or allow it with --auc-loss-max"
        )


def _result(
    manifest: Manifest,
    logit_N: list[float],
    reference_N: list[float],
    is_fake: list[bool],
    reference_auc: float,
) -> RuntimeEvaluation:
    result_auc = _auc(logit_N, is_fake)
    differences = [abs(a - b) for a, b in zip(logit_N, reference_N, strict=True)]
    return RuntimeEvaluation(
        auc=result_auc,
        auc_difference=result_auc - reference_auc,
        max_difference=max(differences),
        mean_difference=sum(differences) / len(differences),
        changed=decisions_changed(manifest, logit_N, reference_N),
    )


def _auc(logit_N: list[float], is_fake: list[bool]) -> float:
    real = [logit for logit, fake in zip(logit_N, is_fake, strict=True) if not fake]
    fake = [logit for logit, fake in zip(logit_N, is_fake, strict=True) if fake]
    return auc(real, fake)
