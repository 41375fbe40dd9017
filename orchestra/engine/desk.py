"""An instance that this node owns, as it lies on the engine's desk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from orchestra.clock import micros
from orchestra.codec import Payload, pack, unpack
from orchestra.engine.items import ActivityFailure, ActivityKey
from orchestra.errors import Attempt, ErrorInfo
from orchestra.events import ActivityScheduled, attempts_from_wire, attempts_to_wire
from orchestra.providers.rows import ActivityRow, CancelMark, ExecutionRow, HoldKind, Kind, MessageRow, Pin, Snapshot
from orchestra.replay import ActivityDied, Execution, Identity, Input
from orchestra.summary import Tried

__all__ = ["Desk", "Try"]

_NOT_REGISTERED_DELAY: Final = 15_000_000
_KEPT_ATTEMPTS: Final = 20

CRASHED: Final = ErrorInfo("orchestra.NodeLost", "the node that ran it was lost")


@dataclass(slots=True)
class Try:
    """A pending activity: its current try, what went before, and when it may begin (``None``: at once)."""

    event: ActivityScheduled
    attempt: int = 1
    started_at: int = 0
    failed: tuple[Attempt, ...] = ()
    due: int | None = None
    running: bool = False
    heartbeat: Payload | None = None
    stored: bool = False
    changed: bool = False
    last_error: str | None = None
    counted: int = 0
    """How many of the row's take-overs have been counted as attempts."""

    @staticmethod
    def remembered(event: ActivityScheduled, row: ActivityRow | None) -> Try:
        """Return a pending activity as a claim finds it."""
        if row is None:
            return Try(event, started_at=event.at)
        known = unpack(row.attempts)
        failed = attempts_from_wire(known["tries"])
        return Try(
            event,
            row.attempt,
            row.started_at,
            failed,
            row.due,
            heartbeat=row.heartbeat,
            stored=True,
            last_error=str(failed[-1].error) if failed else None,
            counted=known["counted"],
        )

    def row(self, execution: int) -> ActivityRow:
        """Return what the store is to remember."""
        attempts = pack({"tries": attempts_to_wire(self.failed), "counted": self.counted})
        return ActivityRow(execution, self.event.id, self.attempt, self.due, self.started_at, attempts, self.heartbeat)

    def crash(self, takeovers: int, now: int) -> ActivityDied | None:
        """Count attempts that were lost with their node (protocol rule 14). Return the end, if that was the last one."""
        lost, self.counted = takeovers - self.counted, takeovers
        if self.due is not None and self.due > now:
            return None  # it was waiting for its next try, not running
        for _ in range(lost):
            died = self._count(CRASHED, now, final=None)
            if died is not None:
                return died
        self.due = None
        if lost and self._is_too_late(now):
            return self._died(now, "deadline reached")
        return None

    def fail(self, failure: ActivityFailure, now: int, instance_id: str) -> ActivityDied | None:
        """Take note of a failed try. Return the end where there is no next one; else ``due`` says when that begins."""
        self.running = False
        if failure.unregistered:
            # Nothing was tried, so nothing is counted: a deploy must not fail an instance.
            self.due, self.changed, self.last_error = now + _NOT_REGISTERED_DELAY, True, str(failure.error)
            return None
        policy = self.event.retry
        listed = set(policy.non_retryable_names()) & set(failure.type_names)
        died = self._count(failure.error, now, final="not retryable" if failure.non_retryable or listed else None)
        if died is not None:
            return died
        # Seeded, so that the engine needs no source of randomness, and different for each try.
        spread = Random(f"{instance_id}/{self.event.id}/{self.attempt}").random()  # noqa: S311
        self.due = now + policy.delay(self.attempt - 1, spread)
        return self._died(now, "deadline reached") if self._is_too_late(self.due) else None

    def _is_too_late(self, begin: int) -> bool:
        """Return whether a next try would begin behind the policy's deadline."""
        deadline = self.event.retry.deadline
        return deadline is not None and begin > self.started_at + micros(deadline)

    def _count(self, error: ErrorInfo, now: int, final: str | None) -> ActivityDied | None:
        self.failed = (*self.failed, Attempt(self.attempt, now, error))[-_KEPT_ATTEMPTS:]
        self.last_error = str(error)
        self.changed = True
        limit = self.event.retry.max_attempts
        if final is None and limit is not None and self.attempt >= limit:
            final = "attempts exhausted"
        if final is not None:
            return self._died(now, final)
        self.attempt += 1
        return None

    def _died(self, now: int, reason: str) -> ActivityDied:
        return ActivityDied(self.event.id, now, self.failed[-1].error, self.failed, reason)


@dataclass(slots=True)
class Desk:
    """The live state of an owned instance. It is valid for ``revision``; a refused write throws it away (rule 3)."""

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
    tried: tuple[str, ...]
    held_since: int | None
    history_events: int
    history_bytes: int
    remembered: dict[int, ActivityRow]
    inbox: dict[int, MessageRow]
    execution: Execution | None = None
    tries: dict[int, Try] = field(default_factory=dict[int, Try])
    inputs: list[Input] = field(default_factory=list[Input])
    still_running: dict[int, int] = field(default_factory=dict[int, int])
    """Activities, and their attempts, that this node was already running when it got the instance back."""
    releasing: bool = False
    poison: tuple[HoldKind, str] | None = None
    """Why this instance cannot be written as it would go on: what the store will never take, or a fault of the engine."""
    trying: str | None = None
    """The fingerprint of the code that is being run, for a hold to name."""
    armed: int | None = None
    """The instant for which the engine has a timer that will look at this desk."""

    @staticmethod
    def of(snapshot: Snapshot) -> Desk:
        """Return the desk of a claimed instance."""
        row = snapshot.row
        opened_at = snapshot.execution.opened_at
        # Code that opened an execution after the hold has got over it: what was tried before counts no more.
        stands = row.hold is not None and not (row.opened and opened_at is not None and opened_at > row.hold.since)
        return Desk(
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
            tried=row.hold.tried if row.hold is not None and stands else (),
            held_since=row.hold.since if row.hold else None,
            history_events=row.history_events,
            history_bytes=row.history_bytes,
            remembered={activity.event_id: activity for activity in snapshot.activities},
            inbox={message.sequence: message for message in snapshot.messages},
        )

    @property
    def identity(self) -> Identity:
        """Which execution this is."""
        return Identity(self.instance_id, self.incarnation, self.current.number, self.kind.name, self.current.version)

    def key(self, event_id: int) -> ActivityKey:
        """Return the key of one of its activities."""
        return ActivityKey(self.instance_id, self.incarnation, self.current.number, event_id)

    def take_messages(self, messages: Iterable[MessageRow], inbox_seq: int) -> None:
        """Put newly arrived messages into the inbox."""
        for message in messages:
            if message.sequence > self.known_seq:
                self.inbox[message.sequence] = message
        self.known_seq = max(self.known_seq, inbox_seq)

    def running_keys(self) -> list[ActivityKey]:
        """Return the keys of activities that run now."""
        running = [number for number, entry in self.tries.items() if entry.running]
        return [self.key(number) for number in (*running, *self.still_running)]

    def tried_entries(self) -> dict[int, Tried]:
        """Return what is shown of activities that are not in a plain first try."""
        return {
            number: Tried(entry.attempt, entry.due, entry.last_error)
            for number, entry in self.tries.items()
            if entry.attempt > 1 or entry.last_error is not None
        }

    def next_due(self) -> int | None:
        """Return when the earliest waiting try may begin."""
        return min((entry.due for entry in self.tries.values() if entry.due is not None and not entry.running), default=None)
