"""Descriptions of instances, executions and nodes for clients and dashboards: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from orchestra.context import BoundaryRequest
from orchestra.errors import ErrorInfo
from orchestra.levels import Unknown
from orchestra.store.kinds import HoldKind, ResolvedBy
from orchestra.versions import Policy, UnknownPolicy

__all__ = [
    "ChildInfo",
    "ExecutionInfo",
    "Hold",
    "InstanceInfo",
    "InstancePage",
    "InstanceStatus",
    "NodeInfo",
    "ParentInfo",
    "PendingActivity",
    "PinInfo",
    "PolicyInfo",
    "PurgeReport",
    "RewindInfo",
    "UnreadMessage",
    "WaitingOn",
]


class InstanceStatus(StrEnum):
    """The status of an instance. ``PENDING``: its first turn has not run yet."""

    PENDING = "pending"
    RUNNING = "running"
    HELD = "held"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"
    UNKNOWN = "unknown"
    """Only a newer library knows its status."""

    @property
    def is_final(self) -> bool:
        """Whether the instance has ended."""
        return self in {self.COMPLETED, self.FAILED, self.CANCELLED, self.TERMINATED}


@dataclass(frozen=True, slots=True)
class WaitingOn:
    """One thing that an instance waits for: ``kind`` is activity, timer, event, request, child,
    or boundary_request; ``until`` is a timer's due time.

    ``instance_id`` is the child's; a background child is a ``child`` too.
    """

    kind: str
    name: str
    since: datetime
    until: datetime | None
    instance_id: str | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """What keeps an instance from going on: a fault of its code or state, an operator, or something
    that is missing.

    ``by`` is the node or the operator. It is empty for ``version_missing``, ``activity_missing``
    and ``crashing``, which each reader derives; these count ``since`` the last write.
    ``releases_when`` says what ends it.
    """

    kind: HoldKind | Unknown
    detail: str
    since: datetime
    by: str
    releases_when: str
    text: str = field(repr=False, default="")
    """The kind and the detail in one line."""


@dataclass(frozen=True, slots=True)
class PinInfo:
    """An operator's pin of an instance to a version. ``at`` is when it was set, on the store's
    clock; ``None``: an old library set it.
    """

    version: str
    at: datetime | None
    by: str
    reason: str
    until: datetime | None
    has_expired: bool = False


@dataclass(frozen=True, slots=True)
class ParentInfo:
    """Which execution of which instance waits, or has waited, for this one."""

    instance_id: str
    execution_id: int


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """A child. Lists do not read children: there ``version`` is what the call named, and ``status``
    is ``None``.
    """

    instance_id: str
    name: str
    version: str | None
    status: InstanceStatus | None
    hold: Hold | None = None
    """Why the child cannot go on now, if it is held. Not in lists."""

    @property
    def held_reason(self) -> str | None:
        """The hold as one line of text."""
        return None if self.hold is None else self.hold.text


@dataclass(frozen=True, slots=True)
class PendingActivity:
    """An activity without a result: the number of its current (or next) try, and the last error."""

    name: str
    attempt: int
    since: datetime
    next_attempt_at: datetime | None
    last_error: str | None
    queue: str | None = None
    """The queue by which it was handed out to other nodes; ``None``: it runs where its instance
    does. Not in lists.
    """
    node: str | None = None
    """The node that has taken it from the queue; ``None``: it waits there for one. Not in lists."""
    held_reason: str | None = None
    """Why no node takes it: no living node has it and serves its queue. Names the queues where it
    is served. Not in lists.
    """


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """The description of an instance.

    ``input``, ``output`` and ``custom_status`` are plain JSON values, or
    :class:`~orchestra.Unreadable` where this library cannot read them.

    ``waiting_on`` has the first 16 things that it waits for; ``waiting_counts`` counts all of them.
    ``pending_activities`` has the activities among the 16, and up to 1,000 activities in all that
    were tried before, have sent a heartbeat, or were handed out to other nodes. Its history names
    the rest: activities in a first attempt, on the node that owns the instance. Lists show the 16
    only.

    ``children`` are the children of its current execution, in the order of their starts; lists show
    only those that it waits for. ``list_instances(parent=...)`` has those of earlier executions as
    well.
    """

    instance_id: str
    name: str
    version: str
    target_version: str
    """The version that it would take at its next boundary, if that came now."""
    queue: str
    """Only nodes that serve this queue run it."""
    status: InstanceStatus
    hold: Hold | None
    """What keeps it from going on; ``None``: nothing does."""
    execution_id: int
    input: Any
    output: Any
    error: ErrorInfo | None
    custom_status: Any
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    execution_started_at: datetime | None
    next_wake_at: datetime | None
    waiting_on: tuple[WaitingOn, ...]
    waiting_counts: Mapping[str, int]
    pending_activities: tuple[PendingActivity, ...]
    history_events: int
    history_bytes: int
    unread_messages: int
    owner: str | None
    pin: PinInfo | None
    """An operator's pin, also one that has expired."""
    cancel_requested: bool
    labels: Mapping[str, str]
    incarnation: str
    parent: ParentInfo | None
    root_id: str
    """The id of its topmost ancestor; its own id where it is no child."""
    children: tuple[ChildInfo, ...]
    expires_at: datetime | None = None
    """When the store deletes it, after its end; ``None``: the store keeps it."""
    boundary_requested: BoundaryRequest | None = None
    """Who has asked its current execution to reach its boundary soon, when and why."""
    boundary_due_at: datetime | None = None
    """When its current execution should have reached its boundary (``builder.set_boundary``);
    ``None``: at no set time, or it has not begun.
    """
    boundary_overdue: bool = False
    """Whether that time has passed."""
    not_before: datetime | None = None
    """Before when its first turn does not run: it was started for later."""
    set_aside_messages: int = 0
    """How many messages its code could not decode. They count as ``unread_messages`` only once it
    has ended.
    """
    unread_by_name: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many messages of each name are unread, those included that were set aside: of at most 16
    names, those with the most. Of an ended instance, what was unread at its end. Lists of open
    instances do not count them.
    """
    schedule_id: str | None = None
    """The schedule that has started it; ``None``: none has."""
    scheduled_at: datetime | None = None
    """The slot of that schedule at which it was started."""

    @property
    def pinned_version(self) -> str | None:
        """The version to which it is pinned now."""
        return None if self.pin is None or self.pin.has_expired else self.pin.version

    @property
    def held_reason(self) -> str | None:
        """The hold as one line of text: its kind and its detail."""
        return None if self.hold is None else self.hold.text


@dataclass(frozen=True, slots=True)
class InstancePage:
    """A page of a list. Give ``next_page`` back to get what follows; ``None``: this was the last
    one.

    ``searched``: the search has ended after so many instances, its limit, before the page was full.
    ``next_page`` goes on behind them, even where ``items`` is empty.
    """

    items: tuple[InstanceInfo, ...]
    next_page: str | None
    searched: int | None = None


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """The result of a purge: how many instances it deleted, or (``dry_run``) would delete, and the
    first hundred ids.
    """

    dry_run: bool
    count: int
    instance_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RewindInfo:
    """The result of a rewind: the execution that begins, and its version.

    ``events_restored`` is how many events and ends of background children are unread again; 0 where
    the same request had done it before. Retention had deleted the histories of
    ``executions_without_history``, so that events which those received stay read.
    """

    instance_id: str
    execution_id: int
    version: str
    events_restored: int
    executions_without_history: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """A version policy of a name, as it stands or stood in the store.

    ``policy`` is an :class:`~orchestra.UnknownPolicy` if only a newer library can read it.
    """

    name: str
    policy: Policy | UnknownPolicy
    revision: int
    """Each change of the policy raises it by one. 0: the policy was never set, and is
    ``Latest()``.
    """
    by: str
    """Who set it: the ``by`` of the call, or else the client or the node."""
    reason: str
    at: datetime | None
    """When it was set, on the store's clock; ``None``: never."""
    moved: int = field(default=0, compare=False)
    """How many held executions the call that set it gave another version; 0 where it was read."""


