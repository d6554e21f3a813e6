"""The fetch stage: from an event's URI to the image's bytes.

Events come from outside, so every URI is treated as hostile. Only allowed schemes are fetched, at most ``max_bytes``,
and files only below ``file_root``. Private addresses are refused, and the checked address is the one that is
connected to. Every redirect is checked like the first URI.
Raises :class:`Poison` (stage ``fetch``) where the URI cannot be fetched, or failed all its attempts.
"""

import ipaddress
import os
import re
import socket
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from worker.errors import Poison, Retryable
from worker.event import BUCKET_PATTERN
from worker.http_client import DEFAULT_PORTS, HTTP_OK, TOO_SLOW, HttpRequest, TooLarge, get
from worker.settings import FetchSettings
from worker.types import Clock

REDIRECTS_MAX = 3
HTTP_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Worth another attempt: timeouts, throttling, and statuses about the server rather than the image.
HTTP_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
HTTP_REASONS = {
    401: ("forbidden", "the worker may not read the image"),
    403: ("forbidden", "the worker may not read the image"),
    404: ("not_found", "the image does not exist"),
    410: ("not_found", "the image does not exist any more"),
}
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class ObjectReader(Protocol):
    """Reads objects by bucket and key, for ``s3:`` URIs."""

    def read(self, bucket: str, key: str, max_bytes: int) -> bytes:
        """The object's bytes. Raises Poison or Retryable."""
        ...


