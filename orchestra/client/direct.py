"""A stand-alone client's way to the store: changes that wait together are committed together."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

from orchestra.client.hinted import ChangeWatch, HintedAnswer, ReaderWatch
from orchestra.client.intake import Intake
from orchestra.client.port import End, StreamWatch
from orchestra.errors import RuntimeClosed, StoreError, StoreForked, StoreUnavailable
from orchestra.loops import current_loop
from orchestra.store.changes import ClientChange, size_of
from orchestra.store.outcomes import Outcome
from orchestra.store.port import Provider
from orchestra.store.requests import RequestAnswer

__all__ = ["DirectPort", "PollingWatch"]

T = TypeVar("T")

_GROUP = 256


class PollingWatch:
    """Wakes its caller after a pause, longer each time."""

    end: End | None = None
    answer: RequestAnswer | None = None
    known_open = False

    def __init__(self, seconds: float) -> None:
        self._deadline = anyio.current_time() + seconds
        self._pause = 0.02

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return anyio.current_time() >= self._deadline

    async def wait(self) -> None:
        """Sleep for the next pause."""
        await anyio.sleep(max(0.0, min(self._deadline - anyio.current_time(), self._pause)))
        self._pause = min(0.5, self._pause * 1.5)


class _Pending:
    __slots__ = ("change", "error", "outcome")

    def __init__(self, change: ClientChange) -> None:
        self.change = change
        self.outcome: Outcome | None = None
        self.error: Exception | None = None


class _Lane:
    """The waiting changes of one event loop. Its lock and limiter belong to that loop."""

    def __init__(self) -> None:
        self.pending: list[_Pending] = []
        self.lock = anyio.Lock()
        self.limiter = anyio.CapacityLimiter(4)


class DirectPort:
    """Commits in worker threads, one group at a time. The changes that wait are limited, as within
    a runtime.

    It serves any number of event loops, in any threads. Each has its own lane.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._lanes: WeakKeyDictionary[object, _Lane] = WeakKeyDictionary()
        self._lanes_guard = threading.Lock()
        self._intake = Intake()
        self._store_lock = threading.Lock()
        self._is_closed = False
        self._process = os.getpid()

    def close(self) -> None:
        """Refuse all later changes and reads."""
        self._is_closed = True
        self._intake.close()

    def _require_open(self) -> None:
        if self._process != os.getpid():
            raise StoreForked(self._provider.description, opened_by=self._process)
        if self._is_closed:
            raise RuntimeClosed("this client is closed")

    def _lane(self) -> _Lane:
        loop = current_loop().native
        with self._lanes_guard:
            lane = self._lanes.get(loop)
            if lane is None:
                lane = self._lanes[loop] = _Lane()
            return lane

    async def submit(self, change: ClientChange) -> Outcome:
        """Commit a change together with all waiting changes."""
        self._require_open()
        size = size_of(change)
        if not self._intake.enter(size):
            await self._intake.wait(size)
        entry, lane = _Pending(change), self._lane()
        try:
            self._require_open()
            lane.pending.append(entry)
            await self._commit_until_done(lane, entry)
        finally:
            if (
                entry in lane.pending
            ):  # cancelled while it waited: it must not happen behind its sender's back
                lane.pending.remove(entry)
            self._intake.leave(size)
        if entry.error is not None:
            raise entry.error
        assert entry.outcome is not None
        return entry.outcome

    async def _commit_until_done(self, lane: _Lane, entry: _Pending) -> None:
        async with lane.lock:
            if entry.outcome is None and entry.error is None:
                batch, lane.pending = lane.pending[:_GROUP], lane.pending[_GROUP:]
                if entry not in batch:  # a full group of older ones goes first
                    batch.append(entry)
                    lane.pending.remove(entry)
                # A cancel must not reach a running commit: its outcome belongs to others too.
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._commit, batch, limiter=lane.limiter)

    def _commit(self, batch: list[_Pending]) -> None:
        try:
            with self._store_lock:
                try:
                    commit = self._provider.store.commit([entry.change for entry in batch])
                finally:
                    # a runtime may share this provider, and would see it at the next poll only
                    self._provider.store.stir()
        except Exception as error:  # noqa: BLE001 - a value that breaks the driver concerns that value alone
            known = (
                error
                if isinstance(error, StoreError)
                else StoreError(f"{type(error).__name__}: {error}")
            )
            if self._is_closed and isinstance(
                known, StoreUnavailable
            ):  # closed in another task, under this commit
                for entry in batch:
                    entry.error = RuntimeClosed(
                        "this client was closed before the change was written; nothing was written"
                    )
                return
            if len(batch) == 1 or known.retryable:
                for entry in batch:
                    entry.error = known
                return
            for entry in batch:  # one of them is faulty: find it
                self._commit([entry])
        else:
            for entry, outcome in zip(batch, commit.outcomes, strict=True):
                entry.outcome = outcome

    async def call(self, function: Callable[[], T]) -> T:
        """Run a blocking call in a worker thread."""
        self._require_open()
        try:
            return await anyio.to_thread.run_sync(function, limiter=self._lane().limiter)
        except StoreUnavailable:
            self._require_open()  # closed in another task, under this read
            raise

    def written_past(self) -> None:
        """Notify a runtime that shares this provider; other engines poll the store."""
        self._provider.store.stir()
        self._provider.stream_hints.changed()

    def watch(
        self, instance_id: str, seconds: float, request_id: str | None = None
    ) -> AbstractContextManager[PollingWatch | HintedAnswer]:
        """Poll, at growing intervals. The hints of the provider wake a wait for an answer."""
        if request_id is not None:
            return HintedAnswer(self._provider.stream_hints, instance_id, seconds)
        return nullcontext(PollingWatch(seconds))

    def watch_changes(
        self,
        instance_id: str | None,  # noqa: ARG002 - hints tell no ids
    ) -> AbstractContextManager[StreamWatch]:
        """Watch by the hints of the provider, and poll."""
        self._require_open()
        return ChangeWatch(self._provider.stream_hints)

    def watch_stream(self, instance_id: str) -> AbstractContextManager[StreamWatch]:
        """Watch by the hints of the provider."""
        self._require_open()
        return ReaderWatch(self._provider.stream_hints, instance_id)
