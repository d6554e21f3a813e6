"""The real broker and cache that the tests run on, started once a session.

``--broker kafka`` runs the tests that need a broker, and only those, on Apache Kafka; without it
they run on the embedded one. Both are child processes on free loopback ports.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from deploy.embedded.services import Server, valkey_cache
from tests.support.services import BrokerKind, MakeTopics, make_broker, make_topics

NEEDS_A_BROKER = {"broker", "broker_kind", "bootstrap", "topics"}
PYCACHE = Path(__file__).parents[1] / "build" / "pycache"


def pytest_configure() -> None:
    """Let the processes that tests start share compiled modules, even where the environment writes none.

    Compiling takes half of the time in which a worker starts.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(PYCACHE)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the caller choose the broker."""
    parser.addoption(
        "--broker",
        type=BrokerKind,
        choices=list(BrokerKind),
        default=BrokerKind.EMBEDDED,
        help="the broker to test on; kafka needs Java 17 and runs only tests that need a broker",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what would run on Apache Kafka just as it did before, and what needs it elsewhere."""
    on_kafka = config.getoption("--broker") is BrokerKind.KAFKA

    def is_chosen(item: pytest.Item) -> bool:
        if not on_kafka:
            return item.get_closest_marker("kafka_only") is None
        return bool(NEEDS_A_BROKER & set(getattr(item, "fixturenames", ())))

    chosen = [item for item in items if is_chosen(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@pytest.fixture(scope="session")
def broker_kind(pytestconfig: pytest.Config) -> BrokerKind:
    """Which broker this session tests on."""
    return BrokerKind(pytestconfig.getoption("--broker"))


@pytest.fixture(scope="session")
def broker(broker_kind: BrokerKind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running broker, shared: use topics of your own, and do not stop it."""
    with make_broker(broker_kind, tmp_path_factory.mktemp("broker")) as server:
        yield server


@pytest.fixture(scope="session")
def bootstrap(broker: Server) -> str:
    """``host:port`` of the broker."""
    return broker.address


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running cache, shared: use keys of your own, and do not stop it."""
    with valkey_cache(tmp_path_factory.mktemp("cache")) as server:
        yield server


@pytest.fixture
def redis_url(cache: Server) -> Iterator[str]:
    """``redis://...`` of the cache, emptied before the test."""
    url = f"redis://{cache.address}/0"
    with Redis.from_url(url) as client:
        client.flushall()
        yield url


@pytest.fixture(scope="session")
def topics(bootstrap: str) -> MakeTopics:
    """``topics("images.uploaded", "images.verdicts", partitions=2)`` gives unique names."""
    return make_topics(bootstrap)
