"""Fetching: what servers, files and buckets hold is read, retried or refused; nothing hangs, nothing private leaks."""

import datetime as dt
import itertools
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.worker.image_server import IMAGE, ImageServer, image_server
from worker.errors import Poison, Retryable
from worker.fetch import Fetcher, ObjectReader, is_public
from worker.settings import FetchSettings
from worker.types import Clock

FILE_MAX_BYTES = 1000
MAX_BYTES = 64 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[ImageServer]:
    """One server for all tests here; each uses paths of its own."""
    with image_server() as running:
        yield running


def trusting_nobody() -> ssl.SSLContext:
    """For tests without https: reading the system's authorities takes a while."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def make_fetcher(
    pause: Callable[[float], bool] = lambda _seconds: False,
    *,
    max_bytes: int = MAX_BYTES,
    clock: Clock = time.monotonic,
    reader: ObjectReader | None = None,
    tls: ssl.SSLContext | None = None,
    **changes: object,
) -> Fetcher:
    """A fetcher that may read loopback, makes one attempt and does not wait."""
    settings = {"schemes": ("http",), "allow_private_networks": True, "attempts": 1} | changes
    checked = FetchSettings.model_validate(settings)
    return Fetcher(checked, max_bytes, pause, clock, reader, tls or trusting_nobody())


def careful_fetcher(tls: ssl.SSLContext | None = None, **changes: object) -> Fetcher:
    """A fetcher as careful as the defaults, except that it also reads http."""
    careful = {"schemes": ("http", "https"), "allow_private_networks": False}
    return make_fetcher(tls=tls, **(careful | changes))  # type: ignore[arg-type]


def refusal(fetcher: Fetcher, uri: str) -> Poison:
    """The Poison, at stage ``fetch``, that this URI ends in."""
    with pytest.raises(Poison) as caught:
        fetcher.fetch(uri)
    assert caught.value.stage == "fetch"
    return caught.value


@pytest.mark.parametrize("path", ["/image/1.jpg", "/image/ü ä.jpg?a=b c#part", "/chunked/whole"])
def test_the_body_comes_back_as_it_is(server: ImageServer, path: str) -> None:
    """With a length, in chunks, and where the URI needs escaping."""
    assert make_fetcher().fetch(server.url + path) == IMAGE


def test_a_compressed_answer_is_not_unpacked(server: ImageServer) -> None:
    """A kilobyte of gzip could be gigabytes: the bytes are taken as they were sent."""
    assert make_fetcher().fetch(f"{server.url}/gzip")[:2] == b"\x1f\x8b"


def test_the_host_is_sent_without_credentials(server: ImageServer) -> None:
    """The Host header names what the URI names, with its port; user and password stay here."""
    make_fetcher().fetch(f"http://user:secret@localhost:{server.port}/image/host")
    assert server.hosts[-1] == f"localhost:{server.port}"


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "not_found", "the server answered 404: the image does not exist"),
        (410, "not_found", "does not exist any more"),
        (403, "forbidden", "the worker may not read the image"),
        (401, "forbidden", "the worker may not read the image"),
        (400, "unexpected_status", "correct the uri"),
        (206, "unexpected_status", "expected 200"),
    ],
)
def test_an_answer_that_is_no_image_is_not_asked_for_again(
    server: ImageServer, status: int, code: str, message: str
) -> None:
    """Another attempt would get the same."""
    error = refusal(make_fetcher(attempts=3), f"{server.url}/{status}")
    assert (error.code, error.attempts) == (code, 1)
    assert message in error.message
    assert server.requests[f"/{status}"] == 1


def test_a_server_in_trouble_is_asked_again(server: ImageServer) -> None:
    """503 twice, then the image: the pauses double."""
    pauses_s = list[float]()

    def pause(seconds: float) -> bool:
        pauses_s.append(seconds)
        return False

    fetcher = make_fetcher(pause, attempts=3, backoff_s=0.5)
    assert fetcher.fetch(f"{server.url}/shaky/2") == IMAGE
    assert pauses_s == [0.5, 1.0]


def test_the_last_attempt_is_the_last(server: ImageServer) -> None:
    """Then the event is a dead letter, which says how often it was tried."""
    error = refusal(make_fetcher(attempts=2), f"{server.url}/503")
    assert (error.code, error.attempts) == ("unreachable", 2)
    assert error.message == "the server answered 503 (2 attempts)"
    assert server.requests["/503"] == 2


def test_a_stop_between_attempts_leaves_the_event_to_another_worker(server: ImageServer) -> None:
    """It is not poison only because this worker had no time."""
    with pytest.raises(Retryable):
        make_fetcher(lambda _seconds: True, attempts=3).fetch(f"{server.url}/500")
    assert server.requests["/500"] == 1


def test_a_server_that_is_not_there(server: ImageServer) -> None:
    """Refused connections and unknown names are retried, then reported."""
    refused = refusal(make_fetcher(attempts=2), "http://127.0.0.1:1/image")
    assert (refused.code, refused.attempts) == ("unreachable", 2)
    assert refused.message == "127.0.0.1 does not answer: ConnectionRefusedError (2 attempts)"
    unknown = refusal(make_fetcher(), "http://nowhere.invalid/image")
    assert "nowhere.invalid cannot be resolved" in unknown.message


@pytest.mark.parametrize("path", ["/image/large", "/chunked/whole", "/endless"])
def test_too_large_a_body_is_not_read_to_its_end(server: ImageServer, path: str) -> None:
    """With and without a length, even without an end."""
    error = refusal(make_fetcher(max_bytes=1000), server.url + path)
    assert error.code == "too_many_bytes"
    assert "more than 1000 bytes (decode.max_bytes)" in error.message


@pytest.mark.parametrize("path", ["/image/limit", "/chunked/whole"])
def test_the_limit_itself_is_allowed(server: ImageServer, path: str) -> None:
    """One byte more is too many."""
    assert make_fetcher(max_bytes=len(IMAGE)).fetch(server.url + path) == IMAGE
    smaller = make_fetcher(max_bytes=len(IMAGE) - 1)
    assert refusal(smaller, server.url + path).code == "too_many_bytes"


@pytest.mark.parametrize("path", ["/short", "/chunked/cut"])
def test_a_body_that_breaks_off_is_not_an_image(server: ImageServer, path: str) -> None:
    """Half of a JPEG may well decode: it must not come through."""
    error = refusal(make_fetcher(attempts=2), server.url + path)
    assert (error.code, server.requests[path]) == ("unreachable", 2)


@pytest.mark.parametrize("where", ["header", "body", "chunk", "unsized"])
def test_a_server_that_trickles_meets_the_deadline(server: ImageServer, where: str) -> None:
    """Each byte comes well within a socket's timeout, wherever it is; the whole must not."""
    started_s = time.monotonic()
    error = refusal(make_fetcher(timeout_s=0.4), f"{server.url}/trickle/{where}")
    assert time.monotonic() - started_s < 3
    assert error.code == "unreachable"
    assert "the answer took too long (fetch.timeout_s)" in error.message


