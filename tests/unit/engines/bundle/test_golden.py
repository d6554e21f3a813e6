"""The golden file: the same content is the same bytes, and nothing odd is read."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from engines.bundle.golden import (
    Golden,
    check_golden,
    measured_tolerance,
    read_golden,
    write_golden,
)
from engines.bundle.manifest import BundleError, PreprocessSpec, read_manifest
from engines.bundle.verify import load_bundle
from engines.runtime.protocol import RuntimeFailure
from tests.support.bundles import make_tiny_bundle, reference_logit_N, rewritten, tiny_golden

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


@pytest.fixture(name="bundle_dir")
def _bundle_dir(tmp_path: Path) -> Path:
    return make_tiny_bundle(tmp_path / "bundle", max_crops=4)


def change_constant(directory: Path, name: str, by: float) -> None:
    """Change a weight of the model a little."""
    model = onnx.load(directory / "model.onnx")
    for constant in model.graph.initializer:
        if constant.name == name:
            value = numpy_helper.to_array(constant) + np.float32(by)
            constant.CopyFrom(numpy_helper.from_array(value, name))
    onnx.save(model, directory / "model.onnx")


def test_a_model_that_computes_something_else_is_refused(bundle_dir: Path) -> None:
    change_constant(bundle_dir, "bias", 1e-3)  # the tolerance is 1e-4
    rewritten(bundle_dir)  # every digest agrees
    with pytest.raises(BundleError, match=r"golden\.npz on onnxruntime-cpu.*differs by 0\.001"):
        load_bundle(bundle_dir)


def test_a_difference_within_the_tolerance_is_accepted_and_reported(bundle_dir: Path) -> None:
    change_constant(bundle_dir, "bias", 5e-5)
    rewritten(bundle_dir)
    assert load_bundle(bundle_dir).golden_max_difference == pytest.approx(5e-5, rel=0.1)


def test_a_decoder_that_gives_other_pixels_is_noticed(bundle_dir: Path) -> None:
    """The crops still agree; only the way from the file's bytes does not."""
    path = bundle_dir / "golden.npz"
    golden = read_golden(path.read_bytes())
    shifted_M = golden.encoded_logit_M.copy()
    shifted_M[1] += np.float32(0.01)
    write_golden(path, replace(golden, encoded_logit_M=shifted_M))
    rewritten(bundle_dir)
    with pytest.raises(BundleError, match=r"the logit of encoded\[1\] differs by 0\.01"):
        load_bundle(bundle_dir)


def test_a_golden_file_that_is_no_image_is_refused(bundle_dir: Path) -> None:
    path = bundle_dir / "golden.npz"
    golden = read_golden(path.read_bytes())
    write_golden(path, replace(golden, encoded=(b"text", *golden.encoded[1:])))
    rewritten(bundle_dir)
    with pytest.raises(BundleError, match="an encoded file was refused"):
        load_bundle(bundle_dir)


def test_golden_crops_of_another_size_are_refused(bundle_dir: Path) -> None:
    path = bundle_dir / "golden.npz"
    golden = read_golden(path.read_bytes())
    write_golden(path, replace(golden, image_NHWC=golden.image_NHWC[:, :16]))
    rewritten(bundle_dir)
    with pytest.raises(BundleError, match="cannot be run"):
        load_bundle(bundle_dir)


class FaultyRuntime:
    """A runtime whose answers are altered, for faults that no real model has."""

    name = "faulty"
    precision = "fp32"
    engine_sha256 = "0" * 64
    batch_max = 3

    def __init__(self, fault: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
        self._fault = fault
        self.closed = False

    def infer(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The right logits, after the fault."""
        assert len(image_NHWC) <= self.batch_max
        return self._fault(reference_logit_N(image_NHWC))

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


def _fails(_: NDArray[np.float32]) -> NDArray[np.float32]:
    raise RuntimeFailure("the engine is gone")


def test_golden_batches_never_exceed_what_the_runtime_takes(bundle_dir: Path) -> None:
    golden = read_golden((bundle_dir / "golden.npz").read_bytes())
    runtime = FaultyRuntime(lambda logit_N: logit_N)
    assert len(golden.image_NHWC) > runtime.batch_max
    assert check_golden(runtime, read_manifest(bundle_dir), golden) < 1e-5


def test_a_runtime_of_a_precision_without_a_tolerance_is_refused(bundle_dir: Path) -> None:
    runtime = FaultyRuntime(lambda logit_N: logit_N)
    runtime.precision = "int8"
    golden = read_golden((bundle_dir / "golden.npz").read_bytes())
    with pytest.raises(BundleError, match="no tolerance for the precision 'int8'"):
        check_golden(runtime, read_manifest(bundle_dir), golden)


@pytest.mark.parametrize(
    "fault", [_fails, lambda logit_N: logit_N * np.float32(np.nan), lambda logit_N: -logit_N]
)
def test_a_refused_runtime_is_closed(
    bundle_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> None:
    runtime = FaultyRuntime(fault)
    monkeypatch.setattr("engines.bundle.verify.open_runtime", lambda *_, **__: runtime)
    with pytest.raises(BundleError, match=r"golden\.npz on faulty"):
        load_bundle(bundle_dir)
    assert runtime.closed


def test_a_tolerance_is_twice_what_was_measured_and_never_nothing() -> None:
    assert measured_tolerance(0.25) == 0.5
    assert measured_tolerance(0.0) == 1e-3
