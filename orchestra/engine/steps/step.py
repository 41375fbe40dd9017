"""A step: what running an instance has come to, and the one write that records it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from orchestra.clock import micros
from orchestra.codec import Packed, Payload, UserText
from orchestra.engine.attempts import PendingActivity
from orchestra.engine.messages import STOPPED, ActivityEnded, InstanceEnded, RunActivity, ToShell
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.placement import FreePlaces
from orchestra.errors import ErrorInfo
from orchestra.events import (
    ChildStarted,
    ContinuedAsNew,
    DetachedStarted,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    TerminalEvent,
    error_to_bytes,
    to_record,
)
from orchestra.replay import Drift, SetAside
from orchestra.retention import Retention
from orchestra.store.changes import (
    NO_EXTRAS,
    ChildCancel,
    ChildStart,
    Send,
    Stop,
    Write,
    WriteExtras,
)
from orchestra.store.executions import PRUNED_AT_ONCE, Closing, ExecutionDelta, Prune
from orchestra.store.instances import (
    CancelMark,
    Hold,
    InstanceState,
    Nudge,
    OperatorHold,
    ParentLink,
)
from orchestra.store.kinds import ExecutionEnd, Status
from orchestra.store.messages import Aside
from orchestra.store.outcomes import RefusedSend
from orchestra.store.requests import RequestAnswer
from orchestra.store.streams import UNBOUNDED, Published, bounds_of
from orchestra.store.tasks import ActivityRow, Task
from orchestra.summary import EMPTY_SUMMARY, write_summary
from orchestra.telemetry import Record

__all__ = ["Step", "closed_by", "end_kind", "run_activity", "write_of"]

_LOOKS_FOR_OLD: Final = 8
"""How often a node looks for old laps while the time passes for which they are kept."""

_MOST_OVER: Final = PRUNED_AT_ONCE // 2
"""After how many laps at the latest the oldest ones go: fewer than one deletion takes, so that a
backlog shrinks.
"""

_FAMILY_AT_ONCE: Final = 100
"""How many ended children of deleted laps the write of a boundary marks for deletion, at least. It
marks twice as many as its own laps have had, so that a backlog shrinks.
"""

_SPREAD: Final = 2_654_435_761
"""Knuth's multiplier: it spreads lap numbers."""

_WITHDRAWN: Final = STOPPED.to_bytes()
"""How a cancelled attempt ends that was handed out and that no node has taken."""


class Step:
    """What one step has gathered.

    Args:
        now: the store's time.
        first: the number of the execution in which it began.
        free: how many more activities the node can run.
        crowded: whether others are due, and this node has no place for them.
        early: ends of activities that came before the execution was loaded.
    """

    __slots__ = (
        "children",
        "completed",
        "consumed",
        "crowded",
        "deltas",
        "drifts",
        "due",
        "early",
        "extras",
        "failure",
        "first",
        "free",
        "handed_over",
        "hold",
        "needs_newer_library",
        "now",
        "outbox",
        "records",
        "retain",
        "status",
        "unservable",
        "waits_for_level",
        "wake_at",
    )

    # Written out: each step makes one, and factories of a dataclass would be nine more calls.
    def __init__(
        self,
        now: int,
        first: int,
        free: FreePlaces,
        *,
        crowded: bool = False,
        early: Sequence[ActivityEnded] = (),
    ) -> None:
        self.now: int = now
        self.first: int = first
        self.free: FreePlaces = free
        self.crowded: bool = crowded
        self.early: Sequence[ActivityEnded] = early
        self.deltas: list[ExecutionDelta] = []
        self.outbox: list[ToShell] = []
        """What the shell does once the step's write stands."""
        self.records: list[Record] = []
        self.consumed: list[int] = []
        self.completed: list[int] = []
        self.extras: StepExtras | None = None
        """What few steps gather; ``None``: none of it. See :meth:`further`."""
        self.children: int = 0
        """How many children the laps have had that have ended."""
        self.status: Status = Status.OPEN
        self.hold: Hold | None = None
        self.due: Nudge | CancelMark | OperatorHold | None = None
        """What a boundary that was due does to the instance."""
        self.drifts: Sequence[Drift] = ()
        """Where the code gives other values than its history, which counts."""
        self.failure: ErrorInfo | None = None
        """Why the instance has failed, if it has."""
        self.unservable: bool = False
        """Whether this node cannot run the instance's next execution."""
        self.needs_newer_library: bool = False
        self.waits_for_level: bool = False
        """Whether its code asks for what the store's write level does not allow yet."""
        self.wake_at: int | None = None
        self.retain: bool = True
        """Whether this node goes on owning the instance."""
        self.handed_over: list[Task] = []
        """The activities that run on here although the instance leaves."""

    @property
    def pauses(self) -> bool:
        """Whether the instance is held as by an operator, because its boundary was due."""
        return isinstance(self.due, OperatorHold)

    def further(self) -> StepExtras:
        """Return what few steps gather, to add to it."""
        if self.extras is None:
            self.extras = StepExtras()
        return self.extras


