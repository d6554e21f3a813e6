"""A canary decides about its share, the same after every start; a shadow decides about nothing."""

import json
from typing import Any

import pytest

from tests.support.events import binary, picture
from tests.support.lane import Lane
from tests.support.releases import TinyReleases
from tests.support.results import Got, TopicReader, content_ids
from tests.support.services import MakeTopics
from tests.support.worker_process import eventually, run_cli
from worker.engine import is_canary_content

SHARE = 0.4
NAMES = [f"content-{number}" for number in range(60)]


def modes(got: dict[str, Got]) -> dict[str, tuple[str, str]]:
    """From the content id to the mode and version of its verdict."""
    return {
        name: (each.document["data"]["mode"], each.document["data"]["model"]["version"])
        for name, each in got.items()
    }


def sent(lane: Lane, verdicts: TopicReader, run: int) -> dict[str, Got]:
    """Send every content with images and event ids of this run's own; their verdicts."""
    seen = len(verdicts.got)
    lane.send(
        *(
            binary(name, picture(100 * run + at), event_id=f"{name}-{run}", minutes=run)
            for at, name in enumerate(NAMES)
        )
    )
    verdicts.wait_for(seen + len(NAMES))
    new = verdicts.got[seen:]
    assert set(content_ids(new)) == set(NAMES)
    return {(each.key or b"").decode(): each for each in new}


def test_a_canary_decides_about_its_share_in_every_worker(
    lane: Lane, releases: TinyReleases
) -> None:
    """By the content's hash: the same after a restart, whoever works; Redis keeps what it decided."""
    releases.promote("0.2.0", "canary", bias=1.5, crop_px=16)
    following = releases.settings(engine__canary_share=SHARE)
    expected = {
        name: ("canary", "0.2.0") if is_canary_content(name, SHARE) else ("enforce", "0.1.0")
        for name in NAMES
    }
    assert len(set(expected.values())) == 2
    with lane.verdicts() as verdicts:
        first = lane.start(**following)
        assert modes(sent(lane, verdicts, 1)) == expected
        assert first.metric("synthgate_engine_info") == 2
        assert first.drain() == 0
        second = lane.start(**following)
        assert modes(sent(lane, verdicts, 2)) == expected
        canarys = next(name for name in NAMES if is_canary_content(name, SHARE))
        eventually(lambda: (lane.stored(canarys) or {})["data"]["mode"] == "canary", "kept")
        assert second.drain() == 0


def test_a_bad_canary_never_decides(lane: Lane, releases: TinyReleases) -> None:
    """It is refused at the start; the engine in place decides about its share until a good one comes."""
    bundle = releases.make("0.2.0")
    (bundle / "signatures.json").unlink()
    releases.smuggle(bundle, "canary")
    worker = lane.start(**releases.settings(engine__canary_share=1.0))
    assert worker.metric("synthgate_engine_swaps_total", "refused", "canary") == 1
    with lane.verdicts() as verdicts:
        assert set(modes(sent(lane, verdicts, 1)).values()) == {("enforce", "0.1.0")}
        releases.promote("0.3.0", "canary")
        eventually(
            lambda: worker.metric("synthgate_engine_swaps_total", "swapped", "canary") == 1, "in"
        )
        assert set(modes(sent(lane, verdicts, 2)).values()) == {("canary", "0.3.0")}


@pytest.fixture
def shadow_topic(topics: MakeTopics) -> str:
    """A topic for one test's shadow verdicts."""
    (name,) = topics("images.verdicts.shadow")
    return name


def test_a_shadow_scores_everything_and_decides_nothing(
    lane: Lane, releases: TinyReleases, shadow_topic: str
) -> None:
    """One deciding verdict an event, as without it; the shadow's on its own topic, none of it in Redis.

    ``compare`` then tells, from the topics, how the two differ.
    """
    releases.promote("0.2.0", "shadow", bias=1.5, crop_px=16)
    following = releases.settings(engine__shadow="true", kafka__shadow_topic=shadow_topic)
    worker = lane.start(**following)
    with lane.verdicts() as verdicts, TopicReader(lane.bootstrap, shadow_topic) as shadows:
        decided = sent(lane, verdicts, 1)
        shadowed = shadows.wait_for_keys(NAMES)
        assert set(modes(decided).values()) == {("enforce", "0.1.0")}
        assert set(modes(shadowed).values()) == {("shadow", "0.2.0")}
        assert len(shadows.to_end()) == len(verdicts.to_end()) == len(NAMES)
    for name in NAMES:
        one, other = (got[name].document["data"] for got in (decided, shadowed))
        assert (one["event_id"], one["media"]) == (other["event_id"], other["media"])
        assert one["scores"] != other["scores"]
        eventually(
            lambda name=name: lane.stored(name) == decided[name].document,  # type: ignore[misc]
            "Redis keeps the deciding verdict",
        )
    eventually(
        lambda: worker.metric("synthgate_shadow_events_total", "published") == len(NAMES), "counted"
    )
    # Counted once Redis has answered, so a little after it shows the verdict.
    eventually(lambda: worker.metric("synthgate_events_total") == len(NAMES), "decided")
    assert worker.drain() == 0
    report = compared(lane, following)
    assert (report["pairs"], report["other"]["n"]) == (len(NAMES), len(NAMES))
    changed = [
        name
        for name in NAMES
        if decided[name].document["data"]["band"] != shadowed[name].document["data"]["band"]
    ]
    assert changed
    assert sum(report["changed"].values()) == len(changed)


def compared(lane: Lane, following: dict[str, object]) -> dict[str, Any]:
    """What ``python -m worker compare`` says of the topics."""
    done = run_cli(["compare", "--json"], lane.settings(**following))
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_what_is_wrong_with_a_shadow_stays_with_it(
    lane: Lane, releases: TinyReleases, shadow_topic: str
) -> None:
    """An empty channel, then one whose version is bad: every event is decided, and Redis has it."""
    following = releases.settings(engine__shadow="true", kafka__shadow_topic=shadow_topic)
    worker = lane.start(**following)
    with lane.verdicts() as verdicts:
        sent(lane, verdicts, 1)
        bundle = releases.make("0.2.0")
        (bundle / "signatures.json").unlink()
        releases.smuggle(bundle, "shadow")
        eventually(
            lambda: worker.metric("synthgate_engine_swaps_total", "refused", "shadow") == 1, "bad"
        )
        sent(lane, verdicts, 2)
    assert worker.metric("synthgate_shadow_events_total") == 0
    assert worker.is_ready
    assert worker.drain() == 0


def test_a_shadow_whose_topic_is_missing_ends_the_start(lane: Lane, releases: TinyReleases) -> None:
    """As with every other topic: a misspelt one would be missed in vain."""
    worker = lane.launch(**releases.settings(engine__shadow="true", kafka__shadow_topic="misspelt"))
    assert worker.wait() == 1
    assert "no such topic: misspelt" in worker.log("worker_failed")[0]["error"]
