"""The hot rows of a group, under their locks: read once, changed in memory, written once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestra.providers.inboxes import Waiting
from orchestra.providers.postgres.arrays import Blobs, Flags, Numbers, Texts, columns
from orchestra.providers.rows import (
    CRASHES_BEFORE_DELAY,
    LONGEST_DELAY,
    Appended,
    CancelMark,
    InstanceRow,
    InstanceState,
    Kind,
    Status,
    Write,
)

__all__ = ["Row", "fenced_arrays", "row_arrays"]

_OPEN: Final = Status.OPEN.value


@dataclass(slots=True)
class Row:
    """The hot row of an instance. The fields stand in the order of the statements' columns."""

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
    cancel_reason: str | None
    cancel_by: str | None
    cancel_terminate: bool
    cancel_seq: int | None
    most_unread: int | None
    most_unread_bytes: int | None
    summary: bytes | None = None
    """A new one; ``None`` leaves what is stored."""
    read_revision: int = 0
    changed: bool = False
    marked: bool = False
    """Whether the group has set the cancel mark."""

    def __post_init__(self) -> None:
        self.read_revision = self.revision

    @property
    def is_open(self) -> bool:
        """Whether the instance has not ended."""
        return self.status == _OPEN

    def write(self, state: InstanceState, kind: int, now: int, *, held: bool) -> None:
        """Leave the row as a write says, whose fence has held."""
        is_open = state.status is Status.OPEN
        self.changed = True
        self.revision += 1
        self.kind = kind
        self.owner = state.owner if is_open else None
        self.status = state.status.value
        self.held = is_open and held
        # A message newer than what the turn has seen makes the instance ready, whatever the turn wanted (rule 4).
        self.wake_at = None if not is_open else 0 if self.inbox_seq > state.seen_seq else state.wake_at
        self.seen_seq = state.seen_seq
        self.execution = state.execution
        self.opened = state.opened
        self.takeovers = state.takeovers
        self.history_events = state.history_events
        self.history_bytes = state.history_bytes
        self.summary = state.summary
        self.updated_at = now

    def recover(self) -> None:
        """Fence off whatever was written upon an earlier revision (rule 9)."""
        self.changed = True
        self.revision += 1

    def ring(self, now: int, ready: int = 0) -> int:
        """Take note of an arrival and make the instance ready; return the arrival's number (rule 4).

        Args:
            ready: since when it is due; 0 goes before all others.
        """
        self.changed = True
        self.inbox_seq += 1
        self.updated_at = now
        delayed = self.takeovers >= CRASHES_BEFORE_DELAY and self.owner is None
        # Whoever has crashed its owners repeatedly waits out its delay, whatever arrives (rule 14): messages make it due no
        # sooner, and no later than the longest delay.
        if delayed and self.wake_at is not None and self.wake_at > now:
            self.wake_at = min(self.wake_at, now + LONGEST_DELAY)
        else:
            self.wake_at = ready if self.wake_at is None else min(self.wake_at, ready)
        return self.inbox_seq

    def mark(self, mark: CancelMark) -> Appended:
        """Set the cancel mark and make the instance ready."""
        self.cancel_seq = self.ring(mark.at)
        self.cancel_at, self.cancel_reason, self.cancel_by, self.cancel_terminate = (
            mark.at,
            mark.reason,
            mark.by,
            mark.terminate,
        )
        self.marked = True
        return Appended(self.cancel_seq, self.owner, fresh=True, cancel=mark)

    def release(self, now: int) -> None:
        """End a hold."""
        self.changed = True
        self.revision += 1
        self.held = False
        self.wake_at = 0
        self.updated_at = now

    @property
    def most(self) -> Waiting | None:
        """The most that waits in the inbox; ``None``: it was never counted."""
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
        return CancelMark(self.cancel_at, self.cancel_reason or "", self.cancel_by or "", self.cancel_terminate)

    def columns(self) -> tuple[Any, ...]:
        """Return what :data:`~orchestra.providers.postgres.statements.WRITE_ROWS` takes of a row."""
        return (
            self.instance_id,
            self.read_revision,
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
            self.summary,
            self.most_unread,
            self.most_unread_bytes,
        )

    def instance(self, kind: Kind) -> InstanceRow:
        """Return the row as owners know it, without what stands in the cold row."""
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
            opened=self.opened,
            takeovers=self.takeovers,
            history_events=self.history_events,
            history_bytes=self.history_bytes,
            cancel=self.cancel,
        )


_KINDS: Final = (
    Texts,
    Numbers,
    Numbers,
    Numbers,
    Texts,
    Numbers,
    Numbers,
    Flags,
    Numbers,
    Numbers,
    Numbers,
    Flags,
    Numbers,
    Numbers,
    Numbers,
    Numbers,
    Blobs,
    Numbers,
    Numbers,
)


def row_arrays(rows: list[Row]) -> list[list[Any]]:
    """Return changed rows as the arrays that the statement takes them in."""
    return columns(_KINDS, [row.columns() for row in rows])


_FENCED_KINDS: Final = (
    Texts,
    Numbers,
    Numbers,
    Texts,
    Numbers,
    Flags,
    Numbers,
    Numbers,
    Numbers,
    Flags,
    Numbers,
    Numbers,
    Numbers,
    Blobs,
)


def fenced_arrays(writes: Sequence[Write], numbers: Mapping[Kind, int]) -> list[list[Any]]:
    """Return owners' writes as the arrays of their statement: what :meth:`Row.write` does to a row that is not read first."""
    return columns(_FENCED_KINDS, [_fenced_columns(write, numbers[write.state.kind]) for write in writes])


def _fenced_columns(write: Write, kind: int) -> tuple[Any, ...]:
    state = write.state
    is_open = state.status is Status.OPEN
    return (
        write.instance_id,
        write.revision,
        kind,
        state.owner if is_open else None,
        state.status.value,
        is_open and write.hold is not None,
        state.wake_at if is_open else None,
        state.seen_seq,
        state.execution,
        state.opened,
        state.takeovers,
        state.history_events,
        state.history_bytes,
        state.summary,
    )
