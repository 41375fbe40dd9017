"""Convert rows of a database to this package's values, and back if that takes more than a
column.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar

from orchestra.codec import Packed, Payload, UserText, pack, pack_value, unpack
from orchestra.errors import LevelTooLow
from orchestra.events import EventRecord
from orchestra.levels import Unknown
from orchestra.store.audit import OperationRow, Record
from orchestra.store.census import OpenCode
from orchestra.store.changes import Start
from orchestra.store.executions import ExecutionDelta, ExecutionRow, Resolution, Rewind
from orchestra.store.instances import (
    CancelMark,
    HeldPage,
    HeldRow,
    Hold,
    InstanceRow,
    Nudge,
    OperatorHold,
    ParentLink,
    Pin,
    hold_in_force,
)
from orchestra.store.kinds import Dialect, ExecutionEnd, HoldKind, ResolvedBy, Status
from orchestra.store.messages import MessageRow
from orchestra.store.queries import Counted, CountedGroup, GroupBy, Standing
from orchestra.store.requests import RequestAnswer, RequestRow
from orchestra.store.routes import DEFAULT_QUEUE, Kind, Route
from orchestra.store.streams import Page, Published, StreamItemRow, StreamPage, StreamRow
from orchestra.store.tasks import ActivityRow, Task
from orchestra.versions import version_key

__all__ = [
    "EXECUTION_WIDTH",
    "INSTANCE_WIDTH",
    "MESSAGE_WIDTH",
    "activity_values",
    "answer_values",
    "closing_values",
    "detail_values",
    "event_values",
    "execution_values",
    "hold_from_bytes",
    "hold_to_bytes",
    "in_order",
    "is_same_pin",
    "message_values",
    "nudge_from_bytes",
    "nudge_to_bytes",
    "opening_values",
    "operator_hold_from_bytes",
    "operator_hold_to_bytes",
    "patches_values",
    "payload_values",
    "pin_from_bytes",
    "pin_to_bytes",
    "read_activity",
    "read_aside",
    "read_cancel",
    "read_counts",
    "read_event",
    "read_execution",
    "read_held_page",
    "read_instance",
    "read_message",
    "read_open_code",
    "read_operation",
    "read_payload",
    "read_queue",
    "read_request",
    "read_stream",
    "read_stream_page",
    "read_task",
    "record_to_bytes",
    "report_values",
    "request_values",
    "sortable_version",
    "stored_queue",
    "stream_item_values",
]

K = TypeVar("K")
Columns = tuple[Any, ...]

INSTANCE_WIDTH = 29
EXECUTION_WIDTH = 26
MESSAGE_WIDTH = 10
"""How many columns the providers' lists of columns have."""

sortable_version: Callable[[str], str] = lru_cache(maxsize=4096)(version_key)


# --- payloads ---------------------------------------------------------------------------------


def read_payload(data: bytes | None, encoding: int | None) -> Payload | None:
    """Return an optional payload from its two columns."""
    return None if data is None or encoding is None else Payload(data, encoding)


def payload_values(payload: Payload | None) -> tuple[bytes | None, int | None]:
    """Return the two columns of an optional payload."""
    return (None, None) if payload is None else (payload.data, payload.encoding)


# --- events and messages ----------------------------------------------------------------------


def read_event(columns: Columns) -> EventRecord:
    """Return an event from its columns."""
    number, kind, at, event_format, envelope, data, encoding = columns
    return EventRecord(number, kind, at, event_format, envelope, read_payload(data, encoding))


def event_values(instance_id: str, execution: int, event: EventRecord) -> Columns:
    """Return the columns of an event."""
    payload = event.payload
    if payload is None:
        return (
            instance_id,
            execution,
            event.id,
            event.kind,
            event.at,
            event.format,
            event.envelope,
            None,
            None,
        )
    return (
        instance_id,
        execution,
        event.id,
        event.kind,
        event.at,
        event.format,
        event.envelope,
        payload.data,
        payload.encoding,
    )


