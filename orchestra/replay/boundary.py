"""The request to reach the boundary soon, and the code that waits for one."""

from __future__ import annotations

from orchestra.context import BoundaryRequest
from orchestra.futures import Future, Seal

__all__ = ["Boundary"]


class Boundary:
    """Whether an execution is asked to reach its boundary. It is asked once at most."""

    __slots__ = ("_since", "_waits", "request")

    def __init__(self) -> None:
        self.request: BoundaryRequest | None = None
        """The request, once it has come."""
        self._waits: dict[_Wait, None] | None = None  # few executions wait for one
        self._since = 0

    @property
    def awaited_since(self) -> int | None:
        """Since when code waits for a request; ``None``: it does not."""
        return self._since if self._waits else None

    def wait(self, seal: Seal, now: int) -> Future[BoundaryRequest]:
        """Return a future that completes with the request; it is done if that has come."""
        future = _Wait(seal, self)
        if self.request is not None:
            future.complete(self.request)
            return future
        if self._waits is None:
            self._waits = {}
        if not self._waits:
            self._since = now
        self._waits[future] = None
        return future

    def deliver(self, request: BoundaryRequest) -> None:
        """Take in the request. What waits for it goes on, in the order in which it asked."""
        self.request = request
        waits, self._waits = self._waits, None
        for future in waits or ():
            future.complete(request)

    def forget(self, wait: _Wait) -> None:
        """Forget a wait that was given up."""
        if self._waits is not None:
            self._waits.pop(wait, None)


class _Wait(Future[BoundaryRequest]):
    """A wait for the request. It is no command: history has the request alone."""

    __slots__ = ("_boundary",)

    def __init__(self, seal: Seal, boundary: Boundary) -> None:
        super().__init__(seal)
        self._boundary = boundary

    def __repr__(self) -> str:
        return f"<{'done' if self._done else 'pending'} boundary request>"

    def cancel(self) -> None:
        """Give it up. A request that comes later is not for it."""
        super().cancel()
        self._boundary.forget(self)
