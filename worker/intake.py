"""Intake: event -> fetch -> decode, for many events at once, each on its own.

In: tokens with their records. Out: decoded images for the batcher, and outcomes that need no engine: poison, and
scores that the cache knew. CPU work runs in the decode threads, waiting for the network in the fetch threads.
"""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import (
    DecodedImage,
    ImageError,
    Limits,
    Prepared,
    crop_prepared,
    decode_image,
)
from worker.cache import VerdictCache
from worker.engine import Engine, EngineSlots
from worker.errors import Fatal, Poison, Retryable
from worker.event import ImageEvent, Record, parse_event
from worker.fetch import Fetcher
from worker.metrics import Metrics
from worker.settings import DecodeSettings, Settings
from worker.types import (
    AckToken,
    Clock,
    Decoded,
    Fetched,
    Rejected,
    Score,
    Scored,
    ScoreKey,
    Taken,
)

OUT_OF_MEMORY = "out_of_memory"
MEMORY_ATTEMPTS = 3
MEMORY_PAUSE_S = 1.0


def _give_up(_seconds: float) -> bool:
    return True


def limits_of(settings: DecodeSettings) -> Limits:
    """The caps that are checked before any pixel is decoded."""
    return Limits(
        max_bytes=settings.max_bytes,
        max_pixels=settings.max_pixels,
        max_jpeg_scans=settings.max_jpeg_scans,
        min_side_px=settings.min_side_px,
    )


def checked_sha256(event: ImageEvent, data: bytes) -> str:
    """The SHA-256 of the image's bytes, hex.

    Raises:
        Poison: The event promised another one: these are not the bytes that its sender meant.
    """
    found = hashlib.sha256(data).hexdigest()
    if event.sha256 is not None and event.sha256.lower() != found:
        raise Poison(
            "fetch",
            "sha256_mismatch",
            f"the image's SHA-256 is {found}, the event says {event.sha256}: send the event again",
        )
    return found


def decode(data: bytes, spec: PreprocessSpec, limits: Limits) -> Prepared:
    """Crops of the image, as the bundle wants them; :class:`Poison` as :func:`decode_pixels` says."""
    return crop_prepared(decode_pixels(data, limits), spec)


def decode_pixels(
    data: bytes, limits: Limits, pause: Callable[[float], bool] = _give_up
) -> DecodedImage:
    """The whole image, from which each engine takes its own crops.

    Args:
        data: Encoded bytes.
        limits: What is refused before it is decoded.
        pause: Called with seconds where memory is short, which may be the machine's fault and pass;
            returns True to give up. By default the first failure is the last.

    Raises:
        Poison: The bytes are no image, a broken one, one past the caps, or one that memory does not hold.
        Retryable: The worker is stopping while memory is short: another one will decode it.
    """
    for attempt in range(1, MEMORY_ATTEMPTS + 1):
        try:
            return decode_image(data, limits)
        except ImageError as error:
            last = attempt == MEMORY_ATTEMPTS or pause is _give_up
            if error.code != OUT_OF_MEMORY or last:
                raise Poison("decode", error.code, str(error), attempt) from error
            if pause(MEMORY_PAUSE_S * attempt):
                raise Retryable(str(error)) from error
    raise AssertionError("unreachable: the loop returns or raises")


# Told of every image that has gone its way, with its bytes, and its pixels if it had to be decoded.
Mirror = Callable[[Fetched, bytes, DecodedImage | None], None]