def read_message(columns: Columns, dialect: Dialect) -> MessageRow:
    """Return a message from its columns."""
    sequence, message_id, name, data, encoding, sent_at, kind, source, *sent = columns
    traceparent, sender = sent
    payload = Payload(data, encoding)
    read = dialect.library.messages.read(kind)
    return MessageRow(
        sequence, message_id, name, payload, sent_at, read, source, traceparent, sender
    )


def read_aside(columns: Columns) -> MessageRow:
    """Return a message that was set aside, from its columns without the instance."""
    sequence, message_id, sender, name, data, encoding, sent_at, traceparent, *aside = columns
    reason, aside_at = aside
    payload = Payload(data, encoding)
    return MessageRow(
        sequence,
        message_id,
        name,
        payload,
        sent_at,
        traceparent=traceparent,
        sender=sender,
        aside=UserText(reason),
        aside_at=aside_at,
    )


def request_values(instance_id: str, request: RequestRow) -> Columns:
    """Return the columns of a new request."""
    return (
        instance_id,
        request.request_id,
        request.incarnation,
        request.name,
        request.sequence,
        request.asked_at,
    )


def answer_values(instance_id: str, answer: RequestAnswer) -> Columns:
    """Return the columns of an answer, and its request."""
    data, encoding = (None, None) if answer.value is None else payload_values(answer.value)
    return (answer.at, data, encoding, answer.rejection, instance_id, answer.request_id)


def read_request(columns: Columns) -> RequestRow:
    """Return a request from its columns without the instance, and those of its answer."""
    request_id, incarnation, name, sequence, asked_at, *answered = columns
    answered_at, data, encoding, rejection = answered
    answer = None
    if answered_at is not None:
        value = read_payload(data, encoding)
        answer = RequestAnswer(request_id, sequence, value, rejection, answered_at)
    return RequestRow(request_id, incarnation, name, sequence, asked_at, answer)


def message_values(instance_id: str, message: MessageRow, dialect: Dialect) -> Columns:
    """Return the columns of a message."""
    payload = message.payload
    return (
        instance_id,
        message.sequence,
        message.message_id,
        message.name,
        payload.data,
        payload.encoding,
        message.sent_at,
        dialect.messages[_known(message.kind)],
        message.source,
        message.traceparent,
        message.sender,
    )


def in_order(reports: Sequence[MessageRow], events: Sequence[MessageRow]) -> tuple[MessageRow, ...]:
    """Return ends of children and events in the order of their arrival."""
    if not reports:
        return tuple(events)
    return tuple(sorted((*reports, *events), key=lambda message: message.sequence))


# --- streams ----------------------------------------------------------------------------------


def stream_item_values(instance_id: str, offset: int, item: Published) -> Columns:
    """Return the columns of an item of a stream."""
    return (
        instance_id,
        item.stream,
        offset,
        item.payload.data,
        item.payload.encoding,
        item.at,
        item.execution,
        item.event_id,
        item.attempt,
        item.number,
    )


def read_stream(columns: Columns) -> StreamRow:
    """Return a stream from its columns without the instance and the time of its first item."""
    return StreamRow(*columns)


def read_stream_page(rows: Iterable[Columns], page: Page, dialect: Dialect) -> StreamPage | None:
    """Return a page of a stream.

    Each row has the status of the instance, the stream, and an item with its columns from the
    offset on; a stream, or an item, that does not exist is ``None`` throughout. Rows are read until
    the page is full.
    """
    ended, stream = False, None
    items: list[StreamItemRow] = []
    size = 0
    found = False
    for status, *columns in rows:
        found = True
        if not items:
            ended = dialect.library.statuses.read(status) is not Status.OPEN
            stream = None if columns[0] is None else StreamRow(*columns[:5])
        offset, data, encoding, at, execution, event_id, attempt = columns[5:]
        if offset is None or data is None:
            break
        size += len(data)
        if items and size > page.bytes:
            break
        payload = Payload(data, encoding)
        items.append(StreamItemRow(offset, payload, at, execution, event_id, attempt))
    return StreamPage(ended, stream, tuple(items)) if found else None


# --- queues -----------------------------------------------------------------------------------


def stored_queue(queue: str) -> str:
    """Return the stored form of a queue: the default queue has no name, as in the first schema."""
    return "" if queue == DEFAULT_QUEUE else queue


