"""Schedules of a simulated world: what people do with them, and what must hold of their ticks (rule
35, I14).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Final

from orchestra import schedules as pure
from orchestra.codec import encode
from orchestra.errors import InvalidSchedule, StoreError
from orchestra.operations.scheduling import (
    Circumstances,
    definition_of,
    edited,
    facts_of,
    first_row,
    instant_of,
    read_schedule,
    write_of,
)
from orchestra.schedules import Event, Every, Schedule, SchedulePause, Start, Tick
from orchestra.store.changes import ScheduleWrite
from orchestra.store.inbox_limits import InboxLimits
from orchestra.store.kinds import Library
from orchestra.store.outcomes import Outcome, Refused, ScheduleWritten
from orchestra.store.port import Directory, Provider
from orchestra.store.schedules import ScheduleRecord, SlotKey
from tests.support.simulation.plan import Plan
from tests.support.simulation.programs import PROGRAMS, draw_state

__all__ = ["ScheduleWitness", "Schedulers"]

_OVERLAPS: Final = (
    "skip",
    "buffer_one",
    "buffer_all",
    "cancel_other",
    "terminate_other",
    "allow_all",
)


class ScheduleWitness:
    """Checks each write of a schedule: its fence, and that no slot fires twice."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.known: dict[str, tuple[str, int]] = {}
        """The incarnations and revisions of schedules."""
        self._fired: set[tuple[str, str, SlotKey]] = set()
        self.changed: set[str] = set()
        """Those whose spec was replaced: the slots before that are evaluated by no tick."""

    def written(self, write: ScheduleWrite, outcome: Outcome) -> bool:
        """Check an outcome; return whether the write was granted."""
        schedule_id = write.schedule_id
        standing = self.known.get(schedule_id)
        fits = (
            (standing is None)
            if write.revision == 0
            else standing == (write.incarnation, write.revision)
        )
        if isinstance(outcome, Refused):
            assert not fits, f"I14: a write of schedule {schedule_id} that fits was refused"
            return False
        assert isinstance(outcome, ScheduleWritten), outcome
        assert fits, f"I14: {schedule_id} is at {standing}, a write at {write.revision} was granted"
        if write.row is None:
            del self.known[schedule_id]
            self.changed.discard(schedule_id)
        else:
            self.known[schedule_id] = (write.incarnation, write.revision + 1)
        for slot in outcome.slots:
            if slot.outcome == "fired" and slot.cause == "slot":
                fired = (schedule_id, write.incarnation, slot.key)
                assert fired not in self._fired, f"I14: {fired} fires twice"
                self._fired.add(fired)
        return True

    def check(self, library: Library) -> int:
        """Check what is recorded: each slot that was evaluated has one outcome. Return how many."""
        evaluated = 0
        for schedule_id, (_, revision) in self.known.items():
            record = self._directory.schedule(schedule_id, 500)
            assert record is not None, f"I1: schedule {schedule_id} is lost"
            assert record.row.revision == revision, "I6: its revision is another one"
            evaluated += self._check(record, library)
        return evaluated

    def _check(self, record: ScheduleRecord, library: Library) -> int:
        read = read_schedule(record.row, library)
        own = [slot for slot in record.slots if slot.cause == "slot"]
        last = None
        for slot in reversed(own):
            first = slot.slot if slot.first_slot is None else slot.first_slot
            assert last is None or first > last, f"a tick's outcome is recorded once: {own}"
            last = slot.slot
        recorded = sum(slot.slot_count for slot in own)
        waiting = sum(one.cause == "slot" for one in read.state.buffered)
        if record.row.schedule_id not in self.changed and len(record.slots) < 100:
            begun = instant_of(record.row.created_at)
            asked = read.schedule.count_slots(begun, read.state.cursor, 10_000).slots
            assert recorded + waiting == asked, (
                f"schedule {record.row.schedule_id}: {asked} slots, {recorded} outcomes, "
                f"{waiting} waiting"
            )
        return recorded


