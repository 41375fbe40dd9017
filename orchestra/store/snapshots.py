"""The parts of an owned instance that its node reads."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra.codec import Packed
from orchestra.frozen import frozen
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import CancelMark, InstanceRow
from orchestra.store.messages import MessageRow
from orchestra.store.tasks import ActivityRow

__all__ = ["News", "Snapshot"]


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
