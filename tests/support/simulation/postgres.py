"""A PostgreSQL store for a seed: a schema of its own, on connections that the simulation has a say
in.

Between the round trips of one call of a node, locks being held, others go on, for longer than its
lease as well; the process dies; or the connection is lost, and the provider may try again. Who
comes upon a lock is told so at once: it does not wait for what goes on only when it has given up.

What is not the provider's own is its pulse. The real one runs a connection on a thread, on real
time; here the pulses of all simulated processes are locks of one connection, taken and let go of at
once, and a notification has arrived when it is sent.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

from orchestra.clock import Clock, new_id
from orchestra.providers.postgres import PostgresProvider
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.connection import Connection, Connector
from orchestra.providers.postgres.pulse import Pulse
from orchestra.providers.postgres.settings import Settings
from orchestra.store.hints import StreamHints
from orchestra.store.kinds import THIS_LIBRARY, Library
from orchestra.store.port import Provider
from tests.support.simulation.nodes import Link
from tests.support.simulation.simulation import Connect

__all__ = ["postgres_store"]

T = TypeVar("T")

_DROP: Final = "DROP SCHEMA IF EXISTS {} CASCADE"
_LOCK_TIMEOUT: Final = timedelta(milliseconds=10)


class _Ether:
    """What the pulses of a seed's processes have in common."""

    def __init__(self) -> None:
        self.pulses: list[_Pulse] = []
        self._connection: Connection | None = None
        self.server = 0

    def join(self, pulse: _Pulse, connector: Connector) -> None:
        """Take a pulse's lock."""
        if self._connection is None:
            self._connection = connector.connect()
            row = self._connection.execute(sql.READ_SERVER_START.encode()).fetchone()
            assert row is not None
            self.server = row[0]
        self._connection.execute(sql.TAKE_PULSE.encode(), (pulse.key,))
        self.pulses.append(pulse)

    def leave(self, pulse: _Pulse) -> None:
        """Let go of its lock, as the end of its process does."""
        assert self._connection is not None
        self._connection.execute(sql.LOSE_PULSE.encode(), (pulse.key,))
        self.pulses.remove(pulse)

    def drop(self, connector: Connector) -> None:
        """Leave nothing on the server."""
        connection = self._connection or connector.connect()
        try:
            connection.execute(
                "SET lock_timeout TO 0"
            )  # whoever vacuums gives way, but only after a second
            connection.execute(_DROP.format(connector.quoted_schema).encode())
        finally:
            connection.close()


class _Pulse(Pulse):
    """A pulse without a thread, on the simulation's time."""

    def __init__(
        self, connector: Connector, settings: Settings, hints: StreamHints, ether: _Ether
    ) -> None:
        super().__init__(connector, settings, hints)
        if settings.clock is not None:
            self._clock = settings.clock
        self._ether = ether

    def open(self) -> None:
        if self._is_used and self.server is None:
            self._ether.join(self, self._connector)
            self.server, self._session = self._ether.server, object()
            self.stir()

    def close(self) -> None:
        if self.server is not None:
            self._ether.leave(self)
            self.server = self._session = None

    def notify(self) -> None:
        for other in self._ether.pulses:
            if other is not self and self._notifies:
                other.stir()


class _Connection(Connection):
    """A connection that is lost when the simulation says so."""

    provider: _SimulatedProvider | None = None

    @property
    def is_in_transaction(self) -> bool:
        """Whether the server keeps locks for it."""
        return self.info.transaction_status.name in ("INTRANS", "INERROR")

    def converse(self, conversation: Generator[Any, Any, T]) -> T:
        fate = None if self.provider is None else self.provider.before_trip(self)
        if fate == "before":
            self.break_off()
        answer = super().converse(conversation)
        if fate == "after" or (fate == "within" and self.is_in_transaction):
            self.break_off()
            self.pgconn.exec_(b"")  # raises what the driver does
        if self.info.transaction_status.name == "INERROR" and self.provider is not None:
            self.provider.settle()
        return answer

    def break_off(self) -> None:
        """Be lost. The server lets go of the transaction before anybody does anything else, as it
        always does in the end.
        """
        if self.is_in_transaction:
            self.pgconn.exec_(b"ROLLBACK")
        self.pgconn.finish()


class _SimulatedProvider(PostgresProvider):
    """The provider of one simulated process. Only processes die here and not machines, so that
    nothing waits for a disk.
    """

    def __init__(
        self, dsn: str, schema: str, clock: Clock, ether: _Ether, library: Library, *, pooled: bool
    ) -> None:
        self._ether = ether
        self._link: Link | None = None
        self._call = 0
        self._is_in_transaction = False
        self._is_settled = False
        """Whether the call has committed or rolled back something. What it has committed is not
        known yet to whoever watches: nobody may build on it before the call ends.
        """
        self._waiting: _Connection | None = None
        super().__init__(
            dsn,
            schema,
            durability="relaxed",
            clock=clock,
            pooled=pooled,
            lock_timeout=_LOCK_TIMEOUT,
            library=library,
        )
        self._connector.connection_type = _Connection

    def attach(self, link: Link) -> None:
        """Ask a link before each round trip."""
        self._link = link

    def before_trip(self, connection: _Connection) -> str | None:
        """Let others go on; return what becomes of the connection."""
        link = self._link
        if link is None:
            return None
        if link.calls != self._call:
            self._call, self._is_in_transaction, self._is_settled = link.calls, False, False
        was_in_transaction, self._is_in_transaction = (
            self._is_in_transaction,
            connection.is_in_transaction,
        )
        self._is_settled |= was_in_transaction and not self._is_in_transaction
        if self._is_settled:
            return None
        self._waiting = connection
        try:
            return link.trip()
        finally:
            self._waiting = None

    def settle(self) -> None:
        """Let nobody come in between for the rest of the call. How often it is tried again after a
        failure depends on the time that it has taken, which is not the simulation's.
        """
        self._is_settled = True

    def close(self) -> None:
        """Let go of the connections; in the middle of a call, as the end of the process does."""
        if self._waiting is None:
            super().close()
        else:
            self._waiting.break_off()
            self._pulse.close()

    def _connected(self, connection: Connection) -> None:
        super()._connected(connection)
        if isinstance(connection, _Connection):
            connection.provider = self

    def _make_pulse(self) -> Pulse:
        return _Pulse(self._connector, self._settings, self.stream_hints, self._ether)

    def drop(self) -> None:
        """Drop the schema."""
        self._ether.drop(self._connector)


@contextmanager
def postgres_store(dsn: str, *, pooled: bool = False) -> Generator[Connect]:
    """Give connections to a new schema of a server, which is dropped afterwards. ``pooled``: they
    speak as behind a pooler.
    """
    schema, ether = f"simulation_{new_id()}", _Ether()
    providers: list[_SimulatedProvider] = []

    def connect(clock: Clock, library: Library = THIS_LIBRARY) -> Provider:
        provider = _SimulatedProvider(dsn, schema, clock, ether, library, pooled=pooled)
        providers.append(provider)
        return provider

    try:
        yield connect
    finally:
        if providers:
            providers[0].drop()
