"""Shortcut probes: does a property such as file size reveal the class?

A probe is a logistic regression on the numbers of one shortcut, their squares, and values that
recur (all fakes may be 512 px wide). It is cross-validated in five folds, which
are repeated with other folds, so that the figure depends little on one division. Both classes
weigh the same: 0.5 is chance. The folds are random, so a probe may learn single sources, which
makes it the stronger.

On *native* files a probe says what a careless detector could learn. On *aligned* crops nothing of
a file's format should be left. Where the whole interval of a probe is over the limit there, the
figures of any detector on this set say little of forgery: the evaluation is *void*. No detector
is needed, so that ``data check`` can say so before anything is trained.

Source of the interval: Newcombe 1998 (square and add), of Wilson's interval for each class.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

from engines.bundle.manifest import PreprocessSpec
from trainer.data.dataset import Picture
from trainer.evaluation.calibration import wilson_interval
from trainer.evaluation.scoring import ALIGNMENT, resized_crops

# Of each class. Of 300 simulated draws of classes that do not differ, none is void at 20 + 20
# pictures, and two are at 10 + 10; a test repeats the former.
MIN_PICTURES: Final = 20
_FOLDS, _REPEATS, _SEED = 5, 4, 0
_RECURS = 0.05  # the smallest share of images that makes a value one of its own
_GRID_PX = 8
_LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, as JPEG has it
_SMALLEST_STEP = 1e-3  # grey levels: two flat pictures have no ratio
Features = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Traits:
    """What a file tells before anybody looks at the picture.

    Attributes:
        size_bytes: of the file; of crops, the mean size of their JPEGs.
        width_px: of the picture, or of a crop.
        height_px: the same.
        mime: the format.
        quantisation: log of the mean entry of the two tables of a JPEG; 0 where there is none.
        blockiness: log of how much larger differences across a grid of 8 px are than others: of
            the grid that begins at the corner, and of the strongest grid, wherever it begins.
    """

    size_bytes: float
    width_px: int
    height_px: int
    mime: str
    quantisation: tuple[float, float]
    blockiness: tuple[float, float]


@dataclass(frozen=True)
class Probe:
    """How well one shortcut tells the classes apart.

    Attributes:
        shortcut: a name of ``shortcuts``.
        condition: "native" (the file) or "aligned" (the crop after the common JPEG).
        balanced_accuracy: the mean over folds and repeats.
        low: the lower end of its 95 % interval.
        high: the upper end.
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


def shortcuts(traits: Sequence[Traits]) -> dict[str, Features]:
    """The numbers [images, numbers] of every shortcut, by its name."""
    size_N, width_N, height_N = np.array(
        [(each.size_bytes, each.width_px, each.height_px) for each in traits], dtype=np.float64
    ).T
    mime_N = np.array([each.mime for each in traits])
    numbers: dict[str, Sequence[NDArray[np.generic]]] = {
        "file size": [np.log(size_N)],
        "bytes per pixel": [np.log(size_N / (width_N * height_N))],
        "dimensions": [width_N, height_N],
        "aspect": [width_N / height_N],
        "format": [mime_N == name for name in np.unique(mime_N)],
        "JPEG quantisation": list(np.array([each.quantisation for each in traits]).T),
        "blockiness": list(np.array([each.blockiness for each in traits]).T),
    }
    return {name: np.column_stack(columns).astype(float) for name, columns in numbers.items()}


def too_few(pictures: Sequence[Picture]) -> str | None:
    """Why no probe can judge these pictures, and what to do; None where they are enough."""
    n_fake = sum(picture.source.label for picture in pictures)
    n_real = len(pictures) - n_fake
    if min(n_real, n_fake) >= MIN_PICTURES:
        return None
    return (
        f"{n_real} real and {n_fake} generated pictures are too few to tell whether shortcuts give "
        f"the class away: add pictures until there are {MIN_PICTURES} of each"
    )


def probe_all(pictures: Sequence[Picture], spec: PreprocessSpec) -> tuple[Probe, ...]:
    """Every shortcut on the files as they are, then on the aligned crops.

    Args:
        pictures: of both classes, with their files.
        spec: how a worker crops.

    Returns:
        A probe for each shortcut and condition; none where ``too_few`` says so.
    """
    if too_few(pictures):
        return ()
    label_N = np.array([picture.source.label for picture in pictures])
    native = [native_traits(picture) for picture in pictures]
    aligned = [aligned_traits(resized_crops(one.pixels_HWC, spec)) for one in pictures]
    return tuple(
        probe(name, condition, feature_NF, label_N)
        for condition, traits in (("native", native), ("aligned", aligned))
        for name, feature_NF in shortcuts(traits).items()
    )


def void(probes: Sequence[Probe], limit: float) -> list[Probe]:
    """The probes on the aligned set whose whole interval is over the limit.

    Any of them makes an evaluation void.
    """
    return [probe for probe in probes if probe.condition == "aligned" and probe.low > limit]


