"""Can the class be told without looking at the picture? Each shortcut, alone, in a small model.

In: the pictures of a split. Out: a ``Probe`` for each shortcut, on the native files and on the
aligned crops. Errors: ``EvaluationError`` where a class has too few images.

A probe is a logistic regression of the shortcut's numbers, of their squares and of the values that
recur (a fake may be 512 px wide, neither more nor less), cross-validated: five folds, repeated with
other folds, so that the figure hangs little on one division. Both classes weigh the same: 0.5 is chance. The folds
are random: a probe may thus learn single sources, which makes it the stronger.

On *native* files a probe says what a careless detector could learn. On *aligned* crops nothing of
a file's format should be left: where a probe passes the limit there, the figures of the detector
on this set say nothing, and the run is void.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

from engines.bundle.manifest import PreprocessSpec
from trainer.data.dataset import Picture
from trainer.evaluation.errors import EvaluationError
from trainer.evaluation.families import resized_crops
from trainer.evaluation.shortcuts import Traits, aligned_traits, native_traits

_FOLDS, _REPEATS, _SEED = 5, 4, 0
_RECURS = 0.05  # the least share of images that makes a value one of its own
Features = NDArray[np.float64]


def _column(read: Callable[[Traits], float], traits: Sequence[Traits]) -> Features:
    return np.array([[read(one)] for one in traits])


def _dimensions(traits: Sequence[Traits]) -> Features:
    return np.array([[one.width_px, one.height_px] for one in traits], dtype=np.float64)


def _formats(traits: Sequence[Traits]) -> Features:
    known = sorted({one.mime for one in traits})
    return np.array([[float(one.mime == name) for name in known] for one in traits])


def _quantisation(traits: Sequence[Traits]) -> Features:
    return np.array([one.quantisation for one in traits], dtype=np.float64)


def _blockiness(traits: Sequence[Traits]) -> Features:
    return np.array([one.blockiness for one in traits], dtype=np.float64)


SHORTCUTS: Final[Mapping[str, Callable[[Sequence[Traits]], Features]]] = MappingProxyType(
    {
        "file size": partial(_column, lambda one: np.log(one.size_bytes)),
        "bytes per pixel": partial(
            _column, lambda one: np.log(one.size_bytes / (one.width_px * one.height_px))
        ),
        "dimensions": _dimensions,
        "aspect": partial(_column, lambda one: one.width_px / one.height_px),
        "format": _formats,
        "JPEG quantisation": _quantisation,
        "blockiness": _blockiness,
    }
)


@dataclass(frozen=True)
class Probe:
    """How well one shortcut tells the classes apart.

    Attributes:
        shortcut: one of ``SHORTCUTS``.
        condition: "native" (the file) or "aligned" (the crop after the common JPEG).
        balanced_accuracy: the mean over folds and repeats.
        low: the lowest of the repeats' means.
        high: the highest.
        n: images.
        constant: every image has the same value: there is nothing to learn, and 0.5 by definition.
    """

    shortcut: str
    condition: str
    balanced_accuracy: float
    low: float
    high: float
    n: int
    constant: bool


def probe_all(pictures: Sequence[Picture], spec: PreprocessSpec) -> tuple[Probe, ...]:
    """Every shortcut on the files as they are, then on the aligned crops."""
    label_N = np.array([one.source.label for one in pictures])
    if min((label_N == 0).sum(), (label_N == 1).sum()) < _FOLDS:
        raise EvaluationError(
            f"the shortcut probes need {_FOLDS} real and {_FOLDS} generated images at least: add "
            "images to the split"
        )
    native = [native_traits(one) for one in pictures]
    aligned = [aligned_traits(resized_crops(one.pixels_HWC, spec)) for one in pictures]
    return tuple(
        _probe(name, condition, features(traits), label_N)
        for condition, traits in (("native", native), ("aligned", aligned))
        for name, features in SHORTCUTS.items()
    )


def void(probes: Sequence[Probe], limit: float) -> list[Probe]:
    """The probes on the aligned set that pass the limit: any of them makes the run void."""
    return [one for one in probes if one.condition == "aligned" and one.balanced_accuracy > limit]


def _probe(name: str, condition: str, feature_NF: Features, label_N: NDArray[np.int64]) -> Probe:
    varying_NF = feature_NF[:, np.ptp(feature_NF, axis=0) > 0]
    if varying_NF.shape[1] == 0:
        return Probe(name, condition, 0.5, 0.5, 0.5, len(label_N), constant=True)
    design_NF = _design(varying_NF)
    folds = RepeatedStratifiedKFold(n_splits=_FOLDS, n_repeats=_REPEATS, random_state=_SEED)
    scores = []
    for train, test in folds.split(design_NF, label_N):
        model = LogisticRegression(class_weight="balanced", solver="newton-cholesky")
        model.fit(design_NF[train], label_N[train])
        scores.append(balanced_accuracy_score(label_N[test], model.predict(design_NF[test])))
    by_repeat = np.reshape(scores, (_REPEATS, _FOLDS)).mean(axis=1)
    return Probe(
        shortcut=name,
        condition=condition,
        balanced_accuracy=float(by_repeat.mean()),
        low=float(by_repeat.min()),
        high=float(by_repeat.max()),
        n=len(label_N),
        constant=False,
    )


def _design(feature_NF: Features) -> Features:
    """The numbers, scaled, their squares, and a column for every value that recurs.

    Of all images at once: neither a scale nor a list of values knows the labels.
    """
    design = make_union(
        make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False)),
        OneHotEncoder(
            min_frequency=_RECURS, handle_unknown="infrequent_if_exist", sparse_output=False
        ),
    )
    design_NF: Features = design.fit_transform(feature_NF)
    return design_NF
