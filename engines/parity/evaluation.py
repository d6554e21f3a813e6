"""Several runtimes of one bundle on the same labelled pictures.

In: open runtimes, pictures. Out: for each its AUC, and how it differs from the first. Errors:
``BundleError``, where too few pictures can be read or a runtime fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engines.agreement import infer_all
from engines.manifest import BundleError, Manifest
from engines.parity.changes import Changed, decisions_changed
from engines.parity.pictures import Labelled, auc
from engines.preprocess import ImageError, Limits, prepare
from engines.runtime import Runtime, RuntimeFailure


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
