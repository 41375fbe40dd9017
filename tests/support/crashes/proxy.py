"""A proxy between workers and a server, which can lose a COMMIT or the answer to it, or fall silent
there.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from hashlib import blake2b

import psycopg

WAYS = ("COMMIT lost", "answer lost", "silent at COMMIT", "silent at its answer")

# As a text, or under the name by which the provider has prepared it.
_ASKED = (
    b"COMMIT\0",
    b"orchestra_" + blake2b(b"COMMIT", digest_size=16).hexdigest().encode() + b"\0\0\0",
)
_ANSWERED = (b"COMMIT\0",)


class Proxy:
    """Listens on a port of this machine. ``dsn`` leads through it."""

    def __init__(self, dsn: str) -> None:
        information = psycopg.conninfo.conninfo_to_dict(dsn)
        self._upstream = str(information["host"]), int(information.get("port") or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.dsn = psycopg.conninfo.make_conninfo(dsn, host="127.0.0.1", port=port)
        self._armed: str | None = None
        self._guard = threading.Lock()
        self.struck = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def arm(self, way: str) -> None:
        """Let the next COMMIT of anybody be lost, in one of ``WAYS``."""
        self._armed = way

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, target, marks, ways in (
                (client, server, _ASKED, WAYS[0::2]),
                (server, client, _ANSWERED, WAYS[1::2]),
            ):
                threading.Thread(
                    target=self._forward, args=(source, target, marks, ways), daemon=True
                ).start()

    def _connect(self) -> socket.socket:
        host, port = self._upstream
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _forward(
        self,
        source: socket.socket,
        target: socket.socket,
        marks: tuple[bytes, ...],
        ways: tuple[str, ...],
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self._armed in ways and any(mark in data for mark in marks):
                    if self._strikes(ways) == ways[1]:
                        while source.recv(65536):  # it takes, acknowledges, and says nothing
                            pass
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()

    def _strikes(self, ways: tuple[str, ...]) -> str | None:
        """Take what is armed, once."""
        with self._guard:
            way, self._armed = self._armed, None
            if way in ways:
                self.struck += 1
                return way
        return None

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def proxied(dsn: str) -> Generator[Proxy]:
    proxy = Proxy(dsn)
    try:
        yield proxy
    finally:
        proxy.close()
