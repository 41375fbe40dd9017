"""Calls of the server: scripts of statements, transactions, and bounded retries.

Calls wait for the server alone. A transaction lasts as long as one call: no code of orchestrations,
activities or services runs inside, and nothing is awaited.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from orchestra.clock import SystemClock, followed
from orchestra.errors import OutcomeUnknown, StoreBusy, StoreError, StoreForked, StoreUnavailable
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.connection import Connection, Connector
from orchestra.providers.postgres.failures import (
    DRIVER_ERRORS,
    connection_lost,
    contended,
    translate,
)
from orchestra.providers.postgres.settings import Settings
from orchestra.providers.postgres.wire import Result, Row, Script, is_dead

__all__ = ["Calls", "Lane", "Pool", "Read", "StoreTime", "Transaction"]

T = TypeVar("T")
Read = tuple[str, Sequence[Any]]

_TRIES: Final = 6
_PAUSE: Final = 0.005
_LOCK_WAITS: Final = 2
"""For how many lock timeouts a call may retry: other nodes bury a node that waits too long."""

_IDLE_CONNECTIONS: Final = 4


class StoreTime:
    """The store's time: the server's clock, or a given one; also if it goes back (protocol rule
    25).
    """

    def __init__(self, settings: Settings) -> None:
        self._clock = settings.clock
        self._last = 0
        self._guard = threading.Lock()

    @property
    def read(self) -> Read:
        """The statement that returns the time. Run it when all locks are held: the times of an
        instance's messages then have the order of their numbers.
        """
        known = self._last if self._clock is None else followed(self._last, self._clock.now())
        return sql.READ_TIME, (known, self._clock is None)

    def heard(self, row: Row) -> int:
        """Remember the time that the statement returned, and return it."""
        with self._guard:
            self._last = followed(self._last, row[0])
            return self._last


class Transaction:
    """One transaction: it begins with locks and the time, and ends with a script that commits."""

    def __init__(
        self,
        connection: Connection,
        connector: Connector,
        time: StoreTime,
        setup: Callable[[Script], None],
    ) -> None:
        self._connection = connection
        self._connector = connector
        self.time = time
        self._setup = setup
        self.now: int = 0
        self.committing: bool = False
        """Whether COMMIT may have reached the server. From then on a lost connection means an
        unknown outcome.
        """

    def script(self) -> Script:
        """Return a script of this transaction."""
        return Script(self._connection, self._connector)

    def begin(self, *reads: Read) -> list[Result]:
        """Begin, run statements (locking ones first), and read the time when they have their
        locks.
        """
        script = self.script()
        script.add(sql.BEGIN)
        self._setup(script)
        results = [script.add(statement, *values) for statement, values in reads]
        statement, values = self.time.read
        time = script.add(statement, *values)
        script.run()
        self.now = self.time.heard(time.rows[0])
        return results

    def commit_at_once(self, script: Script) -> None:
        """Begin, run a script and commit, all in one round trip. The script reads the time itself,
        for :meth:`heard`.
        """
        if is_dead(self._connection):
            raise psycopg.OperationalError(
                "the connection was lost meanwhile"
            )  # and nothing was sent
        whole = self.script()
        whole.add(sql.BEGIN)
        self._setup(whole)
        whole.extend(script)
        self.commit(whole)

    def heard(self, now: int) -> int:
        """Remember the time that the script of :meth:`commit_at_once` has read, and return it."""
        self.now = self.time.heard((now,))
        return self.now

    def commit(self, script: Script | None = None) -> None:
        """Run a script and commit: one round trip."""
        script = self.script() if script is None else script
        committed = script.add(sql.COMMIT)
        self.committing = True
        script.run()
        if committed.tag != "COMMIT":
            raise StoreError(
                f"{self._connector.description}: COMMIT was answered with {committed.tag}"
            )


class Source(Protocol):
    """A source of connections for calls."""

    def take(self) -> Connection: ...

    def give_back(self, connection: Connection | None) -> None:
        """Take a connection back; ``None``: it is broken."""
        ...


class Calls:
    """Reads and transactions on connections of a source, with bounded retries."""

    def __init__(
        self,
        source: Source,
        connector: Connector,
        settings: Settings,
        time: StoreTime,
        *,
        planned: bool,
    ) -> None:
        self._source = source
        self._connector = connector
        self._pooled = settings.pooled
        self._lock_seconds = settings.lock_seconds
        self._clock = SystemClock()
        self._local = connector.setup(planned=planned, local=True)
        self.time = time

    def read(self, statement: str, *values: Any) -> list[Row]:
        """Return the rows of one statement."""
        return self.read_all([(statement, values)])[0]

    def read_all(self, reads: Sequence[Read], *, one_moment: bool = False) -> list[list[Row]]:
        """Return the rows of some statements, in one round trip; with ``one_moment`` in one
        snapshot.
        """
        return self._call(
            lambda connection: self.read_on(connection, reads, one_moment=one_moment), lambda: False
        )

    def read_on(
        self, connection: Connection, reads: Sequence[Read], *, one_moment: bool = False
    ) -> list[list[Row]]:
        """Read as :meth:`read_all` does, on a given connection and without a second try."""
        script = Script(connection, self._connector)
        begin = sql.BEGIN_READ if one_moment else sql.BEGIN if self._pooled else None
        if begin is not None:
            script.add(begin)
            self._set_up(script)
        results = [script.add(statement, *values) for statement, values in reads]
        if begin is not None:
            script.add(sql.COMMIT)
        script.run()
        return [result.rows for result in results]

    def transaction(self, work: Callable[[Transaction], T]) -> T:
        """Run some work, which commits by itself. Run it again if other transactions were in its
        way.

        Raises:
            OutcomeUnknown: the connection was lost while it committed.
            StoreError: any other failure; nothing was written.
        """
        begun: list[Transaction] = []

        def run(connection: Connection) -> T:
            transaction = Transaction(connection, self._connector, self.time, self._set_up)
            begun[:] = [transaction]
            return work(transaction)

        return self._call(run, lambda: bool(begun) and begun[0].committing)

    def _call(self, work: Callable[[Connection], T], is_committing: Callable[[], bool]) -> T:
        was_lost = False
        until = self._clock.monotonic() + _LOCK_WAITS * self._lock_seconds
        for number in range(1, _TRIES + 1):
            with self._lent() as connection:
                try:
                    return work(connection)
                except DRIVER_ERRORS as error:
                    failure = translate(error, self._connector.description)
                    is_lost = connection_lost(connection)
                    if is_lost and is_committing():
                        raise OutcomeUnknown(str(failure)) from error
                    # Nothing was written. If the connection was lost long ago (the server restarted
                    # since the last call), retry once on a new one. If other transactions were in
                    # the way, retry a few times.
                    in_time = number < _TRIES and self._clock.monotonic() < until
                    if not (not was_lost if is_lost else contended(error) and in_time):
                        raise failure from error
                    was_lost = was_lost or is_lost
            if not is_lost:
                time.sleep(_PAUSE * number)
        raise AssertionError  # pragma: no cover - the last try returns or raises

    @contextmanager
    def _lent(self) -> Generator[Connection]:
        connection = self._source.take()
        try:
            yield connection
        finally:
            # The next call must not inherit the state.
            self._source.give_back(_restored(connection))

    def _set_up(self, script: Script) -> None:
        if self._pooled:
            script.add_rendered(*self._local)


class Lane:
    """The connection of the engine's calls, one call at a time."""

    def __init__(
        self, connector: Connector, settings: Settings, on_connect: Callable[[Connection], None]
    ) -> None:
        self._connector = connector
        self._seconds = settings.statement_seconds + settings.lock_seconds
        self._on_connect = on_connect
        self._guard = threading.Lock()
        self._connection: Connection | None = None
        self._is_open = False
        self._process = os.getpid()

    def open(self) -> None:
        """Allow calls. A provider that was made before a fork, and not opened, belongs to the
        process that opens it.
        """
        self._process = os.getpid()
        self._is_open = True

    def close(self) -> None:
        """Close the connection. In a forked child, leave the parent's alone."""
        if self._process != os.getpid():
            return
        with self._guard:
            self._is_open = False
            if self._connection is not None:
                _close(self._connection)
                self._connection = None

    def take(self) -> Connection:
        _require_process(self._process, self._connector)
        if not self._guard.acquire(timeout=self._seconds):
            raise StoreBusy(
                f"{self._connector.description}: another thread has held the connection for "
                f"{self._seconds:g} s"
            )
        try:
            if not self._is_open:
                raise StoreUnavailable(f"{self._connector.description} is not open")
            if self._connection is None or connection_lost(self._connection):
                self._connection = self._connector.connect_soon(planned=True)
                self._on_connect(self._connection)
        except BaseException:
            self._guard.release()
            raise
        return self._connection

    def give_back(self, connection: Connection | None) -> None:
        self._connection = connection
        self._guard.release()


