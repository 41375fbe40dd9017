"""The PostgreSQL provider: one schema of one database, any number of processes on any number of
machines.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Final

from orchestra.clock import Clock, micros
from orchestra.options import check_duration
from orchestra.providers.postgres import schema as schemas
from orchestra.providers.postgres.admin import PostgresAdmin
from orchestra.providers.postgres.calls import Calls, Lane, Pool, StoreTime
from orchestra.providers.postgres.connection import Connection, Connector
from orchestra.providers.postgres.directory import PostgresDirectory
from orchestra.providers.postgres.keys import KEY_INDEXES
from orchestra.providers.postgres.kinds import Kinds
from orchestra.providers.postgres.nodes import Nodes
from orchestra.providers.postgres.pulse import Pulse
from orchestra.providers.postgres.settings import Durability, Settings, require_schema_name
from orchestra.providers.postgres.store import PostgresStore
from orchestra.store.kinds import THIS_LIBRARY, Dialect, Library
from orchestra.store.port import Admin, Directory, Provider, Store

__all__ = ["PostgresProvider"]

_CONNECT_TIMEOUT: Final = timedelta(seconds=10)
_STATEMENT_TIMEOUT: Final = timedelta(seconds=10)
_LOCK_TIMEOUT: Final = timedelta(seconds=3)
_TOMBSTONES: Final = timedelta(hours=1)
_SHORTEST_TIMEOUT: Final = timedelta(milliseconds=1)
_LONGEST_TIMEOUT: Final = timedelta(days=24)
"""The server counts milliseconds, in 32 bits."""


class PostgresProvider(Provider):
    """A durable store in one schema of a PostgreSQL database (13 or later).

    Each opened provider has one connection for the engine, up to four idle ones for readers, and
    one for hints. The store's time is the server's; the nodes' clocks do not matter.

    Args:
        dsn: a connection string or URL, as libpq takes it. Its options win over those set here.
        schema: the schema of the store; made if it does not exist.
        durability: ``"full"``: an acknowledged commit survives a crash of the server's machine; the
            server's ``fsync`` and ``synchronous_commit`` are checked. ``"relaxed"``: a crash may
            lose the last commits; the store stays consistent.
        migrate: whether opening the store makes and migrates the schema. If false, it is only
            verified, for deployments in which another role migrates.
        notify: whether nodes notify each other of work (``LISTEN``/``NOTIFY``). If false, they find
            it by polling.
        pooled: whether the DSN leads to a pooler in transaction mode (PgBouncer). Then nothing is
            kept in a session: no prepared statements, no ``LISTEN``, and only the lease shows a
            node's death.
        clock: the store's clock, for tests; by default the server's.
        connect_timeout, statement_timeout, lock_timeout: how long the server may take for a
            connection and for a statement, and how long a statement waits for a lock. Keep their
            sum below a lease: a waiting node cannot renew.
        tombstones: how long the ids of read messages are remembered; sending one again has no
            effect.
        library: the library to read and write as, for tests of libraries of different ages.

    Raises:
        ValueError: the schema cannot be a name, or ``durability`` is not one of the two.
        InvalidArgument: a duration is no timedelta, too short (a millisecond for the timeouts) or
            too long (24 days for them).
    """

    def __init__(
        self,
        dsn: str,
        schema: str = "orchestra",
        *,
        durability: Durability = "full",
        migrate: bool = True,
        notify: bool = True,
        pooled: bool = False,
        clock: Clock | None = None,
        connect_timeout: timedelta = _CONNECT_TIMEOUT,
        statement_timeout: timedelta = _STATEMENT_TIMEOUT,
        lock_timeout: timedelta = _LOCK_TIMEOUT,
        tombstones: timedelta = _TOMBSTONES,
        library: Library = THIS_LIBRARY,
    ) -> None:
        require_schema_name(schema)
        if durability not in ("full", "relaxed"):
            raise ValueError(f"durability is 'full' or 'relaxed', not {durability!r}")
        # Zero would mean no limit to the server.
        check_duration(
            connect_timeout, "connect_timeout", least=_SHORTEST_TIMEOUT, most=_LONGEST_TIMEOUT
        )
        check_duration(
            statement_timeout, "statement_timeout", least=_SHORTEST_TIMEOUT, most=_LONGEST_TIMEOUT
        )
        check_duration(lock_timeout, "lock_timeout", least=_SHORTEST_TIMEOUT, most=_LONGEST_TIMEOUT)
        check_duration(tombstones, "tombstones")
        settings = Settings(
            dsn=dsn,
            schema=schema,
            durability=durability,
            clock=clock,
            migrate=migrate,
            notify=notify,
            pooled=pooled,
            connect_seconds=connect_timeout.total_seconds(),
            statement_seconds=statement_timeout.total_seconds(),
            lock_seconds=lock_timeout.total_seconds(),
            tombstone_window=micros(tombstones),
            dialect=Dialect(library),
        )
        time = StoreTime(settings)
        self.library = library
        self._settings = settings
        self._connector = Connector(settings)
        self._lane = Lane(self._connector, settings, on_connect=self._connected)
        self._pool = Pool(self._connector)
        self._pulse = self._make_pulse()
        engine_calls = Calls(self._lane, self._connector, settings, time, planned=True)
        other_calls = Calls(self._pool, self._connector, settings, time, planned=False)
        self._kinds = Kinds(engine_calls)
        self._nodes = Nodes(engine_calls, self._pulse, settings)
        self._branch: tuple[object, ...] | None = None
        self._guard = threading.Lock()
        self._openings = 0
        self.store: Store = PostgresStore(
            engine_calls, self._kinds, self._nodes, self._pulse, settings, self.stream_hints
        )
        self.directory: Directory = PostgresDirectory(other_calls, settings.dialect)
        self.admin: Admin = PostgresAdmin(other_calls, self._pulse)

    @property
    def description(self) -> str:
        """The name and address of the store, without a password."""
        return f"{self._connector.description} ({self._settings.durability} durability)"

    def open(self) -> None:
        """Connect; make or migrate the schema if needed. Further opens are counted.

        Raises:
            LibraryTooOld: the store refuses libraries as old as this one.
            SchemaMismatch: the schema is too old, and ``migrate`` is off.
            StoreCorrupt: the schema belongs to another program.
            StoreUnavailable: the server cannot be reached, or could lose acknowledged commits.
        """
        with self._guard:
            if self._openings == 0:
                schemas.prepare(self._connector, self._settings)
                self._lane.open()
                self._pool.open()
                self._pulse.open()
            self._openings += 1

    def index_keys(self) -> None:
        """Make the indexes of sealed values, if they are not there, ``migrate`` is on, and the role
        owns the schema.
        """
        schemas.add_indexes(self._connector, self._settings, KEY_INDEXES)

    def close(self) -> None:
        """Close the connections at the last close. Harmless if it is closed.

        Nodes that have not left then look dead.
        """
        with self._guard:
            if self._openings == 0:
                return
            self._openings -= 1
            if self._openings == 0:
                self._pulse.close()
                self._pool.close()
                self._lane.close()
                self._nodes.forget()

    def _make_pulse(self) -> Pulse:
        return Pulse(self._connector, self._settings, self.stream_hints)

    def _connected(self, connection: Connection) -> None:
        """Check the server of a new connection. The nodes' memory is valid for one server's history
        only.
        """
        self._kinds.clear()
        branch = self._connector.branch_of(connection)
        before, self._branch = self._branch, branch or self._branch
        if before is not None and self._branch != before:
            self._settings.dialect.forget()
            self._nodes.lose()
            # Now: a caller may have read the levels already, to commit on this connection.
            self._nodes.hear_levels(connection)
