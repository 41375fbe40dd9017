"""Limits the changes of clients that are not committed yet. A caller that brings more waits, first
come, first served.
"""

from __future__ import annotations

import threading
from typing import Final

from orchestra.errors import RuntimeClosed
from orchestra.loops import Signal

__all__ = ["MOST_BYTES", "MOST_CHANGES", "Intake"]

MOST_CHANGES: Final = 10_000
MOST_BYTES: Final = 16 * 1024 * 1024
_GONE: Final = (
    "the runtime or client has stopped; the change was not handed over, nothing was written"
)


class _Waiter:
    __slots__ = ("called", "has_room", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.called = Signal()
        self.has_room = False


class Intake:
    """Counts changes and their bytes until they are answered. Used by any event loop and thread.

    A change of more bytes than the limit goes alone.
    """

    def __init__(self, changes: int = MOST_CHANGES, size: int = MOST_BYTES) -> None:
        self._most_changes = changes
        self._most_bytes = size
        self._guard = threading.Lock()
        self._changes = 0
        self._bytes = 0
        self._waiting: dict[_Waiter, None] = {}
        self._is_closed = False

    @property
    def outstanding(self) -> tuple[int, int]:
        """How many changes are under way, and how many bytes they have."""
        return self._changes, self._bytes

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._waiting)

    def enter(self, size: int) -> bool:
        """Take room for a change, if there is room and no other change waits. Return whether it was
        taken.
        """
        with self._guard:
            if self._waiting or not self._has_room(size):
                return False
            self._changes += 1
            self._bytes += size
            return True

    async def wait(self, size: int) -> None:
        """Wait for room, and take it.

        Raises:
            RuntimeClosed: the runtime or client has stopped. Nothing was handed over.
        """
        waiter = _Waiter(size)
        with self._guard:
            if self._is_closed:
                raise RuntimeClosed(_GONE)
            self._waiting[waiter] = None
            self._call()  # room may have been given back, in another thread, since it was asked for
        try:
            await waiter.called.wait()
        except BaseException:
            with self._guard:
                if waiter.has_room:  # it was called and cancelled at once
                    self._leave(size)
                elif waiter in self._waiting:
                    del self._waiting[waiter]
                    self._call()  # it may have been in the way of smaller ones
            raise
        if not waiter.has_room:
            raise RuntimeClosed(_GONE)

    def leave(self, size: int) -> None:
        """Give back the room of a change that was answered."""
        with self._guard:
            self._leave(size)

    def close(self) -> None:
        """Refuse the waiting changes, and all later ones."""
        with self._guard:
            self._is_closed = True
            waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            waiter.called.set()

    def _leave(self, size: int) -> None:
        self._changes -= 1
        self._bytes -= size
        if self._waiting:
            self._call()

    def _has_room(self, size: int) -> bool:
        return not self._changes or (
            self._changes < self._most_changes and self._bytes + size <= self._most_bytes
        )

    def _call(self) -> None:
        """Let in the changes that have waited longest, as many as there is room for."""
        while self._waiting:
            waiter = next(iter(self._waiting))
            if not self._has_room(waiter.size):
                return
            del self._waiting[waiter]
            self._changes += 1
            self._bytes += waiter.size
            waiter.has_room = True
            waiter.called.set()
