"""Workers that die, leave and join in the middle of a stream: no event is lost, and none is doubled by good manners."""

import signal
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from tests.support.events import Outgoing, binary, picture, stream, structured
from tests.support.image_server import ImageServer
from tests.support.lane import EAGER, MOST_IN_FLIGHT, SLOW, Lane
from tests.support.results import TopicReader, content_ids, verdict_ids
from tests.support.slow_bundles import make_slow_bundle, marked
from tests.support.worker_process import WorkerProcess, eventually

EVENTS = 400


def poison(number: int) -> Outgoing:
    """An event that can never work."""
    return Outgoing(f"p-{number}".encode(), b"no event")


def mixed_stream(count: int) -> list[Outgoing]:
    """Sound events, and one in ten that is poison."""
    events = stream(count)
    return [poison(at) if at % 10 == 0 else event for at, event in enumerate(events)]


def seen(reader: TopicReader) -> int:
    """How many records have come by now."""
    reader.poll()
    return len(reader.got)


def assert_all_answered(
    events: list[Outgoing], verdicts: TopicReader, dead_letters: TopicReader
) -> int:
    """Every event has its verdict or dead letter; returns how many there are too many."""
    letters = {event.key for event in events if event.value == b"no event"}
    sound = {(event.key or b"").decode() for event in events if event.key not in letters}
    verdicts.wait_for_keys(sound, timeout_s=60)
    dead_letters.wait_for_keys([(key or b"").decode() for key in letters], timeout_s=30)
    verdicts.to_end()
    dead_letters.to_end()
    assert set(content_ids(verdicts.got)) == sound
    # A second copy has the id of the first: whoever reads can drop it.
    assert len(verdict_ids(verdicts.got)) == len(sound)
    return len(verdicts.got) - len(sound) + len(dead_letters.got) - len(letters)


def ends(lane: Lane) -> dict[int, int]:
    """The end of each partition of the input that holds anything."""
    found: dict[int, int] = {}
    with TopicReader(lane.bootstrap, lane.input_topic) as reader:
        for each in reader.to_end():
            found[each.partition] = max(found.get(each.partition, 0), each.offset + 1)
    return found


def owned(worker: WorkerProcess) -> list[int]:
    """The partitions that it has now: one may go and come back while a group settles."""
    held: set[int] = set()
    for line in worker.log():
        moved = {number for _, number in line.get("partitions", [])}
        if line["event"] == "partitions_assigned":
            held |= moved
        elif line["event"] in ("partitions_revoked", "partitions_lost"):
            held -= moved
    return sorted(held)


def add_partitions(lane: Lane, wanted: int) -> None:
    """Let the input topic have that many."""
    admin = KafkaAdminClient(bootstrap_servers=lane.bootstrap)
    try:
        admin.create_partitions({lane.input_topic: wanted})
    finally:
        admin.close()


def assert_committed_to_the_end(lane: Lane) -> None:
    """Whoever comes next has nothing to do."""
    committed = lane.committed()
    assert {partition: committed[partition] for partition in ends(lane)} == ends(lane)


@pytest.mark.slow
def test_kill_at_any_point_loses_nothing(lane: Lane) -> None:
    """Four times one of two workers is killed at another point of the stream; another takes over.

    Only what lay between the topic's acknowledgement and Redis may come twice: one group a kill.
    """
    events = mixed_stream(EVENTS)
    workers = [lane.launch(**EAGER) for _ in range(2)]
    for worker in workers:
        worker.wait_ready()
    with lane.verdicts() as verdicts, lane.dead_letters() as dead_letters:
        lane.send(*events)
        for kill, wanted in enumerate((1, 90, 170, 260)):
            eventually(lambda wanted=wanted: seen(verdicts) >= wanted, f"{wanted} verdicts", 60)  # type: ignore[misc]
            workers[kill].kill()
            workers.append(lane.launch(**EAGER))
        too_many = assert_all_answered(events, verdicts, dead_letters)
        assert too_many <= 4 * MOST_IN_FLIGHT
    for worker in workers[4:]:
        worker.wait_ready()  # the last one may still be starting, and has no drain yet
    statuses = [worker.drain() for worker in workers[4:]]
    assert statuses == [0, 0]
    assert_committed_to_the_end(lane)


