"""The intake stage: event -> fetch -> decode, for many events at once.

Takes received records; passes on decoded images for the infer stage, known scores from the cache, and
rejections. The CPU work runs in the decode threads, waiting for the network in the fetch threads.
"""

import hashlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

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
from worker.engine import Engine
from worker.errors import Fatal, Poison, Retryable
from worker.event import ImageEvent, parse_event
from worker.fetch import Fetcher
from worker.s3 import open_s3
from worker.services import Services
from worker.settings import DecodeSettings, Settings
from worker.types import (
    Clock,
    Decoded,
    Event,
    Links,
    Payload,
    Received,
    Rejected,
    Score,
    Scored,
    ScoreKey,
    UploadedImage,
)

OUT_OF_MEMORY = "out_of_memory"
MEMORY_ATTEMPTS = 3
MEMORY_PAUSE_S = 1.0


class IntakeStage:
    """Gets the images of received records ready for an engine.

    Args:
        services: The shared parts of the worker.
        links: ``next`` takes every payload, ``shadow`` a copy of every image.
        fetcher: Reads images by URI; by default the one that the settings describe.
    """

    def __init__(self, services: Services, links: Links, fetcher: Fetcher | None = None) -> None:
        settings, self._clocks = services.settings, services.clocks
        self._cache, self._slots, self._links = services.cache, services.slots, links
        self._stage_seconds = services.metrics.stage_seconds
        self._lookups = services.metrics.score_cache
        self._limits = limits_of(settings.decode)
        self._fetcher = fetcher or build_fetcher(
            settings, self._clocks.pause, self._clocks.monotonic
        )
        self._decoders = ThreadPoolExecutor(settings.decode.threads, "decode")
        self._fetchers = ThreadPoolExecutor(settings.fetch.threads, "fetch")
        self._closing = threading.Event()
        # A Fatal error of a pool thread, or None at the end.
        self._end: queue.SimpleQueue[Fatal | None] = queue.SimpleQueue()
        self._log = structlog.get_logger()

    def submit(self, payload: Payload) -> None:
        """Take a received record; returns at once. While closing, it stays unacknowledged."""
        if not isinstance(payload, Received):
            self._links.next(payload)
        elif not self._closing.is_set():
            event = payload.event
            self._decoders.submit(self._guarded, "event", event, None, partial(self._read, event))

    def run(self) -> None:
        """Wait for the end; the pools do the work.

        Raises:
            Fatal: A pool thread met an error that ends the process.
        """
        if (error := self._end.get()) is not None:
            raise error

    def close(self) -> None:
        """Take nothing more; what is unfinished stays unacknowledged."""
        self._closing.set()
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._end.put(None)

    def _read(self, event: Event) -> None:
        upload = parse_event(event.record).no_later_than(self._clocks.wall())
        if upload.payload is None:
            step = partial(self._fetch, event, upload)
            self._fetchers.submit(self._guarded, "fetch", event, upload, step)
        else:
            step = partial(self._decode, event, upload, upload.payload)
            self._guarded("decode", event, upload, step)

    def _fetch(self, event: Event, upload: ImageEvent) -> None:
        started_s = self._clocks.monotonic()
        data = self._fetcher.fetch(upload.uri or "")
        fetch_s = self._clocks.monotonic() - started_s
        self._stage_seconds.labels("fetch").observe(fetch_s)
        event = replace(event, timings=replace(event.timings, fetch_ms=fetch_s * 1000))
        step = partial(self._decode, event, upload, data)
        # Waiting here bounds the memory: no more images wait undecoded than there are fetchers.
        self._decoders.submit(self._guarded, "decode", event, upload, step).result()

    def _decode(self, event: Event, upload: ImageEvent, data: bytes) -> None:
        image = UploadedImage(upload, checked_sha256(upload, data), len(data))
        engine = self._slots.acquire(upload.content_id)
        pixels: DecodedImage | None = None
        handed_on = False
        try:
            if (score := self._cached_score(ScoreKey(image.sha256, engine.id))) is not None:
                self._links.next(Scored(event, image, engine, score, from_cache=True))
            else:
                pixels = self._crop(event, image, engine, data)
                handed_on = True
        finally:
            if not handed_on:  # the infer stage releases what it takes
                self._slots.release(engine)
        if self._links.shadow is not None:
            self._links.shadow(event, image, data, pixels)

    def _crop(
        self, event: Event, image: UploadedImage, engine: Engine, data: bytes
    ) -> DecodedImage:
        """Decode the image and pass its crops on; returns the pixels."""
        started_s = self._clocks.monotonic()
        pixels = decode_pixels(data, self._limits, self._closing.wait)
        crops = crop_prepared(pixels, engine.spec)
        decode_s = self._clocks.monotonic() - started_s
        self._stage_seconds.labels("decode").observe(decode_s)
        event = replace(event, timings=replace(event.timings, decode_ms=decode_s * 1000))
        self._links.next(Decoded(event, image, engine, crops, self._clocks.monotonic()))
        return pixels

    def _cached_score(self, key: ScoreKey) -> Score | None:
        try:
            score = self._cache.score(key)
        except Retryable:
            # Publish will wait for Redis; inferring the image again does no harm.
            self._lookups.labels("unreachable").inc()
            return None
        self._lookups.labels("hit" if score else "miss").inc()
        return score

    def _guarded(
        self, stage: str, event: Event, upload: ImageEvent | None, step: Callable[[], None]
    ) -> None:
        """Run one step of one event; any error becomes a dead letter of that event alone."""
        try:
            step()
        except Poison as error:
            self._links.next(Rejected.because(error, event, upload))
        except Retryable:
            return  # the worker is stopping: the event stays unacknowledged and is redelivered
        except Fatal as error:
            self._end.put(error)
        except Exception as error:  # noqa: BLE001 (the edge: an unexpected error must not lose the event)
            if self._closing.is_set():
                return  # the pools are shut: the event stays unacknowledged and is redelivered
            self._log.exception("unexpected_error", stage=stage, offset=event.record.offset)
            message = f"unexpected {type(error).__name__}: see the worker's log at this offset"
            self._links.next(Rejected(event, upload, stage, "unforeseen", message, 1))


