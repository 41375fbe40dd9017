"""Threads for blocking reads. What they have read comes back over the bridge, many replies for one wake-up."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import anyio

from orchestra.errors import RuntimeClosed
from orchestra.runtime.bridge import Bridge

__all__ = ["ReadDone", "Readers"]

T = TypeVar("T")

_THREADS: Final = 2


class _Read:
    """One read on its way."""

    __slots__ = ("done", "error", "function", "value")

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.done = anyio.Event()
        self.value: Any = None
        self.error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class ReadDone:
    """A read has ended; whoever waits for it may go on."""

    read: _Read


class Readers:
    """Runs blocking functions on threads of its own: a hop to a shared pool would cost more than the read itself."""

    def __init__(self, bridge: Bridge[Any]) -> None:
        self._bridge = bridge
        self._queue: queue.SimpleQueue[_Read | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._waiting: set[_Read] = set()
        self._closed = False

    async def call(self, function: Callable[[], T]) -> T:
        """Run a function and return what it returns. A cancelled caller leaves it running to its end.

        Raises:
            RuntimeClosed: the runtime has stopped.
        """
        if self._closed:
            raise RuntimeClosed("the runtime has stopped")
        if len(self._threads) < _THREADS:
            thread = threading.Thread(target=self._main, name="orchestra-reader", daemon=True)
            self._threads.append(thread)
            thread.start()
        read = _Read(function)
        self._waiting.add(read)
        self._queue.put(read)
        try:
            await read.done.wait()
        finally:
            self._waiting.discard(read)
        if read.error is not None:
            raise read.error
        return cast("T", read.value)

    def stop(self) -> None:
        """Take no reads any more, and tell those who wait. To be called on the event loop."""
        self._closed = True
        for read in self._waiting:
            read.error = RuntimeClosed("the runtime has stopped")
            read.done.set()

    def join(self) -> None:
        """End the threads, once the reads that are under way have ended."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _main(self) -> None:
        while (read := self._queue.get()) is not None:
            try:
                read.value = read.function()
            except BaseException as error:  # noqa: BLE001 - it is raised where the read was asked for
                read.error = error
            self._bridge.push([ReadDone(read)])