class Pool:
    """Connections for any thread. A few are kept; concurrent calls make more."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._guard = threading.Lock()
        self._idle: list[Connection] = []
        self._is_open = False
        self._process = os.getpid()

    def open(self) -> None:
        """Allow calls. A provider that was made before a fork, and not opened, belongs to the
        process that opens it.
        """
        self._process = os.getpid()
        self._is_open = True

    def close(self) -> None:
        """Close the idle connections; those in use close when they are returned."""
        if self._process != os.getpid():
            return
        with self._guard:
            self._is_open = False
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def take(self) -> Connection:
        _require_process(self._process, self._connector)
        with self._guard:
            if not self._is_open:
                raise StoreUnavailable(f"{self._connector.description} is not open")
            while self._idle:
                connection = self._idle.pop()
                if not connection_lost(connection):
                    return connection
        return self._connector.connect_soon()

    def give_back(self, connection: Connection | None) -> None:
        if connection is None:
            # The cause has most likely cut the others too.
            with self._guard:
                idle, self._idle = self._idle, []
            for other in idle:
                other.close()
            return
        with self._guard:
            if self._is_open and len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()


def _require_process(process: int, connector: Connector) -> None:
    if process != os.getpid():
        raise StoreForked(connector.description, opened_by=process)


def _close(connection: Connection) -> None:
    with suppress(*DRIVER_ERRORS):
        connection.close()


def _restored(connection: Connection) -> Connection | None:
    """Roll back an open transaction, if any. Return the connection, if it is still usable."""
    with suppress(*DRIVER_ERRORS):
        if (
            not connection_lost(connection)
            and connection.pgconn.transaction_status != TransactionStatus.IDLE
        ):
            connection.execute("ROLLBACK")
        if (
            not connection_lost(connection)
            and connection.pgconn.transaction_status == TransactionStatus.IDLE
        ):
            return connection
    _close(connection)
    return None
