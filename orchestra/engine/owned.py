"""What a node has in memory of instances: those that it owns, and executions of released ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestra.clock import from_micros
from orchestra.codec import Packed, Payload
from orchestra.context import BoundaryRequest
from orchestra.engine.attempts import (
    Attempts,
    PendingActivity,
    how_it_ended,
    require_opened_row,
)
from orchestra.engine.messages import ActivityFailure, ActivityKey
from orchestra.errors import PayloadUnreadable
from orchestra.levels import Unknown
from orchestra.replay import ActivityDone, Execution, Identity, Inbox, Input
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import CancelMark, Hold, Nudge, OperatorHold, ParentLink, Pin
from orchestra.store.kinds import HoldKind
from orchestra.store.messages import InboxPage, MessageRow, QueueName
from orchestra.store.routes import Kind
from orchestra.store.snapshots import Snapshot
from orchestra.store.tasks import ActivityRow
from orchestra.summary import EMPTY_SUMMARY, read_put_backs

__all__ = ["ExecutionCache", "OwnedInstance"]


@dataclass(slots=True)
class OwnedInstance:
    """The live state of an owned instance.

    It is valid for ``revision``. If a write is refused, the engine drops it (rule 3).
    """

    instance_id: str
    incarnation: str
    revision: int
    kind: Kind
    opened: bool
    takeovers: int
    seen_seq: int
    known_seq: int
    current: ExecutionRow
    cancel: CancelMark | None
    pin: Pin | None
    nudge: Nudge | None
    """The last nudge. It counts for the execution that it names (rule 40)."""
    hold: Hold | None
    """The hold that it has not overcome yet: the code that was tried then still counts."""
    history_events: int
    history_bytes: int
    stored_activities: dict[int, ActivityRow]
    """The rows of its activities, until its execution is loaded."""
    inbox: Inbox
    origin: str | None
    """The ``traceparent`` of its starter."""
    parent: ParentLink | None = None
    root_id: str | None = None
    boundary_due: int | None = None
    """When its execution should have reached its boundary; fixed when it opened."""
    operator_hold: OperatorHold | None = None
    """The last hold of an operator, or of a boundary that was due."""
    not_before: int | None = None
    """When the first turn of a delayed start may run."""
    execution: Execution | None = None
    attempts: Attempts = field(default_factory=Attempts)
    inputs: list[Input] = field(default_factory=lambda: [])
    still_running: dict[int, int] = field(default_factory=lambda: {})
    """Activities with their attempts that ran here already when this node got the instance back."""
    releasing: bool = False
    yielding: bool = False
    """Whether its next step gives up its place, unless it ends the instance."""
    poison: tuple[HoldKind, str] | None = None
    """Why it must be held as the store has it: the store refuses its write, or the engine
    failed.
    """
    trying: str | None = None
    """The fingerprint of the code that runs, for a hold to name."""
    pruned_at: int = 0
    """When this node last looked for old laps to delete."""
    to_read: tuple[QueueName, ...] = ()
    """Names of awaited events that the engine must read from the store before the next turn."""
    put_backs: tuple[tuple[int, int], ...] = ()
    """How the store's clock was put back since its execution began, from its row."""
    unopened: PayloadUnreadable | None = None
    """Why it must be held for a sealed value, which has come for it."""
    unknown: Unknown | None = None
    """A kind in its rows that this library does not know. A newer library must go on (rule 37)."""
    summary: Packed = EMPTY_SUMMARY
    """The summary that the last write stored."""
    armed: int | None = None
    """When the run queue's timer for it fires."""

    @staticmethod
    def of(snapshot: Snapshot, room: InboxPage | None = None) -> OwnedInstance:
        """Return the live state of a claimed instance.

        Args:
            snapshot: what the claim has read.
            room: how many of its unread events are kept in memory.
        """
        row = snapshot.row
        opened_at = snapshot.execution.opened_at
        # Code that opened an execution after the hold has overcome it.
        stands = row.hold is not None and not (
            row.opened and opened_at is not None and opened_at > row.hold.since
        )
        known = [message for message in snapshot.messages if not isinstance(message.kind, Unknown)]
        return OwnedInstance(
            instance_id=row.instance_id,
            incarnation=row.incarnation,
            revision=row.revision,
            kind=row.kind,
            opened=row.opened,
            takeovers=row.takeovers,
            seen_seq=row.seen_seq,
            known_seq=row.inbox_seq,
            current=snapshot.execution,
            cancel=row.cancel,
            pin=row.pin,
            nudge=row.nudge,
            hold=row.hold if stands else None,
            history_events=row.history_events,
            history_bytes=row.history_bytes,
            stored_activities={activity.event_id: activity for activity in snapshot.activities},
            inbox=Inbox(known, whole_to=snapshot.whole_to, up_to=row.inbox_seq, room=room),
            origin=row.traceparent,
            parent=row.parent,
            root_id=row.root_id,
            boundary_due=row.boundary_due,
            operator_hold=row.operator_hold,
            not_before=row.not_before,
            # Given here: the fields' factories would be two more calls per claimed instance.
            inputs=[],
            still_running={},
            put_backs=read_put_backs(snapshot.summary),
            unknown=_first_unknown(
                (
                    snapshot.execution.resolution.how,
                    *(message.kind for message in snapshot.messages),
                )
            ),
            summary=snapshot.summary,
        )

    @property
    def identity(self) -> Identity:
        """Which execution this is."""
        return Identity(
            self.instance_id,
            self.incarnation,
            self.current.number,
            self.kind.name,
            self.current.version,
        )

    @property
    def needs_history(self) -> bool:
        """Whether its execution must be replayed before it can go on."""
        ends_at_once = (
            self.poison is not None
            or self.unknown is not None
            or (self.cancel is not None and self.cancel.terminate)
        )
        return self.opened and self.execution is None and not ends_at_once

    @property
    def request(self) -> BoundaryRequest | None:
        """The request that its current execution reaches its boundary soon."""
        nudge = self.nudge
        if nudge is None or nudge.execution != self.current.number:
            return None
        return BoundaryRequest(from_micros(nudge.at), nudge.by, nudge.reason)

    def is_delayed(self, now: int) -> bool:
        """Whether it is a delayed start whose time has not come. A cancel mark ends the wait."""
        return (
            self.not_before is not None
            and now < self.not_before
            and not self.opened
            and self.cancel is None
        )

    def key(self, event_id: int) -> ActivityKey:
        """Return the key of one of its activities."""
        return ActivityKey(self.instance_id, self.incarnation, self.current.number, event_id)

    # --- what comes in ---

    def take_messages(
        self, messages: Iterable[MessageRow], inbox_seq: int, whole_to: int | None = None
    ) -> None:
        """Put new messages into the inbox. Of events, they are all there are up to ``whole_to``."""
        if inbox_seq > self.known_seq:
            new = [message for message in messages if message.sequence > self.known_seq]
            unknown = _first_unknown(message.kind for message in new)
            if unknown is not None:
                self.unknown = unknown
                new = [message for message in new if not isinstance(message.kind, Unknown)]
            self.inbox.arrive(new, inbox_seq if whole_to is None else whole_to, inbox_seq)
            self.known_seq = inbox_seq

    def end_attempt(
        self, number: int, result: Payload | ActivityFailure, heartbeat: Payload | None, now: int
    ) -> None:
        """Take in the end of a pending activity's current attempt."""
        activity = self.attempts.get(number)
        assert activity is not None
        activity.heartbeat = heartbeat or activity.heartbeat
        if isinstance(result, ActivityFailure):
            died = self.attempts.fail(number, result, now, self.instance_id)
            if died is not None:
                self.inputs.append(died)
        elif activity.stopping:
            self.attempts.end(number)
            self.inputs.append(activity.stopped(now))  # its late result is dropped
        else:
            self.attempts.end(number)
            self.inputs.append(ActivityDone(number, now, activity.attempt, result))

    def take_ended(self, activities: Iterable[ActivityRow], now: int) -> None:
        """Take in the ends of handed-out attempts. Each counts once, however often it comes
        (I5).
        """
        for row in activities:
            if row.execution != self.current.number:
                continue
            try:
                require_opened_row(row)
            except PayloadUnreadable as error:
                self.unopened = error
                continue
            if self.execution is None:
                # Which activities are pending is known once the code is loaded.
                self.stored_activities[row.event_id] = row
                continue
            activity = self.attempts.get(row.event_id)
            if (
                activity is not None
                and activity.route is not None
                and activity.attempt == row.attempt
            ):
                activity.revision = row.revision
                self.end_attempt(row.event_id, how_it_ended(row), row.heartbeat, now)

    def put_back(self, by: int, since: int, now: int) -> None:
        """Correct its times: the store's clock was put back by ``by``, and was wrong ``since``."""
        if self.armed is not None:
            self.armed -= by
        self.pruned_at = min(self.pruned_at, now)
        self.attempts.catch_up(now)
        if self.execution is not None:
            time = self.execution.time
            time.put_back(by, since + time.ahead)

    # --- its activities ---

    def running(self, key: ActivityKey, attempt: int) -> PendingActivity | None:
        """Return an activity, if this attempt runs, and for this very execution."""
        if (self.incarnation, self.current.number) != (key.incarnation, key.execution):
            return None
        activity = self.attempts.get(key.event_id)
        is_running = activity is not None and activity.running and activity.attempt == attempt
        return activity if is_running else None

    @property
    def has_activities(self) -> bool:
        """Whether anything may run for its execution."""
        return bool(self.attempts or self.still_running or self.stored_activities)

    def running_keys(self) -> list[ActivityKey]:
        """Return the keys of activities that end when this node loses the instance."""
        return [self.key(number) for number in (*self.attempts.running, *self.still_running)]

    def begun_keys(self) -> list[ActivityKey]:
        """Return the keys of all activities that end with the execution, handed-out ones too."""
        rows = [
            row.event_id
            for row in self.stored_activities.values()
            if row.route is not None and not row.has_ended
        ]
        handed_out = dict.fromkeys((*self.attempts.handed_out, *rows))
        return [*self.running_keys(), *map(self.key, handed_out)]


