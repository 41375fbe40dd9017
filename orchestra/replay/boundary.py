"""The request to reach the boundary soon, and the code that waits for one."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from orchestra.context import BoundaryRequest
from orchestra.futures import Future, Seal

__all__ = ["Boundary"]


class Boundary:
    """Whether an execution is asked to reach its boundary. It is asked once at most."""

    __slots__ = ("_waits", "request")

    def __init__(self) -> None:
        self.request: BoundaryRequest | None = None
        """The request, once it has come."""
        self._waits: WeakKeyDictionary[_Wait, None] | None = None
        """The waits that code may still look at, in their order. Few executions have any."""

    @property
    def awaited_since(self) -> int | None:
        """Since when code waits for a request; ``None``: it does not."""
        if not self._waits:
            return None
        return min((wait.since for wait in self._waits if wait.awaited), default=None)

    def wait(self, seal: Seal, now: int) -> Future[BoundaryRequest]:
        """Return a future that completes with the request; it is done if that has come."""
        future = _Wait(seal, now)
        if self.request is not None:
            future.complete(self.request)
            return future
        if self._waits is None:
            self._waits = WeakKeyDictionary()
        self._waits[future] = None
        return future

    def deliver(self, request: BoundaryRequest) -> None:
        """Take in the request. What waits for it goes on, in the order in which it asked."""
        self.request = request
        waits, self._waits = self._waits, None
        for future in list(waits or ()):
            future.complete(request)


class _Wait(Future[BoundaryRequest]):
    """A wait for the request. It is no command: history has the request alone."""

    __slots__ = ("__weakref__", "since")

    def __init__(self, seal: Seal, since: int) -> None:
        super().__init__(seal)
        self.since: int = since
        """When code has asked for it."""

    def __repr__(self) -> str:
        return f"<{'done' if self._done else 'pending'} boundary request>"
