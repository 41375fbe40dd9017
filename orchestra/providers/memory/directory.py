"""Reads for clients and dashboards, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestra.clock import Clock
from orchestra.events import EventRecord
from orchestra.levels import Unknown
from orchestra.providers.memory.database import Database
from orchestra.store.catalogue import Catalogue, PolicyRow
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import CRASHES_BEFORE_DELAY
from orchestra.store.kinds import Dialect, MessageKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.policies import KEPT_POLICIES
from orchestra.store.queries import InstanceQuery, InstanceRecord, Standing
from orchestra.store.tallies import TallyRow, read_tally

__all__ = ["MemoryDirectory"]


class MemoryDirectory:
    """Implements :class:`~orchestra.store.port.Directory`; the promises are written there."""

    def __init__(self, database: Database, clock: Clock, dialect: Dialect) -> None:
        self._database = database
        self._dialect = dialect
        self._clock = clock

    def get(self, instance_id: str) -> InstanceRecord | None:
        with self._database.guard:
            return self._database.record(instance_id, self._dialect)

    def list(self, query: InstanceQuery) -> list[InstanceRecord]:
        with self._database.guard:
            records = [
                self._database.record(row.instance_id, self._dialect)
                for row in self._database.hot_rows()
            ]
        matching = [
            record for record in records if record is not None and _is_asked_for(record, query)
        ]
        matching.sort(key=lambda record: (record.created_at, record.row.instance_id), reverse=True)
        return [replace(record, activities=(), reports=()) for record in matching[: query.limit]]

    def executions(self, instance_id: str, after: int = 0, limit: int = 1000) -> list[ExecutionRow]:
        with self._database.guard:
            return self._database.executions_of(instance_id, self._dialect, after, limit)

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        with self._database.guard:
            return self._database.history(instance_id, execution)

    def envelopes(
        self, instance_id: str, execution: int, events: Sequence[int]
    ) -> list[EventRecord]:
        return [
            replace(event, payload=None)
            for event in self.history(instance_id, execution)
            if event.id in events
        ]

    def messages(self, instance_id: str, after: int = 0, limit: int = 1000) -> list[MessageRow]:
        with self._database.guard:
            found = self._database.messages_of(instance_id, self._dialect, after)
        return [one for one in found if one.kind is MessageKind.EVENT][:limit]

    def catalogue(self) -> Catalogue:
        with self._database.guard:
            return self._database.catalogue(self._clock, self._dialect)

    def policies(self, name: str, limit: int = KEPT_POLICIES + 1) -> list[PolicyRow]:
        with self._database.guard:
            standing = self._database.policies.get(name)
            former = self._database.former_policies.get(name, ())
        rows = [*former, *([] if standing is None else [standing])]
        return rows[::-1][:limit]

    def tally(self) -> list[TallyRow]:
        with self._database.guard:
            rows = self._database.tally()
        return read_tally(rows, self._dialect)

    def count_owned(self, node_ids: Sequence[str]) -> Mapping[str, int]:
        with self._database.guard:
            return {node_id: len(self._database.owned(node_id)) for node_id in node_ids}

    def going_among(self, instance_ids: Sequence[str]) -> set[str]:
        with self._database.guard:
            rows = [self._database.hot_row(instance_id) for instance_id in instance_ids]
        return {row.instance_id for row in rows if row is not None and row.is_open and not row.held}


def _is_asked_for(record: InstanceRecord, query: InstanceQuery) -> bool:
    row, kind, parent = record.row, record.row.kind, record.row.parent
    wanted = [
        (query.name, kind.name),
        (query.version, kind.version),
        (query.queue, kind.queue),
        (query.parent, parent and parent.instance_id),
        (query.parent_execution, parent and parent.execution),
        (query.held, _standing(record, query) is Standing.HELD),
    ]
    if any(asked is not None and asked != found for asked, found in wanted):
        return False
    is_other = query.other_statuses and isinstance(record.status, Unknown)
    if query.statuses is not None and record.status not in query.statuses and not is_other:
        return False
    if query.standings is not None and _standing(record, query) not in (None, *query.standings):
        return False
    if not row.instance_id.startswith(query.id_prefix or ""):
        return False
    since, until = query.created_from, query.created_until
    if (since is not None and record.created_at < since) or (
        until is not None and record.created_at >= until
    ):
        return False
    if query.after is not None and (record.created_at, row.instance_id) >= query.after:
        return False
    return query.labels.items() <= record.labels.items()


def _standing(record: InstanceRecord, query: InstanceQuery) -> Standing | None:
    """Return the standing of an open instance; ``None``: it has ended."""
    row = record.row
    if record.status is not Status.OPEN:
        return None
    is_crashing = row.takeovers >= CRASHES_BEFORE_DELAY and row.owner is None
    if record.held or is_crashing or row.kind in query.unserved:
        return Standing.HELD
    return Standing.RUNNING if row.opened or row.execution > 1 else Standing.PENDING
