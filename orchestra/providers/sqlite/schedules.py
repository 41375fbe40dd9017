"""The rows of schedules, on SQLite."""

from __future__ import annotations

import sqlite3
from collections import defaultdict

from orchestra.codec import pack_text
from orchestra.errors import StoreError
from orchestra.providers.sqlite import statements as sql
from orchestra.store import tables
from orchestra.store.kinds import Dialect
from orchestra.store.schedule_rows import (
    read_run,
    read_schedule,
    read_slot,
    schedule_values,
    slot_values,
)
from orchestra.store.schedule_writes import ScheduleChange
from orchestra.store.schedules import (
    DueSchedule,
    FollowedRun,
    ScheduleFence,
    ScheduleRecord,
    ScheduleRow,
)

__all__ = ["find_due", "list_schedules", "read_fences", "read_one", "write_schedule"]

_CREATED_AT = tables.SCHEDULE.names.index("created_at")


def read_fences(
    connection: sqlite3.Connection, schedule_ids: list[str]
) -> dict[str, ScheduleFence]:
    """Return the fences of those schedules that exist."""
    rows = {
        one: connection.execute(sql.READ_SCHEDULE_FENCE, (one,)).fetchone() for one in schedule_ids
    }
    return {one: ScheduleFence(*row) for one, row in rows.items() if row is not None}


def write_schedule(connection: sqlite3.Connection, change: ScheduleChange) -> None:
    """Write a granted change of a schedule."""
    schedule_id, row = change.schedule_id, change.row
    if row is None:
        fence = (schedule_id, change.read_revision)
        written = connection.execute(sql.DELETE_SCHEDULE, fence).rowcount
        connection.execute(sql.DELETE_SLOTS, (schedule_id,))
    elif change.read_revision == 0:
        written = connection.execute(sql.ADD_SCHEDULE, schedule_values(row)).rowcount
    else:
        values = list(schedule_values(row))
        del values[_CREATED_AT], values[:2]  # its id, its incarnation, and its creation
        fence = (schedule_id, change.read_revision)
        written = connection.execute(sql.WRITE_SCHEDULE, (*values, *fence)).rowcount
    if written != 1:
        raise StoreError(f"schedule {schedule_id!r} was changed past its lock")
    for one in change.ended:
        key = (schedule_id, one.key.slot, one.key.cause)
        connection.execute(sql.END_RUN, (False, one.ended, *key))
    if change.slots:
        slots = [slot_values(schedule_id, slot) for slot in change.slots]
        connection.executemany(sql.ADD_SLOT, slots)
        connection.execute(sql.PRUNE_SLOTS, (schedule_id,))


def find_due(
    connection: sqlite3.Connection,
    dialect: Dialect,
    now: int,
    limit: int,
    after: tuple[int, str] | None,
) -> list[DueSchedule]:
    """Return due schedules, the longest due first, with the runs that they follow."""
    values = (now, *(after or (-(1 << 62), "")), limit)
    rows = connection.execute(sql.FIND_DUE_SCHEDULES, values).fetchall()
    schedules = [read_schedule(row) for row in rows]
    runs = _runs(connection, dialect, [row.schedule_id for row in schedules])
    return [DueSchedule(row, tuple(runs[row.schedule_id])) for row in schedules]


def read_one(
    connection: sqlite3.Connection, dialect: Dialect, schedule_id: str, slots: int
) -> ScheduleRecord | None:
    """Return a schedule with its runs and newest slots."""
    row = connection.execute(sql.READ_SCHEDULE, (schedule_id,)).fetchone()
    return None if row is None else _record(connection, dialect, read_schedule(row), slots)


def list_schedules(
    connection: sqlite3.Connection, dialect: Dialect, after: str, limit: int
) -> list[ScheduleRecord]:
    """Return schedules in the order of their ids, each with its newest slot."""
    rows = connection.execute(sql.LIST_SCHEDULES, (after, limit)).fetchall()
    return [_record(connection, dialect, read_schedule(row), 1) for row in rows]


def _record(
    connection: sqlite3.Connection, dialect: Dialect, row: ScheduleRow, slots: int
) -> ScheduleRecord:
    newest = connection.execute(sql.LIST_SLOTS, (row.schedule_id, slots)).fetchall()
    runs = _runs(connection, dialect, [row.schedule_id])[row.schedule_id]
    return ScheduleRecord(row, tuple(runs), tuple(read_slot(one) for one in newest))


def _runs(
    connection: sqlite3.Connection, dialect: Dialect, schedule_ids: list[str]
) -> dict[str, list[FollowedRun]]:
    runs: dict[str, list[FollowedRun]] = defaultdict(list)
    asked = f"[{','.join(map(pack_text, schedule_ids))}]"
    for schedule_id, *run in connection.execute(sql.LIST_RUNS, (asked,)):
        runs[schedule_id].append(read_run(run, dialect))
    return runs
