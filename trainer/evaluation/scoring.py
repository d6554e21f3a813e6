"""Pictures to logits: as they are, aligned, or changed as sites and phones change them.

*Aligned* removes size and format as clues to the class. Every picture of either class passes one
resize, the same crops and one JPEG (quality 96, 4:2:0). The resize brings the shorter side to the
square that the crops cover. ``docs/concepts/evaluation.md`` says what the shortcut probes find without it.

A *change* is applied to the whole picture before any crop is cut, to real and generated alike:

- ``jpegQ``, ``webpQ``: saved at quality Q (4:2:0, as most sites do) and read again.
- ``blurS``: a Gaussian of S px.
- ``resizeF``: both sides times F (bicubic). ``longerP``: the longer side becomes P px (Lanczos).
- ``marginM``: a share M is cut off every side, which shifts the 8-px grid of an earlier JPEG.
- ``a+b``: a, then b.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import crop_image
from trainer.config import OPERATION
from trainer.data.augment import Blur, Jpeg, Webp
from trainer.data.dataset import Picture
from trainer.errors import TrainerError

Condition = Literal["native", "aligned"]
CONDITIONS: tuple[Condition, Condition] = ("native", "aligned")
_SUBSAMPLING: Final = "4:2:0"
ALIGNMENT = Jpeg(quality=96, subsampling=_SUBSAMPLING)
_BLOCK_PX: Final = 8  # of JPEG
Logits = NDArray[np.float32]
Change = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]  # whole pictures [H, W, 3]
Infer = Callable[[NDArray[np.uint8]], Logits]  # crops [N, S, S, 3] -> logits [N]
_ImageChange = Callable[[Image.Image, float], Image.Image]


class EvaluationError(TrainerError):
    """An evaluation that cannot be done, or is void; the message says what to do."""


@dataclass(frozen=True)
class ScoredPictures:
    """The logits of a set of pictures: the mean over each picture's crops."""

    pictures: tuple[Picture, ...]
    logit_N: Logits  # noqa: N815  the suffix is the tensor's shape

    def of(self, label: int, folder: str | None = None) -> Logits:
        """The logits of a class, or of one of its folders."""
        wanted = [
            picture.source.label == label and folder in {None, picture.source.folder}
            for picture in self.pictures
        ]
        chosen: Logits = self.logit_N[np.array(wanted, dtype=bool)]
        return chosen

    def within(self, pictures: Sequence[Picture]) -> "ScoredPictures":
        """The logits of some of the pictures, in their old order."""
        wanted = {id(picture) for picture in pictures}
        kept = [index for index, picture in enumerate(self.pictures) if id(picture) in wanted]
        return ScoredPictures(tuple(self.pictures[index] for index in kept), self.logit_N[kept])

    def folders(self, label: int) -> list[str]:
        """The folders of a class, by name."""
        sources = [picture.source for picture in self.pictures]
        return sorted({source.folder for source in sources if source.label == label})


def score(
    infer: Infer,
    pictures: Sequence[Picture],
    spec: PreprocessSpec,
    condition: Condition,
    change: Change | None = None,
) -> ScoredPictures:
    """Crop as a worker does, infer, average over each picture's crops.

    Args:
        infer: uint8 crops [N, S, S, 3] -> logits [N].
        pictures: whole, in native pixels.
        spec: how a worker crops.
        condition: "aligned" puts every picture through one resize, the same crops and one JPEG.
        change: applied to each whole picture before it is cropped.
    """
    logits = []
    for picture in pictures:
        pixels_HWC = change(picture.pixels_HWC) if change else picture.pixels_HWC
        if condition == "aligned":
            crops = map(Image.fromarray, resized_crops(pixels_HWC, spec))
            image_NHWC = np.stack([np.asarray(ALIGNMENT.apply(crop)) for crop in crops])
        else:
            image_NHWC = crop_image(pixels_HWC, spec)
        logits.append(infer(image_NHWC).mean())
    return ScoredPictures(tuple(pictures), np.array(logits, dtype=np.float32))


def resized_crops(pixels_HWC: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Crops [N, S, S, 3] of the picture at one size: the same share of every picture.

    Four crops of 112 px and one of 224 px see the same picture of 224 px, so that bundles whose
    crops differ can be compared.
    """
    image = Image.fromarray(pixels_HWC)
    factor = covered_px(spec) / min(image.size)
    size_px = (round(image.width * factor), round(image.height * factor))
    return crop_image(np.asarray(image.resize(size_px, Image.Resampling.LANCZOS)), spec)


def covered_px(spec: PreprocessSpec) -> int:
    """The side of the largest square that the crops cover side by side."""
    return spec.crop_px * math.isqrt(spec.max_crops)


def change_of(name: str) -> Change:
    """The change with a name such as ``jpeg75+resize0.5``; the configuration has checked it."""
    steps: list[tuple[_ImageChange, float]] = []
    for step in name.split("+"):
        match = OPERATION.fullmatch(step)
        if match is None:
            raise ValueError(f"unknown change of a picture: {step!r}")
        steps.append((_CHANGES[match["name"]], float(match["value"])))

    def apply(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        image = Image.fromarray(pixels_HWC)
        for step, value in steps:
            image = step(image, value)
        return np.asarray(image)

    return apply


def _sized(image: Image.Image, factor: float, resampling: Image.Resampling) -> Image.Image:
    size_px = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.copy() if size_px == image.size else image.resize(size_px, resampling)


def _margin(image: Image.Image, share: float) -> Image.Image:
    # A cut of whole blocks would leave the grid where it was.
    cuts = [round(length * share) for length in image.size]
    left, top = (cut + 3 if cut % _BLOCK_PX == 0 else cut for cut in cuts)
    if image.width <= 2 * left or image.height <= 2 * top:
        return image
    return image.crop((left, top, image.width - left, image.height - top))


_CHANGES: Final[Mapping[str, _ImageChange]] = MappingProxyType(
    {
        "jpeg": lambda image, quality: Jpeg(round(quality), _SUBSAMPLING).apply(image),
        "webp": lambda image, quality: Webp(round(quality)).apply(image),
        "blur": lambda image, sigma_px: Blur(sigma_px).apply(image),
        "resize": lambda image, factor: _sized(image, factor, Image.Resampling.BICUBIC),
        "longer": lambda image, side_px: _sized(
            image, side_px / max(image.size), Image.Resampling.LANCZOS
        ),
        "margin": _margin,
    }
)


def split_out_of_domain(
    pictures: Sequence[Picture], patterns: Sequence[str]
) -> tuple[list[Picture], list[Picture]]:
    """Pictures to judge by, and real pictures of other kinds: drawings, screenshots, scans.

    Beside generated pictures the latter would tell kinds of picture apart, and not forgery. Only
    the share of them that is flagged is of use.

    Args:
        pictures: of a split.
        patterns: of the real folders that hold other kinds.

    Raises:
        EvaluationError: no other real picture is left.
    """
    rest: list[Picture] = []
    apart: list[Picture] = []
    for picture in pictures:
        other_kind = picture.source.label == 0 and matches(picture.source.folder, patterns)
        (apart if other_kind else rest).append(picture)
    if apart and not any(picture.source.label == 0 for picture in rest):
        raise EvaluationError(
            "evaluation.out_of_domain names every real folder of this split: leave photographs to "
            "compare generated pictures with"
        )
    return rest, apart


def matches(folder: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns matches the folder's name."""
    return any(fnmatchcase(folder, pattern) for pattern in patterns)
