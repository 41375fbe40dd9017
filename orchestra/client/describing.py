"""Describe instances, executions and nodes for people, from stored rows and the living nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from orchestra.client.info import (
    ChildInfo,
    ExecutionInfo,
    Hold,
    InstanceInfo,
    InstanceStatus,
    NodeInfo,
    ParentInfo,
    PendingActivity,
    PinInfo,
    WaitingOn,
)
from orchestra.client.values import shown
from orchestra.clock import from_micros
from orchestra.codec import Packed, as_payload, is_sealed, unpack, unreadable
from orchestra.context import BoundaryRequest
from orchestra.errors import ErrorInfo
from orchestra.events import EventRecord, error_from_bytes, scheduled_name
from orchestra.levels import Unknown
from orchestra.operations.holds import hold_of, releases_when, why_unserved
from orchestra.resolution import boundary_version, is_living
from orchestra.sessions import OPEN
from orchestra.store.catalogue import Capability, Catalogue
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import Pin, hold_text
from orchestra.store.kinds import Status
from orchestra.store.messages import NAMES_SHOWN
from orchestra.store.queries import InstanceRecord, Standing
from orchestra.store.tasks import ActivityRow
from orchestra.summary import Summary, WaitEntry, read_summary, read_tried
from orchestra.versions import parse_version

__all__ = [
    "STORED_STATUS",
    "execution_info",
    "instance_info",
    "node_infos",
    "shown_status",
    "stored_error",
    "untold_activities",
]

_MOST_PENDING: Final = 1_000
"""The most activities that are shown of an instance."""
_SHOWN_STATUS: Final = {
    Status.COMPLETED: InstanceStatus.COMPLETED,
    Status.FAILED: InstanceStatus.FAILED,
    Status.CANCELLED: InstanceStatus.CANCELLED,
    Status.TERMINATED: InstanceStatus.TERMINATED,
}
_SHOWN_STANDING: Final = {
    Standing.PENDING: InstanceStatus.PENDING,
    Standing.RUNNING: InstanceStatus.RUNNING,
    Standing.HELD: InstanceStatus.HELD,
}
STORED_STATUS: Final = {
    InstanceStatus.PENDING: Status.OPEN,
    InstanceStatus.RUNNING: Status.OPEN,
    InstanceStatus.HELD: Status.OPEN,
    **{shown: stored for stored, shown in _SHOWN_STATUS.items()},
}
"""The stored status for each known status."""


def untold_activities(record: InstanceRecord) -> list[int]:
    """Return the activities with a row that are not in the summary, which holds the first 16 waits
    only.
    """
    summary = read_summary(record.summary)
    told = {entry.event_id for entry in summary.entries}
    rows = (row.event_id for row in record.activities if row.execution == record.row.execution)
    return sorted(number for number in rows if number not in told)[: _MOST_PENDING - len(told)]


def instance_info(
    record: InstanceRecord,
    catalogue: Catalogue,
    children: Sequence[InstanceRecord] | None = None,
    scheduled: Sequence[EventRecord] = (),
) -> InstanceInfo:
    """Return the description of a stored instance and of its children, given the living nodes.

    ``scheduled`` are the events of :func:`untold_activities`.
    """
    row, execution = record.row, record.execution
    is_open = record.status is Status.OPEN
    hold = _hold(record, catalogue)
    summary = read_summary(record.summary) if is_open else Summary((), {})
    return InstanceInfo(
        instance_id=row.instance_id,
        name=execution.name,
        version=execution.version,
        target_version=_target_version(record, catalogue) if is_open else execution.version,
        queue=row.kind.queue,
        status=_status(record, hold),
        hold=hold,
        execution_id=row.execution,
        input=shown(execution.state),
        output=shown(execution.output),
        error=stored_error(row.hold.error)
        if row.hold is not None and record.held
        else stored_error(execution.error),
        custom_status=shown(record.custom_status),
        created_at=from_micros(record.created_at),
        updated_at=from_micros(record.updated_at),
        completed_at=None if is_open else _moment(execution.closed_at),
        execution_started_at=_moment(execution.opened_at),
        next_wake_at=_moment(row.wake_at) if is_open and row.wake_at else None,
        waiting_on=_waiting_on(summary),
        waiting_counts=_waiting_counts(summary),
        pending_activities=_pending_activities(summary, record, catalogue, scheduled),
        history_events=row.history_events if is_open else execution.events,
        history_bytes=row.history_bytes if is_open else execution.bytes,
        unread_messages=record.unread_messages if is_open else sum(record.unread_at_end.values()),
        owner=row.owner,
        pin=_pin_info(row.pin, catalogue),
        cancel_requested=row.cancel is not None,
        labels=record.labels,
        incarnation=row.incarnation,
        parent=None
        if row.parent is None
        else ParentInfo(row.parent.instance_id, row.parent.execution),
        root_id=row.root_id or row.instance_id,
        children=_awaited_children(summary)
        if children is None
        else tuple(_child_info(child, catalogue) for child in children),
        expires_at=_moment(record.expires_at),
        boundary_requested=_boundary_requested(record),
        boundary_due_at=_moment(row.boundary_due) if is_open else None,
        boundary_overdue=is_open
        and row.boundary_due is not None
        and row.boundary_due <= catalogue.now,
        schedule_id=None if record.schedule is None else record.schedule[0],
        scheduled_at=None if record.schedule is None else from_micros(record.schedule[1]),
        not_before=_moment(row.not_before),
        set_aside_messages=record.set_aside,
        unread_by_name=record.unread_by_name if is_open else _most(record.unread_at_end),
    )


def _boundary_requested(record: InstanceRecord) -> BoundaryRequest | None:
    """Return the nudge that the current execution has got; one of an earlier execution is void."""
    nudge = record.row.nudge
    if nudge is None or nudge.execution != record.row.execution:
        return None
    return BoundaryRequest(from_micros(nudge.at), nudge.by, nudge.reason)


def _most(counts: Mapping[str, int]) -> Mapping[str, int]:
    """Return the names with the most messages, those with more first."""
    named = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return dict(named[:NAMES_SHOWN])


def _pin_info(pin: Pin | None, catalogue: Catalogue) -> PinInfo | None:
    if pin is None:
        return None
    # Old libraries stored pins without their time.
    at = from_micros(pin.at) if pin.at else None
    has_expired = not pin.holds(catalogue.now)
    return PinInfo(pin.version, at, pin.by, pin.reason, _moment(pin.until), has_expired)


def _child_info(record: InstanceRecord, catalogue: Catalogue) -> ChildInfo:
    """Return the description of an instance's parent."""
    hold = _hold(record, catalogue)
    execution = record.execution
    return ChildInfo(
        record.row.instance_id,
        execution.name,
        execution.version,
        _status(record, hold),
        hold,
    )


