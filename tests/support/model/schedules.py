"""Schedules in the model: a dictionary of rows, and of what is recorded of their slots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from orchestra.store.changes import ScheduleWrite
from orchestra.store.kinds import Dialect, MessageKind
from orchestra.store.outcomes import Appended, Outcome, Refusal, Refused, ScheduleWritten, Started
from orchestra.store.schedules import (
    DueSchedule,
    FollowedRun,
    ScheduleRecord,
    ScheduleRow,
    SlotRow,
    message_id_of,
)
from tests.support.model.ages import read
from tests.support.model.world import ModelWorld

Apply = Callable[[Any], Outcome]

_WHY = {
    Refusal.NOT_FOUND: "there is no instance {!r}",
    Refusal.CLOSED: "instance {!r} has ended",
    Refusal.FULL: "the inbox of instance {!r} is full",
}


def write_schedule(world: ModelWorld, now: int, write: ScheduleWrite, apply: Apply) -> Outcome:
    standing = world.schedules.get(write.schedule_id)
    fence = (None, 0) if standing is None else (standing.incarnation, standing.revision)
    if fence != (write.incarnation if write.revision else None, write.revision):
        return Refused()
    arrivals: list[tuple[str, Appended]] = []
    done: list[SlotRow] = []
    for cancel in write.cancels:
        marked = apply(cancel)
        if isinstance(marked, Appended) and marked.fresh:
            arrivals.append((cancel.instance_id, marked))
    for act in write.acts:
        slot, outcome = act.slot, None
        if act.start is not None:
            outcome = apply(act.start)
            is_same = getattr(outcome, "same", False)
            if not isinstance(outcome, Started) and not (is_same and slot.cause != "backfill"):
                why = f"an instance with the id {act.start.instance_id!r} exists already"
                if is_same:
                    why = f"it ran before, as instance {act.start.instance_id!r}"
                slot = replace(slot, outcome="failed", reason=why, follows=False)
        elif act.event is not None:
            target = act.event.instance_id
            outcome = apply(act.event)
            if isinstance(outcome, Appended):
                arrivals += [(target, outcome)] if outcome.fresh else []
            else:
                why = _WHY[outcome.reason].format(target)  # type: ignore[union-attr]
                slot = replace(slot, outcome="failed", reason=why, follows=False)
        done.append(replace(slot, at=now))
    slots = {**world.slots.get(write.schedule_id, {})}
    if write.row is None:
        world.schedules.pop(write.schedule_id)
        world.slots.pop(write.schedule_id, None)
        done += [replace(slot, at=now) for slot in write.slots]
        return ScheduleWritten(tuple(done), tuple(arrivals))
    row = write.row
    failed = {place: one.reason for place, one in enumerate(done) if one.outcome == "failed"}
    if failed and write.refused is not None:
        row = write.refused(failed)
    done += [replace(slot, at=now) for slot in write.slots]
    for one in write.ended:
        if one.key in slots:
            slots[one.key] = replace(slots[one.key], follows=False, ended=one.ended)
    for slot in done:
        slots.setdefault(slot.key, slot)
    forgotten = sorted(
        (slot for slot in slots.values() if not slot.follows),
        key=lambda slot: slot.slot,
        reverse=True,
    )
    if done and len(forgotten) >= 100:
        slots = {
            key: slot
            for key, slot in slots.items()
            if slot.follows or slot.slot >= forgotten[99].slot
        }
    world.slots[write.schedule_id] = slots
    world.schedules[write.schedule_id] = replace(
        row,
        incarnation=write.incarnation,
        revision=write.revision + 1,
        updated_at=now,
    )
    return ScheduleWritten(tuple(done), tuple(arrivals))


def due(
    world: ModelWorld, dialect: Dialect, now: int, limit: int, after: tuple[int, str] | None
) -> list[DueSchedule]:
    found = sorted(
        (row.next_at, row.schedule_id)
        for row in world.schedules.values()
        if row.next_at is not None and row.next_at <= now
    )
    return [
        DueSchedule(world.schedules[place[1]], _runs(world, dialect, world.schedules[place[1]]))
        for place in found
        if after is None or place > after
    ][:limit]


def record(
    world: ModelWorld, dialect: Dialect, schedule_id: str, slots: int
) -> ScheduleRecord | None:
    row = world.schedules.get(schedule_id)
    if row is None:
        return None
    kept = world.slots.get(schedule_id, {}).values()
    newest = sorted(kept, key=lambda slot: (slot.slot, slot.cause), reverse=True)
    return ScheduleRecord(row, _runs(world, dialect, row), tuple(newest[:slots]))


def _runs(world: ModelWorld, dialect: Dialect, row: ScheduleRow) -> tuple[FollowedRun, ...]:
    runs: list[FollowedRun] = []
    for slot in sorted(world.slots.get(row.schedule_id, {}).values(), key=lambda slot: slot.slot):
        if not slot.follows:
            continue
        run = FollowedRun(slot)
        instance = world.instances.get(slot.instance_id or "")
        if instance is not None:
            sent = message_id_of(row.schedule_id, slot.key)
            events = [one for one in instance.messages if one.kind is MessageKind.EVENT]
            run = replace(run, unread=any(one.message_id == sent for one in events))
            if instance.schedule == (row.schedule_id, slot.slot):
                status = read(instance.status, dialect.library.statuses)
                run = replace(
                    run,
                    incarnation=instance.row.incarnation,
                    status=status,
                    held=instance.held,
                    ending=instance.row.cancel is not None,
                )
        runs.append(run)
    return tuple(sorted(runs, key=lambda run: (run.slot.slot, run.slot.cause)))
