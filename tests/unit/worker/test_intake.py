"""Each record goes its own way to the engine, to publishing or to the dead letters, and harms no other."""

import hashlib
import json
import queue
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import DecodedImage, ImageError, Limits
from tests.unit.worker.engines import make_tiny_engine
from tests.unit.worker.samples import (
    base64_text,
    cloudevent,
    event,
    jpeg_bytes,
    record,
    structured,
)
from tests.unit.worker.services import make_services, never
from worker.cache import Published, VerdictCache, connect
from worker.engine import Engine, EngineSlots
from worker.errors import Fatal, Poison, Retryable, WorkerError
from worker.event import CLOCK_ERROR_MAX, Record
from worker.fetch import Fetcher
from worker.intake import IntakeStage, checked_sha256, decode, decode_pixels, limits_of
from worker.settings import DecodeSettings, FetchSettings, RedisSettings, Settings
from worker.types import (
    AckToken,
    Decoded,
    Event,
    Links,
    Payload,
    Received,
    Rejected,
    Score,
    Scored,
    ScoreKey,
    Timings,
    UploadedImage,
)

WAIT_S = 20
Found = Payload | Fatal


class Running:
    """An intake stage whose every outcome lands in one queue."""

    def __init__(
        self,
        engine: Engine,
        redis_url: str,
        fetcher: Fetcher | None = None,
        root: Path | None = None,
    ) -> None:
        fetch = FetchSettings(schemes=("file",) if root else (), file_root=root, attempts=1)
        settings = Settings(fetch=fetch)
        self.cache = VerdictCache(
            connect(RedisSettings(url=redis_url, timeout_s=0.5)), settings.redis
        )
        self.slots = EngineSlots(engine)
        self.copied: list[tuple[UploadedImage, bytes, DecodedImage | None]] = []
        self.found: queue.SimpleQueue[Found] = queue.SimpleQueue()
        services = make_services(
            self.slots, settings=settings, cache=self.cache, clock=time.monotonic
        )
        self.metrics = services.metrics
        links = Links(self.found.put, self.found.put, lambda _: True, self._copy)
        self.stage = IntakeStage(
            services, links, fetcher or Fetcher(fetch, 10_000, never, time.monotonic)
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def submit(self, source: Record, offset: int = 7) -> None:
        """A record that was received 5 s after it was written."""
        token = AckToken("images.uploaded", 2, offset, 1, 10)
        self.stage.submit(Received(Event(token, source, Timings(time.monotonic(), 5000.0))))

    def outcome(self, source: Record) -> Found:
        """What becomes of a record."""
        self.submit(source)
        return self.found.get(timeout=WAIT_S)

    def decoded(self, source: Record) -> Decoded:
        """The crops of a record's image."""
        found = self.outcome(source)
        assert isinstance(found, Decoded)
        return found

    def rejected(self, source: Record) -> Rejected:
        """The rejection of a record."""
        found = self.outcome(source)
        assert isinstance(found, Rejected)
        return found

    def counted(self, result: str) -> float | None:
        """Look-ups of the score cache with this result."""
        return self.metrics.registry.get_sample_value(
            "synthgate_score_cache_lookups_total", {"result": result}
        )

    def seconds(self, stage: str) -> float:
        """The time that all events spent in a stage."""
        name = "synthgate_stage_duration_seconds_sum"
        return self.metrics.registry.get_sample_value(name, {"stage": stage}) or 0.0

    def close(self) -> None:
        """End it, and its thread."""
        self.stage.close()
        self._thread.join(timeout=WAIT_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.stage.run()
        except Fatal as error:
            self.found.put(error)

    def _copy(
        self, _event: Event, image: UploadedImage, data: bytes, pixels: DecodedImage | None
    ) -> None:
        self.copied.append((image, data, pixels))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A real one."""
    made = make_tiny_engine(tmp_path_factory.mktemp("engine"))
    yield made
    made.bundle.runtime.close()


@pytest.fixture
def running(engine: Engine, redis_url: str, tmp_path: Path) -> Iterator[Running]:
    """An intake with a real cache and real files."""
    (tmp_path / "image.jpg").write_bytes(jpeg_bytes())
    made = Running(engine, redis_url, root=tmp_path)
    yield made
    made.close()


def inline(data: bytes, **fields: object) -> Record:
    """An event that carries these bytes."""
    return structured(
        cloudevent({"content_id": "content-1", "data_base64": base64_text(data)} | fields)
    )


def by_uri(uri: str) -> Record:
    """An event that names this URI."""
    return structured(cloudevent({"content_id": "content-1", "uri": uri}))


def test_an_inline_image_is_decoded(running: Running) -> None:
    """With its digest, its size, and how long it had waited in the topic."""
    found = running.decoded(inline(jpeg_bytes()))
    assert found.crops.image_NHWC.shape == (1, 32, 32, 3)
    assert (found.image.size_bytes, found.event.timings.fetch_ms) == (len(jpeg_bytes()), 0.0)
    assert found.event.timings.queued_ms == 5000.0
    assert running.counted("miss") == 1


def test_a_stage_is_timed_in_seconds_and_written_in_milliseconds(running: Running) -> None:
    """The histogram has base units; verdicts and logs have milliseconds."""
    found = running.decoded(inline(jpeg_bytes()))
    assert found.event.timings.decode_ms > 0
    assert running.seconds("decode") * 1000 == pytest.approx(found.event.timings.decode_ms)


def test_a_time_in_the_far_future_counts_as_now(running: Running) -> None:
    """Or it would keep every later verdict of its content out of Redis; a clock's error is let pass."""
    now = datetime.fromtimestamp(1_770_000_005.0, tz=UTC)
    for ahead, expected in (
        (timedelta(days=9999), now + CLOCK_ERROR_MAX),
        (timedelta(minutes=4), now + timedelta(minutes=4)),
        (-timedelta(days=9999), now - timedelta(days=9999)),
    ):
        document = cloudevent({"content_id": "c", "data_base64": base64_text(jpeg_bytes())})
        found = running.decoded(structured(document | {"time": (now + ahead).isoformat()}))
        assert found.image.upload.event_time == expected


def test_an_image_by_uri_is_fetched_and_decoded(running: Running, tmp_path: Path) -> None:
    """The same image has the same digest, however it came."""
    fetched = running.decoded(by_uri(f"file://{tmp_path}/image.jpg"))
    carried = running.decoded(inline(jpeg_bytes()))
    assert fetched.image.sha256 == carried.image.sha256
    assert fetched.event.timings.fetch_ms > 0


def test_a_known_score_saves_decoding_and_inference(running: Running) -> None:
    """The cache knows these bytes: they need not even be an image that decodes."""
    first = running.decoded(inline(jpeg_bytes()))
    score = Score(1.5, "image/jpeg", 64, 48)
    key = ScoreKey(first.image.sha256, first.engine.id)
    running.cache.record([Published("id", None, key, score)])
    found = running.outcome(inline(jpeg_bytes()))
    assert isinstance(found, Scored)
    assert (found.score, found.from_cache, running.counted("hit")) == (score, True, 1)


def test_without_its_cache_it_decodes_all_the_same(engine: Engine) -> None:
    """Inferring twice is no harm; publishing will wait for the cache."""
    running = Running(engine, "redis://127.0.0.1:1/0")
    assert isinstance(running.outcome(inline(jpeg_bytes())), Decoded)
    assert running.counted("unreachable") == 1
    running.close()


def test_poison_is_rejected_where_it_shows(running: Running, tmp_path: Path) -> None:
    """Each with the stage and code of its reason; the event, once it was readable."""
    unreadable = running.rejected(record(b"not json"))
    assert (unreadable.stage, unreadable.code, unreadable.upload) == (
        "event",
        "malformed_json",
        None,
    )
    for source, stage, code in (
        (by_uri(f"file://{tmp_path}/missing.jpg"), "fetch", "not_found"),
        (by_uri("https://images.example/1.jpg"), "fetch", "scheme_not_allowed"),
        (inline(jpeg_bytes(), sha256="0" * 64), "fetch", "sha256_mismatch"),
        (inline(b"plain text"), "decode", "unsupported_format"),
        (inline(jpeg_bytes()[:-300]), "decode", "truncated"),
    ):
        found = running.rejected(source)
        assert (found.stage, found.code) == (stage, code)
        assert found.upload is not None
        assert found.event.record is source
    assert isinstance(running.outcome(inline(jpeg_bytes())), Decoded), "the next is none the worse"


class FailingFetcher(Fetcher):
    """A fetcher that fails in one way."""

    def __init__(self, error: Exception) -> None:
        super().__init__(FetchSettings(), 1, lambda _s: False, time.monotonic)
        self._error = error

    def fetch(self, uri: str) -> bytes:  # noqa: ARG002 (it fails on every one)
        """Never the bytes."""
        raise self._error


@pytest.mark.parametrize("error", [KeyError("a bug"), ZeroDivisionError()])
def test_an_unexpected_error_loses_no_event(
    engine: Engine, redis_url: str, error: Exception
) -> None:
    """It becomes a dead letter that says where to look; the payload stays out of it."""
    running = Running(engine, redis_url, FailingFetcher(error))
    found = running.rejected(by_uri("https://h/1"))
    assert (found.stage, found.code) == ("fetch", "unforeseen")
    assert (
        found.message == f"unexpected {type(error).__name__}: see the worker's log at this offset"
    )
    running.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [(Fatal("refused"), Fatal), (Poison("fetch", "gone", "gone"), Rejected)],
)
def test_the_kind_of_an_error_decides(
    engine: Engine, redis_url: str, error: WorkerError, kind: type[Found]
) -> None:
    """Fatal ends the process, Poison the event."""
    running = Running(engine, redis_url, FailingFetcher(error))
    assert isinstance(running.outcome(by_uri("https://h/1")), kind)
    running.close()


def test_a_fetch_that_a_stop_broke_off_is_left_to_another_worker(
    engine: Engine, redis_url: str
) -> None:
    """No outcome at all: the record stays unacknowledged."""
    running = Running(engine, redis_url, FailingFetcher(Retryable("stopping")))
    running.submit(by_uri("https://h/1"))
    assert isinstance(running.outcome(inline(jpeg_bytes())), Decoded)
    running.stage._fetchers.shutdown(wait=True)  # until the failing fetch has ended
    running.close()
    assert running.found.empty()


def test_an_engine_stays_acquired_for_its_crops_and_is_released_otherwise(
    running: Running, engine: Engine
) -> None:
    """Poison and known scores need no engine: one that stayed acquired could never be closed."""
    found = running.decoded(inline(jpeg_bytes()))
    assert found.engine is engine
    running.rejected(inline(b"plain text"))
    running.cache.remember_score(
        ScoreKey(found.image.sha256, engine.id), Score(1.5, "image/jpeg", 64, 48)
    )
    scored = running.outcome(inline(jpeg_bytes()))
    assert isinstance(scored, Scored)
    assert scored.engine is engine
    running.stage._decoders.shutdown(wait=True)
    assert running.slots._in_use == {engine: 1}


def test_a_shadow_gets_a_copy_of_every_image(running: Running) -> None:
    """Every image once, with the pixels that were decoded anyway; nothing of what is poison."""
    first = running.decoded(inline(jpeg_bytes()))
    running.rejected(inline(b"plain text"))
    running.cache.remember_score(
        ScoreKey(first.image.sha256, first.engine.id), Score(1.5, "image/jpeg", 64, 48)
    )
    running.outcome(inline(jpeg_bytes()))
    running.stage._decoders.shutdown(wait=True)
    (image, data, pixels), (again, _, none) = running.copied
    assert pixels is not None
    assert (pixels.width_px, pixels.height_px) == (64, 48)
    assert none is None
    assert image.sha256 == again.sha256 == first.image.sha256
    assert data == jpeg_bytes()


def test_every_record_has_one_outcome(running: Running, tmp_path: Path) -> None:
    """Many at once, good and bad, from several threads: none is lost, none comes twice."""
    sources = [
        source
        for number in range(20)
        for source in (
            inline(jpeg_bytes(48, 64 + number)),
            by_uri(f"file://{tmp_path}/image.jpg"),
            by_uri(f"file://{tmp_path}/{number}.jpg"),
            record(json.dumps({"number": number}).encode()),
        )
    ]
    for offset, source in enumerate(sources):
        running.submit(source, offset)
    offsets = list[int]()
    for _ in sources:
        found = running.found.get(timeout=WAIT_S)
        assert not isinstance(found, Fatal)
        offsets.append(found.event.token.offset)
    assert sorted(offsets) == list(range(len(sources)))
    assert running.found.empty()


SPEC = PreprocessSpec(version="1", crop_policy="grid", crop_px=32, max_crops=2)


def test_an_image_becomes_crops() -> None:
    """As the bundle wants them."""
    found = decode(jpeg_bytes(32, 64), SPEC, Limits())
    assert found.image_NHWC.shape == (2, 32, 32, 3)
    assert (found.mime, found.width_px, found.height_px) == ("image/jpeg", 64, 32)


@pytest.mark.parametrize(
    ("data", "limits", "code"),
    [
        (b"", Limits(), "empty"),
        (b"plain text, named .png", Limits(), "unsupported_format"),
        (jpeg_bytes()[:-200], Limits(), "truncated"),
        (jpeg_bytes(), Limits(max_bytes=100), "too_many_bytes"),
        (jpeg_bytes(), Limits(max_pixels=100), "too_many_pixels"),
        (jpeg_bytes(8, 8), Limits(), "too_small"),
    ],
)
def test_what_is_no_image_is_poison_at_decode(data: bytes, limits: Limits, code: str) -> None:
    """The code is the preprocessing's own, the message is kept."""
    with pytest.raises(Poison) as caught:
        decode(data, SPEC, limits)
    assert (caught.value.stage, caught.value.code) == ("decode", code)
    assert caught.value.message


def test_the_caps_are_the_settings() -> None:
    """Each under its own name."""
    settings = DecodeSettings(max_bytes=1, max_pixels=2, max_jpeg_scans=3, min_side_px=4)
    assert limits_of(settings) == Limits(max_bytes=1, max_pixels=2, max_jpeg_scans=3, min_side_px=4)
    assert limits_of(DecodeSettings()) == Limits(), "the worker's defaults are the trainer's"


def test_the_digest_is_computed_and_compared() -> None:
    """Other bytes than promised are not what the sender meant to have judged."""
    digest = hashlib.sha256(b"image").hexdigest()
    for promised in (None, digest, digest.upper()):
        assert checked_sha256(event(sha256=promised), b"image") == digest
    with pytest.raises(Poison) as caught:
        checked_sha256(event(sha256="0" * 64), b"image")
    assert (caught.value.stage, caught.value.code) == ("fetch", "sha256_mismatch")
    assert digest in caught.value.message


def test_short_memory_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the machine's fault: two more attempts, then a dead letter that counts them."""
    pauses: list[float] = []

    def short(*_: object) -> DecodedImage:
        raise ImageError("out_of_memory", "no memory")

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        if len(pauses) == 2:
            monkeypatch.undo()
        return False

    monkeypatch.setattr("worker.intake.decode_image", short)
    assert decode_pixels(jpeg_bytes(), Limits(), pause).mime == "image/jpeg"
    assert pauses == [1.0, 2.0]
    monkeypatch.setattr("worker.intake.decode_image", short)
    with pytest.raises(Poison) as caught:
        decode_pixels(jpeg_bytes(), Limits(), lambda _: False)
    assert (caught.value.code, caught.value.attempts) == ("out_of_memory", 3)
    with pytest.raises(Retryable):
        decode_pixels(jpeg_bytes(), Limits(), lambda _: True)
