"""The events of an execution's history, and their stored forms.

A history is a strict alternation. An *input* event says what happened: the execution started, an
activity completed, a timer fired, a message arrived, a cancel was delivered. The *command* events
after it say what the code asked for until it waited again. Replay feeds the inputs and compares the
commands with the code. The last event of a finished execution is its *terminal* event.

The stored form keeps an event's own facts (the envelope) apart from user data (the payload). A
provider looks into neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from enum import IntEnum
from typing import Any, ClassVar, Final, Literal, TypeVar

from orchestra.clock import from_micros, to_micros
from orchestra.codec import (
    SEALED,
    Packed,
    Payload,
    pack,
    pack_value,
    require_opened,
    require_opened_facts,
    unpack,
)
from orchestra.codec.sealed import SEAL
from orchestra.errors import Attempt, ErrorInfo, HistoryCorrupt, RegistrationError
from orchestra.frozen import frozen
from orchestra.levels import BASE_LEVEL, Kinds, Stored, Unknown
from orchestra.retry import RetryPolicy

__all__ = [
    "EVENTS",
    "FORMAT",
    "ActivityCompleted",
    "ActivityFailedEvent",
    "ActivityScheduled",
    "BoundaryRequested",
    "CancelRequested",
    "CancelSent",
    "ChildAwaited",
    "ChildCompleted",
    "ChildEnded",
    "ChildFailedEvent",
    "ChildStarted",
    "CommandCancelled",
    "CommandEvent",
    "ContinuedAsNew",
    "DetachedStarted",
    "Event",
    "EventAwaited",
    "EventForms",
    "EventKind",
    "EventReceived",
    "EventRecord",
    "EventSent",
    "EventWriter",
    "ExecutionCancelled",
    "ExecutionCompleted",
    "ExecutionFailed",
    "ExecutionRewound",
    "ExecutionStarted",
    "ExecutionTerminated",
    "InputEvent",
    "OnCancel",
    "OnParentClose",
    "Patched",
    "RequestAwaited",
    "RequestReceived",
    "SendDelivered",
    "SendRefused",
    "TerminalEvent",
    "TimerCreated",
    "TimerFired",
    "UnknownEvent",
    "Wire",
    "from_record",
    "incarnation_of",
    "require_opened_history",
    "to_record",
]

T = TypeVar("T")

FORMAT: Final = 1
"""The event format that every library reads. Executions without events are routed by it."""


class OnParentClose(IntEnum):
    """What happens to an open child when its parent's execution closes."""

    ABANDON = 0
    CANCEL = 1
    TERMINATE = 2
    KEEP = 3
    """It goes on, and its end goes to the instance, whichever execution that has then."""


class OnCancel(IntEnum):
    """What the caller of a cancelled activity does: go on at once (also in histories without this
    field), or after its end.
    """

    ABANDON = 0
    AS_FITS = 1
    """A cancel of the instance waits; the loser of a race, and branches that fall with a failed
    one, are abandoned.
    """
    WAIT = 2


class EventKind(IntEnum):
    """The stored number of an event's kind. Never reused; 11 to 19 are for children."""

    EXECUTION_STARTED = 1
    ACTIVITY_SCHEDULED = 2
    ACTIVITY_COMPLETED = 3
    ACTIVITY_FAILED = 4
    TIMER_CREATED = 5
    TIMER_FIRED = 6
    EVENT_AWAITED = 7
    EVENT_RECEIVED = 8
    COMMAND_CANCELLED = 9
    CANCEL_REQUESTED = 10
    CHILD_STARTED = 11
    CHILD_COMPLETED = 12
    CHILD_FAILED = 13
    DETACHED_STARTED = 14
    EXECUTION_COMPLETED = 20
    EXECUTION_FAILED = 21
    EXECUTION_CANCELLED = 22
    EXECUTION_TERMINATED = 23
    CONTINUED_AS_NEW = 24
    EXECUTION_REWOUND = 25
    BOUNDARY_REQUESTED = 26
    PATCHED = 27
    REQUEST_AWAITED = 28
    REQUEST_RECEIVED = 29
    EVENT_SENT = 31
    CANCEL_SENT = 32
    SEND_DELIVERED = 33
    SEND_REFUSED = 34
    CHILD_AWAITED = 35
    CHILD_ENDED = 36