def test_the_deadline_is_shared_by_all_redirects(server: ImageServer) -> None:
    """By the clock, the second hop begins when the time is up already."""
    ticks = itertools.chain([0.0, 0.1], itertools.repeat(9.0))
    fetcher = make_fetcher(clock=lambda: next(ticks), timeout_s=5.0)
    error = refusal(fetcher, f"{server.url}/to//image/late")
    assert "the answer took too long" in error.message
    assert server.requests["/image/late"] == 0


@pytest.mark.parametrize(
    "path",
    ["/to//image/relative", "/to/{url}/image/absolute"]
    + [f"/moved/{status}" for status in (301, 302, 303, 307, 308)],
)
def test_a_redirect_is_followed(server: ImageServer, path: str) -> None:
    """Relative and absolute ones, and every status: they differ in what a browser remembers."""
    assert make_fetcher().fetch(server.url + path.format(url=server.url)) == IMAGE


def test_redirects_come_to_an_end(server: ImageServer) -> None:
    """Three are enough for anyone."""
    error = refusal(make_fetcher(), f"{server.url}/loop")
    assert (error.code, server.requests["/loop"]) == ("too_many_redirects", 4)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://h/x", "s3://bucket/key"])
def test_a_redirect_changes_to_no_other_kind_of_scheme(server: ImageServer, target: str) -> None:
    """Not even to one that events themselves may use."""
    fetcher = make_fetcher(schemes=("http", "file", "s3"), file_root="/")
    assert refusal(fetcher, f"{server.url}/to/{target}").code == "scheme_not_allowed"


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
    error = refusal(careful_fetcher(), uri)
    assert error.code == "private_address"
    assert "fetch.allow_private_networks" in error.message


