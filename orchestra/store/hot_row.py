"""The hot row of an instance while a group is decided: read once, changed in memory, written
once.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from orchestra.codec import Packed, UserText
from orchestra.store.changes import Start
from orchestra.store.inbox_limits import Waiting
from orchestra.store.instances import (
    CRASHES_BEFORE_DELAY,
    LONGEST_DELAY,
    CancelMark,
    InstanceRow,
    InstanceState,
)
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Appended
from orchestra.store.routes import Kind
from orchestra.store.snapshots import Snapshot
from orchestra.store.tables import HOT_ROW

__all__ = ["HotRow", "started_snapshot"]

_OPEN: Final = Status.OPEN.value
_VALUES: Final = attrgetter(*HOT_ROW.names)


@dataclass(slots=True)
class HotRow:
    """The hot row of an instance. The first fields have the order of
    :data:`~orchestra.store.tables.HOT_ROW`.
    """

    instance_id: str
    incarnation: str
    kind: int
    revision: int
    owner: str | None
    wake_at: int | None
    status: int
    held: bool
    inbox_seq: int
    seen_seq: int
    execution: int
    opened: bool
    takeovers: int
    history_events: int
    history_bytes: int
    updated_at: int
    cancel_at: int | None
    cancel_reason: UserText | None
    cancel_by: str | None
    cancel_terminate: bool
    cancel_seq: int | None
    most_unread: int | None
    most_unread_bytes: int | None
    paused: bool
    boundary_due: int | None
    not_before: int | None
    summary: Packed | None = None
    """A new summary; ``None`` keeps the stored one."""
    read_revision: int = 0
    """The revision under which the row was read. The stored row must still have it at the write
    (I6).
    """
    changed: bool = False
    written: bool = False
    """Whether more than an arrival has changed it."""
    marked: bool = False
    """Whether the group has set or removed the cancel mark."""
    restarted: bool = False
    """Whether the group has begun the ended instance again."""

    def __post_init__(self) -> None:
        self.read_revision = self.revision

    @classmethod
    def started(cls, start: Start, kind: int, now: int) -> HotRow:
        """Return the row that a start makes."""
        execution = start.execution
        row = cls(
            instance_id=start.instance_id,
            incarnation=start.incarnation,
            kind=kind,
            revision=1,
            owner=start.owner,
            wake_at=start.wake_at,
            status=_OPEN,
            held=False,
            inbox_seq=0,
            seen_seq=0,
            execution=execution.number,
            opened=execution.opened_at is not None,
            takeovers=0,
            history_events=0,
            history_bytes=0,
            updated_at=now,
            cancel_at=None,
            cancel_reason=None,
            cancel_by=None,
            cancel_terminate=False,
            cancel_seq=None,
            most_unread=0,
            most_unread_bytes=0,
            paused=False,
            boundary_due=None,
            not_before=start.not_before,
        )
        row.changed = row.written = start.owner is not None
        return row

    @property
    def is_open(self) -> bool:
        """Whether the instance has not ended."""
        return self.status == _OPEN

    def is_due(self, now: int) -> bool:
        """Return whether any node may claim it now."""
        return self.owner is None and self.wake_at is not None and self.wake_at <= now

    def write(self, state: InstanceState, kind: int, status: Any, now: int, *, held: bool) -> None:
        """Apply a write whose fence held."""
        is_open = state.status is Status.OPEN
        self.changed = self.written = True
        self.revision += 1
        self.kind = kind
        self.owner = state.owner if is_open else None
        self.status = status
        self.held = is_open and (held or self.paused)
        self.paused = is_open and self.paused
        # A message that the turn has not seen makes the instance ready, even if the turn would park
        # it (rule 4).
        self.wake_at = (
            None if not is_open else 0 if self.inbox_seq > state.seen_seq else state.wake_at
        )
        self.seen_seq = state.seen_seq
        self.execution = state.execution
        self.opened = state.opened
        self.takeovers = state.takeovers
        self.history_events = state.history_events
        self.history_bytes = state.history_bytes
        self.summary = state.summary
        self.boundary_due = state.boundary_due if is_open else None
        self.updated_at = now

    @property
    def is_claimable(self) -> bool:
        """Whether a node may claim it, at its wake time."""
        return self.is_open and self.owner is None and not self.held and self.wake_at is not None

    def claim(self, node_id: str) -> None:
        """Give it to a node."""
        self._change_hands(node_id)

    def disown(self, wake_at: int | None) -> None:
        """Release it from its owner, until a time."""
        self._change_hands(None)
        self.wake_at = wake_at

    def revoke(self, now: int) -> None:
        """Take it from its owner, if any, so that an operator's change reaches the next owner (rule
        6).
        """
        self.disown(self.wake_at if self.owner is None else 0)
        self.updated_at = now

    def suspend(self, now: int) -> None:
        """Put an operator's hold on it."""
        self.revoke(now)
        self.paused = self.held = True

    def resume(self, now: int) -> None:
        """End an operator's hold, and what else holds it."""
        self.changed = self.written = True
        self.revision += 1
        self.paused = self.held = False
        self.wake_at = self.wake_at or 0
        self.updated_at = now

    def begin_again(self, start: Start, kind: int, now: int) -> None:
        """Begin an ended instance again, under a new incarnation (rule 31)."""
        fresh = HotRow.started(start, kind, now)
        self.changed = self.written = self.restarted = True
        self.revision += 1
        self.incarnation = fresh.incarnation
        self.kind, self.wake_at, self.status = kind, fresh.wake_at, _OPEN
        self.owner, self.held, self.paused = None, False, False
        self.execution, self.opened = start.execution.number, fresh.opened
        self.seen_seq = self.inbox_seq
        self.takeovers = self.history_events = self.history_bytes = 0
        self.updated_at = now
        self.unmark()
        self.most_unread = self.most_unread_bytes = 0
        self.boundary_due, self.not_before = None, fresh.not_before
        self.summary = Packed(b"")

    def unmark(self) -> None:
        """Remove the cancel mark."""
        self.changed = self.marked = True
        self.cancel_at = self.cancel_reason = self.cancel_by = self.cancel_seq = None
        self.cancel_terminate = False

    def take_over(self, now: int) -> None:
        """Release it from a dead owner. From the third time on the next claim waits (rule 14)."""
        self.takeovers += 1
        delay = min(1_000_000 << min(self.takeovers, 9), LONGEST_DELAY)
        self.disown(0 if self.takeovers < CRASHES_BEFORE_DELAY else now + delay)

    def rouse(self, wake_at: int, now: int) -> None:
        """Make it due earlier."""
        self.changed = self.written = True
        self.wake_at = wake_at
        self.updated_at = now

    def _change_hands(self, owner: str | None) -> None:
        self.changed = self.written = True
        self.revision += 1
        self.owner = owner

    def recover(self) -> None:
        """Fence off writes of an earlier revision (rule 9)."""
        self.changed = self.written = True
        self.revision += 1

    def ring(self, now: int, ready: int = 0) -> int:
        """Count an arrival and make the instance ready. Return the arrival's number (rule 4).

        Args:
            ready: since when it is due; 0 comes first.
        """
        self.changed = True
        self.inbox_seq += 1
        self.updated_at = now
        self._make_ready(now, ready)
        return self.inbox_seq

    def nudge(self, now: int) -> None:
        """Take it from its owner, if any, and make it ready, so that its execution hears a request
        (rule 6).
        """
        was_owned = self.owner is not None
        self._change_hands(None)
        self.updated_at = now
        if was_owned:
            self.wake_at = 0
        else:
            self._make_ready(now, 0)

    def _make_ready(self, now: int, ready: int) -> None:
        ready = max(ready, self._first_turn_at(now))
        delayed = self.takeovers >= CRASHES_BEFORE_DELAY and self.owner is None
        # An instance that crashed its owners repeatedly waits out its delay (rule 14). An arrival
        # does not make it due sooner, but limits the wait to the longest delay.
        if delayed and self.wake_at is not None and self.wake_at > now:
            self.wake_at = min(self.wake_at, now + LONGEST_DELAY)
        else:
            self.wake_at = ready if self.wake_at is None else min(self.wake_at, ready)

    def _first_turn_at(self, now: int) -> int:
        """Return before which time no arrival makes the instance ready; 0: any does at once.

        Only a delayed start waits, until its first turn. A cancel mark ends that wait, for it ends
        the instance without running code.
        """
        first = self.not_before or 0
        return first if first > now and not self.opened and self.cancel_at is None else 0

    def mark_by_owner(self, mark: CancelMark) -> None:
        """Set a cancel mark that the owner has delivered already."""
        self.changed = self.marked = True
        self.cancel_at, self.cancel_reason = mark.at, mark.reason
        self.cancel_by, self.cancel_terminate = mark.by, mark.terminate
        self.cancel_seq = self.inbox_seq

    def mark(self, mark: CancelMark) -> Appended:
        """Set the cancel mark and make the instance ready."""
        self.mark_by_owner(mark)
        self.cancel_seq = self.ring(mark.at)
        if mark.terminate and self.held:
            # Terminate beats a hold: the next owner ends it without running code (rule 32).
            self.written = True
            self.held = self.paused = False
        return Appended(self.cancel_seq, self.owner, fresh=True, cancel=mark)

    def release(self, now: int) -> None:
        """End a hold."""
        self.changed = self.written = True
        self.revision += 1
        self.held = False
        self.wake_at = 0
        self.updated_at = now

    @property
    def most(self) -> Waiting | None:
        """An upper bound of the inbox; ``None``: it was never counted."""
        if self.most_unread is None or self.most_unread_bytes is None:
            return None
        return Waiting(self.most_unread, self.most_unread_bytes)

    @most.setter
    def most(self, waiting: Waiting) -> None:
        self.changed = True
        self.most_unread, self.most_unread_bytes = waiting

    @property
    def cancel(self) -> CancelMark | None:
        """The cancel mark, if there is one."""
        if self.cancel_at is None:
            return None
        return CancelMark(
            self.cancel_at,
            self.cancel_reason or UserText(""),
            self.cancel_by or "",
            bool(self.cancel_terminate),
        )

    @property
    def values(self) -> tuple[Any, ...]:
        """The values of :data:`~orchestra.store.tables.HOT_ROW`."""
        return _VALUES(self)

    @property
    def written_values(self) -> tuple[Any, ...]:
        """The values of :data:`~orchestra.store.tables.WRITTEN_ROW`."""
        return (
            self.kind,
            self.revision,
            self.owner,
            self.wake_at,
            self.status,
            self.held,
            self.inbox_seq,
            self.seen_seq,
            self.execution,
            self.opened,
            self.takeovers,
            self.history_events,
            self.history_bytes,
            self.updated_at,
            self.most_unread,
            self.most_unread_bytes,
            self.paused,
            self.boundary_due,
        )

    @property
    def mark_values(self) -> tuple[Any, ...]:
        """The values of :data:`~orchestra.store.tables.CANCEL_MARK`."""
        return (
            self.cancel_at,
            self.cancel_reason,
            self.cancel_by,
            self.cancel_terminate,
            self.cancel_seq,
        )

    def instance(self, kind: Kind) -> InstanceRow:
        """Return the row as owners know it, without the cold row's columns."""
        return InstanceRow(
            instance_id=self.instance_id,
            incarnation=self.incarnation,
            kind=kind,
            revision=self.revision,
            owner=self.owner,
            wake_at=self.wake_at,
            inbox_seq=self.inbox_seq,
            seen_seq=self.seen_seq,
            execution=self.execution,
            opened=bool(self.opened),
            takeovers=self.takeovers,
            history_events=self.history_events,
            history_bytes=self.history_bytes,
            cancel=self.cancel,
            paused=bool(self.paused),
            boundary_due=self.boundary_due,
            not_before=self.not_before,
        )


def started_snapshot(start: Start) -> Snapshot:
    """Return what the owner of a start has, if that makes a new instance without messages."""
    # As HotRow.started has it, which is made only with the group.
    row = InstanceRow(
        instance_id=start.instance_id,
        incarnation=start.incarnation,
        kind=start.kind,
        revision=1,
        owner=start.owner,
        wake_at=start.wake_at,
        inbox_seq=0,
        seen_seq=0,
        execution=start.execution.number,
        opened=start.execution.opened_at is not None,
        takeovers=0,
        history_events=0,
        history_bytes=0,
        pin=start.pin,
        traceparent=start.traceparent,
        parent=start.parent,
        root_id=start.root_id,
        not_before=start.not_before,
    )
    return Snapshot(row, start.execution, whole_to=0)