def build_fetcher(
    settings: Settings, pause: Callable[[float], bool], clock: Clock = time.monotonic
) -> Fetcher:
    """The fetcher that the settings describe.

    Args:
        settings: Allowed schemes, caps, attempts.
        pause: Called with seconds between attempts; returns True to give up.
        clock: Monotonic seconds.
    """
    store = open_s3(settings.fetch) if "s3" in settings.fetch.schemes else None
    return Fetcher(settings.fetch, settings.decode.max_bytes, pause, clock, store)


def limits_of(settings: DecodeSettings) -> Limits:
    """The caps that are checked before any pixel is decoded."""
    return Limits(
        max_bytes=settings.max_bytes,
        max_pixels=settings.max_pixels,
        max_jpeg_scans=settings.max_jpeg_scans,
        min_side_px=settings.min_side_px,
    )


def checked_sha256(upload: ImageEvent, data: bytes) -> str:
    """The SHA-256 of the image's bytes, hex.

    Raises:
        Poison: The event states another digest: these are not the bytes that its sender meant.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    if upload.sha256 is not None and upload.sha256.lower() != sha256:
        raise Poison(
            "fetch",
            "sha256_mismatch",
            f"the image's SHA-256 is {sha256}, the event says {upload.sha256}: send the event again",
        )
    return sha256


def decode(data: bytes, spec: PreprocessSpec, limits: Limits) -> Prepared:
    """Crops of the image as the bundle wants them.

    Raises:
        Poison: See :func:`decode_pixels`.
    """
    return crop_prepared(decode_pixels(data, limits), spec)


def _give_up(_seconds: float) -> bool:
    return True


def decode_pixels(
    data: bytes, limits: Limits, pause: Callable[[float], bool] = _give_up
) -> DecodedImage:
    """The whole image, from which each engine takes its own crops.

    Args:
        data: Encoded bytes.
        limits: Caps that are checked before decoding.
        pause: Called with seconds when memory is short, which may pass; returns True to give up. By default the
            first failure is final.

    Raises:
        Poison: The bytes are not an image, are damaged, exceed a cap, or do not fit in memory.
        Retryable: The worker is stopping while memory is short: another worker will decode the image.
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
