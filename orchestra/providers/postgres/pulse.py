"""A separate connection for hints: it listens, it notifies, and its existence shows that its nodes
live.

Correctness does not depend on it. Notifications are sent outside of transactions, several as one. A
node that misses one finds the work at its next poll. A node whose connection is gone is only
*suspected*: see :meth:`Pulse.suspects`.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import psycopg

from orchestra.clock import Clock, SystemClock, new_id
from orchestra.errors import StoreError
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.connection import Connection, Connector
from orchestra.providers.postgres.failures import DRIVER_ERRORS
from orchestra.providers.postgres.settings import Settings
from orchestra.store.hints import StreamHints

__all__ = ["Pulse"]

_COALESCE: Final = 0.004
_GRACE: Final = 1.0
"""Seconds for which a node's connection must be gone before it is suspected: a living node
reconnects sooner.
"""

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 5.0
_BITS_63: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class _Missed:
    """Since when (on this monotonic clock) a node has had no connection, and its renewals at that
    time.
    """

    since: float
    renewals: int
    session: object


class Pulse:
    """Runs the connection on its own thread, and reconnects with growing pauses."""

    def __init__(self, connector: Connector, settings: Settings, hints: StreamHints) -> None:
        self._connector = connector
        self._clock: Clock = SystemClock()
        self._notifies = settings.notify and not settings.pooled
        self._is_used = not settings.pooled
        self._channel = "orchestra_" + blake2b(settings.schema.encode(), digest_size=12).hexdigest()
        # Readers of streams have a channel of their own: what is published wakes no other node.
        self._readers_channel = f"{self._channel}_s"
        self._hints = hints
        self._hears_streams = False
        self._readers_wanted = threading.Event()
        hints.on_listening = self._listening
        self._identity = new_id()
        self.key: int = int(self._identity, 16) & _BITS_63
        """The advisory lock of the connection."""
        self.server: int | None = None
        """The start time of the server that holds the lock; ``None`` without a connection."""
        self._session: object | None = None
        self._changed = threading.Event()
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._connected = threading.Event()
        self._thread: threading.Thread | None = None
        self._wake: tuple[int, int] | None = None
        self._missed: dict[str, _Missed] = {}
        self.ring: Callable[[], None] | None = None
        """Called from any thread when :meth:`changed` will return true."""
        self._process = os.getpid()

    def open(self) -> None:
        """Start the thread, and wait a moment for the first connection."""
        if not self._is_used or self._thread is not None:
            return
        self._process = os.getpid()
        self._stopped.clear()
        self._connected.clear()
        self._wake = os.pipe()
        os.set_blocking(self._wake[1], False)
        self._thread = threading.Thread(target=self._main, name="orchestra-pulse", daemon=True)
        self._thread.start()
        self._connected.wait(2.0)

    def close(self) -> None:
        """End the connection and the thread. A forked child has neither."""
        thread, self._thread = self._thread, None
        if thread is None or self._wake is None or self._process != os.getpid():
            return
        self._stopped.set()
        self._wake_thread()
        thread.join()
        for descriptor in self._wake:
            os.close(descriptor)
        self._wake = None

    def changed(self) -> bool:
        """Return whether another provider has notified since the last call, or :meth:`stir` was
        called.
        """
        changed = self._changed.is_set()
        if changed:
            self._changed.clear()
        return changed

    def stir(self) -> None:
        """Let the next :meth:`changed` return true."""
        self._changed.set()
        if (ring := self.ring) is not None:
            ring()

    def notify(self) -> None:
        """Notify other nodes soon that there is work."""
        if self._notifies and not self._wanted.is_set():
            self._wanted.set()
            self._wake_thread()

    def notify_readers(self) -> None:
        """Notify readers of streams elsewhere soon that something was published."""
        if self._notifies and not self._readers_wanted.is_set():
            self._readers_wanted.set()
            self._wake_thread()

    def _listening(self, is_listening: bool) -> None:  # noqa: ARG002, FBT001 - a callback
        self._wake_thread()  # it listens to the readers' channel, or no longer

    def suspects(self, pulseless: list[tuple[Any, ...]]) -> list[str]:
        """Return which of these nodes have had no connection for a while, as this connection saw
        it.

        A node counts only if it has not renewed meanwhile, and if this connection was not lost
        meanwhile. When the server restarts or a network fails, all connections are gone, and no
        node has died.
        """
        session, moment = self._session, self._clock.monotonic()
        if session is None:
            self._missed.clear()
            return []
        missed: dict[str, _Missed] = {}
        for node_id, renewals in pulseless:
            known = self._missed.get(node_id)
            if known is None or known.renewals != renewals or known.session is not session:
                known = _Missed(moment, renewals, session)
            missed[node_id] = known
        self._missed = missed
        return [node_id for node_id, known in missed.items() if moment - known.since >= _GRACE]

    # --- the thread -----------------------------------------------------------------------

    def _wake_thread(self) -> None:
        wake = self._wake
        if wake is not None:
            with contextlib.suppress(BlockingIOError):
                os.write(wake[1], b"\0")

    def _main(self) -> None:
        pause = 0.0
        while not self._stopped.wait(pause):
            try:
                with contextlib.closing(self._connect()) as connection:
                    pause = 0.0
                    self._beat(connection)
            except (StoreError, OSError, *DRIVER_ERRORS):
                pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * pause))
            finally:
                self._session = self.server = None

    def _connect(self) -> Connection:
        connection = self._connector.connect()
        try:
            # A notification takes a transaction number and is written to the log; no caller needs
            # to wait for that.
            connection.execute("SET synchronous_commit TO off")
            connection.add_notify_handler(self._notified)
            self._hears_streams = False
            if self._notifies:
                connection.execute(f"LISTEN {self._channel}".encode())
            # Shared: otherwise it would wait for an old connection that the server has not noticed
            # as lost.
            connection.execute(sql.TAKE_PULSE.encode(), (self.key,))
            row = connection.execute(sql.READ_SERVER_START.encode()).fetchone()
        except BaseException:
            connection.close()
            raise
        self.server = None if row is None else row[0]
        self._session = object()
        self.stir()  # notifications of the meantime were lost
        self._connected.set()
        return connection

    def _beat(self, connection: Connection) -> None:
        assert self._wake is not None
        reader = self._wake[0]
        while not self._stopped.is_set():
            readable, _, _ = select.select([connection.fileno(), reader], [], [], 60.0)
            if reader in readable:
                os.read(reader, 4096)
            if connection.fileno() in readable:
                connection.pgconn.consume_input()
                while notification := connection.pgconn.notifies():
                    self._took(notification.relname, notification.extra)
            self._hear_streams(connection)
            wanted, readers_wanted = self._wanted.is_set(), self._readers_wanted.is_set()
            if wanted:
                self._wanted.clear()
                connection.execute(sql.NOTIFY.encode(), (self._channel, self._identity))
            if readers_wanted:
                self._readers_wanted.clear()
                connection.execute(sql.NOTIFY.encode(), (self._readers_channel, self._identity))
            if wanted or readers_wanted:
                self._stopped.wait(_COALESCE)  # a later notification counts again
            if not readable:
                connection.execute("SELECT 1")  # so that firewalls keep the connection

    def _hear_streams(self, connection: Connection) -> None:
        """Listen to what is published elsewhere as long as a reader does."""
        hears = self._hints.is_listening
        if not self._notifies or hears == self._hears_streams:
            return
        verb = "LISTEN" if hears else "UNLISTEN"
        connection.execute(f"{verb} {self._readers_channel}".encode())
        self._hears_streams = hears
        if hears:
            self._hints.tell(None)  # what came before was not heard

    def _notified(self, notification: psycopg.Notify) -> None:
        self._took(notification.channel.encode(), notification.payload.encode())

    def _took(self, channel: bytes, sender: bytes) -> None:
        if sender == self._identity.encode():
            return
        if channel == self._readers_channel.encode():
            self._hints.tell(None)
        else:
            self.stir()
