"""TLS in front of a server that has none: decrypts, and passes the bytes on.

In: the server's port and certificates. Out: :class:`TlsFront`, listening on a free loopback port.
"""

import contextlib
import socket
import ssl
import threading
from types import TracebackType
from typing import Self

from tests.support.certificates import Certificates

CHUNK_BYTES = 64 * 1024


class TlsFront:
    """Takes TLS connections from clients whose certificate the same authority has signed."""

    def __init__(self, port_behind: int, certificates: Certificates) -> None:
        self._port_behind = port_behind
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates.certificate, certificates.key)
        self._context.load_verify_locations(certificates.authority)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Closing alone would leave accept() waiting.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        # A client that is refused, or leaves: its connection ends, the next one is served.
        with contextlib.suppress(OSError):
            secured = self._context.wrap_socket(client, server_side=True)
            behind = socket.create_connection(("127.0.0.1", self._port_behind))
            back = threading.Thread(target=_pump, args=(behind, secured), daemon=True)
            back.start()
            _pump(secured, behind)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            target.sendall(chunk)
    for end in (source, target):
        with contextlib.suppress(OSError):
            socket.socket.shutdown(end, socket.SHUT_RDWR)
