"""The changes that the engine or a client asks of a store. The store grants or refuses each
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from orchestra.codec import Packed, Payload, UserText
from orchestra.events import OnParentClose
from orchestra.frozen import frozen
from orchestra.store.audit import Record
from orchestra.store.executions import ExecutionDelta, ExecutionRow, Prune
from orchestra.store.inbox_limits import INBOX_LIMITS, InboxLimits
from orchestra.store.instances import (
    CancelMark,
    Hold,
    InstanceState,
    Nudge,
    OperatorHold,
    ParentLink,
    Pin,
)
from orchestra.store.kinds import Status
from orchestra.store.messages import Aside, InboxPage, MessageRow
from orchestra.store.requests import RequestAnswer
from orchestra.store.routes import Kind, Route
from orchestra.store.schedules import EndedRun, ScheduleRow, SlotRow
from orchestra.store.streams import UNBOUNDED, Bounds, Published
from orchestra.store.tasks import ActivityRow

__all__ = [
    "NO_EXTRAS",
    "Append",
    "Cancel",
    "Change",
    "ChildCancel",
    "ChildStart",
    "Claim",
    "ClientChange",
    "IfEnded",
    "Publish",
    "Recover",
    "Release",
    "Report",
    "Resume",
    "ScheduleAct",
    "ScheduleWrite",
    "Send",
    "Start",
    "Steps",
    "Stop",
    "Suspend",
    "Write",
    "WriteExtras",
    "instances_of",
    "record_of",
    "size_of",
]


class IfEnded(Enum):
    """What a start does if the instance with its id has ended."""

    LEAVE = auto()
    """Nothing."""
    RESTART = auto()
    """Begin it again."""
    RESTART_IF_FAILED = auto()
    """Begin it again, unless it has completed."""
    RESTART_OWN = auto()
    """Begin it again if the same life of the same parent has started it before."""


@frozen
class Start:
    """Make an instance, unless the id is taken. A repeated ``request_id`` gets the same answer
    (I1).

    ``parent`` receives its end. ``root_id`` is its first ancestor (``None``: itself). Its first
    turn does not run before ``not_before``, unless it is cancelled.

    ``if_ended`` may begin an ended instance again: under a new incarnation, with its execution
    numbers going on. The rows of earlier executions stay until retention deletes them. Its
    tombstones stay too. All else of its former life goes: its labels, its pin, its custom status.
    Request ids of former lives are known as long as the rows of their first executions.
    With ``follows``, it is begun again only from this incarnation and revision.

    ``events`` are put into its inbox, all or none; with ``gives_events`` also if an instance with
    this id runs already. With ``looks`` the answer says whether it runs. ``restored`` are messages
    that it has anew, and ``pin`` is its pin.

    With an ``owner``, a new instance is that node's from the start, under revision 1: the node may
    write its first turn in the same group. An instance that begins again has no owner.
    """

    instance_id: str
    incarnation: str
    request_id: str
    kind: Kind
    execution: ExecutionRow
    wake_at: int = 0
    created_by: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    traceparent: str | None = None
    parent: ParentLink | None = None
    root_id: str | None = None
    on_parent_close: OnParentClose = OnParentClose.ABANDON
    not_before: int | None = None
    if_ended: IfEnded = IfEnded.LEAVE
    follows: tuple[str, int] | None = None
    looks: bool = False
    events: tuple[Append, ...] = ()
    gives_events: bool = True
    restored: tuple[MessageRow, ...] = ()
    pin: Pin | None = None
    record: Record | None = None
    schedule: tuple[str, int] | None = None
    """The schedule that starts it, and its slot."""
    owner: str | None = None

    @property
    def concerns_standing(self) -> bool:
        """Whether the row of an instance that has the id must be read."""
        return self.looks or bool(self.events) or self.if_ended is not IfEnded.LEAVE


@dataclass(frozen=True, slots=True)
class ChildStart:
    """An instance that a step of another instance starts.

    If another start has taken the id, the parent gets ``refusal`` as the child's end (rule 20).
    With ``None`` it gets nothing, because it does not wait. Without a ``start`` the child cannot be
    started, and the parent gets ``refusal`` in any case. ``parent`` is the command in either case.
    """

    child_id: str
    parent: ParentLink
    start: Start | None
    refusal: Packed | None
    keeps: bool = False
    """Whether it is a background child: the parent's instance gets the refusal, in any lap."""


@dataclass(frozen=True, slots=True)
class ChildCancel:
    """Cancel the instance ``child_id``, if it is open and the child of exactly this command."""

    child_id: str
    parent: ParentLink
    reason: UserText


