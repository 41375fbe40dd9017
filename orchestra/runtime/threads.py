"""Threads of the runtime's own for ``def`` activities.

They are daemons, so a thread that hangs cannot keep the process from ending. At its end the
interpreter waits for threads of ``concurrent.futures``, and for anyio's on asyncio.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Protocol

from anyio.lowlevel import current_token

__all__ = ["Pool", "Threads", "thread_context"]

_JOIN_SECONDS = 1.0


class Pool(Protocol):
    """Runs functions that block."""

    def run(self, name: str, function: Callable[[], None]) -> None:
        """Run a function under this name. The function must not raise."""
        ...

    def stop(self) -> None:
        """Run nothing more."""
        ...


class _Worker:
    """A thread, and its next function; ``None`` ends it."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self.works: SimpleQueue[tuple[str, Callable[[], None]] | None] = SimpleQueue()
        self.thread: threading.Thread = threading.Thread(
            target=self._run, name="orchestra-activities", daemon=True
        )

    def _run(self) -> None:
        with self._threads.claim():
            while (work := self.works.get()) is not None:
                name, function = work
                del work
                self.thread.name = name
                function()
                del function
                self.thread.name = "orchestra-activities"
                if not self._threads.take_back(self):
                    return


class Threads:
    """Runs functions in daemon threads, one for each concurrent function. Make it on the event
    loop.
    """

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._stopped = False
        self._lock = threading.Lock()
        self.claim: Callable[[], AbstractContextManager[object]] = _claim()

    def run(self, name: str, function: Callable[[], None]) -> None:
        """Run a function in a thread that has this name meanwhile. The function must not raise."""
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is None:
            worker = _Worker(self)
            worker.thread.start()
        worker.works.put((name, function))

    def take_back(self, worker: _Worker) -> bool:
        """Keep an idle thread for the next function. Return whether there may be one."""
        with self._lock:
            if not self._stopped:
                self._idle.append(worker)
            return not self._stopped

    def stop(self) -> None:
        """End idle threads at once, and the others after their work."""
        with self._lock:
            self._stopped = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.works.put(None)
        for worker in idle:
            worker.thread.join(_JOIN_SECONDS)


def thread_context() -> Context:
    """Return a copy of the caller's context for a thread: one in which no event loop runs."""
    context = copy_context()
    with suppress(ImportError):
        from sniffio import current_async_library_cvar  # noqa: PLC0415 - anyio can do without it

        context.run(current_async_library_cvar.set, None)
    return context


def _claim() -> Callable[[], AbstractContextManager[object]]:
    """Return the state by which ``anyio.from_thread`` finds this event loop from a thread."""
    try:
        from anyio._core._eventloop import claim_worker_thread  # noqa: PLC0415 - anyio knows its own threads only

        token = current_token()
        return lambda: claim_worker_thread(token.backend_class, token.native_token)
    except (ImportError, AttributeError, TypeError):
        return nullcontext
