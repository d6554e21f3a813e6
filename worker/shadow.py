"""The shadow thread: a second engine scores a copy of every event, and decides nothing.

In: images that the deciding path has already. Out: verdicts with ``mode: shadow`` for a topic of their own, never
for Redis. Errors: none leave here; each is counted and logged.

The deciding path waits for nothing here: what the shadow is too slow for is dropped and counted, and no offset
waits for its verdict (docs/adr/0013). A redelivered event gives a second copy with the same id.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import replace

import structlog

from engines.preprocess import DecodedImage, crop_prepared
from worker.decide import decided
from worker.engine import Engine, EngineSlots
from worker.errors import Fatal, Poison
from worker.infer import Item, engine_batches, infer_batch
from worker.intake import decode_pixels, limits_of
from worker.messages import Message, Renderer
from worker.metrics import Metrics
from worker.settings import Settings
from worker.types import Clock, Decoded, Fetched, Scored

THREAD_NAME = "shadow"
# How long a stop waits for what the shadow still has: nobody decides by it.
DRAIN_TIMEOUT_S = 5.0


class Shadow:
    """Scores beside the deciding engine.

    Args:
        settings: Batches, caps, block policy, and how many images may wait (as many as may be in flight).
        slots: Hold the shadow's engine, which may change or be missing.
        renderer: Writes the verdicts.
        send: Puts a message on its way; may fail, never waits for the acknowledgement.
        metrics: ``synthgate_shadow_events_total``.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        slots: EngineSlots,
        renderer: Renderer,
        send: Callable[[Message], None],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._settings, self._slots, self._renderer = settings, slots, renderer
        self._send, self._metrics, self._clock = send, metrics, clock
        self._limits = limits_of(settings.decode)
        self._waiting: queue.SimpleQueue[Decoded | None] = queue.SimpleQueue()
        self._giving_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._log = structlog.get_logger()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Score what waits, for a few seconds; what is left then is dropped."""
        self._waiting.put(None)
        self._thread.join(DRAIN_TIMEOUT_S)
        self._giving_up.set()

    def show(self, fetched: Fetched, data: bytes, pixels: DecodedImage | None) -> None:
        """Let the shadow score an image too; returns without an error whatever happens.

        Args:
            fetched: The event and its digest.
            data: The image's bytes.
            pixels: The image, where the deciding path had to decode it.
        """
        engine = self._slots.acquire_shadow()
        if engine is None:
            return
        kept = False
        try:
            if self._waiting.qsize() >= self._settings.flow.max_in_flight:
                self._count("dropped", 1)
            else:
                self._waiting.put(self._cropped(engine, fetched, data, pixels))
                kept = True
        except Exception as error:  # noqa: BLE001 (the edge: nothing of the shadow's may reach the deciding path)
            self._failed(1, error)
        finally:
            if not kept:
                self._slots.release(engine)

    def _cropped(
        self, engine: Engine, fetched: Fetched, data: bytes, pixels: DecodedImage | None
    ) -> Decoded:
        started_s = self._clock()
        image = crop_prepared(pixels or decode_pixels(data, self._limits), engine.spec)
        now_s = self._clock()
        return Decoded(_light(fetched), engine, image, (now_s - started_s) * 1000, now_s)

    def _run(self) -> None:
        for batch in engine_batches(self._waiting, self._settings.batch, self._clock):
            try:
                if self._giving_up.is_set():
                    self._count("dropped", len(batch))
                else:
                    self._score(batch)
            except Fatal as error:
                self._evict(batch, error)
            except Exception as error:  # noqa: BLE001 (the edge: a shadow must not end the worker)
                self._log.exception("shadow_failed")
                self._failed(len(batch), error)
            finally:
                for each in batch:
                    self._slots.release(each.engine)

    def _score(self, batch: list[Decoded]) -> None:
        runtime = batch[0].engine.bundle.runtime
        results = infer_batch(runtime, [Item(each.fetched.sha256, each.image) for each in batch])
        for each, result in zip(batch, results, strict=True):
            if isinstance(result, Poison):
                self._failed(1, result)
                continue
            now_s = self._clock()
            infer_ms = (now_s - each.decoded_at_s) * 1000
            scored = Scored(each.fetched, each.engine, result, False, each.decode_ms, infer_ms)  # noqa: FBT003 (not from the cache)
            verdict = decided(scored, self._settings.decide.block, now_s)
            self._send(self._renderer.verdict(verdict).message)

    def _evict(self, batch: list[Decoded], error: Fatal) -> None:
        engine = batch[0].engine
        self._count("failed", len(batch))
        if self._slots.evict(engine):
            self._metrics.swapped(engine.role, "broken")
            self._log.error(
                "engine_broken", role=engine.role, version=engine.model.version, error=str(error)
            )

    def _failed(self, count: int, error: Exception) -> None:
        self._count("failed", count)
        self._log.warning("shadow_event_failed", count=count, error=str(error) or repr(error))

    def _count(self, outcome: str, count: int) -> None:
        self._metrics.shadow_events.labels(outcome).inc(count)


def _light(fetched: Fetched) -> Fetched:
    """The same without the image's bytes: what waits here is not counted as in flight."""
    taken = replace(fetched.taken, record=replace(fetched.taken.record, value=None))
    return replace(fetched, taken=taken, event=replace(fetched.event, payload=None))
