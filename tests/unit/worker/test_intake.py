"""Each record goes its own way to the engine, to publishing or to the dead letters, and harms no other."""

import json
import queue
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engines.preprocess import DecodedImage
from tests.unit.worker.engines import make_tiny_engine
from tests.unit.worker.samples import (
    base64_text,
    cloudevent,
    jpeg_bytes,
    record,
    structured,
)
from worker.cache import Published, VerdictCache, connect
from worker.engine import Engine, EngineSlots
from worker.errors import Fatal, Poison, Retryable, WorkerError
from worker.event import CLOCK_ERROR_MAX, Record
from worker.fetch import Fetcher
from worker.intake import Intake
from worker.metrics import Metrics
from worker.settings import FetchSettings, RedisSettings, Settings
from worker.types import AckToken, Decoded, Fetched, Rejected, Score, Scored, ScoreKey

WAIT_S = 20
Found = Decoded | Scored | Rejected | Fatal


class Running:
    """An intake whose every outcome lands in one queue."""

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
        self.metrics = Metrics()
        self.slots = EngineSlots(engine)
        self.shown: list[tuple[Fetched, bytes, DecodedImage | None]] = []
        self.found: queue.SimpleQueue[Found] = queue.SimpleQueue()
        put = self.found.put
        self.intake = Intake(
            settings, self.slots, self.cache,
            fetcher or Fetcher(fetch, 10_000, lambda _s: False, time.monotonic),
            put, put, put, lambda *shown: self.shown.append(shown), put, self.metrics,
            time.monotonic, lambda: 1_770_000_005.0,
        )  # fmt: skip

    def take(self, source: Record) -> Found:
        """What becomes of a record."""
        self.intake.take(AckToken("images.uploaded", 2, 7, 1, 10), source)
        return self.found.get(timeout=WAIT_S)

    def rejected(self, source: Record) -> Rejected:
        """The rejection of a record."""
        found = self.take(source)
        assert isinstance(found, Rejected)
        return found

    def counted(self, result: str) -> float | None:
        """Look-ups of the score cache with this result."""
        return self.metrics.registry.get_sample_value(
            "synthgate_score_cache_lookups_total", {"result": result}
        )


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
    made.intake.close()


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
    found = running.take(inline(jpeg_bytes()))
    assert isinstance(found, Decoded)
    assert found.image.image_NHWC.shape == (1, 32, 32, 3)
    assert (found.fetched.size_bytes, found.fetched.fetch_ms) == (len(jpeg_bytes()), 0.0)
    assert found.fetched.taken.queued_ms == pytest.approx(5000.0)
    assert running.counted("miss") == 1


def test_a_time_in_the_far_future_counts_as_now(running: Running) -> None:
    """Or it would keep every later verdict of its content out of Redis; a clock's error is let pass."""
    now = datetime.fromtimestamp(1_770_000_005.0, tz=UTC)
    for ahead, expected in (
        (timedelta(days=9999), now + CLOCK_ERROR_MAX),
        (timedelta(minutes=4), now + timedelta(minutes=4)),
        (-timedelta(days=9999), now - timedelta(days=9999)),
    ):
        document = cloudevent({"content_id": "c", "data_base64": base64_text(jpeg_bytes())})
        found = running.take(structured(document | {"time": (now + ahead).isoformat()}))
        assert isinstance(found, Decoded)
        assert found.fetched.event.event_time == expected


def test_an_image_by_uri_is_fetched_and_decoded(running: Running, tmp_path: Path) -> None:
    """The same image has the same digest, however it came."""
    fetched = running.take(by_uri(f"file://{tmp_path}/image.jpg"))
    carried = running.take(inline(jpeg_bytes()))
    assert isinstance(fetched, Decoded)
    assert isinstance(carried, Decoded)
    assert fetched.fetched.sha256 == carried.fetched.sha256
    assert fetched.fetched.fetch_ms > 0


def test_a_known_score_saves_decoding_and_inference(running: Running) -> None:
    """The cache knows these bytes: they need not even be an image that decodes."""
    first = running.take(inline(jpeg_bytes()))
    assert isinstance(first, Decoded)
    score = Score(1.5, "image/jpeg", 64, 48)
    key = ScoreKey(first.fetched.sha256, first.engine.id)
    running.cache.record([Published("id", None, key, score)])
    found = running.take(inline(jpeg_bytes()))
    assert isinstance(found, Scored)
    assert (found.score, found.from_cache, running.counted("hit")) == (score, True, 1)


def test_without_its_cache_it_decodes_all_the_same(engine: Engine) -> None:
    """Inferring twice is no harm; publishing will wait for the cache."""
    running = Running(engine, "redis://127.0.0.1:1/0")
    assert isinstance(running.take(inline(jpeg_bytes())), Decoded)
    assert running.counted("unreachable") == 1
    running.intake.close()


