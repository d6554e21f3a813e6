"""Infer: a batch of decoded images in, one result an image out, in the same order.

Repeated bytes within a batch are inferred once. If the engine fails on a batch, its images are tried one
by one: an image that fails alone is poison, unless a plain grey one fails after it: then the engine is broken.
Errors: :class:`Fatal` when the engine cannot score anything any more, :class:`DeviceGone` when its device is lost.
"""

import queue
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from engines.preprocess import Prepared
from engines.runtime.protocol import DeviceLost, Runtime, RuntimeFailure
from worker.cache import VerdictCache
from worker.decide import decided
from worker.engine import EngineSlots
from worker.errors import DeviceGone, Fatal, Poison
from worker.metrics import Metrics
from worker.settings import BatchSettings, Settings
from worker.types import (
    Clock,
    Decoded,
    Outcome,
    Rejected,
    Score,
    Scored,
    ScoreKey,
    Taken,
)

Element = TypeVar("Element")
IDLE_WAIT_S = 0.5


class Batcher(Generic[Element]):
    """Collects items into batches of at most ``max_items``, none older than ``max_age_s``.

    Args:
        max_items: A batch of this size closes at once.
        max_age_s: A batch whose first item is this old closes, however small.
    """

    def __init__(self, max_items: int, max_age_s: float) -> None:
        self._max_items = max_items
        self._max_age_s = max_age_s
        self._items: list[Element] = []
        self._opened_at_s = 0.0

    def add(self, item: Element, now_s: float) -> list[Element] | None:
        """Add one item; the batch, if that filled it."""
        if not self._items:
            self._opened_at_s = now_s
        self._items.append(item)
        return self.take() if len(self._items) >= self._max_items else None

    def due(self, now_s: float) -> list[Element] | None:
        """The batch, if its first item is old enough."""
        if self._items and now_s - self._opened_at_s >= self._max_age_s:
            return self.take()
        return None

    def wait_s(self, now_s: float) -> float:
        """Seconds until the open batch is due; a fixed idle wait where none is open."""
        if not self._items:
            return IDLE_WAIT_S
        return max(self._max_age_s - (now_s - self._opened_at_s), 0.0)

    def take(self) -> list[Element]:
        """Close the open batch and return it; empty where none is open."""
        items, self._items = self._items, []
        return items


def batches(
    source: "queue.SimpleQueue[Element | None]",
    new_batcher: Callable[[], Batcher[Element]],
    key: Callable[[Element], Hashable],
    clock: Clock,
) -> Iterator[list[Element]]:
    """Batches of what arrives on ``source``, each of one key, until it yields None; then the rest, and the end.

    Args:
        source: Items; None ends them.
        new_batcher: Called for a key that has no open batch.
        key: Items of different keys never share a batch.
        clock: Monotonic seconds.
    """
    open_batches: dict[Hashable, Batcher[Element]] = {}
    while True:
        waits = [batcher.wait_s(clock()) for batcher in open_batches.values()]
        try:
            item = source.get(timeout=min(waits, default=IDLE_WAIT_S))
        except queue.Empty:
            pass
        else:
            if item is None:
                break
            batcher = open_batches.setdefault(key(item), new_batcher())
            if full := batcher.add(item, clock()):
                del open_batches[key(item)]
                yield full
        yield from _due(open_batches, clock())
    yield from (batcher.take() for batcher in open_batches.values())


def _due(open_batches: dict[Hashable, Batcher[Element]], now_s: float) -> Iterator[list[Element]]:
    """The batches that are old enough; their keys, which may never come again, are forgotten."""
    for each, batcher in list(open_batches.items()):
        if closed := batcher.due(now_s):
            del open_batches[each]
            yield closed


