"""Waiting on virtual time, and what an instance waits for that does not come."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from types import TracebackType
from typing import Protocol, Self

from orchestra.client import Client, InstanceInfo
from orchestra.client.port import End
from orchestra.sessions import ENTER
from orchestra.store.hints import StreamHints
from orchestra.store.requests import RequestAnswer

__all__ = [
    "NothingHappens",
    "VirtualChangeWatch",
    "VirtualStreamWatch",
    "VirtualWatch",
    "held_for_itself",
    "waits_of",
]


class NothingHappens(AssertionError):
    """A test waits for something that does not come: nothing can run, and nothing is due."""


class Wheel(Protocol):
    """What moves virtual time."""

    def monotonic(self) -> float:
        """Return the virtual time in seconds."""
        ...

    async def move_towards_end(
        self, instance_id: str, deadline: float, request_id: str | None = None
    ) -> bool:
        """Let time go by until an instance may have ended, or answered a request, or until the
        deadline: then ``True``.
        """
        ...

    async def move_until(self, told: Callable[[], bool], instance_id: str | None) -> None:
        """Let time go by until a hint has come of what an instance publishes."""
        ...


class VirtualWatch:
    """Waits for the end of an instance, or its answer to a request, by letting virtual time go by.
    Implements :class:`~orchestra.client.port.EndWatch`.
    """

    answer: RequestAnswer | None = None

    def __init__(
        self, wheel: Wheel, instance_id: str, seconds: float, request_id: str | None = None
    ) -> None:
        self._wheel = wheel
        self._instance_id = instance_id
        self._request_id = request_id
        self._deadline = wheel.monotonic() + seconds
        self.end: End | None = None
        self.known_open: bool = False
        self.late: bool = seconds <= 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None: ...

    async def wait(self) -> None:
        """Return when it may have ended, or the time is up."""
        asked = self._instance_id, self._deadline, self._request_id
        if await self._wheel.move_towards_end(*asked):
            self.late = True


class VirtualStreamWatch:
    """Waits for what an instance publishes by letting virtual time go by. Implements
    :class:`~orchestra.client.port.StreamWatch`.
    """

    def __init__(self, wheel: Wheel, hints: StreamHints, instance_id: str | None) -> None:
        self._wheel = wheel
        self._hints = hints
        self._instance_id = instance_id
        self._is_told = False

    def __enter__(self) -> Self:
        self._hints.add(self._tell)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._hints.remove(self._tell)

    def _tell(self, instance_ids: Collection[str] | None) -> None:
        self._is_told |= instance_ids is None or self._instance_id in instance_ids

    async def wait(self, seconds: float) -> None:  # noqa: ARG002 - virtual time has no polls
        """Return when something was published since the last call, or the instance has ended."""
        await self._wheel.move_until(lambda: self._is_told, self._instance_id)
        self._is_told = False


class VirtualChangeWatch(VirtualStreamWatch):
    """The same for changes of an instance, or of any (``None``)."""

    def __enter__(self) -> Self:
        self._hints.watch(self._tell)
        return self

    def _tell(self, instance_ids: Collection[str] | None) -> None:  # noqa: ARG002 - any may be it
        self._is_told = True


async def waits_of(
    client: Client, instance_id: str, activities: Container[str], queues: Collection[str]
) -> str:
    """Return what an instance waits for, for people, and why it does not come.

    Args:
        activities: those that the test runtime has.
        queues: those that it serves.
    """
    info = await client.get_instance_info(instance_id)
    where = f"{info.name} {info.version}, lap {info.execution_id}"
    if info.completed_at is not None:
        return f"{where}; it has ended ({info.status.value})"
    if (reason := held_for_itself(info)) is not None:
        return f"{where}; it is held: {reason}"
    waits = [_shown(one) for one in info.waiting_on]
    if not waits:
        return f"{where}; it waits for nothing, and its code has not gone on"
    text = f"{where}; it waits for {', '.join(waits)}"
    asked = {one.name for one in info.waiting_on if one.kind == "activity"}
    if (reason := info.held_reason) is not None and ENTER in asked:
        return f"{text}: {reason}"
    asked.discard(ENTER)
    missing = sorted(name for name in asked if name not in activities)
    if missing:
        text += (
            f". The test runtime has no activity {', '.join(map(repr, missing))}: give it to "
            "TestRuntime, or let a fake stand in for it"
        )
    elif asked:
        text += f". The test runtime serves the queues {', '.join(map(repr, sorted(queues)))}"
    return text


def held_for_itself(info: InstanceInfo) -> str | None:
    """Return why an instance is held; ``None``: it is not, or only lacks an activity."""
    lacking = {activity.held_reason for activity in info.pending_activities}
    return None if info.held_reason in lacking else info.held_reason


def _shown(wait: object) -> str:
    kind = str(getattr(wait, "kind", "something"))
    name = getattr(wait, "name", None)
    until = getattr(wait, "until", None)
    child = getattr(wait, "instance_id", None)
    text = kind if not name else f"{kind} {name!r}"
    if child:
        text += f" ({child})"
    return text if until is None else f"{text} until {until.isoformat()}"
