"""The process's only writing connection, and its transactions."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestra.clock import Clock, followed
from orchestra.errors import StoreBusy, StoreError, StoreForked, StoreUnavailable
from orchestra.providers.sqlite import schema
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.connection import _JOURNAL_LIMIT, connect_writer, file_identity
from orchestra.providers.sqlite.failures import translated, translated_commit
from orchestra.providers.sqlite.filelock import FileLock
from orchestra.providers.sqlite.kinds import Kinds
from orchestra.providers.sqlite.paths import require_one_name
from orchestra.providers.sqlite.settings import Settings
from orchestra.store.kinds import Dialect

__all__ = ["StoreClock", "Transaction", "Writer"]

_LOG_LIMIT = _JOURNAL_LIMIT
"""The size of the log, in bytes, at which the writer waits for readers to empty it. Without readers
SQLite restarts it far below.
"""

_COMMITS_BETWEEN_LOOKS: Final = 64
_PATIENCE_WITH_READERS: Final = 0.25
"""The most seconds that writers wait for readers, once in a quarter of the limit."""


class StoreClock:
    """The store's time in this process: the machine's clock, also if it goes back (protocol rule
    25).
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0
        self._guard = threading.Lock()

    def now(self) -> int:
        """Return microseconds UTC."""
        with self._guard:
            self._last = followed(self._last, self._clock.now())
            return self._last


@dataclass(frozen=True, slots=True)
class Transaction:
    """The state of a transaction: the connection, the store's time, the kinds, and their stored
    forms.
    """

    connection: sqlite3.Connection
    now: int
    kinds: Kinds
    dialect: Dialect


@dataclass(frozen=True, slots=True)
class _Session:
    """An open file, which must stay the file at the path."""

    connection: sqlite3.Connection
    lock: FileLock
    identity: tuple[int, int]
    kinds: Kinds


