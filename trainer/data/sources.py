"""Folders or shards of images -> the files of each split, and their pixels.

In: roots that hold ``real/NAME/*`` and ``fake/NAME/*``, perhaps a manifest of them, and the splits
of the configuration. Out: ``Source`` (a file, its class, its folder) and ``Picture`` (its native
pixels). Errors: ``DataError`` for a leak, an empty class or a missing folder, or files that are
not those of the manifest; a corrupt image is named and skipped, or stops the run where ``strict``
says so.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.preprocess import ImageError, Limits, decode_image
from trainer.config import SPLITS, DataConfig, SplitConfig
from trainer.data.errors import DataError
from trainer.data.groups import check_groups
from trainer.data.listing import CLASSES, File, list_roots
from trainer.data.manifest import Row, check_digest, held_to, read_manifest
from trainer.data.pairs import PAIRS, PairFiles, photographs_of, read_pair_files
from trainer.data.selecting import Choice
from trainer.data.shards import Member


@dataclass(frozen=True)
class Source:
    """A file of one split."""

    path: Path  # the file, or the shard that holds it
    label: int  # 0 real, 1 fake
    folder: str  # the source of a photograph, or the generator
    sha256: str
    member: Member | None = None  # where in the path, if that is a shard

    @property
    def key(self) -> str:
        """A name that is the same on every machine: ``fake/sd1/0001.png``."""
        return self._file().key

    def read(self) -> bytes:
        """The file's bytes."""
        return self._file().read()

    def _file(self) -> File:
        return File(CLASSES[self.label], self.folder, self.path, self.member)


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
    homeless_photographs: int  # photographs of pairs that are in no split: left out
    notes: tuple[str, ...]  # what splits share by leave of the configuration


def scan(config: DataConfig, classes: Sequence[str] = CLASSES) -> Dataset:
    """List and hash the files of every split; refuse what would leak.

    Args:
        config: where the images are, and the splits.
        classes: those that training needs: a diffusion model learns real images alone.
    """
    choice = _choice(config)
    splits: dict[str, tuple[Source, ...]] = {}
    owner: dict[str, tuple[str, str]] = {}
    duplicates = 0
    for split in SPLITS:
        kept = []
        for source in _split_sources(choice, config, split):
            first = owner.get(source.sha256)
            if first is None:
                owner[source.sha256] = (split, source.key)
                kept.append(source)
            elif first[0] == split:
                duplicates += 1
            else:
                raise DataError(
                    f"leak: {source.key} ({split}) has the same bytes as {first[1]} ({first[0]}): "
                    "exclude one of them, or change the splits"
                )
        splits[split] = tuple(kept)
    _refuse_empty_class(splits["train"], classes)
    notes = check_groups(_groups(config, splits, choice.rows), config.allow_shared)
    pairs, homeless = _placed_pairs(config, {digest: one[0] for digest, one in owner.items()})
    digest = _digest(splits, pairs)
    return Dataset(splits, digest, duplicates, pairs, homeless, tuple(notes))


def _choice(config: DataConfig) -> Choice:
    """What is there, or of it what the manifest names."""
    listing = list_roots(config.roots)
    if config.manifest is None:
        return Choice(listing, {}, config.exclude)
    rows = read_manifest(config.manifest)
    return Choice(held_to(listing, rows, config.manifest), rows, config.exclude)


def _placed_pairs(
    config: DataConfig, split_of: dict[str, str]
) -> tuple[dict[str, tuple[PairFiles, ...]], int]:
    """The pairs of each split, which is that of the photograph; and how many have none."""
    found = read_pair_files(config.pairs, config.pair_families)
    placed = {
        split: tuple(one for one in found if split_of.get(one.line.sha256) == split)
        for split in SPLITS
    }
    if found and not placed["train"]:
        raise DataError(
            "data.pairs: no pair's photograph is in the training split: name the folders that "
            "they were made of in data.splits.train.real, or leave data.pairs out"
        )
    homeless = photographs_of(found) - split_of.keys()
    return placed, len(homeless)


def _split_sources(choice: Choice, config: DataConfig, name: str) -> list[Source]:
    split: SplitConfig = getattr(config.splits, name)
    found = []
    for label, selectors in enumerate((split.real, split.fake)):
        taken: set[File] = set()
        for selector in selectors:
            for folder, files in choice.selected(CLASSES[label], selector, name):
                new = [file for file in files if file not in taken]
                taken.update(new)
                found += [_source(file, label, folder, choice, config) for file in new]
    return found


def _source(file: File, label: int, folder: str, choice: Choice, config: DataConfig) -> Source:
    sha256 = hashlib.sha256(file.read()).hexdigest()
    if config.manifest is not None:
        check_digest(choice.rows[file.key], sha256, config.manifest)
    return Source(file.path, label, folder, sha256, file.member)


def _groups(
    config: DataConfig, splits: dict[str, tuple[Source, ...]], rows: Mapping[str, Row]
) -> dict[str, dict[str, list[str]]]:
    """The photograph of each file, and the repository and prompt where a manifest names them."""
    photographs = _photographs(config)
    groups: dict[str, dict[str, list[str]]] = {"photograph": {}, "repo": {}, "prompt": {}}
    for split, sources in splits.items():
        groups["photograph"][split] = [photographs.get(one.path, one.sha256) for one in sources]
        known = [rows[one.key] for one in sources if one.key in rows]
        groups["repo"][split] = [row.repo for row in known if row.repo]
        groups["prompt"][split] = [row.prompt for row in known if row.prompt]
    return groups


def _photographs(config: DataConfig) -> dict[Path, str]:
    """The digest of the photograph behind each file of the roots that are sets of pairs."""
    return {
        one.root / name: one.line.sha256
        for root in config.roots
        if (root / PAIRS).exists()
        for one in read_pair_files([root])
        for name in (one.line.real, *one.line.fake.values())
    }


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
            image = decode_image(source.read(), Limits())
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
