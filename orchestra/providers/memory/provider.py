"""The provider in memory."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from orchestra.clock import Clock, SystemClock, micros
from orchestra.options import check_duration
from orchestra.providers.memory.admin import MemoryAdmin
from orchestra.providers.memory.database import Database
from orchestra.providers.memory.directory import MemoryDirectory
from orchestra.providers.memory.store import MemoryStore
from orchestra.store.hints import StreamHints
from orchestra.store.kinds import THIS_LIBRARY, Dialect, Library
from orchestra.store.port import Admin, Directory, Provider, Store

__all__ = ["MemoryProvider"]

_TOMBSTONES: Final = timedelta(hours=1)


class MemoryProvider(Provider):
    """A store in this process's memory, for tests. It keeps every promise but durability.

    Args:
        database: the tables. Several providers may share one, as processes share a file. A new
            provider continues with the tables that an earlier one left, as a process does after a
            crash.
        clock: the store's clock.
        tombstones: how long the ids of read messages are remembered; sending one again has no
            effect.
        library: the library to read and write as, for tests of libraries of different ages.

    Raises:
        InvalidArgument: ``tombstones`` is no timedelta, or is negative.
    """

    def __init__(
        self,
        database: Database | None = None,
        *,
        clock: Clock | None = None,
        tombstones: timedelta = _TOMBSTONES,
        library: Library = THIS_LIBRARY,
    ) -> None:
        check_duration(tombstones, "tombstones")
        self.database: Database = database or Database()
        clock = clock or SystemClock()
        self.library = library
        self._dialect = Dialect(library)
        self._store = MemoryStore(self.database, clock, micros(tombstones), self._dialect)
        self._openings = 0
        self.store: Store = self._store
        self.directory: Directory = MemoryDirectory(self.database, clock, self._dialect)
        self.admin: Admin = MemoryAdmin(self.database, self._store, clock)

    @property
    def stream_hints(self) -> StreamHints:
        """The readers of streams of all providers of these tables."""
        return self.database.stream_hints

    @property
    def description(self) -> str:
        """The name of the store."""
        return "store in memory"

    def open(self) -> None:
        """Count the opening; there is nothing to open.

        Raises:
            LibraryTooOld: the store refuses libraries as old as this one.
        """
        with self.database.guard:
            self.library.require(self._dialect.heard(self.database.levels), self.description)
        self._openings += 1

    def close(self) -> None:
        """At the last close, let the nodes that joined through this provider look dead."""
        self._openings = max(self._openings - 1, 0)
        if self._openings == 0:
            self._store.close()
