"""Checks what a store has recorded of schedules (I14)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from orchestra.store.port import Directory
from orchestra.store.queries import InstanceQuery
from orchestra.store.schedules import KEPT_SLOTS, MOST_FOLLOWED, ScheduleRecord

__all__ = ["find_schedule_faults"]

_PAGE: Final = 100
_TRIGGERED: Final = "/trigger"


def find_schedule_faults(directory: Directory) -> Iterator[tuple[str, str]]:
    """Yield the id of a schedule and a problem of it: a slot with two instances, or with two
    outcomes.
    """
    after = ""
    while page := directory.schedules(after, _PAGE):
        for listed in page:
            after = listed.row.schedule_id
            record = directory.schedule(after, KEPT_SLOTS + MOST_FOLLOWED)
            if record is not None:
                yield from ((after, problem) for problem in _problems(directory, record))


def _problems(directory: Directory, record: ScheduleRecord) -> Iterator[str]:
    last: int | None = None
    for slot in reversed([slot for slot in record.slots if slot.cause == "slot"]):
        first = slot.slot if slot.first_slot is None else slot.first_slot
        if last is not None and first <= last:
            yield f"slot {first} has two outcomes"
        last = slot.slot
    started = Counter(_runs(directory, record.row.schedule_id))
    for (slot_at, _), number in started.items():
        if number > 1:
            yield f"slot {slot_at} has started {number} instances"


def _runs(directory: Directory, schedule_id: str) -> Iterator[tuple[int, bool]]:
    """Yield the slot of each run, and whether it was triggered."""
    after: tuple[int, str] | None = None
    while True:
        query = InstanceQuery(schedule=schedule_id, limit=1_000, after=after)
        page = directory.list(query)
        for run in page:
            if run.schedule is not None:
                yield run.schedule[1], run.row.instance_id.endswith(_TRIGGERED)
        if len(page) < query.limit:
            return
        after = (page[-1].created_at, page[-1].row.instance_id)
