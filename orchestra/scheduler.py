"""Drives coroutines by hand, in an order that depends on nothing but their code and the order of inputs."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
from collections import deque
from collections.abc import Awaitable, Coroutine
from types import FrameType, TracebackType
from typing import Any, Final, TypeVar, cast

from orchestra.errors import Cancelled, ForeignAwait, OperationCancelled
from orchestra.futures import DurableFuture, Future, Seal

__all__ = ["Scheduler", "Task", "parked_at"]

T = TypeVar("T")

_FOREIGN: Final = frozenset({"asyncio", "anyio", "trio", "sniffio", "curio", "outcome", "concurrent", "selectors"})
_OWN: Final = "orchestra"
_PLUMBING: Final = frozenset({_OWN, "contextlib"})

_ADVICE: Final = {
    "sleep": "use `await ctx.schedule_timer(timedelta(...))`",
    "gather": "use `await ctx.gather(...)`",
    "wait": "use `await ctx.race(...)` or `await ctx.gather(...)`",
    "wait_for": "use `await ctx.race(work, ctx.schedule_timer(...))`",
}
_ADVICE_ELSE: Final = (
    "orchestration code may await only what ctx gives; do I/O in an activity (`await ctx.schedule_activity(...)`), "
    "wait with `ctx.schedule_timer(...)` or `ctx.wait_for_event(...)`"
)


class Task(Future[T]):
    """A running coroutine; as a future, its end."""

    __slots__ = ("_context", "_scheduler", "_throws", "cancelling", "coroutine", "owned", "parked_on")

    def __init__(self, scheduler: Scheduler, coroutine: Coroutine[Any, Any, T]) -> None:
        super().__init__(scheduler.seal)
        self._scheduler = scheduler
        self.coroutine = coroutine
        # A context of its own, so that what user code binds in context variables stays with its execution.
        self._context = contextvars.copy_context()
        self._throws: list[BaseException] = []
        self.cancelling = False
        self.parked_on: Future[Any] | None = None
        self.owned: dict[int, DurableFuture[Any]] = {}
        """What it has asked for and has no result yet, by event id."""

    def step(self) -> None:
        """Run until the next await that has to wait, or to the end."""
        if self.done:
            return
        try:
            if self._throws:
                yielded = self._context.run(self.coroutine.throw, self._throws.pop(0))
            else:
                yielded = self._context.run(self.coroutine.send, None)
        except StopIteration as stop:
            self._leave_nothing()
            self.settle(stop.value)
        except KeyboardInterrupt:  # somebody stops the process; the code has not failed
            raise
        except BaseException as error:  # noqa: BLE001 - whatever ends user code is its result
            if error.__traceback__ is not None:
                # This very frame holds the task, and the task the error: without the cycle memory goes at once.
                error.__traceback__ = error.__traceback__.tb_next
            self._leave_nothing()
            self.fail(self._outcome(error))
        else:
            self._park(yielded)

    def _leave_nothing(self) -> None:
        self._scheduler.forget(self)
        # Nothing that a cancelled branch asked for outlives it, unless another branch waits for it.
        if self.cancelling and not self.seal.closed:
            for future in list(self.owned.values()):
                if not future.done and not future.awaited:
                    future.cancel()
        self.owned.clear()

    def _outcome(self, error: BaseException) -> BaseException:
        # Who awaits a cancelled branch is not cancelled himself.
        if self.cancelling and isinstance(error, Cancelled):
            return OperationCancelled("the branch was cancelled")
        return _explained(error)

    def _park(self, yielded: object) -> None:
        if not isinstance(yielded, Future) or yielded.seal is not self.seal:
            self._throws.insert(0, _foreign_await(self.coroutine, cast("object", yielded)))
            self._scheduler.ready.append(self)
            return
        future = cast("Future[Any]", yielded)
        if self._throws:
            if not future.awaited:
                _give_up(future)
            self._scheduler.ready.append(self)
        else:
            self.parked_on = future
            future.add_callback(self._wake)

    def _wake(self, future: Future[Any]) -> None:
        # An earlier callback of the same future may have thrown into the task: it has been woken then, and only once.
        if self.parked_on is future:
            self.parked_on = None
            self._scheduler.ready.append(self)

    def throw(self, error: BaseException) -> None:
        """Raise an error at the await where the task is (or at the next one, if it runs)."""
        if self.done:
            return
        self._throws.append(error)
        parked_on, self.parked_on = self.parked_on, None
        if parked_on is not None:
            if parked_on.remove_callback(self._wake):
                _give_up(parked_on)
            self._scheduler.ready.append(self)

    def withdraw(self, error: BaseException) -> None:
        """Take back an error that was to be thrown and has not been yet."""
        if error in self._throws:
            self._throws.remove(error)

    def cancel(self) -> None:
        """Cancel the branch: ``Cancelled`` is raised at its await. A second call changes nothing."""
        if not self.cancelling and not self.done:
            self.cancelling = True
            self.throw(Cancelled("the branch was cancelled"))


def _give_up(future: Future[Any]) -> None:
    # Nobody waits for it any more: the pending activity, timer or wait must not live on, nor steal an event.
    if isinstance(future, DurableFuture):
        future.cancel()


class Scheduler:
    """The ready queue of one execution: first in, first out."""

    def __init__(self, seal: Seal) -> None:
        self.seal = seal
        self.ready: deque[Task[Any]] = deque()
        self.current: Task[Any] | None = None
        self._tasks: dict[Task[Any], None] = {}
        """Those that have not ended, in the order in which they began."""

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Task[T]:
        """Make a task; it takes its first step when those that are ready have taken theirs."""
        task = Task(self, coroutine)
        self._tasks[task] = None
        self.ready.append(task)
        return task

    def forget(self, task: Task[Any]) -> None:
        """Drop a task that has ended."""
        self._tasks.pop(task, None)

    def branch(self, awaitable: Awaitable[T]) -> Future[T]:
        """Return a future for anything that can be awaited; coroutines become tasks."""
        if isinstance(awaitable, Future):
            return awaitable
        if inspect.iscoroutine(awaitable):
            return self.spawn(cast("Coroutine[Any, Any, T]", awaitable))
        return self.spawn(_awaiting(awaitable))

    def run(self) -> None:
        """Step tasks until all of them wait."""
        try:
            while self.ready:
                self.current = self.ready.popleft()
                self.current.step()
        finally:
            self.current = None

    def close(self) -> None:
        """Drop all coroutines. Seal the execution first, so that nothing is decided by their ``finally`` bodies."""
        tasks, self._tasks = self._tasks, {}
        self.ready.clear()
        for task in reversed(tasks):
            with contextlib.suppress(BaseException):  # a sealed context raises Evicted out of finally bodies
                task.coroutine.close()


async def _awaiting(awaitable: Awaitable[T]) -> T:
    return await awaitable


# --- naming the line --------------------------------------------------------------------------


def module_root(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def is_user(frame: FrameType) -> bool:
    """Return whether a frame runs code that is not this library's."""
    return module_root(frame) not in _PLUMBING


