"""Drives coroutines by hand. Their order depends only on their code and the order of inputs."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import sys
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Sequence
from typing import Any, Final, TypeVar, cast

from orchestra.activities import ORCHESTRATING
from orchestra.errors import Cancelled, ContinueAsNew, OperationCancelled
from orchestra.foreign import explained, foreign_await
from orchestra.futures import DurableFuture, Future, Seal
from orchestra.unwinding import BOUNDARIES

__all__ = ["Scheduler", "Task", "ended"]

T = TypeVar("T")

_CLOSINGS: Final = 3
"""How often a coroutine that goes on is closed. The second time it is unwound by force."""


class Task(Future[T]):
    """A running coroutine; as a future, its result."""

    __slots__ = (
        "_closings",
        "_context",
        "_scheduler",
        "_throws",
        "cancelling",
        "coroutine",
        "owned",
        "parked_on",
    )

    def __init__(self, scheduler: Scheduler, coroutine: Coroutine[Any, Any, T]) -> None:
        super().__init__(scheduler.seal)
        self._scheduler = scheduler
        self.coroutine: Coroutine[Any, Any, Any] = coroutine
        # A context of its own, so that context variables of user code stay within its execution.
        self._context = contextvars.copy_context()
        if scheduler.current is None:  # else it is a copy of such a one
            self._context.run(ORCHESTRATING.set, True)
        self._throws: list[BaseException] = []
        self._closings: list[Task[None]] | None = None
        self.cancelling: bool = False
        self.parked_on: Future[Any] | None = None
        self.owned: dict[int, DurableFuture[Any]] = {}
        """Its commands without a result, by event id."""

    def __repr__(self) -> str:
        name = getattr(self.coroutine, "__qualname__", "branch")
        # no address: the text is the same on replay
        return f"<{'done' if self._done else 'running'} {name}>"

    def step(self) -> None:
        """Run until the next await that must wait, or to the end."""
        if self._done:
            return
        try:
            if self._throws:
                yielded = self._context.run(self.coroutine.throw, self._throws.pop(0))
            else:
                yielded = self._context.run(self.coroutine.send, None)
        except StopIteration as stop:
            if self._ends(stop.value, None):
                self.complete(stop.value)
        except KeyboardInterrupt:  # the process is being stopped; the code has not failed
            raise
        except BaseException as error:  # noqa: BLE001 - any exception of user code is its result
            if error.__traceback__ is not None:
                # This frame holds the task, and the task holds the error: breaking the cycle frees
                # memory at once.
                error.__traceback__ = error.__traceback__.tb_next
            if self._ends(None, error):
                self.fail(self._outcome(error))
        else:
            self._park(yielded)

    def _ends(self, value: Any, error: BaseException | None) -> bool:
        """Return whether it ends now. It first waits until the async generators that it left early
        are closed.
        """
        if self._scheduler._left:
            self._scheduler.close_left(self)
        closings, self._closings = self._closings, None
        if closings and not self.seal.closed:
            self.coroutine = _after(closings, value, error)
            self._scheduler.ready.append(self)
            return False
        self._leave_nothing()
        return True

    def add_closing(self, closing: Task[None]) -> None:
        """Let the task end no earlier than this one."""
        if self._closings is None:
            self._closings = []
        self._closings.append(closing)

    def _leave_nothing(self) -> None:
        self._scheduler.tasks.pop(self, None)
        # No command of a cancelled branch outlives it, unless another branch waits for it.
        if self.cancelling and not self.seal.closed:
            for future in list(self.owned.values()):
                if not future._done and not future.awaited:
                    future.cancel()
        self.owned.clear()

    def _outcome(self, error: BaseException) -> BaseException:
        # A branch that awaits a cancelled branch is not cancelled itself.
        if self.cancelling and isinstance(error, Cancelled):
            return OperationCancelled("the branch was cancelled")
        return explained(error)

    def _park(self, yielded: object) -> None:
        if not isinstance(yielded, Future) or yielded.seal is not self.seal:
            self._throws.insert(0, foreign_await(self.coroutine, cast("object", yielded)))
            self._scheduler.ready.append(self)
            return
        future: Future[Any] = yielded  # pyright: ignore[reportUnknownVariableType] - a cast() would be a call
        if self._throws and (future.awaited or _give_up(future, self._throws[0])):
            self._scheduler.ready.append(self)
        else:
            self.parked_on = future
            future.add_callback(self._wake)

    def _wake(self, future: Future[Any]) -> None:
        # An earlier callback of the same future may have thrown into the task. The task was woken
        # then, only once.
        if self.parked_on is future:
            self.parked_on = None
            self._scheduler.ready.append(self)

    def throw(self, error: BaseException) -> None:
        """Raise an error at the task's current await (or at its next one, if it runs)."""
        if self.done:
            return
        self._throws.append(error)
        parked_on = self.parked_on
        if parked_on is None or (isinstance(parked_on, DurableFuture) and parked_on.ending):
            return  # in the second case it is raised once the activity has ended
        self.parked_on = None
        if parked_on.remove_callback(self._wake) and not _give_up(parked_on, error):
            self.parked_on = parked_on
            parked_on.add_callback(self._wake)
        else:
            self._scheduler.ready.append(self)

    def withdraw(self, error: BaseException) -> None:
        """Withdraw an error that has not been thrown yet."""
        if error in self._throws:
            self._throws.remove(error)

    def cancel(self) -> None:
        """Cancel the branch: ``Cancelled`` is raised at its await. A second call changes
        nothing.
        """
        self.give_up(waits=False)

    def give_up(self, *, waits: bool) -> None:
        """Cancel it; ``waits``: an awaited activity ends first, if its options leave that open."""
        if not self.cancelling and not self.done:
            self.cancelling = True
            error = Cancelled("the branch was cancelled")
            error.waits = waits
            self.throw(error)


