"""Reads for clients and dashboards, on connections of their own that can only read."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from orchestra.codec import unpack
from orchestra.errors import StoreForked, StoreUnavailable
from orchestra.events import EventRecord
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.catalogue import read_catalogue
from orchestra.providers.sqlite.connection import connect_reader, file_identity
from orchestra.providers.sqlite.failures import translated
from orchestra.providers.sqlite.kinds import read_kind
from orchestra.providers.sqlite.settings import Settings
from orchestra.providers.sqlite.writer import StoreClock
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

__all__ = ["ReaderPool", "SqliteDirectory"]

_IDLE_READERS: Final = 4
_KIND_WIDTH: Final = 6
_HIGHEST_CHARACTER: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)


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
            row = connection.execute(sql.READ_RECORDS + sql.BY_ID, (instance_id,)).fetchone()
            activities = connection.execute(sql.READ_ACTIVITIES % "?", (instance_id,)).fetchall()
            reports = connection.execute(sql.LIST_REPORTS, (instance_id,)).fetchall()
        return None if row is None else _read_record(row, activities, reports, self._dialect)

    def list(self, query: InstanceQuery) -> list[InstanceRecord]:
        conditions, values = _conditions(query, self._dialect)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        statement = sql.READ_RECORDS + where + sql.NEWEST_FIRST
        with self._readers.reading() as connection:
            rows = connection.execute(statement, (*values, query.limit)).fetchall()
        return [_read_record(row, [], [], self._dialect) for row in rows]

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
        with self._readers.reading() as connection:
            rows = connection.execute(sql.LIST_MESSAGES, (instance_id, after, limit)).fetchall()
        return [read_message(row, self._dialect) for row in rows]

    def catalogue(self) -> Catalogue:
        with self._readers.reading() as connection:
            return read_catalogue(connection, self._clock.now(), self._dialect)

    def policies(self, name: str, limit: int = KEPT_POLICIES + 1) -> list[PolicyRow]:
        with self._readers.reading() as connection:
            rows = connection.execute(sql.LIST_POLICIES_OF, (name, name, limit)).fetchall()
        return [PolicyRow(*row) for row in rows]

    def tally(self) -> list[TallyRow]:
        with self._readers.reading() as connection:
            rows = connection.execute(sql.READ_TALLY).fetchall()
        return read_tally(
            ((read_kind(kind), status, bool(held), number) for *kind, status, held, number in rows),
            self._dialect,
        )

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


@contextmanager
def _one_moment(connection: sqlite3.Connection) -> Generator[None]:
    """Let all reads of the body see the same state of the store."""
    connection.execute(sql.BEGIN_READ)
    try:
        yield
    finally:
        connection.execute(sql.ROLLBACK)


def _conditions(query: InstanceQuery, dialect: Dialect) -> tuple[list[str], list[Any]]:
    """Return the conditions of a query and their values. The text consists of constants only
    (I15).
    """
    conditions: list[str] = []
    values: list[Any] = []

    def require(condition: str, *parameters: Any) -> None:
        conditions.append(condition)
        values.extend(parameters)

    if query.name is not None:
        require("k.name = ?", query.name)
    if query.version is not None:
        require("k.version = ?", query.version)
    if query.queue is not None:
        require("k.queue = ?", stored_queue(query.queue))
    if query.statuses is not None:
        asked, known = dialect.statuses_of(query.statuses), dialect.statuses_of(Status)
        among = f"i.status IN ({_placeholders(asked)})"
        if query.other_statuses:
            require(f"({among} OR i.status NOT IN ({_placeholders(known)}))", *asked, *known)
        else:
            require(among, *asked)
    if query.standings is not None:
        condition, parameters = _standing(query.unserved)
        among = f"{condition} IN ({_placeholders(query.standings)})"
        require(
            f"(i.status <> 0 OR {among})",
            *parameters,
            *(standing.value for standing in query.standings),
        )
    if query.held is not None:
        condition, parameters = _stands_still(query.unserved)
        require(condition if query.held else f"NOT {condition}", *parameters)
    if query.id_prefix:
        require("i.instance_id >= ?", query.id_prefix)
        beyond = _first_beyond(query.id_prefix)
        if beyond is not None:
            require("i.instance_id < ?", beyond)
    if query.created_from is not None:
        require("i.created_at >= ?", query.created_from)
    if query.created_until is not None:
        require("i.created_at < ?", query.created_until)
    for key, value in query.labels.items():
        require(
            (
                "EXISTS (SELECT 1 FROM label l WHERE l.instance_id = i.instance_id AND l.key = ? "
                "AND l.value = ?)"
            ),
            key,
            value,
        )
    if query.parent is not None:
        # As a set of ids, so that it is found by the index on parents, whatever the order of the
        # list.
        require(
            "i.instance_id IN (SELECT c.instance_id FROM instance_detail c WHERE c.parent_id = ?)",
            query.parent,
        )
    if query.parent_execution is not None:
        require("d.parent_execution = ?", query.parent_execution)
    if query.after is not None:
        require("(i.created_at, i.instance_id) < (?, ?)", *query.after)
    return conditions, values


def _stands_still(unserved: tuple[Kind, ...]) -> tuple[str, list[Any]]:
    """Return the condition that an open instance is held, is crashing (rule 14), or no node can run
    it (rule 5).
    """
    condition = "i.held = 1 OR (i.takeovers >= 3 AND i.owner IS NULL)"
    values: list[Any] = []
    for kind in unserved:
        condition += (
            " OR (k.queue = ? AND k.name = ? AND k.version = ? AND k.format = ? AND k.floating = "
            "? AND k.level = ?)"
        )
        values += [
            stored_queue(kind.queue),
            kind.name,
            kind.version,
            kind.format,
            int(kind.floating),
            kind.level,
        ]
    return f"(i.status = 0 AND ({condition}))", values


def _standing(unserved: tuple[Kind, ...]) -> tuple[str, list[Any]]:
    """Return the :class:`Standing` of an open instance."""
    stands_still, values = _stands_still(unserved)
    return (
        f"CASE WHEN {stands_still} THEN 2 WHEN i.opened = 1 OR i.execution > 1 THEN 1 ELSE 0 END",
        values,
    )


def _placeholders(values: tuple[Any, ...]) -> str:
    return ", ".join("?" * len(values))


def _first_beyond(prefix: str) -> str | None:
    """Return the least text above every text with this prefix, if there is one.

    Ids are compared by code point. A range needs no escaping, and can use the key.
    """
    while prefix:
        following = ord(prefix[-1]) + 1
        if following <= _HIGHEST_CHARACTER:
            return prefix[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)
        prefix = prefix[:-1]
    return None


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
    )
