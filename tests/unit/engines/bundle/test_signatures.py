"""A bundle is loaded only if a trusted key signed the very bytes of its manifest."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines.bundle.keys import Trust, read_trust
from engines.bundle.manifest import MANIFEST_FILE, SIGNATURES_FILE, BundleError, write_manifest
from engines.bundle.signatures import SignatureError, read_signatures
from engines.bundle.verify import load_bundle, verify_files
from tests.support.bundles import make_tiny_bundle
from tests.support.engines_cli import main
from tests.support.signing import Signer, make_signer


@pytest.fixture(name="signer")
def _signer(tmp_path: Path) -> Signer:
    return make_signer(tmp_path)


@pytest.fixture(name="bundle_dir")
def _bundle_dir(tmp_path: Path, signer: Signer) -> Path:
    return signer.sign(make_tiny_bundle(tmp_path / "bundle"))


def edit(change: Callable[[dict[str, Any]], None], bundle_dir: Path) -> None:
    """Change the one signature of the bundle."""
    found = json.loads((bundle_dir / SIGNATURES_FILE).read_text())
    change(found["signatures"][0])
    (bundle_dir / SIGNATURES_FILE).write_text(json.dumps(found))


def test_a_signed_bundle_is_loaded_and_says_who_signed(bundle_dir: Path, signer: Signer) -> None:
    bundle = load_bundle(bundle_dir, trust=signer.trust)
    assert bundle.signed_by == signer.key_id
    assert load_bundle(bundle_dir).signed_by is None  # nobody asked


def test_an_unsigned_bundle_is_refused_unless_allowed(bundle_dir: Path, signer: Signer) -> None:
    (bundle_dir / SIGNATURES_FILE).unlink()
    with pytest.raises(SignatureError, match=f"is not signed.*trusted keys: {signer.key_id}"):
        load_bundle(bundle_dir, trust=signer.trust)
    allowed = read_trust([signer.public], allow_unsigned=True)
    assert load_bundle(bundle_dir, trust=allowed).signed_by is None


def test_another_key_is_refused_and_named(bundle_dir: Path, tmp_path: Path, signer: Signer) -> None:
    other = make_signer(tmp_path, "other")
    with pytest.raises(SignatureError, match=f"signed by {signer.key_id}, which is not trusted"):
        load_bundle(bundle_dir, trust=other.trust)


def test_an_edited_manifest_is_refused_even_where_unsigned_is_allowed(
    bundle_dir: Path, signer: Signer
) -> None:
    """One more space is enough; so are files and digests that were changed together."""
    manifest = bundle_dir / MANIFEST_FILE
    manifest.write_bytes(manifest.read_bytes() + b" ")
    for trust in (signer.trust, Trust(signer.trust.keys, allow_unsigned=True)):
        with pytest.raises(SignatureError, match="was altered after"):
            load_bundle(bundle_dir, trust=trust)


def test_an_altered_file_is_refused_though_the_signature_holds(
    bundle_dir: Path, signer: Signer
) -> None:
    model = bundle_dir / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"model\.onnx was altered"):
        load_bundle(bundle_dir, trust=signer.trust)


def test_the_signature_covers_its_time_and_its_key(
    bundle_dir: Path, tmp_path: Path, signer: Signer
) -> None:
    """Another time, another's id on it, other bytes: none is a signature."""
    original = (bundle_dir / SIGNATURES_FILE).read_bytes()
    other = make_signer(tmp_path, "other")
    both = Trust({**signer.trust.keys, **other.trust.keys})
    for field, value in (
        ("signed_at", "2027-01-01T00:00:00Z"),
        ("key_id", other.key_id),
        ("signature", base64.b64encode(bytes(64)).decode()),
    ):
        (bundle_dir / SIGNATURES_FILE).write_bytes(original)
        edit(lambda one, field=field, value=value: one.update({field: value}), bundle_dir)  # type: ignore[misc]
        with pytest.raises(SignatureError, match="altered"):
            load_bundle(bundle_dir, trust=both)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"schema_version": 2, "signatures": []}'])