class Fetcher:
    """Fetches the bytes that a URI names.

    Args:
        settings: Allowed sources, timeouts and attempts.
        max_bytes: Larger images are refused before they are read to the end.
        pause: Waits between attempts, in seconds; returns True to give up (the worker is stopping).
        clock: Monotonic seconds; all redirects of one attempt share its time.
        object_reader: Reads ``s3:`` URIs; None where that scheme is not allowed.
        tls: Which certificates ``https:`` trusts; by default the system's authorities.
    """

    def __init__(
        self,
        settings: FetchSettings,
        max_bytes: int,
        pause: Callable[[float], bool],
        clock: Clock,
        object_reader: ObjectReader | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._max_bytes = max_bytes
        self._pause = pause
        self._clock = clock
        self._object_reader = object_reader
        self._tls = tls or ssl.create_default_context()

    def fetch(self, uri: str) -> bytes:
        """The bytes behind ``uri``, after up to ``attempts`` attempts.

        Raises:
            Poison: The URI is not allowed, names nothing, or failed every attempt.
            Retryable: The worker is stopping before all attempts were made; another worker will make them.
        """
        attempts = self._settings.attempts
        for attempt in range(1, attempts + 1):
            try:
                return self._fetch_once(uri)
            except Retryable as error:
                if attempt == attempts:
                    raise Poison(
                        "fetch", "unreachable", f"{error} ({attempt} attempts)", attempts=attempt
                    ) from error
                if self._pause(self._settings.backoff_s * 2 ** (attempt - 1)):
                    raise
        raise AssertionError("unreachable: the loop returns or raises")

    def _fetch_once(self, uri: str) -> bytes:
        parts = _split(uri)
        if parts.scheme not in self._settings.schemes:
            raise _poison(
                "scheme_not_allowed",
                f"scheme {parts.scheme or '(none)'} is not allowed; allowed schemes: "
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
        try:
            path = Path(unquote(parts.path)).resolve()
            inside = path.is_relative_to(root.resolve())
        except (ValueError, RuntimeError, OSError) as error:  # a NUL byte; a loop of links
            raise _poison("malformed_uri", "the path in the uri is not valid") from error
        if not inside:
            raise _poison("file_not_allowed", "the file lies outside fetch.file_root")
        return self._capped(_read_regular_file(path, self._max_bytes + 1))

    def _read_object(self, parts: SplitResult) -> bytes:
        if self._object_reader is None:
            raise _poison("scheme_not_allowed", "s3: URIs need obstore (pip install obstore)")
        if not re.match(BUCKET_PATTERN, parts.netloc) or not parts.path.strip("/"):
            raise _poison("malformed_uri", "an s3: URI is s3://bucket/key")
        key = unquote(parts.path.removeprefix("/"))
        return self._capped(self._object_reader.read(parts.netloc, key, self._max_bytes))

    def _read_http(self, uri: str) -> bytes:
        ends_at_s = self._clock() + self._settings.timeout_s
        for _ in range(REDIRECTS_MAX + 1):
            parts = _split(uri)
            # A redirect gets the same checks as the first URI.
            if parts.scheme not in self._settings.schemes or parts.scheme not in DEFAULT_PORTS:
                raise _poison(
                    "scheme_not_allowed", "the server redirects to a scheme that is not allowed"
                )
            addresses = self._checked_addresses(parts)
            left_s = ends_at_s - self._clock()
            if left_s <= 0:
                raise Retryable(TOO_SLOW)
            try:
                response = get(HttpRequest(parts, addresses, left_s, self._max_bytes, self._tls))
            except TooLarge as error:
                raise self._too_large() from error
            if response.status not in HTTP_REDIRECTS:
                _check_status(response.status)
                return response.body
            uri = urljoin(uri, response.location)
        raise _poison("too_many_redirects", f"more than {REDIRECTS_MAX} redirects")

    def _checked_addresses(self, parts: SplitResult) -> list[str]:
        host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
        allowed = {name.lower() for name in self._settings.allow_hosts}
        if not host or (allowed and host not in allowed):
            raise _poison(
                "host_not_allowed", f"host {host or '(none)'} is not in fetch.allow_hosts"
            )
        try:
            resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise Retryable(f"{host} cannot be resolved: {error.strerror}") from error
        except UnicodeError as error:
            raise _poison("malformed_uri", f"{host} is not a valid host name") from error
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in resolved))
        if not self._settings.allow_private_networks:
            addresses = [address for address in addresses if is_public(address)]
        if not addresses:
            raise _poison(
                "private_address",
                f"{host} is a private address, which events may not use (fetch.allow_private_networks)",
            )
        return addresses

    def _capped(self, data: bytes) -> bytes:
        if len(data) > self._max_bytes:
            raise self._too_large()
        return data

    def _too_large(self) -> Poison:
        return _poison(
            "too_many_bytes", f"the image has more than {self._max_bytes} bytes (decode.max_bytes)"
        )


def _read_regular_file(path: Path, size_bytes: int) -> bytes:
    try:
        # Without O_NONBLOCK a pipe would block the thread forever; O_NOFOLLOW refuses a link created meanwhile.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _poison("not_found", "the uri does not name a regular file")
            return stream.read(size_bytes)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise _poison("not_found", "the file does not exist") from error
    except PermissionError as error:
        raise _poison("forbidden", "the worker may not read the file") from error
    except OSError as error:
        raise Retryable(f"the file cannot be read: {error.strerror}") from error


def _check_status(status: int) -> None:
    if status == HTTP_OK:
        return
    if status in HTTP_RETRYABLE:
        raise Retryable(f"the server answered {status}")
    code, reason = HTTP_REASONS.get(
        status, ("unexpected_status", f"expected {HTTP_OK}: correct the uri")
    )
    raise _poison(code, f"the server answered {status}: {reason}")


def is_public(address: str) -> bool:
    """Whether an address is reachable from the internet: not loopback, private or reserved."""
    parsed = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)))
        embedded = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo or (None, None))[1]
        if embedded is not None:
            return is_public(str(embedded))
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


def _split(uri: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
        _ = parts.port  # raises ValueError where the port is not a number
    except ValueError as error:
        raise _poison("malformed_uri", "the uri is malformed") from error
    return parts


def _poison(code: str, message: str) -> Poison:
    return Poison("fetch", code, message)