def _hold(record: InstanceRecord, catalogue: Catalogue) -> Hold | None:
    hold = hold_of(record, catalogue)
    if hold is None:
        return None
    return Hold(
        hold.kind,
        hold.detail,
        from_micros(hold.since),
        hold.by,
        releases_when(hold.kind),
        hold_text(hold),
    )


def _awaited_children(summary: Summary) -> tuple[ChildInfo, ...]:
    return tuple(
        ChildInfo(entry.child[0], entry.name, entry.child[1], None)
        for entry in summary.entries
        if entry.child
    )


def execution_info(instance_id: str, row: ExecutionRow) -> ExecutionInfo:
    """Return the description of a stored execution."""
    going = "pending" if row.opened_at is None else "running"
    status = going if row.end is None else row.end.name.lower()
    return ExecutionInfo(
        instance_id=instance_id,
        execution_id=row.number,
        name=row.name,
        version=row.version,
        resolved_by=row.resolution.how,
        status=status,
        input=shown(row.state),
        output=shown(row.output),
        error=stored_error(row.error),
        started_at=_moment(row.opened_at),
        ended_at=_moment(row.closed_at),
        history_events=row.events,
        history_bytes=row.bytes,
        fingerprint=row.fingerprint,
        written_by=row.state_version,
        migrations=row.migrations,
        policy_revision=row.resolution.policy_revision,
        resolved_at_node=row.resolution.by,
        patches=row.patches,
    )


def node_infos(catalogue: Catalogue, owned: Mapping[str, int]) -> tuple[NodeInfo, ...]:
    """Return the descriptions of a catalogue's nodes, the oldest first."""
    nodes = sorted(catalogue.nodes, key=lambda node: (node.started_at, node.record.node_id))
    return tuple(
        NodeInfo(
            node_id=node.record.node_id,
            host=node.record.host,
            pid=node.record.pid,
            library=node.record.library,
            orchestrations=_versions_by_name(node.record.capabilities),
            activities=node.record.activities,
            queues=node.record.queues,
            started_at=from_micros(node.started_at),
            renewed_at=from_micros(node.renewed_at),
            alive=is_living(node, catalogue.now),
            slots=node.record.slots,
            load=node.load,
            owned=owned[node.record.node_id],
            reads=node.record.reads,
            formats=node.record.formats,
        )
        for node in nodes
    )