def test_sigterm_in_the_middle_loses_nothing_and_doubles_nothing(lane: Lane) -> None:
    """The worker stops in mid-stream with status 0; the next one continues where it stopped."""
    events = mixed_stream(EVENTS)
    lane.send(*events)
    with lane.verdicts() as verdicts, lane.dead_letters() as dead_letters:
        for wanted in (1, 120, 240):
            worker = lane.start(**SLOW)
            eventually(lambda wanted=wanted: seen(verdicts) >= wanted, f"{wanted} verdicts", 60)  # type: ignore[misc]
            assert worker.drain() == 0
            (drained,) = worker.log("drained")
            assert drained["unfinished"] == 0
            assert drained["committed"] is True
        lane.start(**SLOW)
        assert assert_all_answered(events, verdicts, dead_letters) == 0
    assert lane.workers[-1].drain() == 0
    assert_committed_to_the_end(lane)


@pytest.mark.slow
def test_workers_come_and_go_without_loss_or_double(lane: Lane) -> None:
    """Two more workers join in mid-stream, all share the partitions, and leave one after another."""
    events = mixed_stream(3 * EVENTS)
    first = lane.start(**SLOW)
    with lane.verdicts() as verdicts, lane.dead_letters() as dead_letters:
        lane.send(*events[:EVENTS])
        second, third = lane.launch(**SLOW), lane.launch(**SLOW)
        three = [first, second, third]
        for worker in three:
            worker.wait_owning(1)
        lane.send(*events[EVENTS : 2 * EVENTS])
        eventually(lambda: all(sum(each.outcomes().values()) for each in three), "all three worked")
        assert second.drain() == 0
        lane.send(*events[2 * EVENTS :])
        eventually(
            lambda: (
                first.metric("synthgate_assigned_partitions")
                + third.metric("synthgate_assigned_partitions")
                == 3
            ),
            "two own all partitions",
        )
        assert first.drain() == 0
        third.wait_owning(3)
        assert assert_all_answered(events, verdicts, dead_letters) == 0
    assert third.drain() == 0
    assert_committed_to_the_end(lane)
    for worker in three:
        assert worker.log("partitions_lost") == []


@pytest.mark.kafka_only(reason="the embedded broker cannot add partitions to a topic")
def test_partitions_that_are_added_are_shared_and_committed(lane: Lane) -> None:
    """The group joins anew for them; that takes longer than a poll, and every commit after it is taken."""
    workers = [lane.launch(**SLOW, kafka__metadata_max_age_ms=500) for _ in range(2)]
    eventually(lambda: all(owned(each) for each in workers), "both own some")
    add_partitions(lane, 6)
    eventually(lambda: sum(len(owned(each)) for each in workers) == 6, "all six are owned")
    events = [event.on(at % 6) for at, event in enumerate(stream(120))]
    with lane.verdicts() as verdicts, lane.dead_letters() as dead_letters:
        lane.send(*events)
        assert assert_all_answered(events, verdicts, dead_letters) == 0
    assert [worker.drain() for worker in workers] == [0, 0]
    assert_committed_to_the_end(lane)


@pytest.mark.kafka_only(
    reason="the embedded broker keeps a member that leaves while its group rebalances, and waits for it"
)
def test_all_workers_stopped_at_once_end_well(lane: Lane) -> None:
    """A whole deployment that is scaled to nothing drains: status 0 everywhere, nothing doubled."""
    events = mixed_stream(EVENTS)
    workers = [lane.launch(**SLOW) for _ in range(3)]
    for worker in workers:
        worker.wait_owning(1)
    with lane.verdicts() as verdicts, lane.dead_letters() as dead_letters:
        lane.send(*events)
        eventually(lambda: seen(verdicts) >= 30, "30 verdicts")
        for worker in workers:
            worker.signal(signal.SIGTERM)
        assert [worker.wait() for worker in workers] == [0, 0, 0]
        lane.start(**SLOW)
        assert assert_all_answered(events, verdicts, dead_letters) == 0