class ExecutionCache:
    """Executions of released instances: a wake-up then costs a step instead of a replay.

    It keeps at most ``limit``, and drops the least recently released ones first. It also keeps the
    executions that leave memory until they are closed where code may run: their ``finally`` blocks
    are code, and may block.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._cached: OrderedDict[str, tuple[str, int, Execution]] = OrderedDict()
        self._discarded: list[Execution] = []

    def __len__(self) -> int:
        return len(self._cached)

    def __contains__(self, instance_id: str) -> bool:
        return instance_id in self._cached

    def add(self, instance: OwnedInstance) -> None:
        """Keep the execution of a released instance as its last acknowledged write left it."""
        execution = instance.execution
        if execution is None or execution.ending is not None:
            return
        self._cached[instance.instance_id] = instance.incarnation, instance.revision, execution
        self._cached.move_to_end(instance.instance_id)
        if len(self._cached) > self._limit:
            _, (_, _, oldest) = self._cached.popitem(last=False)
            self._discarded.append(oldest)

    def take(self, instance: OwnedInstance) -> Execution | None:
        """Return the execution of a claimed instance, if the cached one is still valid."""
        cached = self._cached.pop(instance.instance_id, None)
        if cached is None:
            return None
        incarnation, revision, execution = cached
        # Valid only if nothing but the claim followed this node's own acknowledged write (rule 3).
        mine = incarnation, revision + 1, execution.execution_id
        if instance.opened and mine == (
            instance.incarnation,
            instance.revision,
            instance.current.number,
        ):
            return execution
        self._discarded.append(execution)
        return None

    def put_back(self, by: int, since: int) -> None:
        """Correct the times of all executions after the store's clock was put back."""
        for _, _, execution in self._cached.values():
            execution.time.put_back(by, since + execution.time.ahead)

    def discard(self, instance: OwnedInstance) -> None:
        """Close the execution of a dropped instance when code may run."""
        if instance.execution is not None:
            self._discarded.append(instance.execution)

    @property
    def has_discarded(self) -> bool:
        """Whether an execution waits to be closed."""
        return bool(self._discarded)

    def take_discarded(self) -> Execution | None:
        """Return the next execution to close."""
        return self._discarded.pop() if self._discarded else None

    def clear(self) -> None:
        """Discard all executions."""
        for _, _, execution in self._cached.values():
            self._discarded.append(execution)
        self._cached.clear()


def _first_unknown(kinds: Iterable[object]) -> Unknown | None:
    """Return the first kind that this library does not know."""
    return next((kind for kind in kinds if isinstance(kind, Unknown)), None)
