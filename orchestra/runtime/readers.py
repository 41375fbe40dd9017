"""Threads for blocking reads. Replies come back over the bridge, many for one wake-up."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import anyio

from orchestra.errors import RuntimeClosed
from orchestra.loops import Signal
from orchestra.runtime.bridge import Bridge

__all__ = ["ReadDone", "Readers"]

T = TypeVar("T")

_THREADS: Final = 2


class _Read:
    """One read on its way."""

    __slots__ = ("done", "error", "function", "value")

    def __init__(self, function: Callable[[], Any], done: anyio.Event | Signal) -> None:
        self.function: Callable[[], Any] = function
        self.done: anyio.Event | Signal = done
        self.value: Any = None
        self.error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class ReadDone:
    """A read has ended; its caller may go on."""

    read: _Read


class Readers:
    """Runs blocking functions on its own threads: a hop to a shared pool costs more than a read."""

    def __init__(self, bridge: Bridge[Any]) -> None:
        self._bridge = bridge
        self._queue: queue.SimpleQueue[_Read | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._waiting: set[_Read] = set()
        self._closed = False
        self._guard = threading.Lock()

    async def call(self, function: Callable[[], T], signal: Signal | None = None) -> T:
        """Run a function and return its result. If the caller is cancelled, the function still runs
        to its end.

        Args:
            signal: set at its end, if the caller's loop does not read the bridge.

        Raises:
            RuntimeClosed: the runtime has stopped.
        """
        read = _Read(function, signal or anyio.Event())
        with self._guard:
            if self._closed:
                raise RuntimeClosed("the runtime has stopped")
            if len(self._threads) < _THREADS:
                thread = threading.Thread(target=self._main, name="orchestra-reader", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._waiting.add(read)
            self._queue.put(read)
        try:
            await read.done.wait()
        finally:
            with self._guard:
                self._waiting.discard(read)
        if read.error is not None:
            raise read.error
        return cast("T", read.value)

    def stop(self, *, at_home: bool = True) -> None:
        """Refuse new reads, and answer the waiting ones.

        Args:
            at_home: whether the caller runs on the event loop that reads the bridge. If not, only
                reads of other loops are answered.
        """
        with self._guard:
            self._closed = True
            waiting = list(self._waiting)
        for read in waiting:
            if not at_home and not isinstance(read.done, Signal):
                continue
            read.error = RuntimeClosed("the runtime has stopped")
            read.done.set()

    def join(self) -> None:
        """End the threads, after the running reads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _main(self) -> None:
        while (read := self._queue.get()) is not None:
            try:
                read.value = read.function()
            except BaseException as error:  # noqa: BLE001 - it is raised to the reading caller
                read.error = error
            if isinstance(read.done, Signal):
                read.done.set()
            else:
                self._bridge.push([ReadDone(read)])
