"""Reads for clients and dashboards, on connections of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from orchestra.events import EventRecord
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Numbers, Texts
from orchestra.providers.postgres.calls import Calls
from orchestra.providers.postgres.catalogue import read_catalogue
from orchestra.providers.postgres.kinds import kind_arrays, read_kind
from orchestra.store.catalogue import Catalogue, PolicyRow
from orchestra.store.decoding import (
    EXECUTION_WIDTH,
    INSTANCE_WIDTH,
    read_activity,
    read_event,
    read_execution,
    read_instance,
    read_message,
    read_payload,
    stored_queue,
)
from orchestra.store.executions import ExecutionRow
from orchestra.store.kinds import Dialect, Status
from orchestra.store.messages import MessageRow
from orchestra.store.policies import KEPT_POLICIES
from orchestra.store.queries import InstanceQuery, InstanceRecord
from orchestra.store.routes import Kind
from orchestra.store.tallies import TallyRow, read_tally

__all__ = ["PostgresDirectory"]

_KIND_WIDTH: Final = 6


class PostgresDirectory:
    """Implements :class:`~orchestra.store.port.Directory`; the promises are written there."""

    def __init__(self, calls: Calls, dialect: Dialect) -> None:
        self._calls = calls
        self._dialect = dialect

    def get(self, instance_id: str) -> InstanceRecord | None:
        reads = [
            (sql.READ_RECORDS + sql.BY_ID, (instance_id,)),
            (sql.READ_ACTIVITIES, (Texts([instance_id]),)),
        ]
        reads.append((sql.LIST_REPORTS, (instance_id,)))
        records, activities, reports = self._calls.read_all(reads, one_moment=True)
        return _read_record(records[0], activities, reports, self._dialect) if records else None

    def list(self, query: InstanceQuery) -> list[InstanceRecord]:
        conditions = _Conditions(query, self._dialect)
        return [
            _read_record(row, [], [], self._dialect)
            for row in self._calls.read(conditions.statement, *conditions.values)
        ]

    def executions(self, instance_id: str, after: int = 0, limit: int = 1000) -> list[ExecutionRow]:
        return [
            read_execution(row, self._dialect)
            for row in self._calls.read(sql.LIST_EXECUTIONS, instance_id, after, limit)
        ]

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        return [
            read_event(row) for row in self._calls.read(sql.READ_HISTORY, instance_id, execution)
        ]

    def envelopes(
        self, instance_id: str, execution: int, events: Sequence[int]
    ) -> list[EventRecord]:
        rows = self._calls.read(sql.READ_ENVELOPES, instance_id, execution, Numbers(events))
        return [EventRecord(*row) for row in rows]

    def messages(self, instance_id: str, after: int = 0, limit: int = 1000) -> list[MessageRow]:
        rows = self._calls.read(sql.LIST_MESSAGES, instance_id, after, limit)
        return [read_message(row, self._dialect) for row in rows]

    def catalogue(self) -> Catalogue:
        return read_catalogue(self._calls, self._dialect)

    def policies(self, name: str, limit: int = KEPT_POLICIES + 1) -> list[PolicyRow]:
        return [PolicyRow(*row) for row in self._calls.read(sql.LIST_POLICIES_OF, name, limit)]

    def tally(self) -> list[TallyRow]:
        rows = self._calls.read(sql.READ_TALLY)
        return read_tally(
            ((read_kind(kind), status, held, number) for *kind, status, held, number in rows),
            self._dialect,
        )

    def count_owned(self, node_ids: Sequence[str]) -> Mapping[str, int]:
        return dict(
            cast("list[tuple[str, int]]", self._calls.read(sql.COUNT_OWNED, Texts(node_ids)))
        )

    def going_among(self, instance_ids: Sequence[str]) -> set[str]:
        return {
            instance_id for (instance_id,) in self._calls.read(sql.GOING_AMONG, Texts(instance_ids))
        }


class _Conditions:
    """The statement of a query, and its values. The text consists of constants only (I15)."""

    def __init__(self, query: InstanceQuery, dialect: Dialect) -> None:
        self._dialect = dialect
        self.values: list[Any] = []
        self._conditions: list[str] = []
        self._add(query)
        where = f" WHERE {' AND '.join(self._conditions)}" if self._conditions else ""
        limit = self._value("bigint", query.limit)
        self.statement = sql.READ_RECORDS + where + sql.NEWEST_FIRST + limit

    def _add(self, query: InstanceQuery) -> None:
        require = self._conditions.append
        if query.name is not None:
            require(f"k.name = {self._value('text', query.name)}")
        if query.version is not None:
            require(f"k.version = {self._value('text', query.version)}")
        if query.queue is not None:
            require(f"k.queue = {self._value('text', stored_queue(query.queue))}")
        if query.statuses is not None:
            among = f"i.status = ANY({self._stored(query.statuses)})"
            require(
                f"({among} OR i.status <> ALL({self._stored(Status)}))"
                if query.other_statuses
                else among
            )
        if query.standings is not None:
            standing = self._standing(query.unserved)
            among = self._value("bigint[]", Numbers(standing.value for standing in query.standings))
            require(f"(i.status <> 0 OR {standing} = ANY({among}))")
        if query.held is not None:
            condition = self._stands_still(query.unserved)
            require(condition if query.held else f"NOT {condition}")
        if query.id_prefix:
            require(f"i.instance_id LIKE {self._value('text', _escaped(query.id_prefix) + '%')}")
        if query.created_from is not None:
            require(f"i.created_at >= {self._value('bigint', query.created_from)}")
        if query.created_until is not None:
            require(f"i.created_at < {self._value('bigint', query.created_until)}")
        for key, value in query.labels.items():
            require(
                "EXISTS (SELECT 1 FROM @label l WHERE l.instance_id = i.instance_id"
                f" AND l.key = {self._value('text', key)} AND l.value = "
                f"{self._value('text', value)})"
            )
        if query.parent is not None:
            # As a set of ids, so that it is found by the index on parents, whatever the order of
            # the list.
            parent = self._value("text", query.parent)
            require(
                "i.instance_id IN (SELECT c.instance_id FROM @instance_detail c WHERE "
                f"c.parent_id = {parent})"
            )
        if query.parent_execution is not None:
            require(f"d.parent_execution = {self._value('bigint', query.parent_execution)}")
        if query.after is not None:
            created_at, instance_id = query.after
            after = f"{self._value('bigint', created_at)}, {self._value('text', instance_id)}"
            require(f"(i.created_at, i.instance_id) < ({after})")

    def _stands_still(self, unserved: tuple[Kind, ...]) -> str:
        """Return the condition that an open instance is held, is crashing (rule 14), or no node can
        run it (rule 5).
        """
        condition = "i.held OR (i.takeovers >= 3 AND i.owner IS NULL)"
        if unserved:
            casts = ("text[]", "text[]", "text[]", "bigint[]", "boolean[]", "bigint[]")
            arrays = ", ".join(
                self._value(cast, array)
                for cast, array in zip(casts, kind_arrays(unserved), strict=True)
            )
            condition += (
                " OR (k.queue, k.name, k.version, k.format, k.floating, k.level) IN (SELECT * "
                f"FROM unnest({arrays}))"
            )
        return f"(i.status = 0 AND ({condition}))"

    def _standing(self, unserved: tuple[Kind, ...]) -> str:
        """Return the :class:`Standing` of an open instance."""
        return (
            f"CASE WHEN {self._stands_still(unserved)} THEN 2 WHEN i.opened OR i.execution > 1 "
            "THEN 1 ELSE 0 END"
        )

    def _stored(self, statuses: Iterable[Status]) -> str:
        return self._value("bigint[]", Numbers(map(int, self._dialect.statuses_of(statuses))))

    def _value(self, cast: str, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}::{cast}"


def _escaped(prefix: str) -> str:
    """Return a pattern that matches exactly this text."""
    return prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _read_record(
    row: tuple[Any, ...],
    activities: list[tuple[Any, ...]],
    reports: list[tuple[Any, ...]],
    dialect: Dialect,
) -> InstanceRecord:
    instance = read_instance(
        read_kind(row[:_KIND_WIDTH]), row[_KIND_WIDTH : _KIND_WIDTH + INSTANCE_WIDTH], dialect
    )
    execution_start = _KIND_WIDTH + INSTANCE_WIDTH
    execution = read_execution(row[execution_start : execution_start + EXECUTION_WIDTH], dialect)
    (
        held,
        status,
        summary,
        custom_status,
        custom_status_encoding,
        created_at,
        updated_at,
        created_by,
        unread_messages,
        unread_names,
        unread_counts,
        label_keys,
        label_values,
        expires_at,
    ) = row[execution_start + EXECUTION_WIDTH :]
    return InstanceRecord(
        row=instance,
        held=held,
        status=dialect.library.statuses.read(status),
        execution=execution,
        summary=summary,
        custom_status=read_payload(custom_status, custom_status_encoding),
        created_at=created_at,
        updated_at=updated_at,
        created_by=created_by,
        unread_messages=unread_messages,
        unread_at_end=dict(zip(unread_names or (), unread_counts or (), strict=True)),
        labels=dict(zip(label_keys, label_values, strict=True)),
        activities=tuple(read_activity(activity[1:]) for activity in activities),
        expires_at=expires_at,
        reports=tuple(report[0] for report in reports),
    )