@frozen
class Append:
    """Put a message into an instance's inbox and make it ready. A repeated ``message_id`` has no
    effect.
    """

    instance_id: str
    message_id: str
    name: str
    payload: Payload
    sender: str = ""
    limits: InboxLimits = INBOX_LIMITS
    traceparent: str | None = None
    asks: bool = False
    """Whether it is a request: it gets a row, under which the answer is stored. The same
    ``message_id`` again gets the same answer, or waits for it.
    """


@dataclass(frozen=True, slots=True)
class Cancel:
    """Set the cancel mark and make the instance ready. A second one changes nothing, but terminate
    beats cancel.

    ``incarnation``: only this life; ``None``: any.
    """

    instance_id: str
    reason: UserText
    by: str = ""
    terminate: bool = False
    incarnation: str | None = None
    record: Record | None = None


@frozen
class Send:
    """An event or a cancel that a step of an instance sends to another one, or to itself.

    ``sender`` is the command. Its execution gets a receipt, if it is still open after the write:
    that the message was delivered, or why it was refused. The inbox's limit does not count for a
    receipt.
    """

    sender: ParentLink
    message: Append | Cancel


@frozen
class Stop:
    """Put the stop mark on an attempt that was handed out. ``event_id`` names its activity, of the
    write's execution.

    An attempt that no node has taken ends in this write, with ``failure``, and makes the instance
    ready as a report does. An attempt that a node has taken goes on under its fence until that node
    reports, leaves or is lost. An ended attempt stays as it is.
    """

    event_id: int
    failure: Packed


@frozen
class WriteExtras:
    """What few writes do. Others share :data:`NO_EXTRAS`: a plain write pays for none of it.

    ``stops`` come after the write's ``activities``; the ends that they cause arrive behind the
    write. Those of ``consumed`` that ``set_aside`` names are kept apart with the reason, as long as
    there is room; ``unkept`` are numbers of such messages to delete for good.

    ``due`` is what a boundary that was due does to the instance: it is nudged, or gets the cancel
    mark if it has none, or an operator's hold if it has none.

    ``labels`` are set, and those that are ``None`` removed; the others stay.

    ``answers`` are stored with their requests, unless these are answered already, and remove their
    messages.
    ``published`` are added to the instance's streams, in order; ``stream_bounds`` say how much of
    each is kept.

    An operator's write may also put messages back at their numbers (``restored``), remove the
    cancel mark (``uncancels``), set a ``pin``, and leave the children of closing executions alone
    (``leaves_children``). An instance that it has ended may begin again in the same write
    (``restart``).
    """

    custom_status: Payload | None = None
    starts: tuple[ChildStart, ...] = ()
    cancels: tuple[ChildCancel, ...] = ()
    sends: tuple[Send, ...] = ()
    stops: tuple[Stop, ...] = ()
    labels: tuple[tuple[str, str | None], ...] = ()
    set_aside: tuple[Aside, ...] = ()
    unkept: tuple[int, ...] = ()
    answers: tuple[RequestAnswer, ...] = ()
    published: tuple[Published, ...] = ()
    stream_bounds: Bounds = UNBOUNDED
    due: Nudge | CancelMark | OperatorHold | None = None
    restored: tuple[MessageRow, ...] = ()
    uncancels: bool = False
    pin: Pin | None = None
    leaves_children: bool = False
    restart: Start | None = None


NO_EXTRAS: Final = WriteExtras()


