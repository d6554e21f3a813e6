"""A few of many, evenly spread: the same ones whenever the order is the same.

In: a sequence and a count. Out: a list. No errors.
"""

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most ``count`` of the items, from the first on, at equal distances, in their order."""
    chosen = min(count, len(items))
    return [items[index * len(items) // chosen] for index in range(chosen)]
