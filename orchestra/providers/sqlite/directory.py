"""Reads for clients and dashboards, on connections of their own that can only read."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from orchestra.codec import unpack
from orchestra.errors import StoreForked, StoreUnavailable
from orchestra.events import EventRecord
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.catalogue import read_catalogue
from orchestra.providers.sqlite.census import read_census, read_tallies
from orchestra.providers.sqlite.connection import connect_reader, file_identity
from orchestra.providers.sqlite.failures import translated
from orchestra.providers.sqlite.keys import read_external, read_keys
from orchestra.providers.sqlite.kinds import read_kind
from orchestra.providers.sqlite.schedules import list_schedules, read_one
from orchestra.providers.sqlite.selections import (
    count_statement,
    list_statement,
    rarest_label,
    search_end_statement,
)
from orchestra.providers.sqlite.settings import Settings
from orchestra.providers.sqlite.streams import read_page, read_streams
from orchestra.providers.sqlite.writer import StoreClock
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

__all__ = ["ReaderPool", "SqliteDirectory"]

_IDLE_READERS: Final = 4
_KIND_WIDTH: Final = 6


@dataclass(frozen=True, slots=True)
class _Reader:
    """A connection, and the identity of its file."""

    connection: sqlite3.Connection
    identity: tuple[int, int]


class ReaderPool:
    """Read-only connections for any thread. A few are kept; concurrent reads make more."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._guard = threading.Lock()
        self._idle: list[_Reader] = []
        self._is_open = False
        self._process = os.getpid()

    def open(self) -> None:
        self._process = os.getpid()
        self._is_open = True

    def close(self) -> None:
        """Close the idle connections; those in use close when they are returned."""
        if self._process != os.getpid():
            return
        with self._guard:
            self._is_open = False
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.connection.close()

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """Lend a connection for the body."""
        reader = self._take()
        try:
            with translated(self._settings.path):
                yield reader.connection
        except BaseException:
            # The next reader must not inherit its state.
            reader.connection.close()
            raise
        self._give_back(reader)

    def _take(self) -> _Reader:
        if self._process != os.getpid():
            raise StoreForked(str(self._settings.path), opened_by=self._process)
        with self._guard:
            if not self._is_open:
                raise StoreUnavailable(f"{self._settings.path} is not open")
            identity = file_identity(self._settings.path)
            while self._idle:
                reader = self._idle.pop()
                if reader.identity == identity:
                    return reader
                reader.connection.close()  # it would still read the former file
        return _Reader(connect_reader(self._settings), identity)

    def _give_back(self, reader: _Reader) -> None:
        with self._guard:
            if self._is_open and len(self._idle) < _IDLE_READERS:
                self._idle.append(reader)
                return
        reader.connection.close()


