"""Which crops make up a training step.

Every draw is a function of (seed, step): a run that was killed and resumed draws what it would have
drawn. Half of a batch is real. Folders are drawn by the square root of their size, so that a large
one does not drown the others. The first crops of a batch have targets; their draws may recur, so
that an expensive teacher computes each target once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.config import AugmentConfig, Config
from trainer.data.augment import augmented_crop
from trainer.data.dataset import Picture
from trainer.data.pairs import Pair, share_softness
from trainer.detector import HALO_PX, Windows

_TARGET_STREAM, _PLAIN_STREAM = 1, 2
_WINDOW_STEP_PX = 8  # windows begin on a multiple, as shallow features do


@dataclass(frozen=True)
class Batch:
    """A step's crops; those with targets come first."""

    image_NHWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    label_N: NDArray[np.float32]  # noqa: N815  the suffix is the tensor's shape
    windows: Windows | None

    def window_images(self) -> NDArray[np.uint8]:
        """Return the pixels [B, side, side, 3] whose noise the teacher computes."""
        if self.windows is None:
            raise ValueError("this batch has no targets")
        side = self.windows.side_px
        crops = zip(self.image_NHWC, self.windows.origin_px, strict=False)
        return np.stack([crop[top : top + side, left : left + side] for crop, (top, left) in crops])


@dataclass(frozen=True)
class _Crop:
    pixels_HWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    label: int
    seed: tuple[int, ...]


class Batches:
    """The batches of a run, by step."""

    def __init__(self, pictures: Sequence[Picture], pairs: Sequence[Pair], config: Config) -> None:
        self._config, self._pairs = config, _PairPool(pairs)
        self._real = _Pool([picture for picture in pictures if picture.source.label == 0])
        self._fake = _Pool([picture for picture in pictures if picture.source.label == 1])
        half = config.train.batch // 2
        crops = len(self._real.pictures) + len(self._fake.pictures) + 2 * self._pairs.photographs
        self.steps_per_epoch = max(1, crops // config.train.batch)
        # Drawn alike without a noise loss too: a plain control sees the very crops of its partner.
        self._recurring = round(half * config.teacher.share) * 2
        self.targets = self._recurring if config.loss.lambda_noise > 0 else 0
        self._target_period = (
            config.teacher.repeat_steps or self.steps_per_epoch * config.teacher.repeat_epochs
        )

    def at(self, step: int) -> Batch:
        """Return the batch of a step."""
        size = self._config.train.batch
        recurring = step % self._target_period if self._target_period else step
        crops = self._draw(self._recurring, _TARGET_STREAM, recurring)
        crops += self._draw(size - self._recurring, _PLAIN_STREAM, step)
        return self._batch(crops, recurring)

    def targets_of(self, step: int) -> Batch:
        """Return only those crops of a step that have targets."""
        recurring = step % self._target_period if self._target_period else step
        return self._batch(self._draw(self.targets, _TARGET_STREAM, recurring), recurring)

    def _batch(self, crops: Sequence[_Crop], recurring: int) -> Batch:
        side_px, augment = self._config.train.crop_px, self._config.augment
        return Batch(
            np.stack([_augmented(crop, side_px, augment) for crop in crops]),
            np.array([crop.label for crop in crops], dtype=np.float32),
            self._windows(recurring) if self.targets else None,
        )

    def _draw(self, count: int, stream: int, step: int) -> list[_Crop]:
        half = count // 2
        paired = round(half * self._config.train.paired_share) if self._pairs.photographs else 0
        crops: list[_Crop] = []
        for slot in range(half):
            seed = (self._config.seed, stream, step, slot)
            random = np.random.default_rng((*seed, 0))
            if slot < paired:
                # A pair shares its seed, and with it every later draw.
                pair = self._pairs.draw(random)
                real_HWC, fake_HWC = self._pair_pixels(pair, random)
                crops += [_Crop(real_HWC, 0, seed), _Crop(fake_HWC, 1, seed)]
            else:
                real, fake = self._real.draw(random), self._fake.draw(random)
                crops.append(_Crop(real.pixels_HWC, 0, (*seed, 1)))
                crops.append(_Crop(fake.pixels_HWC, 1, (*seed, 2)))
        return crops

    def _pair_pixels(
        self, pair: Pair, random: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The two pictures of a pair; for some pairs, without the difference in softness."""
        share = self._config.train.shared_softness_p
        if share and random.random() < share:
            return share_softness(pair.real_HWC, pair.fake_HWC)
        return pair.real_HWC, pair.fake_HWC

    def _windows(self, recurring: int) -> Windows:
        side_px, crop_px = self._config.window_px, self._config.train.crop_px
        random = np.random.default_rng((self._config.seed, _TARGET_STREAM, recurring))
        last = (crop_px - side_px) // _WINDOW_STEP_PX
        # Away from the border where there is room: the head then sees a halo around its window.
        first = 1 if crop_px - side_px >= 2 * _WINDOW_STEP_PX >= 2 * HALO_PX else 0
        cells = random.integers(first, max(first, last - first) + 1, size=(self.targets, 2))
        origins = tuple((int(y) * _WINDOW_STEP_PX, int(x) * _WINDOW_STEP_PX) for y, x in cells)
        return Windows(origins, side_px)


class _Pool:
    """Pictures of one class, drawn folder first."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.pictures = list(pictures)
        self._folders: dict[str, list[Picture]] = {}
        for picture in self.pictures:
            self._folders.setdefault(picture.source.folder, []).append(picture)
        self._names = sorted(self._folders)
        root_sizes = np.sqrt([len(self._folders[name]) for name in self._names])
        self._weights = root_sizes / root_sizes.sum()

    def draw(self, random: np.random.Generator) -> Picture:
        """One picture."""
        folder = self._folders[self._names[random.choice(len(self._names), p=self._weights)]]
        return folder[random.integers(len(folder))]


class _PairPool:
    """Pairs, drawn photograph first: one that many families regenerated counts once."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        photographs: dict[str, list[Pair]] = {}
        for pair in pairs:
            photographs.setdefault(pair.photograph_key, []).append(pair)
        self._families = list(photographs.values())
        self.photographs = len(self._families)

    def draw(self, random: np.random.Generator) -> Pair:
        """One photograph, with one of its regenerations."""
        families = self._families[random.integers(self.photographs)]
        return families[random.integers(len(families))]


def _augmented(crop: _Crop, side_px: int, config: AugmentConfig) -> NDArray[np.uint8]:
    random = np.random.default_rng((*crop.seed, 7))
    return augmented_crop(crop.pixels_HWC, side_px, config, random)
