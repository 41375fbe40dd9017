"""A client's cache of the catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from orchestra.clock import Clock
from orchestra.loops import current_loop
from orchestra.store.catalogue import Catalogue

__all__ = ["CatalogueCache"]


class _Reading:
    """A read that several callers wait for: a thousand starts at once need the catalogue once."""

    __slots__ = ("begun_at", "done", "error")

    def __init__(self, begun_at: float) -> None:
        self.begun_at = begun_at
        self.done = anyio.Event()
        self.error: Exception | None = None


class CatalogueCache:
    """Keeps the catalogue that was read last. Used by any event loop and thread."""

    def __init__(self, read: Callable[[], Awaitable[Catalogue]], clock: Clock) -> None:
        self._read_store = read
        self._clock = clock
        self._known: tuple[Catalogue, float] | None = None
        """With its time. Replaced as a whole: several threads may read it."""
        self._readings: dict[object, _Reading] = {}
        """By event loop: a task can wait only for its own loop."""

    async def get(self, age: float) -> Catalogue:
        """Return the catalogue, at most ``age`` seconds old. A caller that asks while it is being
        read waits for that read.
        """
        asked_at = self._clock.monotonic()
        while (known := self._known) is None or asked_at - known[1] > age:
            loop = current_loop().native
            reading = self._readings.get(loop)
            if reading is None:
                await self._read(loop)
            else:
                await reading.done.wait()
                if reading.error is not None:
                    raise reading.error
        return known[0]

    def forget(self) -> None:
        """Read it again when it is needed next. A running read may have begun before the change,
        and does not count.
        """
        self._readings = {}
        self._known = None

    async def _read(self, loop: object) -> None:
        reading = self._readings[loop] = _Reading(self._clock.monotonic())
        try:
            catalogue = await self._read_store()
            if self._readings.get(loop) is reading:
                self._known = catalogue, reading.begun_at
        except Exception as error:
            reading.error = error
            raise
        finally:  # also where this caller was cancelled: then another one reads
            if self._readings.get(loop) is reading:
                del self._readings[loop]
            reading.done.set()
