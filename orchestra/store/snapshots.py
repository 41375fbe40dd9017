"""What a node reads of an instance that it owns."""

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

    The history is read apart, and only where no warm execution stands for it. ``messages`` are all
    ends of children, and the events up to ``whole_to`` (``None``: all there are); later ones are
    read by name. ``summary`` is as the last write left it.
    """

    row: InstanceRow
    execution: ExecutionRow
    messages: tuple[MessageRow, ...] = ()
    activities: tuple[ActivityRow, ...] = ()
    whole_to: int | None = None
    summary: Packed = Packed(b"")


@dataclass(frozen=True, slots=True)
class News:
    """Something has arrived for an instance that the asking node owns. ``activities`` are those
    that have ended elsewhere.

    ``messages`` are all ends of children, and the events up to ``whole_to`` (``None``: all there
    are).
    """

    instance_id: str
    incarnation: str
    inbox_seq: int
    cancel: CancelMark | None
    messages: tuple[MessageRow, ...]
    activities: tuple[ActivityRow, ...] = ()
    whole_to: int | None = None
