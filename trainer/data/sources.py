"""Folders of images -> the files of each split, and their pixels.

In: roots that hold ``real/NAME/*`` and ``fake/NAME/*``, and the splits of the configuration.
Out: ``Source`` (a file, its class, its folder) and ``Picture`` (its native pixels). Errors:
``DataError`` for a leak, an empty class or a missing folder; a corrupt image is named and
skipped, or stops the run where ``strict`` says so.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.preprocess import ImageError, Limits, decode_image
from trainer.config import SPLITS, DataConfig, SplitConfig
from trainer.data.errors import DataError
from trainer.data.pairs import PairFiles, read_pair_files

_SELECTOR = re.compile(r"(?P<folder>[^\[\]]+)(?:\[(?P<slice>-?\d*(?::-?\d*){1,2})\])?")


@dataclass(frozen=True)
class Source:
    """A file of one split."""

    path: Path
    label: int  # 0 real, 1 fake
    folder: str  # the source of a photograph, or the generator
    sha256: str

    @property
    def key(self) -> str:
        """A name that is the same on every machine: ``fake/sd1/0001.png``."""
        return f"{CLASSES[self.label]}/{self.folder}/{self.path.name}"


@dataclass(frozen=True)
class Picture:
    """A decoded file: uint8 RGB [H, W, 3], native pixels."""

    source: Source
    pixels_HWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape


@dataclass(frozen=True)
class Dataset:
    """The files of every split, and the digest of them all."""

    splits: dict[str, tuple[Source, ...]]
    digest: str
    duplicates: int  # the same bytes twice within one split: used once
    pairs: dict[str, tuple[PairFiles, ...]]  # by the split of their photograph
    homeless_pairs: int  # whose photograph is in no split: left out


CLASSES = ("real", "fake")


def scan(config: DataConfig, classes: Sequence[str] = CLASSES) -> Dataset:
    """List and hash the files of every split; refuse what would leak.

    Args:
        config: where the images are, and the splits.
        classes: those that training needs: a diffusion model learns real images alone.
    """
    if not config.roots:
        raise DataError("no data: set data.roots, or give --data DIR")
    splits: dict[str, tuple[Source, ...]] = {}
    owner: dict[str, tuple[str, str]] = {}
    duplicates = 0
    for split in SPLITS:
        kept = []
        for source in _split_sources(config, getattr(config.splits, split), split):
            first = owner.setdefault(source.sha256, (split, source.key))
            if first[0] != split:
                raise DataError(
                    f"leak: {source.key} ({split}) has the same bytes as {first[1]} ({first[0]}): "
                    "exclude one of them, or change the splits"
                )
            duplicates += first[1] != source.key
            kept += [source] if first[1] == source.key else []
        splits[split] = tuple(kept)
    _refuse_empty_class(splits["train"], classes)
    pairs, homeless = _placed_pairs(config, {digest: one[0] for digest, one in owner.items()})
    return Dataset(splits, _digest(splits, pairs), duplicates, pairs, homeless)


def _placed_pairs(
    config: DataConfig, split_of: dict[str, str]
) -> tuple[dict[str, tuple[PairFiles, ...]], int]:
    """The pairs of each split, which is that of the photograph; and how many have none."""
    found = [one for root in config.pairs for one in read_pair_files(root, config.pair_families)]
    placed = {
        split: tuple(one for one in found if split_of.get(one.line.sha256) == split)
        for split in SPLITS
    }
    if found and not placed["train"]:
        raise DataError(
            "data.pairs: no pair's photograph is in the training split: name the folders that "
            "they were made of in data.splits.train.real, or leave data.pairs out"
        )
    return placed, len(found) - sum(len(one) for one in placed.values())


def _split_sources(config: DataConfig, split: SplitConfig, name: str) -> list[Source]:
    found = []
    for label, selectors in enumerate((split.real, split.fake)):
        taken: set[Path] = set()
        for selector in selectors:
            for folder, paths in _selected(config, CLASSES[label], selector, name):
                new = [path for path in paths if path not in taken]
                taken.update(new)
                found += [_source(path, label, folder) for path in new]
    return found


def _selected(
    config: DataConfig, kind: str, selector: str, split: str
) -> Iterable[tuple[str, list[Path]]]:
    match = _SELECTOR.fullmatch(selector)
    if match is None:
        raise DataError(
            f"splits.{split}.{kind}: {selector!r} is no folder, glob or folder[start:stop:step]"
        )
    folders: dict[str, list[Path]] = {}
    for root in config.roots:
        for folder in sorted((root / kind).glob("*")):
            if folder.is_dir() and fnmatchcase(folder.name, match["folder"]):
                folders.setdefault(folder.name, []).extend(_files(folder, kind, config.exclude))
    if not folders:
        where = ", ".join(str(root / kind) for root in config.roots)
        raise DataError(f"splits.{split}.{kind}: no folder {match['folder']!r} in {where}")
    part = _slice(match["slice"])
    for name, paths in folders.items():
        yield name, sorted(paths, key=lambda path: path.name)[part]


def _slice(text: str | None) -> slice:
    if text is None:
        return slice(None)
    return slice(*(int(one) if one else None for one in text.split(":")))


def _files(folder: Path, kind: str, exclude: Sequence[str]) -> list[Path]:
    return [
        path
        for path in folder.iterdir()
        if path.is_file()
        and not path.name.startswith(".")
        and not any(fnmatchcase(f"{kind}/{folder.name}/{path.name}", one) for one in exclude)
    ]


def _source(path: Path, label: int, folder: str) -> Source:
    return Source(path, label, folder, hashlib.sha256(path.read_bytes()).hexdigest())


def _refuse_empty_class(sources: Sequence[Source], classes: Sequence[str]) -> None:
    for label, name in enumerate(CLASSES):
        if name in classes and not any(source.label == label for source in sources):
            raise DataError(f"the training split has no {name} image: name a folder that has some")


def _digest(splits: dict[str, tuple[Source, ...]], pairs: dict[str, tuple[PairFiles, ...]]) -> str:
    lines = [
        f"{split} {source.key} {source.sha256}"
        for split, sources in splits.items()
        for source in sources
    ]
    # Of the pairs, those alone that training draws from.
    lines += [f"pair {line}" for one in pairs["train"] for line in one.digests()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def load(
    sources: Iterable[Source],
    *,
    strict: bool,
    region_px: int | None,
    on_skip: Callable[[Source, ImageError], None],
) -> list[Picture]:
    """Decode files; a corrupt one is passed to ``on_skip``, or raises where ``strict``.

    Args:
        sources: the files.
        strict: whether a corrupt file stops the run.
        region_px: keep no more than the central square of this side, or everything if None.
        on_skip: is told of each file that is left out, and why.
    """
    pictures = []
    for source in sources:
        try:
            image = decode_image(source.path.read_bytes(), Limits())
        except ImageError as error:
            if strict:
                raise DataError(
                    f"{source.key}: {error}; remove it, or run without strict"
                ) from error
            on_skip(source, error)
            continue
        pictures.append(Picture(source, _central(image.pixels_HWC, region_px)))
    return pictures


def _central(pixels_HWC: NDArray[np.uint8], side_px: int | None) -> NDArray[np.uint8]:
    if side_px is None:
        return pixels_HWC
    top, left = (max(0, length - side_px) // 2 for length in pixels_HWC.shape[:2])
    return np.ascontiguousarray(pixels_HWC[top : top + side_px, left : left + side_px])
