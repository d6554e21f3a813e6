"""Which addresses an event may name: none that strangers could not reach anyway."""

import datetime as dt
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.worker.image_server import IMAGE, ImageServer, image_server
from tests.unit.worker.test_fetch_http import refusal, trusting_nobody
from worker.fetch import Fetcher, is_public
from worker.settings import FetchSettings


def make_fetcher(tls: ssl.SSLContext | None = None, **changes: object) -> Fetcher:
    """A fetcher as careful as the defaults, with one attempt."""
    settings = FetchSettings.model_validate({"schemes": ("http", "https"), "attempts": 1} | changes)
    return Fetcher(
        settings, 64 * 1024, lambda _s: False, time.monotonic, None, tls or trusting_nobody()
    )


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254"),
        *("0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1"),  # noqa: S104
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b::10.0.0.1", "2002:7f00:1::1", "2002:c0a8:1::1"),
    ],
)
def test_private_addresses_are_not_public(address: str) -> None:
    """Loopback, private, link-local, shared, reserved, and all of these inside IPv6."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"]
)
def test_public_addresses_are_public(address: str) -> None:
    """Also where a gateway carries IPv4 over IPv6."""
    assert is_public(address)


@pytest.mark.parametrize(
    "uri",
    [
        *("http://127.0.0.1/x", "http://127.1/x", "http://2130706433/x", "http://0x7f.1/x"),
        *("http://localhost/x", "https://localhost:8443/x", "http://[::1]/x", "http://[::]:80/x"),
        *("http://[::ffff:127.0.0.1]/x", "http://169.254.169.254/latest/meta-data", "http://0/x"),
    ],
)
def test_events_may_not_name_private_addresses(uri: str) -> None:
    """However they are spelt, and whatever name resolves to them; no connection is made."""
    error = refusal(make_fetcher(), uri)
    assert error.code == "private_address"
    assert "fetch.allow_private_networks" in error.message


def test_a_redirect_is_checked_like_the_first_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    """A public host that redirects into the private network gets nothing out of it."""
    public = "1.1.1.1"
    with image_server() as server:
        real = socket.create_connection

        def routed(address: tuple[str, int], timeout: float) -> socket.socket:
            assert address[0] == public, "only the checked address is connected to"
            return real(("127.0.0.1", server.port), timeout)

        monkeypatch.setattr(socket, "create_connection", routed)
        uri = f"http://{public}:{server.port}/to/http://127.0.0.1:{server.port}/image/inside"
        assert refusal(make_fetcher(), uri).code == "private_address"
        assert server.requests["/image/inside"] == 0
        assert make_fetcher().fetch(f"http://{public}:{server.port}/image/outside") == IMAGE


def test_of_several_addresses_only_the_public_ones_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first that answers is used; a private one among them is left out."""
    tried = list[str]()
    answers = [(0, 0, 0, "", (one, 80)) for one in ("10.0.0.1", "1.1.1.1", "1.1.1.1", "1.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: answers)
    with image_server() as server:

        def routed(address: tuple[str, int], timeout: float) -> socket.socket:
            tried.append(address[0])
            if address[0] == "1.1.1.1":
                raise ConnectionRefusedError
            connection = socket.socket()
            connection.settimeout(timeout)
            connection.connect(("127.0.0.1", server.port))
            return connection

        monkeypatch.setattr(socket, "create_connection", routed)
        assert make_fetcher().fetch("http://images.example/image/1") == IMAGE
    assert tried == ["1.1.1.1", "1.0.0.1"]


def test_only_listed_hosts_where_there_is_a_list() -> None:
    """The list is of names, without regard to case; an address is another name."""
    fetcher = make_fetcher(allow_hosts=("LocalHost",), allow_private_networks=True)
    with image_server() as server:
        assert fetcher.fetch(f"http://LOCALHOST:{server.port}/image/1") == IMAGE
        for host in ("127.0.0.1", "localhost.", "evil.example"):
            error = refusal(fetcher, f"http://{host}:{server.port}/image/1")
            assert error.code == "host_not_allowed"
            assert host in error.message


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("ftp://h/x", "scheme_not_allowed"),
        ("file:///etc/passwd", "scheme_not_allowed"),
        ("s3://bucket/key", "scheme_not_allowed"),
        ("images/1.jpg", "scheme_not_allowed"),
        ("", "scheme_not_allowed"),
        ("http://h:port/x", "malformed_uri"),
        ("http://h:99999/x", "malformed_uri"),
        ("http://[::1/x", "malformed_uri"),
        ("http://" + "ä" * 300 + ".example/x", "malformed_uri"),
        ("http://" + "a" * 300 + ".example/x", "malformed_uri"),
        ("http:///x", "host_not_allowed"),
    ],
)
def test_uris_that_cannot_be_used(uri: str, code: str) -> None:
    """Each has its own code."""
    assert refusal(make_fetcher(), uri).code == code


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of ``localhost`` and its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.fixture
def secure_server(certificate: Path) -> Iterator[ImageServer]:
    """A server that speaks TLS as ``localhost``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with image_server(context) as running:
        yield running


def test_https_verifies_the_name_not_the_address(
    secure_server: ImageServer, certificate: Path
) -> None:
    """The connection goes to the checked address, the certificate has to be the host's."""
    trusting = make_fetcher(
        ssl.create_default_context(cafile=certificate), allow_private_networks=True
    )
    assert trusting.fetch(f"https://localhost:{secure_server.port}/image/1") == IMAGE
    by_address = refusal(trusting, f"https://127.0.0.1:{secure_server.port}/image/1")
    assert "SSLCertVerificationError" in by_address.message


def test_https_trusts_the_system_authorities_alone(secure_server: ImageServer) -> None:
    """A self-signed certificate is none of theirs."""
    settings = FetchSettings(schemes=("https",), attempts=1, allow_private_networks=True)
    fetcher = Fetcher(settings, 64 * 1024, lambda _s: False, time.monotonic)
    error = refusal(fetcher, f"https://localhost:{secure_server.port}/image/1")
    assert (error.code, "SSLCertVerificationError" in error.message) == ("unreachable", True)


def test_a_trickle_inside_tls_meets_the_deadline(
    secure_server: ImageServer, certificate: Path
) -> None:
    """The connection is cut off beneath TLS."""
    context = ssl.create_default_context(cafile=certificate)
    fetcher = make_fetcher(context, allow_private_networks=True, timeout_s=0.5)
    error = refusal(fetcher, f"https://localhost:{secure_server.port}/trickle/body")
    assert "the answer took too long" in error.message


def test_a_handshake_that_never_ends_meets_the_deadline() -> None:
    """A server that takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        fetcher = make_fetcher(allow_private_networks=True, timeout_s=0.3)
        error = refusal(fetcher, f"https://localhost:{port}/image/1")
    assert "the answer took too long" in error.message


def test_a_deadline_that_comes_late_is_still_what_a_silent_server_meets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A busy machine wakes the deadline's thread after its time; the socket has not given up before."""
    timer = threading.Timer
    monkeypatch.setattr(threading, "Timer", lambda after_s, cut: timer(1.4 * after_s, cut))
    test_a_handshake_that_never_ends_meets_the_deadline()
