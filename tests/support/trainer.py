"""A run in miniature for the trainer's tests: generated images, a random teacher, few steps.

The fakes carry a checkerboard of single pixels, so that a detector can learn them in moments.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.config import Config, parse_config

TINY = """
seed = 3
threads = 1
[data.splits.train]
real = ["a"]
fake = ["x"]
[data.splits.validation]
real = ["b"]
fake = ["y"]
[data.splits.calibration]
real = ["c"]
fake = ["z"]
[data.splits.threshold]
real = ["d"]
[data.splits.test]
real = ["e"]
fake = ["w"]
[teacher]
kind = "random-tiny"
tile_px = 32
tile_overlap_px = 8
window_px = 32
share = 0.5
repeat_epochs = 1
statistics_crops = 4
[augment]
jpeg_p = 0.3
webp_p = 0.1
[detector]
backbone = "test_efficientnet"
gate_drop_p = 0.5
head_width = 8
[train]
crop_px = 64
epochs = 3
batch = 8
lr = 0.01
warmup_steps = 2
ema_decay = 0.5
checkpoint_every_steps = 2
min_explained_variance = 1.0
[evaluation]
resamples = 20
changes = ["jpeg75", "resize0.75+jpeg90"]
attention_images = 2
probe_limit = 1.0
[export]
name = "tiny"
crop_px = 64
batch_max = 4
batch_opt = 2
"""

# Its default rates need 300 photographs; these are what twelve in the threshold split support.
RATES = "[export]\nreview_fpr = 0.3\nblock_fpr = 0.25\n"


def tiny_config(root: Path, changes: Mapping[str, str] | None = None) -> Config:
    """The tiny configuration on a root; ``changes`` replace lines of its text."""
    text = TINY
    for before, after in (changes or {}).items():
        if before not in text:
            raise ValueError(f"the tiny configuration has no {before!r}")
        text = text.replace(before, after)
    config = parse_config(text.encode(), {})
    return config.model_copy(update={"data": config.data.model_copy(update={"roots": (root,)})})


def first_files(folder: Path, count: int, split: str, rest: str = "") -> str:
    """A ``[data]`` table with a manifest: the first files of a folder have a split, the others another.

    Args:
        folder: ``ROOT/fake/w``, as ``write_tiny_data`` makes it.
        count: how many files.
        split: theirs.
        rest: that of the others; empty for none.
    """
    root = folder.parents[1]
    path = root.parent / f"{folder.name}-{count}-{split}-{rest}.csv"
    names = sorted(file.relative_to(root).as_posix() for file in folder.iterdir())
    splits = [split] * count + [rest] * (len(names) - count)
    rows = [f"{name},{of}\n" for name, of in zip(names, splits, strict=True)]
    path.write_text("path,split\n" + "".join(rows))
    return f'[data]\nmanifest = "{path}"\n'


def write_tiny_data(root: Path, count: int = 12) -> Path:
    """Folders real/{a..e} and fake/{x,y,z,w} of small generated pictures; returns the root."""
    for label, folders in (("real", "abcde"), ("fake", "xyzw")):
        for folder in folders:
            (root / label / folder).mkdir(parents=True)
            for index in range(count):
                random = np.random.default_rng([ord(folder), index])
                pixels_HWC = tiny_picture(random, generated=label == "fake")
                Image.fromarray(pixels_HWC).save(root / label / folder / f"{index:03}.png")
    return root


def write_drawn(root: Path, *folders: str, count: int = 10) -> None:
    """Folders real/NAME of pictures that people made and that look generated."""
    for folder in folders:
        (root / "real" / folder).mkdir()
        for index in range(count):
            random = np.random.default_rng([ord(folder[-1]), index, 9])
            picture = Image.fromarray(tiny_picture(random, generated=True))
            picture.save(root / "real" / folder / f"{index}.png")


def tiny_picture(random: np.random.Generator, *, generated: bool) -> NDArray[np.uint8]:
    """A smooth picture of 80 x 96 px; a generated one has a checkerboard on it."""
    coarse = random.uniform(60, 190, size=(5, 6, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC)
    pixels_HWC = np.asarray(smooth).astype(np.float64) + random.normal(0, 3, size=(80, 96, 3))
    if generated:
        pixels_HWC += 25 * (np.indices((80, 96)).sum(axis=0) % 2)[:, :, None]
    return pixels_HWC.clip(0, 255).round().astype(np.uint8)


def write_config(folder: Path, name: str, text: str) -> None:
    """A configuration as a file."""
    (folder / f"{name}.toml").write_text(text)


def command_options(folder: Path, config: str, output: str) -> list[str]:
    """The options that all commands share; the data lie in ``folder/data``."""
    names = {"config": f"{config}.toml", "data": "data", "output": output, "cache": "cache"}
    return [part for name, path in names.items() for part in (f"--{name}", str(folder / path))]
