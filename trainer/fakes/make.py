"""A set of content-matched fakes: every photograph, drawn anew by every family.

In: a ``FakesConfig``. Out: ``real/FOLDER/NAME.png`` and ``fake/FAMILY/NAME.png``, which show the
same, and ``pairs.jsonl``, a line for each region that says which belong together. Errors:
``RegeneratorError``, ``DataError``.

What is there already, of the same weights, is not made again: a run that was killed goes on.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.config.fakes import (
    AutoencoderConfig,
    CycleGanConfig,
    DiffusionConfig,
    FakesConfig,
    FamilyConfig,
    PublishedConfig,
    SrganConfig,
    TaefConfig,
    UpscalerConfig,
)
from trainer.data.dataset import evenly
from trainer.fakes.autoencoder import TrainedAutoencoder
from trainer.fakes.autoencoder_training import train_autoencoder
from trainer.fakes.cyclegan import CycleGan
from trainer.fakes.diffusion import Redrawer
from trainer.fakes.files import Notify, write_pixels
from trainer.fakes.rdn import Rdn
from trainer.fakes.regenerator import Regenerator, RegeneratorError, located
from trainer.fakes.regions import Region, region_pixels, regions
from trainer.fakes.srgan import Srgan
from trainer.fakes.taef2 import Taef2
from trainer.fakes.upscaler import Upscaler

PAIRS = "pairs.jsonl"
_NOTIFY_EVERY = 50


def make_fakes(config: FakesConfig, output: Path, *, strict: bool, notify: Notify) -> int:
    """Make what is missing; returns how many fakes there are."""
    output.mkdir(parents=True, exist_ok=True)
    region = config.photographs.model_dump_json(include={"region_px", "scales"})
    _refuse_another(output / ".regions", region, "regions were cut with other settings")
    found = regions(config.photographs, output, strict=strict, notify=notify)
    if not found:
        raise RegeneratorError(
            f"no photograph holds a region of {config.photographs.region_px} px: lower "
            "photographs.region_px, or give larger photographs"
        )
    made = 0
    for family in config.families:
        made += _family(family, config, found, output, notify)
        # After each family: whoever waits for the set may start with the families that are done.
        _write_pairs(config, found, output)
    return made


def _family(
    family: FamilyConfig, config: FakesConfig, found: Sequence[Region], output: Path, notify: Notify
) -> int:
    photographs = list(dict.fromkeys(one.photograph for one in found))
    wanted = set(evenly(photographs, family.images))
    chosen = [one for one in found if one.photograph in wanted]
    tool = open_family(family, config, found, output, notify)
    if config.photographs.region_px % tool.multiple_px:
        raise RegeneratorError(
            f"{family.name} needs sides that are multiples of {tool.multiple_px} px: change "
            "photographs.region_px"
        )
    folder = output / "fake" / family.name
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_another(folder / ".weights", tool.digest, "fakes were drawn by other weights")
    for count, region in enumerate(chosen, start=1):
        path = folder / region.name
        if not path.exists():
            write_pixels(path, tool.regenerate(region_pixels(region, output)))
        if count % _NOTIFY_EVERY == 0 or count == len(chosen):
            notify(f"{family.name}: {count} of {len(chosen)}")
    return len(chosen)


def open_family(
    family: FamilyConfig, config: FakesConfig, found: Sequence[Region], output: Path, notify: Notify
) -> Regenerator:
    """The network of a family; a small autoencoder is trained first where it is not yet."""
    if not isinstance(family, AutoencoderConfig):
        return _open_published(family, config.threads)
    path = output / "weights" / f"{family.name}.pt"
    path.parent.mkdir(exist_ok=True)
    made = family.model_dump_json(exclude={"images"})
    _refuse_another(path.with_suffix(".json"), made, "weights were trained with other settings")
    if not path.exists():
        train_autoencoder(family, _stacked(found, output), path, notify)
    return TrainedAutoencoder(family.upsampling, family.factor, family.width, path)


def _open_published(family: PublishedConfig, threads: int) -> Regenerator:
    if isinstance(family, TaefConfig):
        return Taef2(family.weights, family.latent_noise)
    if isinstance(family, DiffusionConfig):
        return Redrawer(family)
    if isinstance(family, UpscalerConfig):
        param = located(family.param, f"families.{family.name}.param")
        return Upscaler(param, family.factor, family.pad_px, threads)
    weights = located(family.weights, f"families.{family.name}.weights")
    if isinstance(family, SrganConfig):
        return Srgan(weights)
    return CycleGan(weights) if isinstance(family, CycleGanConfig) else Rdn(weights)


def _stacked(found: Sequence[Region], output: Path) -> NDArray[np.uint8]:
    return np.stack([region_pixels(one, output) for one in found])


def _refuse_another(note: Path, text: str, what: str) -> None:
    """Whatever is kept says how it was made; what was made otherwise never mixes with it."""
    if note.exists() and note.read_text() != text:
        raise RegeneratorError(
            f"{note.parent}: its {what} than the configuration asks for now: delete it, or name "
            "another --output"
        )
    note.write_text(text)


def _write_pairs(config: FakesConfig, found: Sequence[Region], output: Path) -> None:
    lines = []
    for region in found:
        fakes = {
            family.name: f"fake/{family.name}/{region.name}"
            for family in config.families
            if (output / "fake" / family.name / region.name).exists()
        }
        line = {
            "photograph": region.photograph,
            "sha256": region.sha256,
            "scale": region.scale,
            "real": region.path.as_posix(),
            "fake": fakes,
        }
        lines.append(json.dumps(line))
    partial = output / f"{PAIRS}.part"
    partial.write_text("\n".join(lines) + "\n")
    partial.replace(output / PAIRS)
