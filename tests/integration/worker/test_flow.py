"""Long batches, full queues, stuck engines: polling goes on, and the probes tell the truth."""

from pathlib import Path

import pytest

from tests.support.events import binary, picture, stream
from tests.support.lane import Lane
from tests.support.slow_bundles import make_slow_bundle, marked
from tests.support.worker_process import eventually

REBALANCES = ("partitions_revoked", "partitions_lost")


@pytest.mark.slow
def test_a_batch_longer_than_the_session_moves_no_partition(lane: Lane, slow_bundle: Path) -> None:
    """Polling and heartbeats go on through it; partitions pause when enough is in flight, and resume."""
    worker = lane.start(
        engine__bundle=slow_bundle,
        flow__max_in_flight=8,
        batch__max_images=8,
        kafka__max_poll_records=4,
        kafka__max_poll_interval_ms=2_000,
    )
    lane.send(binary("slow", marked()), *stream(60))
    eventually(lambda: worker.metric("synthgate_paused") == 1, "paused")
    # Told in the same turn of the polling thread, a moment after.
    eventually(lambda: worker.metric("synthgate_in_flight_events") >= 8, "full")
    assert worker.metric("synthgate_in_flight_events") < 8 + 3 * 4
    assert worker.is_live
    with lane.verdicts() as verdicts:
        verdicts.wait_for_keys(["slow", *(f"c-{at}" for at in range(60))])
    assert worker.metric("synthgate_stage_duration_seconds_sum", "infer") > 2
    eventually(lambda: worker.metric("synthgate_paused") == 0, "resumed")
    assert [worker.log(event) for event in REBALANCES] == [[], []]
    assert len(worker.log("partitions_assigned")) == 1
    assert worker.drain() == 0


@pytest.mark.slow
def test_a_batch_longer_than_the_session_is_published_before_its_partitions_move(
    lane: Lane, slow_bundle: Path
) -> None:
    """A second worker that joins meanwhile waits for it: nothing is doubled, nobody drops out."""
    first = lane.start(engine__bundle=slow_bundle, batch__max_age_ms=300)
    events = [binary("slow", marked()), *stream(20)]
    lane.send(*events)
    eventually(lambda: first.metric("synthgate_in_flight_events") == 21, "all taken")
    second = lane.launch(engine__bundle=slow_bundle)
    second.wait_owning(1)
    with lane.verdicts() as verdicts:
        verdicts.wait_for_keys(["slow", *(f"c-{at}" for at in range(20))])
        assert first.drain() == 0
        second.wait_owning(3)
        lane.send(*stream(20, prefix="later"))
        verdicts.wait_for_keys([f"later-{at}" for at in range(20)])
        assert second.drain() == 0
        assert len(verdicts.to_end()) == 41
    assert first.log("partitions_lost") == second.log("partitions_lost") == []


@pytest.mark.slow
def test_an_engine_that_hangs_makes_the_worker_not_live(lane: Lane, tmp_path: Path) -> None:
    """Work waits and nothing is published: a restart is called for. Told to stop, it gives up in time.

    What it had taken is unacknowledged, and a worker whose engine works answers it all.
    """
    hanging = make_slow_bundle(tmp_path / "hanging", seconds=600)
    worker = lane.start(engine__bundle=hanging, health__stall_after_s=2, flow__drain_timeout_s=1)
    lane.send(*stream(10))
    with lane.verdicts() as verdicts:
        verdicts.wait_for_keys([f"c-{at}" for at in range(10)])
        assert worker.is_live
        lane.send(binary("stuck", marked()), *stream(10, prefix="behind"))
        eventually(lambda: not worker.is_live, "not live")
        assert "none was published" in worker.probe("livez")[1]
        assert worker.drain(timeout_s=15) == 3
        lane.start()  # with another bundle, so with verdicts of its own
        verdicts.wait_for_keys(["stuck", *(f"behind-{at}" for at in range(10))])
    assert worker.log("stage_stuck")[0]["threads"] == ["infer"]


def test_a_worker_with_nothing_to_do_is_live(lane: Lane) -> None:
    """An idle worker stays live however long nothing comes."""
    worker = lane.start(health__stall_after_s=0.5)
    eventually(lambda: worker.metric("synthgate_dependency_up", "redis") == 1, "looked")
    for _ in range(30):
        assert worker.is_live
        worker.metrics()


def test_metrics_equal_what_happened(lane: Lane) -> None:
    """Counters, histograms and gauges after a run are those of its events; lag is back at nothing."""
    worker = lane.start(batch__max_images=5)
    sound = [binary(f"m-{at}", picture(at // 2)) for at in range(20)]
    poison = [binary(f"p-{at}", b"no image at all, but long enough") for at in range(3)]
    lane.send(*sound)
    eventually(lambda: sum(worker.outcomes().values()) == 20, "twenty done")
    lane.send(*poison, sound[0])
    eventually(lambda: sum(worker.outcomes().values()) == 24, "all done")
    assert worker.outcomes() == {"verdict": 20, "dead_letter": 3, "duplicate": 1}
    with lane.verdicts() as verdicts:
        bands = [each.document["data"]["band"] for each in verdicts.to_end()]
    for band in ("allow", "review"):
        assert worker.metric("synthgate_verdicts_total", band) == bands.count(band)
    assert worker.metric("synthgate_dead_letters_total", "unsupported_format", "decode") == 3
    count = "synthgate_stage_duration_seconds_count"
    assert worker.metric(count, "queued") == worker.metric(count, "total") == 24
    assert worker.metric(count, "publish") == 20
    hits = worker.metric("synthgate_score_cache_lookups_total", "hit")
    misses = worker.metric("synthgate_score_cache_lookups_total", "miss")
    assert hits + misses == 24
    inferred = worker.metric("synthgate_batch_images_sum")
    assert 10 <= inferred <= misses - 3
    assert worker.metric("synthgate_assigned_partitions") == 3
    identity = worker.log("bundle_verified")[0]
    labels = [key for key in worker.metrics() if key[0] == "synthgate_engine_info"]
    assert identity["engine_sha256"] in labels[0][1]
    assert identity["signed_by"] == "unsigned"  # the tests' own bundle: told by log and metric
    assert "unsigned" in labels[0][1]
    eventually(lambda: worker.metric("synthgate_consumer_lag_records") == 0, "no lag")
    # Told at each turn of the polling thread, so up to one poll after the last outcome is counted.
    eventually(lambda: worker.metric("synthgate_in_flight_events") == 0, "no events")
    eventually(lambda: worker.metric("synthgate_in_flight_bytes") == 0, "no bytes")
    eventually(lambda: worker.metric("synthgate_offset_commits_total", "done") >= 1, "committed")


def test_lag_is_told_while_there_is_some(lane: Lane, slow_bundle: Path) -> None:
    """Records that wait behind a slow batch are counted, and worked off."""
    worker = lane.start(
        engine__bundle=slow_bundle,
        flow__max_in_flight=4,
        batch__max_images=1,
        kafka__max_poll_records=2,
    )
    lane.send(binary("slow", marked()).on(0), *(event.on(0) for event in stream(50)))
    eventually(
        lambda: worker.metric("synthgate_consumer_lag_records", "0", lane.input_topic) >= 40, "lag"
    )
    eventually(lambda: worker.metric("synthgate_consumer_lag_records") == 0, "no lag", 30)
