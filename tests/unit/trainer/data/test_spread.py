"""A few of many, evenly spread."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from trainer.data.spread import evenly


@given(st.integers(0, 50), st.integers(1, 60))
def test_distances_differ_by_one_at_most(size: int, count: int) -> None:
    """From the first on, to the end, none twice, in order; all of them where there are no more."""
    chosen = evenly(range(size), count)
    assert len(chosen) == min(size, count)
    assert chosen[:1] == list(range(size))[:1]
    gaps = {after - before for before, after in pairwise([*chosen, size])}
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)