class SqliteDirectory:
    """Implements :class:`~orchestra.store.port.Directory`; the promises are written there."""

    def __init__(self, readers: ReaderPool, clock: StoreClock, dialect: Dialect) -> None:
        self._readers = readers
        self._clock = clock
        self._dialect = dialect

    def get(self, instance_id: str) -> InstanceRecord | None:
        with self._readers.reading() as connection, _one_moment(connection):
            row = connection.execute(sql.READ_RECORD, (instance_id,)).fetchone()
            activities = connection.execute(sql.READ_ACTIVITIES % "?", (instance_id,)).fetchall()
            reports = connection.execute(sql.LIST_REPORTS, (instance_id,)).fetchall()
            names = connection.execute(sql.COUNT_NAMES, (instance_id,)).fetchall()
        if row is None:
            return None
        return replace(
            _read_record(row, activities, reports, self._dialect), unread_by_name=dict(names)
        )

    def list(self, query: InstanceQuery) -> list[InstanceRecord]:
        with self._readers.reading() as connection, _one_moment(connection):
            label = rarest_label(connection, query)
            by_label = None if label is None or label[1] > SET_SIZE else label[0]
            statement, values = list_statement(query, self._dialect, by_label)
            rows = connection.execute(statement, values).fetchall()
        return [_read_record(row, [], [], self._dialect) for row in rows]

    def search_end(self, query: InstanceQuery, number: int) -> tuple[int, str] | None:
        with self._readers.reading() as connection:
            label = rarest_label(connection, query)
            if not (query.is_searched if label is None else label[1] > SET_SIZE):
                return None
            statement, values = search_end_statement(query, self._dialect, number)
            return connection.execute(statement, values).fetchone()

    def count(
        self, query: InstanceQuery, group_by: Sequence[str] = (), limit: int = 1000
    ) -> Counted:
        with self._readers.reading() as connection:
            label = rarest_label(connection, query)
            by_label = None if label is None else label[0]
            statement, values = count_statement(query, self._dialect, group_by, limit, by_label)
            rows = connection.execute(statement, values).fetchall()
        return read_counts(rows, group_by, self._dialect)

    def waiting_routes(self) -> Sequence[Route]:
        found: list[Route] = []
        last = ("", "")
        with self._readers.reading() as connection, _one_moment(connection):
            while (row := connection.execute(sql.NEXT_WAITING_ROUTE, last).fetchone()) is not None:
                last = row
                found.append(Route(*row))
        return found

    def executions(self, instance_id: str, after: int = 0, limit: int = 1000) -> list[ExecutionRow]:
        with self._readers.reading() as connection:
            rows = connection.execute(sql.LIST_EXECUTIONS, (instance_id, after, limit)).fetchall()
        return [read_execution(row, self._dialect) for row in rows]

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        with self._readers.reading() as connection:
            rows = connection.execute(sql.READ_HISTORY, (instance_id, execution)).fetchall()
        return [read_event(row) for row in rows]

    def envelopes(
        self, instance_id: str, execution: int, events: Sequence[int]
    ) -> list[EventRecord]:
        statement = sql.READ_ENVELOPES % ", ".join("?" * len(events))
        with self._readers.reading() as connection:
            rows = connection.execute(statement, (instance_id, execution, *events)).fetchall()
        return [EventRecord(*row) for row in rows]

    def messages(self, instance_id: str, after: int = 0, limit: int = 1000) -> list[MessageRow]:
        asked = instance_id, after, limit
        with self._readers.reading() as connection, _one_moment(connection):
            rows = connection.execute(sql.LIST_MESSAGES, asked).fetchall()
            aside = connection.execute(sql.LIST_ASIDE, asked).fetchall()
        unread = [read_message(row, self._dialect) for row in rows]
        return list(in_order(unread, [read_aside(row) for row in aside])[:limit])

    def schedule(self, schedule_id: str, slots: int = 20) -> ScheduleRecord | None:
        with self._readers.reading() as connection, _one_moment(connection):
            return read_one(connection, self._dialect, schedule_id, slots)

    def schedules(self, after: str = "", limit: int = 100) -> list[ScheduleRecord]:
        with self._readers.reading() as connection, _one_moment(connection):
            return list_schedules(connection, self._dialect, after, limit)

    def request(self, instance_id: str, request_id: str) -> RequestState | None:
        with self._readers.reading() as connection:
            row = connection.execute(sql.READ_REQUEST_STATE, (instance_id, request_id)).fetchone()
        return None if row is None else RequestState(read_request(row[1:]), bool(row[0]))

    def catalogue(self) -> Catalogue:
        with self._readers.reading() as connection:
            return read_catalogue(connection, self._clock.now(), self._dialect)

    def policies(self, name: str, limit: int = KEPT_POLICIES + 1) -> list[PolicyRow]:
        with self._readers.reading() as connection:
            rows = connection.execute(sql.LIST_POLICIES_OF, (name, name, limit)).fetchall()
        return [PolicyRow(*row) for row in rows]

    def tally(self) -> list[TallyRow]:
        with self._readers.reading() as connection:
            return read_tallies(connection, self._dialect)

    def census(self, failed_since: int, name: str | None = None) -> Census:
        with self._readers.reading() as connection, _one_moment(connection):
            return read_census(connection, failed_since, name, self._dialect)

    def operations(self, query: OperationQuery) -> Sequence[OperationRow]:
        conditions, values = ["1"], list[Any]()
        for column, wanted in (
            ("subject = ?", query.subject),
            ("action = ?", query.action),
            ("actor = ?", query.by),
        ):
            if wanted is not None:
                conditions.append(column)
                values.append(wanted)
        if query.after is not None:
            conditions.append("(at, operation_id) < (?, CAST(? AS INTEGER))")
            values += query.after
        statement = sql.LIST_OPERATIONS.format(" AND ".join(conditions))
        with self._readers.reading() as connection:
            rows = connection.execute(statement, (*values, query.limit)).fetchall()
        return [read_operation(row) for row in rows]

    def count_owned(self, node_ids: Sequence[str]) -> Mapping[str, int]:
        with self._readers.reading() as connection, _one_moment(connection):
            return {
                node_id: connection.execute(sql.COUNT_OWNED, (node_id,)).fetchone()[0]
                for node_id in node_ids
            }

    def going_among(self, instance_ids: Sequence[str]) -> set[str]:
        with self._readers.reading() as connection, _one_moment(connection):
            return {
                key
                for key in instance_ids
                if connection.execute(sql.IS_GOING, (key,)).fetchone() is not None
            }

    def stream(
        self, instance_id: str, name: str, after: int = 0, page: Page = PAGE
    ) -> StreamPage | None:
        with self._readers.reading() as connection:
            return read_page(connection, instance_id, name, after, page, self._dialect)

    def streams(self, instance_id: str) -> Sequence[StreamRow]:
        with self._readers.reading() as connection:
            return read_streams(connection, instance_id)

    def keys(self, limit: int) -> Sequence[KeyUse]:
        with self._readers.reading() as connection:
            return read_keys(connection, limit)

    def external(self) -> set[bytes]:
        with self._readers.reading() as connection, _one_moment(connection):
            return read_external(connection)


@contextmanager
def _one_moment(connection: sqlite3.Connection) -> Generator[None]:
    """Let all reads of the body see the same state of the store."""
    connection.execute(sql.BEGIN_READ)
    try:
        yield
    finally:
        connection.execute(sql.ROLLBACK)


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
        unread_at_end,
        labels,
        expires_at,
        set_aside,
        schedule_id,
        schedule_tick,
        unserved,
    ) = row[execution_start + EXECUTION_WIDTH :]
    return InstanceRecord(
        row=instance,
        held=bool(held),
        status=dialect.library.statuses.read(status),
        execution=execution,
        summary=summary,
        custom_status=read_payload(custom_status, custom_status_encoding),
        created_at=created_at,
        updated_at=updated_at,
        created_by=created_by,
        unread_messages=unread_messages,
        unread_at_end={} if unread_at_end is None else unpack(unread_at_end),
        labels=unpack(labels),
        activities=tuple(read_activity(activity[1:]) for activity in activities),
        expires_at=expires_at,
        reports=tuple(report[0] for report in reports),
        set_aside=set_aside,
        schedule=None if schedule_id is None else (schedule_id, schedule_tick),
        unserved=None if unserved is None else Route(**unpack(unserved)),
    )