_LEVELS: Final[Mapping[Stored, int]] = {
    EventKind.EXECUTION_REWOUND.value: 2,
    EventKind.BOUNDARY_REQUESTED.value: 2,
    EventKind.PATCHED.value: 2,
    EventKind.REQUEST_AWAITED.value: 3,
    EventKind.REQUEST_RECEIVED.value: 3,
    EventKind.EVENT_SENT.value: 3,
    EventKind.CANCEL_SENT.value: 3,
    EventKind.SEND_DELIVERED.value: 3,
    EventKind.SEND_REFUSED.value: 3,
    EventKind.CHILD_AWAITED.value: 3,
    EventKind.CHILD_ENDED.value: 3,
}
"""The levels of the kinds that came after the first library."""


@frozen
class EventRecord:
    """A stored event. ``at`` is microseconds UTC; ``id`` counts from 1 within the execution."""

    id: int
    kind: int
    at: int
    format: int
    envelope: bytes
    payload: Payload | None = None

    @property
    def size(self) -> int:
        """The bytes that count towards an execution's limit."""
        return len(self.envelope) + (0 if self.payload is None else len(self.payload.data))


@frozen
class Event:
    """The common fields: the number within the execution, and the time (microseconds UTC)."""

    kind: ClassVar[EventKind]
    id: int
    at: int


@frozen
class UnknownEvent(Event):
    """An event that a newer library wrote and this one cannot read. ``what`` names the unknown
    part.
    """

    what: Unknown


@frozen
class InputEvent(Event):
    """Something that happened to the execution."""


@frozen
class CommandEvent(Event):
    """A command of the code."""


@frozen
class TerminalEvent(Event):
    """How the execution ended."""


@frozen
class ExecutionStarted(InputEvent):
    """The first event: the execution, its code and its input. ``seed`` feeds uuid4 and random.

    From ``suggest_events`` events or ``suggest_bytes`` bytes on, a boundary is suggested to the
    code. They are recorded, so a deploy with other settings changes no earlier answer.
    """

    kind: ClassVar[EventKind] = EventKind.EXECUTION_STARTED
    instance_id: str
    incarnation: str
    execution: int
    name: str
    version: str
    seed: str
    suggest_events: int
    suggest_bytes: int
    input: Payload
    is_exact: bool = False
    """Whether it refuses inexact values; older libraries changed them silently."""
    written_by: str | None = None
    """The version that wrote the state, where ``migrations`` have changed it."""
    migrations: tuple[str, ...] = ()
    """The migrations that the state has passed; ``input`` is what they have made of it."""


@frozen
class ActivityScheduled(CommandEvent):
    """The code scheduled an activity. Times are microseconds; the policy is the one of that
    moment.
    """

    kind: ClassVar[EventKind] = EventKind.ACTIVITY_SCHEDULED
    name: str
    arguments: Payload
    retry: RetryPolicy
    timeout: int | None
    heartbeat_timeout: int | None
    queue: str | None = None
    """Its queue; ``None``: the instance's."""
    on_cancel: OnCancel = OnCancel.ABANDON


@frozen
class ActivityCompleted(InputEvent):
    kind: ClassVar[EventKind] = EventKind.ACTIVITY_COMPLETED
    source: int
    attempt: int
    result: Payload


@frozen
class ActivityFailedEvent(InputEvent):
    """An activity has failed for good. ``attempts`` are the last of its ``tries``."""

    kind: ClassVar[EventKind] = EventKind.ACTIVITY_FAILED
    source: int
    cause: ErrorInfo
    attempts: tuple[Attempt, ...]
    reason: str
    tries: int


@frozen
class TimerCreated(CommandEvent):
    kind: ClassVar[EventKind] = EventKind.TIMER_CREATED
    due: int


@frozen
class TimerFired(InputEvent):
    kind: ClassVar[EventKind] = EventKind.TIMER_FIRED
    source: int


@frozen
class EventAwaited(CommandEvent):
    """The code waits for a message of this name."""

    kind: ClassVar[EventKind] = EventKind.EVENT_AWAITED
    name: str


@frozen
class EventReceived(InputEvent):
    """Message ``sequence`` of the inbox was delivered to the wait ``source``."""

    kind: ClassVar[EventKind] = EventKind.EVENT_RECEIVED
    source: int
    name: str
    sequence: int
    payload: Payload


