"""The items of running attempts on their way to the engine.

The first item goes at once. While it is on its way, later ones gather, and go together with its
acknowledgement. So batches grow with the load, and no item waits for a timer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, cast

from orchestra.codec import Payload
from orchestra.engine.messages import ItemsStored, PublishItems, RunActivity
from orchestra.errors import OrchestraError, StaleAttempt
from orchestra.loops import Signal

__all__ = ["DONE", "Publisher"]

_MOST_ITEMS: Final = 1_000
_MOST_BYTES: Final = 1024 * 1024
"""How much of one attempt may be on its way; more waits in the activity."""


_KNOWN_STREAMS: Final = 100
"""Of so many streams an attempt remembers that it may publish to them."""

_NOTHING: Final = iter(())
"""An iterator that has ended, and stays so."""


class _Done:
    """An awaitable that is done."""

    def __await__(self) -> Iterator[Any]:
        return _NOTHING


DONE: Final[Awaitable[None]] = cast("Awaitable[None]", _Done())


class Publisher:
    """The items of one attempt.

    Args:
        report: passes a message to the engine, from any thread.
        begin: a number below those of its items. An attempt that a node hands back unfinished may
            run again under its number; its items must have higher numbers then.
    """

    def __init__(
        self, request: RunActivity, report: Callable[[PublishItems], None], begin: int
    ) -> None:
        self._request = request
        self._report = report
        # Not the condition's own: entering that is a call of Python for each item.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._subjects: dict[object, str] = {}
        self._items: list[tuple[str, Payload, int]] = []
        self._bytes = 0
        self._has_steps = False
        """Whether results of steps are among these items."""
        self._number = begin
        self._on_the_way: deque[tuple[int, int, int]] = deque()
        """The counts, bytes and last numbers of batches that are not acknowledged."""
        self._sent = 0
        """How many items these batches have."""
        self._stored = begin
        """The number of the last item that is stored."""
        self._closed: OrchestraError | None = None
        self._waiting: list[Signal] = []

    def subject_of(self, stream: object) -> str | None:
        """Return what errors call an item of a stream; ``None``: the stream is not known to be
        allowed.
        """
        return self._subjects.get(stream) if isinstance(stream, str) else None

    def knows(self, stream: str, subject: str) -> None:
        """Remember that the attempt may publish to a stream."""
        if len(self._subjects) < _KNOWN_STREAMS:
            self._subjects[stream] = subject

    def publish(self, stream: str, payload: Payload) -> Awaitable[None]:
        """Add an item: at once if there is room, and else when the result is awaited."""
        with self._lock:
            if self._has_room:
                self._add(stream, payload)
                return DONE
        return self._publish_later(stream, payload)

    async def _publish_later(self, stream: str, payload: Payload) -> None:
        while True:
            with self._lock:
                if self._has_room:
                    self._add(stream, payload)
                    return
                signal = Signal()
                self._waiting.append(signal)
            await signal.wait()

    def publish_here(self, stream: str, payload: Payload, *, waits: bool) -> None:
        """Add an item; with ``waits``, block this thread until there is room."""
        with self._lock:
            while waits and not self._has_room:
                self._changed.wait()
            self._add(stream, payload)

    async def store(self, stream: str, payload: Payload) -> None:
        """Add the result of a step, and wait until it is stored."""
        with self._lock:
            number = self._add(stream, payload, is_step=True)
        while True:
            with self._lock:
                if self._stored >= number:
                    return
                if self._closed is not None:
                    raise self._closed
                signal = Signal()
                self._waiting.append(signal)
            await signal.wait()

    def store_here(self, stream: str, payload: Payload, *, waits: bool) -> None:
        """Add the result of a step; with ``waits``, block this thread until it is stored."""
        with self._lock:
            number = self._add(stream, payload, is_step=True)
            while waits and self._stored < number:
                if self._closed is not None:
                    raise self._closed
                self._changed.wait()

    def stored(self, message: ItemsStored) -> None:
        """Take in that the first batch on the way is stored, or why not."""
        with self._lock:
            if self._on_the_way:
                count, size, last = self._on_the_way.popleft()
                self._sent -= count
                self._bytes -= size
                if not message.is_stale and message.error is None:
                    self._stored = last
            if message.is_stale:
                self._refuse(self._stale())
            elif message.error is not None:
                self._refuse(message.error)
            if self._items and not self._on_the_way:
                self._send()
            self._wake()

    def finish(self) -> None:
        """Send what there is, and take nothing more: the attempt ends."""
        with self._lock:
            if self._items:
                self._send()
            self._refuse(self._stale())
            self._wake()

    def close(self) -> None:
        """Drop what there is, and take nothing more: the attempt was given up."""
        with self._lock:
            self._refuse(self._stale())
            self._wake()

    # --- under the lock ---

    @property
    def _has_room(self) -> bool:
        return (
            len(self._items) + self._sent < _MOST_ITEMS and self._bytes < _MOST_BYTES
        ) or self._closed is not None

    def _add(self, stream: str, payload: Payload, *, is_step: bool = False) -> int:
        if self._closed is not None:
            raise self._closed
        self._number += 1
        self._has_steps = self._has_steps or is_step
        self._items.append((stream, payload, self._number))
        self._bytes += len(payload.data)
        number = self._number
        if not self._on_the_way:
            self._send()
        return number

    def _send(self) -> None:
        items, self._items = tuple(self._items), []
        has_steps, self._has_steps = self._has_steps, False
        request, size = self._request, sum(len(payload.data) for _, payload, _ in items)
        self._on_the_way.append((len(items), size, items[-1][2]))
        self._sent += len(items)
        self._report(
            PublishItems(request.key, request.attempt, request.orchestration, items, has_steps)
        )

    def _refuse(self, error: OrchestraError) -> None:
        self._closed = self._closed or error
        self._items.clear()

    def _wake(self) -> None:
        self._changed.notify_all()
        waiting, self._waiting = self._waiting, []
        for signal in waiting:
            signal.set()

    def _stale(self) -> StaleAttempt:
        request = self._request
        return StaleAttempt(
            f"attempt {request.attempt} of activity {request.name!r} of instance "
            f"{request.key.instance_id!r} is no longer current; what it publishes is refused",
            instance_id=request.key.instance_id,
            activity=request.name,
            attempt=request.attempt,
        )
