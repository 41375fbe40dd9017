"""Convert rows of schedules to columns and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from orchestra.codec import Payload
from orchestra.store.kinds import Dialect
from orchestra.store.schedules import (
    FollowedRun,
    ScheduleRow,
    SlotRow,
)
from orchestra.store.tables import SCHEDULE, SCHEDULE_SLOT

__all__ = [
    "read_run",
    "read_schedule",
    "read_slot",
    "schedule_values",
    "slot_values",
]

Columns = Sequence[Any]
_SLOT: Final = SCHEDULE_SLOT.without("schedule_id").names


def schedule_values(row: ScheduleRow) -> tuple[Any, ...]:
    """Return the columns of a schedule."""
    return (
        row.schedule_id,
        row.incarnation,
        row.revision,
        row.definition,
        row.state,
        row.value.data,
        row.value.encoding,
        row.next_at,
        row.paused,
        row.level,
        row.declared,
        row.declared_at,
        row.edition,
        row.created_at,
        row.updated_at,
        row.changed_by,
        row.request_id,
    )


def read_schedule(columns: Columns) -> ScheduleRow:
    """Return a schedule from its columns."""
    names = dict(zip(SCHEDULE.names, columns, strict=True))
    names["paused"] = bool(names["paused"])
    names["value"] = Payload(names["value"], names.pop("value_encoding"))
    return ScheduleRow(**names)


def slot_values(schedule_id: str, slot: SlotRow) -> tuple[Any, ...]:
    """Return the columns of a slot."""
    return (
        schedule_id,
        slot.slot,
        slot.cause,
        slot.outcome,
        slot.reason,
        slot.instance_id,
        slot.at,
        slot.follows,
        slot.first_slot,
        slot.slot_count,
        slot.more,
        slot.late,
        slot.ended,
    )


def read_slot(columns: Columns) -> SlotRow:
    """Return a slot from its columns without the schedule's id."""
    names = dict(zip(_SLOT, columns, strict=True))
    for name in ("follows", "more", "late"):
        names[name] = bool(names[name])
    return SlotRow(**names)


def read_run(columns: Columns, dialect: Dialect) -> FollowedRun:
    """Return a followed slot from its columns, then ``incarnation``, ``status``, ``held``,
    ``unread`` and ``ending``.
    """
    *slot, incarnation, status, held, unread, ending = columns
    known = None if status is None else dialect.library.statuses.read(status)
    return FollowedRun(read_slot(slot), incarnation, known, bool(held), bool(unread), bool(ending))
