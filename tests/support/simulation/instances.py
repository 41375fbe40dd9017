"""What the witness knows of an instance."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestra.events import CommandEvent, EventRecord, OnParentClose
from orchestra.store.instances import ParentLink
from orchestra.store.kinds import Status
from orchestra.store.messages import MessageRow

__all__ = ["WatchedInstance"]


@dataclass(slots=True)
class WatchedInstance:
    """What the witness knows of one incarnation of an instance."""

    instance_id: str
    incarnation: str
    name: str
    revision: int = 1
    owner: str | None = None
    status: Status = Status.OPEN
    inbox_seq: int = 0
    inbox: dict[int, MessageRow] = field(default_factory=dict[int, MessageRow])
    known: dict[str, tuple[int, int | None]] = field(
        default_factory=dict[str, tuple[int, int | None]]
    )
    """Of each message id its number, and since when it has been read."""
    delivered: list[MessageRow] = field(default_factory=list[MessageRow])
    reports: dict[int, MessageRow] = field(default_factory=dict[int, MessageRow])
    """Ends of children that have come and are not told yet."""
    parent: ParentLink | None = None
    root: str | None = None
    on_parent_close: OnParentClose = OnParentClose.ABANDON
    cancelled: bool = False
    doomed: bool = False
    """Whether its next owner must end it without running code."""
    doomed_by: int = 0
    """The number of the mark that says so."""
    held: bool = False
    number: int = 1
    """Of the execution that is the current one."""
    ended_at: int = 0
    execution: int = 1
    """Of the execution up to which history was checked: the current one, but in the middle of a
    check.
    """
    closed_at: dict[int, int] = field(default_factory=dict[int, int])
    rows_gone: int = 0
    histories_gone: int = 0
    """The last executions whose row, and whose events, retention has let go of."""
    records: list[EventRecord] = field(default_factory=list[EventRecord])
    """The checked history of the current execution."""
    commands: dict[int, CommandEvent] = field(default_factory=dict[int, CommandEvent])
    told: bool = False
    ended: bool = False