def read_queue(stored: str) -> str:
    """Return the queue that :func:`stored_queue` wrote."""
    return stored or DEFAULT_QUEUE


# --- counts -----------------------------------------------------------------------------------


def read_counts(
    rows: Sequence[tuple[Any, ...]], group_by: Sequence[str], dialect: Dialect
) -> Counted:
    """Return the counts of groups. A row has the values of its group, its count, and the sum of
    all counts.
    """
    groups = tuple(
        CountedGroup(
            tuple(
                _read_group_value(key, value, dialect)
                for key, value in zip(group_by, row[:-2], strict=True)
            ),
            row[-2],
        )
        for row in rows
    )
    return Counted(rows[0][-1] if rows else 0, groups)


def _read_group_value(key: str, stored: Any, dialect: Dialect) -> Any:
    match key:
        case GroupBy.QUEUE:
            return read_queue(stored)
        case GroupBy.STATUS:
            status, standing = divmod(stored, 4)
            return (
                dialect.library.statuses.read(status),
                Standing(standing) if status == Status.OPEN else None,
            )
        case GroupBy.HELD:
            return None if stored is None else dialect.library.holds.read(stored)
        case _:
            return stored


# --- the audit --------------------------------------------------------------------------------


def read_operation(columns: Columns) -> OperationRow:
    """Return an entry of the audit from its columns and its key."""
    at, by, action, subject, detail, number = columns
    values = unpack(detail)
    reason = UserText(values.pop(_AUDITED_REASON, "") or values.pop(_OTHER_REASON, ""))
    return OperationRow(at, by, action, subject, values, str(number), reason)


def record_to_bytes(record: Record) -> bytes:
    """Return the stored details of an operator's act, with its reason."""
    values = record.detail
    return pack({**values, _AUDITED_REASON: record.reason} if record.reason else values)


_AUDITED_REASON: Final = "text"
"""The key of the reason of a change. Entries of a provider's own acts have it as ``reason``."""
_OTHER_REASON: Final = "reason"


# --- activities -------------------------------------------------------------------------------


def read_activity(columns: Columns) -> ActivityRow:
    """Return a remembered activity from its columns."""
    (
        execution,
        event_id,
        attempt,
        due,
        started_at,
        attempts,
        heartbeat,
        encoding,
        queue,
        name,
        owner,
        *end,
    ) = columns
    result, result_encoding, failure, stopping, paused, revision = end
    return ActivityRow(
        execution,
        event_id,
        attempt,
        due,
        started_at,
        attempts,
        read_payload(heartbeat, encoding),
        None if queue is None else Route(queue, name),
        owner,
        read_payload(result, result_encoding),
        failure,
        revision,
        bool(stopping),
        bool(paused),
    )


def activity_values(instance_id: str, activity: ActivityRow) -> Columns:
    """Return the columns of a remembered activity, without the fence, which the store sets."""
    return (
        instance_id,
        activity.execution,
        activity.event_id,
        activity.attempt,
        activity.due,
        activity.started_at,
        activity.attempts,
        *payload_values(activity.heartbeat),
        *(activity.route or (None, None)),
        activity.owner,
        *payload_values(activity.result),
        activity.failure,
        activity.stopping,
        activity.paused,
    )


def report_values(activity: ActivityRow) -> Columns:
    """Return the columns that a report or a stop mark changes of an activity."""
    heartbeat, result = payload_values(activity.heartbeat), payload_values(activity.result)
    return (
        *heartbeat,
        activity.owner,
        *result,
        activity.failure,
        activity.stopping,
        activity.paused,
        activity.revision,
    )


def read_task(columns: Columns) -> Task:
    """Return an activity that a node has taken from its columns."""
    (
        instance_id,
        incarnation,
        execution,
        event_id,
        revision,
        attempt,
        name,
        version,
        traceparent,
        *rest,
    ) = columns
    heartbeat, encoding, stopping, *event = rest
    return Task(
        instance_id,
        incarnation,
        execution,
        event_id,
        revision,
        attempt,
        name,
        version,
        read_event(tuple(event)),
        read_payload(heartbeat, encoding),
        traceparent,
        bool(stopping),
    )


