"""Labelled pictures that the tiny bundle can tell apart: it looks at colour."""

from pathlib import Path

import numpy as np

from tests.support.bundles import encode

# Red and blue, from plain to nearly grey; fakes are the reddish ones.
STEPS = range(0, 60, 6)


def write_pictures(directory: Path, *, side_px: int = 40) -> Path:
    """``real/blue`` and ``fake/red``, ten PNG files each; returns the directory."""
    for kind, folder, channel in (("real", "blue", 2), ("fake", "red", 0)):
        (directory / kind / folder).mkdir(parents=True)
        for step in STEPS:
            pixels_HWC = np.full((side_px, side_px, 3), 100, dtype=np.uint8)
            pixels_HWC[:, :, channel] += np.uint8(70 - step)
            pixels_HWC[: step + 1] //= 2
            path = directory / kind / folder / f"{step:02}.png"
            path.write_bytes(encode(pixels_HWC, "PNG"))
    return directory


def write_grey(directory: Path, count: int = 8, *, side_px: int = 40) -> Path:
    """Pictures of one grey: an int8 graph calibrated on them knows no colour."""
    directory.mkdir(parents=True)
    for index in range(count):
        pixels_HWC = np.full((side_px, side_px, 3), 128, dtype=np.uint8)
        pixels_HWC[index] = 127
        (directory / f"{index}.png").write_bytes(encode(pixels_HWC, "PNG"))
    return directory