def test_poison_is_rejected_where_it_shows(running: Running, tmp_path: Path) -> None:
    """Each with the stage and code of its reason; the event, once it was readable."""
    unreadable = running.rejected(record(b"not json"))
    assert (unreadable.stage, unreadable.code, unreadable.event) == (
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
        assert found.event is not None
        assert found.taken.record is source
    assert isinstance(running.take(inline(jpeg_bytes())), Decoded), "the next is none the worse"


class FailingFetcher(Fetcher):
    """A fetcher that fails in one way."""

    def __init__(self, error: Exception) -> None:
        super().__init__(FetchSettings(), 1, lambda _s: False, time.monotonic)
        self._error = error

    def fetch(self, uri: str) -> bytes:  # noqa: ARG002 (it fails on every one)
        """Never the bytes."""
        raise self._error


@pytest.mark.parametrize("error", [KeyError("a bug"), ZeroDivisionError()])
def test_an_unforeseen_error_loses_no_event(
    engine: Engine, redis_url: str, error: Exception
) -> None:
    """It becomes a dead letter that says where to look; the payload stays out of it."""
    running = Running(engine, redis_url, FailingFetcher(error))
    found = running.rejected(by_uri("https://h/1"))
    assert (found.stage, found.code) == ("fetch", "unforeseen")
    assert (
        found.message == f"unforeseen {type(error).__name__}: see the worker's log at this offset"
    )
    running.intake.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [(Fatal("refused"), Fatal), (Poison("fetch", "gone", "gone"), Rejected)],
)
def test_the_kind_of_an_error_decides(
    engine: Engine, redis_url: str, error: WorkerError, kind: type[Found]
) -> None:
    """Fatal ends the process, Poison the event."""
    running = Running(engine, redis_url, FailingFetcher(error))
    assert isinstance(running.take(by_uri("https://h/1")), kind)
    running.intake.close()


def test_a_fetch_that_a_stop_broke_off_is_left_to_another_worker(
    engine: Engine, redis_url: str
) -> None:
    """No outcome at all: the record stays unacknowledged."""
    running = Running(engine, redis_url, FailingFetcher(Retryable("stopping")))
    running.intake.take(AckToken("images.uploaded", 2, 7, 1, 10), by_uri("https://h/1"))
    assert isinstance(running.take(inline(jpeg_bytes())), Decoded)
    running.intake._fetchers.shutdown(wait=True)  # until the failing fetch has ended
    running.intake.close()
    assert running.found.empty()


def test_a_lease_travels_with_the_crops_and_else_comes_back(
    running: Running, engine: Engine
) -> None:
    """Poison and known scores need no engine any more: one that kept its lease could never be freed."""
    found = running.take(inline(jpeg_bytes()))
    assert isinstance(found, Decoded)
    assert found.engine is engine
    running.rejected(inline(b"plain text"))
    running.cache.remember_score(
        ScoreKey(found.fetched.sha256, engine.id), Score(1.5, "image/jpeg", 64, 48)
    )
    scored = running.take(inline(jpeg_bytes()))
    assert isinstance(scored, Scored)
    assert scored.engine is engine
    running.intake._decoders.shutdown(wait=True)
    assert running.slots._in_use == {engine: 1}


def test_a_shadow_is_shown_what_was_decided(running: Running) -> None:
    """Every image once, with the pixels that were decoded anyway; nothing of what is poison."""
    first = running.take(inline(jpeg_bytes()))
    assert isinstance(first, Decoded)
    running.rejected(inline(b"plain text"))
    running.cache.remember_score(
        ScoreKey(first.fetched.sha256, first.engine.id), Score(1.5, "image/jpeg", 64, 48)
    )
    running.take(inline(jpeg_bytes()))
    running.intake._decoders.shutdown(wait=True)
    (one, pixels), (again, none) = ((shown[0], shown[2]) for shown in running.shown)
    assert pixels is not None
    assert (pixels.width_px, pixels.height_px) == (64, 48)
    assert none is None
    assert one.sha256 == again.sha256 == first.fetched.sha256
    assert running.shown[0][1] == jpeg_bytes()


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
        running.intake.take(AckToken("images.uploaded", 0, offset, 1, 10), source)
    offsets = list[int]()
    for _ in sources:
        found = running.found.get(timeout=WAIT_S)
        assert not isinstance(found, Fatal)
        taken = found.taken if isinstance(found, Rejected) else found.fetched.taken
        offsets.append(taken.token.offset)
    assert sorted(offsets) == list(range(len(sources)))
    assert running.found.empty()