def engine_batches(
    decoded: "queue.SimpleQueue[Decoded | None]", settings: BatchSettings, clock: Clock
) -> Iterator[list[Decoded]]:
    """Batches of decoded images, each of one engine, of the size and age that the settings say."""
    size, age_s = settings.max_images, settings.max_age_ms / 1000
    return batches(decoded, lambda: Batcher[Decoded](size, age_s), lambda each: each.engine, clock)


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a batch: its crops, and the digest that tells repeats."""

    sha256: str
    image: Prepared


def infer_batch(runtime: Runtime, batch: Sequence[Item]) -> list[Score | Poison]:
    """Score every image of a batch.

    Returns:
        For each image its score, or the Poison that says why this one image cannot be scored.

    Raises:
        Fatal: An image failed, and then a plain grey one as well: the engine is broken, not the image.
        DeviceGone: The engine says that its device is lost: no image is to blame.
    """
    distinct = list({item.sha256: item for item in batch}.values())
    results = dict(zip((item.sha256 for item in distinct), _infer(runtime, distinct), strict=True))
    return [results[item.sha256] for item in batch]


def _infer(runtime: Runtime, items: Sequence[Item]) -> list[Score | Poison]:
    try:
        return list(_scores(runtime, items))
    except DeviceLost as error:
        raise DeviceGone(str(error)) from error
    except (RuntimeFailure, MemoryError) as error:
        results = [_isolated(runtime, item) for item in items]
        failed = [result for result in results if isinstance(result, Poison)]
        if failed and not _still_works(runtime, items[0]):
            raise Fatal(f"the engine cannot score anything any more: {error}") from error
        return results


def _isolated(runtime: Runtime, item: Item) -> Score | Poison:
    try:
        return _scores(runtime, [item])[0]
    except DeviceLost as error:
        raise DeviceGone(str(error)) from error
    except (RuntimeFailure, MemoryError) as error:
        return Poison("infer", "engine_failure", f"the engine fails on this image: {error}", 2)


def _still_works(runtime: Runtime, example: Item) -> bool:
    """Whether the engine can score a plain grey crop: tells a bad image from a broken engine."""
    grey_NHWC = np.full_like(example.image.image_NHWC[:1], 128)
    try:
        runtime.infer(grey_NHWC)
    except (RuntimeFailure, MemoryError):
        return False
    return True


def _scores(runtime: Runtime, items: Sequence[Item]) -> list[Score]:
    crops_NHWC = np.concatenate([item.image.image_NHWC for item in items])
    logit_N = _infer_chunks(runtime, crops_NHWC)
    ends = np.cumsum([len(item.image.image_NHWC) for item in items])
    per_image = np.split(logit_N, ends[:-1])
    return [
        Score(float(logits.mean()), item.image.mime, item.image.width_px, item.image.height_px)
        for item, logits in zip(items, per_image, strict=True)
    ]


def _infer_chunks(runtime: Runtime, crops_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Crops [N,H,W,3] to logits [N]: a batch may hold more crops than the engine takes at once."""
    step = runtime.batch_max
    parts = [
        runtime.infer(crops_NHWC[start : start + step]) for start in range(0, len(crops_NHWC), step)
    ]
    return np.concatenate(parts)


class ScoreLoop:
    """Scores batches until its queue yields None.

    Args:
        settings: Batch size and age, block policy.
        slots: Get the leases back, and are told of a canary that broke.
        cache: Remembers scores for repeats that are already decoded.
        decoded: The queue of images; None ends the loop.
        outcomes: Is given every outcome.
        again: Is given what a broken canary did not score, for another engine.
        metrics: Batch sizes and durations.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        slots: EngineSlots,
        cache: VerdictCache,
        decoded: "queue.SimpleQueue[Decoded | None]",
        outcomes: Callable[[Outcome], None],
        again: Callable[[Taken], None],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._settings, self._slots, self._cache = settings, slots, cache
        self._decoded, self._outcomes, self._again = decoded, outcomes, again
        self._metrics, self._clock = metrics, clock

    def run(self) -> None:
        """Score until the end of the queue."""
        for batch in engine_batches(self._decoded, self._settings.batch, self._clock):
            self._metrics.batch_images.observe(len(batch))
            self._metrics.queue_depth.labels("batch").set(self._decoded.qsize())
            try:
                self._score(batch)
            except Fatal as error:
                self._without_canary(batch, error)
            finally:
                for each in batch:
                    self._slots.release(each.engine)

    def decide(self, scored: Scored) -> None:
        """From the score to the band; also for scores that the cache knew."""
        self._outcomes(decided(scored, self._settings.decide.block, self._clock()))

    def _score(self, batch: list[Decoded]) -> None:
        engine = batch[0].engine
        results: dict[str, Score | Poison] = {}
        fresh: list[Item] = []
        for each in batch:
            # Bytes that were scored while these waited for their batch are not inferred again.
            sha256 = each.fetched.sha256
            if (known := self._cache.recent_score(ScoreKey(sha256, engine.id))) is not None:
                results[sha256] = known
            else:
                fresh.append(Item(sha256, each.image))
        inferred = infer_batch(engine.bundle.runtime, fresh) if fresh else []
        for item, result in zip(fresh, inferred, strict=True):
            results[item.sha256] = result
            if isinstance(result, Score):
                self._cache.remember_score(ScoreKey(item.sha256, engine.id), result)
        for each in batch:
            self._conclude(each, results[each.fetched.sha256])

    def _conclude(self, item: Decoded, result: Score | Poison) -> None:
        if isinstance(result, Poison):
            self._outcomes(Rejected.because(result, item.fetched.taken, item.fetched.event))
            return
        infer_ms = self._metrics.since("infer", item.decoded_at_s, self._clock())
        self.decide(Scored(item.fetched, item.engine, result, False, item.decode_ms, infer_ms))  # noqa: FBT003 (not from the cache)

    def _without_canary(self, batch: list[Decoded], error: Fatal) -> None:
        """A canary is there to be found out: what it cannot score is scored by the engine in place."""
        engine = batch[0].engine
        if engine.role != "canary":
            raise error
        if self._slots.evict(engine):
            self._metrics.swapped(engine.role, "broken")
            structlog.get_logger().error(
                "engine_broken", role=engine.role, version=engine.model.version, error=str(error)
            )
        for each in batch:
            self._again(each.fetched.taken)
