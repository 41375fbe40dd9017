"""A PostgreSQL store for a seed: a schema of its own, and hints that come when the simulation says so and not when threads do.

What is not the provider's own is its pulse. The real one runs a connection on a thread, on real time; here the pulses of all
simulated processes are locks of one connection, taken and let go of at once, and a notification has arrived when it is sent.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from orchestra.clock import Clock, new_id
from orchestra.providers.interfaces import Provider
from orchestra.providers.postgres import PostgresProvider
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.connection import Connection, Connector
from orchestra.providers.postgres.pulse import Pulse
from orchestra.providers.postgres.settings import Settings
from orchestra.testing.simulation.simulation import Connect

__all__ = ["postgres_store"]

_DROP: Final = "DROP SCHEMA IF EXISTS {} CASCADE"


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

    def drop(self, schema: str, connector: Connector) -> None:
        """Leave nothing on the server."""
        connection = self._connection or connector.connect()
        try:
            connection.execute(_DROP.format(connector.quoted_schema).encode())
        finally:
            connection.close()


class _Pulse(Pulse):
    """A pulse without a thread, on the simulation's time."""

    def __init__(self, connector: Connector, settings: Settings, ether: _Ether) -> None:
        super().__init__(connector, settings)
        if settings.clock is not None:
            self._clock = settings.clock
        self._ether = ether

    def open(self) -> None:
        if self.server is None:
            self._ether.join(self, self._connector)
            self.server, self._session = self._ether.server, object()
            self.stir()

    def close(self) -> None:
        if self.server is not None:
            self._ether.leave(self)
            self.server = self._session = None

    def notify(self) -> None:
        for other in self._ether.pulses:
            if other is not self:
                other.stir()


class _SimulatedProvider(PostgresProvider):
    """The provider of one simulated process. Only processes die here and not machines, so that nothing waits for a disk."""

    def __init__(self, dsn: str, schema: str, clock: Clock, ether: _Ether) -> None:
        self._ether = ether
        super().__init__(dsn, schema, durability="relaxed", clock=clock)

    def _make_pulse(self) -> Pulse:
        return _Pulse(self._connector, self._settings, self._ether)

    def drop(self) -> None:
        """Drop the schema."""
        self._ether.drop(self._settings.schema, self._connector)


@contextmanager
def postgres_store(dsn: str) -> Generator[Connect]:
    """Give connections to a new schema of a server, which is dropped afterwards."""
    schema, ether = f"simulation_{new_id()}", _Ether()
    providers: list[_SimulatedProvider] = []

    def connect(clock: Clock) -> Provider:
        provider = _SimulatedProvider(dsn, schema, clock, ether)
        providers.append(provider)
        return provider

    try:
        yield connect
    finally:
        if providers:
            providers[0].drop()