class Schedulers:
    """People who make schedules, pause and resume them, run them by hand, change and delete them.

    Args:
        commit: commits a write over their connection, or raises what became of it.
    """

    def __init__(
        self,
        provider: Provider,
        random: Random,
        plan: Plan,
        witness: ScheduleWitness,
        commit: Callable[[ScheduleWrite], Outcome],
        new_id: Callable[[str], str],
    ) -> None:
        self._directory = provider.directory
        self._library = provider.library
        self._random = random
        self._plan = plan
        self._witness = witness
        self._commit = commit
        self._new_id = new_id

    def act(self, instance_ids: Sequence[tuple[str, str]]) -> None:
        """Do one thing. ``instance_ids``: open instances, with their names."""
        random = self._random
        if len(self._witness.known) < 3 and random.random() < 0.5:
            self._make(instance_ids)
            return
        if not self._witness.known:
            return
        schedule_id = random.choice(sorted(self._witness.known))
        record = self._directory.schedule(schedule_id)
        if record is None:
            return
        write = self._decide(record)
        if write is not None:
            self._try(write)

    def end_queues(self) -> None:
        """Delete the schedules whose slots wait for each other: they would take too long."""
        for schedule_id in sorted(self._witness.known):
            record = self._directory.schedule(schedule_id)
            assert record is not None
            row = record.row
            overlap = read_schedule(row, self._library).schedule.overlap
            if overlap.startswith(("buffer", "cancel")):
                self._try(ScheduleWrite(schedule_id, row.incarnation, row.revision, None))

    def _try(self, write: ScheduleWrite) -> None:
        with suppress(StoreError):  # whoever wants to know reads again
            self._commit(write)

    def _make(self, instance_ids: Sequence[tuple[str, str]]) -> None:
        random, now = self._random, self._directory.catalogue().now
        name = random.choice(self._plan.programs)
        value: object = draw_state(name, random, self._plan.programs, self._plan.slots)
        action: Start | Event = Start(name)
        overlap = random.choice(_OVERLAPS)
        hearing = [one for one in instance_ids if PROGRAMS[one[1]].hears]
        if hearing and random.random() < 0.3:
            instance_id, name = random.choice(hearing)
            action = Event(instance_id, random.choice(PROGRAMS[name].hears))
            value, overlap = self._new_id("value"), "skip"
        catch_up = random.choice(("latest", "all", "none"))
        if catch_up == "all" and overlap == "skip":
            catch_up = "latest"
        schedule = Schedule(
            self._new_id("s"),
            Every(timedelta(seconds=random.choice((1, 2, 5)))),
            action,
            overlap=overlap,
            catch_up=catch_up,
            catch_up_window=timedelta(seconds=random.choice((5, 3_600))),
            jitter=timedelta(seconds=random.choice((0, 0, 2))),
            end_at=instant_of(now) + timedelta(seconds=random.choice((6, 20))),
            pause_after_failures=random.choice((None, None, 1)),
        )
        row = first_row(
            schedule,
            definition_of(schedule, None, None),
            encode(value, subject="value"),
            now,
            by="somebody",
            request_id="",
            declared=None,
        )
        self._try(ScheduleWrite(schedule.id, self._new_id("life"), 0, row))

    def _decide(self, record: ScheduleRecord) -> ScheduleWrite | None:
        random, catalogue = self._random, self._directory.catalogue()
        read = read_schedule(record.row, self._library)
        now = instant_of(catalogue.now)
        around = Circumstances(catalogue, catalogue.now, "somebody", InboxLimits(), self._library)
        facts = facts_of(read.schedule, record.runs)
        match random.choice(("pause", "resume", "trigger", "backfill", "update", "delete")):
            case "pause":
                until = random.choice((None, now + timedelta(seconds=3)))
                state = pure.paused(
                    read.schedule, read.state, SchedulePause("why", "somebody", now, until)
                )
                return write_of(read, (), Tick(state), around, row=edited(read.row, "somebody"))
            case "resume":
                done = pure.resume(read.schedule, read.state, now, catch_up=random.random() < 0.5)
                return write_of(read, (), done, around)
            case "trigger":
                done = pure.trigger(read.schedule, read.state, facts, now)
                return write_of(read, record.runs, done, around)
            case "backfill":
                try:
                    slots = pure.backfill_slots(read.schedule, now - timedelta(seconds=5), now, now)
                except InvalidSchedule:
                    return None
                done = pure.backfill(read.schedule, read.state, facts, slots, now)
                return write_of(read, record.runs, done, around)
            case "update":
                self._witness.changed.add(record.row.schedule_id)
                changed = replace(read.schedule, jitter=timedelta(seconds=1))
                state = pure.updated(changed, read.state, now)
                row = replace(read.row, definition=definition_of(changed, None, None))
                return write_of(read, (), Tick(state), around, row=row)
            case _:
                if random.random() < 0.7:
                    return None
                row = record.row
                return ScheduleWrite(row.schedule_id, row.incarnation, row.revision, None)
