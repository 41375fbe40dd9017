"""Reads for clients and dashboards, on connections of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from orchestra.events import EventRecord
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Numbers, Texts
from orchestra.providers.postgres.calls import Calls
from orchestra.providers.postgres.catalogue import read_catalogue
from orchestra.providers.postgres.census import read_census, tally_of
from orchestra.providers.postgres.conditions import Statement
from orchestra.providers.postgres.keys import read_external, read_keys
from orchestra.providers.postgres.kinds import read_kind
from orchestra.providers.postgres.schedules import list_schedules, read_one
from orchestra.providers.postgres.streams import read_page, read_streams
from orchestra.store.audit import OperationQuery, OperationRow
from orchestra.store.catalogue import Catalogue, PolicyRow
from orchestra.store.census import Census
from orchestra.store.decoding import (
    EXECUTION_WIDTH,
    INSTANCE_WIDTH,
    in_order,
    read_activity,
    read_aside,
    read_counts,
    read_event,
    read_execution,
    read_instance,
    read_message,
    read_operation,
    read_payload,
    read_request,
)
from orchestra.store.executions import ExecutionRow
from orchestra.store.keys import KeyUse
from orchestra.store.kinds import Dialect
from orchestra.store.messages import MessageRow
from orchestra.store.policies import KEPT_POLICIES
from orchestra.store.queries import SET_SIZE, Counted, InstanceQuery, InstanceRecord
from orchestra.store.requests import RequestState
from orchestra.store.routes import Route
from orchestra.store.schedules import ScheduleRecord
from orchestra.store.streams import PAGE, Page, StreamPage, StreamRow
from orchestra.store.tallies import TallyRow

__all__ = ["PostgresDirectory"]

_KIND_WIDTH: Final = 6


class PostgresDirectory:
    """Implements :class:`~orchestra.store.port.Directory`; the promises are written there."""

    def __init__(self, calls: Calls, dialect: Dialect) -> None:
        self._calls = calls
        self._dialect = dialect

    def get(self, instance_id: str) -> InstanceRecord | None:
        reads = [
            (sql.READ_RECORD, (instance_id,)),
            (sql.READ_ACTIVITIES, (Texts([instance_id]),)),
        ]
        reads += [(sql.LIST_REPORTS, (instance_id,)), (sql.COUNT_NAMES, (instance_id,))]
        records, activities, reports, names = self._calls.read_all(reads, one_moment=True)
        if not records:
            return None
        record = _read_record(records[0], activities, reports, self._dialect)
        return replace(record, unread_by_name=dict(cast("list[tuple[str, int]]", names)))

    def list(self, query: InstanceQuery) -> list[InstanceRecord]:
        label = self._rarest_label(query)
        by_label = None if label is None or label[1] > SET_SIZE else label[0]
        statement = Statement.listing(query, self._dialect, by_label)
        return [
            _read_record(row, [], [], self._dialect)
            for row in self._calls.read(statement.text, *statement.values)
        ]

    def search_end(self, query: InstanceQuery, number: int) -> tuple[int, str] | None:
        label = self._rarest_label(query)
        if not (query.is_searched if label is None else label[1] > SET_SIZE):
            return None
        statement = Statement.search_end(query, self._dialect, number)
        rows = self._calls.read(statement.text, *statement.values)
        return (rows[0][0], rows[0][1]) if rows else None

    def count(
        self, query: InstanceQuery, group_by: Sequence[str] = (), limit: int = 1000
    ) -> Counted:
        label = self._rarest_label(query)
        by_label = None if label is None else label[0]
        statement = Statement.counting(query, self._dialect, group_by, limit, by_label)
        rows = self._calls.read(statement.text, *statement.values)
        return read_counts(rows, group_by, self._dialect)

    def _rarest_label(self, query: InstanceQuery) -> tuple[str, int] | None:
        """Return the key of the label of a query that the fewest instances have, and how many:
        counted up to :data:`SET_SIZE` and one more; ``None``: it asks for no label.
        """
        numbers = {
            key: int(self._calls.read(sql.COUNT_LABEL, key, value, SET_SIZE + 1)[0][0])
            for key, value in query.labels.items()
        }
        return min(numbers.items(), key=lambda one: one[1]) if numbers else None

    def waiting_routes(self) -> Sequence[Route]:
        return [Route(*row) for row in self._calls.read(sql.WAITING_ROUTES)]

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
        asked = instance_id, after, limit
        rows, aside = self._calls.read_all(
            [(sql.LIST_MESSAGES, asked), (sql.LIST_ASIDE, asked)], one_moment=True
        )
        unread = [read_message(row, self._dialect) for row in rows]
        return list(in_order(unread, [read_aside(row) for row in aside])[:limit])

    def schedule(self, schedule_id: str, slots: int = 20) -> ScheduleRecord | None:
        return read_one(self._calls, self._dialect, schedule_id, slots)

    def schedules(self, after: str = "", limit: int = 100) -> list[ScheduleRecord]:
        return list_schedules(self._calls, self._dialect, after, limit)

    def request(self, instance_id: str, request_id: str) -> RequestState | None:
        rows = self._calls.read(sql.READ_REQUEST_STATE, instance_id, request_id)
        return RequestState(read_request(rows[0][1:]), bool(rows[0][0])) if rows else None

    def catalogue(self) -> Catalogue:
        return read_catalogue(self._calls, self._dialect)

    def policies(self, name: str, limit: int = KEPT_POLICIES + 1) -> list[PolicyRow]:
        return [PolicyRow(*row) for row in self._calls.read(sql.LIST_POLICIES_OF, name, limit)]

    def tally(self) -> list[TallyRow]:
        return tally_of(self._calls.read(sql.READ_TALLY), self._dialect)

    def census(self, failed_since: int, name: str | None = None) -> Census:
        return read_census(self._calls, failed_since, name, self._dialect)

    def operations(self, query: OperationQuery) -> Sequence[OperationRow]:
        at, number = (None, None) if query.after is None else query.after
        rows = self._calls.read(
            sql.LIST_OPERATIONS, query.subject, query.action, query.by, at, number, query.limit
        )
        return [read_operation(row) for row in rows]

    def count_owned(self, node_ids: Sequence[str]) -> Mapping[str, int]:
        return dict(
            cast("list[tuple[str, int]]", self._calls.read(sql.COUNT_OWNED, Texts(node_ids)))
        )

    def going_among(self, instance_ids: Sequence[str]) -> set[str]:
        return {
            instance_id for (instance_id,) in self._calls.read(sql.GOING_AMONG, Texts(instance_ids))
        }

    def stream(
        self, instance_id: str, name: str, after: int = 0, page: Page = PAGE
    ) -> StreamPage | None:
        return read_page(self._calls, instance_id, name, after, page, self._dialect)

    def streams(self, instance_id: str) -> Sequence[StreamRow]:
        return read_streams(self._calls, instance_id)

    def keys(self, limit: int) -> Sequence[KeyUse]:
        return read_keys(self._calls, limit)

    def external(self) -> set[bytes]:
        return read_external(self._calls)


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
        set_aside,
        schedule_id,
        schedule_tick,
        unserved,
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
        set_aside=set_aside,
        schedule=None if schedule_id is None else (schedule_id, schedule_tick),
        unserved=None if unserved is None else Route(*unserved),
    )