@frozen
class ChildStarted(CommandEvent):
    """The code started a child. ``version`` is the call's; the child's own row has the resolved
    one.
    """

    kind: ClassVar[EventKind] = EventKind.CHILD_STARTED
    name: str
    version: str | None
    child_id: str
    on_parent_close: OnParentClose
    input: Payload
    queue: str | None = None
    """Its queue; ``None``: its parent's."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    if_ended: str | None = None
    """Whether an ended instance with the id begins again: ``restart``, ``restart_if_failed``."""


@frozen
class ChildCompleted(InputEvent):
    kind: ClassVar[EventKind] = EventKind.CHILD_COMPLETED
    source: int
    result: Payload


@frozen
class ChildFailedEvent(InputEvent):
    """A child ended without completing (``status``: failed, cancelled or terminated), or could not
    be started.
    """

    kind: ClassVar[EventKind] = EventKind.CHILD_FAILED
    source: int
    status: str
    cause: ErrorInfo


@frozen
class ChildAwaited(CommandEvent):
    """The code waits for the end of a background child, which this execution or an earlier one has
    started. ``link`` is the command that did, ``name`` the child's orchestration.
    """

    kind: ClassVar[EventKind] = EventKind.CHILD_AWAITED
    name: str
    child_id: str
    link: str


@frozen
class ChildEnded(InputEvent):
    """The end of a background child was given to the wait ``source``.

    ``status`` is completed, failed, cancelled or terminated; message ``sequence`` of the inbox has
    told it. Or it is ``lost``, without a message: the child belongs to another life.
    """

    kind: ClassVar[EventKind] = EventKind.CHILD_ENDED
    source: int
    child_id: str
    link: str
    status: str
    sequence: int
    result: Payload | None = None
    cause: ErrorInfo | None = None


@frozen
class DetachedStarted(CommandEvent):
    """The code started a detached instance."""

    kind: ClassVar[EventKind] = EventKind.DETACHED_STARTED
    name: str
    version: str | None
    child_id: str
    input: Payload
    queue: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    if_ended: str | None = None
    """Whether an ended instance with the id begins again: ``restart``, ``restart_if_failed``."""


@frozen
class CommandCancelled(CommandEvent):
    """A pending activity, timer, wait or child was cancelled: it lost a race, or its branch was
    cancelled.
    """

    kind: ClassVar[EventKind] = EventKind.COMMAND_CANCELLED
    source: int


@frozen
class CancelRequested(InputEvent):
    """The instance's cancel mark was delivered to the root."""

    kind: ClassVar[EventKind] = EventKind.CANCEL_REQUESTED
    reason: str


@frozen
class BoundaryRequested(InputEvent):
    """An operator, or a boundary that was due, asks the execution to reach its boundary soon.

    ``requested_at`` is when that was (microseconds UTC), and ``by`` who has asked.
    """

    kind: ClassVar[EventKind] = EventKind.BOUNDARY_REQUESTED
    requested_at: int
    by: str
    reason: str


@frozen
class Patched(CommandEvent):
    """The code came first to the branch ``patch``, and took the new way.

    Replay finds it by its id, and not by its place. The code may ask again, or stop asking.
    """

    kind: ClassVar[EventKind] = EventKind.PATCHED
    patch: str


@frozen
class RequestAwaited(CommandEvent):
    """The code waits for a request of this name."""

    kind: ClassVar[EventKind] = EventKind.REQUEST_AWAITED
    name: str


@frozen
class RequestReceived(InputEvent):
    """Request ``request_id``, message ``sequence`` of the inbox, was given to the wait ``source``.

    The message stays in the inbox until it is answered. An answer is no event: it stands in the
    request's row, and replay repeats the call that gave it without any effect.
    """

    kind: ClassVar[EventKind] = EventKind.REQUEST_RECEIVED
    source: int
    name: str
    sequence: int
    request_id: str
    payload: Payload


@frozen
class EventSent(CommandEvent):
    """The code sent an event to an instance."""

    kind: ClassVar[EventKind] = EventKind.EVENT_SENT
    target: str
    name: str
    payload: Payload


@frozen
class CancelSent(CommandEvent):
    """The code asked an instance to stop."""

    kind: ClassVar[EventKind] = EventKind.CANCEL_SENT
    target: str
    reason: str


@frozen
class SendDelivered(InputEvent):
    """The event or the cancel ``source`` is stored with its target."""

    kind: ClassVar[EventKind] = EventKind.SEND_DELIVERED
    source: int


@frozen
class SendRefused(InputEvent):
    """The event or the cancel ``source`` was refused.

    ``reason`` is ``not found``, ``closed`` or ``full``. For a full inbox ``bound`` says which limit
    it has met (``messages`` or ``bytes``), and ``of_name`` whether that is one name's part.
    """

    kind: ClassVar[EventKind] = EventKind.SEND_REFUSED
    source: int
    reason: str
    bound: Literal["messages", "bytes"] | None = None
    limit: int = 0
    waiting: int = 0
    of_name: bool = False


