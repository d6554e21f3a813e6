"""Serves selected files over HTTP on the loopback address, for events with a ``uri``; other paths get 404."""

import secrets
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.embedded.services import HOST


class FileServer:
    """A server in a thread; a context manager."""

    def __init__(self) -> None:
        """Bind a free port; ``with`` starts the server."""
        self._paths: dict[str, Path] = {}
        paths = self._paths

        class _Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = paths.get(self.path)
                if path is None:
                    self.send_error(404)
                    return
                body = path.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
                """Write nothing: the display owns the terminal."""

        self._server = ThreadingHTTPServer((HOST, 0), _Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def base(self) -> str:
        """``http://host:port``."""
        return f"http://{HOST}:{self._server.server_address[1]}"

    def uri(self, path: Path) -> str:
        """A URI for this file that cannot be guessed."""
        name = f"/{secrets.token_urlsafe(12)}{path.suffix}"
        self._paths[name] = path
        return self.base + name

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class DeadHost:
    """A port that is bound but not listening: every connection is refused."""

    def __init__(self) -> None:
        """Bind the port."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.bind((HOST, 0))

    @property
    def uri(self) -> str:
        """A URI on this port."""
        return f"http://{HOST}:{self._socket.getsockname()[1]}/gone.jpg"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