@frozen
class Write:
    """Everything that one step does to one instance, all or nothing, conditional on the fence.

    The fence is (``instance_id``, ``incarnation``, ``revision``) and, unless an operator writes,
    ``owner``. A granted write adds one to the revision. ``consumed`` are sequence numbers of
    messages to remove, ``completed`` the event ids of the current execution's stored activities to
    forget. Closing an execution forgets all of its activities. Ending the instance removes its
    inbox, records what was unread, and sets its expiry, if its name has one. ``prune`` happens
    last. With ``has_parent`` false the owner knows that there is no parent, and the store looks for
    none.

    After all owners' writes of a group, each granted write affects other instances, in the order of
    the group (rule 20). First come its ``starts``, then its ``cancels``, then its ``sends``. An
    execution that closes
    may have children (``ExecutionDelta.children``, and always when an operator writes). Their
    unread ends are removed in the write itself, and open children get the mark of their
    ``on_parent_close``. Last, an instance that ended sends its end to its parent, if the parent's
    execution that asked for it is open; a background child sends it as long as that life of its
    parent is open. The inbox's limit does not count for it. Otherwise the end is dropped.
    """

    instance_id: str
    incarnation: str
    revision: int
    owner: str | None
    state: InstanceState
    executions: tuple[ExecutionDelta, ...] = ()
    consumed: tuple[int, ...] = ()
    activities: tuple[ActivityRow, ...] = ()
    completed: tuple[int, ...] = ()
    hold: Hold | None = None
    prune: Prune | None = None
    has_parent: bool = True
    record: Record | None = None
    extras: WriteExtras = NO_EXTRAS

    @property
    def closed_with_children(self) -> tuple[int, ...]:
        """The executions that this write closes, and whose children the store must look up."""
        closed: tuple[int, ...] = ()
        for delta in self.executions:
            if delta.closed is not None and (delta.children or self.owner is None):
                closed += (delta.number,)
        return closed

    @property
    def concerns_others(self) -> bool:
        """Whether it may affect other instances. Most writes do not, and cost the store nothing for
        this.
        """
        if self.has_parent and self.state.status is not Status.OPEN:
            return True
        extras = self.extras
        return bool(
            (extras is not NO_EXTRAS and (extras.starts or extras.cancels or extras.sends))
            or self.closed_with_children
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """Take up to ``limit`` ready instances of the given kinds, the longest due first within a kind.

    Also take up to ``slots`` activities that were handed out by the given routes, the oldest first
    within a route. At most ``threads`` of them come by routes in ``blocking``. ``page`` bounds what
    is read of each inbox.
    """

    node: str
    kinds: tuple[Kind, ...]
    limit: int
    routes: tuple[Route, ...] = ()
    slots: int = 0
    blocking: tuple[Route, ...] = ()
    threads: int = 0
    page: InboxPage = InboxPage()  # noqa: RUF009 - it is frozen


@frozen
class Report:
    """Report a task's end, with a ``result`` or a ``failure``; with neither, store only its
    ``heartbeat``.

    Conditional on the task's revision and its node. An end makes the instance ready, as a message
    does. It waits in the activity's row for the instance's owner.
    """

    instance_id: str
    incarnation: str
    execution: int
    event_id: int
    revision: int
    node: str
    result: Payload | None = None
    failure: Packed | None = None
    heartbeat: Payload | None = None

    @property
    def is_end(self) -> bool:
        """Whether it is more than a heartbeat."""
        return self.result is not None or self.failure is not None


@frozen
class Steps:
    """What a change makes sure of that stores steps of an activity: the row with which they go.

    ``row`` is stored if the activity has none, and only while the instance is at ``revision``: the
    owner knows that the activity is pending there, and nothing else tells. An attempt that was
    handed out has a row. In any case the row gets a heartbeat, which marks it (I9).
    """

    revision: int | None = None
    row: ActivityRow | None = None


@frozen
class Publish:
    """Add items of an attempt of an activity to the streams of its instance.

    The fence is that of the instance's owner: ``node`` owns it, the execution is open, and the
    attempt is the current one. With a ``revision`` the attempt was handed out, and its fence is
    that of a report. Items whose numbers are not above those of the attempt's stored items are left
    out: the change was committed before, and its reply was lost, or it comes late. A group does
    these changes before all else.

    ``steps``: some of the items are steps of the activity, and stand in its journal.
    """

    instance_id: str
    incarnation: str
    execution: int
    event_id: int
    attempt: int
    node: str
    revision: int | None
    items: tuple[Published, ...]
    bounds: Bounds = UNBOUNDED
    steps: Steps | None = None


@dataclass(frozen=True, slots=True)
class Recover:
    """Resolve an unknown outcome of an instance by a write (protocol rule 9)."""

    instance_id: str
    node: str


@dataclass(frozen=True, slots=True)
class Release:
    """End a hold, so that the instance may be claimed again. Conditional on the revision."""

    instance_id: str
    incarnation: str
    revision: int
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class Suspend:
    """Put an operator's hold on an instance, if it has none (rule 32).

    It takes the instance from its owner, and handed-out activities from their nodes; their attempts
    do not count. Until a :class:`Resume`, no node claims them.

    ``incarnation``: only this life; ``None``: any.
    """

    instance_id: str
    by: str
    reason: UserText
    incarnation: str | None = None
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """End the operator's hold on an instance, and what else holds it. It is due again when it was,
    or now if its owner was working on it or anything has arrived.
    """

    instance_id: str
    by: str
    incarnation: str | None = None
    record: Record | None = None


@frozen
class ScheduleAct:
    """What one slot does, if its schedule's write is granted: a start or an event.

    A start whose id exists by the same request has happened before, and counts as done (I14), but
    for a backfill, which has failed. ``slot`` is recorded with what became of it.
    """

    slot: SlotRow
    start: Start | None = None
    event: Append | None = None


@frozen
class ScheduleWrite:
    """Write a schedule, all or nothing, conditional on its incarnation and revision (rule 35).

    ``revision`` is the one that it builds on; with 0 it makes the schedule, if its id is free. A
    granted write adds one. ``row`` is the new row; its incarnation and revision are not read.
    ``None`` deletes the schedule with its slots. If starts or events are refused, ``refused``
    returns the row instead, from the reasons by the positions of their acts.

    First come ``cancels``; what has ended meanwhile needs none. ``acts`` are carried out in their
    order. Then ``slots`` are recorded that do nothing. A slot that is recorded stays as it is.
    ``ended`` are runs that it follows no longer.
    """

    schedule_id: str
    incarnation: str
    revision: int
    row: ScheduleRow | None
    acts: tuple[ScheduleAct, ...] = ()
    slots: tuple[SlotRow, ...] = ()
    ended: tuple[EndedRun, ...] = ()
    record: Record | None = None
    refused: Callable[[Mapping[int, str]], ScheduleRow] | None = None
    cancels: tuple[Cancel, ...] = ()

    @property
    def starts(self) -> tuple[Start, ...]:
        """The instances that it starts."""
        return tuple(act.start for act in self.acts if act.start is not None)

    @property
    def appends(self) -> tuple[Append, ...]:
        """The events that it sends."""
        return tuple(act.event for act in self.acts if act.event is not None)

    @property
    def instance_ids(self) -> set[str]:
        """The standing instances that it may change."""
        cancels = {cancel.instance_id for cancel in self.cancels}
        return cancels | {append.instance_id for append in self.appends}


ClientChange = (
    Start | Append | Cancel | Write | Release | Recover | Suspend | Resume | ScheduleWrite
)
"""Changes that may come from outside the engine: from clients and operators."""


Change = (
    Start
    | Append
    | Cancel
    | Write
    | Claim
    | Recover
    | Release
    | Report
    | Suspend
    | Resume
    | ScheduleWrite
    | Publish
)


def instances_of(change: Change) -> Collection[str]:
    """Return the ids of the instances that a change names itself."""
    match change:
        case Claim():
            return ()
        case ScheduleWrite():
            return {*change.instance_ids, *(start.instance_id for start in change.starts)}
        case _:
            return (change.instance_id,)


_AUDITED: Final = (Write, Start, Cancel, Release, Suspend, Resume, ScheduleWrite)
"""A tuple: a union of types would be made anew for each change."""


def record_of(change: Change) -> Record | None:
    """Return the entry that a change leaves in the audit, if it is granted."""
    return change.record if isinstance(change, _AUDITED) else None


def size_of(change: Change) -> int:
    """Return the approximate size of a change in bytes."""
    match change:
        case Write():
            return _size_of_write(change)
        case Start():
            size = 512 + len(change.execution.state.data)
            for event in change.events:
                size += size_of(event)
            for message in change.restored:
                size += 256 + len(message.payload.data)
            return size
        case Append():
            return 256 + len(change.payload.data)
        case Publish():
            return 128 + sum(128 + len(item.payload.data) for item in change.items)
        case ScheduleWrite():
            row, sent = change.row, (*change.starts, *change.appends)
            size = 512 if row is None else 512 + len(row.definition) + len(row.state)
            return size + 256 * len(change.slots) + sum(size_of(one) for one in sent)
        case _:
            return 128


def _size_of_write(write: Write) -> int:
    size = 512 + len(write.state.summary)
    for delta in write.executions:
        for record in delta.events:
            size += len(record.envelope)
            if record.payload is not None:
                size += len(record.payload.data)
    for activity in write.activities:
        if activity.result is not None:
            size += len(activity.result.data)
    return size if write.extras is NO_EXTRAS else size + _size_of_extras(write.extras)


def _size_of_extras(extras: WriteExtras) -> int:
    size = 0 if extras.restart is None else size_of(extras.restart)
    for aside in extras.set_aside:
        size += len(aside.reason)
    for key, text in extras.labels:
        size += len(key) + len(text or "")
    for start in extras.starts:
        if start.start is not None:
            size += size_of(start.start)
    for message in extras.restored:
        size += 256 + len(message.payload.data)
    for answer in extras.answers:
        size += 256 + (0 if answer.value is None else len(answer.value.data))
    for item in extras.published:
        size += 128 + len(item.payload.data)
    for send in extras.sends:
        size += 256 + size_of(send.message)
    return size
