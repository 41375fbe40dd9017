"""Drives the coroutine of an ``async`` activity, and abandons one that does not end.

A cancellation is a request. Code that catches it and goes on would keep its task alive for ever,
and so the runtime's task group and the program. A driver stands between the event loop and the
coroutine. After :meth:`Driver.let_go` it never resumes the coroutine, so the task ends.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import sys
from collections.abc import Awaitable, Generator, Iterator
from contextlib import suppress
from types import CoroutineType
from typing import Any, Final, Protocol, cast

import anyio

from orchestra.clock import Clock
from orchestra.immortal import keep_for_ever

__all__ = ["Driver", "LetGo"]

_CLOSINGS: Final = 3
"""How often the driver asks a coroutine to close before it leaves it as it is."""


class LetGo(BaseException):
    """Ends the task of an abandoned coroutine."""


class Owner(Protocol):
    """The owner of a driver."""

    def blocked(self, seconds: float) -> None:
        """Note that the coroutine blocked the event loop."""
        ...


class Driver:
    """Await it once, to run a coroutine.

    Args:
        scope: the innermost cancel scope of the task that awaits it.
        cancelled: the exception class of a cancellation.
        owner: receives the seconds for which one step of the coroutine blocked the event loop, if
            they exceed ``patience``.
    """

    __slots__ = (
        "_cancelled",
        "_clock",
        "_coroutine",
        "_owner",
        "_patience",
        "_scope",
        "_task",
        "_tellings",
        "closing",
        "gone",
        "is_told",
    )

    def __init__(
        self,
        awaitable: Any,
        clock: Clock,
        scope: anyio.CancelScope,
        cancelled: type[BaseException],
        *,
        patience: float,
        owner: Owner,
    ) -> None:
        self._coroutine: Any = (
            awaitable if isinstance(awaitable, CoroutineType) else _awaiting(awaitable)
        )
        self._clock = clock
        self._scope = scope
        self._cancelled = cancelled
        self._patience = patience
        self._owner: Owner | None = owner
        self._task: Any = None
        self.gone: bool = False
        """Whether it has abandoned the coroutine."""
        self.closing: bool = False
        """Whether the event loop is shutting down."""
        self.is_told: bool = False
        """Whether the coroutine received a cancellation since this was last set to false."""
        self._tellings = -1

    def __await__(self) -> Generator[Any, Any, Any]:
        self._task = task = _current_task()
        place = getattr(
            task, "_cancel_status", self._scope
        )  # trio's task has its own scope behind that of anyio
        coroutine, clock, owner = self._coroutine, self._clock, self._owner
        assert owner is not None
        value: Any = None
        error: BaseException | None = None
        try:
            while True:
                begun = clock.monotonic()
                try:
                    yielded = coroutine.send(value) if error is None else coroutine.throw(error)
                except StopIteration as stop:
                    return stop.value
                finally:
                    took = clock.monotonic() - begun
                    if took > self._patience:
                        owner.blocked(took)
                try:
                    value, error = (yield yielded), None
                except GeneratorExit:
                    self.closing = True
                    coroutine.close()
                    raise
                except BaseException as thrown:  # noqa: BLE001 - whatever is thrown is meant for the coroutine
                    error = thrown
                # asyncio throws a cancellation; trio sends it as an outcome.
                if isinstance(error or getattr(value, "error", None), self._cancelled):
                    self.is_told = True
                    self._tellings -= 1
                    self.gone = self.gone or self._tellings == 0
                if self.gone:
                    self._close()
                    _leave_scopes(task, place)
                    raise LetGo
        finally:
            # The task and the owner refer back to this object. Dropping them leaves no cycle to the
            # collector.
            self._task = self._owner = None

    def bear(self, times: int) -> None:
        """Abandon the coroutine after so many more cancellations: it spins in its own scope."""
        self._tellings = times

    def let_go(self) -> None:
        """End the task, and leave the coroutine where it is. Call it on the event loop, from
        another task.
        """
        self.gone = True
        task = self._task
        if task is None:
            return
        if isinstance(task, asyncio.Task):
            task.cancel()  # through any shields in between: it is caught here
            return
        # trio: its current wait is aborted, unless the task is about to run anyway.
        if getattr(task, "_abort_func", None) is not None:
            with suppress(AttributeError):
                task._attempt_abort(_raise_let_go)

    def _close(self) -> None:
        left: dict[int, Any] = {}
        # A closing nursery waits for its tasks, and trio would wake a task that has ended
        # meanwhile.
        for _ in range(0 if getattr(self._task, "_child_nurseries", None) else _CLOSINGS):
            left.update((id(inner), inner) for inner in _awaited(self._coroutine))
            try:
                self._coroutine.close()
            except RuntimeError:  # it has caught that as well, and waits once more
                continue
            except BaseException:  # noqa: BLE001, S110 - its end does not matter now
                pass
            break
        left.update((id(inner), inner) for inner in _awaited(self._coroutine))
        for inner in left.values():
            if (
                inspect.iscoroutine(inner)
                and inspect.getcoroutinestate(inner) != inspect.CORO_CLOSED
            ):
                keep_for_ever(inner)


async def _awaiting(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _awaited(coroutine: Any) -> Iterator[Any]:
    """Return a coroutine, what it awaits, what that awaits, and so on."""
    while coroutine is not None:
        yield coroutine
        coroutine = getattr(coroutine, "cr_await", None)


def _raise_let_go() -> None:
    raise LetGo


def _scope_of(task: Any) -> Any:
    """Return the innermost cancel scope that a task is in."""
    if isinstance(task, asyncio.Task):
        return _asyncio_scope_of(cast("Any", task))
    return getattr(task, "_cancel_status", None)


def _leave_scopes(task: Any, place: Any) -> None:
    """Put a task back into a scope, past those that its coroutine opened and will not close."""
    scope = _scope_of(task)
    if scope is place:
        return
    if isinstance(task, asyncio.Task):
        with suppress(AttributeError, KeyError):
            while scope is not None and scope is not place:
                scope._tasks.discard(task)
                scope.deadline = math.inf
                scope = scope._parent_scope
            place._tasks.add(task)
            _task_states()[task].cancel_scope = place
    else:
        with suppress(AttributeError):
            for nursery in (
                task._child_nurseries
            ):  # what trio does itself with a task that ends before its nurseries
                nursery.cancel_scope.cancel()
                nursery._closed = True
            task._child_nurseries.clear()
            task._activate_cancel_status(place)


def _asyncio_scope_of(task: Any) -> Any:
    state = _task_states().get(task)
    return None if state is None else state.cancel_scope


def _task_states() -> Any:
    """Return anyio's state of asyncio tasks: anyio has no public way to a task's scope."""
    backend = sys.modules.get("anyio._backends._asyncio")
    return getattr(backend, "_task_states", {})


def _current_task() -> Any:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is not None:
        return task
    trio = sys.modules.get("trio")
    with suppress(RuntimeError, AttributeError):
        return None if trio is None else trio.lowlevel.current_task()
    return None
