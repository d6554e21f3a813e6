"""A running worker follows its channel: forward, back, never to what is bad, and without losing an event."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engines.bundle.manifest import PreprocessSpec, read_manifest, write_manifest
from engines.preprocess import Limits, prepare
from tests.support.bundles import BIAS, reference_logit_N
from tests.support.events import Outgoing, binary, picture
from tests.support.lane import EAGER, SLOW, Lane
from tests.support.ready_watch import ReadyWatch
from tests.support.releases import TinyReleases
from tests.support.results import Got, TopicReader, content_ids
from tests.support.worker_process import WorkerProcess, eventually

# The second version is another model, on smaller crops.
BIASES = {"0.1.0": BIAS, "0.2.0": 1.5}
CROPS_PX = {"0.1.0": 32, "0.2.0": 16}


def promote_second(releases: TinyReleases) -> None:
    """Take the stable channel to 0.2.0."""
    releases.promote("0.2.0", bias=BIASES["0.2.0"], crop_px=CROPS_PX["0.2.0"])


def swapped(worker: WorkerProcess, outcome: str = "swapped") -> float:
    """How many new versions of the deciding engine came to that."""
    return worker.metric("synthgate_engine_swaps_total", outcome, "deciding")


def version_of(got: Got) -> str:
    """Which engine decided."""
    return str(got.document["data"]["model"]["version"])


def shown_versions(worker: WorkerProcess) -> list[str]:
    """The versions that ``synthgate_engine_info`` shows."""
    return [
        label
        for name, labels in worker.metrics()
        if name == "synthgate_engine_info"
        for label in labels
        if label in BIASES
    ]


def events_without_end() -> Iterator[list[Outgoing]]:
    """Twenty events at a time, each an image of its own."""
    for number in itertools.count():
        yield [
            binary(f"c-{at}", picture(at, side_px=32))
            for at in range(20 * number, 20 * number + 20)
        ]


def send_until(
    lane: Lane, done: Callable[[], bool], groups: Iterator[list[Outgoing]]
) -> list[tuple[int, int]]:
    """Keep a stream going until ``done``; partition and offset of each event that was sent."""
    sent: list[tuple[int, int]] = []

    def sent_and_done() -> bool:
        sent.extend(lane.send(*next(groups)))
        return done()

    eventually(sent_and_done, "done", 60)
    return sent


def decides(verdicts: TopicReader, version: str) -> Callable[[], bool]:
    """Whether that version has decided."""

    def decided() -> bool:
        verdicts.poll()
        return any(version_of(each) == version for each in verdicts.got)

    return decided


def assert_each_scored_by_its_own_engine(got: list[Got]) -> None:
    """Every logit is what numpy says of that version's crops and weights: nothing was mixed."""
    for each in got:
        data, version = each.document["data"], version_of(each)
        image = picture(int(data["content_id"].partition("-")[2]), side_px=32)
        spec = PreprocessSpec(version="1", crop_policy="center", crop_px=CROPS_PX[version])
        crops_NHWC = prepare(image, spec, Limits()).image_NHWC
        expected = float(reference_logit_N(crops_NHWC, BIASES[version]).mean())
        assert data["scores"][0]["logit"] == pytest.approx(expected, abs=1e-4)


def test_a_swap_in_mid_stream_loses_nothing_and_doubles_nothing(
    lane: Lane, releases: TinyReleases
) -> None:
    """What was decided before is the old engine's, what comes after is the new one's, each on its own crops.

    The worker is ready throughout, and in the end one engine is left.
    """
    worker = lane.start(**releases.settings(), **SLOW)
    groups = events_without_end()
    with lane.verdicts() as verdicts, ReadyWatch(worker) as watch:
        sent = send_until(lane, decides(verdicts, "0.1.0"), groups)
        before = {each.key for each in verdicts.got}
        promote_second(releases)
        sent += send_until(lane, decides(verdicts, "0.2.0"), groups)
        eventually(lambda: swapped(worker) == 1, "told by the metric")
        late = next(groups)
        lane.send(*late)
        verdicts.wait_for(len(sent) + len(late), timeout_s=60)
        got = verdicts.to_end()
    assert set(content_ids(got).values()) == {1}
    assert len(got) == len(sent) + len(late)
    assert {version_of(each) for each in got if each.key in before} == {"0.1.0"}
    assert {version_of(each) for each in got if each.key in {one.key for one in late}} == {"0.2.0"}
    assert_each_scored_by_its_own_engine(got)
    assert watch.asked > 10
    assert watch.unready == []
    assert shown_versions(worker) == ["0.2.0"]
    eventually(lambda: bool(worker.log("engine_closed", version="tiny 0.1.0")), "the old is freed")
    assert worker.drain() == 0
    assert worker.log("thread_failed") == worker.log("unexpected_error") == []


