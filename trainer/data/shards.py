"""WebDataset shards, read: where in a tar file each image lies.

In: a tar file whose samples are an image and a JSON with class, folder, name and SHA-256
(``trainer/data/packing.py`` writes them). Out: ``Member``, to be read by one seek. Errors:
``DataError`` for a shard that is truncated, altered, or made by something else.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.data.errors import DataError

Kind = Literal["real", "fake"]
_ADVICE = "copy it again, or write the shards anew with python -m trainer data shards"


class Note(BaseModel):
    """The JSON beside an image."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    kind: Annotated[Kind, Field(alias="class")]
    folder: Annotated[str, Field(min_length=1, pattern=r"^[^/]+$")]
    name: Annotated[str, Field(min_length=1, pattern=r"^[^/]+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Member:
    """Where an image lies in a shard."""

    kind: Kind
    folder: str
    name: str
    sha256: str
    offset_bytes: int
    size_bytes: int

    def read(self, shard: Path) -> bytes:
        """The image's bytes, checked."""
        with shard.open("rb") as file:
            file.seek(self.offset_bytes)
            data = file.read(self.size_bytes)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise DataError(f"{shard}: {self.name} has other bytes than were put in: {_ADVICE}")
        return data


def members(shard: Path) -> Iterator[Member]:
    """Every image of a shard, in its order."""
    images: dict[str, tarfile.TarInfo] = {}
    notes: dict[str, Note] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for info in archive:
                key, _, kind = info.name.rpartition(".")
                if kind == "json":
                    notes[key] = _note(archive, info, shard)
                elif info.isfile():
                    images[key] = info
        _refuse_cut(shard)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard} is truncated or no tar file ({error}): {_ADVICE}") from error
    if images.keys() != notes.keys():
        odd = sorted(images.keys() ^ notes.keys())[0]
        raise DataError(f"{shard}: {odd} has not both an image and a JSON: {_ADVICE}")
    for key, info in images.items():
        one = notes[key]
        yield Member(one.kind, one.folder, one.name, one.sha256, info.offset_data, info.size)


def _note(archive: tarfile.TarFile, info: tarfile.TarInfo, shard: Path) -> Note:
    file = archive.extractfile(info)
    try:
        return Note.model_validate_json(file.read() if file else b"")
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise DataError(
            f"{shard}: {info.name} names no class, folder, name and sha256 "
            f"({problem['msg']}): {_ADVICE}"
        ) from error


def _refuse_cut(shard: Path) -> None:
    """A tar file ends in empty blocks; one that was cut between two members does not."""
    with shard.open("rb") as file:
        file.seek(-tarfile.BLOCKSIZE, 2)
        if any(file.read()):
            raise tarfile.ReadError("it has no end")
