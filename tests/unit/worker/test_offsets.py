"""Only the contiguous prefix of what was published is ever committed, whatever the order."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.worker.samples import record
from worker.offsets import OffsetTracker
from worker.types import AckToken

TOPIC = "images.uploaded"
KEY = (TOPIC, 2)


def test_nothing_is_committable_before_anything_is_published() -> None:
    """A record that was only received must come again after a crash."""
    tracker = OffsetTracker()
    tracker.receive(record(offset=7))
    assert tracker.committable() == {}
    assert tracker.in_flight() == 1


def test_a_gap_holds_back_what_lies_behind_it() -> None:
    """The offset to commit is one past the last record of the finished prefix."""
    tracker = OffsetTracker()
    tokens = [tracker.receive(record(offset=offset)) for offset in (7, 8, 9)]
    tracker.acknowledge(tokens[2])
    assert tracker.committable() == {}
    tracker.acknowledge(tokens[0])
    assert tracker.committable() == {KEY: 8}
    tracker.acknowledge(tokens[1])
    assert tracker.committable() == {KEY: 10}


def test_offsets_may_have_holes() -> None:
    """Compaction and transactions leave offsets out; the prefix goes by records, not by numbers."""
    tracker = OffsetTracker()
    first, second = (tracker.receive(record(offset=offset)) for offset in (7, 1000))
    tracker.acknowledge(first)
    tracker.acknowledge(second)
    assert tracker.committable() == {KEY: 1001}


def test_what_was_committed_is_not_committed_again() -> None:
    """A quiet worker sends no commits."""
    tracker = OffsetTracker()
    tracker.acknowledge(tracker.receive(record(offset=7)))
    tracker.committed(tracker.committable())
    assert tracker.committable() == {}


def test_committable_may_be_asked_of_some_partitions() -> None:
    """At a rebalance only what moves away is committed."""
    tracker = OffsetTracker()
    for partition in (0, 1):
        tracker.acknowledge(tracker.receive(record(offset=partition, partition=partition)))
    assert tracker.committable([(TOPIC, 1)]) == {(TOPIC, 1): 2}
    assert tracker.in_flight([(TOPIC, 1), (TOPIC, 9)]) == 0


def test_a_ticket_is_void_once_its_partition_moved_away() -> None:
    """Even if the partition has come back since: those records were received again."""
    tracker = OffsetTracker()
    old = tracker.receive(record(offset=7))
    assert tracker.forget([KEY, ("other", 0)]) == 1
    assert tracker.acknowledge(old) is False
    again = tracker.receive(record(offset=7))
    assert again.epoch > old.epoch
    assert tracker.acknowledge(old) is False
    assert tracker.committable() == {}
    assert tracker.acknowledge(again) is True
    assert tracker.committable() == {KEY: 8}


def test_a_topic_made_anew_opens_a_new_book() -> None:
    """After its broker lost everything a topic starts at 0: old tokens must not acknowledge there."""
    tracker = OffsetTracker()
    old = tracker.receive(record(offset=1000, value=b"x" * 10, key=None))
    new = tracker.receive(record(offset=0, value=b"y" * 3, key=None))
    assert (tracker.in_flight(), tracker.in_flight_bytes) == (1, 3)
    assert tracker.acknowledge(old) is False
    tracker.acknowledge(new)
    assert tracker.committable() == {KEY: 1}


def test_finishing_twice_changes_nothing() -> None:
    """Neither before nor after the record has joined the prefix."""
    tracker = OffsetTracker()
    first, second = (tracker.receive(record(offset=offset)) for offset in (7, 8))
    for token in (second, second, first, first, second):
        assert tracker.acknowledge(token) is True
    assert (tracker.in_flight(), tracker.in_flight_bytes) == (0, 0)
    assert tracker.committable() == {KEY: 9}


@given(order=st.permutations(range(8)), steps=st.lists(st.integers(1, 50), min_size=8, max_size=8))
@settings(max_examples=60)
def test_whatever_the_order_the_prefix_is_committable(order: list[int], steps: list[int]) -> None:
    """After each finish: one past the last record before the first that is unfinished."""
    tracker = OffsetTracker()
    offsets = [sum(steps[: index + 1]) for index in range(8)]
    tokens = [tracker.receive(record(offset=offset)) for offset in offsets]
    done: set[int] = set()
    for index in order:
        tracker.acknowledge(tokens[index])
        done.add(index)
        prefix = next((at for at in range(8) if at not in done), 8)
        expected = {KEY: offsets[prefix - 1] + 1} if prefix else {}
        assert tracker.committable() == expected
    assert tracker.in_flight() == 0


@dataclass
class _Partition:
    """The model: all tokens of the present epoch, and which are finished."""

    tokens: list[AckToken] = field(default_factory=list)
    finished: set[AckToken] = field(default_factory=set)


class TrackerMachine(RuleBasedStateMachine):
    """Takes, finishes, forgets and resets in any order; the model is plain lists and sets."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = OffsetTracker()
        self.model: dict[int, _Partition] = {}
        self.all_tickets: list[AckToken] = []

    @rule(partition=st.integers(0, 2), step=st.integers(1, 3), size=st.integers(0, 100))
    def take(self, partition: int, step: int, size: int) -> None:
        """The next record of a partition."""
        known = self.model.setdefault(partition, _Partition())
        offset = known.tokens[-1].offset + step if known.tokens else step
        self._take(partition, offset, size)

    @rule(partition=st.integers(0, 2))
    def restart(self, partition: int) -> None:
        """The topic was made anew: its offsets begin at 0."""
        self.model[partition] = _Partition()
        self._take(partition, 0, 5)

    def _take(self, partition: int, offset: int, size: int) -> None:
        source = record(b"x" * size, key=None, offset=offset, partition=partition)
        token = self.tracker.receive(source)
        self.model[partition].tokens.append(token)
        self.all_tickets.append(token)

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """Any token that was ever given, even twice, even a void one."""
        if self.all_tickets:
            token = data.draw(st.sampled_from(self.all_tickets))
            known = self.model.get(token.partition)
            valid = known is not None and token in known.tokens
            assert self.tracker.acknowledge(token) is valid
            if known is not None and valid:
                known.finished.add(token)

    @rule(partition=st.integers(0, 2))
    def forget(self, partition: int) -> None:
        """The partition moves away."""
        known = self.model.pop(partition, _Partition())
        unfinished = len(known.tokens) - len(known.finished)
        assert self.tracker.forget([(TOPIC, partition)]) == unfinished

    @invariant()
    def counts_and_prefixes_hold(self) -> None:
        """Counts and bytes never drift, and the prefixes are what the model says."""
        unfinished = [t for p in self.model.values() for t in p.tokens if t not in p.finished]
        assert self.tracker.in_flight() == len(unfinished)
        assert self.tracker.in_flight_bytes == sum(t.size_bytes for t in unfinished)
        expected = {}
        for partition, known in self.model.items():
            prefix = next(
                (at for at, t in enumerate(known.tokens) if t not in known.finished),
                len(known.tokens),
            )
            if prefix:
                expected[TOPIC, partition] = known.tokens[prefix - 1].offset + 1
        assert self.tracker.committable() == expected


TrackerMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestTracker = TrackerMachine.TestCase
