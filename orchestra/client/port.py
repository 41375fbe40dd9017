"""How a client reaches the store: through a runtime's engine, or by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from orchestra.providers.rows import Append, Cancel, Outcome, Release, Start, Write

__all__ = ["ClientChange", "EndWatch", "Port"]

T = TypeVar("T")

ClientChange = Start | Append | Cancel | Write | Release


class EndWatch(Protocol):
    """Tells when an instance may have ended."""

    async def wait(self, seconds: float) -> None:
        """Return when it may have ended, and after ``seconds`` at the latest."""
        ...


class Port(Protocol):
    """What a client needs of its surroundings."""

    async def submit(self, change: ClientChange) -> Outcome:
        """Have a change committed; return its outcome once it is durable.

        Raises:
            StoreError: it was not written, or (``OutcomeUnknown``) nobody knows.
            RuntimeClosed: nobody takes changes here any more.
        """
        ...

    async def call(self, function: Callable[[], T]) -> T:
        """Run a blocking call of the directory or of the admin off the event loop."""
        ...

    def watch(self, instance_id: str) -> AbstractContextManager[EndWatch]:
        """Watch for an instance's end while the context is open."""
        ...
