"""What the tests of the data share."""

from pathlib import Path

import pytest

from tests.support.trainer import write_tiny_data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with four pictures a folder."""
    return write_tiny_data(tmp_path / "data", count=4)