def _versions_by_name(capabilities: Sequence[Capability]) -> dict[str, tuple[str, ...]]:
    names = sorted({capability.name for capability in capabilities})
    versions = {name: [one.version for one in capabilities if one.name == name] for name in names}
    return {name: tuple(sorted(found, key=parse_version)) for name, found in versions.items()}


def _status(record: InstanceRecord, hold: Hold | None) -> InstanceStatus:
    if hold is not None:
        return InstanceStatus.HELD
    begun = record.row.opened or record.row.execution > 1
    return shown_status(record.status, Standing.RUNNING if begun else Standing.PENDING)


def shown_status(status: Status | Unknown, standing: Standing | None) -> InstanceStatus:
    """Return the status that people see, given how an open instance stands."""
    if isinstance(status, Unknown):
        return InstanceStatus.UNKNOWN
    if status is not Status.OPEN or standing is None:
        return _SHOWN_STATUS[status]
    return _SHOWN_STANDING[standing]


def _target_version(record: InstanceRecord, catalogue: Catalogue) -> str:
    row, execution = record.row, record.execution
    return boundary_version(
        catalogue, row.kind, execution.version, explicit=None, pin=row.pin, node=""
    )[0]


def _waiting_on(summary: Summary) -> tuple[WaitingOn, ...]:
    return tuple(
        WaitingOn(
            entry.kind,
            entry.name,
            from_micros(entry.since),
            _moment(entry.until),
            entry.child[0] if entry.child else None,
        )
        for entry in summary.entries
        if not _is_open_session(entry)
    )


def _waiting_counts(summary: Summary) -> dict[str, int]:
    counts = dict(summary.counts)
    opened = sum(map(_is_open_session, summary.entries))
    if opened:
        counts["activity"] -= opened
    return {kind: count for kind, count in counts.items() if count}


def _is_open_session(entry: WaitEntry) -> bool:
    """Return whether a pending command stands for an open session: no code waits for it."""
    return entry.kind == "activity" and entry.name == OPEN


def _pending_activities(
    summary: Summary, record: InstanceRecord, catalogue: Catalogue, scheduled: Sequence[EventRecord]
) -> tuple[PendingActivity, ...]:
    rows = {row.event_id: row for row in record.activities if row.execution == record.row.execution}
    entries = [entry for entry in summary.entries if entry.kind == "activity"]
    entries += [
        WaitEntry(
            "activity", scheduled_name(event), event.at, None, event.id, read_tried(rows[event.id])
        )
        for event in scheduled
    ]
    return tuple(_pending_activity(entry, rows.get(entry.event_id), catalogue) for entry in entries)


def _pending_activity(
    entry: WaitEntry, row: ActivityRow | None, catalogue: Catalogue
) -> PendingActivity:
    tried = entry.tried
    route = None if row is None else row.route
    return PendingActivity(
        name=entry.name,
        attempt=tried.attempt if tried else 1,
        since=from_micros(entry.since),
        next_attempt_at=_moment(tried.due) if tried else None,
        last_error=tried.last_error if tried else None,
        queue=None if route is None or route.node is not None else route.served_queue,
        node=None if row is None else row.owner,
        held_reason=_why_unread(row) if route is None else why_unserved(route, catalogue),
    )


def _why_unread(row: ActivityRow | None) -> str | None:
    """Return why an instance's owner does not run one of its activities; ``None``: it does, or
    will.
    """
    if row is None or row.has_ended or is_sealed(row.attempts):
        return None
    if not unpack(row.attempts).get("unread"):
        return None
    return (
        "no living node has code of it that can read its arguments; deploy a worker that can, or "
        "terminate the instance"
    )


def stored_error(data: Packed | None) -> ErrorInfo | None:
    """Return the error in an execution's row, or one that says why it cannot be read."""
    if data is None:
        return None
    if is_sealed(data):
        return ErrorInfo("orchestra.PayloadUnreadable", str(unreadable(as_payload(data), "error")))
    return error_from_bytes(data)


def _moment(instant: int | None) -> datetime | None:
    return None if instant is None else from_micros(instant)