def test_a_rollback_is_the_same_way_back(lane: Lane, releases: TinyReleases) -> None:
    """The older engine decides again, and its verdicts about new events are the ones that Redis keeps."""
    promote_second(releases)
    worker = lane.start(**releases.settings())
    with lane.verdicts() as verdicts:
        lane.send(binary("c-1", picture(1, side_px=32)))
        assert version_of(verdicts.wait_for_keys(["c-1"])["c-1"]) == "0.2.0"
        releases.rollback()
        eventually(lambda: swapped(worker) == 1, "swapped")
        lane.send(
            binary("c-2", picture(2, side_px=32)),
            binary("c-1", picture(1, side_px=32), event_id="again", minutes=1),
        )
        got = verdicts.wait_for(3)
    assert [version_of(each) for each in got[1:]] == ["0.1.0", "0.1.0"]
    assert_each_scored_by_its_own_engine(got)
    eventually(lambda: (lane.stored("c-1") or {})["data"]["model"]["version"] == "0.1.0", "kept")
    assert worker.drain() == 0


def test_a_bad_candidate_is_refused_and_the_old_one_goes_on(
    lane: Lane, releases: TinyReleases
) -> None:
    """Its golden outputs differ: metric and log say so once, readiness does not; a good one is taken after it."""
    worker = lane.start(**releases.settings())
    bundle, other = releases.make("0.2.0"), releases.make("0.2.0", bias=3.0)
    releases.smuggle(spoilt(releases, bundle, other))
    with ReadyWatch(worker) as watch, lane.verdicts() as verdicts:
        eventually(lambda: swapped(worker, "refused") == 1, "refused")
        lane.send(binary("c-1", picture(1, side_px=32)))
        assert version_of(verdicts.wait_for_keys(["c-1"])["c-1"]) == "0.1.0"
        (refused,) = worker.log("engine_refused")
        assert "over the tolerance" in refused["error"]
        assert refused["stays"] == "tiny 0.1.0"
        assert shown_versions(worker) == ["0.1.0"]
        releases.promote("0.3.0")
        eventually(lambda: swapped(worker) == 1, "the good one is taken")
        assert swapped(worker, "refused") == 1, "the bad one was tried once"
    assert watch.unready == []


def spoilt(releases: TinyReleases, bundle: Path, other: Path) -> Path:
    """The bundle with the other's golden outputs, signed by the trusted key all the same."""
    shutil.copy(other / "golden.npz", bundle / "golden.npz")
    (bundle / "signatures.json").unlink()
    write_manifest(bundle, read_manifest(bundle))
    return releases.signer.sign(bundle)


def test_a_store_that_goes_away_stops_nothing(lane: Lane, releases: TinyReleases) -> None:
    """The worker goes on, and starts again, with what it has; without that it says what it lacks."""
    worker = lane.start(**releases.settings())
    promote_second(releases)
    eventually(lambda: swapped(worker) == 1, "swapped")
    shutil.rmtree(releases.store_path)
    eventually(lambda: bool(worker.log("channel_unavailable")), "noticed")
    with lane.verdicts() as verdicts:
        lane.send(binary("c-1", picture(1, side_px=32)))
        verdicts.wait_for_keys(["c-1"])
        assert worker.is_ready
        assert worker.drain() == 0
        again = lane.start(**releases.settings())
        lane.send(binary("c-2", picture(2, side_px=32)))
        got = verdicts.wait_for_keys(["c-1", "c-2"])
    assert {version_of(each) for each in got.values()} == {"0.2.0"}
    (loud,) = again.log("STARTED_FROM_A_LOCAL_COPY")
    assert (loud["level"], loud["version"]) == ("error", "0.2.0")
    nothing = lane.launch(**releases.settings(cache="empty"))
    assert nothing.wait() == 1
    assert "mount it or correct" in nothing.log("worker_failed")[0]["error"]


def acknowledged_ids(lane: Lane, sent: list[tuple[int, int]]) -> set[str]:
    """The content ids of what the group has committed; ``sent`` are the places of c-0, c-1, and so on."""
    committed = lane.committed()
    return {
        f"c-{number}"
        for number, (partition, offset) in enumerate(sent)
        if offset < (committed[partition] or 0)
    }


@pytest.mark.parametrize("at", ["engine_candidate", "engine_swapped"])
def test_a_kill_during_a_swap_loses_nothing(lane: Lane, releases: TinyReleases, at: str) -> None:
    """Killed while the new version is fetched and checked, or just after it was installed: the next worker goes on.

    What was published and not yet committed is decided again, by the new engine, under an id of its own;
    what was committed had been published, and never is decided again.
    """
    worker = lane.start(**releases.settings(), **EAGER)
    groups = events_without_end()
    with lane.verdicts() as verdicts:
        sent = send_until(lane, decides(verdicts, "0.1.0"), groups)
        promote_second(releases)
        sent += send_until(lane, lambda: bool(worker.log(at)), groups)
        worker.kill()
        acknowledged = acknowledged_ids(lane, sent)
        assert acknowledged <= set(content_ids(verdicts.to_end()))
        lane.start(**releases.settings(), **EAGER)
        verdicts.wait_for_keys([f"c-{number}" for number in range(len(sent))], timeout_s=60)
        got = verdicts.to_end()
    times = content_ids(got)
    assert len(times) == len(sent)
    assert max(times.values()) <= 2
    assert not acknowledged & {name for name, count in times.items() if count > 1}
    assert_each_scored_by_its_own_engine(got)
    assert shown_versions(lane.workers[-1]) == ["0.2.0"]
    assert lane.workers[-1].drain() == 0