def test_a_redirect_is_checked_like_the_first_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    """A public host that redirects into the private network gets nothing out of it."""
    public = "1.1.1.1"
    with image_server() as server:
        connect = socket.create_connection

        def routed(address: tuple[str, int], timeout: float) -> socket.socket:
            assert address[0] == public, "only the checked address is connected to"
            return connect(("127.0.0.1", server.port), timeout)

        monkeypatch.setattr(socket, "create_connection", routed)
        uri = f"http://{public}:{server.port}/to/http://127.0.0.1:{server.port}/image/inside"
        assert refusal(careful_fetcher(), uri).code == "private_address"
        assert server.requests["/image/inside"] == 0
        assert careful_fetcher().fetch(f"http://{public}:{server.port}/image/outside") == IMAGE


def test_of_several_addresses_only_the_public_ones_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first that answers is used; a private one among them is left out."""
    tried = list[str]()
    answers = [
        (0, 0, 0, "", (address, 80)) for address in ("10.0.0.1", "1.1.1.1", "1.1.1.1", "1.0.0.1")
    ]
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
        assert careful_fetcher().fetch("http://images.example/image/1") == IMAGE
    assert tried == ["1.1.1.1", "1.0.0.1"]


def test_only_listed_hosts_where_there_is_a_list() -> None:
    """The list is of names, without regard to case; an address is another name."""
    fetcher = careful_fetcher(allow_hosts=("LocalHost",), allow_private_networks=True)
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
    assert refusal(careful_fetcher(), uri).code == code


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
    trusting = careful_fetcher(
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
    fetcher = careful_fetcher(context, allow_private_networks=True, timeout_s=0.5)
    error = refusal(fetcher, f"https://localhost:{secure_server.port}/trickle/body")
    assert "the answer took too long" in error.message


def test_a_handshake_that_never_ends_meets_the_deadline() -> None:
    """A server that takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        fetcher = careful_fetcher(allow_private_networks=True, timeout_s=0.3)
        error = refusal(fetcher, f"https://localhost:{port}/image/1")
    assert "the answer took too long" in error.message


def test_a_deadline_that_comes_late_is_still_what_a_silent_server_meets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A busy machine wakes the deadline's thread after its time; the socket has not given up before."""
    timer = threading.Timer
    monkeypatch.setattr(threading, "Timer", lambda after_s, cut: timer(1.4 * after_s, cut))
    test_a_handshake_that_never_ends_meets_the_deadline()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory that events may read from, with an image, beside one that they may not."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "image ü.jpg").write_bytes(b"image")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    return tmp_path / "inside"


def file_fetcher(root: Path) -> Fetcher:
    """A fetcher that reads files below ``root``."""
    return make_fetcher(schemes=("file",), file_root=root, max_bytes=FILE_MAX_BYTES)


def test_a_file_below_the_root_is_read(root: Path) -> None:
    """With or without localhost, escaped or not."""
    for uri in (
        f"file://{root}/image%20%C3%BC.jpg",
        f"file://localhost{root}/image ü.jpg",
        f"file://{root}/./sub/../image ü.jpg",
    ):
        assert file_fetcher(root).fetch(uri) == b"image"


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        ("//server{root}/image ü.jpg", "file_not_allowed"),
        ("{root}/../outside/secret", "file_not_allowed"),
        ("{root}/%2e%2e/outside/secret", "file_not_allowed"),
        ("{root}-other/file", "file_not_allowed"),
        ("{root}/missing.jpg", "not_found"),
        ("{root}/image ü.jpg/more", "not_found"),
        ("{root}/", "not_found"),
        ("{root}/a%00b", "malformed_uri"),
        ("{root}/" + "x" * 300, "unreachable"),
    ],
)
def test_files_that_cannot_be_read(root: Path, rest: str, code: str) -> None:
    """Other hosts and paths outside are refused before any access; each other reason has its code."""
    assert refusal(file_fetcher(root), "file:" + rest.format(root=root)).code == code


