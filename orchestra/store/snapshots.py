"""The parts of an owned instance that its node reads."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra.codec import Packed
from orchestra.frozen import frozen
from orchestra.store.changes import Start
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import CancelMark, InstanceRow
from orchestra.store.messages import MessageRow
from orchestra.store.tasks import ActivityRow

__all__ = ["News", "Snapshot", "started_snapshot"]


@frozen
class Snapshot:
    """A claimed instance: its row, its current execution, its first unread messages, its remembered
    activities.

    The history is read apart, and only without a warm execution. ``messages`` are all ends of
    children, and the events up to ``whole_to`` (``None``: all events). Later events are read by
    name. ``summary`` is the last write's.
    """

    row: InstanceRow
    execution: ExecutionRow
    messages: tuple[MessageRow, ...] = ()
    activities: tuple[ActivityRow, ...] = ()
    whole_to: int | None = None
    summary: Packed = Packed(b"")


def started_snapshot(start: Start) -> Snapshot:
    """Return what the owner of a start has, if that makes a new instance without messages."""
    row = InstanceRow(
        instance_id=start.instance_id,
        incarnation=start.incarnation,
        kind=start.kind,
        revision=1,
        owner=start.owner,
        wake_at=start.wake_at,
        inbox_seq=0,
        seen_seq=0,
        execution=start.execution.number,
        opened=start.execution.opened_at is not None,
        takeovers=0,
        history_events=0,
        history_bytes=0,
        pin=start.pin,
        traceparent=start.traceparent,
        parent=start.parent,
        root_id=start.root_id,
        not_before=start.not_before,
    )
    return Snapshot(row, start.execution)


@dataclass(frozen=True, slots=True)
class News:
    """The arrivals at an instance of the asking node. ``activities`` are those that ended
    elsewhere.

    ``messages`` are all ends of children, and the events up to ``whole_to`` (``None``: all events).
    """

    instance_id: str
    incarnation: str
    inbox_seq: int
    cancel: CancelMark | None
    messages: tuple[MessageRow, ...]
    activities: tuple[ActivityRow, ...] = ()
    whole_to: int | None = None
