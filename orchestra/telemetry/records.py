"""The engine's records of steps: made while a step runs, recorded after its commit. A refused step
is never recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from orchestra.errors import ErrorInfo

__all__ = [
    "AsideRecord",
    "EndRecord",
    "HoldRecord",
    "Record",
    "RefusedSendRecord",
    "RequestsRecord",
    "Root",
    "Subject",
    "TurnRecord",
]


class Subject(Protocol):
    """The execution of a record."""

    @property
    def instance_id(self) -> str: ...

    @property
    def execution(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...


class Root(Protocol):
    """The first span of an execution. It begins before the commit, because its ids are stored, and
    ends only after it.
    """

    @property
    def traceparent(self) -> str: ...


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """A turn that wrote something. ``begun`` is nanoseconds UTC; store times (``due``) are
    microseconds.

    ``opened``: it is the execution's first turn. ``root`` is then its span, if there are spans, and
    ``previous_version`` the version before the boundary, if any, and ``migrations`` are those that
    its state has passed. ``traceparent`` is the
    execution's. ``messages`` are the traceparents of received events, ``children`` those of
    children that ended. ``fired`` are due times of timers, ``attempts`` the (activity, attempts) of
    ended activities.
    """

    subject: Subject
    begun: int
    seconds: float
    events: int
    traceparent: str | None
    opened: bool = False
    root: Root | None = None
    previous_version: str | None = None
    migrations: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    fired: tuple[int, ...] = ()
    attempts: tuple[tuple[str, int], ...] = ()
    outcome: str | None = None
    error: ErrorInfo | None = None
    lap_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class EndRecord:
    """An instance that ended without a turn."""

    subject: Subject
    outcome: str


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """An instance that was held."""

    subject: Subject
    reason: str


@dataclass(frozen=True, slots=True)
class AsideRecord:
    """Events that an instance's code could not decode, and that were set aside."""

    subject: Subject
    count: int


@dataclass(frozen=True, slots=True)
class RefusedSendRecord:
    """An event or a cancel for another instance that was refused, and whose refusal no code
    awaited.
    """

    subject: Subject
    reason: str


@dataclass(frozen=True, slots=True)
class RequestsRecord:
    """Requests that a turn was given, and requests that it has answered. Times are the store's.

    ``given`` are their names, and when each was sent; ``answered`` their names, when code was given
    each of them, and ``replied`` or ``rejected``.
    """

    subject: Subject
    given: tuple[tuple[str, int], ...]
    answered: tuple[tuple[str, int, str], ...]


Record = TurnRecord | EndRecord | HoldRecord | AsideRecord | RefusedSendRecord | RequestsRecord