# --- executions -------------------------------------------------------------------------------


def read_execution(columns: Columns, dialect: Dialect) -> ExecutionRow:
    """Return an execution from its columns."""
    (
        number,
        name,
        version,
        resolved_how,
        resolved_by,
        policy_revision,
        state,
        state_encoding,
        state_version,
        created_at,
        event_format,
        fingerprint,
        opened_at,
        closed_at,
        end,
        output,
        output_encoding,
        error,
        events,
        size,
        traceparent,
        state_shape,
        migrations,
        request_id,
        patches,
        rewind,
    ) = columns
    library = dialect.library
    return ExecutionRow(
        number=number,
        name=name,
        version=version,
        resolution=Resolution(library.resolutions.read(resolved_how), resolved_by, policy_revision),
        state=Payload(state, state_encoding),
        state_version=state_version,
        created_at=created_at,
        format=event_format,
        fingerprint=fingerprint,
        opened_at=opened_at,
        closed_at=closed_at,
        end=None if end is None else library.ends.read(end),
        output=read_payload(output, output_encoding),
        error=error,
        events=events,
        bytes=size,
        traceparent=traceparent,
        state_shape=state_shape,
        migrations=() if migrations is None else tuple(migrations.split()),
        request_id=request_id,
        patches=() if patches is None else tuple(patches.split()),
        rewind=None if rewind is None else _read_rewind(rewind),
    )


def execution_values(
    instance_id: str, row: ExecutionRow, dialect: Dialect, delta: ExecutionDelta | None = None
) -> Columns:
    """Return the columns of a new execution, opened by ``delta`` if the same write opens it."""
    if delta is None or delta.opened is None:
        opened_at, version, fingerprint, event_format, resolution, traceparent, migrations = (
            row.opened_at,
            row.version,
            row.fingerprint,
            row.format,
            row.resolution,
            row.traceparent,
            row.migrations,
        )
    else:
        opened_at, version, fingerprint, event_format, resolution, traceparent, migrations = (
            delta.opened.at,
            delta.opened.version,
            delta.opened.fingerprint,
            delta.opened.format,
            delta.opened.resolution,
            delta.traceparent,
            delta.opened.migrations,
        )
    return (
        instance_id,
        row.number,
        row.name,
        version,
        sortable_version(version),
        _stored_how(resolution.how, dialect),
        resolution.by,
        resolution.policy_revision,
        row.state.data,
        row.state.encoding,
        row.state_version,
        row.created_at,
        event_format,
        fingerprint,
        opened_at,
        row.closed_at,
        None if row.end is None else _stored_end(row.end, dialect),
        *payload_values(row.output),
        row.error,
        row.events,
        row.bytes,
        traceparent,
        row.state_shape,
        _stored_words(migrations) if migrations else None,
        row.request_id,
        _stored_words(row.patches) if row.patches else None,
        None if row.rewind is None else _stored_rewind(row.rewind),
    )


def opening_values(instance_id: str, delta: ExecutionDelta, dialect: Dialect) -> Columns | None:
    """Return the columns of an opened or retargeted execution; ``None``: neither."""
    opened, target = delta.opened, delta.opened or delta.retargeted
    if target is None:
        return None
    resolution = target.resolution
    return (
        None if opened is None else opened.at,
        target.version,
        sortable_version(target.version),
        None if opened is None else opened.fingerprint,
        None if opened is None else opened.format,
        _stored_how(resolution.how, dialect),
        resolution.by,
        resolution.policy_revision,
        delta.traceparent,
        None if opened is None else _stored_words(opened.migrations),
        instance_id,
        delta.number,
    )


def closing_values(instance_id: str, delta: ExecutionDelta, dialect: Dialect) -> Columns | None:
    """Return the columns of a closed execution; ``None``: it is open."""
    closing = delta.closed
    if closing is None:
        return None
    return (
        closing.at,
        _stored_end(closing.end, dialect),
        *payload_values(closing.output),
        closing.error,
        delta.event_count,
        delta.byte_count,
        instance_id,
        delta.number,
    )