def place(frame: FrameType, line: int | None = None) -> str:
    """Return ``file:line in function`` of a frame."""
    code = frame.f_code
    return f"{code.co_filename}:{line or frame.f_lineno} in {code.co_qualname}"


def _await_chain(coroutine: object) -> list[FrameType]:
    """Return the frames from a coroutine down to what it finally awaits."""
    frames: list[FrameType] = []
    awaited: Any = coroutine
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            frames.append(frame)
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return frames


def parked_at(coroutine: object) -> str | None:
    """Return the line of user code where a coroutine waits."""
    users = [frame for frame in _await_chain(coroutine) if is_user(frame) and module_root(frame) not in _FOREIGN]
    return place(users[-1]) if users else None


def _foreign_await(coroutine: object, yielded: object) -> ForeignAwait:
    frames = _await_chain(coroutine)
    called = next((frame.f_code.co_name for frame in frames if module_root(frame) in _FOREIGN), "")
    if type(yielded).__qualname__ == "_GatheringFuture":  # asyncio.gather is no coroutine: it leaves no frame
        called = "gather"
    where = parked_at(coroutine) or "orchestration code"
    what = f"{called}()" if called else f"something that is not durable ({type(yielded).__qualname__})"
    return ForeignAwait(f"{where} awaits {what}: {_ADVICE.get(called, _ADVICE_ELSE)}")


def _explained(error: BaseException) -> BaseException:
    """Return the error, or a ForeignAwait where an async library complained that it does not run here."""
    if not isinstance(error, RuntimeError) or error.__traceback__ is None:
        return error
    trace: TracebackType | None = error.__traceback__
    user: tuple[FrameType, int] | None = None
    called = ""
    foreign = False
    while trace is not None:
        foreign = module_root(trace.tb_frame) in _FOREIGN
        if not foreign and module_root(trace.tb_frame) != _OWN:
            user, called = (trace.tb_frame, trace.tb_lineno), ""
        elif foreign and not called:
            called = trace.tb_frame.f_code.co_name
        trace = trace.tb_next
    if not foreign or user is None:
        return error
    made = ForeignAwait(f"{place(*user)} awaits {called}(): {_ADVICE.get(called, _ADVICE_ELSE)}")
    made.__cause__ = error
    return made
