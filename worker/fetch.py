"""Fetch: the URI of an event in, the image's bytes out.

Events come from outside, so a URI is hostile until shown otherwise: only allowed schemes, no private
addresses (the address that was checked is the address that is connected to), no redirects to what was not
checked, never more than ``max_bytes``, below ``file_root`` only.
Errors: :class:`Poison` (stage ``fetch``) for what can never work or has failed all its attempts.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from worker.errors import Poison, Retryable
from worker.settings import FetchSettings
from worker.work import Clock

REDIRECTS_MAX = 3
CHUNK_BYTES = 64 * 1024
HTTP_OK = 200
HTTP_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Worth another attempt: timeouts, throttling and whatever a server says of itself rather than of the image.
HTTP_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})


class ObjectStore(Protocol):
    """Reads one object of a bucket; what ``s3:`` URIs need."""

    def read(self, bucket: str, key: str, max_bytes: int) -> bytes:
        """The object's bytes. Raises Poison or Retryable."""
        ...


class Fetcher:
    """Gets the bytes that a URI names.

    Args:
        settings: What is allowed, how long and how often.
        max_bytes: Images above this are refused before they are read to the end.
        pause: Called between attempts with seconds; returns True to give up (the worker is stopping).
        clock: Monotonic seconds; bounds an answer that trickles in.
        object_store: Reads ``s3:`` URIs; None where that scheme is not allowed.
    """

    def __init__(
        self,
        settings: FetchSettings,
        max_bytes: int,
        pause: Callable[[float], bool],
        clock: Clock,
        object_store: ObjectStore | None = None,
    ) -> None:
        self._settings = settings
        self._max_bytes = max_bytes
        self._pause = pause
        self._clock = clock
        self._object_store = object_store
        self._timeout = urllib3.Timeout(total=settings.timeout_s)

    def fetch(self, uri: str) -> bytes:
        """The bytes behind ``uri``, after up to ``attempts`` attempts.

        Raises:
            Poison: The URI is not allowed, names nothing, or failed every attempt.
        """
        attempts = self._settings.attempts
        for attempt in range(1, attempts + 1):
            try:
                return self._fetch_once(uri)
            except Retryable as error:
                stopping = attempt < attempts and self._pause(
                    self._settings.backoff_s * 2 ** (attempt - 1)
                )
                if attempt == attempts or stopping:
                    raise Poison(
                        "fetch", "unreachable", f"{error} ({attempt} attempts)", attempts=attempt
                    ) from error
        raise AssertionError("unreachable: the loop returns or raises")

    def _fetch_once(self, uri: str) -> bytes:
        parts = _split(uri)
        if parts.scheme not in self._settings.schemes:
            raise _poison(
                "scheme_not_allowed",
                f"scheme {parts.scheme or '(none)'} is not allowed here: allowed are "
                f"{', '.join(self._settings.schemes) or 'none'} (fetch.schemes)",
            )
        if parts.scheme == "file":
            return self._read_file(parts)
        if parts.scheme == "s3":
            return self._read_object(parts)
        return self._read_http(uri)

    def _read_file(self, parts: SplitResult) -> bytes:
        root = self._settings.file_root
        if root is None or parts.netloc not in ("", "localhost"):
            raise _poison("file_not_allowed", "file: URIs must name a path below fetch.file_root")
        path = Path(unquote(parts.path)).resolve()
        if not path.is_relative_to(root.resolve()):
            raise _poison("file_not_allowed", "the file lies outside fetch.file_root")
        try:
            with path.open("rb") as stream:
                data = stream.read(self._max_bytes + 1)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise _poison("not_found", "the file does not exist") from error
        except PermissionError as error:
            raise _poison("forbidden", "the worker may not read the file") from error
        except OSError as error:
            raise Retryable(f"the file cannot be read: {error.strerror}") from error
        return self._capped(data)

    def _read_object(self, parts: SplitResult) -> bytes:
        if self._object_store is None:
            raise _poison("scheme_not_allowed", "s3: URIs need the s3 extra (pip install .[s3])")
        if not parts.netloc or not parts.path.strip("/"):
            raise _poison("malformed_uri", "an s3: URI is s3://bucket/key")
        key = unquote(parts.path.removeprefix("/"))
        return self._capped(self._object_store.read(parts.netloc, key, self._max_bytes))

    def _read_http(self, uri: str) -> bytes:
        for _ in range(REDIRECTS_MAX + 1):
            parts = _split(uri)
            # A redirect is checked as the first URI was.
            if parts.scheme not in self._settings.schemes or parts.scheme not in ("http", "https"):
                raise _poison("scheme_not_allowed", "the server redirects to a scheme not allowed")
            response = self._get(parts)
            try:
                if response.status in HTTP_REDIRECTS:
                    uri = urljoin(uri, response.headers.get("location", ""))
                    continue
                _check_status(response.status)
                return self._read_body(response)
            finally:
                response.close()
        raise _poison("too_many_redirects", f"more than {REDIRECTS_MAX} redirects")

    def _get(self, parts: SplitResult) -> urllib3.BaseHTTPResponse:
        host = parts.hostname or ""
        address = self._checked_address(host, parts)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        pool: urllib3.HTTPConnectionPool
        if parts.scheme == "https":
            # The name is verified though the connection goes to the address that was checked.
            pool = urllib3.HTTPSConnectionPool(
                address, parts.port or 443, server_hostname=host, assert_hostname=host
            )
        else:
            pool = urllib3.HTTPConnectionPool(address, parts.port or 80)
        try:
            return pool.request(
                "GET",
                path,
                headers={"Host": parts.netloc.rpartition("@")[2], "User-Agent": "synthgate"},
                timeout=self._timeout,
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (HTTPError, OSError) as error:
            raise Retryable(f"{host} cannot be reached: {type(error).__name__}") from error

    def _checked_address(self, host: str, parts: SplitResult) -> str:
        allowed = self._settings.allow_hosts
        if not host or (allowed and host not in allowed):
            raise _poison(
                "host_not_allowed", f"host {host or '(none)'} is not in fetch.allow_hosts"
            )
        try:
            found = socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise Retryable(f"{host} cannot be resolved: {error.strerror}") from error
        except UnicodeError as error:
            raise _poison("malformed_uri", f"{host} is no host name") from error
        address = str(found[0][4][0])
        if not self._settings.allow_private_networks and not _is_public(address):
            raise _poison(
                "private_address",
                f"{host} is a private address, which events may not name (fetch.allow_private_networks)",
            )
        return address

    def _read_body(self, response: urllib3.BaseHTTPResponse) -> bytes:
        length = response.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._max_bytes:
            raise self._too_large()
        body = bytearray()
        deadline_s = self._clock() + self._settings.timeout_s
        try:
            for chunk in _chunks(response):
                body += chunk
                if len(body) > self._max_bytes:
                    raise self._too_large()
                if self._clock() > deadline_s:
                    raise Retryable(f"the answer took more than {self._settings.timeout_s} s")
        except (HTTPError, OSError) as error:
            raise Retryable(f"the answer broke off: {type(error).__name__}") from error
        if length.isdigit() and len(body) < int(length):
            raise Retryable("the answer is shorter than its content-length")
        return bytes(body)

    def _capped(self, data: bytes) -> bytes:
        if len(data) > self._max_bytes:
            raise self._too_large()
        return data

    def _too_large(self) -> Poison:
        return _poison(
            "too_many_bytes", f"the image has more than {self._max_bytes} bytes (decode.max_bytes)"
        )


def _chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    # As sent: a content-encoding could turn a kilobyte into gigabytes.
    yield from response.stream(CHUNK_BYTES, decode_content=False)


def _check_status(status: int) -> None:
    if status == HTTP_OK:
        return
    if status in HTTP_RETRYABLE:
        raise Retryable(f"the server answered {status}")
    raise _poison("not_found", f"the server answered {status}: the image is not there")


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return parsed.is_global and not parsed.is_multicast


def _split(uri: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
        _ = parts.port  # raises where it is no number
    except ValueError as error:
        raise _poison("malformed_uri", "the uri is malformed") from error
    return parts


def _poison(code: str, message: str) -> Poison:
    return Poison("fetch", code, message)
