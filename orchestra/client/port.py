"""How a client reaches the store: through a runtime's engine, or by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from orchestra.codec import Packed, Payload
from orchestra.store.changes import ClientChange
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Outcome
from orchestra.store.requests import RequestAnswer

__all__ = ["End", "EndWatch", "Port", "StreamWatch"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class End:
    """How an instance has ended."""

    status: Status
    output: Payload | None
    error: Packed | None


class EndWatch(Protocol):
    """Wakes a waiting caller when an instance may have ended, or have answered a request."""

    @property
    def end(self) -> End | None:
        """The end, if it is known without a read."""
        ...

    @property
    def answer(self) -> RequestAnswer | None:
        """The answer to the request, if it is known without a read."""
        ...

    @property
    def known_open(self) -> bool:
        """Whether it had not ended when the watch began, so that no read is needed at once."""
        ...

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        ...

    async def wait(self) -> None:
        """Return when it may have ended, or was deleted, or the time is up. It may return without a
        cause.
        """
        ...


class StreamWatch(Protocol):
    """Wakes a reader of a stream when something may have been published, or the instance may have
    ended.
    """

    async def wait(self, seconds: float) -> None:
        """Return when there may be news since the last call, or after so many seconds."""
        ...


class Port(Protocol):
    """The port of a client."""

    async def submit(self, change: ClientChange) -> Outcome:
        """Commit a change; return its outcome once it is durable.

        Raises:
            StoreError: it was not written, or (``OutcomeUnknown``) it may or may not have been.
            RuntimeClosed: the runtime or client has stopped.
        """
        ...

    async def call(self, function: Callable[[], T]) -> T:
        """Run a blocking call of the directory or of the admin off the event loop."""
        ...

    def written_past(self) -> None:
        """Have the engine read what the admin has written past it."""
        ...

    def watch(
        self, instance_id: str, seconds: float, request_id: str | None = None
    ) -> AbstractContextManager[EndWatch]:
        """Watch for an instance's end while the context is open, for so many seconds.

        With a request's id, watch for its answer; an end then only wakes the caller.

        Raises:
            RuntimeClosed: the runtime or client has stopped.
        """
        ...

    def watch_changes(self, instance_id: str | None) -> AbstractContextManager[StreamWatch]:
        """Watch for changes of an instance, or of any (``None``), while the context is open. It may
        wake without a cause.

        Raises:
            RuntimeClosed: the runtime or client has stopped.
        """
        ...

    def watch_stream(self, instance_id: str) -> AbstractContextManager[StreamWatch]:
        """Watch for what an instance publishes while the context is open.

        Raises:
            RuntimeClosed: the runtime or client has stopped.
        """
        ...
