"""Event loops for clients: find the caller's loop, and wake tasks of other loops from any
thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from typing import Any, Protocol

import anyio
from anyio.lowlevel import current_token

from orchestra.frozen import frozen

__all__ = ["EventLoop", "Gate", "Signal", "current_loop"]


class Gate(Protocol):
    """A gate opens once; one task awaits it, in one loop. An asyncio future is one."""

    def done(self) -> bool:
        """Return whether it is open, or its waiting task was cancelled."""
        ...

    def set_result(self, result: None, /) -> None:
        """Open it, unless it is done."""
        ...

    def __await__(self) -> Generator[Any, None, None]: ...


class _EventGate:
    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def done(self) -> bool:
        return self._event.is_set()

    def set_result(self, _result: None, /) -> None:
        self._event.set()

    def __await__(self) -> Generator[Any, None, None]:
        return self._event.wait().__await__()


@frozen
class EventLoop:
    """One run of an event loop. ``native`` is asyncio's loop, or trio's token of the run.

    ``thread`` is the thread that ran it at that time. An asyncio loop may continue in another
    thread.
    """

    native: Any
    thread: int

    @property
    def is_current(self) -> bool:
        """Whether the caller's task runs in it."""
        return _native_loop() is self.native

    def gate(self) -> Gate:
        """Return a new gate. Call it in this loop."""
        # On asyncio a bare future: to make and to await an anyio.Event are 18 calls more, and a
        # change has one, and a wait.
        create: Callable[[], Gate] | None = getattr(self.native, "create_future", None)
        return _EventGate() if create is None else create()

    @property
    def clock(self) -> Callable[[], float]:
        """The loop's clock, in seconds, for deadlines."""
        return getattr(self.native, "time", anyio.current_time)

    @property
    def is_closed(self) -> bool:
        """Whether it was closed with tasks in it, which then never run again. From any thread.

        Never on trio, where a run ends only after its last task.
        """
        is_closed: Callable[[], bool] | None = getattr(self.native, "is_closed", None)
        return is_closed is not None and is_closed()

    @property
    def can_run_meanwhile(self) -> bool:
        """Whether it runs while the caller, in another loop or none, waits. From any thread.

        An asyncio loop pauses between two calls of ``run_until_complete``.
        """
        is_running: Callable[[], bool] | None = getattr(self.native, "is_running", None)
        return is_running is None or is_running()

    def call_soon(self, callback: Callable[[], object]) -> bool:
        """Let it call a function, from any thread. Return whether it will, if it runs again."""
        call: Callable[[Callable[[], object]], object] | None = getattr(
            self.native, "call_soon_threadsafe", None
        )
        try:
            if call is None:
                self.native.run_sync_soon(callback)
            else:
                call(callback)
        except RuntimeError:  # it is closed, or its run has ended
            return False
        return True


def current_loop() -> EventLoop:
    """Return the loop that the caller's task runs in."""
    return EventLoop(_native_loop(), threading.get_ident())


def _native_loop() -> Any:
    # Each call of a client asks, and anyio's token takes eight calls. A loop without a task may be
    # the host of another one.
    try:
        if asyncio.current_task() is not None:
            return asyncio.get_running_loop()
    except RuntimeError:
        pass
    return current_token().native_token


class Signal:
    """An event that is awaited in the loop in which it was made, and set from any thread."""

    __slots__ = ("_event", "loop")

    def __init__(self) -> None:
        self.loop: EventLoop = current_loop()
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the waiting task. Harmless if its loop is closed."""
        if threading.get_ident() == self.loop.thread:
            self._event.set()
        else:
            self.loop.call_soon(self._event.set)

    async def wait(self) -> None:
        """Wait until it is set."""
        await self._event.wait()
