"""Serves chosen files over HTTP on the loopback address: what events by ``uri`` point at.

In: paths, one at a time. Out: a URI for each. Anything else is answered with 404.
Errors: OSError where no port can be had.
"""

import secrets
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.embedded.services import HOST


class FileServer:
    """A context manager around the server's thread."""

    def __init__(self) -> None:
        """Bind a free port; serving begins with ``with``."""
        self._paths: dict[str, Path] = {}
        paths = self._paths

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = paths.get(self.path)
                if found is None:
                    self.send_error(404)
                    return
                body = found.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
                """Say nothing: the terminal is the demo's."""

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def base(self) -> str:
        """``http://host:port``."""
        return f"http://{HOST}:{self._server.server_address[1]}"

    def uri(self, path: Path) -> str:
        """A URI that nobody can guess, and that gives this file alone."""
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
    """A port that is taken but where nobody listens: every connection is refused."""

    def __init__(self) -> None:
        """Take the port."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.bind((HOST, 0))

    @property
    def uri(self) -> str:
        """A URI on it."""
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
