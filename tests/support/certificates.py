"""An authority of the test's own, and a certificate for the loopback address that it has signed.

In: a directory. Out: :class:`Certificates`, PEM files valid for an hour.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LIFETIME = timedelta(hours=1)


@dataclass(frozen=True)
class Certificates:
    """Files in PEM."""

    authority: Path
    certificate: Path
    key: Path
    both: Path  # key and certificate in one file, as Apache Kafka reads them


def make_certificates(directory: Path) -> Certificates:
    """An authority, and a certificate for 127.0.0.1, to serve and to be known by."""
    directory.mkdir(parents=True, exist_ok=True)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = _name("Test authority")
    authority = (
        _builder(authority_name, authority_name, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        _builder(_name("worker"), authority_name, key)
        .add_extension(address, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return _written(directory, authority, certificate, key)


def _written(
    directory: Path,
    authority: x509.Certificate,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
) -> Certificates:
    pem = serialization.Encoding.PEM
    key_bytes = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificate_bytes = certificate.public_bytes(pem)
    paths = Certificates(*(directory / f"{name}.pem" for name in ("ca", "cert", "key", "both")))
    paths.authority.write_bytes(authority.public_bytes(pem))
    paths.certificate.write_bytes(certificate_bytes)
    paths.key.write_bytes(key_bytes)
    paths.both.write_bytes(key_bytes + certificate_bytes)
    return paths


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LIFETIME)
        .not_valid_after(now + LIFETIME)
    )
