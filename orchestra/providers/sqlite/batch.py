"""What the writes of a group do besides their hot rows, gathered so that each statement runs once for all of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestra.codec import pack
from orchestra.errors import StoreError
from orchestra.providers.decoding import (
    activity_values,
    closing_values,
    event_values,
    execution_values,
    hold_to_bytes,
    opening_values,
    payload_values,
)
from orchestra.providers.rows import ExecutionDelta, Prune, Status, Write
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.settings import Settings

__all__ = ["Batch"]

_Values = list[tuple[Any, ...]]


@dataclass(slots=True)
class _Pending:
    """The parameters of each statement, in the order in which the statements run."""

    instances: set[str] = field(default_factory=set[str])
    created: _Values = field(default_factory=lambda: [])
    opened: _Values = field(default_factory=lambda: [])
    closed: _Values = field(default_factory=lambda: [])
    events: _Values = field(default_factory=lambda: [])
    forgotten: _Values = field(default_factory=lambda: [])
    settled: _Values = field(default_factory=lambda: [])
    activities: _Values = field(default_factory=lambda: [])
    buried: _Values = field(default_factory=lambda: [])
    removed: _Values = field(default_factory=lambda: [])
    dropped: _Values = field(default_factory=lambda: [])
    custom_statuses: _Values = field(default_factory=lambda: [])
    holds: _Values = field(default_factory=lambda: [])
    aged: list[tuple[str, int, int]] = field(default_factory=lambda: [])
    pruned_events: _Values = field(default_factory=lambda: [])
    pruned_executions: _Values = field(default_factory=lambda: [])
    ended: list[str] = field(default_factory=lambda: [])


class Batch:
    """Gathers the effects of granted writes; :meth:`flush` carries them out."""

    def __init__(self, connection: sqlite3.Connection, now: int, settings: Settings) -> None:
        self._connection = connection
        self._now = now
        self._settings = settings
        self._pending = _Pending()

    def add(self, write: Write) -> None:
        """Gather what a granted write does."""
        if write.instance_id in self._pending.instances:
            # A second write of one instance may build on what the first has done; statements are not ordered by write.
            self.flush()
        pending = self._pending
        instance_id = write.instance_id
        pending.instances.add(instance_id)
        for delta in write.executions:
            self._add_delta(instance_id, delta)
        for sequence in write.consumed:
            pending.buried.append((self._now, instance_id, sequence))
            pending.removed.append((instance_id, sequence))
        if write.custom_status is not None:
            pending.custom_statuses.append((*payload_values(write.custom_status), instance_id))
        if write.hold is not None:
            pending.holds.append((hold_to_bytes(write.hold), instance_id))
        if write.prune is not None:
            self._add_prune(instance_id, write.prune, write.state.execution)
        if write.state.status is not Status.OPEN:
            pending.ended.append(instance_id)
            return
        if write.closed_with_children:
            # Ends of children belong to the execution that asked for them (I9); others of it are refused from now on.
            pending.dropped.append((instance_id,))
        for event_id in write.settled:
            pending.settled.append((instance_id, write.state.execution, event_id))
        for activity in write.activities:
            pending.activities.append(activity_values(instance_id, activity))

    def flush(self) -> None:
        """Carry out what has been gathered."""
        pending, self._pending = self._pending, _Pending()
        self._run_all(sql.ADD_EXECUTION, pending.created)
        self._run_each_once(sql.OPEN_EXECUTION, pending.opened, "an execution was opened twice, or is not there")
        self._run_each_once(sql.CLOSE_EXECUTION, pending.closed, "an execution was closed twice, or is not there")
        self._run_all(sql.ADD_EVENT, pending.events)
        self._run_all(sql.FORGET_ACTIVITIES, pending.forgotten)
        self._run_all(sql.SETTLE_ACTIVITY, pending.settled)
        self._run_all(sql.PUT_ACTIVITY, pending.activities)
        self._run_all(sql.BURY_MESSAGE, pending.buried)
        self._run_each_once(sql.REMOVE_MESSAGE, pending.removed, "a message was consumed that is not there")
        self._run_all(sql.DROP_REPORTS, pending.dropped)
        self._run_all(sql.SET_CUSTOM_STATUS, pending.custom_statuses)
        self._run_all(sql.SET_HOLD, pending.holds)
        for instance_id, execution, closed_until in pending.aged:
            values = (instance_id, execution - 1, closed_until, instance_id)
            (kept,) = self._connection.execute(sql.FIND_KEPT, values).fetchone()
            pending.pruned_events.append((instance_id, kept - 1, instance_id))
            pending.pruned_executions.append((instance_id, kept - 1, instance_id))
        self._run_all(sql.PRUNE_EVENTS, pending.pruned_events)
        self._run_all(sql.PRUNE_EXECUTIONS, pending.pruned_executions)
        for instance_id in pending.ended:
            self._empty_inbox(instance_id)
        if pending.ended and self._connection.execute(sql.ANY_EXPIRY).fetchone() is not None:
            self._run_all(sql.SET_EXPIRES_AT, [(self._now, instance_id) for instance_id in pending.ended])
        if pending.buried:
            self._prune_tombstones(len(pending.buried))

    def _add_delta(self, instance_id: str, delta: ExecutionDelta) -> None:
        pending = self._pending
        if delta.create is not None:
            pending.created.append(execution_values(instance_id, delta.create, delta))
        elif (opening := opening_values(instance_id, delta)) is not None:
            pending.opened.append(opening)
        for event in delta.events:
            pending.events.append(event_values(instance_id, delta.number, event))
        if (closing := closing_values(instance_id, delta)) is not None:
            pending.closed.append(closing)
            pending.forgotten.append((instance_id,))

    def _add_prune(self, instance_id: str, prune: Prune, current: int) -> None:
        """Let go of the oldest executions: what is left is a suffix (I3), and the current one always is."""
        pending = self._pending
        if prune.histories or prune.executions:
            # No row goes without its events.
            up_to = min(max(prune.histories, prune.executions), current - 1)
            pending.pruned_events.append((instance_id, up_to, instance_id))
        if prune.executions:
            pending.pruned_executions.append((instance_id, min(prune.executions, current - 1), instance_id))
        if prune.closed_until is not None:
            pending.aged.append((instance_id, current, prune.closed_until))

    def _empty_inbox(self, instance_id: str) -> None:
        # No tombstones: who sends one of these again is told the truth, that it was not read (rule 19).
        left = self._connection.execute(sql.COUNT_UNREAD_BY_NAME, (instance_id,)).fetchall()
        unread = {name: count for kind, name, count in left if kind == 0}
        if unread:
            self._connection.execute(sql.SET_UNREAD_AT_END, (pack(unread), instance_id))
        if left:
            self._connection.execute(sql.EMPTY_INBOX, (instance_id,))

    def _prune_tombstones(self, added: int) -> None:
        # At most twice as many as were added: pruning is paid for by those who need it, in small parts.
        self._connection.execute(sql.PRUNE_TOMBSTONES, (self._now - self._settings.tombstone_window, 2 * added))

    def _run_all(self, statement: str, values: Sequence[tuple[Any, ...]]) -> None:
        if values:
            self._connection.executemany(statement, values)

    def _run_each_once(self, statement: str, values: Sequence[tuple[Any, ...]], failure: str) -> None:
        if values and self._connection.executemany(statement, values).rowcount != len(values):
            raise StoreError(f"a write does not fit what is stored: {failure}")
