"""Does a server do its work yet? Asked in its own protocol, with nothing but a socket.

In: host and port. Out: True once the server answers a request correctly. Errors: none; a refused
connection or a strange answer is False.
"""

import socket
import struct

TIMEOUT_S = 1.0
API_VERSIONS = 18  # the request that every Kafka client sends first
CORRELATION_ID = 7


def kafka_answers(host: str, port: int) -> bool:
    """True if the broker answers ApiVersions (version 0) without an error code.

    The request is length, API key, API version, correlation id and client id; the answer begins
    with length, the same correlation id, and an error code (Kafka protocol guide).
    """
    client_id = b"probe"
    body = struct.pack(f">hhih{len(client_id)}s", API_VERSIONS, 0, CORRELATION_ID, 5, client_id)
    answer = _ask(host, port, struct.pack(">i", len(body)) + body, at_least_bytes=10)
    if answer is None:
        return False
    _, correlation_id, error_code = struct.unpack(">iih", answer[:10])
    return bool(correlation_id == CORRELATION_ID and error_code == 0)


def redis_answers(host: str, port: int) -> bool:
    """True if the cache answers PING with PONG (it says LOADING or nothing before)."""
    answer = _ask(host, port, b"PING\r\n", at_least_bytes=7)
    return answer is not None and answer.startswith(b"+PONG")


def _ask(host: str, port: int, request: bytes, *, at_least_bytes: int) -> bytes | None:
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT_S) as connection:
            connection.sendall(request)
            answer = b""
            while len(answer) < at_least_bytes:
                received = connection.recv(4096)
                if not received:
                    return None
                answer += received
            return answer
    except OSError:
        return None
