"""The new bundle: what it has, what it says, and that the old one stays as it was."""

from pathlib import Path

import pytest

from engines.bundle.manifest import (
    SIGNATURES_FILE,
    BundleError,
    EngineFile,
    manifest_sha256,
    read_manifest,
)
from engines.bundle.signatures import read_signatures
from engines.bundle.verify import verify_files
from engines.compile.package import PlanFile, plan_path, refuse_existing, write_compiled
from tests.support.bundles import make_tiny_bundle
from tests.support.signing import make_signer


def plan(data: bytes = b"a plan", precision: str = "fp32") -> PlanFile:
    """Some bytes as a plan."""
    path = plan_path("tensorrt", "11.4.0", "9.0", precision, hardware_compatible=False)
    engine = EngineFile(
        path=path,
        runtime="tensorrt",
        precision="fp32",
        compute_capability="9.0",
        runtime_version="11.4.0",
    )
    return PlanFile(engine, data)


@pytest.fixture(name="source")
def _source(tmp_path: Path) -> Path:
    return make_tiny_bundle(tmp_path / "source")


def test_a_plan_is_named_by_library_release_architecture_and_precision() -> None:
    exact = plan_path("tensorrt", "11.4.0", "9.0", "fp16", hardware_compatible=False)
    later = plan_path("tensorrt-rtx", "1.7.1.116", "8.0", "fp16", hardware_compatible=True)
    assert exact == "plans/tensorrt-11.4.0-sm90-fp16.plan"
    assert later == "plans/tensorrt-rtx-1.7.1.116-sm80plus-fp16.plan"


def test_the_new_bundle_is_the_old_one_with_plans_and_unsigned(
    source: Path, tmp_path: Path
) -> None:
    make_signer(tmp_path).sign(source)
    before = manifest_sha256(source)
    out = tmp_path / "deep" / "out"
    write_compiled(source, read_manifest(source), out, [plan()], {"version": "0.2.0"})
    manifest = verify_files(out)
    assert manifest.version == "0.2.0"
    assert manifest.engines == (plan().engine,)
    assert manifest.runtimes == ("tensorrt", "onnxruntime-cpu")
    assert (out / plan().engine.path).read_bytes() == b"a plan"
    assert read_signatures(out) is None
    assert manifest_sha256(source) == before
    assert read_signatures(source) is not None
    assert [one.name for one in out.parent.iterdir()] == ["out"]


def test_a_second_compilation_adds_to_the_first_and_replaces_what_it_makes_again(
    source: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_compiled(source, read_manifest(source), first, [plan(), plan(precision="fp16")], {})
    write_compiled(first, read_manifest(first), second, [plan(b"a better plan")], {})
    manifest = verify_files(second)
    assert [one.path for one in manifest.engines] == [
        plan().engine.path,
        plan(precision="fp16").engine.path,
    ]
    assert (second / plan().engine.path).read_bytes() == b"a better plan"
    assert manifest.runtimes == ("tensorrt", "onnxruntime-cpu")


def test_a_directory_that_is_there_is_not_written_over(source: Path) -> None:
    with pytest.raises(BundleError, match="already exists: remove it, or choose another --out"):
        refuse_existing(source)


def test_a_file_that_was_exchanged_after_it_was_verified_is_refused(
    source: Path, tmp_path: Path
) -> None:
    manifest = verify_files(source)
    (source / "MODEL_CARD.md").write_text("# Another card\n")
    with pytest.raises(BundleError, match=r"MODEL_CARD\.md changed while it was copied"):
        write_compiled(source, manifest, tmp_path / "out", [plan()], {})
    assert [one.name for one in tmp_path.iterdir()] == ["source"]


def test_a_place_that_cannot_be_written_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match=r"cannot be written .*: make its directory writable"):
        write_compiled(source, read_manifest(source), tmp_path / "file" / "out", [plan()], {})


def test_signatures_are_no_file_of_the_new_bundle(source: Path, tmp_path: Path) -> None:
    make_signer(tmp_path).sign(source)
    write_compiled(source, read_manifest(source), tmp_path / "out", [plan()], {})
    assert not (tmp_path / "out" / SIGNATURES_FILE).exists()
