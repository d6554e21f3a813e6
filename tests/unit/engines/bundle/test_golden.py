"""The golden file: the same content is the same bytes, and nothing odd is read."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.bundle.golden import Golden, read_golden, write_golden
from engines.bundle.manifest import BundleError, PreprocessSpec
from tests.support.bundles import tiny_golden

SPEC = PreprocessSpec(version="1", crop_policy="center", crop_px=32)


@pytest.fixture(name="golden")
def _golden() -> Golden:
    return tiny_golden(SPEC)


def test_a_golden_survives_being_written_and_read(tmp_path: Path, golden: Golden) -> None:
    write_golden(tmp_path / "golden.npz", golden)
    read = read_golden((tmp_path / "golden.npz").read_bytes())
    assert read.encoded == golden.encoded
    np.testing.assert_array_equal(read.image_NHWC, golden.image_NHWC)
    np.testing.assert_array_equal(read.logit_K, golden.logit_K)
    np.testing.assert_array_equal(read.encoded_logit_M, golden.encoded_logit_M)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path, golden: Golden) -> None:
    write_golden(tmp_path / "one.npz", golden)
    write_golden(tmp_path / "two.npz", golden)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_a_golden_that_would_check_nothing_is_refused(golden: Golden) -> None:
    nothing = np.zeros(0, np.float32)
    with pytest.raises(BundleError, match="at least one RGB crop"):
        replace(golden, image_NHWC=golden.image_NHWC[:0], logit_K=nothing)
    with pytest.raises(BundleError, match="at least one encoded file"):
        replace(golden, encoded=(), encoded_logit_M=nothing)


def test_a_reference_that_is_not_finite_is_refused(golden: Golden) -> None:
    broken = golden.logit_K.copy()
    broken[1] = np.nan
    with pytest.raises(BundleError, match="not finite"):
        replace(golden, logit_K=broken)


def test_arrays_of_another_shape_or_type_are_refused(golden: Golden) -> None:
    with pytest.raises(BundleError, match="image_NHWC"):
        replace(golden, image_NHWC=golden.image_NHWC.astype(np.float32))
    with pytest.raises(BundleError, match="logit_K"):
        replace(golden, logit_K=golden.logit_K[:-1])
    with pytest.raises(BundleError, match="encoded_logit_M"):
        replace(golden, encoded_logit_M=golden.encoded_logit_M.astype(np.float64))


def saved(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not an archive", bytes(64)])
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match="export it again"):
        read_golden(data)


def test_a_single_array_and_a_missing_one_are_refused() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    for data in (buffer.getvalue(), saved(image_NHWC=np.zeros((1, 4, 4, 3), np.uint8))):
        with pytest.raises(BundleError, match="export it again"):
            read_golden(data)


def test_nothing_is_ever_unpickled(golden: Golden) -> None:
    objects = np.array([{"a": 1}], dtype=object)
    data = saved(
        image_NHWC=golden.image_NHWC, logit_K=objects, encoded_logit_M=golden.encoded_logit_M
    )
    with pytest.raises(BundleError, match="export it again"):
        read_golden(data)


def test_a_truncated_golden_is_refused(tmp_path: Path, golden: Golden) -> None:
    write_golden(tmp_path / "golden.npz", golden)
    data = (tmp_path / "golden.npz").read_bytes()
    for kept in (len(data) - 1, len(data) // 2, 30):
        with pytest.raises(BundleError):
            read_golden(data[:kept])
