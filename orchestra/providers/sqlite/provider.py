"""The SQLite provider: one file, any number of processes on one machine."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from typing import Final

from orchestra.clock import Clock, SystemClock, micros
from orchestra.errors import InvalidArgument
from orchestra.options import check_duration
from orchestra.providers.sqlite.admin import SqliteAdmin
from orchestra.providers.sqlite.directory import ReaderPool, SqliteDirectory
from orchestra.providers.sqlite.keys import add_key_indexes, has_key_indexes
from orchestra.providers.sqlite.mounts import require_local
from orchestra.providers.sqlite.nodes import Nodes
from orchestra.providers.sqlite.paths import require_shared_directory, resolve
from orchestra.providers.sqlite.settings import Durability, Settings
from orchestra.providers.sqlite.store import SqliteStore
from orchestra.providers.sqlite.streams import ChangeWatch
from orchestra.providers.sqlite.writer import StoreClock, Writer
from orchestra.store.kinds import THIS_LIBRARY, Dialect, Library
from orchestra.store.port import Admin, Directory, Provider, Store

__all__ = ["SqliteProvider"]

_BUSY_TIMEOUT: Final = timedelta(seconds=5)
_TOMBSTONES: Final = timedelta(hours=1)
_LONGEST_TIMEOUT: Final = timedelta(days=24)
"""SQLite counts milliseconds, in 32 bits."""


class SqliteProvider(Provider):
    """A durable store in one SQLite file, on a local file system.

    Args:
        path: the file; made if it does not exist. SQLite's log and the lock files lie beside it. A
            relative path is resolved now, against the working directory, and symbolic links are
            followed now. Later changes of either have no effect. ``~`` is not expanded.
        durability: ``"full"``: an acknowledged commit survives a power cut. ``"relaxed"``: it
            survives the death of the process, but a power cut may take the last commits; the file
            stays consistent.
        clock: the store's clock.
        busy_timeout: how long a write waits for other writers before
            :class:`~orchestra.errors.StoreBusy`.
        migrate: whether opening the store migrates an older schema.
        tombstones: how long the ids of read messages are remembered; sending one again has no
            effect.
        allow_network_file_system: open the file even on a known network file system. No promise
            holds then.
        library: the library to read and write as, for tests of libraries of different ages.

    Raises:
        InvalidArgument: the path names no file, or is a URL; ``durability`` is not one of the two;
            a duration is no timedelta, is negative, or too long (24 days for the timeout).
        StoreUnavailable: the path is relative, and the working directory does not exist.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        durability: Durability = "full",
        clock: Clock | None = None,
        busy_timeout: timedelta = _BUSY_TIMEOUT,
        migrate: bool = True,
        tombstones: timedelta = _TOMBSTONES,
        allow_network_file_system: bool = False,
        library: Library = THIS_LIBRARY,
    ) -> None:
        file = resolve(path)
        if durability not in ("full", "relaxed"):
            raise InvalidArgument(f"durability is 'full' or 'relaxed', not {durability!r}")
        check_duration(busy_timeout, "busy_timeout", most=_LONGEST_TIMEOUT)
        check_duration(tombstones, "tombstones")
        settings = Settings(
            path=file,
            durability=durability,
            clock=clock or SystemClock(),
            busy_seconds=busy_timeout.total_seconds(),
            migrate=migrate,
            tombstone_window=micros(tombstones),
            network_allowed=allow_network_file_system,
            dialect=Dialect(library),
        )
        store_clock = StoreClock(settings.clock)
        self.library = library
        self._settings = settings
        self._writer = Writer(settings, store_clock)
        self._readers = ReaderPool(settings)
        self._nodes = Nodes(self._writer, settings)
        self._guard = threading.Lock()
        self._openings = 0
        self.store: Store = SqliteStore(self._writer, self._nodes, settings, self.stream_hints)
        self._changes = ChangeWatch(self._writer, self.stream_hints)
        self.directory: Directory = SqliteDirectory(self._readers, store_clock, settings.dialect)
        self.admin: Admin = SqliteAdmin(self._writer)

    @property
    def description(self) -> str:
        """The name and path of the store."""
        return f"SQLite store {self._settings.path} ({self._settings.durability} durability)"

    def open(self) -> None:
        """Open the file; make or migrate its schema if needed. Further opens are counted.

        Raises:
            SchemaMismatch: the schema is newer than this library, or older while ``migrate`` is
                off.
            StoreUnavailable: the file cannot be opened.
            StoreAliased: it has a second name, by a hard link or because it is mounted by itself.
            NetworkFileSystem: it is on a file system where SQLite's log does not work.
        """
        with self._guard:
            if self._openings == 0:
                require_shared_directory(self._settings.path)
                if not self._settings.network_allowed:
                    require_local(self._settings.path)
                self._writer.open()
                self._readers.open()
            self._openings += 1

    def index_keys(self) -> None:
        """Make the indexes of sealed values, if they are not there and ``migrate`` is on."""
        with self._writer.reading() as reading:
            if has_key_indexes(reading.connection) or not self._settings.migrate:
                return
        with self._writer.transaction() as transaction:
            add_key_indexes(transaction.connection)

    def close(self) -> None:
        """Close the file at the last close. Harmless if it is closed.

        Nodes that have not left then look dead.
        """
        with self._guard:
            if self._openings == 0:
                return
            self._openings -= 1
            if self._openings == 0:
                self._changes.close()
                self._readers.close()
                self._writer.close()
                self._nodes.close()
