"""Readers of streams, and callers that wait for answers, whom the hints of a provider wake."""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType
from typing import Final, Self

import anyio

from orchestra.client.port import End
from orchestra.loops import Signal
from orchestra.store.hints import StreamHints
from orchestra.store.requests import RequestAnswer

__all__ = ["ChangeWatch", "HintedAnswer", "HintedWatch", "ReaderWatch", "StoreWatch"]

_SHORTEST: Final = 0.02
_LONGEST: Final = 0.5

_GAP = 0.02
"""Seconds between two looks of a watcher, at least: what changes all the time is coalesced."""

_READER_GAP: Final = 0.005
"""Seconds between two looks of a reader, at least."""


class HintedWatch:
    """Wakes a reader when something may have been published. Implements
    :class:`~orchestra.client.port.StreamWatch`.
    """

    __slots__ = ("_hints", "_instance_id", "_is_told", "_signal", "was_told")

    def __init__(self, hints: StreamHints, instance_id: str) -> None:
        self._hints = hints
        self._instance_id = instance_id
        self._is_told = False
        self._signal = Signal()
        self.was_told: bool = False
        """Whether the last wait ended with a hint."""

    def __enter__(self) -> Self:
        self._hints.add(self._told)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._hints.remove(self._told)

    def _told(self, instance_ids: Collection[str] | None) -> None:
        # Once until the reader has looked, so that a slow reader costs the writers nothing.
        if not self._is_told and (instance_ids is None or self._instance_id in instance_ids):
            self._is_told = True
            self._signal.set()

    async def wait(self, seconds: float) -> None:
        """Return after a hint since the last wait, or after so many seconds."""
        with anyio.move_on_after(seconds):
            await self._signal.wait()
        self.was_told: bool = self._is_told
        if self._is_told:
            self._signal = Signal()
            self._is_told = False  # what is published from now on is not in the next read


class ReaderWatch(HintedWatch):
    """Wakes a reader of a stream: of an item that comes alone at once, of a busy stream every 5 ms
    at the most, so that what is published meanwhile is read at once.
    """

    __slots__ = ("_woken",)

    def __init__(self, hints: StreamHints, instance_id: str) -> None:
        super().__init__(hints, instance_id)
        self._woken = 0.0

    async def wait(self, seconds: float) -> None:
        """Return after a hint since the last wait, or after so many seconds."""
        early = self._woken + _READER_GAP - anyio.current_time()
        if early > 0:
            await anyio.sleep(early)
        await super().wait(seconds)
        self._woken = anyio.current_time()


class ChangeWatch(HintedWatch):
    """Wakes a watcher when any instance may have changed, and not more often than every 20 ms.
    Implements :class:`~orchestra.client.port.StreamWatch`.
    """

    __slots__ = ("_is_patient",)

    def __init__(self, hints: StreamHints, *, is_patient: bool = False) -> None:
        super().__init__(hints, "")
        self._is_patient = is_patient

    def __enter__(self) -> Self:
        self._hints.watch(self._told, is_patient=self._is_patient)
        return self

    def _told(self, instance_ids: Collection[str] | None) -> None:  # noqa: ARG002 - any may be it
        super()._told(None)

    async def wait(self, seconds: float) -> None:
        """Return after a hint since the last wait, or after so many seconds; never at once."""
        await anyio.sleep(_GAP)
        await super().wait(max(0.0, seconds - _GAP))


class StoreWatch:
    """Says when anything in a store may have changed; see :meth:`Client.watch_store`."""

    __slots__ = ("_longest", "_watch")

    def __init__(self, hints: StreamHints, longest: float) -> None:
        self._watch = ChangeWatch(hints, is_patient=True)
        self._longest = longest

    def __enter__(self) -> Self:
        self._watch.__enter__()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watch.__exit__(error_type, error, traceback)

    async def wait(self) -> bool:
        """Return once something may have changed since the last call, true; or after the longest
        wait, false. It waits 20 ms at least.
        """
        await self._watch.wait(self._longest)
        return self._watch.was_told


class HintedAnswer:
    """Wakes a caller that waits for an answer at each hint, and after a pause, longer each time.
    Implements :class:`~orchestra.client.port.EndWatch`.
    """

    end: End | None = None
    answer: RequestAnswer | None = None
    known_open = False

    def __init__(self, hints: StreamHints, instance_id: str, seconds: float) -> None:
        self._watch = HintedWatch(hints, instance_id)
        self._deadline = anyio.current_time() + seconds
        self._pause = _SHORTEST

    def __enter__(self) -> Self:
        self._watch.__enter__()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watch.__exit__(error_type, error, traceback)

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return anyio.current_time() >= self._deadline

    async def wait(self) -> None:
        """Return after a hint, or after the next pause."""
        left = max(0.0, self._deadline - anyio.current_time())
        await self._watch.wait(min(left, self._pause))
        self._pause = min(_LONGEST, self._pause * 1.5)
