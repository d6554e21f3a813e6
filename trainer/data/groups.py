"""What two splits must not have in common beside files: photographs, repositories, prompts.

In: the files of each split, and what is known of them. Out: a report of what is shared, a line
for each kind. Errors: ``DataError`` for what is shared without leave.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from trainer.data.errors import DataError

_SHOWN = 5


def check_groups(
    groups: Mapping[str, Mapping[str, Sequence[str]]], allowed: Collection[str]
) -> list[str]:
    """Find what lies in several splits.

    Args:
        groups: by kind (photograph, repo, prompt), by split: the group of each of its files.
        allowed: the kinds of groups that may be in several.
    """
    notes = []
    for kind, by_split in groups.items():
        counts = {split: Counter(names) for split, names in by_split.items()}
        every = {name for one in counts.values() for name in one}
        shared = sorted(name for name in every if sum(name in one for one in counts.values()) > 1)
        if not shared:
            continue
        shown = "; ".join(f"{name} ({_where(name, counts)})" for name in shared[:_SHOWN])
        more = f"; and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
        found = f"{len(shared)} of {len(every)} {kind}s are in several splits: {shown}{more}"
        if kind not in allowed:
            raise DataError(f"leak: {found}: {_advice(kind)}")
        notes.append(f"allowed: {found}")
    return notes


def _where(name: str, counts: Mapping[str, Counter[str]]) -> str:
    return ", ".join(f"{split} {one[name]}" for split, one in counts.items() if one[name])


def _advice(kind: str) -> str:
    if kind == "photograph":
        return "put a photograph and all its regenerations into one split"
    return (
        f"put each {kind} into one split (NAME@{kind}=0-2/4 takes whole {kind}s), or say that it is "
        f'meant: data.allow_shared = ["{kind}"]'
    )
