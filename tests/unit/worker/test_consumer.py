"""How long commits may be refused before a worker is not ready, and before it ends."""

import pytest

from worker.consumer import CommitWatchdog
from worker.errors import Fatal
from worker.health import Readiness
from worker.settings import KafkaSettings

KAFKA = KafkaSettings(session_timeout_ms=10_000, max_poll_interval_ms=60_000)


@pytest.fixture
def readiness() -> Readiness:
    return Readiness("group")


@pytest.fixture
def watchdog(readiness: Readiness) -> CommitWatchdog:
    readiness.set("group", None)
    return CommitWatchdog(KAFKA, readiness)


def test_a_rebalance_of_usual_length_is_no_problem(
    watchdog: CommitWatchdog, readiness: Readiness
) -> None:
    for now_s in (100.0, 105.0, 110.0):
        watchdog.refused(now_s)
    assert readiness.problems() == {}


def test_refused_for_longer_than_a_session_is_not_ready_until_one_is_taken(
    watchdog: CommitWatchdog, readiness: Readiness
) -> None:
    watchdog.refused(100.0)
    watchdog.refused(110.1)
    assert readiness.problems() == {
        "commits": "refused for 10 s: the group rebalances, or this worker fell out of it"
    }
    watchdog.accepted()
    assert readiness.problems() == {}


def test_refused_for_longer_than_any_rebalance_ends_the_process(watchdog: CommitWatchdog) -> None:
    watchdog.refused(100.0)
    watchdog.refused(170.0)
    with pytest.raises(Fatal, match=r"refused for 70 s.*start it again"):
        watchdog.refused(170.1)


def test_what_was_taken_in_between_starts_the_time_anew(
    watchdog: CommitWatchdog, readiness: Readiness
) -> None:
    watchdog.refused(100.0)
    watchdog.accepted()
    watchdog.refused(200.0)
    watchdog.refused(209.0)
    assert readiness.problems() == {}
