"""The engine's thread: no orchestration and no commit ever stops the host's event loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from orchestra.clock import Clock
from orchestra.engine.blocked_turns import ClosingExecution, RunningTurn, TurnAbandoned
from orchestra.engine.cycle import Cycle
from orchestra.engine.engine import Engine
from orchestra.engine.messages import ToEngine, ToShell
from orchestra.errors import RuntimeClosed
from orchestra.loops import EventLoop
from orchestra.runtime.interruption import interrupt
from orchestra.runtime.mailbox import Mailbox
from orchestra.telemetry import engine_logger, log_instance

__all__ = ["Begun", "Ended", "EngineThread", "in_engine_thread"]

_here = threading.local()
"""Marks the threads of engines."""

_HINT_INTERVAL: Final = 0.05
_LIVELY_INTERVAL: Final = 0.005
_LIVELY_SECONDS: Final = 1.0
"""Seconds after a hint during which hints are polled more often: an answer is likely."""
_JOIN_SLICE: Final = 0.05
"""Seconds after which a thread that waits for the engine's thread checks whether another one
replaced it.
"""
_MOST_ABANDONED: Final = 16
"""Threads that may be stuck in orchestration code at a time. More than these are a fault of the
whole program.
"""


@dataclass(frozen=True, slots=True)
class Begun:
    """The engine runs, or could not begin."""

    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Ended:
    """The engine's thread has ended: in order, or by a fault of the engine."""

    error: BaseException | None


class Outlet(Protocol):
    """Receives the engine's messages for the event loop."""

    def push(self, entries: Sequence[Any]) -> None:
        """Deliver messages, from the engine's thread."""


