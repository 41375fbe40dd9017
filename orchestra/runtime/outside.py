"""Clients' calls from event loops and threads other than the runtime's own.

The engine's thread and the readers answer them directly, without the runtime's loop. That loop may
be busy, or paused between two calls of ``run_until_complete``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import anyio

from orchestra.client.intake import Intake
from orchestra.client.port import End
from orchestra.engine.messages import (
    InstanceEnded,
    Reply,
    RequestsAnswered,
    RunActivity,
    Submit,
    ToShell,
)
from orchestra.errors import OrchestraError, RuntimeClosed, WrongEventLoop
from orchestra.loops import EventLoop, Signal
from orchestra.runtime.bridge import Bridge
from orchestra.runtime.readers import Readers
from orchestra.runtime.worker import Ended, EngineThread, in_engine_thread
from orchestra.store.changes import ClientChange, size_of
from orchestra.store.outcomes import Outcome
from orchestra.store.requests import RequestAnswer

__all__ = ["Outside", "OutsideWatch"]

T = TypeVar("T")

_SHORTEST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


class _Call:
    """A client's change that the engine has not answered yet."""

    __slots__ = ("change", "done", "outcome", "size")

    def __init__(self, change: ClientChange) -> None:
        self.change = change
        self.size = size_of(change)
        self.done = Signal()
        self.outcome: Outcome | OrchestraError | None = None

    def answer(self, outcome: Outcome | OrchestraError) -> None:
        self.outcome = outcome
        self.done.set()


class Outside:
    """Stands between the engine's thread and the bridge, and answers callers in other loops."""

    def __init__(self, bridge: Bridge[Any], home: EventLoop) -> None:
        self._bridge = bridge
        self._home = home
        self._guard = threading.Lock()
        self._calls: set[_Call] = set()
        self._watches: dict[str, list[OutsideWatch]] = {}
        self._closed = False
        self._is_asked = False
        """Whether it was ever used. Until then the engine's messages pass unexamined."""
        self._intake: Callable[[], Intake]
        self._thread: EngineThread
        self._readers: Readers

    def serve(self, intake: Callable[[], Intake], thread: EngineThread, readers: Readers) -> None:
        """Take calls from now on."""
        self._intake, self._thread, self._readers = intake, thread, readers

    # --- on the engine's thread ---

    def push(self, entries: Sequence[Any]) -> None:
        """Answer callers in other loops, and pass all other messages to the runtime's own loop."""
        if self._is_asked:
            entries = [entry for entry in entries if not self._take(entry)]
        if entries:
            if isinstance(entries[-1], Ended):
                self.close()
            self._bridge.push(entries)

    def _take(self, message: ToShell | Ended) -> bool:
        if isinstance(message, Reply):
            call = message.token
            if not isinstance(call, _Call):
                return False
            with self._guard:
                self._calls.discard(call)
            self._intake().leave(call.size)
            call.answer(message.outcome)
            return True
        if isinstance(message, InstanceEnded):
            with self._guard:
                watches = list(self._watches.get(message.instance_id, ()))
            for watch in watches:
                if watch.request_id is None:
                    watch.tell(End(message.status, message.output, message.error))
                else:
                    watch.wake()
        if isinstance(message, RequestsAnswered):
            with self._guard:
                watches = list(self._watches.get(message.instance_id, ()))
            answers = {answer.request_id: answer for answer in message.answers}
            for watch in watches:
                if watch.request_id in answers:
                    watch.answer = answers[watch.request_id]
                    watch.wake()
        return False

    def close(self) -> None:
        """Answer all open calls and watches: the runtime has stopped. From any thread."""
        with self._guard:
            self._closed = True
            calls, self._calls = self._calls, set()
            watches = [watch for some in self._watches.values() for watch in some]
        for call in calls:
            call.answer(
                RuntimeClosed(
                    "the runtime stopped before the change was acknowledged; it may or may not "
                    "be stored. Ask again"
                )
            )
        for watch in watches:
            watch.wake()

    # --- in any other loop ---

    async def submit(self, change: ClientChange) -> Outcome:
        """Have the engine commit a change; its room is kept until the engine has answered."""
        self._require_elsewhere()
        call = _Call(change)
        intake = self._intake()
        if not intake.enter(call.size):
            await intake.wait(call.size)
        self._is_asked = True
        with self._guard:
            if self._closed:
                intake.leave(call.size)
                raise RuntimeClosed("the runtime has stopped")
            try:
                self._thread.put(Submit(change, call))
            except RuntimeClosed:
                intake.leave(call.size)
                raise
            self._calls.add(call)
        await call.done.wait()
        assert call.outcome is not None
        if isinstance(call.outcome, OrchestraError):
            raise call.outcome
        return call.outcome

    async def call(self, function: Callable[[], T]) -> T:
        """Run a blocking read in a worker thread."""
        self._require_elsewhere()
        return await self._readers.call(function, Signal())

    def watch(
        self, instance_id: str, seconds: float, request_id: str | None = None
    ) -> OutsideWatch:
        """Watch for an instance's end, or for the answer to a request."""
        self._require_elsewhere()
        return OutsideWatch(self, instance_id, seconds, request_id)

    def add(self, watch: OutsideWatch) -> None:
        self._is_asked = True
        with self._guard:
            self._watches.setdefault(watch.instance_id, []).append(watch)

    def remove(self, watch: OutsideWatch) -> None:
        with self._guard:
            watches = self._watches[watch.instance_id]
            watches.remove(watch)
            if not watches:
                del self._watches[watch.instance_id]

    def require_progress(self, instance_id: str) -> None:
        """Check that this instance can go on while the caller waits.

        Raises:
            WrongEventLoop: its activities wait for the runtime's loop, and that loop waits for the
                caller's.
        """
        if threading.get_ident() != self._home.thread or self._home.can_run_meanwhile:
            return  # its loop runs, or another thread may run it
        for message in self._bridge.peek():
            if isinstance(message, RunActivity) and message.key.instance_id == instance_id:
                raise WrongEventLoop(
                    f"instance {instance_id!r} waits for activity {message.name!r}, which runs "
                    "in the runtime's own event loop. That loop stands still while another "
                    "runs in its thread. Wait in the loop that entered the runtime "
                    "(pytest-asyncio: give tests and fixtures one loop_scope), or in another "
                    "thread"
                )

    def _require_elsewhere(self) -> None:
        if self._closed:  # the runtime's own loop may be paused, and need not know it yet
            raise RuntimeClosed("the runtime has stopped")
        if in_engine_thread():
            raise WrongEventLoop(
                "orchestration code runs in the engine's thread, and would wait for itself; call "
                "the client in an activity"
            )


