"""The infer stage: batch -> run -> decide. The shadow runs the same stage with its own engine and sink.

A batch closes by size or by age and holds images of one engine, so a swap of engines falls between two batches.
Repeated bytes within a batch are inferred once. If the engine fails on a batch, its images are tried one by
one. An image that fails alone is poison. If a plain grey image fails after it, the engine is broken instead.
"""

import math
import queue
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from engines.preprocess import Prepared
from engines.runtime.protocol import DeviceLost, Runtime, RuntimeFailure
from worker.decide import decided
from worker.engine import Engine
from worker.errors import DeviceGone, Fatal, Poison
from worker.services import Services
from worker.settings import BatchSettings
from worker.types import (
    Clock,
    Decoded,
    Links,
    Payload,
    Received,
    Rejected,
    Score,
    Scored,
    ScoreKey,
)

Element = TypeVar("Element")
IDLE_WAIT_S = 0.5


class InferStage:
    """Scores decoded images in batches and decides about them.

    Args:
        services: The shared parts of the worker.
        links: ``next`` takes decisions and rejections; ``requeue`` takes what a canary or a shadow did not score.
    """

    def __init__(self, services: Services, links: Links) -> None:
        self._settings, self._metrics = services.settings, services.metrics
        self._cache, self._slots = services.cache, services.slots
        self._clock = services.clocks.monotonic
        self._links = links
        self._decoded: queue.SimpleQueue[Decoded | None] = queue.SimpleQueue()
        self._ends_at_s = math.inf
        self._log = structlog.get_logger()

    @property
    def waiting(self) -> int:
        """Images that wait for a batch."""
        return self._decoded.qsize()

    def submit(self, payload: Payload) -> None:
        """Take a decoded image, or a score that is already known; returns at once."""
        if isinstance(payload, Decoded):
            self._decoded.put(payload)
        elif isinstance(payload, Scored):
            self._decide(payload)
        else:
            self._links.next(payload)

    def run(self) -> None:
        """Score batch after batch until closed.

        Raises:
            Fatal: The deciding engine cannot score anything. A canary or a shadow loses its slot instead.
        """
        for batch in engine_batches(self._decoded, self._settings.batch, self._clock):
            engine = batch[0].engine
            if _decides(engine):
                self._metrics.batch_images.observe(len(batch))
                self._metrics.queue_depth.labels("batch").set(self.waiting)
            try:
                if self._clock() < self._ends_at_s:
                    self._score(engine, batch)
                else:
                    self._hand_back(batch)
            except Exception as error:
                if not self._goes_on_without(engine, error):
                    raise
                self._hand_back(batch)
            finally:
                for decoded in batch:
                    self._slots.release(decoded.engine)

    def close(self, within_s: float = math.inf) -> None:
        """End the run after what waits: scored if its batch begins within that time, else handed back."""
        self._ends_at_s = self._clock() + within_s
        self._decoded.put(None)

    def _score(self, engine: Engine, batch: list[Decoded]) -> None:
        results: dict[str, Score | Poison] = {}
        fresh: list[Item] = []
        for decoded in batch:
            # Bytes that were scored while this image waited are not inferred again.
            sha256 = decoded.image.sha256
            known = (
                self._cache.recent_score(ScoreKey(sha256, engine.id)) if _decides(engine) else None
            )
            if known is not None:
                results[sha256] = known
            else:
                fresh.append(Item(sha256, decoded.crops))
        inferred = infer_batch(engine.bundle.runtime, fresh) if fresh else []
        for item, result in zip(fresh, inferred, strict=True):
            results[item.sha256] = result
            if isinstance(result, Score) and _decides(engine):
                self._cache.remember_score(ScoreKey(item.sha256, engine.id), result)
        for decoded in batch:
            self._conclude(decoded, results[decoded.image.sha256])

    def _conclude(self, decoded: Decoded, result: Score | Poison) -> None:
        event, image, engine = decoded.event, decoded.image, decoded.engine
        if isinstance(result, Poison):
            self._links.next(Rejected.because(result, event, image.upload))
            return
        infer_s = self._clock() - decoded.decoded_at_s
        if _decides(engine):
            self._metrics.stage_seconds.labels("infer").observe(infer_s)
        event = replace(event, timings=replace(event.timings, infer_ms=infer_s * 1000))
        self._decide(Scored(event, image, engine, result, from_cache=False))

    def _decide(self, scored: Scored) -> None:
        self._links.next(decided(scored, self._settings.decide.block, self._clock()))

    def _hand_back(self, batch: list[Decoded]) -> None:
        for decoded in batch:
            self._links.requeue(Received(decoded.event))

    def _goes_on_without(self, engine: Engine, error: Exception) -> bool:
        """Whether the worker survives this error: a broken canary or shadow only loses its slot."""
        if engine.role == "deciding" or (engine.role == "canary" and not isinstance(error, Fatal)):
            return False
        if not isinstance(error, Fatal):
            self._log.error("shadow_failed", exc_info=error)
        elif self._slots.evict(engine):
            self._metrics.swapped(engine.role, "broken")
            self._log.error(
                "engine_broken", role=engine.role, version=engine.model.version, error=str(error)
            )
        return True


def _decides(engine: Engine) -> bool:
    """Whether events wait for its verdicts: only these appear in the stage's metrics and in the score cache."""
    return engine.role != "shadow"


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
