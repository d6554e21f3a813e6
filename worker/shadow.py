"""The shadow: a second infer stage that scores a copy of every image, and decides nothing.

Its engine is that of the slot ``shadow``, its sink a topic of its own; its verdicts carry ``mode: shadow`` and
never reach Redis. The primary path waits for nothing here: what the shadow is too slow for is dropped and
counted, and no offset waits for its verdict (docs/adr/0013). Every error is counted and logged, and none leaves
this module. A redelivered event gives a second copy with the same id.
"""

import math
import threading
from dataclasses import replace
from typing import Protocol

import structlog

from engines.preprocess import DecodedImage, crop_prepared
from worker.engine import Engine
from worker.infer import InferStage
from worker.intake import decode_pixels, limits_of
from worker.messages import Message, Renderer
from worker.publish import ShadowPublisher
from worker.services import Services
from worker.types import AckToken, Decided, Decoded, Event, Links, Payload, Rejected, UploadedImage

THREAD_NAME = "shadow"
# How long a stop waits for images that still wait here: no decision depends on them.
DRAIN_TIMEOUT_S = 5.0
# For the batch that is running then.
JOIN_TIMEOUT_S = DRAIN_TIMEOUT_S + 1.0


class MessageSender(Protocol):
    """Where the shadow's verdicts go."""

    def send(self, message: Message) -> None:
        """Send a message without waiting for its acknowledgement."""
        ...

    def close(self) -> None:
        """Release the connections."""
        ...


class Shadow:
    """Scores a copy of every image; its :meth:`submit` is the intake's ``ShadowSink``.

    Args:
        services: The shared parts of the worker.
        sender: Where its verdicts go; by default the shadow topic.
    """

    def __init__(self, services: Services, sender: MessageSender | None = None) -> None:
        settings = services.settings
        self._slots, self._clock = services.slots, services.clocks.monotonic
        self._events = services.metrics.shadow_events
        self._limits, self._max_waiting = limits_of(settings.decode), settings.flow.max_in_flight
        self._sender = sender or ShadowPublisher(settings.kafka, services.metrics)
        self._renderer = Renderer(settings, settings.kafka.shadow_topic, services.clocks)
        self._infer = InferStage(
            services, Links(self._publish, self._give_up, _acknowledge_nothing)
        )
        self._ends_at_s = math.inf
        self._thread = threading.Thread(target=self._infer.run, name=THREAD_NAME, daemon=True)
        self._log = structlog.get_logger()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Score what waits, for a few seconds; drop the rest."""
        self._ends_at_s = self._clock() + DRAIN_TIMEOUT_S
        self._infer.close(DRAIN_TIMEOUT_S)
        self._thread.join(JOIN_TIMEOUT_S)
        self._sender.close()

    def submit(
        self, event: Event, image: UploadedImage, data: bytes, pixels: DecodedImage | None
    ) -> None:
        """Take a copy of an image; returns without an error whatever happens.

        Args:
            event: Its envelope.
            image: Its event and digest.
            data: Its bytes.
            pixels: The decoded image, where the primary path had to decode it.
        """
        engine = self._slots.acquire_shadow()
        if engine is None:
            return
        handed_on = False
        try:
            if self._infer.waiting >= self._max_waiting:
                self._count("dropped")
            else:
                self._infer.submit(self._cropped(engine, event, image, data, pixels))
                handed_on = True
        except Exception as error:  # noqa: BLE001 (the edge: no error of the shadow may reach the primary path)
            self._fail(error)
        finally:
            if not handed_on:
                self._slots.release(engine)

    def _cropped(
        self,
        engine: Engine,
        event: Event,
        image: UploadedImage,
        data: bytes,
        pixels: DecodedImage | None,
    ) -> Decoded:
        """The crops for this engine, without the image's bytes: what waits here is not counted as in flight."""
        started_s = self._clock()
        crops = crop_prepared(pixels or decode_pixels(data, self._limits), engine.spec)
        now_s = self._clock()
        timings = replace(event.timings, decode_ms=(now_s - started_s) * 1000)
        event = replace(event, record=replace(event.record, value=None), timings=timings)
        image = replace(image, upload=replace(image.upload, payload=None))
        return Decoded(event, image, engine, crops, now_s)

    def _publish(self, payload: Payload) -> None:
        """The sink of its infer stage."""
        if isinstance(payload, Decided):
            self._sender.send(self._renderer.verdict(payload).message)
        elif isinstance(payload, Rejected):
            self._fail(payload.message)

    def _give_up(self, _payload: Payload) -> None:
        """Count an image that was not scored: the shadow broke, or the worker stops."""
        self._count("dropped" if self._clock() >= self._ends_at_s else "failed")

    def _fail(self, error: object) -> None:
        self._count("failed")
        self._log.warning("shadow_event_failed", error=str(error) or repr(error))

    def _count(self, outcome: str) -> None:
        self._events.labels(outcome).inc()


def _acknowledge_nothing(_token: AckToken) -> bool:
    return False