@dataclass(frozen=True, slots=True)
class ExecutionInfo:
    """One execution of an instance. ``input`` and ``output`` are plain JSON values, or
    :class:`~orchestra.Unreadable`.
    """

    instance_id: str
    execution_id: int
    name: str
    version: str
    resolved_by: ResolvedBy | Unknown
    status: str
    """``pending``, ``running``, ``continued_as_new``, ``completed``, ``failed``, ``cancelled``,
    ``terminated``, or ``unknown``: it has ended in a way that only a newer library knows.
    """
    input: Any
    output: Any
    error: ErrorInfo | None
    started_at: datetime | None
    ended_at: datetime | None
    history_events: int
    history_bytes: int
    fingerprint: str | None
    written_by: str | None = None
    """The version that wrote the input; of the first execution, the one that was chosen then."""
    migrations: tuple[str, ...] = ()
    """The migrations that the input has passed as the execution opened: ``2.0.0`` up, ``-2.0.0``
    down. The first event of its history has what they have made of it.
    """
    policy_revision: int = 0
    """The revision of the name's policy when its version was chosen; 0: it was never set."""
    resolved_at_node: str = ""
    """The node, or the client, that chose its version."""
    patches: tuple[str, ...] = ()
    """The marks of ``ctx.patched`` that it has recorded, in their order."""