@frozen
class ExecutionCompleted(TerminalEvent):
    kind: ClassVar[EventKind] = EventKind.EXECUTION_COMPLETED
    output: Payload


@frozen
class ExecutionFailed(TerminalEvent):
    kind: ClassVar[EventKind] = EventKind.EXECUTION_FAILED
    error: ErrorInfo


@frozen
class ExecutionCancelled(TerminalEvent):
    kind: ClassVar[EventKind] = EventKind.EXECUTION_CANCELLED
    reason: str


@frozen
class ExecutionTerminated(TerminalEvent):
    kind: ClassVar[EventKind] = EventKind.EXECUTION_TERMINATED
    reason: str


@frozen
class ExecutionRewound(TerminalEvent):
    """An operator has ended the execution. The next one begins from the state of execution
    ``to``.
    """

    kind: ClassVar[EventKind] = EventKind.EXECUTION_REWOUND
    to: int
    by: str
    reason: str


@frozen
class ContinuedAsNew(TerminalEvent):
    """The execution ended at its boundary. ``version`` is the call's, if it named one."""

    kind: ClassVar[EventKind] = EventKind.CONTINUED_AS_NEW
    version: str | None
    state: Payload


# --- the stored form --------------------------------------------------------------------------


def error_to_wire(error: ErrorInfo) -> list[Any]:
    """Return an error as JSON values: a list of three, with a fourth for causes, members or
    details.

    Errors become bytes here only, and only :func:`error_from_wire` reads them.
    """
    wire: list[Any] = [error.type, error.message, error.traceback]
    nested: dict[str, Any] = {}
    if error.cause is not None:
        nested["cause"] = error_to_wire(error.cause)
    if error.context is not None:
        nested["context"] = error_to_wire(error.context)
    if error.members:
        nested["members"] = [error_to_wire(member) for member in error.members]
    if error.omitted:
        nested["omitted"] = error.omitted
    if error.details is not None:
        nested["details"] = error.details
    return [*wire, nested] if nested else wire


def error_from_wire(wire: list[Any]) -> ErrorInfo:
    """Return the error that :func:`error_to_wire` of this library or an older one wrote."""
    if len(wire) < 4:
        return ErrorInfo(wire[0], wire[1], wire[2])
    nested: dict[str, Any] = wire[3]
    return ErrorInfo(
        wire[0],
        wire[1],
        wire[2],
        error_from_wire(nested["cause"]) if "cause" in nested else None,
        error_from_wire(nested["context"]) if "context" in nested else None,
        tuple(error_from_wire(member) for member in nested.get("members", ())),
        nested.get("omitted", 0),
        nested.get("details"),
    )


def error_to_bytes(error: ErrorInfo) -> Packed:
    """Return the bytes of an error for the row of an ended execution, and for the message to its
    parent.
    """
    return pack_value({"error": error_to_wire(error)})


def error_from_bytes(data: bytes) -> ErrorInfo:
    """Return the error that :func:`error_to_bytes` wrote."""
    return error_from_wire(unpack(data)["error"])


def attempts_to_wire(attempts: tuple[Attempt, ...]) -> list[list[Any]]:
    """Return attempts as JSON values."""
    return [
        [attempt.number, to_micros(attempt.ended_at), error_to_wire(attempt.error)]
        for attempt in attempts
    ]


def attempts_from_wire(wire: list[list[Any]]) -> tuple[Attempt, ...]:
    """Return the attempts that :func:`attempts_to_wire` wrote."""
    return tuple(
        Attempt(number, from_micros(ended_at), error_from_wire(error))
        for number, ended_at, error in wire
    )


@frozen
class Wire:
    """The conversion of an event format's envelopes to bytes, and back."""

    pack: Callable[[Any], bytes] = pack
    unpack: Callable[[bytes], Any] = unpack


@frozen
class EventWriter:
    """Writes an execution's events, always in its format (protocol rule 38), and at one write level
    of the store.
    """

    format: int
    kinds: Mapping[EventKind, Any]
    on_cancel: Mapping[OnCancel, Any]
    on_parent_close: Mapping[OnParentClose, Any]
    pack: Callable[[Any], bytes]


