"""What a real cache keeps: the newest verdict whatever the order, marks, and scores by engine."""

import json
from itertools import permutations

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.cache import RECENT_SCORES, Published, StoredVerdict, VerdictCache, connect
from worker.errors import Fatal, Retryable
from worker.settings import RedisSettings
from worker.types import Score, ScoreKey

SCORE = Score(1.25, "image/jpeg", 64, 48)


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    """A client of the emptied cache."""
    return connect(RedisSettings(url=redis_url))


def make_cache(client: redis.Redis) -> VerdictCache:
    """A cache with short times to live."""
    times = RedisSettings(verdict_ttl_s=100, published_ttl_s=200, score_ttl_s=300)
    return VerdictCache(client, times)


def verdict(event_time: int, built_at: int, content_id: str = "content") -> Published:
    """A verdict of an event and an engine of those times."""
    times = (f"2026-01-01T00:00:00.{event_time:06}Z", f"2026-01-01T00:00:00.{built_at:06}Z")
    identity = f"verdict-{event_time}-{built_at}"
    document = {"id": identity, "data": {"event_time": times[0], "model": {"built_at": times[1]}}}
    stored = StoredVerdict(identity, content_id, json.dumps(document).encode(), *times)
    return Published(identity, stored)


def stored_id(client: redis.Redis, content_id: str = "content") -> str:
    """Which verdict the cache holds."""
    stored = client.get(f"synthgate:verdict:{content_id}")
    assert isinstance(stored, bytes)
    return str(json.loads(stored)["id"])


def test_a_verdict_is_written_once_and_has_a_time_to_live(client: redis.Redis) -> None:
    """The document itself, under the content's id; a second time changes nothing."""
    cache, first = make_cache(client), verdict(1, 1)
    assert cache.record([first]) == ["written"]
    assert cache.record([first]) == ["same"]
    assert first.verdict is not None
    assert client.get("synthgate:verdict:content") == first.verdict.document
    assert 0 < int(client.ttl("synthgate:verdict:content")) <= 100


def test_a_newer_event_wins_then_a_newer_engine(client: redis.Redis) -> None:
    """An old event by a new engine is still an old event."""
    cache = make_cache(client)
    assert cache.record([verdict(2, 1)]) == ["written"]
    assert cache.record([verdict(1, 9)]) == ["stale"]
    assert cache.record([verdict(2, 0)]) == ["stale"]
    assert cache.record([verdict(2, 2), verdict(3, 0)]) == ["written", "written"]
    assert stored_id(client) == "verdict-3-0"


@given(times=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_newest_stays_whatever_the_order(
    client: redis.Redis, times: set[tuple[int, int]]
) -> None:
    """Redeliveries and two engines at once may come in any order."""
    cache = make_cache(client)
    for order in permutations(times):
        client.delete("synthgate:verdict:content")
        for event_time, built_at in order:
            cache.record([verdict(event_time, built_at)])
        assert stored_id(client) == "verdict-{}-{}".format(*max(times))


def test_what_is_no_verdict_is_replaced(client: redis.Redis) -> None:
    """Whatever wrote it there: failing would hold up every event behind this one."""
    cache = make_cache(client)
    for value in (b"not json", b"[]", b'{"data": 7}', b'{"data": {}}', b"7"):
        client.set("synthgate:verdict:content", value)
        assert cache.record([verdict(1, 1)]) == ["written"]
    client.delete("synthgate:verdict:content")
    client.rpush("synthgate:verdict:content", "a list")
    assert cache.record([verdict(1, 1)]) == ["written"]
    assert stored_id(client) == "verdict-1-1"


def test_what_was_published_is_known_again(client: redis.Redis) -> None:
    """Verdicts and dead letters alike, for as long as the settings say."""
    cache = make_cache(client)
    assert cache.record([Published("dead-letter"), verdict(1, 1)]) == ["written"]
    stored = cache.published(["dead-letter", "verdict-1-1", "unknown"])
    assert stored == {"dead-letter", "verdict-1-1"}
    assert 100 < int(client.ttl("synthgate:published:dead-letter")) <= 200


def test_scores_are_shared_between_workers_of_one_engine(client: redis.Redis) -> None:
    """Another engine's scores are its own."""
    make_cache(client).record([Published("id", None, ScoreKey("ab" * 32, "engine-1"), SCORE)])
    cache = make_cache(client)
    assert cache.score(ScoreKey("ab" * 32, "engine-1")) == SCORE
    assert cache.score(ScoreKey("ab" * 32, "engine-2")) is None
    assert cache.recent_score(ScoreKey("ab" * 32, "engine-2")) is None
    key = f"synthgate:score:{'ab' * 32}:engine-1"
    assert 200 < int(client.ttl(key)) <= 300


@pytest.mark.parametrize("value", [b"not json", b"{}", b'{"logit": "x"}', b"[1]"])
def test_an_unreadable_score_is_none(client: redis.Redis, value: bytes) -> None:
    """The image is inferred again."""
    client.set("synthgate:score:ab:engine-1", value)
    assert make_cache(client).score(ScoreKey("ab", "engine-1")) is None


def test_this_process_remembers_its_latest_scores(client: redis.Redis) -> None:
    """The same bytes in flight twice need no look-up; memory stays bounded, the oldest goes first."""
    cache = make_cache(client)
    for number in range(RECENT_SCORES + 1):
        cache.remember_score(ScoreKey(str(number), "engine-1"), SCORE)
    first, second, last = (ScoreKey(str(at), "engine-1") for at in (0, 1, RECENT_SCORES))
    assert cache.recent_score(first) is None
    assert cache.score(second) == cache.recent_score(last) == SCORE


def test_a_cache_that_is_away_may_come_back() -> None:
    """Every call says so in the same way, within its timeout."""
    away = make_cache(connect(RedisSettings(url="redis://127.0.0.1:1/0", timeout_s=0.5)))
    for call in (
        away.ping,
        lambda: away.score(ScoreKey("x", "engine-1")),
        lambda: away.published(["x"]),
        lambda: away.record([verdict(1, 1)]),
    ):
        with pytest.raises(Retryable, match="Redis: "):
            call()


def test_a_cache_that_refuses_ends_the_worker(client: redis.Redis, redis_url: str) -> None:
    """A wrong password, a user without rights: no attempt will ever do, and the message says where."""
    wrong = connect(
        RedisSettings.model_validate({"url": redis_url, "username": "w", "password": "no"})
    )
    with pytest.raises(Fatal, match=r"redis\.username, redis\.password"):
        make_cache(wrong).ping()
    client.acl_setuser("reader", enabled=True, passwords=["+pw"], commands=["+ping"])
    try:
        reader = RedisSettings.model_validate(
            {"url": redis_url, "username": "reader", "password": "pw"}
        )
        limited = make_cache(connect(reader))
        limited.ping()
        with pytest.raises(Fatal, match="Redis refuses this worker"):
            limited.score(ScoreKey("x", "engine-1"))
    finally:
        client.acl_deluser("reader")
