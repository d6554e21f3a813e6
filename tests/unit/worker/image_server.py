"""A real HTTP server on loopback that answers well or badly, as the path says; it counts requests."""

import gzip
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

IMAGE = bytes(range(256)) * 40  # what it serves; its content is nobody's business here
TRICKLE_S = 0.05


@dataclass(slots=True)
class ImageServer:
    """A running server; ``requests`` counts by path, ``hosts`` keeps the Host headers."""

    url: str
    port: int
    release: threading.Event = field(default_factory=threading.Event)
    requests: Counter[str] = field(default_factory=Counter)
    hosts: list[str] = field(default_factory=list)


@contextmanager
def image_server(tls: ssl.SSLContext | None = None) -> Iterator[ImageServer]:
    """Serve until the block ends."""
    state = ImageServer("", 0)

    class Handler(_Handler):
        server_state = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.port = int(server.server_address[1])
    state.url = f"{'https' if tls else 'http'}://127.0.0.1:{state.port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_state: ImageServer

    def do_GET(self) -> None:
        """Answer as the first part of the path asks."""
        state = self.server_state
        state.requests[self.path] += 1
        state.hosts.append(self.headers["Host"])
        name, _, argument = self.path.strip("/").partition("/")
        try:
            getattr(self, f"answer_{name}", self.answer_status)(argument or name)
        except OSError:
            return  # the client has had enough

    def answer_image(self, _argument: str) -> None:
        """The image, whatever follows."""
        self._send(200, IMAGE)

    def answer_status(self, status: str) -> None:
        """That status."""
        self._send(int(status), b"no image\n")

    def answer_shaky(self, failures: str) -> None:
        """503 so many times, then the image."""
        failing = self.server_state.requests[self.path] <= int(failures)
        self._send(503 if failing else 200, IMAGE)

    def answer_to(self, target: str) -> None:
        """A redirect."""
        self._send(302, b"", ("Location", target))

    def answer_moved(self, status: str) -> None:
        """A redirect of that kind to the image."""
        self._send(int(status), b"", ("Location", f"/image/{status}"))

    def answer_loop(self, _argument: str) -> None:
        """A redirect to itself."""
        self._send(302, b"", ("Location", self.path))

    def answer_endless(self, _argument: str) -> None:
        """Chunks without end and without a length."""
        self._start(("Transfer-Encoding", "chunked"))
        while not self.server_state.release.is_set():
            self.wfile.write(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")

    def answer_chunked(self, kind: str) -> None:
        """The image in chunks, ``whole`` or ``cut`` in the middle of one."""
        self._start(("Transfer-Encoding", "chunked"))
        self.wfile.write(f"{len(IMAGE):x}\r\n".encode())
        self.wfile.write(IMAGE + b"\r\n0\r\n\r\n" if kind == "whole" else IMAGE[:100])

    def answer_short(self, _argument: str) -> None:
        """Half of what the length promises."""
        self._start(("Content-Length", str(len(IMAGE))))
        self.wfile.write(IMAGE[: len(IMAGE) // 2])

    def answer_gzip(self, _argument: str) -> None:
        """The image, compressed by the server."""
        self._send(200, gzip.compress(IMAGE), ("Content-Encoding", "gzip"))

    def answer_trickle(self, where: str) -> None:
        """A byte now and then: in the ``body``, the ``header``, a ``chunk`` line or ``unsized``."""
        if where != "header":
            lengths = {
                "body": ("Content-Length", "50000"),
                "chunk": ("Transfer-Encoding", "chunked"),
            }
            self._start(*([lengths[where]] if where in lengths else []))
        else:
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
        while not self.server_state.release.wait(TRICKLE_S):
            self.wfile.write(b"1")
            self.wfile.flush()

    def _start(self, *headers: tuple[str, str]) -> None:
        self.send_response(200)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
        """Keep the test's output quiet."""