class EventForms:
    """The event formats and kinds of a library, with their levels.

    Args:
        formats: by their numbers. A new one gets a line here.
        kinds: of events. A new one gets a line here, with its level, unless a new format brings it.
    """

    def __init__(
        self,
        formats: Mapping[int, Wire] | None = None,
        kinds: Kinds[EventKind] | None = None,
        on_cancel: Kinds[OnCancel] | None = None,
        on_parent_close: Kinds[OnParentClose] | None = None,
    ) -> None:
        self.formats: Mapping[int, Wire] = {FORMAT: Wire()} if formats is None else formats
        self.kinds: Kinds[EventKind] = kinds or Kinds(
            "event", {kind.value: kind for kind in EventKind}, _LEVELS
        )
        self.on_cancel: Kinds[OnCancel] = on_cancel or Kinds(
            "on_cancel", {kind.value: kind for kind in OnCancel}
        )
        self.on_parent_close: Kinds[OnParentClose] = on_parent_close or Kinds(
            "on_parent_close",
            {kind.value: kind for kind in OnParentClose},
            {OnParentClose.KEEP.value: 3},
        )
        self._levels = self.kinds.later_levels
        self._writers: dict[tuple[int, int], EventWriter] = {}

    def writer(self, event_format: int = FORMAT, level: int = BASE_LEVEL) -> EventWriter:
        """Return the writer for executions of a format, at a write level of the store."""
        known = self._writers.get((event_format, level))
        if known is None:
            cancels, closes = self.on_cancel.at(level), self.on_parent_close.at(level)
            known = EventWriter(
                event_format, self.kinds.at(level), cancels, closes, self.formats[event_format].pack
            )
            self._writers[event_format, level] = known
        return known

    def level(self, records: Sequence[EventRecord]) -> int:
        """Return the level that a library must read to continue after these events."""
        level, levels = BASE_LEVEL, self._levels
        for record in records:  # nearly all kinds are of the base level
            if record.kind in levels:
                level = max(level, levels[record.kind])
        return level


EVENTS: Final = EventForms()
"""The formats and kinds of this library."""

_WRITER: Final = EVENTS.writer()


class _NotKnown(Exception):
    """This library does not know a kind inside an envelope."""

    def __init__(self, what: Unknown) -> None:
        super().__init__(what)
        self.what = what


def to_record(event: Event, writer: EventWriter = _WRITER) -> EventRecord:
    """Return the stored form of an event."""
    envelope: dict[str, Any]
    payload: Payload | None = None
    match event:  # the most frequent kinds come first: they are tested one after the other
        case ActivityCompleted():
            envelope = {"source": event.source, "attempt": event.attempt}
            payload = event.result
        case ActivityScheduled():
            envelope = {
                "name": event.name,
                "retry": event.retry.to_wire(),
                "timeout": event.timeout,
                "heartbeat": event.heartbeat_timeout,
                **_queue(event),
                **(
                    {}
                    if event.on_cancel is OnCancel.ABANDON
                    else {"cancel": writer.on_cancel[event.on_cancel]}
                ),
            }
            payload = event.arguments
        case ExecutionStarted():
            envelope = {
                "instance": event.instance_id,
                "incarnation": event.incarnation,
                "execution": event.execution,
                "name": event.name,
                "version": event.version,
                "seed": event.seed,
                "suggest_events": event.suggest_events,
                "suggest_bytes": event.suggest_bytes,
                **({"exact": True} if event.is_exact else {}),
                **(
                    {"written_by": event.written_by, "migrations": event.migrations}
                    if event.migrations
                    else {}
                ),
            }
            payload = event.input
        case ExecutionCompleted():
            envelope = {}
            payload = event.output
        case ContinuedAsNew():
            envelope = {"version": event.version}
            payload = event.state
        case ActivityFailedEvent():
            envelope = {
                "source": event.source,
                "cause": error_to_wire(event.cause),
                "attempts": attempts_to_wire(event.attempts),
                "reason": event.reason,
                **({} if event.tries == len(event.attempts) else {"tries": event.tries}),
            }
        case TimerCreated():
            envelope = {"due": event.due}
        case TimerFired() | CommandCancelled():
            envelope = {"source": event.source}
        case EventAwaited():
            envelope = {"name": event.name}
        case EventReceived():
            envelope = {"source": event.source, "name": event.name, "sequence": event.sequence}
            payload = event.payload
        case ChildStarted():
            envelope = {
                "name": event.name,
                "version": event.version,
                "child": event.child_id,
                "on_parent_close": writer.on_parent_close[event.on_parent_close],
                **_queue(event),
                **_choices(event),
            }
            payload = event.input
        case DetachedStarted():
            envelope = {
                "name": event.name,
                "version": event.version,
                "child": event.child_id,
                **_queue(event),
                **_choices(event),
            }
            payload = event.input
        case ChildCompleted():
            envelope = {"source": event.source}
            payload = event.result
        case ChildFailedEvent():
            envelope = {
                "source": event.source,
                "status": event.status,
                "cause": error_to_wire(event.cause),
            }
        case CancelRequested() | ExecutionCancelled() | ExecutionTerminated():
            envelope = {"reason": event.reason}
        case ExecutionFailed():
            envelope = {"error": error_to_wire(event.error)}
        case ExecutionRewound():
            envelope = {"to": event.to, "by": event.by, "reason": event.reason}
        case Patched():
            envelope = {"patch": event.patch}
        case BoundaryRequested():
            envelope = {"at": event.requested_at, "by": event.by, "reason": event.reason}
        case _:
            envelope, payload = _later_kind(event)
    return EventRecord(
        event.id, writer.kinds[event.kind], event.at, writer.format, writer.pack(envelope), payload
    )


