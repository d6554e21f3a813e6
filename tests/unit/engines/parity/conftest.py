"""What the tests of a comparison start from."""

from pathlib import Path

import pytest

from tests.support.bundles import make_tiny_bundle, rewritten
from tests.support.verified import BOTH


@pytest.fixture(name="bundle_dir")
def _bundle_dir(tmp_path: Path) -> Path:
    """A bundle for both runtimes on the CPU."""
    return rewritten(make_tiny_bundle(tmp_path / "bundle"), runtimes=BOTH)
