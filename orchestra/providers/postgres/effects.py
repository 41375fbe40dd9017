"""What the writes of a group do besides their hot rows, gathered so that each statement runs once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from orchestra.providers.decoding import (
    activity_values,
    closing_values,
    event_values,
    execution_values,
    hold_to_bytes,
    opening_values,
    payload_values,
)
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Blobs, Numbers, Texts, columns
from orchestra.providers.postgres.settings import Settings
from orchestra.providers.postgres.wire import Script
from orchestra.providers.rows import ExecutionDelta, ExecutionRow, Status, Write

__all__ = ["Effects"]

_Values = list[tuple[Any, ...]]
_T, _N, _B = Texts, Numbers, Blobs

_EXECUTION: Final = (_T, _N, _T, _T, _T, _T, _T, _N, _B, _N, _T, _N, _N, _T, _N, _N, _N, _B, _N, _B, _N, _N, _T)
_OPENED: Final = (_N, _T, _T, _T, _N, _T, _T, _N, _T, _T, _N)
_CLOSED: Final = (_N, _N, _B, _N, _B, _N, _N, _T, _N)
_EVENT: Final = (_T, _N, _N, _N, _N, _N, _B, _B, _N)
_ACTIVITY: Final = (_T, _N, _N, _N, _N, _N, _B, _B, _N, _T, _T, _T, _B, _N, _B)


@dataclass(slots=True)
class _Pending:
    """The rows of each statement, in the order in which the statements run."""

    instances: set[str] = field(default_factory=set[str])
    created: _Values = field(default_factory=_Values)
    opened: _Values = field(default_factory=_Values)
    closed: _Values = field(default_factory=_Values)
    events: _Values = field(default_factory=_Values)
    forgotten: list[str] = field(default_factory=list[str])
    settled: _Values = field(default_factory=_Values)
    activities: _Values = field(default_factory=_Values)
    buried: _Values = field(default_factory=_Values)
    dropped: list[str] = field(default_factory=list[str])
    custom_statuses: _Values = field(default_factory=_Values)
    holds: _Values = field(default_factory=_Values)
    pruned: _Values = field(default_factory=_Values)
    ended: list[str] = field(default_factory=list[str])


class Effects:
    """Gathers the effects of granted writes; :meth:`flush` adds the statements that carry them out to a script."""

    def __init__(self, script: Script, now: int, settings: Settings) -> None:
        self._script = script
        self._now = now
        self._settings = settings
        self._pending = _Pending()
        self._buried = 0

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
            pending.buried.append((instance_id, sequence))
        if write.custom_status is not None:
            pending.custom_statuses.append((*payload_values(write.custom_status), instance_id))
        if write.hold is not None:
            pending.holds.append((hold_to_bytes(write.hold), instance_id))
        if write.prune is not None:
            prune = write.prune
            bounds = (prune.histories, prune.executions, prune.closed_until)
            pending.pruned.append((instance_id, write.state.execution, *bounds))
        if write.state.status is not Status.OPEN:
            pending.ended.append(instance_id)
            return
        if write.closed_with_children:
            # Ends of children belong to the execution that asked for them (I9); others of it are refused from now on.
            pending.dropped.append(instance_id)
        for event_id in write.settled:
            pending.settled.append((instance_id, write.state.execution, event_id))
        for activity in write.activities:
            pending.activities.append(activity_values(instance_id, activity))

    def create(self, instance_id: str, execution: ExecutionRow) -> None:
        """Gather the first execution of a new instance."""
        self._pending.created.append(execution_values(instance_id, execution))

    def flush(self) -> None:
        """Have carried out what has been gathered."""
        pending, self._pending = self._pending, _Pending()
        self._add_all(sql.ADD_EXECUTIONS, _EXECUTION, pending.created)
        self._add_all(sql.OPEN_EXECUTIONS, _OPENED, pending.opened, len(pending.opened))
        self._add_all(sql.CLOSE_EXECUTIONS, _CLOSED, pending.closed, len(pending.closed))
        self._add_all(sql.ADD_EVENTS, _EVENT, pending.events)
        if pending.forgotten:
            self._script.add(sql.FORGET_ACTIVITIES, Texts(pending.forgotten))
        self._add_all(sql.SETTLE_ACTIVITIES, (_T, _N, _N), pending.settled)
        self._add_all(sql.PUT_ACTIVITIES, _ACTIVITY, pending.activities)
        self._add_all(sql.BURY_MESSAGES, (_T, _N), pending.buried, len(pending.buried), self._now)
        if pending.dropped:
            self._script.add(sql.DROP_REPORTS, Texts(pending.dropped))
        self._add_all(sql.SET_CUSTOM_STATUSES, (_B, _N, _T), pending.custom_statuses)
        self._add_all(sql.SET_HOLDS, (_B, _T), pending.holds)
        # No row goes without its events, and which ones go by age is read from the rows: so events come first.
        self._add_all(sql.PRUNE_EVENTS, (_T, _N, _N, _N, _N), pending.pruned)
        self._add_all(sql.PRUNE_EXECUTIONS, (_T, _N, _N, _N, _N), pending.pruned)
        if pending.ended:
            self._script.add(sql.EMPTY_INBOXES, Texts(pending.ended))
        self._buried += len(pending.buried)

    def finish(self) -> None:
        """Add what is to be done once for the whole group."""
        self.flush()
        if self._buried:
            # At most twice as many as were added: pruning is paid for by those who need it, in small parts.
            self._script.add(sql.PRUNE_TOMBSTONES, self._now - self._settings.tombstone_window, 2 * self._buried)

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
            pending.forgotten.append(instance_id)

    def _add_all(self, statement: str, kinds: Sequence[Callable[..., list[Any]]], values: _Values, *more: Any) -> None:
        if values:
            self._script.add(statement, *columns(kinds, values), *more)