class StepExtras:
    """What few steps gather. It is made when there is some, so that others pay for none of it."""

    def __init__(self) -> None:
        self.set_aside: list[SetAside] = []
        """Messages that do not decode. They are consumed as well."""
        self.answers: list[RequestAnswer] = []
        """The answers to requests."""
        self.starts: list[ChildStart] = []
        self.cancels: list[ChildCancel] = []
        self.unresolved: dict[ParentLink, ChildStarted | DetachedStarted] = {}
        """Starts of names that the catalogue does not have. The engine asks the store once more."""
        self.sends: list[Send] = []
        self.custom_status: Payload | None = None
        self.labels: dict[str, str | None] = {}
        self.published: list[Published] = []
        self.refused: list[RefusedSend] = []
        """Refused sends whose refusal no code awaits."""


def run_activity(instance: OwnedInstance, activity: PendingActivity) -> RunActivity:
    """Return the message that begins an attempt."""
    return RunActivity(
        key=instance.key(activity.event.id),
        name=activity.event.name,
        arguments=activity.event.arguments,
        attempt=activity.attempt,
        timeout=activity.event.timeout,
        heartbeat_timeout=activity.event.heartbeat_timeout,
        last_heartbeat=activity.heartbeat,
        orchestration=instance.kind.name,
        version=instance.current.version,
        traceparent=instance.current.traceparent,
        session=None if activity.event.queue is None else activity.node,
    )


# --- the write --------------------------------------------------------------------------------


def write_of(
    instance: OwnedInstance,
    step: Step,
    node_id: str,
    retention: Retention,
    kept: dict[int, ActivityRow],
) -> Write:
    """Return the write that records a step, and change the instance as if it were granted.

    Args:
        retention: how much of the instance's past is kept.
        kept: what a hold keeps of its activities.
    """
    if step.deltas or _is_parked(instance, step):
        # A turn was made, so what crashed before it has been overcome (rule 14).
        instance.takeovers = 0
        instance.attempts.forget_crashes()
    changed = instance.attempts.take_changed()
    rows: dict[int, ActivityRow] = {}
    if changed:
        step.handed_over.extend(
            _task(instance, activity) for activity in changed if activity.owner is not None
        )
        if step.status is Status.OPEN:
            rows = {
                activity.event.id: activity.row(instance.current.number) for activity in changed
            }
    rows |= kept
    summary = EMPTY_SUMMARY
    if (step.needs_newer_library or step.waits_for_level) and not step.deltas:
        summary = instance.summary  # nothing of it has changed
    if instance.execution is not None and instance.execution.level > instance.kind.level:
        instance.kind = instance.kind._replace(level=instance.execution.level)
    if instance.execution is not None and step.status is Status.OPEN:
        summary = write_summary(
            instance.execution.pending,
            instance.execution.commands.counts,
            instance.attempts.shown,
            instance.execution.time.put_backs,
            instance.execution.commands.boundary_awaited_since,
        )
    state = InstanceState(
        kind=instance.kind,
        owner=node_id if step.retain else None,
        wake_at=step.wake_at,
        seen_seq=instance.known_seq,
        execution=instance.current.number,
        opened=instance.opened,
        takeovers=instance.takeovers,
        status=step.status,
        history_events=instance.history_events,
        history_bytes=instance.history_bytes,
        summary=summary,
        boundary_due=instance.boundary_due,
    )
    unmarked = instance.attempts.take_unmarked()
    write = Write(
        instance_id=instance.instance_id,
        incarnation=instance.incarnation,
        revision=instance.revision,
        owner=node_id,
        state=state,
        executions=tuple(step.deltas),
        consumed=tuple(step.consumed),
        activities=tuple(rows.values()),
        completed=tuple(step.completed),
        hold=step.hold,
        prune=None
        if instance.current.number == step.first or not step.deltas
        else _prune(instance, step.first, step.now, retention, step.children),
        has_parent=instance.parent is not None,
        extras=NO_EXTRAS
        if step.extras is None and step.due is None and not unmarked
        else _extras_of(step, unmarked, retention),
    )
    instance.revision += 1
    instance.seen_seq = instance.known_seq
    if step.status is not Status.OPEN and (closed := step.deltas[-1].closed) is not None:
        step.outbox.append(
            InstanceEnded(instance.instance_id, step.status, closed.output, closed.error)
        )
    return write


