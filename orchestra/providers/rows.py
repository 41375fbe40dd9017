"""What crosses the border between the engine and a store: rows, changes and outcomes.

All are immutable. Instants are integer microseconds UTC on the store's clock. ``None`` for ``wake_at`` means *never*;
``0`` means *now*. A provider stores payloads, envelopes and summaries as they are and looks into none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from orchestra.codec import Payload
from orchestra.errors import ErrorInfo
from orchestra.events import FORMAT, EventRecord, OnParentClose
from orchestra.frozen import frozen
from orchestra.levels import BASE_LEVEL, Levels, Unknown
from orchestra.providers.inboxes import INBOX_LIMITS, Full, InboxLimits
from orchestra.providers.kinds import THIS_LIBRARY, ExecutionEnd, HoldKind, Library, MessageKind, ResolvedBy, Status

__all__ = [
    "CRASHES_BEFORE_DELAY",
    "DEFAULT_QUEUE",
    "LONGEST_DELAY",
    "LOST",
    "PARENT_CLOSED",
    "PRUNED_AT_ONCE",
    "THIS_LIBRARY",
    "ActivityRow",
    "Append",
    "AppendRefused",
    "Appended",
    "Cancel",
    "CancelMark",
    "Capability",
    "Catalogue",
    "Change",
    "ChildCancel",
    "ChildStart",
    "Claim",
    "Claimed",
    "ClientChange",
    "Commit",
    "ExecutionDelta",
    "ExecutionEnd",
    "ExecutionRow",
    "Granted",
    "HeldRow",
    "Hold",
    "HoldKind",
    "InboxPage",
    "InstanceQuery",
    "InstanceRecord",
    "InstanceRow",
    "InstanceState",
    "Kind",
    "Levels",
    "Library",
    "MessageKind",
    "MessageRow",
    "News",
    "NodeRecord",
    "NodeRow",
    "OnParentClose",
    "Outcome",
    "ParentLink",
    "Pin",
    "PolicyRow",
    "Prune",
    "Recover",
    "Recovered",
    "Refusal",
    "Refused",
    "Release",
    "Renewal",
    "Report",
    "Reported",
    "Resolution",
    "ResolvedBy",
    "Route",
    "Snapshot",
    "Standing",
    "Start",
    "StartExists",
    "Started",
    "Status",
    "Stop",
    "Task",
    "Unknown",
    "Unread",
    "Write",
    "kind_of",
    "shown_hold",
    "size_of",
]

CRASHES_BEFORE_DELAY: Final = 3
"""From how many crashes of its owners on an instance is claimed only after a delay (protocol rule 14)."""

LONGEST_DELAY: Final = 300_000_000
"""How long it waits then at most, in microseconds; a message shortens a longer wait to this."""


DEFAULT_QUEUE: Final = "default"
"""The queue of whatever was given none. Every node serves it that is not told otherwise."""


class Kind(NamedTuple):
    """What a node must be able to do to run an instance now; what claims are routed by.

    ``floating``: the execution has not begun and its version was chosen by policy, so that a node for which the
    policy gives a higher version may take it. ``format`` is that of its events, and of the first format while it has none.
    ``level`` is what a library must read to go on with it: higher than the base where something in it was written at a higher
    level, or where a library has met something in it that it does not know.
    """

    queue: str
    name: str
    version: str
    format: int
    floating: bool = False
    level: int = BASE_LEVEL


kind_of: Final = lru_cache(maxsize=4_096)(Kind)
"""Return the kind that is so made, and for the same the same one: thousands of instances are of a few kinds."""


@dataclass(frozen=True, slots=True)
class CancelMark:
    """An instance is to be cancelled. It stays over boundaries. ``terminate``: its next owner ends it without running code."""

    at: int
    reason: str
    by: str
    terminate: bool = False


PARENT_CLOSED: Final = "its parent's execution has closed"
"""The reason of a mark that a child gets for its ``on_parent_close``; who set it is the parent's id."""


