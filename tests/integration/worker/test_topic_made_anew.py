"""A topic that is deleted and made anew under a running worker: offsets start at 0 again."""

import pytest
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from deploy.embedded.topics import create_topics
from tests.support.events import stream
from tests.support.lane import Lane
from tests.support.worker_process import eventually

BEFORE = 30


@pytest.mark.kafka_only(reason="the embedded broker's consumers hear nothing of a deleted topic")
@pytest.mark.parametrize("after", [BEFORE // 3, 2 * BEFORE])
def test_all_of_a_topic_made_anew_is_answered(lane: Lane, after: int) -> None:
    """The worker's old place is past the new end, or in the middle of what is new: nothing of it is skipped."""
    worker = lane.start()
    with lane.verdicts() as verdicts:
        lane.send(*(event.on(0) for event in stream(BEFORE, prefix="old")))
        verdicts.wait_for_keys([f"old-{at}" for at in range(BEFORE)])
        eventually(lambda: lane.committed()[0] == BEFORE, "committed")
        make_anew(lane)
        lane.send(*(event.on(0) for event in stream(after, prefix="new")))
        verdicts.wait_for_keys([f"new-{at}" for at in range(after)])
        assert len(verdicts.to_end()) == BEFORE + after
    eventually(lambda: lane.committed()[0] == after, "the group is at the new end")
    assert worker.drain() == 0


def make_anew(lane: Lane) -> None:
    """Delete the input topic and create it again, empty."""
    admin = KafkaAdminClient(bootstrap_servers=lane.bootstrap)
    try:
        admin.delete_topics([lane.input_topic])
    finally:
        admin.close()
    eventually(lambda: _created(lane), "created again")


def _created(lane: Lane) -> bool:
    """The broker refuses the name until it is done with the old topic."""
    try:
        create_topics(lane.bootstrap, {lane.input_topic: 3})
    except KafkaError:
        return False
    return True