def test_a_link_that_leads_outside_is_refused(root: Path) -> None:
    """To a file and through a directory; a link within the root is fine."""
    (root / "file").symlink_to(root.parent / "outside" / "secret")
    (root / "directory").symlink_to(root.parent / "outside")
    (root / "loop").symlink_to(root / "loop")
    (root / "within").symlink_to(root / "image ü.jpg")
    for path in ("file", "directory/secret"):
        assert refusal(file_fetcher(root), f"file://{root}/{path}").code == "file_not_allowed"
    assert refusal(file_fetcher(root), f"file://{root}/loop").code == "malformed_uri"
    assert file_fetcher(root).fetch(f"file://{root}/within") == b"image"


def test_a_root_that_is_a_link_itself_works(root: Path) -> None:
    """A mount point often is one."""
    link = root.parent / "link"
    link.symlink_to(root)
    assert file_fetcher(link).fetch(f"file://{link}/image ü.jpg") == b"image"


def test_a_pipe_does_not_keep_the_worker_waiting(root: Path) -> None:
    """Opening one would wait for a writer for ever."""
    os.mkfifo(root / "pipe")
    error = refusal(file_fetcher(root), f"file://{root}/pipe")
    assert (error.code, error.message) == ("not_found", "the uri does not name a regular file")


def test_a_file_may_have_the_largest_size_and_no_more(root: Path) -> None:
    """The cap is that of every image."""
    (root / "large").write_bytes(b"x" * FILE_MAX_BYTES)
    assert len(file_fetcher(root).fetch(f"file://{root}/large")) == FILE_MAX_BYTES
    (root / "large").write_bytes(b"x" * (FILE_MAX_BYTES + 1))
    assert refusal(file_fetcher(root), f"file://{root}/large").code == "too_many_bytes"


class Store:
    """An object store in memory: what the fetcher asks of one."""

    def __init__(self, failures: int = 0) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self._failures = failures

    def read(self, bucket: str, key: str, max_bytes: int) -> bytes:
        """The size that the key asks for; away for the first few calls."""
        self.asked.append((bucket, key, max_bytes))
        if len(self.asked) <= self._failures:
            raise Retryable("the object store did not answer: away")
        if key == "gone":
            raise Poison("fetch", "not_found", f"s3://{bucket}/{key} does not exist")
        return b"x" * int(key.rpartition("/")[2])


def make_s3_fetcher(store: Store | None) -> Fetcher:
    """A fetcher that reads from this store."""
    return make_fetcher(schemes=("s3",), attempts=2, reader=store, max_bytes=FILE_MAX_BYTES)


def test_an_s3_uri_names_bucket_and_key() -> None:
    """The key is unquoted, whole; the cap goes along."""
    store = Store()
    assert make_s3_fetcher(store).fetch("s3://bucket/a%20b/%C3%BC+c/7") == b"x" * 7
    assert store.asked == [("bucket", "a b/ü+c/7", FILE_MAX_BYTES)]
    assert refusal(make_s3_fetcher(store), "s3://bucket/1001").code == "too_many_bytes"


def test_a_store_that_is_away_is_asked_again() -> None:
    """As any server; what is not there is not."""
    assert make_s3_fetcher(Store(failures=1)).fetch("s3://bucket/1") == b"x"
    assert refusal(make_s3_fetcher(Store(failures=2)), "s3://bucket/1").attempts == 2
    store = Store()
    assert refusal(make_s3_fetcher(store), "s3://bucket/gone").code == "not_found"
    assert len(store.asked) == 1


@pytest.mark.parametrize(
    "uri", ["s3:///key", "s3://bucket", "s3://bucket/", "s3:key", "s3://../key", "s3://b:80/key"]
)
def test_an_s3_uri_without_bucket_or_key(uri: str) -> None:
    """The message shows the form."""
    error = refusal(make_s3_fetcher(Store()), uri)
    assert (error.code, error.message) == ("malformed_uri", "an s3: URI is s3://bucket/key")


def test_s3_without_its_package_says_what_to_install() -> None:
    """Only a dry run gets there: a worker does not start like that."""
    assert "pip install obstore" in refusal(make_s3_fetcher(None), "s3://bucket/key").message
