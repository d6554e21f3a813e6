"""The batches of a run, made ahead by threads while the student trains.

In: the numbers of the batches wanted. Out: those batches, in that order. Errors: those of making
a batch, raised where it is taken. A batch is a function of its number, so the number of threads
changes nothing; decoding and encoding pictures leave Python's lock to others.
"""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

from trainer.data.batches import Batch


class Source(Protocol):
    """What batches are asked of."""

    def at(self, step: int) -> Batch:
        """The batch of one number."""
        ...


def made_ahead(
    source: Source, numbers: Iterable[int], workers: int
) -> Generator[Batch, None, None]:
    """The batches of ``numbers``; as many as there are workers are being made meanwhile."""
    wanted = iter(numbers)
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="batches") as executor:
        coming: deque[Future[Batch]] = deque(
            executor.submit(source.at, number) for number in islice(wanted, workers)
        )
        try:
            while coming:
                batch = coming.popleft().result()
                coming.extend(executor.submit(source.at, one) for one in islice(wanted, 1))
                yield batch
        finally:
            # Whoever stops early must not wait for batches that nobody wants.
            executor.shutdown(wait=False, cancel_futures=True)