def _later_kind(event: Event) -> tuple[dict[str, Any], Payload | None]:
    """Return the envelope and the payload of an event whose kind came later."""
    match event:
        case RequestAwaited():
            return {"name": event.name}, None
        case RequestReceived():
            envelope = {
                "source": event.source,
                "name": event.name,
                "sequence": event.sequence,
                "request": event.request_id,
            }
            return envelope, event.payload
        case ChildAwaited():
            return {"name": event.name, "child": event.child_id, "link": event.link}, None
        case ChildEnded():
            ended: dict[str, Any] = {
                "source": event.source,
                "child": event.child_id,
                "link": event.link,
                "status": event.status,
                "sequence": event.sequence,
            }
            if event.cause is not None:
                ended["cause"] = error_to_wire(event.cause)
            return ended, event.result
        case _:
            return _form_of_send(event)


def _form_of_send(event: Event) -> tuple[dict[str, Any], Payload | None]:
    """Return the envelope and the payload of what an execution sends, and of its receipts."""
    match event:
        case EventSent():
            return {"target": event.target, "name": event.name}, event.payload
        case CancelSent():
            return {"target": event.target, "reason": event.reason}, None
        case SendDelivered():
            return {"source": event.source}, None
        case SendRefused():
            envelope: dict[str, Any] = {"source": event.source, "reason": event.reason}
            if event.bound is not None:
                envelope["full"] = [event.bound, event.limit, event.waiting, event.of_name]
            return envelope, None
        case _:  # pragma: no cover
            raise AssertionError(f"{type(event).__name__} has no stored form")


def require_opened_history(records: Iterable[EventRecord]) -> None:
    """Check that no value of a history is sealed: replay compares all of them.

    Raises:
        PayloadUnreadable: one is, and the reader cannot open it.
    """
    for record in records:
        if record.payload is not None and record.payload.encoding == SEALED:
            require_opened(record.payload, f"event {record.id} of the history")
        if record.envelope[:1] == SEAL:
            require_opened_facts(record.envelope, f"event {record.id} of the history")


def scheduled_name(record: EventRecord, forms: EventForms = EVENTS) -> str:
    """Return the activity that a record schedules, without reading its payload; "?" if its format
    is unknown here.
    """
    wire = forms.formats.get(record.format)
    return "?" if wire is None else _field(wire.unpack(record.envelope), "name", str)


def _choices(event: ChildStarted | DetachedStarted) -> dict[str, Any]:
    """Return the labels of a start and what it does with an ended instance, if it says so: a
    library that knows neither passes them over.
    """
    choices: dict[str, Any] = {"labels": dict(event.labels)} if event.labels else {}
    if event.if_ended is not None:
        choices["if_ended"] = event.if_ended
    return choices


def _queue(event: ActivityScheduled | ChildStarted | DetachedStarted) -> dict[str, str]:
    return {} if event.queue is None else {"queue": event.queue}


def from_record(record: EventRecord, forms: EventForms = EVENTS) -> Event:
    """Return the event of a record; an :class:`UnknownEvent` if a newer library wrote it.

    Raises:
        HistoryCorrupt: its envelope is damaged, or its payload is lost.
    """
    wire = forms.formats.get(record.format)
    if wire is None:
        return UnknownEvent(record.id, record.at, Unknown("event format", record.format))
    kind = forms.kinds.read(record.kind)
    if isinstance(kind, Unknown):
        return UnknownEvent(record.id, record.at, kind)
    try:
        return _read(kind, record, wire.unpack(record.envelope), forms)
    except _NotKnown as error:
        return UnknownEvent(record.id, record.at, error.what)
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        OverflowError,
        RegistrationError,
    ) as error:  # the last: a policy's bounds
        raise HistoryCorrupt(
            f"event {record.id} (kind {record.kind}) is damaged: {error!r}", event_id=record.id
        ) from error


