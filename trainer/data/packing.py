"""WebDataset shards, written: many images in few tar files, for disks and networks that like large ones.

In: files. Out: ``shard-000000.tar``, ...: of each image its bytes as they were, and a JSON with
class, folder, name and SHA-256; ``webdataset`` reads them like any other shards, and
``trainer/data/shards.py`` does. Errors: ``DataError``.
"""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import webdataset  # type: ignore[import-untyped]  # it ships no types

from trainer.data.errors import DataError
from trainer.data.listing import File
from trainer.data.shards import Note

_PATTERN = "shard-%06d.tar"


def write_shards(files: Iterable[File], target: Path, shard_bytes: int) -> tuple[int, int]:
    """Pack files, all or none; returns how many images and how many shards there are.

    Args:
        files: in the order in which they are to lie.
        target: a folder, made here.
        shard_bytes: a shard is closed once it holds so much.
    """
    if target.exists():
        raise DataError(f"{target} exists: name another folder, or delete it")
    partial = target.with_name(f"{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    count = 0
    # Equal files make equal shards: no time is written, and bytes pass as they are.
    with webdataset.ShardWriter(
        str(partial / _PATTERN), maxsize=shard_bytes, verbose=0, mtime=0, encoder=False
    ) as writer:
        for file in files:
            # A number and not its name: WebDataset cuts names at their first dot.
            writer.write(_sample(file, f"{file.kind}/{file.folder}/{count:08d}"))
            count += 1
    partial.replace(target)
    return count, len(list(target.iterdir()))


def _sample(file: File, key: str) -> dict[str, object]:
    data = file.read()
    digest = hashlib.sha256(data).hexdigest()
    note = Note(kind=file.kind, folder=file.folder, name=file.name, sha256=digest)
    suffix = Path(file.name).suffix.lower().lstrip(".") or "bin"
    return {"__key__": key, suffix: data, "json": note.model_dump_json(by_alias=True).encode()}
