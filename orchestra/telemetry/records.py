"""What the engine tells of a step: made while it runs, told once its write stands. A step that is
refused is never told of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from orchestra.errors import ErrorInfo

__all__ = ["EndRecord", "HoldRecord", "Record", "Root", "Subject", "TurnRecord"]


class Subject(Protocol):
    """Which execution something is told of."""

    @property
    def instance_id(self) -> str: ...

    @property
    def execution(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...


class Root(Protocol):
    """The first span of an execution: begun before the commit, for its ids are stored; ended only
    if the commit stands.
    """

    @property
    def traceparent(self) -> str: ...


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """A turn that wrote something. ``begun`` is nanoseconds UTC; store times (``due``) are
    microseconds.

    ``opened`` says that it is the execution's first; ``root`` is then its span, where there are
    spans, and ``previous_version`` the version before the boundary, if there was one.
    ``traceparent`` is the execution's. ``messages`` are the traceparents of the events that it took
    in, ``children`` those of the children whose ends it took in, ``fired`` the due times of timers,
    ``attempts`` (activity, attempts) of those that ended.
    """

    subject: Subject
    begun: int
    seconds: float
    events: int
    traceparent: str | None
    opened: bool = False
    root: Root | None = None
    previous_version: str | None = None
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


Record = TurnRecord | EndRecord | HoldRecord