def patches_values(instance_id: str, delta: ExecutionDelta) -> Columns:
    """Return the columns of an execution that has recorded marks of patches."""
    return _stored_words(delta.patches), instance_id, delta.number


def read_open_code(row: Sequence[Any], dialect: Dialect) -> OpenCode:
    """Return a group of open executions from its columns."""
    name, version, fingerprint, how, patches, oldest = row
    resolved = dialect.library.resolutions.read(how)
    return OpenCode(name, version, fingerprint or None, resolved, tuple(patches.split()), oldest)


def _stored_words(words: tuple[str, ...]) -> str | None:
    return " ".join(words) if words else None


def _stored_rewind(rewind: Rewind) -> bytes:
    undone = {str(number): sequences for number, sequences in rewind.undone}
    return pack({"to": rewind.to, "undone": undone})


def _read_rewind(data: bytes) -> Rewind:
    values = unpack(data)
    undone = values["undone"].items()
    return Rewind(
        values["to"], tuple((int(number), tuple(sequences)) for number, sequences in undone)
    )


def _stored_how(how: ResolvedBy | Unknown, dialect: Dialect) -> Any:
    return dialect.resolutions[_known(how)]


def _stored_end(end: ExecutionEnd | Unknown, dialect: Dialect) -> Any:
    return dialect.ends[_known(end)]


def _known(kind: K | Unknown) -> K:
    """Return a kind for writing. This library never writes an unknown kind (protocol rule 37)."""
    if isinstance(kind, Unknown):
        raise LevelTooLow(f"{kind} cannot be written by this library; a newer one has written it")
    return kind


# --- instances --------------------------------------------------------------------------------


def detail_values(start: Start) -> Columns:
    """Return the columns of the cold row that a start makes."""
    parent = start.parent
    link = (
        (None,) * 4
        if parent is None
        else (parent.instance_id, parent.incarnation, parent.execution, parent.event_id)
    )
    head = (start.instance_id, start.request_id, start.created_by, start.traceparent)
    schedule = start.schedule or (None, None)
    return (*head, *link, start.root_id, start.on_parent_close.value, *schedule)


def read_instance(kind: Kind, columns: Columns, dialect: Dialect) -> InstanceRow:
    """Return an instance from its kind and its columns."""
    (
        instance_id,
        incarnation,
        revision,
        owner,
        wake_at,
        inbox_seq,
        seen_seq,
        execution,
        opened,
        takeovers,
        history_events,
        history_bytes,
        cancel_at,
        cancel_reason,
        cancel_by,
        cancel_terminate,
        pin,
        hold,
        traceparent,
        parent_id,
        parent_incarnation,
        parent_execution,
        parent_event,
        root_id,
        paused,
        boundary_due,
        not_before,
        operator_hold,
        nudge,
    ) = columns
    return InstanceRow(
        instance_id=instance_id,
        incarnation=incarnation,
        kind=kind,
        revision=revision,
        owner=owner,
        wake_at=wake_at,
        inbox_seq=inbox_seq,
        seen_seq=seen_seq,
        execution=execution,
        opened=bool(opened),
        takeovers=takeovers,
        history_events=history_events,
        history_bytes=history_bytes,
        cancel=read_cancel(cancel_at, cancel_reason, cancel_by, cancel_terminate),
        pin=None if pin is None else pin_from_bytes(pin),
        hold=None if hold is None else hold_from_bytes(hold, dialect),
        traceparent=traceparent,
        parent=None
        if parent_id is None
        else ParentLink(parent_id, parent_incarnation, parent_execution, parent_event),
        root_id=root_id,
        paused=bool(paused),
        boundary_due=boundary_due,
        not_before=not_before,
        operator_hold=None if operator_hold is None else operator_hold_from_bytes(operator_hold),
        nudge=None if nudge is None else nudge_from_bytes(nudge),
    )


def read_cancel(at: int | None, reason: UserText, by: str, terminate: int) -> CancelMark | None:
    """Return the cancel mark from its columns."""
    return None if at is None else CancelMark(at, reason, by, bool(terminate))