class Intake:
    """Takes records on and gets their images ready.

    Args:
        settings: Threads and caps.
        slots: Say which engine decides about a content.
        cache: Knows scores by SHA-256.
        fetcher: Gets bytes by URI.
        decoded: Is given every decoded image.
        scored: Is given every image whose score the cache knew.
        rejected: Is given every poison record.
        mirror: Is shown every image once the deciding path has it; must neither block nor raise.
        failed: Is given an error that must end the process.
        metrics: Durations and cache look-ups.
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        slots: EngineSlots,
        cache: VerdictCache,
        fetcher: Fetcher,
        decoded: Callable[[Decoded], None],
        scored: Callable[[Scored], None],
        rejected: Callable[[Rejected], None],
        mirror: Mirror | None,
        failed: Callable[[Fatal], None],
        metrics: Metrics,
        clock: Clock,
        wall_clock: Clock,
    ) -> None:
        self._limits, self._slots, self._mirror = limits_of(settings.decode), slots, mirror
        self._cache, self._fetcher = cache, fetcher
        self._decoded, self._scored = decoded, scored
        self._rejected, self._failed = rejected, failed
        self._metrics, self._clock, self._wall_clock = metrics, clock, wall_clock
        self._decoders = ThreadPoolExecutor(settings.decode.threads, "decode")
        self._fetchers = ThreadPoolExecutor(settings.fetch.threads, "fetch")
        self._closing = threading.Event()
        self._log = structlog.get_logger()

    def take(self, token: AckToken, record: Record) -> None:
        """Take a record on; returns at once."""
        queued_s = max(self._wall_clock() - record.timestamp_ms / 1000, 0.0)
        self._metrics.observe("queued", queued_s)
        self.take_again(Taken(token, record, self._clock(), queued_s * 1000))

    def take_again(self, taken: Taken) -> None:
        """Take on once more what the engine that was chosen for it could not score; returns at once."""
        if self._closing.is_set():
            return  # it stays unacknowledged and is redelivered
        self._decoders.submit(self._or_reject, taken, None, "event", lambda: self._open(taken))

    def close(self) -> None:
        """Take nothing on any more; what is unfinished stays unacknowledged."""
        self._closing.set()
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def _open(self, taken: Taken) -> None:
        event = parse_event(taken.record).no_later_than(self._wall_clock())
        if event.payload is None:
            step = lambda: self._fetch(taken, event)  # noqa: E731 (a named step reads better here)
            self._fetchers.submit(self._or_reject, taken, event, "fetch", step)
        else:
            payload = event.payload
            self._or_reject(
                taken, event, "decode", lambda: self._decode(taken, event, payload, 0.0)
            )

    def _fetch(self, taken: Taken, event: ImageEvent) -> None:
        started_s = self._clock()
        data = self._fetcher.fetch(event.uri or "")
        fetch_ms = self._metrics.since("fetch", started_s, self._clock())
        step = lambda: self._decode(taken, event, data, fetch_ms)  # noqa: E731 (see above)
        # Waiting here bounds the memory: no more images lie about undecoded than there are fetchers.
        self._decoders.submit(self._or_reject, taken, event, "decode", step).result()

    def _decode(self, taken: Taken, event: ImageEvent, data: bytes, fetch_ms: float) -> None:
        fetched = Fetched(taken, event, checked_sha256(event, data), len(data), fetch_ms)
        engine = self._slots.acquire(event.content_id)
        pixels: DecodedImage | None = None
        kept = False
        try:
            if (score := self._cached_score(ScoreKey(fetched.sha256, engine.id))) is not None:
                self._scored(Scored(fetched, engine, score, True, 0.0, 0.0))  # noqa: FBT003 (from the cache)
            else:
                pixels = self._to_batch(fetched, engine, data)
                kept = True
        finally:
            if not kept:  # whoever scores it gives its lease back
                self._slots.release(engine)
        if self._mirror is not None:
            self._mirror(fetched, data, pixels)

    def _to_batch(self, fetched: Fetched, engine: Engine, data: bytes) -> DecodedImage:
        """Decode, and hand on the crops; returns the pixels."""
        started_s = self._clock()
        pixels = decode_pixels(data, self._limits, self._closing.wait)
        image = crop_prepared(pixels, engine.spec)
        decode_ms = self._metrics.since("decode", started_s, self._clock())
        self._decoded(Decoded(fetched, engine, image, decode_ms, self._clock()))
        return pixels

    def _cached_score(self, key: ScoreKey) -> Score | None:
        try:
            score = self._cache.score(key)
        except Retryable:
            # Publishing will wait for Redis; meanwhile inferring again is no harm.
            self._metrics.score_cache.labels("unreachable").inc()
            return None
        self._metrics.score_cache.labels("hit" if score else "miss").inc()
        return score

    def _or_reject(
        self, taken: Taken, event: ImageEvent | None, stage: str, step: Callable[[], None]
    ) -> None:
        """Run one step of one event; whatever goes wrong becomes a dead letter of that event alone."""
        try:
            step()
        except Poison as error:
            self._rejected(Rejected.because(error, taken, event))
        except Retryable:
            return  # the worker is stopping: the event stays unacknowledged and is redelivered
        except Fatal as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 (the edge: an unforeseen error must not lose the event)
            if self._closing.is_set():
                return  # the pools are shut: the event stays unacknowledged and is redelivered
            self._log.exception("unforeseen_error", stage=stage, offset=taken.record.offset)
            message = f"unforeseen {type(error).__name__}: see the worker's log at this offset"
            self._rejected(Rejected(taken, event, stage, "unforeseen", message, 1))
