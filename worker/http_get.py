"""One HTTP GET from addresses that were checked before: the parts of a URI in, the answer out.

The whole exchange, from the connection to the last byte, ends at its deadline; a body past the cap is not read to
its end. Errors: :class:`Retryable` where the server is away, slow or breaks off; :class:`TooLarge`;
:class:`Poison` where the host's name is none.
"""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, quote

from worker.errors import Poison, Retryable

CHUNK_BYTES = 64 * 1024
DEFAULT_PORTS = {"http": 80, "https": 443}
HTTP_OK = 200
TOO_SLOW = "the answer took too long (fetch.timeout_s)"
URL_SAFE = "/%:@!$&'()*+,;=~?"


class TooLarge(Exception):
    """The body has more bytes than were allowed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said; the body is empty unless the status is 200."""

    status: int
    location: str
    body: bytes


def get(
    parts: SplitResult,
    addresses: Sequence[str],
    timeout_s: float,
    max_bytes: int,
    tls: ssl.SSLContext,
) -> Answer:
    """GET what ``parts`` name from the first address that answers, whatever their host resolves to by now.

    Args:
        parts: Of an http or https URI.
        addresses: IP addresses, at least one; with https the certificate has to be the host's all the same.
        timeout_s: From the connection to the last byte.
        max_bytes: The largest body.
        tls: Whom to trust.
    """
    host = _ascii_host(parts)
    with _Deadline(timeout_s) as deadline:
        try:
            return _exchange(parts, host, addresses, timeout_s, max_bytes, tls, deadline)
        except (http.client.HTTPException, OSError) as error:
            if deadline.passed:
                raise Retryable(TOO_SLOW) from error
            raise Retryable(f"{host} does not answer: {type(error).__name__}") from error


def _exchange(
    parts: SplitResult,
    host: str,
    addresses: Sequence[str],
    timeout_s: float,
    max_bytes: int,
    tls: ssl.SSLContext,
    deadline: "_Deadline",
) -> Answer:
    connection = _connected(addresses, parts.port or DEFAULT_PORTS[parts.scheme], timeout_s)
    try:
        # The deadline comes first: both at one moment would race, and only one of them names the cause.
        connection.settimeout(2 * timeout_s)
        deadline.guard(connection)
        if parts.scheme == "https":
            # The name is verified though the connection goes to the address that was checked.
            connection = tls.wrap_socket(connection, server_hostname=host)
        response = _request(connection, parts, host)
        # http.client reads headers as Latin-1; servers that send others send UTF-8.
        location = response.headers.get("location", "").encode("latin-1").decode("utf-8", "replace")
        body = _body(response, max_bytes, deadline) if response.status == HTTP_OK else b""
        return Answer(response.status, location, body)
    finally:
        connection.close()


def _connected(addresses: Sequence[str], port: int, timeout_s: float) -> socket.socket:
    *others, last = addresses
    for address in others:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port), timeout=timeout_s / len(addresses))
    return socket.create_connection((last, port), timeout=timeout_s / len(addresses))


def _request(connection: socket.socket, parts: SplitResult, host: str) -> http.client.HTTPResponse:
    # Without a host of its own: the connection is there already.
    client = http.client.HTTPConnection("checked.invalid")
    client.sock = connection
    named = f"[{host}]" if ":" in host else host
    target = quote(parts.path or "/", safe=URL_SAFE)
    if parts.query:
        target += "?" + quote(parts.query, safe=URL_SAFE)
    headers = {
        "Host": f"{named}:{parts.port}" if parts.port else named,
        "User-Agent": "synthgate",
        # As sent: a content-encoding could turn a kilobyte into gigabytes.
        "Accept-Encoding": "identity",
    }
    client.request("GET", target, headers=headers)
    return client.getresponse()


def _body(response: http.client.HTTPResponse, max_bytes: int, deadline: "_Deadline") -> bytes:
    if response.length is not None and response.length > max_bytes:
        raise TooLarge
    body = bytearray()
    while chunk := response.read1(CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise TooLarge
    # An answer without a length ends where the connection does: cut off, it must not look whole.
    if deadline.passed:
        raise TimeoutError
    if response.length:
        raise Retryable("the answer is shorter than its content-length")
    return bytes(body)


def _ascii_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError as error:
        raise Poison("fetch", "malformed_uri", f"{host} is no host name") from error


class _Deadline:
    """Cuts a connection off when its time is up.

    A socket's own timeout starts anew with every byte, so a server that trickles would never meet it.
    """

    def __init__(self, seconds: float) -> None:

        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._guarded: socket.socket | None = None
        self.passed = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            if self._guarded is not None:
                self._guarded.close()
                self._guarded = None

    def guard(self, connection: socket.socket) -> None:
        """Watch over this connection."""
        with self._lock:
            # A second handle: TLS takes the first one over.
            self._guarded = connection.dup()
            if self.passed:
                self._shut()

    def _cut(self) -> None:
        with self._lock:
            self.passed = True
            self._shut()

    def _shut(self) -> None:
        if self._guarded is not None:
            try:
                self._guarded.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # the other side was quicker