@dataclass(frozen=True, slots=True)
class UnreadMessage:
    """An event, a request or the end of a background child that waits in an inbox, or an event that
    was set aside. ``payload`` is a plain JSON value, or :class:`~orchestra.Unreadable`; ``size`` is
    its bytes.

    For the end of a background child, ``name`` and ``sender`` are its id, ``message_id`` is the
    :attr:`~orchestra.ChildHandle.link` of its handle, and ``payload`` its result, or its error.
    """

    sequence: int
    """Its number at the instance, in the order of arrival."""
    message_id: str
    name: str
    payload: Any
    sent_at: datetime
    sender: str
    """The node whose client sent it, or the name of a client that stands alone."""
    size: int
    set_aside: str | None = None
    """Why it was set aside: the code that awaited it could not decode it. ``None``: it waits."""
    set_aside_at: datetime | None = None
    kind: Literal["event", "request", "child"] = "event"
    """A request stays until it is answered, also while code has it in hand; the end of a background
    child (``child``) until code awaits it.
    """


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A running :class:`~orchestra.Runtime`, as the store knows it. Nodes that have left or were
    buried are not listed.
    """

    node_id: str
    """The id that ``InstanceInfo.owner`` names; a new one for each start of a runtime."""
    host: str
    pid: int
    library: str
    """The version of this library that it runs."""
    orchestrations: Mapping[str, tuple[str, ...]]
    """Its registered orchestrations: names, with their versions, the lowest first."""
    activities: tuple[str, ...]
    queues: tuple[str, ...]
    started_at: datetime
    renewed_at: datetime
    """Its last heartbeat, on the store's clock."""
    alive: bool
    """Whether it has renewed within three leases. For people only: no node takes its work over for
    this alone.
    """
    slots: int
    """How many activities it runs at once."""
    load: int
    """How many activities it ran at its last heartbeat: at most ``slots``. What waits for a place
    there is not counted.
    """
    owned: int
    """How many instances it owns now; instances that only wait have no owner."""
    reads: int = 1
    """The highest level of kinds of rows that its library reads. All nodes write at a level that
    each of them reads.
    """
    formats: tuple[int, ...] = (1,)
    """The formats of histories that it reads. New executions get the highest one that all nodes
    read.
    """
