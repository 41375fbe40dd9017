"""A history for people: its events as plain values, including unreadable ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from orchestra.client.values import Unreadable, shown
from orchestra.clock import from_micros
from orchestra.errors import HistoryCorrupt
from orchestra.events import (
    ActivityCompleted,
    ActivityFailedEvent,
    ActivityScheduled,
    BoundaryRequested,
    CancelRequested,
    CancelSent,
    ChildAwaited,
    ChildCompleted,
    ChildEnded,
    ChildFailedEvent,
    ChildStarted,
    CommandCancelled,
    ContinuedAsNew,
    DetachedStarted,
    Event,
    EventAwaited,
    EventReceived,
    EventRecord,
    EventSent,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionTerminated,
    Patched,
    RequestAwaited,
    RequestReceived,
    SendDelivered,
    SendRefused,
    TimerCreated,
    TimerFired,
    UnknownEvent,
    from_record,
)
from orchestra.levels import Unknown
from orchestra.store.kinds import THIS_LIBRARY, Library
from orchestra.store.routes import node_of

__all__ = ["HistoryEvent", "history_event"]


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One event of a history, for people. ``event_id`` counts from 1 within the execution.

    ``kind`` and the keys of ``details`` stay as they are from release to release, but for new ones:

    ====================  ======================================================================
    ``kind``              ``details``
    ====================  ======================================================================
    execution_started     instance_id, incarnation, execution_id, name, version, input
    activity_scheduled    name, arguments, queue, retry, timeout, heartbeat_timeout
    activity_completed    source, attempt, result
    activity_failed       source, error, attempts, tries, reason
    timer_created         due_at
    timer_fired           source
    event_awaited         name
    event_received        source, name, sequence, payload
    child_started         name, version, instance_id, queue, on_parent_close, input
    child_completed       source, result
    child_failed          source, status, error
    child_awaited         name, instance_id
    child_ended           source, instance_id, status, sequence, result, error
    detached_started      name, version, instance_id, queue, input
    command_cancelled     source
    cancel_requested      reason
    boundary_requested    requested_at, by, reason
    patched               patch
    request_awaited       name
    request_received      source, name, sequence, request_id, payload
    event_sent            instance_id, name, payload
    cancel_sent           instance_id, reason
    send_delivered        source
    send_refused          source, reason
    execution_completed   output
    execution_failed      error
    execution_cancelled   reason
    execution_terminated  reason
    execution_rewound     to, by, reason
    continued_as_new      version, state
    unknown               event
    ====================  ======================================================================

    An input that has passed migrations has ``written_by`` and ``migrations`` beside it. An activity
    of a session has the session's ``node``, and no queue.

    ``source`` is the ``event_id`` of what it answers, or gives up. Users' values are plain JSON
    values, instants are aware datetimes (UTC), durations are timedeltas; ``error`` is an
    :class:`~orchestra.errors.ErrorInfo`, ``attempts`` a tuple of
    :class:`~orchestra.errors.Attempt`, ``retry`` a :class:`~orchestra.RetryPolicy`. ``queue`` and
    ``version`` are ``None`` where the call named none. What cannot be read is an
    :class:`Unreadable` in its place; of an event that cannot be read at all it stands under
    ``event``, beside its ``payload`` if it has one.
    """

    event_id: int
    kind: str
    at: datetime
    details: Mapping[str, Any]

    @property
    def is_readable(self) -> bool:
        """Whether all of it could be read."""
        return not any(isinstance(detail, Unreadable) for detail in self.details.values())


def history_event(record: EventRecord, library: Library = THIS_LIBRARY) -> HistoryEvent:
    """Return the description of a stored event. Never fails."""
    try:
        event = from_record(record, library.events)
        details = _unknown(event, record) if isinstance(event, UnknownEvent) else _details(event)
    except HistoryCorrupt as error:
        details = {"event": Unreadable(str(error), record.size)}
        if record.payload is not None:
            details["payload"] = shown(record.payload)
    return HistoryEvent(record.id, _kind(record.kind, library), from_micros(record.at), details)


def _kind(number: int, library: Library) -> str:
    kind = library.events.kinds.read(number)
    return "unknown" if isinstance(kind, Unknown) else kind.name.lower()