class EngineThread:
    """Runs a :class:`Cycle`: takes messages from a queue, waits no longer than the engine allows,
    and sends messages to the outlet.

    A thread that is stuck in orchestration code can be abandoned; another one then replaces it.
    """

    def __init__(
        self,
        cycle: Cycle,
        engine: Engine,
        outlet: Outlet,
        clock: Clock,
        *,
        host: EventLoop | None = None,
        orphaned: Callable[[], None] | None = None,
    ) -> None:
        self._cycle = cycle
        self._engine = engine
        self._outlet = outlet
        self._host = host
        self._on_orphaned = orphaned
        self._is_orphan = False
        self._clock = clock
        self._queue: Mailbox[ToEngine | Callable[[], None]] = Mailbox()
        self._thread = _thread(self._main)
        self._succession = threading.Lock()
        """Held while one thread replaces another, so that a waiting thread never finds none
        running.
        """
        self._abandoned: list[threading.Thread] = []
        self._lively_until = 0.0
        self._stop_requested = False
        self._closed = False
        self._fault: BaseException | None = None

    def start(self) -> None:
        """Start the thread; ``Begun`` comes over the bridge."""
        self._thread.start()

    @property
    def thread_id(self) -> int | None:
        """The identifier of the thread that runs the engine now."""
        return self._thread.ident

    def put(self, message: ToEngine) -> None:
        """Give the engine a message.

        Raises:
            RuntimeClosed: it has stopped.
        """
        if self._closed:
            raise RuntimeClosed("the runtime has stopped")
        self._queue.put(message)

    def look(self) -> None:
        """Have the engine read the store now: a client wrote past it."""

        self._queue.put(self._cycle.poll_now)

    def stop_claiming(self) -> None:
        """Have the engine take nothing new."""
        self._queue.put(self._engine.stop_claiming)

    def stop(self, *, at_once: bool = False) -> None:
        """Have the engine release everything and end; ``Ended`` comes over the bridge."""

        def request() -> None:
            self._stop_requested = True
            self._engine.release_all()
            if at_once:
                self._closed = True

        self._queue.put(request)

    def abandon(self, running: RunningTurn | ClosingExecution) -> bool:
        """Continue on another thread, if this code has not returned. Return whether the engine did
        so.

        At most 16 threads are abandoned at a time; with more, the engine waits for the code to
        return.
        """
        self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]
        with self._succession:
            if len(self._abandoned) >= _MOST_ABANDONED or not self._engine.abandon(running):
                return False
            self._abandoned.append(self._thread)
            self._thread = _thread(self._go_on)
            self._thread.start()
        return True

    def interrupt_abandoned(self) -> None:
        """Unwind the code that abandoned threads still run. Call it after the engine has ended and
        dropped them.
        """
        for thread in self._abandoned:
            if thread.is_alive() and thread.ident is not None:
                interrupt(thread.ident)

    def join(self, seconds: float) -> bool:
        """Wait until no thread runs the engine, apart from abandoned threads. Return whether it has
        ended.
        """
        until = self._clock.monotonic() + seconds
        while True:
            with self._succession:
                thread = self._thread
            left = until - self._clock.monotonic()
            thread.join(min(_JOIN_SLICE, max(0.0, left)))
            with self._succession:
                # Otherwise it still works, or another thread has replaced it meanwhile.
                if thread is self._thread and (left <= 0 or not thread.is_alive()):
                    return not thread.is_alive()

    def _main(self) -> None:
        try:
            self._cycle.begin()
        except BaseException as error:  # noqa: BLE001 - entering the runtime raises it
            self._closed = True
            self._outlet.push([Begun(error)])
            return
        self._cycle.on_change(self._queue.ring)
        self._outlet.push([Begun(None)])
        self._go_on()

    def _go_on(self) -> None:
        _here.is_engine = True
        try:
            wait = self._cycle.idle_seconds()
            while not self._finished():
                if self._host is not None and self._host.is_closed and not self._is_orphan:
                    self._lose_host()
                messages = self._cycle.run(self._gather(wait))
                # Ask before waking the event loop: afterwards this thread sleeps, and needs no
                # interpreter lock.
                wait = self._cycle.idle_seconds()
                self._push(messages)
        except TurnAbandoned as abandoned:
            self._hand_in(abandoned)
            return
        except BaseException as error:  # noqa: BLE001 - a fault of the engine must reach the host, not a log of threads
            if threading.current_thread() is not self._thread:
                return  # it was abandoned, and is interrupted
            self._fault = error
        self._closed = True
        self._cycle.on_change(None)
        try:
            self._push(self._cycle.end())
        except TurnAbandoned as abandoned:
            # Code that was dropped from memory does not return; another thread has replaced this
            # one.
            self._hand_in(abandoned)
            return
        except BaseException as error:  # noqa: BLE001 - the end must be reported, whatever goes wrong now
            self._fault = self._fault or error
        self._outlet.push([Ended(self._fault)])
        if self._is_orphan and self._on_orphaned is not None:
            self._on_orphaned()

    def _lose_host(self) -> None:
        """Stop: no activity can run here now, so other nodes should have the instances."""
        self._is_orphan = True
        engine_logger.error(
            "the event loop in which the runtime was entered is closed, and the runtime has "
            "not been left; it stops. Leave it with `async with`, or await __aexit__, before "
            "the loop is closed"
        )
        self._engine.stop_claiming()
        self._stop_requested = True
        self._engine.release_all()

    def _hand_in(self, abandoned: TurnAbandoned) -> None:
        late, running = abandoned.late, abandoned.running
        blocked = self._clock.monotonic() - running.since
        log_instance(logging.INFO, running.begun, "has returned after %.1f s", blocked)
        if late is None:
            return
        if self._closed:
            late.discard()
        else:
            self._queue.put(lambda: self._engine.add_late_result(late))

    def _finished(self) -> bool:
        return self._closed or (
            self._stop_requested and self._engine.owned == 0 and not self._engine.has_work
        )

    def _push(self, messages: Sequence[ToShell]) -> None:
        if messages:
            self._outlet.push(messages)

    def _gather(self, wait: float) -> list[ToEngine]:
        """Wait until something is due, at first ``wait`` seconds, and take all messages."""
        messages: list[ToEngine] = []
        if self._take(messages) and not messages:
            wait = self._cycle.idle_seconds()
        moment = self._clock.monotonic()
        due = moment + wait
        while not messages and moment < due and not self._finished():
            interval = _LIVELY_INTERVAL if moment < self._lively_until else _HINT_INTERVAL
            self._queue.wait(min(due - moment, interval))
            has_taken = self._take(messages)
            if messages:
                break
            has_heard = not has_taken and self._cycle.listen()
            if has_heard:
                self._lively_until = moment + _LIVELY_SECONDS
            moment = self._clock.monotonic()
            if has_taken or has_heard or moment >= due:
                # What is due has changed only by one of these: a node that waits looks for hints
                # twenty times a second, and for what is due once.
                due = moment + self._cycle.idle_seconds()
        return messages

    def _take(self, messages: list[ToEngine]) -> bool:
        """Take all messages. Return whether there was one, or a request, which is carried out at
        once.
        """
        received = self._queue.take()
        for one in received:
            self._receive(messages, one)
        return bool(received)

    @staticmethod
    def _receive(messages: list[ToEngine], received: ToEngine | Callable[[], None]) -> None:
        if callable(received):
            received()
        else:
            messages.append(received)


def in_engine_thread() -> bool:
    """Return whether the caller runs in an engine's thread, as orchestration code does."""
    return getattr(_here, "is_engine", False)


def _thread(target: Callable[[], None]) -> threading.Thread:
    return threading.Thread(target=target, name="orchestra-engine", daemon=True)
