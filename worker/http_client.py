"""One HTTP GET from addresses that were checked beforehand.

The whole exchange, from connect to last byte, ends at its deadline. A body larger than the limit is not read to its
end. Raises :class:`Retryable` where the server is down, slow or breaks off, :class:`TooLarge`, and
:class:`Poison` for a host name that is not valid.
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
    """The body has more bytes than allowed."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What to get, from where, and within which limits.

    Attributes:
        url: An http or https URL.
        addresses: IP addresses to try, at least one. With https the certificate must still match the host name.
        timeout_s: From connect to last byte.
        max_bytes: The largest body.
        tls: Which certificates to trust.
    """

    url: SplitResult
    addresses: Sequence[str]
    timeout_s: float
    max_bytes: int
    tls: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The server's response; the body is empty unless the status is 200."""

    status: int
    location: str
    body: bytes


def get(request: HttpRequest) -> HttpResponse:
    """Send the request to the first address that accepts it; the host name is not resolved again."""
    host = _ascii_host(request.url)
    with _Deadline(request.timeout_s) as deadline:
        try:
            return _exchange(request, host, deadline)
        except (http.client.HTTPException, OSError) as error:
            if deadline.passed:
                raise Retryable(TOO_SLOW) from error
            raise Retryable(f"{host} does not answer: {type(error).__name__}") from error


def _exchange(request: HttpRequest, host: str, deadline: "_Deadline") -> HttpResponse:
    connection = _connect(request)
    try:
        # The deadline comes first: with equal times they would race, and only one of them names the cause.
        connection.settimeout(2 * request.timeout_s)
        deadline.guard(connection)
        if request.url.scheme == "https":
            # Verifies the name, although the connection goes to the address that was checked.
            connection = request.tls.wrap_socket(connection, server_hostname=host)
        response = _send(connection, request.url, host)
        # http.client reads headers as Latin-1; servers that send others send UTF-8.
        location = response.headers.get("location", "").encode("latin-1").decode("utf-8", "replace")
        ok = response.status == HTTP_OK
        body = _read_body(response, request.max_bytes, deadline) if ok else b""
        return HttpResponse(response.status, location, body)
    finally:
        connection.close()


def _connect(request: HttpRequest) -> socket.socket:
    port = request.url.port or DEFAULT_PORTS[request.url.scheme]
    timeout_s = request.timeout_s / len(request.addresses)
    *others, last = request.addresses
    for address in others:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port), timeout=timeout_s)
    return socket.create_connection((last, port), timeout=timeout_s)


def _send(connection: socket.socket, url: SplitResult, host: str) -> http.client.HTTPResponse:
    # The name is a placeholder: the connection is open already.
    client = http.client.HTTPConnection("checked.invalid")
    client.sock = connection
    bracketed = f"[{host}]" if ":" in host else host
    target = quote(url.path or "/", safe=URL_SAFE)
    if url.query:
        target += "?" + quote(url.query, safe=URL_SAFE)
    headers = {
        "Host": f"{bracketed}:{url.port}" if url.port else bracketed,
        "User-Agent": "synthgate",
        # No compression: a content-encoding could turn a kilobyte into gigabytes.
        "Accept-Encoding": "identity",
    }
    client.request("GET", target, headers=headers)
    return client.getresponse()


def _read_body(response: http.client.HTTPResponse, max_bytes: int, deadline: "_Deadline") -> bytes:
    if response.length is not None and response.length > max_bytes:
        raise TooLarge
    body = bytearray()
    while chunk := response.read1(CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise TooLarge
    # A body without a declared length ends with the connection: one that was cut off must not pass as complete.
    if deadline.passed:
        raise TimeoutError
    if response.length:
        raise Retryable("the answer is shorter than its content-length")
    return bytes(body)


def _ascii_host(url: SplitResult) -> str:
    host = url.hostname or ""
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError as error:
        raise Poison("fetch", "malformed_uri", f"{host} is not a valid host name") from error


class _Deadline:
    """Shuts a connection down when its time is up.

    A socket's own timeout restarts with every byte, so a server that trickles would never reach it.
    """

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._expire)
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
        """Shut this connection down at the deadline."""
        with self._lock:
            # A duplicate, because TLS takes over the original handle.
            self._guarded = connection.dup()
            if self.passed:
                self._shut_down()

    def _expire(self) -> None:
        with self._lock:
            self.passed = True
            self._shut_down()

    def _shut_down(self) -> None:
        if self._guarded is not None:
            with contextlib.suppress(OSError):  # the peer closed it first
                self._guarded.shutdown(socket.SHUT_RDWR)
