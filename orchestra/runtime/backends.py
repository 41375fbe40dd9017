"""Tasks that no other task owns, and interruption of a task from outside: anyio has neither. Knows
asyncio and trio.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from orchestra.loops import current_loop

if TYPE_CHECKING:
    import trio

__all__ = ["HostTask", "Interrupted", "current_host_task", "spawn"]


class Interrupted(BaseException):
    """Raised at an await of a trio task whose runtime has failed. Leaving the runtime turns it into
    the failure.
    """


class HostTask(ABC):
    """A task of the host program."""

    @property
    @abstractmethod
    def is_current(self) -> bool:
        """Whether the caller runs in it."""

    @abstractmethod
    def interrupt(self, reason: str, cause: BaseException) -> bool:
        """Interrupt its current wait, once. Return ``False`` if it did not wait; then try again.
        Call it on its event loop.
        """

    @abstractmethod
    def forgive(self) -> None:
        """Note that the interruption has arrived. Called in the task itself."""


def current_host_task() -> HostTask:
    """Return the task of the caller."""
    return _AsyncioTask() if _on_asyncio() else _TrioTask()


def spawn(function: Callable[[], Coroutine[Any, Any, None]], name: str) -> object:
    """Run a function as a task that no other task owns, with the caller's context variables.

    It must raise nothing but a cancellation. It is cancelled if the event loop ends before it. The
    caller must keep the result while the task lives: asyncio's loop holds tasks weakly.
    """
    if _on_asyncio():
        return asyncio.get_running_loop().create_task(function(), name=name)
    import trio  # noqa: PLC0415 - an optional dependency, and here it is running

    return trio.lowlevel.spawn_system_task(function, name=name, context=copy_context())


class _AsyncioTask(HostTask):
    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._interrupted = False

    @property
    def is_current(self) -> bool:
        return asyncio.current_task() is self._task

    def interrupt(self, reason: str, cause: BaseException) -> bool:  # noqa: ARG002 - asyncio raises CancelledError, and no other
        if self._task is not None and not self._task.done():
            self._interrupted = self._task.cancel(reason)
        return True

    def forgive(self) -> None:
        if self._interrupted and self._task is not None:
            self._interrupted = False
            self._task.uncancel()


class _TrioTask(HostTask):
    def __init__(self) -> None:
        import trio  # noqa: PLC0415

        self._task: trio.lowlevel.Task = trio.lowlevel.current_task()

    @property
    def is_current(self) -> bool:
        import trio  # noqa: PLC0415

        return trio.lowlevel.current_task() is self._task

    def interrupt(self, reason: str, cause: BaseException) -> bool:
        # Only a scope of the task itself could cancel it, and a scope cannot be left in another
        # task. trio delivers Ctrl-C in this way. Without it the host learns of the failure when it
        # leaves.
        attempt: Callable[[Callable[[], Any]], object] | None = getattr(
            self._task, "_attempt_abort", None
        )
        if attempt is None or inspect.getcoroutinestate(self._task.coro) == inspect.CORO_CLOSED:
            return True
        if getattr(self._task, "_abort_func", None) is None:
            return False  # it runs, or is about to

        def end() -> Any:
            raise Interrupted(reason) from cause

        attempt(end)
        return True

    def forgive(self) -> None:
        return None  # nothing of it is left


def _on_asyncio() -> bool:
    return hasattr(current_loop().native, "call_soon_threadsafe")
