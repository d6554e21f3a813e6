"""Content-matched pairs: a photograph's region beside a regeneration of it.

``python -m trainer fakes`` writes them: PNG files, and ``pairs.jsonl``, which says which belong
together. Errors: ``DataError`` for a set that is incomplete.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import fft  # type: ignore[import-untyped]  # scipy ships no types

from engines.preprocess import ImageError, Limits, decode_image
from trainer.data.manifest import read_lines
from trainer.errors import DataError

PAIRS = "pairs.jsonl"
_BINS: Final = 48  # of radial frequency, from 0 to that of the spectrum's corners
_KEPT: Final = 2  # the lowest bins hold brightness and layout, which a pair shares
_MARGIN_PX: Final = 16  # reflected around a picture: a Fourier transform joins opposite edges
_LUMA_3: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Pair:
    """A photograph's region and one regeneration of it, uint8 [H, W, 3] of one size."""

    photograph_key: str  # the photograph's ``Source.key``: real/FOLDER/FILE
    real_HWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    fake_HWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    family: str  # what regenerated it: taef2, srgan, ...


class PairLine(BaseModel):
    """A line of ``pairs.jsonl``; paths are relative to its folder."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    photograph: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # of the photograph's own file
    real: str
    fake: dict[str, str]  # by family


@dataclass(frozen=True)
class PairFiles:
    """One photograph's region and its regenerations, as files."""

    root: Path
    line: PairLine

    def digests(self) -> list[str]:
        """A line for each regeneration: the photograph, the family and the SHA-256 of both files."""
        real = _sha256(self.root / self.line.real)
        return [
            f"{self.line.photograph} {self.line.sha256} {real} {family} {_sha256(self.root / name)}"
            for family, name in sorted(self.line.fake.items())
        ]


def read_pair_files(roots: Sequence[Path], families: Sequence[str] = ()) -> list[PairFiles]:
    """Read which regenerations there are of which photographs.

    Args:
        roots: folders with a ``pairs.jsonl``.
        families: patterns of the families to read; empty is all. Each must occur in some folder.
    """
    advice = "name a folder that python -m trainer fakes wrote, whole"
    every = [
        PairFiles(root, line)
        for root in roots
        for line in read_lines(root / PAIRS, PairLine, advice)
    ]
    known = sorted({family for files in every for family in files.line.fake})
    for pattern in families:
        if every and not any(fnmatchcase(family, pattern) for family in known):
            raise DataError(
                f"pair_families: {', '.join(map(str, roots))} has no family {pattern!r}, but "
                f"{', '.join(known) or 'none'}"
            )
    kept = [_only(files, families) for files in every] if families else every
    return [files for files in kept if files.line.fake]


def _only(files: PairFiles, families: Sequence[str]) -> PairFiles:
    fake = {
        family: name
        for family, name in files.line.fake.items()
        if any(fnmatchcase(family, pattern) for pattern in families)
    }
    return PairFiles(files.root, files.line.model_copy(update={"fake": fake}))


def photographs_of(files: Iterable[PairFiles]) -> frozenset[str]:
    """Return the SHA-256 of each photograph; several regions of one photograph count once."""
    return frozenset(pair_files.line.sha256 for pair_files in files)


def load_pairs(
    files: Iterable[PairFiles], *, strict: bool, on_skip: Callable[[str, ImageError], None]
) -> list[Pair]:
    """Decode both pictures of every pair; a region's pixels are held once.

    Args:
        files: the pairs to decode.
        strict: whether a corrupt file stops the run.
        on_skip: called with each corrupt file, which is left out, and the reason.
    """
    pairs = []
    for region in files:
        real_HWC = _decoded(region.root / region.line.real, strict=strict, on_skip=on_skip)
        if real_HWC is None:
            continue
        for family, name in sorted(region.line.fake.items()):
            fake_HWC = _decoded(region.root / name, strict=strict, on_skip=on_skip)
            if fake_HWC is None:
                continue
            if fake_HWC.shape != real_HWC.shape:
                raise DataError(
                    f"{region.root / name} has {fake_HWC.shape[1]} x {fake_HWC.shape[0]} px, its "
                    f"photograph {region.line.real} has not: delete both and make them again"
                )
            pairs.append(Pair(region.line.photograph, real_HWC, fake_HWC, family))
    return pairs


def _decoded(
    path: Path, *, strict: bool, on_skip: Callable[[str, ImageError], None]
) -> NDArray[np.uint8] | None:
    try:
        return decode_image(_bytes(path), Limits()).pixels_HWC
    except ImageError as error:
        if strict:
            raise DataError(f"{path}: {error}; delete it and make it again") from error
        on_skip(str(path), error)
        return None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}), but {PAIRS} names it: make the set again"
        ) from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(_bytes(path)).hexdigest()


def share_softness(
    real_HWC: NDArray[np.uint8], fake_HWC: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Remove the difference in softness from a pair, uint8 [H, W, 3] of one size.

    Regenerators draw softly, and a detector of pairs learns that what is soft is generated;
    photographs out of focus were then flagged. Here each of the two is attenuated, frequency by
    frequency, to the weaker of both, so that they have one radial power spectrum. Neither is
    sharpened; lattices of upsampling, directions and phases stay.
    """
    spectra = [_spectrum(pixels) for pixels in (real_HWC, fake_HWC)]
    radius_HW = _radius(real_HWC.shape[0], real_HWC.shape[1])
    power_real, power_fake = (_radial_power(spectrum, radius_HW) for spectrum in spectra)
    weaker = np.minimum(power_real, power_fake)
    real = _filtered(spectra[0], weaker / power_real, radius_HW, real_HWC.shape)
    fake = _filtered(spectra[1], weaker / power_fake, radius_HW, fake_HWC.shape)
    return real, fake


def _spectrum(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.complex64]:
    around = [(_MARGIN_PX, _MARGIN_PX), (_MARGIN_PX, _MARGIN_PX), (0, 0)]
    padded_HWC = np.pad(pixels_HWC.astype(np.float32), around, mode="reflect")
    spectrum_HWC: NDArray[np.complex64] = fft.rfft2(padded_HWC, axes=(0, 1))
    return spectrum_HWC


def _radius(height_px: int, width_px: int) -> NDArray[np.float32]:
    """The radial bin, with its fraction, of every place of a spectrum."""
    y = np.fft.fftfreq(height_px + 2 * _MARGIN_PX)[:, None]
    x = np.fft.rfftfreq(width_px + 2 * _MARGIN_PX)[None, :]
    radius_HW: NDArray[np.float64] = np.hypot(y, x) / np.hypot(0.5, 0.5) * (_BINS - 1)
    return radius_HW.astype(np.float32)


def _radial_power(
    spectrum_HWC: NDArray[np.complex64], radius_HW: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Median power of the luma in each bin, which the peaks of a lattice do not move; never zero."""
    power = (np.abs(spectrum_HWC @ _LUMA_3) ** 2).ravel()
    bins = np.rint(radius_HW).astype(int).ravel()
    order = np.argsort(bins, kind="stable")
    ends = np.cumsum(np.bincount(bins, minlength=_BINS))[:-1]
    medians = [np.median(part) for part in np.split(power[order], ends)]
    return np.array(medians, dtype=np.float64) + 1e-6


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
    clipped_HWC: NDArray[np.uint8] = np.clip(np.rint(inner_HWC), 0, 255).astype(np.uint8)
    return clipped_HWC
