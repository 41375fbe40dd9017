"""What goes into a turn, and what comes out of it."""

from __future__ import annotations

from typing import Any

from orchestra.codec import Payload
from orchestra.errors import Attempt, ErrorInfo
from orchestra.events import (
    ActivityScheduled,
    ChildStarted,
    DetachedStarted,
    EventRecord,
    TerminalEvent,
)
from orchestra.frozen import frozen
from orchestra.store.kinds import HoldKind
from orchestra.store.messages import MessageRow

__all__ = ["ActivityDied", "ActivityDone", "Identity", "Input", "LogEntry", "Turn", "TurnHeld"]


@frozen
class Identity:
    """Which execution of which instance runs on which version."""

    instance_id: str
    incarnation: str
    execution: int
    name: str
    version: str

    @property
    def seed(self) -> str:
        """What uuid4 and random are derived from: differs for each execution, also of a deleted and
        restarted id.
        """
        return f"{self.incarnation}/{self.execution}"


@frozen
class ActivityDone:
    """An activity has returned. ``at`` is when the node learned it."""

    source: int
    at: int
    attempt: int
    result: Payload


@frozen
class ActivityDied:
    """An activity has failed for good. ``attempts`` are its last tries."""

    source: int
    at: int
    cause: ErrorInfo
    attempts: tuple[Attempt, ...]
    reason: str


Input = ActivityDone | ActivityDied


@frozen
class LogEntry:
    """A message of orchestration code, to be written once the turn is committed."""

    level: int
    message: str
    fields: dict[str, Any]


class TurnHeld(Exception):
    """A turn has come to what holds its instance, not to an end. Nothing that it has decided is
    stored (rule 39).

    ``kind`` and ``detail`` are those of the hold, ``error`` what was raised.
    """

    def __init__(self, kind: HoldKind, detail: str, error: ErrorInfo) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.error = error


@frozen
class Turn:
    """One step of an execution: what is to be stored, and what is to be done after that.

    ``scheduled`` are activities that were asked for and are still wanted at the turn's end;
    ``cancelled`` the event ids of activities of earlier turns that are not wanted any more;
    ``settled`` those of all activities that have ended or were cancelled; ``consumed`` the sequence
    numbers of delivered messages, and of ends of children that nobody waits for any more; ``fired``
    when the timers were due that have fired. ``started`` are the children and detached starts that
    were asked for, also by an execution that has ended; without those children that were given up
    in the same turn. ``recalled`` are children of earlier turns that are not wanted any more.

    ``received`` are the messages that were consumed. ``wants`` are names that the code waits for,
    and of which the store may have messages that are not in memory. The turn has stopped before
    them; ``left`` are the inputs that it has not taken.
    """

    events: tuple[EventRecord, ...]
    scheduled: tuple[ActivityScheduled, ...]
    cancelled: tuple[int, ...]
    settled: tuple[int, ...]
    consumed: tuple[int, ...]
    logs: tuple[LogEntry, ...]
    custom_status: Payload | None
    ending: TerminalEvent | None
    fired: tuple[int, ...] = ()
    started: tuple[ChildStarted | DetachedStarted, ...] = ()
    recalled: tuple[ChildStarted, ...] = ()
    received: tuple[MessageRow, ...] = ()
    wants: tuple[str, ...] = ()
    left: tuple[Input, ...] = ()
    asked: tuple[int, ...] = ()
    """Activities of earlier turns that are to end, and whose ends are waited for."""
