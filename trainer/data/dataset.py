"""From folders, shards and a manifest to the files of each split, and their pixels.

What would leak between splits is refused: the same bytes, a photograph and its regeneration, and
(where a manifest names them) a repository or a prompt. Nearly equal pictures are reported.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn  # type: ignore[import-untyped]  # scipy ships no types

from engines.bundle.files import write_atomically
from engines.preprocess import ImageError, Limits, decode_image
from trainer.config import SPLITS, Config, DataConfig, SplitConfig
from trainer.data.files import CLASSES, Source, list_roots
from trainer.data.manifest import ManifestRow, read_manifest
from trainer.data.pairs import PAIRS, Pair, PairFiles, load_pairs, photographs_of, read_pair_files
from trainer.errors import DataError

_SHOWN = 5  # examples in a message
_GREY_PX, _LOW = 32, 8
_CLOSE_BITS = 4  # of 63
_FLAT = 2.0  # a standard deviation of grey levels: below it, the bits are those of noise
_HASHES = "perceptual-hashes.json"
Item = TypeVar("Item")


@dataclass(frozen=True)
class Picture:
    """A decoded file: uint8 RGB [H, W, 3], native pixels."""

    source: Source
    pixels_HWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape


@dataclass(frozen=True)
class Dataset:
    """The files of every split.

    Attributes:
        splits: by name; each in the order of its files' keys, real before generated.
        digest: of all splits, and of the pairs that training draws from.
        duplicates: files with the same bytes as another of their split, which is used once.
        pairs: by the split of their photograph.
        homeless_photographs: photographs of pairs that are in no split; their pairs are not used.
        notes: what several splits share with the configuration's permission.
    """

    splits: dict[str, tuple[Source, ...]]
    digest: str
    duplicates: int
    pairs: dict[str, tuple[PairFiles, ...]]
    homeless_photographs: int
    notes: tuple[str, ...]

    def folders(self, split: str, label: int) -> tuple[str, ...]:
        """Return the sources (label 0) or generators (1) of a split, sorted."""
        return tuple(sorted({file.folder for file in self.splits[split] if file.label == label}))

    def digest_of(self, split: str) -> str:
        """Return the digest of the files of one split: what a result was measured on."""
        return digest_of(self.splits[split])


def digest_of(files: Iterable[Source]) -> str:
    """Return the SHA-256 of some files' keys and bytes, whatever their order."""
    return _digest(f"{file.key} {file.sha256}" for file in files)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def scan(config: DataConfig, classes: Sequence[str] = CLASSES) -> Dataset:
    """List and hash the files of every split; refuse what would leak.

    Args:
        config: where the images are, and how they are divided.
        classes: those that training needs: a diffusion model learns real images alone.
    """
    rows = read_manifest(config.manifest) if config.manifest else {}
    splits: dict[str, list[Source]] = {split: [] for split in SPLITS}
    owner: dict[str, tuple[str, str]] = {}  # the split and key of each digest
    duplicates = 0
    for split, file in divide(list_roots(config.roots), rows, config):
        hashed = _hashed(file, rows.get(file.key), config.manifest)
        if hashed.sha256 not in owner:
            owner[hashed.sha256] = (split, hashed.key)
            splits[split].append(hashed)
            continue
        first_split, first_key = owner[hashed.sha256]
        if first_split != split:
            raise DataError(
                f"leak: {hashed.key} ({split}) has the same bytes as {first_key} ({first_split}): "
                "exclude one of them, or change the splits"
            )
        duplicates += 1
    for label, kind in enumerate(CLASSES):
        if kind in classes and not any(file.label == label for file in splits["train"]):
            raise DataError(
                f"the training split has no {kind} image: name a folder in data.splits.train.{kind}, "
                "or give rows of data.manifest the split 'train'"
            )
    notes = _refuse_shared(_groups(config, splits, rows), config.allow_shared)
    pairs, homeless = _placed_pairs(config, {digest: split for digest, (split, _) in owner.items()})
    lines = [f"{split} {file.key} {file.sha256}" for split in SPLITS for file in splits[split]]
    # Of the pairs, only those that training draws from.
    lines += [f"pair {line}" for files in pairs["train"] for line in files.digests()]
    whole = {split: tuple(files) for split, files in splits.items()}
    return Dataset(whole, _digest(lines), duplicates, pairs, homeless, tuple(notes))