def _extras_of(step: Step, unmarked: Iterable[int], retention: Retention) -> WriteExtras:
    """Return what few writes do.

    Args:
        unmarked: the activities that get a stop mark.
    """
    stops = tuple([Stop(number, _WITHDRAWN) for number in unmarked])
    gathered = step.extras
    if gathered is None:
        return WriteExtras(stops=stops, due=step.due)
    return WriteExtras(
        custom_status=gathered.custom_status,
        starts=tuple(gathered.starts),
        cancels=tuple(gathered.cancels),
        sends=tuple(gathered.sends),
        stops=stops,
        labels=tuple(gathered.labels.items()),
        set_aside=tuple(
            [Aside(one.message.sequence, UserText(one.reason)) for one in gathered.set_aside]
        ),
        answers=tuple(gathered.answers),
        published=tuple(gathered.published),
        stream_bounds=bounds_of(retention.streams) if gathered.published else UNBOUNDED,
        due=step.due,
    )


def _is_parked(instance: OwnedInstance, step: Step) -> bool:
    """Return whether the instance is released in order, to wait: this node has survived it."""
    return not (step.retain or step.unservable or instance.releasing) and step.hold is None


def _task(instance: OwnedInstance, activity: PendingActivity) -> Task:
    """Return a handed-over attempt as the task that runs on here."""
    return Task(
        *instance.key(activity.event.id),
        revision=activity.revision,
        attempt=activity.attempt,
        orchestration=instance.kind.name,
        version=instance.current.version,
        scheduled=to_record(activity.event),
        heartbeat=activity.heartbeat,
        traceparent=instance.current.traceparent,
        stopping=activity.marked,
    )


def _prune(
    instance: OwnedInstance, first: int, now: int, retention: Retention, children: int
) -> Prune | None:
    """Return which old laps the write of a boundary deletes.

    Args:
        children: how many children the closed laps have had.
    """
    number = instance.current.number
    closed_until: int | None = None
    if retention.keep_for is not None:
        age = micros(retention.keep_for)
        if (
            now - instance.pruned_at >= age // _LOOKS_FOR_OLD
            or number // _MOST_OVER != first // _MOST_OVER
        ):
            instance.pruned_at, closed_until = now, now - age
    histories = _surplus(retention.histories, first - 1, number - 1)
    executions = _surplus(retention.executions, first - 1, number - 1)
    family = 0
    if retention.children == "with_lap" and (
        executions or closed_until is not None or (children and _has_deleted(number, retention))
    ):
        family = max(_FAMILY_AT_ONCE, 2 * children)
    if not (histories or executions or closed_until is not None or family):
        return None
    # Open children of old laps must not hide ended ones behind them: now and then the search begins
    # somewhere else.
    family_from = (
        (number * _SPREAD & 0xFFFFFFFF) * number >> 32 if family and number % 4 == 0 else 0
    )
    return Prune(histories, executions, closed_until, family, family_from)


def _has_deleted(number: int, retention: Retention) -> bool:
    """Return whether laps of an instance that has come to this lap may have no row."""
    kept = retention.executions
    return retention.keep_for is not None or (kept is not None and number - 1 > kept)


def _surplus(kept: int | None, before: int, closed: int) -> int:
    """Return up to which lap the surplus goes as the closed laps grow from ``before`` to
    ``closed``.

    Several go at a time: one deletion for as many laps as are kept, or for 500.
    """
    if kept is None:
        return 0
    part = min(kept, _MOST_OVER)
    if closed // part == before // part:
        return 0
    return max(0, closed // part * part - kept)


# --- ends of executions -----------------------------------------------------------------------


def end_kind(ending: TerminalEvent) -> ExecutionEnd:
    """Return the stored kind of an execution's end."""
    match ending:
        case ExecutionCompleted():
            return ExecutionEnd.COMPLETED
        case ExecutionFailed():
            return ExecutionEnd.FAILED
        case ExecutionCancelled():
            return ExecutionEnd.CANCELLED
        case ContinuedAsNew():
            return ExecutionEnd.CONTINUED_AS_NEW
        case _:
            return ExecutionEnd.TERMINATED


def closed_by(ending: TerminalEvent, now: int) -> Closing:
    """Return an execution's end as its row keeps it."""
    output = ending.output if isinstance(ending, ExecutionCompleted) else None
    error: Packed | None = None
    if isinstance(ending, ExecutionFailed):
        error = error_to_bytes(ending.error)
    elif isinstance(ending, ExecutionCancelled):
        error = error_to_bytes(ErrorInfo("orchestra.Cancelled", ending.reason))
    return Closing(now, end_kind(ending), output, error)
