"""Pairs without their difference in softness: equal spectra, nothing sharpened, lattices kept."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tests.support.photographs import photograph_px
from trainer.data.spectrum import share_softness


def blurred(pixels_HWC: NDArray[np.uint8], sigma_px: float) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels_HWC).filter(ImageFilter.GaussianBlur(sigma_px)))


def detail(pixels_HWC: NDArray[np.uint8]) -> float:
    """The mean difference between neighbours."""
    return float(np.abs(np.diff(pixels_HWC.astype(np.float32), axis=1)).mean())


def test_a_photograph_becomes_as_soft_as_its_blurred_twin() -> None:
    """Either way round; the softer one stays as it was, but for rounding."""
    sharp = photograph_px(128)
    soft = blurred(sharp, 1.5)
    assert detail(soft) < 0.7 * detail(sharp)
    for real, fake in ((sharp, soft), (soft, sharp)):
        one, two = share_softness(real, fake)
        assert abs(detail(one) - detail(two)) < 0.1 * detail(soft)
        assert abs(detail(one) - detail(soft)) < 0.15 * detail(soft)


def test_equals_are_left_alone() -> None:
    """The same picture twice comes back within a level."""
    pixels = photograph_px(96)
    for found in share_softness(pixels, pixels):
        assert np.abs(found.astype(int) - pixels).max() <= 1


def test_a_lattice_is_kept() -> None:
    """A grid of two pixels is no matter of softness: its peak stands out as before."""
    real = photograph_px(128)
    grid = np.where(np.arange(128)[None, :, None] % 2, 8, -8)
    fake = np.clip(blurred(real, 1.0).astype(int) + grid, 0, 255).astype(np.uint8)

    def peak(pixels_HWC: NDArray[np.uint8]) -> float:
        power = np.abs(np.fft.fft(pixels_HWC.astype(float).mean(axis=2), axis=1)).mean(axis=0)
        return float(power[64] / np.median(power[56:64]))

    _, found = share_softness(real, fake)
    assert peak(found) > 0.5 * peak(fake) > 5 * peak(real)


def test_sizes_may_be_odd() -> None:
    """Both come back as large as they were."""
    pixels = photograph_px(96)[:77, :91]
    assert [one.shape for one in share_softness(pixels, pixels)] == [(77, 91, 3)] * 2