def divide(
    files: Sequence[Source], rows: Mapping[str, ManifestRow], config: DataConfig
) -> Iterator[tuple[str, Source]]:
    """Find the split of each file; those that have none are left out.

    A generator of ``data.hold_out`` is in the test split. Any other file that the manifest lists has
    the split of its row; the remaining ones have that of their folder.

    Args:
        files: the images of all roots.
        rows: the manifest's, by path; empty without one.
        config: the folders of each split, and what is excluded or held out.
    """
    missing = sorted(rows.keys() - {file.key for file in files})
    if missing:
        raise DataError(
            f"{len(missing)} files of {config.manifest} are in no root, the first is {missing[0]}: "
            "restore them, name their root, or delete their rows"
        )
    folder_splits = _folder_splits(files, config)
    for file in files:
        if any(fnmatchcase(file.key, pattern) for pattern in config.exclude):
            continue
        if file.label == 1 and file.folder in config.hold_out:
            split = "test"
        elif file.key in rows:
            split = rows[file.key].split
        else:
            split = folder_splits.get((file.label, file.folder), "")
        if split:
            yield split, file


def _folder_splits(files: Sequence[Source], config: DataConfig) -> dict[tuple[int, str], str]:
    """The split of each folder that the configuration names, by label and folder."""
    folders = {
        label: sorted({file.folder for file in files if file.label == label}) for label in (0, 1)
    }
    found: dict[tuple[int, str], str] = {}
    for name in config.hold_out:
        _refuse_unknown("hold_out", name, [name] if name in folders[1] else [], folders[1])
    for split in SPLITS:
        chosen: SplitConfig = getattr(config.splits, split)
        for label, patterns in enumerate((chosen.real, chosen.fake)):
            for pattern in patterns:
                named = [folder for folder in folders[label] if fnmatchcase(folder, pattern)]
                _refuse_unknown(f"splits.{split}.{CLASSES[label]}", pattern, named, folders[label])
                for folder in named:
                    if found.setdefault((label, folder), split) != split:
                        raise DataError(
                            f"leak: {CLASSES[label]}/{folder} is in the splits {found[label, folder]} and "
                            f"{split}: name it once, or divide its files in a manifest (data.manifest)"
                        )
    return found


def _refuse_unknown(option: str, name: str, named: Sequence[str], known: Sequence[str]) -> None:
    if not named:
        raise DataError(
            f"data.{option}: data.roots has no images in a folder {name!r}; it has some in: "
            f"{', '.join(known) or 'none'}"
        )


def _hashed(file: Source, row: ManifestRow | None, manifest: Path | None) -> Source:
    sha256 = hashlib.sha256(file.read()).hexdigest()
    if row is not None and row.sha256 not in ("", sha256):
        raise DataError(
            f"{file.key} has changed since {manifest} was written (sha256 {sha256[:12]}..., not "
            f"{row.sha256[:12]}...): restore it, or write the manifest again"
        )
    return replace(file, sha256=sha256)


def _placed_pairs(
    config: DataConfig, split_of: Mapping[str, str]
) -> tuple[dict[str, tuple[PairFiles, ...]], int]:
    """The pairs of each split, which is that of the photograph; and how many have none."""
    every = read_pair_files(config.pairs, config.pair_families)
    placed = {
        split: tuple(files for files in every if split_of.get(files.line.sha256) == split)
        for split in SPLITS
    }
    if every and not placed["train"]:
        raise DataError(
            "data.pairs: no pair's photograph is in the training split: name the folders that "
            "they were made of in data.splits.train.real, or leave data.pairs out"
        )
    return placed, len(photographs_of(every) - split_of.keys())


