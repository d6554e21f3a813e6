"""Fixtures that several tests of the worker share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import LogCapture

from tests.support.releases import TinyReleases, make_releases
from tests.support.worker_fixtures import own_logging

__all__ = ["own_logging"]


@pytest.fixture
def releases(tmp_path: Path) -> TinyReleases:
    """A store whose stable channel is at 0.1.0."""
    made = make_releases(tmp_path / "releases")
    made.promote("0.1.0")
    return made


@pytest.fixture
def log() -> Iterator[LogCapture]:
    """What was logged."""
    capture = LogCapture()
    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    yield capture
    structlog.reset_defaults()