@pytest.mark.slow
def test_a_draining_worker_takes_nothing_of_partitions_that_come_to_it(
    lane: Lane, tmp_path: Path
) -> None:
    """Another worker dies while this one drains: its partitions come here, and wait for somebody who stays."""
    # More than a session, a heartbeat and a rebalance one after the other.
    slow = make_slow_bundle(tmp_path / "slow", seconds=10)
    leaving = lane.start(engine__bundle=slow, flow__drain_timeout_s=60)
    frozen = lane.launch()
    for worker in (leaving, frozen):
        eventually(lambda worker=worker: len(owned(worker)) in (1, 2), "owns some")  # type: ignore[misc]
    (own, *_), (other, *_) = owned(leaving), owned(frozen)
    lane.send(binary("slow", marked()).on(own))
    eventually(lambda: leaving.metric("synthgate_in_flight_events") == 1, "taken")
    frozen.signal(signal.SIGSTOP)
    try:
        lane.send(*(event.on(other) for event in stream(20)))
        leaving.signal(signal.SIGTERM)
        assert leaving.wait(60) == 0
    finally:
        frozen.signal(signal.SIGCONT)
    order = [line["event"] for line in leaving.log()]
    assert "partitions_assigned" in order[order.index("draining") : order.index("drained")]
    assert leaving.log("drained")[0]["unfinished"] == 0
    assert [line["content_id"] for line in leaving.log(outcome="verdict")] == ["slow"]
    with lane.verdicts() as verdicts:
        verdicts.wait_for_keys(["slow", *(f"c-{at}" for at in range(20))])
        assert len(verdicts.to_end()) == 21


def test_a_worker_that_froze_does_no_harm_when_it_wakes(lane: Lane) -> None:
    """Stopped for longer than its session, it loses its partitions; awake again, it doubles next to nothing."""
    events = mixed_stream(EVENTS)
    frozen, other = lane.launch(**SLOW), lane.launch(**SLOW)
    for worker in (frozen, other):
        worker.wait_ready()
    with lane.verdicts() as verdicts, lane.dead_letters() as dead_letters:
        lane.send(*events)
        eventually(lambda: sum(frozen.outcomes().values()) >= 10, "it worked")
        frozen.signal(signal.SIGSTOP)
        try:
            other.wait_owning(3)
        finally:
            frozen.signal(signal.SIGCONT)
        too_many = assert_all_answered(events, verdicts, dead_letters)
        assert too_many <= MOST_IN_FLIGHT
        eventually(lambda: frozen.is_ready, "it joined again")
        more = stream(60, prefix="later")
        lane.send(*more)
        verdicts.wait_for_keys([f"later-{at}" for at in range(60)])
    assert [worker.drain() for worker in (frozen, other)] == [0, 0]
    assert_committed_to_the_end(lane)


def test_a_fetch_that_a_stop_breaks_off_is_made_by_the_next_worker(
    lane: Lane, images: ImageServer
) -> None:
    """An image that could not be had in the time of a drain is not poison: it is fetched later."""
    images.routes["/later.png"] = 503
    changes = {
        "fetch__schemes": "http",
        "fetch__allow_private_networks": "true",
        "fetch__backoff_s": 30,
        "flow__drain_timeout_s": 0.5,
    }
    first = lane.start(**changes)
    lane.send(structured("later", uri=f"{images.url}/later.png"))
    eventually(lambda: images.hits["/later.png"] == 1, "asked once")
    assert first.drain() == 3
    images.routes["/later.png"] = picture(1)
    lane.start(**changes)
    with lane.verdicts() as verdicts, lane.dead_letters() as dead_letters:
        verdicts.wait_for_keys(["later"])
        assert dead_letters.to_end() == []
