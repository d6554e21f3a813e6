"""Fixtures of the tests that start workers: a bundle, and a lane of topics, group and keys for each test."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from deploy.embedded.services import Server
from tests.support.bundles import make_tiny_bundle
from tests.support.image_server import ImageServer
from tests.support.lane import Lane, open_lane
from tests.support.releases import TinyReleases, make_releases
from tests.support.services import MakeTopics
from tests.support.slow_bundles import make_slow_bundle

STEMS = ("images.uploaded", "images.verdicts", "images.uploaded.DLT")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle whose score depends on the image's colour."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def slow_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that takes about four seconds over a marked image: longer than a session."""
    return make_slow_bundle(tmp_path_factory.mktemp("bundle") / "slow", seconds=4)


@pytest.fixture
def lane(
    bootstrap: str, cache: Server, topics: MakeTopics, bundle: Path, tmp_path: Path
) -> Iterator[Lane]:
    """Topics of three partitions, a group and keys of this test's own."""
    url = f"redis://{cache.address}/0"
    with open_lane(bootstrap, url, bundle, tmp_path, topics(*STEMS)) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared_lane(
    bootstrap: str,
    cache: Server,
    topics: MakeTopics,
    bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lane]:
    """A lane for the tests of one module that need one running worker and content ids of their own."""
    url = f"redis://{cache.address}/0"
    directory = tmp_path_factory.mktemp("lane")
    with open_lane(bootstrap, url, bundle, directory, topics(*STEMS)) as opened:
        yield opened


@pytest.fixture(scope="module")
def images() -> Iterator[ImageServer]:
    """A web server for images."""
    with ImageServer() as server:
        yield server


@pytest.fixture
def releases(tmp_path: Path) -> TinyReleases:
    """A store whose stable channel is at 0.1.0."""
    made = make_releases(tmp_path / "releases")
    made.promote("0.1.0")
    return made


@pytest.fixture
def own_logging() -> Iterator[None]:
    """For a command that runs in this process: the logging that it sets up ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
