"""Several awaits at once: gather, race, and a task group. All are structured: they leave no branch
behind.

Results and winners follow the order of history, never the order of a set or of a clock.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from orchestra.errors import Cancelled, ContinueAsNew, OperationCancelled, OrchestrationError
from orchestra.futures import DurableFuture, Future
from orchestra.scheduler import Scheduler, Task, ended

__all__ = ["RaceResult", "TaskGroup", "WaitResult", "discard", "gather", "race", "wait"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class RaceResult(Generic[T_co]):
    """The winner of a race: its position among the arguments, and its value."""

    index: int
    value: T_co


@dataclass(frozen=True, slots=True)
class WaitResult(Generic[T_co]):
    """The done and the pending futures, each in the given order.

    It unpacks: ``done, pending = await ctx.wait(...)``.
    """

    done: tuple[Future[T_co], ...]
    pending: tuple[Future[T_co], ...]

    def __iter__(self) -> Iterator[tuple[Future[T_co], ...]]:
        return iter((self.done, self.pending))


async def gather(
    scheduler: Scheduler, awaitables: Sequence[Awaitable[Any]], *, return_exceptions: bool = False
) -> list[Any]:
    """Wait for all; on the first error cancel the others, wait until they have ended, and raise it.

    ``return_exceptions``: an error is a result like any other. A boundary or a cancel still ends
    the wait.
    """
    branches = [scheduler.branch(awaitable) for awaitable in awaitables]
    try:
        await _until(scheduler, branches, count=len(branches), with_errors=return_exceptions)
    except BaseException as error:
        await _cancel_all(scheduler, branches, waits=_waits(error))
        raise
    if return_exceptions:
        return [
            branch.error if branch.error is not None else branch.result() for branch in branches
        ]
    return [branch.result() for branch in branches]


async def wait(
    scheduler: Scheduler,
    futures: Sequence[Future[T]],
    *,
    everyone: bool,
    timer: Callable[[], DurableFuture[None]] | None = None,
) -> WaitResult[T]:
    """Wait until the first is done, or all, or the timer fires. Cancel none of them.

    Args:
        timer: starts a timer; called only if there is something to wait for.
    """
    pending = [future for future in futures if not future.done]
    if pending and (everyone or len(pending) == len(futures)):
        gate: Future[None] = Future(scheduler.seal)
        left = len(pending) if everyone else 1

        def on_end(_future: Future[Any]) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                gate.complete(None)

        for future in pending:
            future.add_callback(on_end)
        limit = None if timer is None else timer()
        if limit is not None:
            limit.add_callback(lambda _timer: gate.complete(None))
        try:
            await gate
        finally:
            for future in pending:
                future.remove_callback(on_end)
            if limit is not None:
                limit.cancel()
    done = tuple([future for future in futures if future.done])
    return WaitResult(done, tuple([future for future in futures if not future.done]))


async def race(scheduler: Scheduler, awaitables: Sequence[Awaitable[Any]]) -> RaceResult[Any]:
    """Wait for the first to end; cancel the others and wait until they have ended."""
    if not awaitables:
        raise OrchestrationError("a race needs at least one runner")
    branches = [scheduler.branch(awaitable) for awaitable in awaitables]
    try:
        winner = await _until(scheduler, branches, count=1)
    except BaseException as error:
        await _cancel_all(scheduler, branches, waits=_waits(error))
        raise
    await _cancel_all(scheduler, branches)
    return RaceResult(
        branches.index(cast("Future[Any]", winner)), cast("Future[Any]", winner).result()
    )


async def _until(
    scheduler: Scheduler, branches: Sequence[Future[Any]], count: int, *, with_errors: bool = False
) -> Future[Any] | None:
    """Wait until ``count`` branches have ended, and return the last of these; raise the first
    error.

    ``with_errors``: an error ends its branch alone.
    """
    ended: list[Future[Any]] = []
    gate: Future[None] = Future(scheduler.seal)

    def on_end(branch: Future[Any]) -> None:
        if gate.done:
            return
        ended.append(branch)
        error = branch.error
        if error is not None and not (with_errors and isinstance(error, Exception)):
            gate.fail(error)
        elif len(ended) >= count:
            gate.complete(None)

    for branch in branches:
        branch.add_callback(on_end)
    if count:
        try:
            await gate
        finally:
            for branch in branches:
                branch.remove_callback(on_end)
    return ended[-1] if ended else None


async def _cancel_all(
    scheduler: Scheduler, branches: Sequence[Future[Any]], *, waits: bool = False
) -> None:
    """Cancel running branches and wait for their ``finally`` bodies, also through a further
    cancellation.

    A branch's ``continue_as_new`` counts, whatever ended the others. ``waits``: activities end
    first, if their options leave that open.
    """
    for branch in branches:
        _give_up(branch, waits=waits)
    late: Cancelled | None = None
    for branch in branches:
        while not branch.done:
            gate: Future[None] = Future(scheduler.seal)
            branch.add_callback(lambda _branch, gate=gate: gate.complete(None))
            try:
                await gate
            except Cancelled as cancelled:
                late = late or cancelled
    for branch in branches:
        if isinstance(branch.error, ContinueAsNew):
            raise branch.error
    if late is not None:
        raise late


def _give_up(branch: Future[Any], *, waits: bool) -> None:
    if isinstance(branch, (Task, DurableFuture)):
        branch.give_up(waits=waits)
    else:
        branch.cancel()


def _waits(error: BaseException | None) -> bool:
    """Return whether an error is a cancel of the instance, for which activities end first."""
    return isinstance(error, Cancelled) and error.waits


def discard(awaitables: Sequence[Awaitable[Any]]) -> None:
    """Close coroutines that will never be started."""
    for awaitable in awaitables:
        if inspect.iscoroutine(awaitable):
            awaitable.close()


class TaskGroup:
    """A structured group of branches: ``async with ctx.task_group() as group``.

    The block ends when all its branches have ended. The first error cancels the others and the
    block itself, and is raised in an ``ExceptionGroup``; a cancel of the orchestration and
    ``continue_as_new`` pass unwrapped.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._tasks: list[Task[Any]] = []
        self._errors: list[BaseException] = []
        self._host: Task[Any] | None = None
        self._host_cancel: Cancelled | None = None
        self._in_body = False
        self._closed = False

    async def __aenter__(self) -> Self:
        self._host = self._scheduler.current
        self._in_body = True
        return self

    def create_task(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a branch. Await the returned task for its result.

        Raises:
            OrchestrationError: the group's block is not entered, or has ended.
        """
        if not inspect.iscoroutine(coroutine):
            raise TypeError(
                f"a branch is a coroutine, the call of an `async def`; {coroutine!r} is not"
            )
        if self._scheduler.seal.closed or self._host is None or self._closed:
            coroutine.close()
            self._scheduler.seal.check()
            raise OrchestrationError(
                "branches can be started only inside `async with ctx.task_group() as group:`"
            )
        task = self._scheduler.spawn(coroutine)
        self._tasks.append(task)
        if self._errors:
            task.cancel()
        task.add_callback(self._on_end)
        return task

    def _on_end(self, task: Future[Any]) -> None:
        error = task.error
        if error is None or (
            isinstance(error, OperationCancelled) and cast("Task[Any]", task).cancelling
        ):
            return
        self._errors.append(error)
        if len(self._errors) == 1:
            for other in self._tasks:
                other.cancel()
            if (
                self._in_body
                and self._host is not None
                and self._host is not self._scheduler.current
            ):
                self._host_cancel = Cancelled("a branch of the task group has failed")
                self._host.throw(self._host_cancel)

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> (
        bool | None
    ):  # `bool` would tell type checkers that the block swallows errors; it never does
        self._in_body = False
        if self._host is not None and self._host_cancel is not None:
            self._host.withdraw(
                self._host_cancel
            )  # the block has ended by itself; nothing after it is cancelled
        if error is not None and error is not self._host_cancel:
            if isinstance(error, GeneratorExit):
                return False
            self._errors.insert(0, error)
            for task in self._tasks:
                task.give_up(waits=_waits(error))
        try:
            await self._join()
        finally:
            self._closed = True
        return self._raise_errors(error)

    async def _join(self) -> None:
        late: Cancelled | None = None
        for task in self._tasks:  # grows meanwhile if a branch starts others
            while not task.done:
                try:
                    await ended(task)
                except Cancelled as cancelled:
                    if late is None:
                        late = cancelled
                        for other in self._tasks:
                            other.give_up(waits=_waits(cancelled))
        if late is not None:
            self._errors.insert(0, late)

    def _raise_errors(self, error: BaseException | None) -> bool:
        for kind in (ContinueAsNew, Cancelled):
            for caught in self._errors:
                if isinstance(caught, kind):
                    if caught is error:
                        return False
                    raise caught
        others = [caught for caught in self._errors if not isinstance(caught, Cancelled)]
        if others:
            raise BaseExceptionGroup("unhandled errors in a task group", others) from None
        return error is self._host_cancel and error is not None