@dataclass(frozen=True, slots=True)
class ParentLink:
    """Whose child an instance is: the parent's id, its life, the execution and the event that asked for the child."""

    instance_id: str
    incarnation: str
    execution: int
    event_id: int

    def __str__(self) -> str:
        return f"{self.instance_id}/{self.incarnation}/{self.execution}/{self.event_id}"


@dataclass(frozen=True, slots=True)
class Pin:
    """An operator has tied the instance to a version, from its next boundary on; ``at`` is when, on the store's clock."""

    version: str
    at: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """An instance is held. ``tried`` are the code fingerprints that could not go on with it.

    ``at_fault`` are those of them whose code was to blame: they stay tried whatever holds the instance next. The others, which
    the store or the engine failed, are tried once more after code that is to blame (rule 5). ``error`` is what the code has
    raised, where that holds it.
    """

    kind: HoldKind | Unknown
    detail: str
    since: int
    by: str
    tried: tuple[str, ...] = ()
    at_fault: tuple[str, ...] = ()
    error: ErrorInfo | None = None


def shown_hold(hold: Hold) -> str:
    """Return the kind of a hold, for people."""
    return str(hold.kind) if isinstance(hold.kind, Unknown) else hold.kind.value


@frozen
class Resolution:
    """How a version was chosen, by which node, and under which revision of the policy."""

    how: ResolvedBy | Unknown
    by: str
    policy_revision: int


@frozen
class ExecutionRow:
    """One execution. ``state`` is its raw input; ``state_version`` the version that wrote it (``None``: a client).

    ``traceparent`` is the trace of an opened execution, and of the one before while it is not opened.
    """

    number: int
    name: str
    version: str
    resolution: Resolution
    state: Payload
    state_version: str | None
    created_at: int
    format: int | None = None
    fingerprint: str | None = None
    opened_at: int | None = None
    closed_at: int | None = None
    end: ExecutionEnd | Unknown | None = None
    output: Payload | None = None
    error: bytes | None = None
    events: int = 0
    bytes: int = 0
    traceparent: str | None = None

    def opened(self, version: str, resolution: Resolution, event_format: int, fingerprint: str, at: int) -> ExecutionRow:
        """Return the row of an execution that waited to be opened, as it is once it was. ``replace`` takes thrice as long."""
        return ExecutionRow(
            self.number,
            self.name,
            version,
            resolution,
            self.state,
            self.state_version,
            self.created_at,
            event_format,
            fingerprint,
            at,
            traceparent=self.traceparent,
        )


@frozen
class ExecutionDelta:
    """What a write does to one execution. ``create`` makes its row; ``open`` and ``close`` happen at most once.

    ``opened`` is (at, version, fingerprint, format, resolution), and then ``traceparent`` is stored with it. ``retargeted``, of
    an execution that is not opened yet, is the version with which it is to be and how that was chosen; again with
    ``traceparent``. ``closed`` is (at, end, output, error). A closing delta carries the execution's final counts of events and
    bytes; ``children`` says that the execution has asked for some, so that the store must look who of them is to be told.
    """

    number: int
    create: ExecutionRow | None = None
    opened: tuple[int, str, str, int, Resolution] | None = None
    retargeted: tuple[str, Resolution] | None = None
    events: tuple[EventRecord, ...] = ()
    closed: tuple[int, ExecutionEnd, Payload | None, bytes | None] | None = None
    event_count: int = 0
    byte_count: int = 0
    traceparent: str | None = None
    children: bool = False


@frozen
class MessageRow:
    """One unread message. ``sequence`` is its number at the instance, in arrival order (I8); ``traceparent`` its sender's.

    ``sender`` is the node whose client has sent it, or how a client that stands alone is called.

    Where a child has ended, ``name`` and ``sender`` are its id, ``payload`` its output or error, and ``source`` the event that
    asked for it.
    """

    sequence: int
    message_id: str
    name: str
    payload: Payload
    sent_at: int
    kind: MessageKind | Unknown = MessageKind.EVENT
    source: int = 0
    traceparent: str | None = None
    sender: str = ""


