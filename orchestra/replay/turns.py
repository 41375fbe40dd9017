"""What goes into a turn, and what comes out of it."""

from __future__ import annotations

from typing import Any, Final

from orchestra.codec import Payload
from orchestra.errors import Attempt, ErrorInfo
from orchestra.events import (
    ActivityScheduled,
    CancelSent,
    ChildStarted,
    DetachedStarted,
    EventRecord,
    EventSent,
    TerminalEvent,
)
from orchestra.frozen import frozen
from orchestra.store.kinds import HoldKind
from orchestra.store.messages import MessageRow, QueueName
from orchestra.store.outcomes import RefusedSend
from orchestra.store.requests import RequestAnswer

__all__ = [
    "ACTIVITY_CANCELLED",
    "NO_EXTRAS",
    "SESSION_LOST",
    "ActivityDied",
    "ActivityDone",
    "Identity",
    "Input",
    "LogEntry",
    "SetAside",
    "Turn",
    "TurnExtras",
    "TurnHeld",
]


ACTIVITY_CANCELLED: Final = ErrorInfo(
    "orchestra.ActivityCancelled", "it was cancelled before it had ended"
)
"""The error of a cancelled activity whose end the code waits for."""

SESSION_LOST: Final = "orchestra.SessionLost"
"""The type of the error of an activity that is lost with the node of its session."""


@frozen
class Identity:
    """Identifies an execution, and the version that it runs on."""

    instance_id: str
    incarnation: str
    execution: int
    name: str
    version: str

    @property
    def seed(self) -> str:
        """The seed of ``uuid4`` and ``random``. It differs for each execution, also of an id that
        was deleted and started again.
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
    """A log entry of orchestration code. It is written once the turn is committed."""

    level: int
    message: str
    fields: dict[str, Any]


class TurnHeld(Exception):
    """A turn has come to a hold, not to an end. Nothing that it has decided is stored (rule 39).

    ``kind`` and ``detail`` are the hold's. ``error`` is what the code has raised.
    """

    def __init__(self, kind: HoldKind, detail: str, error: ErrorInfo) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.error = error


@frozen
class SetAside:
    """An event that the code awaits and cannot decode, and why."""

    message: MessageRow
    reason: str


@frozen
class TurnExtras:
    """What few turns decide. Others share :data:`NO_EXTRAS`: a plain turn pays for none of it.

    Activities: ``cancelled`` are the event ids of those of earlier turns that were cancelled.
    ``stopping`` are cancelled ones of earlier turns whose ends the code waits for.

    Children: ``started`` are new children and detached starts, also of an execution that has ended.
    Children that were given up in the same turn are not among them. ``recalled`` are children of
    earlier turns that were given up.

    ``set_aside`` are messages that do not decode. ``patches`` are the marks that the turn has
    recorded. ``labels`` are those that it has set; ``None``: removed. ``answers`` are those that it
    has given to requests. ``published`` are the values that it has published, with their streams,
    in order.

    ``sent`` goes to other instances, also from an execution that has ended. ``refused`` are sends
    of earlier turns that were refused, and whose refusal no code awaits.
    """

    cancelled: tuple[int, ...] = ()
    stopping: tuple[int, ...] = ()
    started: tuple[ChildStarted | DetachedStarted, ...] = ()
    recalled: tuple[ChildStarted, ...] = ()
    logs: tuple[LogEntry, ...] = ()
    custom_status: Payload | None = None
    set_aside: tuple[SetAside, ...] = ()
    patches: tuple[str, ...] = ()
    labels: tuple[tuple[str, str | None], ...] = ()
    answers: tuple[RequestAnswer, ...] = ()
    published: tuple[tuple[str, Payload], ...] = ()
    sent: tuple[EventSent | CancelSent, ...] = ()
    refused: tuple[RefusedSend, ...] = ()


NO_EXTRAS: Final = TurnExtras()


@frozen
class Turn:
    """What a step of an execution has decided: what to store, and what to do after that.

    Activities: ``scheduled`` are new and still wanted at the turn's end. ``completed`` are the
    event ids of those that have ended or were cancelled.

    Messages: ``received`` were delivered, or are late ends of children. ``consumed`` are the
    sequence numbers of both, and of those that were set aside. ``to_read`` are awaited names of
    which the store may have messages that are not in memory. The turn has stopped before them, and
    has not taken the inputs in ``left``.

    ``fired`` says when the fired timers were due.
    """

    events: tuple[EventRecord, ...]
    ending: TerminalEvent | None
    scheduled: tuple[ActivityScheduled, ...] = ()
    completed: tuple[int, ...] = ()
    consumed: tuple[int, ...] = ()
    fired: tuple[int, ...] = ()
    received: tuple[MessageRow, ...] = ()
    extras: TurnExtras = NO_EXTRAS
    to_read: tuple[QueueName, ...] = ()
    left: tuple[Input, ...] = ()
