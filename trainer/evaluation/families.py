"""How well a detector tells each generator's images from real ones.

In: logits of real and generated images. Out: ``FamilyResult`` for each generator, native and
format-aligned. No errors of its own.

Aligned: every picture of either class goes through one resize (its shorter side becomes that of the
square that the crops cover), the same crops and one JPEG (quality 96, 4:2:0), so that neither size
nor format is left to tell the class; docs/concepts/evaluation.md has what the shortcut probes find without
the resize. All figures are of raw logits, 0 being the threshold of ``accuracy_at_half``; no
threshold is chosen here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import crop_image
from trainer.data.augment import Jpeg
from trainer.data.dataset import Picture
from trainer.evaluation.errors import EvaluationError

Condition = Literal["native", "aligned"]
CONDITIONS: tuple[Condition, Condition] = ("native", "aligned")
ALIGNMENT = Jpeg(quality=96, subsampling="4:2:0")
_ALIGNING = Image.Resampling.LANCZOS
Change = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]  # whole pictures [H, W, 3]
Infer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # [N, S, S, 3] -> logits [N]


@dataclass(frozen=True)
class Scored:
    """The logits of a set of pictures: the mean over each one's crops."""

    pictures: tuple[Picture, ...]
    logit_N: NDArray[np.float32]  # noqa: N815  the suffix is the tensor's shape

    def of(self, label: int, folder: str | None = None) -> NDArray[np.float32]:
        """The logits of one class, or of one of its folders."""
        wanted = [
            one.source.label == label and folder in {None, one.source.folder}
            for one in self.pictures
        ]
        chosen: NDArray[np.float32] = self.logit_N[np.array(wanted, dtype=bool)]
        return chosen

    def within(self, pictures: Sequence[Picture]) -> "Scored":
        """What was found of some of the pictures, in their old order."""
        wanted = {id(one) for one in pictures}
        kept = [index for index, one in enumerate(self.pictures) if id(one) in wanted]
        return Scored(tuple(self.pictures[index] for index in kept), self.logit_N[kept])

    def folders(self, label: int) -> list[str]:
        """The folders of one class, by name."""
        return sorted({one.source.folder for one in self.pictures if one.source.label == label})


@dataclass(frozen=True)
class FamilyResult:
    """One generator against all the real images of the split."""

    generator: str
    condition: Condition
    n_fake: int
    n_real: int
    auc: float
    ap: float
    accuracy_at_half: float
    real_accuracy: float
    fake_accuracy: float


@dataclass(frozen=True)
class Report:
    """A split's results, with the mean over generators and the worst of them."""

    families: tuple[FamilyResult, ...]
    mean_auc: dict[str, float]  # by condition
    worst_auc: dict[str, float]
    worst_generator: dict[str, str]

    def as_json(self) -> dict[str, object]:
        """Plain values, for a file."""
        return asdict(self)


def score(
    infer: Infer,
    pictures: Sequence[Picture],
    spec: PreprocessSpec,
    condition: Condition,
    change: Change | None = None,
) -> Scored:
    """Crop as a worker would, infer, average over each picture's crops.

    Args:
        infer: uint8 crops [N, S, S, 3] -> logits [N].
        pictures: whole, in native pixels.
        spec: how a worker crops.
        condition: "aligned" puts every picture through one resize, the same crops and one JPEG.
        change: done to each whole picture before it is cropped.
    """
    logits = []
    for picture in pictures:
        pixels_HWC = change(picture.pixels_HWC) if change else picture.pixels_HWC
        if condition == "aligned":
            image_NHWC = np.stack([aligned(one) for one in resized_crops(pixels_HWC, spec)])
        else:
            image_NHWC = crop_image(pixels_HWC, spec)
        logits.append(infer(image_NHWC).mean())
    return Scored(tuple(pictures), np.array(logits, dtype=np.float32))


def resized_crops(pixels_HWC: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Crops [N, S, S, 3] of the picture at one size: the same share of every one.

    Four crops of 112 px and one of 224 px look at the same picture of 224 px, so that bundles whose
    crops differ can be compared.
    """
    image = Image.fromarray(pixels_HWC)
    factor = covered_px(spec) / min(image.size)
    size_px = (round(image.width * factor), round(image.height * factor))
    return crop_image(np.asarray(image.resize(size_px, _ALIGNING)), spec)


def covered_px(spec: PreprocessSpec) -> int:
    """The side of the largest square that the crops cover side by side."""
    return spec.crop_px * math.isqrt(spec.max_crops)


def aligned(crop_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A crop [S, S, 3] after the one JPEG that both classes pass."""
    return np.asarray(ALIGNMENT.apply(Image.fromarray(crop_HWC)))


def family_results(scored: Scored, condition: Condition) -> list[FamilyResult]:
    """Each generator against all real images; none where a class is missing."""
    real_N = scored.of(0)
    if real_N.size == 0:
        return []
    return [_family(name, condition, real_N, scored.of(1, name)) for name in scored.folders(1)]


def _family(
    name: str, condition: Condition, real_N: NDArray[np.float32], fake_N: NDArray[np.float32]
) -> FamilyResult:
    label_N = np.concatenate([np.zeros(len(real_N)), np.ones(len(fake_N))])
    logit_N = np.concatenate([real_N, fake_N])
    real_accuracy, fake_accuracy = float((real_N < 0).mean()), float((fake_N >= 0).mean())
    right = real_accuracy * len(real_N) + fake_accuracy * len(fake_N)
    return FamilyResult(
        generator=name,
        condition=condition,
        n_fake=len(fake_N),
        n_real=len(real_N),
        auc=float(roc_auc_score(label_N, logit_N)),
        ap=float(average_precision_score(label_N, logit_N)),
        accuracy_at_half=right / len(logit_N),
        real_accuracy=real_accuracy,
        fake_accuracy=fake_accuracy,
    )


def report(results: Sequence[FamilyResult]) -> Report:
    """Sum up: every family counts the same, however many images it has."""
    mean: dict[str, float] = {}
    worst: dict[str, float] = {}
    worst_name: dict[str, str] = {}
    for condition in CONDITIONS:
        of_condition = [one for one in results if one.condition == condition]
        if of_condition:
            lowest = min(of_condition, key=lambda one: one.auc)
            mean[condition] = float(np.mean([one.auc for one in of_condition]))
            worst[condition], worst_name[condition] = lowest.auc, lowest.generator
    return Report(tuple(results), mean, worst, worst_name)


def report_from_json(content: Mapping[str, object], path: Path) -> Report:
    """Read what ``Report.as_json`` wrote; ``path`` is for the message."""
    families = content.get("families")
    if not isinstance(families, list):
        raise EvaluationError(f"{path} lists no families: run evaluate again")
    return report([FamilyResult(**one) for one in families])


def evaluate(infer: Infer, pictures: Sequence[Picture], spec: PreprocessSpec) -> Report:
    """Native and aligned results of a split."""
    results: list[FamilyResult] = []
    for condition in CONDITIONS:
        results += family_results(score(infer, pictures, spec, condition), condition)
    return report(results)
