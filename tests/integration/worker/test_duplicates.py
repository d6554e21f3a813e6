"""The same event is answered once, the same bytes are inferred once, and no older verdict wins."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engines.bundle.manifest import read_manifest, write_manifest
from tests.support.bundles import make_tiny_bundle
from tests.support.events import binary, picture, structured
from tests.support.lane import Lane
from tests.support.results import verdict_ids
from tests.support.worker_process import WorkerProcess, eventually


@pytest.fixture(scope="module")
def worker(shared_lane: Lane) -> WorkerProcess:
    """The first of two workers of the module's group."""
    return shared_lane.start()


def decided(lane: Lane, *workers: WorkerProcess, events: int) -> list[dict[str, Any]]:
    """The log lines of that many events, once they are all there."""

    def lines() -> list[dict[str, Any]]:
        return [line for worker in workers for line in worker.log("image_event")]

    eventually(lambda: len(lines()) >= events, f"{events} events logged")
    return lines()


def test_the_same_event_twice_has_one_verdict(shared_lane: Lane, worker: WorkerProcess) -> None:
    """In one batch, and again later: one verdict on the topic, and the offsets still advance."""
    event = binary("twice", picture(1))
    shared_lane.send(event, event, event)
    eventually(lambda: len(worker.log("image_event", content_id="twice")) == 3, "three logged")
    shared_lane.send(event.on(0), event.on(1), event.on(2))
    eventually(lambda: len(worker.log("image_event", content_id="twice")) == 6, "six logged")
    outcomes = [line["outcome"] for line in worker.log("image_event", content_id="twice")]
    assert sorted(outcomes) == ["duplicate"] * 5 + ["verdict"]
    with shared_lane.verdicts() as reader:
        assert [each.key for each in reader.to_end()].count(b"twice") == 1


def test_the_same_bytes_are_inferred_once_by_all_workers(lane: Lane) -> None:
    """Another event with known bytes is answered from the cache, by either worker, unharmed."""
    first = lane.start()
    lane.send(*(binary(f"a-{at}", picture(at)) for at in range(6)))
    decided(lane, first, events=6)
    assert first.drain() == 0
    second = lane.start()
    lane.send(*(binary(f"b-{at}", picture(at)) for at in range(6)))
    lines = decided(lane, second, events=6)
    assert [line["score_cached"] for line in lines] == [True] * 6
    assert second.metric("synthgate_score_cache_lookups_total", "hit") == 6
    assert second.metric("synthgate_batch_images_count") == 0
    with lane.verdicts() as reader:
        got = reader.wait_for_keys([f"{side}-{at}" for side in "ab" for at in range(6)])
    for at in range(6):
        one, other = (got[f"{side}-{at}"].document["data"] for side in "ab")
        assert one["scores"] == other["scores"]
        assert one["media"] == other["media"]
        assert one["band"] == other["band"]


def test_a_broken_entry_of_the_score_cache_is_a_miss(
    shared_lane: Lane, worker: WorkerProcess, bundle: Path
) -> None:
    """Whatever else writes to Redis cannot make a sound event a dead letter."""
    shared_lane.send(binary("cached", picture(60)))
    with shared_lane.verdicts() as reader:
        sha256 = reader.wait_for_keys(["cached"])["cached"].document["data"]["media"]["sha256"]
    with shared_lane.redis() as client:
        pattern = f"{shared_lane.name}:score:{sha256}:*"
        eventually(
            lambda: len(client.keys(pattern)) == 1, "Redis has the score: the topic is first"
        )
        (key,) = client.keys(pattern)
        engine = str(key, "utf-8").rpartition(":")[2]
        names = []
        for at, broken in enumerate((b"", b"{", b"[1]", b'{"logit": 1}', b'{"a": 1}', b"\xff")):
            image = picture(61 + at)
            client.set(
                f"{shared_lane.name}:score:{hashlib.sha256(image).hexdigest()}:{engine}", broken
            )
            names.append(f"broken-{at}")
            shared_lane.send(binary(names[-1], image))
    with shared_lane.verdicts() as reader:
        reader.wait_for_keys(names, timeout_s=10)


def test_an_older_event_never_replaces_a_newer_verdict(
    shared_lane: Lane, worker: WorkerProcess
) -> None:
    """Redis keeps the verdict of the newest event, in whatever order they came; the topic has all."""
    content_id = "order"
    for sent, number in enumerate((1, 3, 2, 0), start=1):
        event = structured(
            content_id, image=picture(number), event_id=f"order-e{number}", minutes=number
        )
        shared_lane.send(event)
        eventually(
            lambda sent=sent: len(worker.log("image_event", content_id=content_id)) == sent,  # type: ignore[misc]
            f"{sent} logged",
        )
    stored = shared_lane.stored(content_id)
    assert stored is not None
    assert stored["data"]["event_id"] == "order-e3"
    assert worker.metric("synthgate_stale_verdicts_total") == 2
    with shared_lane.verdicts() as reader:
        found = [each for each in reader.to_end() if each.key == content_id.encode()]
    assert len(found) == 4


def test_of_one_event_the_newer_engine_has_the_last_word(lane: Lane, tmp_path: Path) -> None:
    """Two engines answer the same event under ids of their own; Redis keeps the newer one's verdict."""
    old = make_dated(tmp_path / "old", "1.0.0", datetime(2026, 1, 1, tzinfo=UTC))
    new = make_dated(tmp_path / "new", "2.0.0", datetime(2026, 2, 1, tzinfo=UTC))
    event = binary("content", picture(5))
    lane.send(event)
    with lane.verdicts() as reader:
        for bundle, group in ((new, "one"), (old, "two"), (new, "three")):
            worker = lane.start(engine__bundle=bundle, kafka__group_id=lane.name + group)
            eventually(lambda worker=worker: bool(worker.log("image_event")), "answered")  # type: ignore[misc]
            assert worker.drain() == 0
        got = reader.to_end()
    assert [each.document["data"]["model"]["version"] for each in got] == ["2.0.0", "1.0.0"]
    assert len(verdict_ids(got)) == 2
    stored = lane.stored("content")
    assert stored is not None
    assert stored["data"]["model"]["version"] == "2.0.0"


def test_a_shadow_engine_publishes_and_stores_nothing(lane: Lane) -> None:
    """Its verdicts are on the topic, marked; the content's verdict in Redis is another's to write."""
    worker = lane.start(decide__mode="shadow")
    lane.send(binary("shadowed", picture(6)))
    with lane.verdicts() as reader:
        got = reader.wait_for_keys(["shadowed"])["shadowed"]
    assert got.document["data"]["mode"] == "shadow"
    assert worker.drain() == 0
    assert lane.stored("shadowed") is None


def make_dated(directory: Path, version: str, created_at: datetime) -> Path:
    """A bundle that was built at that time."""
    make_tiny_bundle(directory, version=version)
    manifest = read_manifest(directory).model_copy(update={"created_at": created_at})
    write_manifest(directory, manifest)
    return directory