def _give_up(future: Future[Any], error: BaseException) -> bool:
    """Cancel a command that no branch waits for: it must not live on, nor take an event. Return
    whether it is done.
    """
    if isinstance(future, DurableFuture):
        return future.give_up(waits=isinstance(error, Cancelled) and error.waits)
    return True


class Scheduler:
    """The ready queue of one execution: first in, first out."""

    def __init__(self, seal: Seal) -> None:
        self.seal = seal
        self.ready: deque[Task[Any]] = deque()
        self.current: Task[Any] | None = None
        self.steps: int = 0
        """How many steps tasks have made. The watchdog reads it in another thread."""
        self.tasks: dict[Task[Any], None] = {}
        """The tasks that have not ended, in the order of their starts."""
        self._left: tuple[AsyncGenerator[Any, Any], ...] = ()

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Task[T]:
        """Make a task. It takes its first step after the tasks that are ready now."""
        task = Task(self, coroutine)
        self.tasks[task] = None
        self.ready.append(task)
        return task

    def branch(self, awaitable: Awaitable[T]) -> Future[T]:
        """Return a future for anything that can be awaited; coroutines become tasks."""
        if isinstance(awaitable, Future):
            return awaitable
        if inspect.iscoroutine(awaitable):
            return self.spawn(cast("Coroutine[Any, Any, T]", awaitable))
        return self.spawn(_awaiting(awaitable))

    def run(self) -> None:
        """Step tasks until all of them wait, or until a command is refused."""
        ready, seal = self.ready, self.seal
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, self._left_early)
        try:
            while ready and not seal.closed:
                self.current = task = ready.popleft()
                self.steps += 1
                task.step()
                if self._left:
                    self.close_left(task)
        finally:
            self.current = None
            sys.set_asyncgen_hooks(*hooks)
            if seal.closed:
                seal.begin_anew()

    def close(self) -> None:
        """Drop all coroutines. Seal the execution first, so that their ``finally`` bodies decide
        nothing.

        This ends, whatever their code does with exceptions.
        """
        tasks, self.tasks = self.tasks, {}
        self.ready.clear()
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, self._left_early)
        try:
            for task in reversed(tasks):
                self._close(task.coroutine)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    def _close(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.seal.begin_anew()
        try:
            for _ in range(_CLOSINGS):
                with contextlib.suppress(
                    BaseException
                ):  # a sealed context raises Evicted out of finally bodies
                    coroutine.close()
                if getattr(coroutine, "cr_frame", None) is None:
                    break
                # It awaited something else instead of ending.
                self.seal.unwind(coroutine)
        finally:
            self.seal.begin_anew()

    # --- async generators that are left early ---

    def _left_early(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Take an unfinished async generator without references from Python's finaliser."""
        if self.seal.closed:
            self._close_generator(generator)
        else:
            self._left = (*self._left, generator)

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        self.seal.begin_anew()
        try:
            for _ in range(_CLOSINGS):
                with contextlib.suppress(BaseException):
                    generator.aclose().__await__().__next__()
                if getattr(generator, "ag_frame", None) is None:
                    break
                self.seal.unwind(generator)
        finally:
            self.seal.begin_anew()

    def close_left(self, task: Task[Any]) -> None:
        """Begin to close the generators that a task left early, as branches of the task. It ends
        when they have ended.
        """
        if not self._left or self.seal.closed:
            return
        left, self._left = self._left, ()
        for generator in left:
            task.add_closing(self.spawn(_awaiting(generator.aclose())))


BOUNDARIES.update(
    function.__code__ for function in (Task[Any].step, Scheduler._close, Scheduler._close_generator)
)


async def _awaiting(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def _after(closings: Sequence[Task[None]], value: T, error: BaseException | None) -> T:
    """Complete as a task did, once its early-left generators are closed. Their failure fails the
    task.
    """
    late: Cancelled | None = None
    for closing in closings:
        while not closing.done:
            try:
                await ended(closing)
            except Cancelled as cancelled:
                late = late or cancelled
                for other in closings:
                    other.cancel()
    for closing in closings:
        if error is None or (
            isinstance(closing.error, ContinueAsNew) and not isinstance(error, Cancelled)
        ):
            error = closing.error if not isinstance(closing.error, OperationCancelled) else error
    if late is not None:
        raise late
    if error is not None:
        raise error
    return value


async def ended(future: Future[Any]) -> None:
    """Wait until a future is done, with any result."""
    gate: Future[None] = Future(future.seal)
    future.add_callback(lambda _future: gate.complete(None))
    await gate
