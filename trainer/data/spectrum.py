"""Takes from a pair the difference in softness, so that what is left to learn is not blur.

In: a photograph's region and its regeneration. Out: both, with one radial power spectrum. No errors.

Regenerators draw softly, and a detector of pairs learns that what is soft is generated: photographs
out of focus were then flagged (docs/concepts/reference-detector.md). Here each of the two is attenuated, frequency by
frequency, to the weaker of both. Neither is ever sharpened, and whatever is not a matter of
distance from the spectrum's centre stays: lattices of upsampling, directions, phases.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft  # type: ignore[import-untyped]  # ships no types

_BINS: Final = 48  # of radial frequency, from 0 to that of the spectrum's corners
_KEPT: Final = 2  # the lowest bins hold brightness and layout, which a pair shares
_MARGIN_PX: Final = 16  # reflected around a picture: a Fourier transform joins opposite edges
_LUMA_3: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def share_softness(
    real_HWC: NDArray[np.uint8], fake_HWC: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Both pictures, uint8 [H, W, 3] of one size, attenuated to the weaker at each frequency."""
    spectra = [_spectrum(one) for one in (real_HWC, fake_HWC)]
    radius_HW = _radius(real_HWC.shape[0], real_HWC.shape[1])
    power_real, power_fake = (_radial_power(one, radius_HW) for one in spectra)
    weaker = np.minimum(power_real, power_fake)
    real = _filtered(spectra[0], weaker / power_real, radius_HW, real_HWC.shape)
    fake = _filtered(spectra[1], weaker / power_fake, radius_HW, fake_HWC.shape)
    return real, fake


def _spectrum(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.complex64]:
    around = [(_MARGIN_PX, _MARGIN_PX), (_MARGIN_PX, _MARGIN_PX), (0, 0)]
    padded_HWC = np.pad(pixels_HWC.astype(np.float32), around, mode="reflect")
    found: NDArray[np.complex64] = fft.rfft2(padded_HWC, axes=(0, 1))
    return found


def _radius(height_px: int, width_px: int) -> NDArray[np.float32]:
    """The radial bin, with its fraction, of every place of a spectrum."""
    y = np.fft.fftfreq(height_px + 2 * _MARGIN_PX)[:, None]
    x = np.fft.rfftfreq(width_px + 2 * _MARGIN_PX)[None, :]
    found: NDArray[np.float32] = (np.hypot(y, x) / np.hypot(0.5, 0.5) * (_BINS - 1)).astype(
        np.float32
    )
    return found


def _radial_power(
    spectrum_HWC: NDArray[np.complex64], radius_HW: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Median power of the luma in each bin, which the peaks of a lattice do not move; never zero."""
    power = (np.abs(spectrum_HWC @ _LUMA_3) ** 2).ravel()
    bins = np.rint(radius_HW).astype(int).ravel()
    order = np.argsort(bins, kind="stable")
    ends = np.cumsum(np.bincount(bins, minlength=_BINS))[:-1]
    medians = [np.median(part) for part in np.split(power[order], ends)]
    found: NDArray[np.float64] = np.array(medians, dtype=np.float64) + 1e-6
    return found


def _filtered(
    spectrum_HWC: NDArray[np.complex64],
    share: NDArray[np.float64],
    radius_HW: NDArray[np.float32],
    shape: tuple[int, ...],
) -> NDArray[np.uint8]:
    gain = np.sqrt(share)
    gain[:_KEPT] = 1.0
    gain_HW = np.interp(radius_HW, np.arange(_BINS), gain).astype(np.float32)
    padded = (shape[0] + 2 * _MARGIN_PX, shape[1] + 2 * _MARGIN_PX)
    pixels_HWC = fft.irfft2(spectrum_HWC * gain_HW[..., None], s=padded, axes=(0, 1))
    inner_HWC = pixels_HWC[_MARGIN_PX : _MARGIN_PX + shape[0], _MARGIN_PX : _MARGIN_PX + shape[1]]
    found: NDArray[np.uint8] = np.clip(np.rint(inner_HWC), 0, 255).astype(np.uint8)
    return found
