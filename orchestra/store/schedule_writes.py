"""Decide the write of a schedule: its fence, what its slots do, and what becomes of them (rule
35).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from orchestra.codec import UserText
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
    BACKFILLED,
    FAILED,
    EndedRun,
    ScheduleFence,
    ScheduleRow,
    SlotRow,
)

__all__ = ["Doing", "ScheduleChange", "decide_schedule"]


@dataclass(frozen=True, slots=True)
class Doing:
    """How a group starts, sends and cancels."""

    start: Callable[[Start], Started | StartExists]
    append: Callable[[Append], Appended | AppendRefused]
    cancel: Callable[[Cancel], Appended | AppendRefused]


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
    for mark in write.cancels:
        marked = doing.cancel(mark)
        if isinstance(marked, Appended) and marked.fresh:
            arrivals.append((mark.instance_id, marked))
    acted = [_act(act, doing, arrivals) for act in write.acts]
    slots = tuple(replace(slot, at=now) for slot in (*acted, *write.slots))
    row = write.row
    if row is None:
        fences.pop(write.schedule_id, None)
    else:
        refused = {
            position: slot.reason for position, slot in enumerate(acted) if slot.outcome == FAILED
        }
        if refused and write.refused is not None:
            row = write.refused(refused)
        row = replace(
            row,
            incarnation=write.incarnation,
            revision=write.revision + 1,
            updated_at=now,
        )
        fences[write.schedule_id] = ScheduleFence(row.incarnation, row.revision)
    by_operator = write.record is not None
    change = ScheduleChange(write.schedule_id, write.revision, row, slots, write.ended, by_operator)
    return change, ScheduleWritten(slots, tuple(arrivals))


def _act(act: ScheduleAct, doing: Doing, arrivals: list[tuple[str, Appended]]) -> SlotRow:
    """Do what a slot does. Return the slot with what became of it."""
    if act.start is not None:
        outcome = doing.start(act.start)
        is_again = act.slot.cause == BACKFILLED
        if isinstance(outcome, Started) or (outcome.same and not is_again):
            return act.slot
        instance_id = act.start.instance_id
        reason = f"an instance with the id {instance_id!r} exists already"
        if outcome.same:
            reason = f"it ran before, as instance {instance_id!r}"
        return _failed(act.slot, reason)
    if act.event is None:
        return act.slot
    target = act.event.instance_id
    sent = doing.append(act.event)
    if isinstance(sent, AppendRefused):
        return _failed(act.slot, _REFUSALS[sent.reason].format(target))
    if sent.fresh:
        arrivals.append((target, sent))
    return act.slot


def _failed(slot: SlotRow, reason: str) -> SlotRow:
    return replace(slot, outcome=FAILED, reason=UserText(reason), follows=False)


_REFUSALS: Final = {
    Refusal.NOT_FOUND: "there is no instance {!r}",
    Refusal.CLOSED: "instance {!r} has ended",
    Refusal.FULL: "the inbox of instance {!r} is full",
}