class Writer:
    """Serializes all use of the writer's connection, between threads and between processes.

    SQLite 3.7.0 to 3.51.2 has a bug: two processes that write or checkpoint at the same moment
    damage the file. Its busy handler also starves processes. So a file lock surrounds each write
    transaction, and closing, which checkpoints.
    """

    def __init__(self, settings: Settings, clock: StoreClock) -> None:
        self._settings = settings
        self._clock = clock
        self._guard = threading.Lock()
        self._session: _Session | None = None
        self._is_open = False
        self._commits = 0
        self._log_allowed = 0
        self._process = os.getpid()

    def open(self) -> None:
        """Open the file; make or migrate its schema."""
        if self._session is None:
            self._process = os.getpid()  # a provider that was made but not opened before a fork belongs to the process that opens it
        self._seize()
        try:
            if self._session is None:
                self._session = self._connect()
            self._is_open = True
        finally:
            self._guard.release()

    def close(self) -> None:
        """Close the file. Harmless if it is closed. In a forked child it leaves the parent's
        connection alone.
        """
        if self._process != os.getpid():
            return
        with self._guard:
            self._is_open = False
            self._disconnect()

    @contextmanager
    def transaction(self) -> Generator[Transaction]:
        """Run the body in one write transaction, which commits all of it or nothing.

        Raises:
            OutcomeUnknown: the commit itself failed in the device.
            StoreError: any other failure; nothing was written.
        """
        self._seize()
        try:
            session = self._current()
            session.lock.acquire(self._settings.busy_seconds)
            connection = session.connection
            try:
                with translated(self._settings.path):
                    connection.execute(sql.BEGIN_WRITE)
                    yield Transaction(
                        connection, self._clock.now(), session.kinds, self._settings.dialect
                    )
                with translated_commit(self._settings.path):
                    connection.execute(sql.COMMIT)
                session.kinds.confirm()
                self._commits += 1
                if self._commits % _COMMITS_BETWEEN_LOOKS == 0:
                    self._bound_log(connection)
            except BaseException:
                session.kinds.forget_unconfirmed()
                _roll_back(connection)
                raise
            finally:
                session.lock.release()
        finally:
            self._guard.release()

    @contextmanager
    def reading(self) -> Generator[Transaction]:
        """Run the body on the writer's connection, without a lock; several statements may see
        different moments.
        """
        self._seize()
        try:
            session = self._current()
            with translated(self._settings.path):
                yield Transaction(
                    session.connection, self._clock.now(), session.kinds, self._settings.dialect
                )
        finally:
            self._guard.release()

    def changes_of_others(self) -> int:
        """Return SQLite's number of what other connections have changed. A node that waits asks
        many times a second.
        """
        self._seize()
        try:
            with translated(self._settings.path):
                return self._current().connection.execute(sql.DATA_VERSION).fetchone()[0]
        finally:
            self._guard.release()

    def _seize(self) -> None:
        """Take the writer for this thread. The caller releases the guard."""
        if self._process != os.getpid():
            raise StoreForked(str(self._settings.path), opened_by=self._process)
        if not self._guard.acquire(timeout=self._settings.busy_seconds):
            raise StoreBusy(
                f"{self._settings.path}: another thread has held the writer for "
                f"{self._settings.busy_seconds:g} s"
            )

    def _current(self) -> _Session:
        """Return the session, after checking that its file is still the file at the path.

        A removed file would accept writes, and lose them with our descriptor (I1).
        """
        if not self._is_open:
            raise StoreUnavailable(f"{self._settings.path} is not open")
        if self._session is not None and self._session.identity != file_identity(
            self._settings.path
        ):
            self._disconnect()
        if self._session is None:
            self._session = self._connect()
        return self._session

    def _connect(self) -> _Session:
        lock = self._open_lock()
        try:
            lock.acquire(self._settings.busy_seconds)
            try:
                connection = connect_writer(self._settings)
                try:
                    self._prepare(connection)
                    return _Session(connection, lock, file_identity(self._settings.path), Kinds())
                except BaseException:
                    connection.close()
                    raise
            finally:
                lock.release()
        except BaseException:
            lock.close()
            raise

    def _open_lock(self) -> FileLock:
        directory = self._settings.path.parent
        if not directory.is_dir():
            raise StoreUnavailable(
                f"{self._settings.path}: the directory {directory} does not exist"
            )
        require_one_name(self._settings.path)  # before the lock files are made under a wrong name
        return FileLock(self._settings.lock_path)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        with translated(self._settings.path):
            connection.execute(sql.BEGIN_WRITE)
            try:
                schema.prepare(connection, self._settings)
                connection.execute(sql.COMMIT)
            except BaseException:
                _roll_back(connection)
                raise

    def _bound_log(self, connection: sqlite3.Connection) -> None:
        """Empty the log if readers have kept SQLite from restarting it.

        SQLite restarts the log only in a moment without readers. Overlapping readers leave no such
        moment, and the log grows without end. Waiting for the present readers ends it: later ones
        read the file itself. After a timeout the writer waits again only when the log has grown by
        another part.
        """
        size = _size_of(self._settings.log_path)
        if size <= max(_LOG_LIMIT, self._log_allowed):
            return
        # The earlier commit stands, whatever happens here. The next commit reports a failing
        # device.
        with contextlib.suppress(sqlite3.Error):
            connection.execute(f"PRAGMA busy_timeout = {int(_PATIENCE_WITH_READERS * 1000)}")
            try:
                busy = connection.execute(sql.EMPTY_LOG).fetchone()[0]
            finally:
                connection.execute(
                    f"PRAGMA busy_timeout = {int(self._settings.busy_seconds * 1000)}"
                )
            self._log_allowed = size + _LOG_LIMIT // 4 if busy else 0

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        # Closing checkpoints if no other process has the file open. If the lock is taken, one has.
        locked = _try_acquire(session.lock, self._settings.busy_seconds)
        try:
            session.connection.close()
        finally:
            if locked:
                session.lock.release()
            session.lock.close()


def _roll_back(connection: sqlite3.Connection) -> None:
    # SQLite rolls back by itself after some errors (a full disk); the transaction is then over.
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute(sql.ROLLBACK)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _try_acquire(lock: FileLock, timeout: float) -> bool:
    try:
        lock.acquire(timeout)
    except StoreError:
        return False
    return True
