"""The queue from other threads to the engine's thread. ``queue.SimpleQueue`` has a fault on CPython
3.11: ``get(timeout=...)`` waits for ever if the thread loses its processor between two attempts for
longer than the timeout. A due timer then fires only with the next item.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Mailbox"]

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Many threads put, one takes, first in, first out."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._bell = threading.Lock()
        self._bell.acquire()  # it is held while it is silent; putting releases it

    def put(self, item: T) -> None:
        """Add an item, and wake the waiting thread."""
        self._items.append(item)
        self.ring()

    def ring(self) -> None:
        """Wake the waiting thread."""
        try:  # noqa: SIM105 - suppress() is three calls more, for each item
            self._bell.release()
        except RuntimeError:  # it rings already
            pass

    def wait(self, seconds: float) -> None:
        """Wait for an item, at most ``seconds``. It may return early, without one."""
        if not self._items:
            self._bell.acquire(timeout=seconds)

    def take(self) -> list[T]:
        """Return all items, without waiting."""
        self._bell.acquire(
            blocking=False
        )  # silent again before the items are taken: later items ring again
        taken: list[T] = []
        while self._items:
            taken.append(self._items.popleft())
        return taken
