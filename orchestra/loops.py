"""Event loops as a client meets them: whose loop a call runs in, and how a thread wakes a task of another loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.lowlevel import current_token

__all__ = ["EventLoop", "Signal", "current_loop"]


@dataclass(frozen=True, slots=True)
class EventLoop:
    """One run of an event loop. ``native`` is asyncio's loop, or trio's token of the run.

    ``thread`` identifies the thread that ran it when it was asked for. An asyncio loop may go on in another one.
    """

    native: Any
    thread: int

    @property
    def is_current(self) -> bool:
        """Whether the caller's task runs in it."""
        return current_token().native_token is self.native

    @property
    def is_closed(self) -> bool:
        """Whether it was closed with tasks in it, so that they will never run again. From any thread.

        Not so on trio, where a run ends only after its last task.
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
        """Have it call a function, from any thread. Return whether it will, should it run again."""
        call: Callable[[Callable[[], object]], object] | None = getattr(self.native, "call_soon_threadsafe", None)
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
    return EventLoop(current_token().native_token, threading.get_ident())


class Signal:
    """An event that is awaited in the loop in which it was made, and set from any thread."""

    __slots__ = ("_event", "loop")

    def __init__(self) -> None:
        self.loop: EventLoop = current_loop()
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the waiting task. Harmless where its loop is closed."""
        if threading.get_ident() == self.loop.thread:
            self._event.set()
        else:
            self.loop.call_soon(self._event.set)

    async def wait(self) -> None:
        """Wait until it is set."""
        await self._event.wait()
