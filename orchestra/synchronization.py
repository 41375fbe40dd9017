"""Locks, semaphores and conditions between the branches of one execution.

They live in memory, and replay repeats their decisions: the order of requests decides, never a
clock. A boundary drops them. They do not reach other instances: to exclude those, let one instance
do the work.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from orchestra.errors import Cancelled, Evicted, OrchestrationError
from orchestra.futures import Future
from orchestra.options import check_count
from orchestra.scheduler import Scheduler, Task

__all__ = ["Condition", "Lock", "Semaphore"]

T = TypeVar("T")


class Lock:
    """One branch at a time holds it: ``async with lock:``. Waiting branches get it first come,
    first served.
    """

    __slots__ = ("_holder", "_scheduler", "_waiting")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._holder: Task[Any] | None = None
        self._waiting: OrderedDict[Future[None], Task[Any] | None] = OrderedDict()

    def locked(self) -> bool:
        """Return whether a branch holds it."""
        return self._holder is not None

    async def acquire(self) -> None:
        """Wait until this branch holds the lock.

        Raises:
            OrchestrationError: it holds the lock already, and would wait for itself.
        """
        scheduler = self._scheduler
        scheduler.seal.check()
        if self._holder is None:
            self._holder = scheduler.current
            return
        if self._holder is scheduler.current:
            raise OrchestrationError("this branch holds the lock already; it would wait for itself")
        gate: Future[None] = Future(scheduler.seal)
        self._waiting[gate] = scheduler.current
        try:
            await gate
        except BaseException:
            # If its new holder was cancelled in the same moment, it goes to the next branch.
            if gate.done:
                self._pass_on()
            else:
                del self._waiting[gate]
            raise

    def release(self) -> None:
        """Give the lock to the branch that has waited longest, or to the next one that asks.

        Raises:
            OrchestrationError: this branch does not hold it.
        """
        if self._scheduler.seal.closed:
            return
        if not self.is_mine():
            raise OrchestrationError(
                "the lock is released by a branch that does not hold it; write `async with lock:`"
            )
        self._pass_on()

    def is_mine(self) -> bool:
        """Return whether the running branch holds it."""
        return self._holder is not None and self._holder is self._scheduler.current

    def _pass_on(self) -> None:
        if self._waiting:
            gate, self._holder = self._waiting.popitem(last=False)
            gate.complete(None)
        else:
            self._holder = None

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.release()


class Semaphore:
    """At most ``value`` branches hold it at a time: ``async with semaphore:``. The longest wait
    comes first.
    """

    __slots__ = ("_most", "_scheduler", "_value", "_waiting")

    def __init__(self, scheduler: Scheduler, value: int) -> None:
        check_count(value, "a semaphore")
        self._scheduler = scheduler
        self._value = self._most = value
        self._waiting: OrderedDict[Future[None], None] = OrderedDict()

    @property
    def value(self) -> int:
        """How many more branches could hold it now."""
        return self._value

    def locked(self) -> bool:
        """Return whether a branch that asks now must wait."""
        return self._value == 0

    async def acquire(self) -> None:
        """Wait until this branch holds it once more."""
        self._scheduler.seal.check()
        if self._value:
            self._value -= 1
            return
        gate: Future[None] = Future(self._scheduler.seal)
        self._waiting[gate] = None
        try:
            await gate
        except BaseException:
            if gate.done:
                self._pass_on()
            else:
                del self._waiting[gate]
            raise

    def release(self) -> None:
        """Give it to the branch that has waited longest, or to the next one that asks.

        Raises:
            OrchestrationError: it was released more often than acquired.
        """
        if self._scheduler.seal.closed:
            return
        if self._value == self._most:
            raise OrchestrationError(
                "the semaphore is released more often than acquired; write `async with semaphore:`"
            )
        self._pass_on()

    def _pass_on(self) -> None:
        if self._waiting:
            gate, _ = self._waiting.popitem(last=False)
            gate.complete(None)
        else:
            self._value += 1

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.release()


class Condition:
    """A lock whose holder can wait until another branch has changed something::

        async with condition:
            await condition.wait_for(lambda: queue)
            item = queue.pop(0)

    The other branch holds the lock as well, changes it, and calls :meth:`notify` or
    :meth:`notify_all`.
    """

    __slots__ = ("_lock", "_scheduler", "_waiting")

    def __init__(self, scheduler: Scheduler, lock: Lock | None = None) -> None:
        self._scheduler = scheduler
        self._lock = Lock(scheduler) if lock is None else lock
        self._waiting: OrderedDict[Future[None], None] = OrderedDict()

    def locked(self) -> bool:
        """Return whether a branch holds the lock."""
        return self._lock.locked()

    async def acquire(self) -> None:
        """Wait until this branch holds the lock."""
        await self._lock.acquire()

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    async def wait(self) -> None:
        """Release the lock, wait until this branch is notified, and hold the lock again.

        A cancel is raised when the lock is held again, so that ``async with`` releases it in order.

        Raises:
            OrchestrationError: this branch does not hold the lock.
        """
        self._check_held("wait for")
        gate: Future[None] = Future(self._scheduler.seal)
        self._waiting[gate] = None
        self._lock.release()
        try:
            await gate
        except (Evicted, GeneratorExit):
            raise
        except BaseException:
            if gate.done:
                self._notify(1)  # it was notified and cannot act; the next one can
            else:
                del self._waiting[gate]
            await self._lock_again()
            raise
        cancelled = await self._lock_again()
        if cancelled is not None:
            raise cancelled

    async def wait_for(self, predicate: Callable[[], T]) -> T:
        """Wait until a predicate is true, and return its value. It is called now, and after each
        notification.
        """
        while not (value := predicate()):
            await self.wait()
        return value

    def notify(self, count: int = 1) -> None:
        """Wake some waiting branches, the longest waiting ones first.

        Raises:
            OrchestrationError: this branch does not hold the lock.
        """
        check_count(count, "notify", least=0)
        self._check_held("notify")
        self._notify(count)

    def notify_all(self) -> None:
        """Wake all branches that wait.

        Raises:
            OrchestrationError: this branch does not hold the lock.
        """
        self._check_held("notify")
        self._notify(len(self._waiting))

    def _notify(self, count: int) -> None:
        for _ in range(min(count, len(self._waiting))):
            gate, _ = self._waiting.popitem(last=False)
            gate.complete(None)

    async def _lock_again(self) -> Cancelled | None:
        """Hold the lock again, also through a cancel, which is returned."""
        late: Cancelled | None = None
        while True:
            try:
                await self._lock.acquire()
            except Cancelled as cancelled:
                late = late or cancelled
            else:
                return late

    def _check_held(self, action: str) -> None:
        self._scheduler.seal.check()
        if not self._lock.is_mine():
            raise OrchestrationError(
                f"only a branch that holds its lock may {action} a condition; write `async with "
                "condition:`"
            )

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.release()
