"""Convert rows of schedules to columns and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestra.codec import pack, unpack
from orchestra.store.kinds import Dialect
from orchestra.store.schedules import (
    FollowedRun,
    ScheduleFence,
    ScheduleRow,
    SlotRow,
)
from orchestra.store.tables import SCHEDULE

__all__ = [
    "read_fence",
    "read_run",
    "read_schedule",
    "read_slot",
    "schedule_values",
    "slot_values",
]

Columns = Sequence[Any]


def schedule_values(row: ScheduleRow) -> tuple[Any, ...]:
    """Return the columns of a schedule."""
    return (
        row.schedule_id,
        row.incarnation,
        row.revision,
        row.definition,
        row.state,
        row.next_at,
        row.paused,
        row.level,
        row.declared,
        row.created_at,
        row.updated_at,
        row.changed_by,
        row.request_id,
        pack(dict(row.counts)),
    )


def read_schedule(columns: Columns) -> ScheduleRow:
    """Return a schedule from its columns."""
    names = dict(zip(SCHEDULE.names, columns, strict=True))
    names["paused"], names["counts"] = bool(names["paused"]), unpack(names["counts"])
    return ScheduleRow(**names)


def read_fence(columns: Columns) -> ScheduleFence:
    """Return a schedule's fence from ``incarnation``, ``revision`` and ``counts``."""
    incarnation, revision, counts = columns
    return ScheduleFence(incarnation, revision, unpack(counts) if counts else {})


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
        slot.ended,
    )


def read_slot(columns: Columns) -> SlotRow:
    """Return a slot from its columns without the schedule's id."""
    slot, cause, outcome, reason, instance_id, at, follows, ended = columns
    return SlotRow(slot, cause, outcome, reason, instance_id, at, bool(follows), ended)


def read_run(columns: Columns, dialect: Dialect) -> FollowedRun:
    """Return a followed slot from its columns, then ``incarnation``, ``status``, ``held`` and
    ``unread``.
    """
    *slot, incarnation, status, held, unread = columns
    known = None if status is None else dialect.library.statuses.read(status)
    return FollowedRun(read_slot(slot), incarnation, known, bool(held), bool(unread))
