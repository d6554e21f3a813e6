"""What files there are: in folders, or in the tar files of WebDataset shards.

In: roots that hold ``real/NAME/*`` and ``fake/NAME/*``, or ``*.tar`` with the same inside. Out: a
``Listing`` of files by class and folder; nothing is decoded. Errors: ``DataError`` for a root that
is not there, or a shard that is not whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.data.errors import DataError
from trainer.data.shards import Kind, Member, members

CLASSES: tuple[Kind, ...] = ("real", "fake")


@dataclass(frozen=True)
class File:
    """One image file; its bytes lie in a file of their own, or in a shard."""

    kind: Kind
    folder: str  # the source of a photograph, or the generator
    path: Path  # the file, or its shard
    member: Member | None = None

    @property
    def name(self) -> str:
        """The file's own name, wherever it lies."""
        return self.member.name if self.member else self.path.name

    @property
    def key(self) -> str:
        """A name that is the same on every machine: ``fake/sd1/0001.png``."""
        return f"{self.kind}/{self.folder}/{self.name}"

    def read(self) -> bytes:
        """Its bytes; those of a shard must be the ones that were put in."""
        try:
            return self.member.read(self.path) if self.member else self.path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be read ({error.strerror}): restore it, or exclude {self.key}"
            ) from error


@dataclass(frozen=True)
class Listing:
    """Files by class, then folder."""

    folders: dict[Kind, dict[str, list[File]]]

    def files(self) -> Iterator[File]:
        """Every file."""
        for folders in self.folders.values():
            for files in folders.values():
                yield from files


def listed(files: Iterator[File]) -> Listing:
    """Files, put by class and folder."""
    folders: dict[Kind, dict[str, list[File]]] = {kind: {} for kind in CLASSES}
    for file in files:
        folders[file.kind].setdefault(file.folder, []).append(file)
    return Listing(folders)


def list_roots(roots: Sequence[Path]) -> Listing:
    """The files of all roots; a folder's name may occur in several."""
    if not roots:
        raise DataError("no data: set data.roots, or give --data DIR")
    listing = Listing({kind: {} for kind in CLASSES})
    for root in roots:
        if not root.is_dir():
            raise DataError(f"{root} is no folder: name one with real/* and fake/*, or with *.tar")
        for kind in CLASSES:
            for folder in sorted((root / kind).glob("*")):
                if folder.is_dir():
                    files = listing.folders[kind].setdefault(folder.name, [])
                    files += _in_folder(folder, kind)
        for shard in sorted(root.glob("*.tar")):
            for member in members(shard):
                files = listing.folders[member.kind].setdefault(member.folder, [])
                files.append(File(member.kind, member.folder, shard, member))
    return listing


def _in_folder(folder: Path, kind: Kind) -> Iterator[File]:
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("."):
            yield File(kind, folder.name, path)