def probe(name: str, condition: str, feature_NF: Features, label_N: Labels) -> Probe:
    """How well some numbers of each image tell its class.

    Args:
        name: of the shortcut.
        condition: "native" or "aligned".
        feature_NF: the shortcut's numbers [images, numbers].
        label_N: 0 real, 1 generated; both classes occur.
    """
    varying_NF = feature_NF[:, np.ptp(feature_NF, axis=0) > 0]
    if varying_NF.shape[1] == 0:
        return Probe(name, condition, 0.5, 0.5, 0.5, len(label_N), constant=True)
    design_NF = _design(varying_NF)
    folds = RepeatedStratifiedKFold(n_splits=_FOLDS, n_repeats=_REPEATS, random_state=_SEED)
    right_N = np.zeros(len(label_N))  # the number of repeats that classify each image correctly
    by_fold = []
    for train, test in folds.split(design_NF, label_N):
        model = LogisticRegression(class_weight="balanced", solver="newton-cholesky")
        right = (
            model.fit(design_NF[train], label_N[train]).predict(design_NF[test]) == label_N[test]
        )
        right_N[test] += right
        by_fold.append(np.mean([right[label_N[test] == label].mean() for label in (0, 1)]))
    low, high = _interval([right_N[label_N == label] / _REPEATS for label in (0, 1)])
    mean = float(np.mean(by_fold))
    return Probe(name, condition, mean, low, high, len(label_N), constant=False)


def _interval(right_by_class: Sequence[Features]) -> tuple[float, float]:
    """The 95 % interval of the balanced accuracy, from the share of repeats that tell each image.

    The repeats judge the same images again, so that an image counts once.
    """
    shares = np.array([right_N.mean() for right_N in right_by_class])
    ends = np.array([wilson_interval(round(each.sum()), len(each)) for each in right_by_class])
    middle = float(shares.mean())
    below, above = np.abs(shares[:, None] - ends).T
    low = middle - float(np.hypot(*below)) / 2
    return max(0.0, low), min(1.0, middle + float(np.hypot(*above)) / 2)


def _design(feature_NF: Features) -> Features:
    """The numbers, scaled, their squares, and a column for every value that recurs.

    It is made of all images at once: neither a scale nor a list of values depends on the labels.
    """
    design = make_union(
        make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False)),
        OneHotEncoder(
            min_frequency=_RECURS, handle_unknown="infrequent_if_exist", sparse_output=False
        ),
    )
    design_NF: Features = design.fit_transform(feature_NF)
    return design_NF


def native_traits(picture: Picture) -> Traits:
    """The traits of a file as it came."""
    data = picture.source.read()
    with Image.open(io.BytesIO(data)) as image:
        return Traits(
            size_bytes=len(data),
            width_px=image.width,
            height_px=image.height,
            mime=image.get_format_mimetype() or "unknown",
            quantisation=_quantisation(image),
            blockiness=blockiness(picture.pixels_HWC),
        )


def aligned_traits(image_NHWC: NDArray[np.uint8]) -> Traits:
    """The traits of a picture's crops [N, S, S, 3] after the common JPEG."""
    encoded = [_encoded(Image.fromarray(crop_HWC)) for crop_HWC in image_NHWC]
    decoded = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in encoded]
    first, second = np.mean([blockiness(crop_HWC) for crop_HWC in decoded], axis=0)
    with Image.open(io.BytesIO(encoded[0])) as image:
        return Traits(
            size_bytes=float(np.mean([len(data) for data in encoded])),
            width_px=image.width,
            height_px=image.height,
            mime="image/jpeg",
            quantisation=_quantisation(image),
            blockiness=(float(first), float(second)),
        )


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=ALIGNMENT.quality, subsampling=ALIGNMENT.subsampling)
    return buffer.getvalue()


def _quantisation(image: Image.Image) -> tuple[float, float]:
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return 0.0, 0.0
    means = [float(np.log(np.mean(table))) for table in image.quantization.values()]
    return means[0], means[1] if len(means) > 1 else means[0]


def blockiness(pixels_HWC: NDArray[np.uint8]) -> tuple[float, float]:
    """How strongly a grid of 8 px shows: of the grid at the corner, and of the strongest."""
    luma_HW = pixels_HWC.astype(np.float64) @ np.array(_LUMA_WEIGHTS)
    by_phase = np.zeros(_GRID_PX)
    strongest = 0.0
    for turned in (luma_HW, luma_HW.T):
        step_W = np.abs(np.diff(turned, axis=1)).mean(axis=0) + _SMALLEST_STEP
        if len(step_W) < _GRID_PX:
            continue
        phases = np.log([step_W[phase::_GRID_PX].mean() for phase in range(_GRID_PX)])
        phases -= np.median(phases)
        by_phase += phases / 2
        strongest += phases.max() / 2
    return float(by_phase[_GRID_PX - 1]), float(strongest)
