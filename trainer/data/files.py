"""Image files on disk: in folders, or packed into the tar files of WebDataset shards.

A root holds ``real/SOURCE/*`` and ``fake/GENERATOR/*``, or ``*.tar`` files with the same inside.
Nothing is decoded here. Errors: ``DataError`` for a root that does not exist, and for a shard that
is truncated, altered or made by something else.
"""

import hashlib
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.errors import DataError

Kind = Literal["real", "fake"]
CLASSES: tuple[Kind, ...] = ("real", "fake")  # by label
_SHARD_NAMES = "shard-%06d.tar"
_SHARD_ADVICE = "copy it again, or write the shards again with python -m trainer data shards"


@dataclass(frozen=True)
class Member:
    """The place of an image in a shard."""

    name: str
    offset_bytes: int
    size_bytes: int
    sha256: str

    def read(self, shard: Path) -> bytes:
        """Return the image's bytes, checked against their digest."""
        with shard.open("rb") as file:
            file.seek(self.offset_bytes)
            data = file.read(self.size_bytes)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise DataError(f"{shard}: the bytes of {self.name} have changed: {_SHARD_ADVICE}")
        return data


@dataclass(frozen=True)
class Source:
    """One image file.

    Attributes:
        path: the file, or the shard that holds it.
        label: 0 real, 1 generated.
        folder: the source of a photograph, or the generator.
        sha256: of its bytes; empty until somebody has read them.
        member: its place in the shard; None for a file of its own.
    """

    path: Path
    label: int
    folder: str
    sha256: str = ""
    member: Member | None = None

    @property
    def kind(self) -> Kind:
        """The name of its class."""
        return CLASSES[self.label]

    @property
    def name(self) -> str:
        """Its own name, in a folder or in a shard."""
        return self.member.name if self.member else self.path.name

    @property
    def key(self) -> str:
        """A name that is the same on every machine: ``fake/sd1/0001.png``."""
        return f"{self.kind}/{self.folder}/{self.name}"

    def read(self) -> bytes:
        """Return the file's bytes."""
        try:
            return self.member.read(self.path) if self.member else self.path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be read ({error.strerror}): restore it, or exclude {self.key}"
            ) from error


def list_roots(roots: Sequence[Path]) -> list[Source]:
    """List the files of all roots, real before generated, then by folder and name.

    Args:
        roots: directories; the same folder name may occur in several.
    """
    if not roots:
        raise DataError("no data: set data.roots, or give --data DIR")
    files: list[Source] = []
    for root in roots:
        if not root.is_dir():
            raise DataError(f"{root} is not a directory; expected real/*, fake/* or *.tar in it")
        for label, kind in enumerate(CLASSES):
            files += [
                Source(path, label, path.parent.name)
                for path in (root / kind).glob("*/*")
                if path.is_file() and not path.name.startswith(".")
            ]
        for shard in root.glob("*.tar"):
            files += read_shard(shard)
    return sorted(files, key=lambda file: (file.label, file.folder, file.name))


class ShardNote(BaseModel):
    """The JSON beside an image in a shard."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    kind: Annotated[Kind, Field(alias="class")]
    folder: Annotated[str, Field(min_length=1, pattern=r"^[^/]+$")]
    name: Annotated[str, Field(min_length=1, pattern=r"^[^/]+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def read_shard(shard: Path) -> Iterator[Source]:
    """List the images of a shard in their order."""
    images: dict[str, tarfile.TarInfo] = {}
    notes: dict[str, ShardNote] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for info in archive:
                key, _, suffix = info.name.rpartition(".")
                if suffix == "json":
                    notes[key] = _note(archive, info, shard)
                elif info.isfile():
                    images[key] = info
        _refuse_without_end(shard)
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{shard} is truncated or not a tar file ({error}): {_SHARD_ADVICE}"
        ) from error
    if images.keys() != notes.keys():
        odd = sorted(images.keys() ^ notes.keys())[0]
        raise DataError(f"{shard}: {odd} needs both an image and a JSON: {_SHARD_ADVICE}")
    for key, info in images.items():
        note = notes[key]
        member = Member(note.name, info.offset_data, info.size, note.sha256)
        yield Source(shard, CLASSES.index(note.kind), note.folder, note.sha256, member)


def _note(archive: tarfile.TarFile, info: tarfile.TarInfo, shard: Path) -> ShardNote:
    file = archive.extractfile(info)
    try:
        return ShardNote.model_validate_json(file.read() if file else b"")
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise DataError(
            f"{shard}: {info.name} lacks class, folder, name or sha256 ({problem['msg']}): {_SHARD_ADVICE}"
        ) from error


def _refuse_without_end(shard: Path) -> None:
    """A tar file ends in empty blocks; one that was cut between two members does not."""
    with shard.open("rb") as file:
        file.seek(-tarfile.BLOCKSIZE, 2)
        if any(file.read()):
            raise tarfile.ReadError("its end is missing")


def write_shards(files: Iterable[Source], target: Path, shard_bytes: int) -> tuple[int, int]:
    """Pack files into ``shard-000000.tar``, ..., all or none.

    Args:
        files: the images, in the order in which they are written.
        target: a directory that does not exist yet.
        shard_bytes: a shard is closed once it is this large.

    Returns:
        The numbers of images and of shards.
    """
    import webdataset  # type: ignore[import-untyped]  # noqa: PLC0415  no types; it loads torch

    if target.exists():
        raise DataError(f"{target} exists: choose another directory, or delete it")
    partial = target.with_name(f"{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    count = 0
    # Equal files make equal shards: no time is written, and bytes pass as they are.
    with webdataset.ShardWriter(
        str(partial / _SHARD_NAMES), maxsize=shard_bytes, verbose=0, mtime=0, encoder=False
    ) as writer:
        for file in files:
            # A number in place of its name: WebDataset cuts names at their first dot.
            writer.write(_sample(file, f"{file.kind}/{file.folder}/{count:08d}"))
            count += 1
    partial.replace(target)
    return count, len(list(target.iterdir()))


def _sample(file: Source, key: str) -> dict[str, object]:
    data = file.read()
    digest = hashlib.sha256(data).hexdigest()
    note = ShardNote(kind=file.kind, folder=file.folder, name=file.name, sha256=digest)
    suffix = Path(file.name).suffix.lower().lstrip(".") or "bin"
    return {"__key__": key, suffix: data, "json": note.model_dump_json(by_alias=True).encode()}
