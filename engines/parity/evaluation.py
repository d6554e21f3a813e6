"""Several runtimes of one bundle on the same labelled pictures.

In: open runtimes, pictures. Out: for each its AUC, and how it differs from the first. Errors:
``BundleError``, where too few pictures can be read or a runtime fails.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile, zip_longest
from pathlib import Path
from typing import Final, Literal

from engines.bundle.golden import infer_all
from engines.bundle.manifest import BundleError, Manifest
from engines.preprocess import ImageError, Limits, prepare
from engines.runtime import Runtime, RuntimeFailure

# What a precision below the model's may cost on the evaluation set.
AUC_LOSS_MAX: Final = 0.005


@dataclass(frozen=True)
class Labelled:
    """A picture whose truth is known from its folder."""

    path: Path
    is_fake: bool


@dataclass(frozen=True)
class Judge:
    """By what a precision is judged beside the model.

    Attributes:
        pictures: labelled; those that calibration used are left out.
        auc_loss_max: a precision may have this much less AUC.
    """

    pictures: Sequence[Labelled]
    auc_loss_max: float = AUC_LOSS_MAX


def labelled(directory: Path, per_folder: int | None = None) -> tuple[Labelled, ...]:
    """The pictures of ``real/NAME/*`` and ``fake/NAME/*``, at most ``per_folder`` of each folder."""
    found = tuple(
        Labelled(path, is_fake)
        for kind, is_fake in (("real", False), ("fake", True))
        for folder in _folders(directory / kind)
        for path in _shuffled(folder)[:per_folder]
    )
    if len({one.is_fake for one in found}) != 2:  # noqa: PLR2004  real and fake
        raise BundleError(
            f"{directory} has no pictures to evaluate on: it needs folders real/NAME and fake/NAME"
        )
    return found


def spread(directory: Path, count: int) -> tuple[Path, ...]:
    """At most ``count`` files from below the directory, as many from each folder as can be."""
    if not directory.is_dir():
        raise BundleError(f"{directory} is not a directory: name one that holds pictures")
    folders = [directory, *sorted(path for path in directory.rglob("*") if path.is_dir())]
    turns = zip_longest(*(_shuffled(folder) for folder in folders))
    found = [path for path in chain.from_iterable(turns) if path is not None]
    if not found:
        raise BundleError(f"{directory} holds no files: name a directory of pictures")
    return tuple(found[:count])


def auc(real: Iterable[float], fake: Iterable[float]) -> float:
    """P(a fake's score > a real's), ties counting half: the area under the ROC curve."""
    reals, fakes = sorted(real), list(fake)
    wins = sum((bisect_left(reals, one) + bisect_right(reals, one)) / 2 for one in fakes)
    return wins / (len(reals) * len(fakes))


def _folders(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        yield from sorted(path for path in directory.iterdir() if path.is_dir())


def _shuffled(folder: Path) -> list[Path]:
    """A folder's files in an order that has nothing to do with their content."""
    files = (path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    return sorted(files, key=lambda path: hashlib.sha256(path.name.encode()).digest())


@dataclass(frozen=True)
class Changed:
    """How many of ``of`` inputs fall on the other side of one threshold."""

    threshold_set: str
    band: Literal["review", "block"]
    threshold: float
    changed: int
    of: int

    @property
    def share(self) -> float:
        """In 0..1."""
        return self.changed / self.of


def decisions_changed(
    manifest: Manifest, logit_N: Sequence[float], reference_N: Sequence[float]
) -> tuple[Changed, ...]:
    """The decisions that change, at both thresholds of each threshold set."""
    scores = [
        (manifest.score(one), manifest.score(reference))
        for one, reference in zip(logit_N, reference_N, strict=True)
    ]
    bands: tuple[Literal["review", "block"], ...] = ("review", "block")
    return tuple(
        Changed(
            threshold_set.id,
            band,
            at,
            sum((one >= at) != (reference >= at) for one, reference in scores),
            len(scores),
        )
        for threshold_set in manifest.threshold_sets
        for band in bands
        for at in [getattr(threshold_set, band).threshold]
    )


def by_set(changed: Sequence[Changed]) -> list[str]:
    """``few-alarms 7, 4 of 634``: at review, at block; a set is named where there are several."""
    names = list(dict.fromkeys(one.threshold_set for one in changed))
    told = []
    for name, short in zip(names, _without_what_all_begin_with(names), strict=True):
        found = [one for one in changed if one.threshold_set == name]
        counts = ", ".join(str(one.changed) for one in found)
        told.append(f"{short + ' ' if len(names) > 1 else ''}{counts} of {found[0].of}")
    return told


def _without_what_all_begin_with(names: Sequence[str]) -> list[str]:
    """``default`` and ``few-alarms`` of ``mine-1.0-default`` and ``mine-1.0-few-alarms``."""
    parts = [name.split("-") for name in names]
    shared = len(list(takewhile(lambda same: len(set(same)) == 1, zip(*parts, strict=False))))
    shared = min([shared, *(len(one) - 1 for one in parts)])
    return ["-".join(one[shared:]) for one in parts]


@dataclass(frozen=True)
class Evaluated:
    """One runtime on the pictures; differences are from the reference, by the picture's logit."""

    auc: float
    auc_difference: float
    max_difference: float
    mean_difference: float
    changed: tuple[Changed, ...]


@dataclass(frozen=True)
class Evaluation:
    """What was evaluated on, and a result for each runtime, in the order given."""

    real: int
    fake: int
    refused: int
    results: tuple[Evaluated, ...]


def evaluate(
    runtimes: Sequence[Runtime], manifest: Manifest, pictures: Sequence[Labelled]
) -> Evaluation:
    """Evaluate each; ``runtimes[0]`` is the reference. A picture is read and decoded once for all."""
    logits: list[list[float]] = [[] for _ in runtimes]
    is_fake: list[bool] = []
    for picture in pictures:
        try:
            image_NHWC = prepare(
                picture.path.read_bytes(), manifest.preprocess, Limits()
            ).image_NHWC
        except ImageError:
            continue
        is_fake.append(picture.is_fake)
        for runtime, found in zip(runtimes, logits, strict=True):
            try:
                found.append(float(infer_all(runtime, image_NHWC).mean()))
            except RuntimeFailure as error:
                raise BundleError(f"{runtime.name} on {picture.path}: {error}") from error
    if len(set(is_fake)) != 2:  # noqa: PLR2004  real and fake
        raise BundleError("of real or of fake pictures none could be read: name other pictures")
    reference_auc = _auc(logits[0], is_fake)
    return Evaluation(
        real=is_fake.count(False),
        fake=is_fake.count(True),
        refused=len(pictures) - len(is_fake),
        results=tuple(_result(manifest, one, logits[0], is_fake, reference_auc) for one in logits),
    )


def refuse_loss(what: str, evaluation: Evaluation, one: Evaluated, auc_loss_max: float) -> None:
    """Raises ``BundleError`` where a result has lost more AUC than that; ``what`` is its name."""
    if -one.auc_difference > auc_loss_max:
        raise BundleError(
            f"{what} has an AUC of {one.auc:.4f}, the model {evaluation.results[0].auc:.4f}, on "
            f"{evaluation.real} real and {evaluation.fake} fake pictures: it loses more than "
            f"{auc_loss_max:.4f}. Ask for another precision, calibrate on other or more pictures, "
            "or allow it by --auc-loss-max"
        )


def _result(
    manifest: Manifest,
    logit_N: list[float],
    reference_N: list[float],
    is_fake: list[bool],
    reference_auc: float,
) -> Evaluated:
    found = _auc(logit_N, is_fake)
    differences = [abs(a - b) for a, b in zip(logit_N, reference_N, strict=True)]
    return Evaluated(
        auc=found,
        auc_difference=found - reference_auc,
        max_difference=max(differences),
        mean_difference=sum(differences) / len(differences),
        changed=decisions_changed(manifest, logit_N, reference_N),
    )


def _auc(logit_N: list[float], is_fake: list[bool]) -> float:
    real = [logit for logit, fake in zip(logit_N, is_fake, strict=True) if not fake]
    fake = [logit for logit, fake in zip(logit_N, is_fake, strict=True) if fake]
    return auc(real, fake)