def _known(kind: T | Unknown) -> T:
    if isinstance(kind, Unknown):
        raise _NotKnown(kind)
    return kind


def _read(
    kind: EventKind, record: EventRecord, envelope: dict[str, Any], forms: EventForms
) -> Event:
    number, at = record.id, record.at
    match kind:
        case EventKind.EXECUTION_STARTED:
            return ExecutionStarted(
                number,
                at,
                _field(envelope, "instance", str),
                _field(envelope, "incarnation", str),
                _field(envelope, "execution", int),
                _field(envelope, "name", str),
                _field(envelope, "version", str),
                _field(envelope, "seed", str),
                _field(envelope, "suggest_events", int),
                _field(envelope, "suggest_bytes", int),
                _payload(record),
                envelope.get("exact") is True,
                envelope.get("written_by"),
                tuple(envelope.get("migrations", ())),
            )
        case EventKind.ACTIVITY_SCHEDULED:
            return ActivityScheduled(
                number,
                at,
                _field(envelope, "name", str),
                _payload(record),
                RetryPolicy.from_wire(envelope["retry"]),
                _optional(envelope, "timeout", int),
                _optional(envelope, "heartbeat", int),
                envelope.get("queue"),
                _known(forms.on_cancel.read(envelope.get("cancel", OnCancel.ABANDON.value))),
            )
        case EventKind.ACTIVITY_COMPLETED:
            return ActivityCompleted(
                number,
                at,
                _field(envelope, "source", int),
                _field(envelope, "attempt", int),
                _payload(record),
            )
        case EventKind.ACTIVITY_FAILED:
            attempts = attempts_from_wire(envelope["attempts"])
            return ActivityFailedEvent(
                number,
                at,
                _field(envelope, "source", int),
                error_from_wire(envelope["cause"]),
                attempts,
                _field(envelope, "reason", str),
                # Old events lack the number: then the error's text counts, because code may have
                # recorded it.
                _field(envelope, "tries", int) if "tries" in envelope else len(attempts),
            )
        case EventKind.TIMER_CREATED:
            return TimerCreated(number, at, _field(envelope, "due", int))
        case EventKind.TIMER_FIRED:
            return TimerFired(number, at, _field(envelope, "source", int))
        case EventKind.EVENT_AWAITED:
            return EventAwaited(number, at, _field(envelope, "name", str))
        case EventKind.EVENT_RECEIVED:
            return EventReceived(
                number,
                at,
                _field(envelope, "source", int),
                _field(envelope, "name", str),
                _field(envelope, "sequence", int),
                _payload(record),
            )
        case EventKind.COMMAND_CANCELLED:
            return CommandCancelled(number, at, _field(envelope, "source", int))
        case (
            EventKind.CANCEL_REQUESTED
            | EventKind.EXECUTION_CANCELLED
            | EventKind.EXECUTION_TERMINATED
        ):
            return _REASONED[kind](number, at, _field(envelope, "reason", str))
        case (
            EventKind.CHILD_STARTED
            | EventKind.CHILD_COMPLETED
            | EventKind.CHILD_FAILED
            | EventKind.DETACHED_STARTED
            | EventKind.CHILD_AWAITED
            | EventKind.CHILD_ENDED
        ):
            return _read_of_child(kind, record, envelope, forms)
        case EventKind.BOUNDARY_REQUESTED:
            return BoundaryRequested(
                number,
                at,
                _field(envelope, "at", int),
                _field(envelope, "by", str),
                _field(envelope, "reason", str),
            )
        case EventKind.PATCHED:
            return Patched(number, at, _field(envelope, "patch", str))
        case EventKind.REQUEST_AWAITED:
            return RequestAwaited(number, at, _field(envelope, "name", str))
        case EventKind.REQUEST_RECEIVED:
            return RequestReceived(
                number,
                at,
                _field(envelope, "source", int),
                _field(envelope, "name", str),
                _field(envelope, "sequence", int),
                _field(envelope, "request", str),
                _payload(record),
            )
        case _:
            return _read_end(kind, record, envelope)


