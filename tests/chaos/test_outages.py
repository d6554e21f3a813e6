"""Broker and cache go away and come back, before, during and after: nothing is acknowledged meanwhile, nothing lost."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from kafka.errors import TopicAlreadyExistsError

from deploy.embedded.services import Server, valkey_cache
from deploy.embedded.topics import create_topics
from tests.support.events import binary, stream
from tests.support.lane import MOST_IN_FLIGHT, SLOW, Lane, open_lane
from tests.support.results import content_ids, verdict_ids
from tests.support.services import BrokerKind, make_broker
from tests.support.slow_bundles import marked
from tests.support.worker_fixtures import STEMS
from tests.support.worker_process import eventually

EVENTS = 300
PARTITIONS = 4  # as many as the embedded broker gives a topic that it makes up by itself


@pytest.fixture
def own_broker(broker_kind: BrokerKind, tmp_path: Path) -> Iterator[Server]:
    """A broker that this test may kill."""
    with make_broker(broker_kind, tmp_path / "broker") as server:
        create_topics(server.address, dict.fromkeys(STEMS, PARTITIONS))
        yield server


@pytest.fixture
def own_cache(tmp_path: Path) -> Iterator[Server]:
    """A cache that this test may kill; it forgets everything when killed."""
    with valkey_cache(tmp_path / "cache") as server:
        yield server


@pytest.fixture
def own_lane(own_broker: Server, cache: Server, bundle: Path, tmp_path: Path) -> Iterator[Lane]:
    """A lane on the broker that may be killed."""
    url = f"redis://{cache.address}/0"
    with open_lane(own_broker.address, url, bundle, tmp_path, STEMS) as lane:
        lane.name = f"lane-{tmp_path.name}"
        yield lane


def restart(broker: Server, kind: BrokerKind) -> None:
    """Start the broker again; the embedded one has forgotten its topics.

    It also makes up a topic for whoever asks about one, whether they allow it or not (Apache Kafka
    does not), so a worker that reconnects first may have brought some of them back. Were those of
    another size, the worker would go on with the partitions it has, at places of the old ones.
    """
    broker.start()
    if kind is BrokerKind.EMBEDDED:
        for stem in STEMS:
            with suppress(TopicAlreadyExistsError):
                create_topics(broker.address, {stem: PARTITIONS})


def test_broker_away_while_events_flow(
    own_lane: Lane, own_broker: Server, broker_kind: BrokerKind
) -> None:
    """The worker lives on, says that it is not ready, and goes on by itself when the broker is back.

    Apache Kafka keeps what was sent before; the embedded broker starts empty, so only later events count.
    """
    worker = own_lane.start(**SLOW)
    before = stream(EVENTS, prefix="before")
    own_lane.send(*before)
    with own_lane.verdicts() as verdicts:
        verdicts.wait_for(30)
    own_broker.kill()
    eventually(lambda: not worker.is_ready, "not ready")
    assert "kafka" in worker.probe("readyz")[1]
    assert worker.is_live
    eventually(lambda: worker.metric("synthgate_dependency_up", "kafka") == 0, "told away")
    for _ in range(20):  # the watch and the publisher both tell it, and neither says otherwise
        assert worker.metric("synthgate_dependency_up", "kafka") == 0
        time.sleep(0.03)
    restart(own_broker, broker_kind)
    after = stream(EVENTS, prefix="after")
    own_lane.send(*after)
    kept = before if broker_kind is BrokerKind.KAFKA else []
    wanted = {(event.key or b"").decode() for event in [*kept, *after]}
    with own_lane.verdicts() as verdicts:
        verdicts.wait_for_keys(wanted, timeout_s=60)
        eventually(lambda: worker.is_ready, "ready again")
        assert worker.drain() == 0
        got = verdicts.to_end()
    assert set(content_ids(got)) >= wanted
    # What was on its way when the broker died may have been sent again, under the same id.
    assert len(got) - len(verdict_ids(got)) <= MOST_IN_FLIGHT
    assert worker.log("thread_failed") == []


def test_broker_away_while_verdicts_wait(
    own_lane: Lane, own_broker: Server, broker_kind: BrokerKind, slow_bundle: Path
) -> None:
    """What was taken before the broker died is published after it came back, each once."""
    worker = own_lane.start(engine__bundle=slow_bundle, batch__max_images=8, batch__max_age_ms=300)
    events = [binary("slow", marked()), *stream(20)]
    own_lane.send(*(event.on(0) for event in events))
    eventually(lambda: worker.metric("synthgate_in_flight_events") == 21, "all taken")
    own_broker.kill()
    inferred = "synthgate_stage_duration_seconds_count"
    eventually(lambda: worker.metric(inferred, "infer") == 21, "all inferred", 30)
    assert worker.is_live
    assert worker.metric("synthgate_in_flight_events") == 21
    restart(own_broker, broker_kind)
    wanted = [(event.key or b"").decode() for event in events]
    with own_lane.verdicts() as verdicts:
        verdicts.wait_for_keys(wanted, timeout_s=40)
        eventually(lambda: worker.metric("synthgate_in_flight_events") == 0, "all published")
        assert worker.drain() == 0
        got = verdicts.to_end()
    assert len(verdict_ids(got)) == len(wanted)
    assert worker.log("thread_failed") == []


def test_cache_away_while_events_flow(lane: Lane, own_cache: Server) -> None:
    """Nothing is acknowledged while the cache is away; afterwards everything is, and stored."""
    lane.redis_url = f"redis://{own_cache.address}/0"
    worker = lane.start(**SLOW)
    lane.send(*stream(EVENTS, prefix="before"))
    with lane.verdicts() as verdicts:
        verdicts.wait_for(30)
        own_cache.kill()
        eventually(lambda: not worker.is_ready, "not ready")
        assert "redis" in worker.probe("readyz")[1]
        lane.send(*stream(EVENTS, prefix="during"))
        eventually(lambda: worker.metric("synthgate_publish_retries_total", "redis") >= 2, "tries")
        stuck = worker.outcomes()
        committed = lane.committed()
        time.sleep(1)  # long enough for ten commits, were there anything to commit
        assert worker.outcomes() == stuck
        assert lane.committed() == committed
        assert worker.metric("synthgate_paused") == 1
        assert worker.is_live
        own_cache.start()
        names = [f"{part}-{at}" for part in ("before", "during") for at in range(EVENTS)]
        verdicts.wait_for_keys(names, timeout_s=60)
        eventually(lambda: worker.is_ready, "ready again")
        assert worker.drain() == 0
        got = verdicts.to_end()
    # At most the one group that the topic had acknowledged and Redis had not.
    assert len(got) - len(names) <= MOST_IN_FLIGHT
    assert len(verdict_ids(got)) == len(names)
    last = [name for name in names if name.startswith("during")]
    assert all(lane.stored(name) is not None for name in last)


def test_cache_away_at_the_start_is_waited_for(lane: Lane, own_cache: Server) -> None:
    """A worker that starts before its cache is not ready, not dead, and catches up."""
    lane.redis_url = f"redis://{own_cache.address}/0"
    own_cache.kill()
    lane.send(*stream(10))
    worker = lane.launch()
    eventually(lambda: worker.metric("synthgate_publish_retries_total", "redis") > 0, "tries", 30)
    assert not worker.is_ready
    own_cache.start()
    worker.wait_ready()
    with lane.verdicts() as verdicts:
        verdicts.wait_for_keys([f"c-{at}" for at in range(10)])


def test_stop_while_the_cache_is_away_gives_up_in_time(lane: Lane, own_cache: Server) -> None:
    """SIGTERM then ends with status 3 and commits nothing; the next worker does it all."""
    lane.redis_url = f"redis://{own_cache.address}/0"
    worker = lane.start(flow__drain_timeout_s=1)
    own_cache.kill()
    lane.send(*stream(10))
    eventually(lambda: worker.metric("synthgate_in_flight_events") == 10, "all taken")
    started_s = time.monotonic()
    assert worker.drain() == 3
    assert time.monotonic() - started_s < 12
    assert not any(lane.committed().values())
    own_cache.start()
    lane.start()
    with lane.verdicts() as verdicts:
        verdicts.wait_for_keys([f"c-{at}" for at in range(10)])
        assert len(verdicts.to_end()) == 10


@pytest.mark.kafka_only(reason="the embedded broker takes any session timeout")
def test_a_session_that_the_broker_does_not_allow_is_a_clear_error(lane: Lane) -> None:
    """Joining can never work: the worker ends with status 1 instead of trying for ever."""
    worker = lane.launch(kafka__session_timeout_ms=600, kafka__heartbeat_interval_ms=200)
    assert worker.wait() == 1
    assert "InvalidSessionTimeout" in worker.log("worker_failed")[0]["error"]
