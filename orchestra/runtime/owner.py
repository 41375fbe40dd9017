"""The runtime's own task: the host may enter and leave the runtime in different tasks or loops."""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable
from typing import Final, cast

import anyio

from orchestra.errors import RuntimeClosed
from orchestra.loops import EventLoop, Signal, current_loop
from orchestra.runtime.backends import current_host_task, spawn
from orchestra.telemetry import engine_logger

__all__ = ["Owner"]

_NAP: Final = 0.01


class Owner:
    """Runs a function in a task that belongs to no task of the host. Make it in the entering task.

    Args:
        body: the life of the runtime. It calls :meth:`begin`, and returns after
            :meth:`asked_to_leave` has.
        abandon: ends everything that needs no event loop, from any thread, if the body's loop does
            not run.
    """

    def __init__(
        self, body: Callable[[], Awaitable[None]], abandon: Callable[[], Awaitable[None]]
    ) -> None:
        self._body = body
        self._abandon = abandon
        self._host = current_host_task()
        self._begun = anyio.Event()
        self._leave = anyio.Event()
        self._guard = threading.Lock()
        self._waiting: list[Signal] = []
        self._has_ended = False
        self._task: object = None
        self._is_left = False
        self._told = True
        self.loop: EventLoop = current_loop()
        # A host that is cancelled still stops in order.
        self.patience: anyio.CancelScope = anyio.CancelScope(shield=True)
        """The body ends in this scope. A second cancel of the host cancels it."""
        self.failure: BaseException | None = None

    async def start(self) -> None:
        """Begin; return once the body has begun."""
        self._task = spawn(self._run, "orchestra-runtime")
        try:
            with anyio.CancelScope(shield=True):
                await self._begun.wait()
        except BaseException:  # the event loop itself has cancelled the task
            self._is_left = True
            self._hurry()
            await self._wait_for_end(math.inf)
            raise
        if self.failure is not None:
            raise self.failure
        if self._has_ended:
            raise RuntimeClosed("the runtime was cancelled by its event loop while it began")

    # --- in its own task ---

    async def _run(self) -> None:
        try:
            await self._body()
        except (Exception, KeyboardInterrupt, SystemExit, BaseExceptionGroup) as error:  # noqa: BLE001
            # Leaving the runtime raises it: this task has no owner to raise it to.
            self.fail(_only(error))
        finally:
            with self._guard:
                self._has_ended = True
                waiting, self._waiting = self._waiting, []
            self._begun.set()
            for signal in waiting:
                signal.set()
        with anyio.CancelScope(shield=True):
            while not self._told and not self._is_left:
                await anyio.sleep(_NAP)
                self._tell()

    def begin(self) -> None:
        """Signal that the body has begun."""
        self._begun.set()

    async def asked_to_leave(self) -> None:
        """Wait until the host leaves, or the body has failed."""
        await self._leave.wait()

    def fail(self, error: BaseException) -> None:
        """Record a failure, end the body, and interrupt the task that entered, if it is still
        inside.
        """
        if self.failure is not None:
            return
        self.failure = error
        self._leave.set()
        if not self._begun.is_set():
            return  # entering the runtime raises it
        engine_logger.error("the runtime has failed, and stops", exc_info=error)
        if not self._is_left:
            self._told = False
            self._tell()

    def _tell(self) -> None:
        assert self.failure is not None
        self._told = self._host.interrupt(
            f"the runtime that was entered in this task has failed: {self.failure!r}", self.failure
        )

    # --- in any task, loop and thread ---

    async def leave(self, seconds: float) -> None:
        """End the body, and wait for it. A second cancel, by the event loop itself, cuts its grace.

        Args:
            seconds: how long to wait in another loop; the body's own loop may have stopped for
                good.

        Raises:
            BaseException: the failure of the body.
        """
        self._is_left = True
        interruption: BaseException | None = None
        at_home = self.loop.is_current
        if at_home:
            self._leave.set()
            interruption = await self._wait_for_end(math.inf)
        elif self.loop.can_run_meanwhile and self.loop.call_soon(self._leave.set):
            interruption = await self._wait_for_end(seconds)
        if not self._has_ended:
            engine_logger.warning(
                "the runtime is left while the event loop in which it was entered does not run; "
                "its activities are cut off"
            )
            with anyio.CancelScope(shield=True):
                await self._abandon()
            self.loop.call_soon(self._hurry)  # if it ever runs again, its tasks end
        if self.failure is not None:
            if at_home and self._host.is_current:
                self._host.forgive()
            raise self.failure
        if interruption is not None:
            raise interruption

    async def _wait_for_end(self, seconds: float) -> BaseException | None:
        """Wait until the task has ended. Return a cancellation that came meanwhile."""
        interruption: BaseException | None = None
        deadline = anyio.current_time() + seconds
        signal = Signal()
        with self._guard:
            if self._has_ended:
                return None
            self._waiting.append(signal)
        with anyio.CancelScope(shield=True):
            while not self._has_ended and anyio.current_time() < deadline:
                try:
                    with anyio.CancelScope(deadline=deadline):
                        await signal.wait()
                except anyio.get_cancelled_exc_class() as cancelled:
                    interruption = cancelled
                    if not self.loop.is_current:
                        self.loop.call_soon(self._hurry)
                    else:
                        self._hurry()
        return interruption

    def _hurry(self) -> None:
        self._leave.set()
        self.patience.cancel()


def _only(error: BaseException) -> BaseException:
    """Return the one error of a group that holds one."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    return _only(group.exceptions[0]) if len(group.exceptions) == 1 else group