def _read_end(kind: EventKind, record: EventRecord, envelope: dict[str, Any]) -> Event:
    """Read an end, or what an execution sends."""
    number, at = record.id, record.at
    match kind:
        case EventKind.EXECUTION_COMPLETED:
            return ExecutionCompleted(number, at, _payload(record))
        case EventKind.EXECUTION_FAILED:
            return ExecutionFailed(number, at, error_from_wire(envelope["error"]))
        case EventKind.EXECUTION_REWOUND:
            return ExecutionRewound(
                number,
                at,
                _field(envelope, "to", int),
                _field(envelope, "by", str),
                _field(envelope, "reason", str),
            )
        case (
            EventKind.EVENT_SENT
            | EventKind.CANCEL_SENT
            | EventKind.SEND_DELIVERED
            | EventKind.SEND_REFUSED
        ):
            return _read_of_send(kind, record, envelope)
        case _:
            return ContinuedAsNew(number, at, _optional(envelope, "version", str), _payload(record))


_REASONED: Final = {
    kind.kind: kind for kind in (CancelRequested, ExecutionCancelled, ExecutionTerminated)
}


def _read_of_child(
    kind: EventKind, record: EventRecord, envelope: dict[str, Any], forms: EventForms
) -> Event:
    number, at = record.id, record.at
    match kind:
        case EventKind.CHILD_STARTED:
            return ChildStarted(
                number,
                at,
                _field(envelope, "name", str),
                _optional(envelope, "version", str),
                _field(envelope, "child", str),
                _known(forms.on_parent_close.read(envelope["on_parent_close"])),
                _payload(record),
                envelope.get("queue"),
                envelope.get("labels") or {},
                envelope.get("if_ended"),
            )
        case EventKind.CHILD_COMPLETED:
            return ChildCompleted(number, at, _field(envelope, "source", int), _payload(record))
        case EventKind.CHILD_FAILED:
            cause = error_from_wire(envelope["cause"])
            return ChildFailedEvent(
                number, at, _field(envelope, "source", int), _field(envelope, "status", str), cause
            )
        case EventKind.CHILD_AWAITED:
            return ChildAwaited(
                number,
                at,
                _field(envelope, "name", str),
                _field(envelope, "child", str),
                _field(envelope, "link", str),
            )
        case EventKind.CHILD_ENDED:
            status = _field(envelope, "status", str)
            return ChildEnded(
                number,
                at,
                _field(envelope, "source", int),
                _field(envelope, "child", str),
                _field(envelope, "link", str),
                status,
                _field(envelope, "sequence", int),
                _payload(record) if status == "completed" else None,
                error_from_wire(envelope["cause"]) if "cause" in envelope else None,
            )
        case _:
            return DetachedStarted(
                number,
                at,
                _field(envelope, "name", str),
                _optional(envelope, "version", str),
                _field(envelope, "child", str),
                _payload(record),
                envelope.get("queue"),
                envelope.get("labels") or {},
                envelope.get("if_ended"),
            )


def _read_of_send(kind: EventKind, record: EventRecord, envelope: dict[str, Any]) -> Event:
    number, at = record.id, record.at
    match kind:
        case EventKind.EVENT_SENT:
            target, name = _field(envelope, "target", str), _field(envelope, "name", str)
            return EventSent(number, at, target, name, _payload(record))
        case EventKind.CANCEL_SENT:
            target, reason = _field(envelope, "target", str), _field(envelope, "reason", str)
            return CancelSent(number, at, target, reason)
        case EventKind.SEND_DELIVERED:
            return SendDelivered(number, at, _field(envelope, "source", int))
        case _:
            source, reason = _field(envelope, "source", int), _field(envelope, "reason", str)
            bound, limit, waiting, of_name = envelope.get("full", (None, 0, 0, False))
            return SendRefused(number, at, source, reason, bound, limit, waiting, of_name)


def _field(envelope: dict[str, Any], key: str, kind: type[T]) -> T:
    value = envelope[key]
    if not isinstance(value, kind):
        raise TypeError(f"{key} is {value!r}")
    return value


def _optional(envelope: dict[str, Any], key: str, kind: type[T]) -> T | None:
    return None if envelope[key] is None else _field(envelope, key, kind)


def _payload(record: EventRecord) -> Payload:
    if record.payload is None:
        raise HistoryCorrupt(
            f"event {record.id} (kind {record.kind}) has lost its payload", event_id=record.id
        )
    return record.payload


def incarnation_of(records: Sequence[EventRecord], forms: EventForms = EVENTS) -> str | None:
    """Return the incarnation that a history belongs to; ``None``: it has no beginning that this
    library can read.
    """
    first = from_record(records[0], forms) if records else None
    return first.incarnation if isinstance(first, ExecutionStarted) else None