def _groups(
    config: DataConfig, splits: Mapping[str, Sequence[Source]], rows: Mapping[str, ManifestRow]
) -> dict[str, dict[str, list[str]]]:
    """The photograph of each file, and its repository and prompt where a manifest names them."""
    # Of the roots that are themselves sets of pairs: the photograph behind each file.
    photographs = {
        files.root / name: files.line.sha256
        for root in config.roots
        if (root / PAIRS).exists()
        for files in read_pair_files([root])
        for name in (files.line.real, *files.line.fake.values())
    }
    groups: dict[str, dict[str, list[str]]] = {"photograph": {}, "repo": {}, "prompt": {}}
    for split, files in splits.items():
        groups["photograph"][split] = [photographs.get(file.path, file.sha256) for file in files]
        listed = [rows[file.key] for file in files if file.key in rows]
        groups["repo"][split] = [row.repo for row in listed if row.repo]
        groups["prompt"][split] = [row.prompt for row in listed if row.prompt]
    return groups


def _refuse_shared(
    groups: Mapping[str, Mapping[str, Sequence[str]]], allowed: Collection[str]
) -> list[str]:
    """Refuse groups that lie in several splits; returns a line for each kind that is allowed to.

    Args:
        groups: by kind (photograph, repo, prompt), by split: the group of each of its files.
        allowed: the kinds whose groups may be in several splits.
    """
    notes = []
    for kind, by_split in groups.items():
        counts = {split: Counter(names) for split, names in by_split.items()}
        owners = Counter(name for names in counts.values() for name in names)
        shared = sorted(name for name, splits in owners.items() if splits > 1)
        if not shared:
            continue
        shown = [
            f"{name} ({', '.join(f'{split} {count[name]}' for split, count in counts.items() if count[name])})"
            for name in shared
        ]
        text = f"{len(shared)} of {len(owners)} {kind}s are in several splits: {_first(shown)}"
        if kind not in allowed:
            raise DataError(f"leak: {text}: {_advice(kind)}")
        notes.append(f"allowed: {text}")
    return notes