def hold_to_bytes(hold: Hold, dialect: Dialect) -> bytes:
    """Return the stored form of a hold."""
    values = {
        "kind": dialect.holds[_known(hold.kind)],
        "detail": hold.detail,
        "since": hold.since,
        "by": hold.by,
    }
    error = {} if hold.error is None else _embedded(hold.error)
    return pack({**values, "tried": list(hold.tried), "at_fault": list(hold.at_fault), **error})


def read_held_page(
    rows: Sequence[Sequence[Any]],
    limit: int,
    dialect: Dialect,
    read_kind: Callable[[tuple[Any, ...]], Kind],
) -> HeldPage:
    """Return a page of holds from its rows. Those of other orchestrations have no kind."""
    found: list[HeldRow] = []
    for _, instance_id, incarnation, revision, *kind, hold, paused, operator_hold in rows:
        in_force = hold_in_force(
            None if hold is None else hold_from_bytes(hold, dialect),
            None if operator_hold is None else operator_hold_from_bytes(operator_hold),
            paused=bool(paused),
        )
        if in_force is not None and kind[0] is not None:
            found.append(
                HeldRow(instance_id, incarnation, revision, read_kind(tuple(kind)), in_force)
            )
    return HeldPage(tuple(found), (rows[-1][0], rows[-1][1]) if len(rows) == limit else None)


def _embedded(error: Packed) -> dict[str, Any]:
    """Return the error of a hold as a packed fact. What a codec has made is no JSON."""
    if error.startswith(b"{"):
        return unpack(error)
    return {"coded_error": base64.b64encode(error).decode()}


def _extracted(hold: dict[str, Any]) -> Packed | None:
    """Return the error that :func:`_embedded` put into a hold."""
    if "coded_error" in hold:
        return Packed(base64.b64decode(hold["coded_error"]))
    return pack_value({"error": hold["error"]}) if "error" in hold else None


def hold_from_bytes(data: bytes, dialect: Dialect) -> Hold:
    """Return the hold that :func:`hold_to_bytes` wrote."""
    values = unpack(data)
    kind, tried = dialect.library.holds.read(values["kind"]), tuple(values["tried"])
    # Old holds were written without it; their kind alone says whose fault they were.
    at_fault = tuple(
        values.get("at_fault", tried if isinstance(kind, HoldKind) and kind.blames_code else ())
    )
    error = _extracted(values)
    return Hold(kind, values["detail"], values["since"], values["by"], tried, at_fault, error)


def pin_to_bytes(pin: Pin) -> bytes:
    """Return the stored form of a pin."""
    values = {"version": pin.version, "at": pin.at, "by": pin.by, "reason": pin.reason}
    return pack(values if pin.until is None else {**values, "until": pin.until})


def pin_from_bytes(data: bytes) -> Pin:
    """Return the pin that :func:`pin_to_bytes` wrote."""
    values = unpack(data)
    head = values["version"], values["at"], values["by"], UserText(values["reason"])
    return Pin(*head, values.get("until"))


def is_same_pin(stored: bytes | None, version: str | None, until: int | None) -> bool:
    """Return whether a stored pin is one to this version until this time; ``None``: no pin."""
    if stored is None or version is None:
        return stored is None and version is None
    pin = pin_from_bytes(stored)
    return (pin.version, pin.until) == (version, until)


def operator_hold_to_bytes(hold: OperatorHold) -> bytes:
    """Return the stored form of an operator's hold."""
    return pack({"since": hold.since, "by": hold.by, "reason": hold.reason})


def operator_hold_from_bytes(data: bytes) -> OperatorHold:
    """Return the hold that :func:`operator_hold_to_bytes` wrote."""
    values = unpack(data)
    return OperatorHold(values["since"], values["by"], values["reason"])


def nudge_to_bytes(nudge: Nudge) -> bytes:
    """Return the stored form of a nudge."""
    return pack(
        {"execution": nudge.execution, "at": nudge.at, "by": nudge.by, "reason": nudge.reason}
    )


def nudge_from_bytes(data: bytes) -> Nudge:
    """Return the nudge that :func:`nudge_to_bytes` wrote."""
    values = unpack(data)
    return Nudge(values["execution"], values["at"], values["by"], values["reason"])
