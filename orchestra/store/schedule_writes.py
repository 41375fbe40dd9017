"""Decide the write of a schedule: its fence, what its slots do, and what becomes of them (rule
35).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from orchestra.frozen import frozen
from orchestra.store.changes import Append, Cancel, ScheduleAct, ScheduleWrite, Start
from orchestra.store.outcomes import (
    Appended,
    AppendRefused,
    Refusal,
    ScheduleWritten,
    Started,
    StartExists,
)
from orchestra.store.schedules import (
    FAILED,
    SKIPPED,
    EndedRun,
    ScheduleFence,
    ScheduleRow,
    SlotRow,
)

__all__ = ["Doing", "ScheduleChange", "decide_schedule"]


@dataclass(frozen=True, slots=True)
class Doing:
    """How a group starts, sends, cancels, and tells whether a message of an inbox is unread."""

    start: Callable[[Start], Started | StartExists]
    append: Callable[[Append], Appended | AppendRefused]
    cancel: Callable[[Cancel], Appended | AppendRefused]
    is_unread: Callable[[str, str], bool]


@frozen
class ScheduleChange:
    """What a provider writes of a schedule: its row under its new revision, or ``None`` to delete
    it; slots to add, unless they are there; slots that are followed no longer.
    """

    schedule_id: str
    read_revision: int
    row: ScheduleRow | None
    slots: tuple[SlotRow, ...]
    ended: tuple[EndedRun, ...]
    hints: bool = False
    """Whether other nodes should look at it soon."""


def decide_schedule(
    write: ScheduleWrite, fences: dict[str, ScheduleFence], now: int, doing: Doing
) -> tuple[ScheduleChange, ScheduleWritten] | None:
    """Decide a write; ``None``: its fence does not hold, and nothing is done.

    The fence of the schedule is changed: a later write of the group meets the new one.
    """
    standing = fences.get(write.schedule_id, ScheduleFence("", 0))
    if standing.revision != write.revision or (
        write.revision and standing.incarnation != write.incarnation
    ):
        return None
    arrivals: list[tuple[str, Appended]] = []
    acted = [_act(act, doing, arrivals) for act in write.acts]
    slots = tuple(replace(slot, at=now) for slot in (*acted, *write.slots))
    row = write.row
    if row is not None:
        counts = dict(standing.counts if write.revision else {})
        for slot in slots:
            counts[slot.outcome] = counts.get(slot.outcome, 0) + 1
        row = replace(
            row,
            incarnation=write.incarnation,
            revision=write.revision + 1,
            updated_at=now,
            created_at=row.created_at if write.revision else now,
            counts=counts,
        )
        fences[write.schedule_id] = ScheduleFence(row.incarnation, row.revision, counts)
    else:
        fences.pop(write.schedule_id, None)
    by_operator = write.record is not None
    change = ScheduleChange(write.schedule_id, write.revision, row, slots, write.ended, by_operator)
    return change, ScheduleWritten(slots, tuple(arrivals))


def _act(act: ScheduleAct, doing: Doing, arrivals: list[tuple[str, Appended]]) -> SlotRow:
    """Do what a slot does. Return the slot with what became of it."""
    for mark in act.cancels:
        marked = doing.cancel(mark)  # what has ended meanwhile needs no mark
        if isinstance(marked, Appended) and marked.fresh:
            arrivals.append((mark.instance_id, marked))
    if act.start is not None:
        outcome = doing.start(act.start)
        if isinstance(outcome, Started) or outcome.same:
            return act.slot
        reason = f"an instance with the id {act.start.instance_id!r} exists already"
        return replace(act.slot, outcome=FAILED, reason=reason, follows=False)
    if act.event is None:
        return act.slot
    target = act.event.instance_id
    if any(doing.is_unread(target, one) for one in act.behind):
        return replace(
            act.slot,
            outcome=SKIPPED,
            reason=f"instance {target!r} has not read the tick before",
            follows=False,
        )
    sent = doing.append(act.event)
    if isinstance(sent, AppendRefused):
        reason = _REFUSALS[sent.reason].format(target)
        return replace(act.slot, outcome=FAILED, reason=reason, follows=False)
    if sent.fresh:
        arrivals.append((target, sent))
    return act.slot


_REFUSALS: Final = {
    Refusal.NOT_FOUND: "there is no instance {!r}",
    Refusal.CLOSED: "instance {!r} has ended",
    Refusal.FULL: "the inbox of instance {!r} is full",
}
