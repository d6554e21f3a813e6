"""Which files a split's selectors name.

In: a listing, its manifest's rows where there is one, and selectors. Out: files by folder. Errors:
``DataError`` for a selector that is none, or that names nothing.

``NAME`` is a folder or a pattern of folders; ``repo:NAME`` the files of the repositories that it
names, whatever their folder. ``[a:b:c]`` then takes a slice of each folder by file name.
``@repo=K/N`` or ``@prompt=K-L/N`` takes whole repositories or prompts: they are dealt into N parts
by their digests, and the parts K to L (from 0) are kept, so that none is divided.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from trainer.data.errors import DataError
from trainer.data.listing import File, Listing
from trainer.data.manifest import Row
from trainer.data.shards import Kind

_SELECTOR = re.compile(
    r"(?P<repo>repo:)?(?P<name>[^\[\]@]+)"
    r"(?:\[(?P<slice>-?\d*(?::-?\d*){1,2})\])?"
    r"(?:@(?P<group>repo|prompt)=(?P<first>\d+)(?:-(?P<last>\d+))?/(?P<parts>[1-9]\d*))?"
)


@dataclass(frozen=True)
class Choice:
    """Where to choose from, and for whom."""

    listing: Listing
    rows: Mapping[str, Row]  # by key; empty without a manifest
    exclude: Sequence[str]

    def selected(self, kind: Kind, selector: str, split: str) -> Iterator[tuple[str, list[File]]]:
        """The files of one selector, by folder, in the order of their names."""
        where = f"splits.{split}.{kind}"
        match = _SELECTOR.fullmatch(selector)
        if match is None:
            raise DataError(
                f"{where}: {selector!r} is no folder, glob, folder[start:stop:step] or "
                "folder@prompt=first-last/parts"
            )
        if (match["repo"] or match["group"]) and not self.rows:
            raise DataError(
                f"{where}: {selector!r} needs data.manifest, which says what is where from"
            )
        named = self._of_repo if match["repo"] else self._of_folder
        folders = dict(named(kind, match["name"]))
        if not folders:
            known = ", ".join(sorted(self.listing.folders[kind])) or "none"
            what = "repository" if match["repo"] else "folder"
            raise DataError(f"{where}: no {what} {match['name']!r} in data.roots; folders: {known}")
        part = _slice(match["slice"])
        for folder, files in folders.items():
            kept = [file for file in files if not self._excluded(file)]
            kept = sorted(kept, key=lambda file: file.name)[part]
            yield folder, [file for file in kept if self._in_part(file, match, where)]

    def _of_folder(self, kind: Kind, pattern: str) -> Iterator[tuple[str, list[File]]]:
        for folder, files in sorted(self.listing.folders[kind].items()):
            if fnmatchcase(folder, pattern):
                yield folder, files

    def _of_repo(self, kind: Kind, pattern: str) -> Iterator[tuple[str, list[File]]]:
        for folder, files in sorted(self.listing.folders[kind].items()):
            kept = [one for one in files if fnmatchcase(self.rows[one.key].repo or "", pattern)]
            if kept:
                yield folder, kept

    def _excluded(self, file: File) -> bool:
        return any(fnmatchcase(file.key, pattern) for pattern in self.exclude)

    def _in_part(self, file: File, match: re.Match[str], where: str) -> bool:
        if match["group"] is None:
            return True
        row = self.rows[file.key]
        value = row.repo if match["group"] == "repo" else row.prompt
        if value is None:
            raise DataError(
                f"{where}: {match[0]!r}: the manifest names no {match['group']} of {file.key}: "
                "divide this folder in another way"
            )
        first, parts = int(match["first"]), int(match["parts"])
        last = int(match["last"]) if match["last"] else first
        return first <= _part(value, parts) <= last


def _part(value: str, parts: int) -> int:
    """Which of N parts a group falls into; the same on every machine and in every folder."""
    return int.from_bytes(hashlib.sha256(value.encode()).digest()[:8]) % parts


def _slice(text: str | None) -> slice:
    if text is None:
        return slice(None)
    return slice(*(int(one) if one else None for one in text.split(":")))
