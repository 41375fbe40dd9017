"""The rows of schedules, on PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Texts
from orchestra.providers.postgres.calls import Calls, Read
from orchestra.providers.postgres.rendering import arrays
from orchestra.providers.postgres.wire import Result, Script
from orchestra.store import tables
from orchestra.store.changes import ScheduleWrite
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
    SlotRow,
)

__all__ = [
    "add_schedules",
    "find_due",
    "list_schedules",
    "lock_schedules",
    "read_fences",
    "read_one",
]


def lock_schedules(writes: Sequence[ScheduleWrite]) -> list[Read]:
    """Return the statements that make the new schedules of a group, and lock all."""
    made = [write.schedule_id for write in writes if write.revision == 0]
    reads: list[Read] = [(sql.MAKE_SCHEDULES, (Texts(dict.fromkeys(made)),))]
    reads.append((sql.LOCK_SCHEDULES, (Texts(write.schedule_id for write in writes),)))
    return reads


def read_fences(result: Result) -> dict[str, ScheduleFence]:
    """Return the fences of locked schedules, those that the group may make among them."""
    return {row[0]: ScheduleFence(row[1], row[2]) for row in result.rows}


def add_schedules(script: Script, changes: Sequence[ScheduleChange]) -> None:
    """Add the statements that write granted changes of schedules."""
    if not changes:
        return
    # A later change of the group builds on an earlier one, so each row is written once (rule 7).
    last = {change.schedule_id: change for change in changes}
    first = {change.schedule_id: change.read_revision for change in reversed(changes)}
    written = [
        (*schedule_values(change.row), first[one])
        for one, change in last.items()
        if change.row is not None
    ]
    gone = [(one, first[one]) for one, change in last.items() if change.row is None]
    deleted = Texts(change.schedule_id for change in changes if change.row is None)
    if deleted:
        script.add(sql.DELETE_SLOTS, deleted)
    if written:
        script.add(sql.WRITE_SCHEDULES, *arrays(sql.SCHEDULE_WRITTEN, written), len(written))
    if gone:
        script.add(sql.DELETE_SCHEDULES, *arrays(sql.SCHEDULE_FENCE, gone), len(gone))
    kept = [change for change in changes if last[change.schedule_id].row is not None]
    ended = [
        (change.schedule_id, one.key.slot, one.key.cause, one.ended)
        for change in kept
        for one in change.ended
    ]
    if ended:
        script.add(sql.END_RUNS, *arrays(sql.ENDED_RUN, ended))
    slots = [slot_values(change.schedule_id, slot) for change in kept for slot in change.slots]
    if slots:
        script.add(sql.ADD_SLOTS, *arrays(tables.SCHEDULE_SLOT, slots))
        script.add(sql.PRUNE_SLOTS, Texts(dict.fromkeys(slot[0] for slot in slots)))


def find_due(
    calls: Calls, dialect: Dialect, now: int, limit: int, after: tuple[int, str] | None
) -> list[DueSchedule]:
    """Return due schedules, the longest due first, with the runs that they follow."""
    found = calls.read(sql.FIND_DUE_SCHEDULES, now, *(after or (-(1 << 62), "")), limit)
    if not found:
        return []
    rows = [read_schedule(row) for row in found]
    runs = _runs(calls.read(sql.LIST_RUNS, Texts(row.schedule_id for row in rows)), dialect)
    return [DueSchedule(row, tuple(runs[row.schedule_id])) for row in rows]


def read_one(calls: Calls, dialect: Dialect, schedule_id: str, slots: int) -> ScheduleRecord | None:
    """Return a schedule with its runs and newest slots."""
    asked = Texts([schedule_id])
    rows, runs, newest = calls.read_all(
        [
            (sql.READ_SCHEDULE, (schedule_id,)),
            (sql.LIST_RUNS, (asked,)),
            (sql.LIST_SLOTS, (asked, slots)),
        ],
        one_moment=True,
    )
    found = _records(rows, runs, newest, dialect)
    return found[0] if found else None


def list_schedules(calls: Calls, dialect: Dialect, after: str, limit: int) -> list[ScheduleRecord]:
    """Return schedules in the order of their ids, each with its newest slot."""
    rows = calls.read(sql.LIST_SCHEDULES, after, limit)
    named = Texts(row[0] for row in rows)
    runs, newest = calls.read_all([(sql.LIST_RUNS, (named,)), (sql.LIST_SLOTS, (named, 1))])
    return _records(rows, runs, newest, dialect)


def _records(
    rows: Iterable[Sequence[Any]],
    runs: Iterable[Sequence[Any]],
    newest: Iterable[Sequence[Any]],
    dialect: Dialect,
) -> list[ScheduleRecord]:
    followed = _runs(runs, dialect)
    slots: dict[str, list[SlotRow]] = defaultdict(list)
    for schedule_id, *slot in newest:
        slots[schedule_id].append(read_slot(slot))
    return [
        ScheduleRecord(row, tuple(followed[row.schedule_id]), tuple(slots[row.schedule_id]))
        for row in map(read_schedule, rows)
    ]


def _runs(rows: Iterable[Sequence[Any]], dialect: Dialect) -> dict[str, list[FollowedRun]]:
    runs: dict[str, list[FollowedRun]] = defaultdict(list)
    for schedule_id, *run in rows:
        runs[schedule_id].append(read_run(run, dialect))
    return runs
