"""The timing cache beside a bundle."""

from pathlib import Path

import pytest

from engines.bundle.manifest import BundleError
from engines.compile.plan import read_timing, timing_path, write_timing


def test_it_lies_beside_the_bundle_and_is_read_back(tmp_path: Path) -> None:
    path = timing_path(tmp_path / "mine", "tensorrt-11.4.0-sm90")
    assert path.parent == tmp_path
    assert read_timing(path) == b""
    write_timing(path, b"first")
    write_timing(path, b"second")
    assert read_timing(path) == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_cache_that_cannot_be_read_or_written_is_refused(tmp_path: Path) -> None:
    path = timing_path(tmp_path / "mine", "x")
    path.mkdir()
    with pytest.raises(BundleError, match="cannot be read"):
        read_timing(path)
    with pytest.raises(BundleError, match="cannot be written"):
        write_timing(path, b"data")