def test_a_broken_signatures_file_is_refused(bundle_dir: Path, signer: Signer, data: bytes) -> None:
    (bundle_dir / SIGNATURES_FILE).write_bytes(data)
    with pytest.raises(SignatureError, match=r"signatures\.json is not valid"):
        load_bundle(bundle_dir, trust=signer.trust)


def test_a_truncated_or_endless_signatures_file_is_refused(
    bundle_dir: Path, signer: Signer
) -> None:
    path = bundle_dir / SIGNATURES_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SignatureError, match="is not valid"):
        load_bundle(bundle_dir, trust=signer.trust)
    path.write_bytes(whole + b" " * 65536)
    with pytest.raises(SignatureError, match="is over 65536 bytes"):
        load_bundle(bundle_dir, trust=signer.trust)


def test_two_keys_may_sign_so_that_one_can_be_replaced(
    bundle_dir: Path, tmp_path: Path, signer: Signer
) -> None:
    other = make_signer(tmp_path, "other")
    other.sign(bundle_dir)
    signer.sign(bundle_dir)  # again: replaces its own
    found = read_signatures(bundle_dir)
    assert found is not None
    assert [one.key_id for one in found.signatures] == [other.key_id, signer.key_id]
    for one in (signer, other):
        assert load_bundle(bundle_dir, trust=one.trust).signed_by == one.key_id


def test_only_the_signatures_file_may_lie_beside_what_is_listed(
    bundle_dir: Path, signer: Signer
) -> None:
    """No other stranger, and no directory in which one could hide under that name."""
    for name in ("signatures.json.bak", "sub/signatures.json", "signature"):
        stranger = bundle_dir / name
        stranger.parent.mkdir(exist_ok=True)
        stranger.write_text("{}")
        with pytest.raises(BundleError, match="is not listed"):
            verify_files(bundle_dir, signer.trust)
        stranger.unlink()
    assert verify_files(bundle_dir, signer.trust).name == "tiny"


def test_a_manifest_written_anew_needs_a_new_signature(bundle_dir: Path, signer: Signer) -> None:
    """It lists no signatures, and the old one is not of it."""
    manifest = verify_files(bundle_dir).model_copy(update={"version": "0.2.0"})
    written = write_manifest(bundle_dir, manifest)
    assert SIGNATURES_FILE not in {entry.path for entry in written.files}
    with pytest.raises(SignatureError, match="altered after"):
        load_bundle(bundle_dir, trust=signer.trust)
    signer.sign(bundle_dir)
    assert load_bundle(bundle_dir, trust=signer.trust).manifest.version == "0.2.0"


def test_the_commands_make_a_key_sign_and_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The key is named on the command line or by the environment."""
    bundle, key = make_tiny_bundle(tmp_path / "tiny"), tmp_path / "job.pem"
    monkeypatch.delenv("SYNTHGATE_SIGNING_KEY", raising=False)
    assert main(["keygen", str(key), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert main(["sign", str(bundle), "--json"]) == 1
    assert "no signing key" in json.loads(capsys.readouterr().out)["error"]
    monkeypatch.setenv("SYNTHGATE_SIGNING_KEY", str(key))
    assert main(["sign", str(bundle)]) == 0
    assert f"by {made['key_id']}" in capsys.readouterr().out
    command = ["verify", "--json", str(bundle), "--trusted-keys", made["public"]]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["signed_by"] == made["key_id"]
    assert main(["keygen", str(tmp_path / "other.pem")]) == 0
    assert main([*command[:-1], str(tmp_path / "other.pub.pem")]) == 1
    assert "not trusted" in capsys.readouterr().out


def test_an_altered_bundle_is_not_signed(
    tmp_path: Path, signer: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Signing checks every file first: no signature on what its signer does not have."""
    bundle = make_tiny_bundle(tmp_path / "tiny")
    (bundle / "model.onnx").write_bytes(b"x")
    assert main(["sign", str(bundle), "--key", str(signer.private)]) == 1
    assert "model.onnx" in capsys.readouterr().err
    assert not (bundle / SIGNATURES_FILE).exists()
