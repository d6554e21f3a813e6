"""Which keys sign, which are trusted, and what each mistake with them says."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from engines.bundle.keys import KeyFileError, generate_key, key_id, read_private_key, read_trust
from tests.support.signing import make_signer


def test_a_new_key_is_its_owners_alone(tmp_path: Path) -> None:
    """And its public half is beside it, under the same id."""
    made_id, public = generate_key(tmp_path / "release.pem")
    assert stat.S_IMODE((tmp_path / "release.pem").stat().st_mode) == 0o600
    assert public == tmp_path / "release.pub.pem"
    assert key_id(read_private_key(tmp_path / "release.pem").public_key()) == made_id
    assert list(read_trust([public]).keys) == [made_id]


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    generate_key(tmp_path / "release.pem")
    before = (tmp_path / "release.pem").read_bytes()
    with pytest.raises(KeyFileError, match="keys are never replaced"):
        generate_key(tmp_path / "release.pem")
    assert (tmp_path / "release.pem").read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_signing_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    signer = make_signer(tmp_path)
    signer.private.chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o}.*chmod 600"):
        read_private_key(signer.private)


def test_a_directory_of_keys_is_all_its_pem_files(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    signers = [make_signer(tmp_path, name) for name in ("old", "new")]
    for signer in signers:
        signer.public.rename(keys / signer.public.name)
    assert set(read_trust([keys]).keys) == {signer.key_id for signer in signers}


def test_what_is_no_trusted_key_is_told(tmp_path: Path) -> None:
    """Nothing at all, an empty directory, a private key, another kind, no key, no file."""
    signer = make_signer(tmp_path)
    (tmp_path / "empty").mkdir()
    other = generate_private_key(SECP256R1())
    elliptic, secret = tmp_path / "ec.pub.pem", tmp_path / "ec.pem"
    elliptic.write_bytes(
        other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    secret.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    secret.chmod(0o600)
    (tmp_path / "text.pem").write_text("text")
    (tmp_path / "text.pem").chmod(0o600)
    for paths, told in (
        ([], "no trusted key is named"),
        ([tmp_path / "empty"], "holds no .*pem file"),
        ([signer.private], "is a private key"),
        ([elliptic], "holds a key that is not Ed25519"),
        ([tmp_path / "text.pem"], "is not a public key in PEM"),
        ([tmp_path / "none.pem"], "No such file"),
    ):
        with pytest.raises(KeyFileError, match=told):
            read_trust(paths)
    for path, told in (
        (secret, "holds a key that is not Ed25519"),
        (tmp_path / "text.pem", "is not an unencrypted private key"),
        (tmp_path / "none.pem", "No such file"),
    ):
        with pytest.raises(KeyFileError, match=told):
            read_private_key(path)
