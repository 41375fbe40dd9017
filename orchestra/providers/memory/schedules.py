"""The rows of schedules, in memory."""

from __future__ import annotations

from collections.abc import Iterator

from orchestra.providers.memory.database import Database, require
from orchestra.store.kinds import Dialect, MessageKind
from orchestra.store.schedule_rows import (
    read_schedule,
    read_slot,
    schedule_values,
    slot_values,
)
from orchestra.store.schedule_writes import ScheduleChange
from orchestra.store.schedules import (
    KEPT_SLOTS,
    DueSchedule,
    FollowedRun,
    ScheduleFence,
    ScheduleRecord,
    SlotRow,
    message_id_of,
)
from orchestra.store.tables import SCHEDULE_SLOT

__all__ = ["find_due", "find_fence", "find_schedule", "list_schedules", "write_schedule"]

_ENDED = SCHEDULE_SLOT.only("follows", "ended")


def find_fence(database: Database, schedule_id: str) -> ScheduleFence | None:
    """Return the fence of a schedule."""
    row = database.schedules.get(schedule_id)
    if row is None:
        return None
    schedule = read_schedule(row)
    return ScheduleFence(schedule.incarnation, schedule.revision)


def write_schedule(database: Database, change: ScheduleChange) -> None:
    """Write a granted change of a schedule."""
    schedule_id = change.schedule_id
    fence = find_fence(database, schedule_id)
    standing = 0 if fence is None else fence.revision
    require(standing == change.read_revision, "a schedule was changed past its lock")
    if change.row is None:
        database.schedules.remove(schedule_id)
        database.slots.remove_all(schedule_id)
        return
    database.schedules.put(schedule_values(change.row))
    for one in change.ended:
        key = (schedule_id, one.key.slot, one.key.cause)
        if database.slots.get(*key) is not None:
            database.slots.change(key, _ENDED, (False, one.ended))
    for slot in change.slots:
        if database.slots.get(schedule_id, slot.slot, slot.cause) is None:
            database.slots.put(slot_values(schedule_id, slot))
    old = [slot for slot in _slots(database, schedule_id) if not slot.follows][KEPT_SLOTS:]
    for slot in old:
        database.slots.remove(schedule_id, slot.slot, slot.cause)


def find_due(
    database: Database, dialect: Dialect, now: int, limit: int, after: tuple[int, str] | None
) -> list[DueSchedule]:
    """Return due schedules, the longest due first."""
    found = database.due_schedules.up_to(now, limit if after is None else 1 << 30)
    rows = [read_schedule(row) for one in found if (row := database.schedules.get(one)) is not None]
    rows.sort(key=lambda row: (row.next_at or 0, row.schedule_id))
    if after is not None:
        rows = [row for row in rows if (row.next_at or 0, row.schedule_id) > after]
    return [
        DueSchedule(row, tuple(_runs(database, dialect, row.schedule_id))) for row in rows[:limit]
    ]


def find_schedule(
    database: Database, dialect: Dialect, schedule_id: str, slots: int
) -> ScheduleRecord | None:
    """Return a schedule with its runs and newest slots."""
    row = database.schedules.get(schedule_id)
    if row is None:
        return None
    newest = tuple(_slots(database, schedule_id)[:slots])
    return ScheduleRecord(read_schedule(row), tuple(_runs(database, dialect, schedule_id)), newest)


def list_schedules(
    database: Database, dialect: Dialect, after: str, limit: int
) -> list[ScheduleRecord]:
    """Return schedules in the order of their ids."""
    ids = [row[0] for row in database.schedules if row[0] > after][:limit]
    found = [find_schedule(database, dialect, one, 1) for one in ids]
    return [one for one in found if one is not None]


def _slots(database: Database, schedule_id: str) -> list[SlotRow]:
    """Return the slots of a schedule, the newest first."""
    return [read_slot(row[1:]) for row in reversed(database.slots.of(schedule_id))]


def _runs(database: Database, dialect: Dialect, schedule_id: str) -> Iterator[FollowedRun]:
    for slot in reversed(_slots(database, schedule_id)):
        if slot.follows and slot.instance_id is not None:
            yield _run(database, dialect, schedule_id, slot, slot.instance_id)


def _run(
    database: Database, dialect: Dialect, schedule_id: str, slot: SlotRow, instance_id: str
) -> FollowedRun:
    stored = dialect.messages[MessageKind.EVENT]
    message_id = message_id_of(schedule_id, slot.key)
    unread = database.find_message(instance_id, message_id, stored, dialect) is not None
    row = database.hot_row(instance_id)
    starter = (
        database.detail(instance_id, "schedule_id"),
        database.detail(instance_id, "schedule_tick"),
    )
    if row is None or starter != (schedule_id, slot.slot):
        return FollowedRun(slot, unread=unread)
    status = dialect.library.statuses.read(row.status)
    return FollowedRun(
        slot, row.incarnation, status, row.held, unread, ending=row.cancel is not None
    )