def _first(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return "; ".join(texts[:_SHOWN]) + more


def _advice(kind: str) -> str:
    if kind == "photograph":
        return "put a photograph and all its regenerations into one split"
    return (
        f"put each {kind} into one split (python -m trainer data split --by {kind} deals whole {kind}s), "
        f'or permit it: data.allow_shared = ["{kind}"]'
    )


def load(
    sources: Iterable[Source],
    *,
    strict: bool,
    region_px: int | None,
    on_skip: Callable[[Source, ImageError], None],
) -> list[Picture]:
    """Decode files.

    Args:
        sources: the files.
        strict: whether a corrupt file stops the run.
        region_px: keep only the central square of this side; everything if None.
        on_skip: called with each corrupt file, which is left out, and the reason.
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


def pictures_of(
    sources: Iterable[Source],
    config: DataConfig,
    notify: Callable[[str], None],
    region_px: int | None,
) -> list[Picture]:
    """Decode a split; every file that is skipped is named, and counted."""
    skipped: list[str] = []

    def on_skip(source: Source, error: ImageError) -> None:
        skipped.append(source.key)
        notify(f"skipped {source.key}: {error}")

    pictures = load(sources, strict=config.strict, region_px=region_px, on_skip=on_skip)
    if skipped:
        notify(f"{len(skipped)} files were skipped")
    return pictures


def stored_pairs(
    dataset: Dataset, config: Config, split: str, notify: Callable[[str], None]
) -> list[Pair]:
    """The pairs on disk whose photographs are in that split."""
    if not config.data.pairs:
        return []
    skipped: list[str] = []

    def on_skip(name: str, error: ImageError) -> None:
        skipped.append(name)
        notify(f"skipped {name}: {error}")

    files = dataset.pairs.get(split, ())
    pairs = load_pairs(files, strict=config.data.strict, on_skip=on_skip)
    families = ", ".join(sorted({pair.family for pair in pairs}))
    kind = "training" if split == "train" else split
    notify(
        f"{len(pairs)} pairs of {len(photographs_of(files))} {kind} photographs, by {families}; "
        f"{dataset.homeless_photographs} photographs of data.pairs are in no split; "
        f"{len(skipped)} files were skipped"
    )
    return pairs


def _central(pixels_HWC: NDArray[np.uint8], side_px: int | None) -> NDArray[np.uint8]:
    if side_px is None:
        return pixels_HWC
    top, left = (max(0, length - side_px) // 2 for length in pixels_HWC.shape[:2])
    return np.ascontiguousarray(pixels_HWC[top : top + side_px, left : left + side_px])


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Choose at most ``count`` items at equal distances, from the first on, in their order."""
    chosen = min(count, len(items))
    return [items[index * len(items) // chosen] for index in range(chosen)]


def perceptual_hash(pixels_HWC: NDArray[np.uint8]) -> int | None:
    """Hash what a picture shows; a re-encoded, resized or slightly retouched copy has nearly the same hash.

    32 x 32 grey levels, their discrete cosine transform, and which of its 8 x 8 lowest frequencies
    (without the mean) are above their median: 63 bits. None where a picture is too flat for that.
    """
    grey = Image.fromarray(pixels_HWC).convert("L").resize((_GREY_PX,) * 2, Image.Resampling.BOX)
    grey_HW = np.asarray(grey, dtype=np.float64)
    if grey_HW.std() < _FLAT:
        return None
    low = np.asarray(dctn(grey_HW, norm="ortho"))[:_LOW, :_LOW].ravel()[1:]
    return int("".join("1" if above else "0" for above in low > np.median(low)), 2)


def hashes_of(sources: Iterable[Source], cache: Path) -> dict[str, int]:
    """Hash files, by their digest; those in the cache are not computed again."""
    path = cache / _HASHES
    known: dict[str, int | None] = json.loads(path.read_text()) if path.exists() else {}
    wanted = {source.sha256: source for source in sources}
    fresh = {digest: _hash(source) for digest, source in wanted.items() if digest not in known}
    if fresh:
        cache.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(known | fresh, indent=2) + "\n")
    every = known | fresh
    return {digest: hashed for digest in wanted if (hashed := every[digest]) is not None}


def _hash(source: Source) -> int | None:
    try:
        return perceptual_hash(decode_image(source.read(), Limits()).pixels_HWC)
    except ImageError:
        return None  # `load` names it


def _near_duplicates(
    splits: Mapping[str, Sequence[Source]], hashes: Mapping[str, int]
) -> list[str]:
    """Name every two files of different splits whose hashes differ in few bits, the nearest first."""
    files = [
        (split, file.key, hashes[file.sha256])
        for split, sources in splits.items()
        for file in sources
        if file.sha256 in hashes
    ]
    hash_N = np.array([hashed for _, _, hashed in files], dtype=np.uint64)
    near = []
    for at, (split, key, own) in enumerate(files):
        bits_N = np.bitwise_count(hash_N[at + 1 :] ^ np.uint64(own))
        for other in np.flatnonzero(bits_N <= _CLOSE_BITS):
            second_split, second, _ = files[at + 1 + int(other)]
            if second_split != split:
                text = f"{key} ({split}) and {second} ({second_split})"
                near.append((int(bits_N[other]), key, second, text))
    return [text for *_, text in sorted(near)]


def check_near(dataset: Dataset, cache: Path, *, strict: bool) -> list[str]:
    """Report near duplicates across splits in a line; no line where there are none."""
    files = [file for sources in dataset.splits.values() for file in sources]
    near = _near_duplicates(dataset.splits, hashes_of(files, cache))
    if not near:
        return []
    line = f"{len(near)} near duplicates across splits: {_first(near)}"
    if strict:
        raise DataError(f"{line}: look at them and exclude one of each, or run without strict")
    return [line]
