"""What other threads hand to the engine's thread.

``queue.SimpleQueue`` would do, but for one thing: on CPython 3.11 its ``get(timeout=...)`` waits
for ever if the thread loses its processor between two of its tries, for longer than the timeout. A
timer then fires with the next item that comes.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Mailbox"]

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Many threads put, one takes. Items come out in the order in which they were put."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._bell = threading.Lock()
        self._bell.acquire()  # it is held while it is silent; putting releases it

    def put(self, item: T) -> None:
        """Add an item, and wake whoever waits."""
        self._items.append(item)
        self.ring()

    def ring(self) -> None:
        """Wake whoever waits."""
        try:  # noqa: SIM105 - suppress() is three calls more, for each item
            self._bell.release()
        except RuntimeError:  # it rings already
            pass

    def wait(self, seconds: float) -> None:
        """Wait for an item, for at most ``seconds``. It may also return early, without any."""
        if not self._items:
            self._bell.acquire(timeout=seconds)

    def take(self) -> list[T]:
        """Return what is there, without waiting."""
        self._bell.acquire(
            blocking=False
        )  # silent again, before the items go: what comes from now on rings anew
        taken: list[T] = []
        while self._items:
            taken.append(self._items.popleft())
        return taken
