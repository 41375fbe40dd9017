"""Callers that wait for the ends of instances, and for answers to requests.

What this node commits wakes them at once. A periodic query asks the store for all other ends
together. Callers whose answer does not come soon look for it in the store: periodically, and at
each hint that another process has answered something.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from itertools import chain, count
from types import TracebackType
from typing import Final, Self

import anyio

from orchestra.client.port import End
from orchestra.loops import EventLoop
from orchestra.runtime.readers import Readers
from orchestra.store.hints import StreamHints
from orchestra.store.port import Directory
from orchestra.store.requests import RequestAnswer

__all__ = ["Ends", "Watch"]

_INTERVAL: Final = 1.0
_ASKED_AT_ONCE: Final = 500
_REMEMBERED_STARTS: Final = 10_000
_SOON: Final = 0.05
"""For how many seconds an answer is expected from this node alone."""


class Watch:
    """One waiting caller, while the context is open. Implements
    :class:`~orchestra.client.port.EndWatch`.
    """

    __slots__ = (
        "_ends",
        "_gate",
        "answer",
        "begun",
        "deadline",
        "end",
        "instance_id",
        "known_open",
        "late",
        "request_id",
    )

    def __init__(
        self,
        ends: Ends,
        instance_id: str,
        deadline: float,
        *,
        known_open: bool,
        request_id: str | None = None,
    ) -> None:
        self._ends = ends
        self._gate = ends.loop.gate()
        self.instance_id: str = instance_id
        self.deadline: float = deadline
        self.known_open: bool = known_open
        self.late: bool = False
        self.end: End | None = None
        self.request_id: str | None = request_id
        self.answer: RequestAnswer | None = None
        self.begun: float = ends.now
        """When it was made."""

    def __enter__(self) -> Self:
        self._ends.add(self)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._ends.remove(self)

    def wake(self) -> None:
        """Wake the caller, so that it reads the store, now or before its next wait."""
        if not self._gate.done():
            self._gate.set_result(None)

    async def wait(self) -> None:
        """Return when it is woken."""
        await self._gate
        if self.end is None and self.answer is None:
            self._gate = self._ends.loop.gate()


class Ends:
    """The watches of a runtime. Call every method on the event loop. Times are its seconds."""

    def __init__(
        self,
        readers: Readers,
        directory: Directory,
        loop: EventLoop,
        hints: StreamHints,
        told: Callable[[], None],
    ) -> None:
        self.loop: EventLoop = loop
        self._clock = loop.clock
        self._readers = readers
        self._directory = directory
        self._watches: dict[str, list[Watch]] = {}
        self._asking: dict[tuple[str, str], list[Watch]] = {}
        """Those that wait for the answer to a request. They are among the others, too."""
        self._someone_asks = anyio.Event()
        self._quiet = anyio.Event()
        """Set when no caller waits for an answer any longer."""
        self._hints = hints
        self._tell = told
        self._is_told = False
        self._started: OrderedDict[str, None] = OrderedDict()
        """Instances that were started here, and whose end was not seen. A caller that waits for one
        need not read the store first.
        """
        self._timeouts: list[tuple[float, int, Watch]] = []
        """A heap, rebuilt at each query of the store. Closed watches stay in it until then."""
        self._order = count()
        self._awake_at = math.inf
        self._sooner = anyio.Event()
        # Shielded: other callers still wait while a cancelled host stops in order.
        self._scope = anyio.CancelScope(shield=True)

    @property
    def now(self) -> float:
        """The time of the event loop."""
        return self._clock()

    def watch(self, instance_id: str, seconds: float, request_id: str | None = None) -> Watch:
        """Return a watch that is due after so many seconds, not earlier."""
        watch = Watch(
            self,
            instance_id,
            self._clock() + seconds,
            known_open=instance_id in self._started,
            request_id=request_id,
        )
        watch.late = seconds <= 0
        return watch

    def add(self, watch: Watch) -> None:
        """Begin to watch."""
        self._watches.setdefault(watch.instance_id, []).append(watch)
        if watch.request_id is not None:
            self._asking.setdefault((watch.instance_id, watch.request_id), []).append(watch)
            self._someone_asks.set()
        if watch.deadline < math.inf and not watch.late:
            heapq.heappush(self._timeouts, (watch.deadline, next(self._order), watch))
            if watch.deadline < self._awake_at:
                self._sooner.set()

    def remove(self, watch: Watch) -> None:
        """Stop watching."""
        watches = self._watches[watch.instance_id]
        watches.remove(watch)
        if not watches:
            del self._watches[watch.instance_id]
        if watch.request_id is not None:
            key = watch.instance_id, watch.request_id
            asking = self._asking[key]
            asking.remove(watch)
            if not asking:
                del self._asking[key]
            if not self._asking:
                self._quiet.set()

    def note_start(self, instance_id: str) -> None:
        """Note that an instance was started here."""
        self._started[instance_id] = None
        if len(self._started) > _REMEMBERED_STARTS:
            self._started.popitem(last=False)

    def note_end(self, instance_id: str, end: End) -> None:
        """Note that an instance has ended here, and wake its waiting callers."""
        self._started.pop(instance_id, None)
        for watch in self._watches.get(instance_id, ()):
            if watch.request_id is None:
                watch.end = end
            watch.wake()

    def note_answers(self, instance_id: str, answers: Iterable[RequestAnswer]) -> None:
        """Note that requests were answered here, and wake the callers that wait for them."""
        for answer in answers:
            for watch in self._asking.get((instance_id, answer.request_id), ()):
                watch.answer = answer
                watch.wake()

    async def run(self) -> None:
        """Query the store and check deadlines, until it is stopped."""
        with self._scope:
            async with anyio.create_task_group() as group:
                group.start_soon(self._look_elsewhere)
                group.start_soon(self._hear_elsewhere)
                group.start_soon(self._keep_time)

    def stop(self) -> None:
        """Stop, and wake all callers. They then learn that the runtime has stopped."""
        self._scope.cancel()
        for watch in self._all():
            watch.wake()

    def _all(self) -> Iterable[Watch]:
        return chain.from_iterable(self._watches.values())

    async def _look_elsewhere(self) -> None:
        while True:
            await anyio.sleep(_INTERVAL)
            instance_ids = list(self._watches)
            for start in range(0, len(instance_ids), _ASKED_AT_ONCE):
                await self._look(instance_ids[start : start + _ASKED_AT_ONCE])
            self._wake_asking(self.now)
            timed = (watch for watch in self._all() if watch.deadline < math.inf and not watch.late)
            self._timeouts = [(watch.deadline, next(self._order), watch) for watch in timed]
            heapq.heapify(self._timeouts)

    async def _hear_elsewhere(self) -> None:
        """Listen to other processes while an answer does not come from here."""
        while True:
            await self._someone_asks.wait()
            await anyio.sleep(_SOON)
            if not self._asking:
                self._someone_asks = anyio.Event()
            elif self._wake_asking(self.now - _SOON):
                self._quiet = anyio.Event()
                self._hints.add(self._told)
                try:
                    self._wake_asking(self.now)  # what came before it listens was not heard
                    await self._quiet.wait()
                finally:
                    self._hints.remove(self._told)

    def _told(self, instance_ids: Collection[str] | None) -> None:
        # From any thread. What this process has committed is known without a look.
        if instance_ids is None and not self._is_told:
            self._is_told = True
            self._tell()

    def look_for_answers(self) -> None:
        """Have the callers look that wait for answers: another process may have given them."""
        self._is_told = False
        self._wake_asking(self.now)

    def _wake_asking(self, until: float) -> int:
        """Wake the callers that have waited for an answer since then. Return how many."""
        asking = [one for one in chain.from_iterable(self._asking.values()) if one.begun <= until]
        for watch in asking:
            watch.wake()
        return len(asking)

    async def _look(self, instance_ids: list[str]) -> None:
        try:
            going = await self._readers.call(lambda: self._directory.going_among(instance_ids))
        except Exception:  # noqa: BLE001 - the waiting callers read the store themselves, and get the error
            going = frozenset[str]()
        for instance_id in instance_ids:
            if instance_id not in going:
                for watch in self._watches.get(instance_id, ()):
                    watch.wake()

    async def _keep_time(self) -> None:
        while True:
            now = self._clock()
            while self._timeouts and self._timeouts[0][0] <= now:
                _, _, watch = heapq.heappop(self._timeouts)
                watch.late = True
                watch.wake()
            self._awake_at = self._timeouts[0][0] if self._timeouts else math.inf
            self._sooner = anyio.Event()
            with anyio.CancelScope(deadline=self._awake_at):
                await self._sooner.wait()