class OutsideWatch:
    """A wait in another loop. Implements :class:`~orchestra.client.port.EndWatch`."""

    __slots__ = (
        "_deadline",
        "_outside",
        "_pause",
        "_signal",
        "answer",
        "end",
        "instance_id",
        "known_open",
        "request_id",
    )

    def __init__(
        self, outside: Outside, instance_id: str, seconds: float, request_id: str | None
    ) -> None:
        self._outside = outside
        self._deadline = anyio.current_time() + seconds
        self._pause = _SHORTEST_PAUSE
        self._signal = Signal()
        self.instance_id: str = instance_id
        self.known_open: bool = False
        self.end: End | None = None
        self.request_id: str | None = request_id
        self.answer: RequestAnswer | None = None

    def __enter__(self) -> Self:
        self._outside.add(self)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._outside.remove(self)

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return anyio.current_time() >= self._deadline

    def tell(self, end: End) -> None:
        """Deliver the end. From any thread."""
        self.end = end
        self.wake()

    def wake(self) -> None:
        """Wake the caller, so that it reads the store. From any thread."""
        self._signal.set()

    async def wait(self) -> None:
        """Return when it is woken, or after a while.

        Raises:
            WrongEventLoop: it would wait for ever.
        """
        self._outside.require_progress(self.instance_id)
        with anyio.move_on_after(max(0.0, min(self._deadline - anyio.current_time(), self._pause))):
            await self._signal.wait()
        self._pause = min(_LONGEST_PAUSE, self._pause * 1.5)
