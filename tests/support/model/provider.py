"""The provider of the model."""

from __future__ import annotations

from datetime import timedelta

from orchestra.clock import Clock, SystemClock, micros
from orchestra.store.kinds import THIS_LIBRARY, Dialect, Library
from orchestra.store.port import Admin, Directory, Provider, Store
from tests.support.model.admin import ModelAdmin
from tests.support.model.directory import ModelDirectory
from tests.support.model.group import Limits
from tests.support.model.store import ModelStore
from tests.support.model.world import ModelWorld


class ModelProvider(Provider):
    """A provider that keeps everything in a :class:`ModelWorld`; several may share one, as
    processes share a file.
    """

    def __init__(
        self,
        world: ModelWorld | None = None,
        *,
        clock: Clock | None = None,
        tombstones: timedelta = timedelta(hours=1),
        library: Library = THIS_LIBRARY,
    ) -> None:
        world = world or ModelWorld()
        self.world: ModelWorld = world
        clock = clock or SystemClock()
        self.library = library
        self._dialect = Dialect(library)
        limits = Limits(micros(tombstones))
        self._store = ModelStore(world, clock, limits, self._dialect, self.stream_hints)
        self._openings = 0
        self.store: Store = self._store
        self.directory: Directory = ModelDirectory(world, self._store, self._dialect)
        self.admin: Admin = ModelAdmin(world, self._store, clock)

    @property
    def description(self) -> str:
        """What it is and where."""
        return "model store in memory"

    def open(self) -> None:
        """Do nothing but count.

        Raises:
            LibraryTooOld: no library as old as this one may work on the world.
        """
        self.library.require(self._dialect.heard(self.world.levels), self.description)
        self._openings += 1

    def close(self) -> None:
        """Let the nodes that were joined through this provider look dead, once it is closed as
        often as opened.
        """
        self._openings = max(self._openings - 1, 0)
        if self._openings == 0:
            self._store.close()