def _unknown(event: UnknownEvent, record: EventRecord) -> dict[str, Any]:
    """Return the description of an event that only a newer library can read."""
    details: dict[str, Any] = {
        "event": Unreadable(f"event {event.id} has an {event.what}", record.size)
    }
    if record.payload is not None:
        details["payload"] = shown(record.payload)
    return details


def _details(event: Event) -> dict[str, Any]:
    match event:
        case ExecutionStarted():
            return {
                "instance_id": event.instance_id,
                "incarnation": event.incarnation,
                "execution_id": event.execution,
                "name": event.name,
                "version": event.version,
                "input": shown(event.input),
                **(
                    {"written_by": event.written_by, "migrations": event.migrations}
                    if event.migrations
                    else {}
                ),
            }
        case ActivityScheduled():
            node = node_of(event.queue)
            return {
                "name": event.name,
                "arguments": shown(event.arguments),
                "queue": None if node is not None else event.queue,
                **({} if node is None else {"node": node}),
                "retry": event.retry,
                "timeout": _duration(event.timeout),
                "heartbeat_timeout": _duration(event.heartbeat_timeout),
            }
        case ActivityCompleted():
            return {"source": event.source, "attempt": event.attempt, "result": shown(event.result)}
        case ActivityFailedEvent():
            failed = {
                "source": event.source,
                "error": event.cause,
                "attempts": event.attempts,
                "tries": event.tries,
            }
            return {**failed, "reason": event.reason}
        case TimerCreated():
            return {"due_at": from_micros(event.due)}
        case TimerFired() | CommandCancelled():
            return {"source": event.source}
        case EventAwaited() | RequestAwaited():
            return {"name": event.name}
        case EventReceived():
            received = {"source": event.source, "name": event.name, "sequence": event.sequence}
            return {**received, "payload": shown(event.payload)}
        case ChildStarted():
            return {
                **_started(event),
                "on_parent_close": event.on_parent_close.name.lower(),
                "input": shown(event.input),
            }
        case DetachedStarted():
            return {**_started(event), "input": shown(event.input)}
        case ChildCompleted():
            return {"source": event.source, "result": shown(event.result)}
        case ChildFailedEvent():
            return {"source": event.source, "status": event.status, "error": event.cause}
        case CancelRequested() | ExecutionCancelled() | ExecutionTerminated():
            return {"reason": event.reason}
        case BoundaryRequested():
            requested_at = from_micros(event.requested_at)
            return {"requested_at": requested_at, "by": event.by, "reason": event.reason}
        case Patched():
            return {"patch": event.patch}
        case _:
            return _details_of_send(event)


def _details_of_send(event: Event) -> dict[str, Any]:
    match event:
        case EventSent():
            return {
                "instance_id": event.target,
                "name": event.name,
                "payload": shown(event.payload),
            }
        case CancelSent():
            return {"instance_id": event.target, "reason": event.reason}
        case SendDelivered():
            return {"source": event.source}
        case SendRefused():
            return {"source": event.source, "reason": event.reason}
        case _:
            return _later_details(event)


def _later_details(event: Event) -> dict[str, Any]:
    """Return the details of an end, or of an event whose kind came later."""
    match event:
        case ExecutionCompleted():
            return {"output": shown(event.output)}
        case ExecutionFailed():
            return {"error": event.error}
        case ContinuedAsNew():
            return {"version": event.version, "state": shown(event.state)}
        case ExecutionRewound():
            return {"to": event.to, "by": event.by, "reason": event.reason}
        case ChildAwaited():
            return {"name": event.name, "instance_id": event.child_id}
        case ChildEnded():
            return {
                "source": event.source,
                "instance_id": event.child_id,
                "status": event.status,
                "sequence": event.sequence,
                "result": shown(event.result),
                "error": event.cause,
            }
        case RequestReceived():
            received = {"source": event.source, "name": event.name, "sequence": event.sequence}
            return {**received, "request_id": event.request_id, "payload": shown(event.payload)}
        case _:  # pragma: no cover
            raise AssertionError(f"{type(event).__name__} is not shown")


def _started(event: ChildStarted | DetachedStarted) -> dict[str, Any]:
    return {
        "name": event.name,
        "version": event.version,
        "instance_id": event.child_id,
        "queue": event.queue,
    }


def _duration(microseconds: int | None) -> timedelta | None:
    return None if microseconds is None else timedelta(microseconds=microseconds)