@dataclass(frozen=True, slots=True)
class InboxPage:
    """How much of one inbox is read at once: so many events in the order of arrival, with so many bytes of payload together."""

    messages: int = 64
    bytes: int = 64 * 1024

    def share(self, readers: int) -> InboxPage:
        """Return what each of some gets that share it: room for one event at least."""
        return InboxPage(max(1, self.messages // max(1, readers)), self.bytes // max(1, readers))


@frozen
class Unread:
    """Unread events of one name, after those that were known. They are all there are up to ``whole_to``."""

    messages: tuple[MessageRow, ...]
    whole_to: int


class Route(NamedTuple):
    """Who may run an activity that the owner of its instance hands out: nodes that serve the queue and have the activity.

    It may be *narrowed* to those whose code of the activity has a fingerprint: others could not read its arguments.
    """

    queue: str
    name: str

    def narrowed(self, fingerprint: str) -> Route:
        """Return the route to those nodes whose code of the activity has this fingerprint."""
        return Route(self.queue, f"{self.name}{_NARROWED}{fingerprint}")

    def of_format(self, event_format: int) -> Route:
        """Return the route to those nodes that read events of this format, as the one that asks for the activity is."""
        return self if event_format == FORMAT else Route(self.queue, f"{self.name}{_OF_FORMAT}{event_format}")

    @property
    def activity(self) -> str:
        """The name of the activity."""
        return self._plain.partition(_NARROWED)[0]

    @property
    def fingerprint(self) -> str | None:
        """Whose code may run it; ``None``: anybody's."""
        return self._plain.partition(_NARROWED)[2] or None

    @property
    def format(self) -> int:
        """The event format that a node must read to run it."""
        return int(self.name.partition(_OF_FORMAT)[2] or FORMAT)

    @property
    def _plain(self) -> str:
        return self.name.partition(_OF_FORMAT)[0]


_NARROWED: Final = "\x1f"
"""No name of an activity holds one: it is a control character."""

_OF_FORMAT: Final = "\x1e"
"""Nor this one. Routes of the first format do not name it."""


LOST: Final = b""
"""The ``failure`` of a try whose node has died. The store itself says so."""


@frozen
class ActivityRow:
    """An activity with something to remember: failed tries, a heartbeat, or that it is handed out.

    ``due`` is when the next try may begin. With a ``route`` the current try is handed out: ``owner`` is the node that has
    taken it, and ``result`` or ``failure`` says how it has ended there. The fence of the node that has it (``revision``) is
    the store's, and in a write counts for nothing: it begins at 0, and each write of the row raises it by one.

    What is written is free to be taken, or with an ``owner`` it runs on that node already. A write that holds its instance
    keeps, as ``result`` or ``failure``, the ends that its turn had taken in (rule 39).

    ``stopping`` is the stop mark of a try that is handed out: its instance has cancelled it and waits for its end. A row with
    the mark has an owner, or it has ended.
    """

    execution: int
    event_id: int
    attempt: int
    due: int | None
    started_at: int
    attempts: bytes
    heartbeat: Payload | None = None
    route: Route | None = None
    owner: str | None = None
    result: Payload | None = None
    failure: bytes | None = None
    revision: int = 0
    stopping: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether the try has ended or was lost, and its end is kept for the instance's next turn."""
        return self.result is not None or self.failure is not None


@frozen
class Task:
    """A try of an activity that a node has taken. ``revision`` is its fence; ``scheduled`` the event that asked for it.

    ``stopping``: its instance has cancelled it. The node ends it and reports the end; it begins no try.
    """

    instance_id: str
    incarnation: str
    execution: int
    event_id: int
    revision: int
    attempt: int
    orchestration: str
    version: str
    scheduled: EventRecord
    heartbeat: Payload | None = None
    traceparent: str | None = None
    stopping: bool = False


@frozen
class InstanceRow:
    """What an owner must know of an instance to go on with it. ``traceparent`` is that of whoever started it."""

    instance_id: str
    incarnation: str
    kind: Kind
    revision: int
    owner: str | None
    wake_at: int | None
    inbox_seq: int
    seen_seq: int
    execution: int
    opened: bool
    takeovers: int
    history_events: int
    history_bytes: int
    cancel: CancelMark | None = None
    pin: Pin | None = None
    hold: Hold | None = None
    traceparent: str | None = None
    parent: ParentLink | None = None
    root_id: str | None = None


@frozen
class Snapshot:
    """A claimed instance: its row, its current execution, its first unread messages, its remembered activities.

    The history is read apart, and only where no warm execution stands for it. ``messages`` are all ends of children, and the
    events up to ``whole_to`` (``None``: all there are); later ones are read by name. ``summary`` is as the last write left it.
    """

    row: InstanceRow
    execution: ExecutionRow
    messages: tuple[MessageRow, ...] = ()
    activities: tuple[ActivityRow, ...] = ()
    whole_to: int | None = None
    summary: bytes = b""


# --- changes ----------------------------------------------------------------------------------


@frozen
class Start:
    """Make an instance, unless the id is taken. The same ``request_id`` again is answered, not repeated (I1).

    ``parent``: who is told of its end; ``root_id``: the first of its line (``None``: itself).
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


@dataclass(frozen=True, slots=True)
class ChildStart:
    """An instance that a step of another one asks for.

    Where the id is taken by a start that is not this one, ``refusal`` is the error that the parent gets as the child's end
    (rule 20); ``None``: nothing is sent, for nobody waits. Without a ``start`` the child cannot be started at all, and the
    parent gets ``refusal`` in any case. ``parent`` is the command in either case.
    """

    child_id: str
    parent: ParentLink
    start: Start | None
    refusal: bytes | None


@dataclass(frozen=True, slots=True)
class ChildCancel:
    """Cancel the instance ``child_id``, if it is open and the child of exactly this command."""

    child_id: str
    parent: ParentLink
    reason: str


@frozen
class Append:
    """Put a message into an instance's inbox and make it ready. The same ``message_id`` again has no effect."""

    instance_id: str
    message_id: str
    name: str
    payload: Payload
    sender: str = ""
    limits: InboxLimits = INBOX_LIMITS
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Set the cancel mark and make the instance ready. A second one changes nothing, but terminate beats cancel.

    ``incarnation``: only of this life; ``None``: of whichever there is.
    """

    instance_id: str
    reason: str
    by: str = ""
    terminate: bool = False
    incarnation: str | None = None


@frozen
class InstanceState:
    """The hot columns as a write leaves them. ``owner=None`` releases the instance.

    ``wake_at`` is stored as 0 where a message newer than ``seen_seq`` has arrived (protocol rule 4).
    """

    kind: Kind
    owner: str | None
    wake_at: int | None
    seen_seq: int
    execution: int
    opened: bool
    takeovers: int
    status: Status
    history_events: int
    history_bytes: int
    summary: bytes


PRUNED_AT_ONCE: Final = 1_000
"""How many executions one write lets go of at most. Whoever writes must ask for it more often than as many are made."""


@frozen
class Prune:
    """Which executions a write lets go of: always a prefix (I3), and never the current one, whatever the numbers say.

    The events of the executions up to ``histories`` go, and up to ``executions`` their rows. By age go events and rows of the
    longest prefix of executions that were all closed at or before ``closed_until``; the newest closed one stays. Of each at
    most :data:`PRUNED_AT_ONCE` executions go, the oldest first, so that a bound that was lowered stops nobody for long: what
    is left goes with the next.
    """

    histories: int = 0
    executions: int = 0
    closed_until: int | None = None


@frozen
class Stop:
    """Put the stop mark on a try that is handed out; ``event_id`` names its activity, of the write's execution.

    A try that no node has taken ends in this very write, with ``failure``, and makes the instance ready as a report does. One
    that a node has taken goes on under its fence until that node reports, leaves or is lost. One that has ended stays as it is.
    """

    event_id: int
    failure: bytes


@frozen
class Write:
    """Everything that one step does to one instance, all or nothing, conditional on the fence.

    The fence is (``instance_id``, ``incarnation``, ``revision``) and, unless an operator writes, ``owner``. A granted
    write adds one to the revision. ``consumed`` are sequence numbers of messages to remove, ``settled`` the event ids of
    remembered activities of the current execution to forget. Closing an execution forgets all of its activities; ending the
    instance removes its inbox, records what was unread, and sets when the instance itself is to go, where its name has an
    expiry. ``stops`` come after ``activities``; what they end arrives behind the write itself. ``prune`` happens last. An owner
    that knows that the instance has no parent says so with ``has_parent``; the store then looks for none.

    Once all owners' writes of a group are done, each granted one has these effects on other instances, in the order of the
    group: its ``starts``, its ``cancels``; where an execution has closed that may have children (``ExecutionDelta.children``,
    and whenever an operator writes), their ends that wait unread are removed in the write itself, and those that are open are
    marked as their ``on_parent_close`` says; last, where the instance has ended and has a parent, its end goes into the
    parent's inbox, whatever the inbox's limit, if the parent's execution that asked for it is the open one; else it is
    dropped (rule 20).
    """

    instance_id: str
    incarnation: str
    revision: int
    owner: str | None
    state: InstanceState
    executions: tuple[ExecutionDelta, ...] = ()
    consumed: tuple[int, ...] = ()
    activities: tuple[ActivityRow, ...] = ()
    settled: tuple[int, ...] = ()
    custom_status: Payload | None = None
    hold: Hold | None = None
    prune: Prune | None = None
    starts: tuple[ChildStart, ...] = ()
    cancels: tuple[ChildCancel, ...] = ()
    has_parent: bool = True
    stops: tuple[Stop, ...] = ()

    @property
    def closed_with_children(self) -> tuple[int, ...]:
        """The executions that this write closes and whose children the store must look for."""
        closed: tuple[int, ...] = ()
        for delta in self.executions:
            if delta.closed is not None and (delta.children or self.owner is None):
                closed += (delta.number,)
        return closed

    @property
    def concerns_others(self) -> bool:
        """Whether it may have effects on other instances. Most have none, and cost the store nothing for it."""
        tells_parent = self.has_parent and self.state.status is not Status.OPEN
        return bool(self.starts or self.cancels or tells_parent or self.closed_with_children)


@dataclass(frozen=True, slots=True)
class Claim:
    """Take up to ``limit`` ready instances of the given kinds, the longest due first within a kind.

    Also up to ``slots`` activities that are handed out by the given routes, the oldest first within a route; of these up to
    ``threads`` by routes that are among ``blocking``. ``page`` is what is read of each inbox.
    """

    node: str
    kinds: tuple[Kind, ...]
    limit: int
    routes: tuple[Route, ...] = ()
    slots: int = 0
    blocking: tuple[Route, ...] = ()
    threads: int = 0
    page: InboxPage = InboxPage()


@frozen
class Report:
    """Say how a task has ended, with a ``result`` or a ``failure``; with neither, only its ``heartbeat`` is stored.

    Conditional on the task's revision and on the node that has it. What has ended makes the instance ready, as a message does,
    and waits in the activity's row for the instance's owner.
    """

    instance_id: str
    incarnation: str
    execution: int
    event_id: int
    revision: int
    node: str
    result: Payload | None = None
    failure: bytes | None = None
    heartbeat: Payload | None = None

    @property
    def is_end(self) -> bool:
        """Whether it is more than a heartbeat."""
        return self.result is not None or self.failure is not None


@dataclass(frozen=True, slots=True)
class Recover:
    """Find out, by a write, what became of an instance whose last reply was lost (protocol rule 9)."""

    instance_id: str
    node: str


@dataclass(frozen=True, slots=True)
class Release:
    """End a hold, so that the instance may be claimed again. Conditional on the revision."""

    instance_id: str
    incarnation: str
    revision: int


ClientChange = Start | Append | Cancel | Write | Release | Recover
"""What may come from outside the engine: clients' wishes and operators' writes."""

Change = Start | Append | Cancel | Write | Claim | Recover | Release | Report


def size_of(change: Change) -> int:
    """Return about how many bytes a change brings to the store."""
    match change:
        case Write():
            size = 512 + len(change.state.summary)
            for delta in change.executions:
                for record in delta.events:
                    size += len(record.envelope)
                    if record.payload is not None:
                        size += len(record.payload.data)
            for activity in change.activities:
                if activity.result is not None:
                    size += len(activity.result.data)
            for start in change.starts:
                if start.start is not None:
                    size += size_of(start.start)
            return size
        case Start():
            return 512 + len(change.execution.state.data)
        case Append():
            return 256 + len(change.payload.data)
        case _:
            return 128


# --- outcomes ---------------------------------------------------------------------------------


class Refusal(StrEnum):
    """Why a message or a cancel was not taken."""

    NOT_FOUND = "not found"
    CLOSED = "closed"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Started:
    """The instance is there."""


@dataclass(frozen=True, slots=True)
class StartExists:
    """The id is taken. ``same``: by this very request, so that the start has succeeded before."""

    same: bool


@frozen
class Appended:
    """A message, a mark or the end of an activity was stored under ``sequence`` (or was there already: ``fresh=False``)."""

    sequence: int
    owner: str | None
    fresh: bool
    message: MessageRow | None = None
    cancel: CancelMark | None = None
    activity: ActivityRow | None = None


@dataclass(frozen=True, slots=True)
class AppendRefused:
    """Nothing was stored. ``full`` says of a full inbox which bound it has met."""

    reason: Refusal
    full: Full | None = None


@frozen
class Granted:
    """A write was applied; the row's revision is now one higher. ``inbox_seq`` shows what has arrived meanwhile.

    ``arrivals`` are the messages and marks that the write has left with instances, by their ids, and the ends of activities
    that its ``stops`` have left with its own; ``taken`` the ids of those of its starts that nobody waits for and that were left
    alone, because somebody else has the id.
    """

    inbox_seq: int
    arrivals: tuple[tuple[str, Appended], ...] = ()
    taken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The fence did not hold: the row belongs to somebody else. Nothing was written (I6)."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What was taken; it belongs to the claiming node now. ``more``: a limit was reached."""

    snapshots: tuple[Snapshot, ...]
    more: bool
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True, slots=True)
class Recovered:
    """The instance as it stands, still owned by the asking node, or ``None`` where it is not."""

    snapshot: Snapshot | None


@dataclass(frozen=True, slots=True)
class Reported:
    """A report was taken. ``arrival``: what it has left with the instance; ``None`` for a heartbeat.

    ``stopping``: the try has the stop mark.
    """

    arrival: Appended | None = None
    stopping: bool = False


Outcome = Started | StartExists | Appended | AppendRefused | Granted | Refused | Claimed | Recovered | Reported


@dataclass(frozen=True, slots=True)
class Commit:
    """A committed group: the store's time, and an outcome for each change, in order."""

    now: int
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class News:
    """Something has arrived for an instance that the asking node owns. ``activities`` are those that have ended elsewhere.

    ``messages`` are all ends of children, and the events up to ``whole_to`` (``None``: all there are).
    """

    instance_id: str
    incarnation: str
    inbox_seq: int
    cancel: CancelMark | None
    messages: tuple[MessageRow, ...]
    activities: tuple[ActivityRow, ...] = ()
    whole_to: int | None = None


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A stored hold, with what is needed to judge whether new code may try again."""

    instance_id: str
    incarnation: str
    revision: int
    kind: Kind
    hold: Hold


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a node hears when it renews: the store's time, and its levels."""

    now: int
    levels: Levels


# --- nodes and catalogue ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Capability:
    """One registered version of an orchestration and the fingerprint of its code."""

    name: str
    version: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """How a node presents itself. ``lease`` is in microseconds; ``slots`` is how many activities it runs at once."""

    node_id: str
    host: str
    boot_id: str
    pid: int
    library: str
    formats: tuple[int, ...]
    lease: int
    capabilities: tuple[Capability, ...]
    activities: tuple[str, ...]
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    slots: int = 0
    fingerprints: tuple[tuple[str, str], ...] = ()
    """Of the code of its activities, by their names. It changes whenever other arguments may be read."""
    reads: int = BASE_LEVEL
    """The highest level of kinds that its library reads."""
    writes: int = BASE_LEVEL
    """The level to which its library wants the store's write level to rise."""

    @property
    def routes(self) -> tuple[Route, ...]:
        """By which routes it takes activities."""
        plain = [Route(queue, name) for queue in self.queues for name in self.activities]
        plain += [Route(queue, name).narrowed(code) for queue in self.queues for name, code in self.fingerprints]
        newer = [route.of_format(number) for number in self.formats if number != FORMAT for route in plain]
        return (*plain, *newer)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as the store knows it. ``renewals`` standing still for a lease is what a watcher buries it for.

    ``load``: how many activities it ran when it last renewed.
    """

    record: NodeRecord
    started_at: int
    renewed_at: int
    renewals: int
    dead: bool
    load: int = 0


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """The version policy of a name: its text form, and who set it why."""

    name: str
    revision: int
    value: str
    by: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Nodes that are not dead, policies, every kind that was ever routed by, and the store's levels, at ``now``.

    ``library`` is the one that has read it, and that reads the policies.
    """

    now: int
    nodes: tuple[NodeRow, ...]
    policies: Mapping[str, PolicyRow]
    kinds: tuple[Kind, ...]
    levels: Levels = field(default_factory=Levels)
    library: Library = field(default=THIS_LIBRARY, compare=False, repr=False)
    _versions: dict[tuple[str, str | None], frozenset[str]] = field(
        default_factory=lambda: {}, init=False, compare=False, repr=False
    )
    """What :meth:`versions` has returned: it is asked at each start and at each lap, and a catalogue lives for a second."""

    def versions(self, name: str, queue: str | None = None) -> frozenset[str]:
        """Return the versions of a name that nodes have which are not dead, and which serve the queue, if one is given."""
        found = self._versions.get((name, queue))
        if found is None:
            nodes = (node.record for node in self.nodes if queue is None or queue in node.record.queues)
            found = frozenset(has.version for node in nodes for has in node.capabilities if has.name == name)
            self._versions[name, queue] = found
        return found


# --- reads ------------------------------------------------------------------------------------


class Standing(IntEnum):
    """How an open instance stands: no lap of it has begun; it goes on, or waits for something; it cannot go on now."""

    PENDING = 0
    RUNNING = 1
    HELD = 2


@dataclass(frozen=True, slots=True)
class InstanceQuery:
    """What to list; every condition must hold. The newest comes first.

    ``statuses``: only those that stand so; ``other_statuses``: also those in a way that this library does not know.
    ``standings``: of the open ones only those that stand so; they do not narrow down those that have ended. ``held``: whether
    it has a stored hold, has crashed nodes repeatedly (``takeovers >= 3``, unowned), or is of an ``unserved`` kind. ``parent``
    is the id of whose children are asked for, of all its executions unless ``parent_execution`` names one. ``after`` is the
    (created_at, instance_id) of the last row of the page before.
    """

    name: str | None = None
    version: str | None = None
    queue: str | None = None
    statuses: tuple[Status, ...] | None = None
    other_statuses: bool = False
    standings: tuple[Standing, ...] | None = None
    held: bool | None = None
    unserved: tuple[Kind, ...] = ()
    id_prefix: str | None = None
    created_from: int | None = None
    created_until: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    parent: str | None = None
    parent_execution: int | None = None
    limit: int = 100
    after: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """Everything that a dashboard shows of an instance, as stored. ``expires_at``: when it is deleted, having ended.

    ``unread_messages`` counts events only. ``activities`` and ``reports`` (of which commands the child's end waits unread, by
    event id) are read of single instances, not in lists.
    """

    row: InstanceRow
    held: bool
    status: Status | Unknown
    execution: ExecutionRow
    summary: bytes
    custom_status: Payload | None
    created_at: int
    updated_at: int
    created_by: str
    unread_messages: int
    unread_at_end: Mapping[str, int]
    labels: Mapping[str, str]
    activities: tuple[ActivityRow, ...] = ()
    expires_at: int | None = None
    reports: tuple[int, ...] = ()
