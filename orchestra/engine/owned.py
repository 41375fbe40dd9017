"""An instance that this node owns, as it lies on the engine's desk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestra.codec import Packed, Payload
from orchestra.engine.attempts import Attempts
from orchestra.engine.messages import ActivityEnded, ActivityFailure, ActivityKey
from orchestra.engine.tasks import how_it_ended
from orchestra.levels import Unknown
from orchestra.replay import ActivityDone, Execution, Identity, Inbox, Input
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import CancelMark, Hold, ParentLink, Pin
from orchestra.store.kinds import HoldKind
from orchestra.store.messages import InboxPage, MessageRow
from orchestra.store.routes import Kind
from orchestra.store.snapshots import Snapshot
from orchestra.store.tasks import ActivityRow
from orchestra.summary import EMPTY_SUMMARY, read_put_backs

__all__ = ["OwnedInstance"]


@dataclass(slots=True)
class OwnedInstance:
    """The live state of an owned instance. It is valid for ``revision``; a refused write throws it
    away (rule 3).
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
    hold: Hold | None
    """What has held it and is not overcome yet: what was tried then counts still."""
    history_events: int
    history_bytes: int
    remembered: dict[int, ActivityRow]
    inbox: Inbox
    origin: str | None
    """The ``traceparent`` of whoever started the instance."""
    parent: ParentLink | None = None
    root_id: str | None = None
    execution: Execution | None = None
    attempts: Attempts = field(default_factory=Attempts)
    inputs: list[Input] = field(default_factory=lambda: [])
    unacknowledged: list[ActivityEnded] = field(default_factory=lambda: [])
    """What activities have reported and no write that stands has recorded yet."""
    still_running: dict[int, int] = field(default_factory=lambda: {})
    """Activities, and their attempts, that this node was already running when it got the instance
    back.
    """
    early: list[ActivityEnded] = field(default_factory=lambda: [])
    """How such activities have ended before the code was loaded."""
    releasing: bool = False
    yielding: bool = False
    """Whether it gives up its place with its next step, unless that ends it."""
    poison: tuple[HoldKind, str] | None = None
    """Why this instance cannot be written as it would go on: what the store will never take, or a
    fault of the engine.
    """
    trying: str | None = None
    """The fingerprint of the code that is being run, for a hold to name."""
    pruned_at: int = 0
    """When its laps were last looked through for old ones, since this node got the instance."""
    wants: tuple[str, ...] = ()
    """Names of events to be read from the store before the next turn: the code waits for them, and
    they are not in memory.
    """
    put_backs: tuple[tuple[int, int], ...] = ()
    """What its row says of how the store's clock was put back since its execution began."""
    beyond: Unknown | None = None
    """What of it this library does not know: it is left to a newer one (protocol rule 37)."""
    summary: Packed = EMPTY_SUMMARY
    """As the last write left it."""
    armed: int | None = None
    """The instant for which the engine has a timer that will look at this desk."""

    @staticmethod
    def of(snapshot: Snapshot, room: InboxPage | None = None) -> OwnedInstance:
        """Return the desk of a claimed instance. ``room`` is how many of its unread events are kept
        in memory.
        """
        row = snapshot.row
        opened_at = snapshot.execution.opened_at
        # Code that opened an execution after the hold has got over it: what was tried before counts
        # no more.
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
            hold=row.hold if stands else None,
            history_events=row.history_events,
            history_bytes=row.history_bytes,
            remembered={activity.event_id: activity for activity in snapshot.activities},
            inbox=Inbox(known, whole_to=snapshot.whole_to, up_to=row.inbox_seq, room=room),
            origin=row.traceparent,
            parent=row.parent,
            root_id=row.root_id,
            # Given here: the factories of the fields would be four calls more, for each instance
            # that is claimed.
            inputs=[],
            unacknowledged=[],
            still_running={},
            early=[],
            put_backs=read_put_backs(snapshot.summary),
            beyond=_unknown(
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
        """Whether its execution has to be replayed before it can go on."""
        ends_at_once = (
            self.poison is not None
            or self.beyond is not None
            or (self.cancel is not None and self.cancel.terminate)
        )
        return self.opened and self.execution is None and not ends_at_once

    def key(self, event_id: int) -> ActivityKey:
        """Return the key of one of its activities."""
        return ActivityKey(self.instance_id, self.incarnation, self.current.number, event_id)

    def take_messages(
        self, messages: Iterable[MessageRow], inbox_seq: int, whole_to: int | None = None
    ) -> None:
        """Put newly arrived messages into the inbox. Of events, they are all there are up to
        ``whole_to``.
        """
        if inbox_seq > self.known_seq:
            new = [message for message in messages if message.sequence > self.known_seq]
            unknown = _unknown(message.kind for message in new)
            if unknown is not None:
                self.beyond = unknown
                new = [message for message in new if not isinstance(message.kind, Unknown)]
            self.inbox.arrive(new, inbox_seq if whole_to is None else whole_to, inbox_seq)
            self.known_seq = inbox_seq

    def end_attempt(
        self, number: int, result: Payload | ActivityFailure, heartbeat: Payload | None, now: int
    ) -> None:
        """Take note that the current try of a pending activity has ended."""
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
        """Take note of tries that were handed out and have ended; of each once, however often it is
        told (I5).
        """
        for row in activities:
            if row.execution != self.current.number:
                continue
            if self.execution is None:
                self.remembered[row.event_id] = (
                    row  # what is pending is known once the code has been loaded
                )
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
        """Take note that the store's clock was put back, which was wrong ``since``: what was
        reckoned on it is put right.
        """
        if self.armed is not None:
            self.armed -= by
        self.pruned_at = min(self.pruned_at, now)
        self.attempts.catch_up(now)
        if self.execution is not None:
            self.execution.put_back(by, since + self.execution.ahead)

    @property
    def has_activities(self) -> bool:
        """Whether anything may run for its execution."""
        return bool(self.attempts or self.still_running or self.remembered)

    def running_keys(self) -> list[ActivityKey]:
        """Return the keys of activities that run now for this instance alone: they end with its
        ownership.
        """
        return [self.key(number) for number in (*self.attempts.running, *self.still_running)]

    def begun_keys(self) -> list[ActivityKey]:
        """Return the keys of all activities that run, those that are handed out included: they end
        with the execution.
        """
        rows = [
            row.event_id
            for row in self.remembered.values()
            if row.route is not None and not row.has_ended
        ]
        handed_out = dict.fromkeys((*self.attempts.handed_out, *rows))
        return [*self.running_keys(), *map(self.key, handed_out)]


def _unknown(kinds: Iterable[object]) -> Unknown | None:
    """Return the first kind that is not known here."""
    return next((kind for kind in kinds if isinstance(kind, Unknown)), None)
