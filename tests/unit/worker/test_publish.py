"""A producer that never answers costs one time limit, not one a record."""

import time
from typing import cast

from kafka import KafkaProducer
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
from kafka.structs import TopicPartition

from tests.unit.worker.services import make_services
from worker.cache import Published
from worker.messages import Message
from worker.publish import Publisher


class _Silent:
    """The client's own futures, of records whose broker is gone: nobody resolves them."""

    def send(self, topic: str, *_rest: object) -> FutureRecordMetadata:
        """A record that is on its way for ever."""
        produced = FutureProduceResult(TopicPartition(topic, 0))
        return FutureRecordMetadata(produced, 0, 0, None, 0, 0, 0)

    def close(self, timeout: float) -> None:
        """Nothing to let go of."""


def test_records_that_are_never_answered_share_one_time_limit() -> None:
    """A group of twenty is given up after one limit, whole, to be sent again by a new producer."""
    publisher = Publisher(make_services(pause=lambda _s: True))
    publisher._ack_timeout_s = 0.2
    publisher._producer = cast("KafkaProducer", _Silent())
    messages = [
        Message("verdicts", b"k", b"v", [], Published(f"id-{number}")) for number in range(20)
    ]
    began_s = time.monotonic()
    assert publisher._send(messages) == messages
    assert time.monotonic() - began_s < 2
    assert publisher._producer is None
