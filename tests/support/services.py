"""Which broker the tests run on, and topics of their own for each test.

In: a kind of broker and a directory. Out: a started :class:`~deploy.embedded.services.Server`.
"""

import uuid
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from deploy.embedded.services import Server, tansu_broker
from deploy.embedded.topics import create_topics
from deploy.kafka.broker import kafka_broker


class BrokerKind(StrEnum):
    """The brokers that the same tests must pass on."""

    EMBEDDED = "embedded"
    KAFKA = "kafka"


class MakeTopics(Protocol):
    """What the fixture ``topics`` gives to a test."""

    def __call__(self, *stems: str, partitions: int = 3) -> tuple[str, ...]:
        """Create a topic for each stem, with a name that no other test has."""


def make_broker(kind: BrokerKind, directory: Path) -> Server:
    """The broker of that kind, not yet started."""
    makers: dict[BrokerKind, Callable[[Path], Server]] = {
        BrokerKind.EMBEDDED: tansu_broker,
        BrokerKind.KAFKA: _kafka_broker,
    }
    return makers[kind](directory)


def _kafka_broker(directory: Path) -> Server:
    # Its own least session is six seconds: too long to wait for in every test of a dead worker.
    return kafka_broker(directory, properties={"group.min.session.timeout.ms": "1000"})


def make_topics(bootstrap: str) -> MakeTopics:
    """A function that creates uniquely named topics on that broker."""

    def make(*stems: str, partitions: int = 3) -> tuple[str, ...]:
        suffix = uuid.uuid4().hex[:8]
        names = tuple(f"{stem}.{suffix}" for stem in stems)
        create_topics(bootstrap, dict.fromkeys(names, partitions))
        return names

    return make
