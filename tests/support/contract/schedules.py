"""Schedules: a tick is one conditional write (rules 35 and 41, I14)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestra.codec import Payload, UserText
from orchestra.store.audit import Record
from orchestra.store.changes import Cancel, ScheduleAct, ScheduleWrite
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Granted, Refused, ScheduleWritten, Started
from orchestra.store.port import Provider
from orchestra.store.queries import InstanceQuery
from orchestra.store.schedules import (
    BACKFILLED,
    KEPT_SLOTS,
    TRIGGERED,
    EndedRun,
    ScheduleRecord,
    ScheduleRow,
    SlotKey,
    SlotRow,
    message_id_of,
)
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase
from tests.support.contract.shorthand import (
    SECOND,
    a_start,
    a_write,
    an_append,
    an_end,
    begin,
    claim,
    expect,
    one,
    read,
)

Open = Callable[[], Provider]


def a_row(schedule_id: str = "s", **changes: Any) -> ScheduleRow:
    value = Payload(b'"x"', 2)
    row = ScheduleRow(
        schedule_id, "", 0, b"when", b"so far", value, 5, False, 3, None, None, 1, 0, 0, "ops", "q1"
    )
    return replace(row, **changes)


def a_slot(slot: int, instance_id: str | None = None, **changes: Any) -> SlotRow:
    follows = instance_id is not None
    return replace(SlotRow(slot, "slot", "fired", "", instance_id, 0, follows), **changes)


def a_schedule_write(
    revision: int, row: ScheduleRow | None = None, schedule_id: str = "s", **fields: Any
) -> ScheduleWrite:
    return ScheduleWrite(schedule_id, "life", revision, row or a_row(schedule_id), **fields)


def a_run(slot: int, schedule_id: str = "s") -> ScheduleAct:
    instance_id = f"{schedule_id}-{slot}"
    start = replace(
        a_start(instance_id, "a", f"{schedule_id}/{slot}"), schedule=(schedule_id, slot)
    )
    return ScheduleAct(a_slot(slot, instance_id), start=start)


def a_tick_event(slot: int, instance_id: str = "i") -> ScheduleAct:
    event = an_append(instance_id, message_id_of("s", SlotKey(slot, "slot")), "tick")
    return ScheduleAct(a_slot(slot, instance_id), event=event)


def granted(provider: Provider, write: ScheduleWrite) -> ScheduleWritten:
    return expect(one(provider, write), ScheduleWritten)


def shown(provider: Provider, schedule_id: str = "s", slots: int = 200) -> ScheduleRecord:
    record = provider.directory.schedule(schedule_id, slots)
    assert record is not None
    return record


class ScheduleTests(ContractBase):
    """A schedule's row is written under its fence, with all that its slots do."""

    def test_a_schedule_is_made_once_and_each_write_adds_one_to_its_revision(
        self, provider: Provider, connect: Open
    ) -> None:
        assert provider.directory.schedule("s") is None
        granted(provider, a_schedule_write(0))
        assert one(connect(), a_schedule_write(0)) == Refused()
        row = shown(provider).row
        assert (row.incarnation, row.revision, row.definition) == ("life", 1, b"when")
        granted(provider, a_schedule_write(1, replace(row, definition=b"other", paused=True)))
        changed = shown(provider).row
        assert (changed.revision, changed.definition, changed.paused) == (2, b"other", True)
        assert changed.created_at == row.created_at

    def test_of_two_that_make_a_schedule_in_one_group_the_first_does(
        self, provider: Provider
    ) -> None:
        writes = [a_schedule_write(0), a_schedule_write(0, a_row(definition=b"late"))]
        outcomes = provider.store.commit(writes).outcomes
        assert outcomes == (ScheduleWritten(), Refused())
        assert shown(provider).row.definition == b"when"

    def test_a_write_on_an_old_revision_or_a_former_life_does_nothing(
        self, provider: Provider
    ) -> None:
        granted(provider, a_schedule_write(0))
        granted(provider, a_schedule_write(1))
        stale = a_schedule_write(1, acts=(a_run(9),), slots=(a_slot(8),))
        assert one(provider, stale) == Refused()
        assert one(provider, replace(stale, revision=2, incarnation="former")) == Refused()
        assert one(provider, replace(stale, schedule_id="nobody")) == Refused()
        assert provider.directory.get("s-9") is None
        assert shown(provider).slots == ()

    def test_two_nodes_tick_one_slot_and_one_of_them_starts_its_instance(
        self, provider: Provider, connect: Open
    ) -> None:
        granted(provider, a_schedule_write(0))
        tick = a_schedule_write(1, a_row(next_at=20), acts=(a_run(10),))
        other = connect()
        outcomes = [one(provider, tick), one(other, tick)]
        assert [type(outcome) for outcome in outcomes] == [ScheduleWritten, Refused]
        assert read(provider, "s-10").schedule == ("s", 10)
        expect(one(provider, a_start("other")), Started)
        for schedule_id, found in (("s", ["s-10"]), ("t", [])):
            listed = provider.directory.list(InstanceQuery(schedule=schedule_id))
            assert [record.row.instance_id for record in listed] == found
        (slot,) = shown(provider).slots
        assert (slot.outcome, slot.instance_id, slot.follows) == ("fired", "s-10", True)

    def test_a_slot_that_has_started_before_counts_as_started(self, provider: Provider) -> None:
        granted(provider, a_schedule_write(0))
        granted(provider, a_schedule_write(1, acts=(a_run(10),)))
        granted(provider, a_schedule_write(2, None))
        deleted = one(provider, ScheduleWrite("s", "life", 3, None))
        expect(deleted, ScheduleWritten)
        assert provider.directory.schedule("s") is None
        granted(provider, a_schedule_write(0))
        assert shown(provider).slots == (), "its slots have gone with it"
        (slot,) = granted(provider, a_schedule_write(1, acts=(a_run(10),))).slots
        assert slot.outcome == "fired"
        assert read(provider, "s-10").row.revision == 1

    def test_a_backfill_of_a_slot_that_has_run_fails_and_says_so(self, provider: Provider) -> None:
        granted(provider, a_schedule_write(0))
        granted(provider, a_schedule_write(1, acts=(a_run(10),)))
        act = a_run(10)
        act = replace(act, slot=replace(act.slot, cause=BACKFILLED))
        (slot,) = granted(provider, a_schedule_write(2, acts=(act,))).slots
        assert (slot.outcome, slot.reason) == ("failed", "it ran before, as instance 's-10'")

    def test_a_slot_whose_id_another_instance_has_fails_and_says_so(
        self, provider: Provider
    ) -> None:
        granted(provider, a_schedule_write(0))
        expect(one(provider, a_start("s-10", request_id="somebody else")), Started)
        write = a_schedule_write(
            1,
            acts=(a_run(10), a_run(11)),
            refused=lambda reasons: a_row(state=b"refused: %r" % list(reasons)),
        )
        slot, other = granted(provider, write).slots
        assert (slot.outcome, slot.follows, other.outcome) == ("failed", False, "fired")
        assert "'s-10'" in slot.reason
        assert shown(provider).row.state == b"refused: [0]"

    def test_the_runs_that_a_schedule_follows_show_how_they_are(self, provider: Provider) -> None:
        granted(provider, a_schedule_write(0))
        granted(provider, a_schedule_write(1, a_row(next_at=30), acts=(a_run(10), a_run(20))))
        snapshots = {one.row.instance_id: one.row for one in claim(provider)}
        expect(one(provider, an_end(snapshots["s-10"], Status.FAILED)), Granted)
        (due,) = provider.store.due_schedules(30, 10)
        assert [(run.slot.slot, run.status, run.incarnation) for run in due.runs] == [
            (10, Status.FAILED, "a"),
            (20, Status.OPEN, "a"),
        ]
        ended = (EndedRun(SlotKey(10, "slot"), "failed"),)
        granted(provider, a_schedule_write(2, ended=ended))
        record = shown(provider)
        assert [run.slot.slot for run in record.runs] == [20]
        assert [slot.ended for slot in record.slots] == [None, "failed"]

    def test_a_run_that_was_deleted_is_no_run_of_its_slot_any_more(
        self, provider: Provider
    ) -> None:
        granted(provider, a_schedule_write(0))
        granted(provider, a_schedule_write(1, acts=(a_run(10),)))
        (snapshot,) = claim(provider)
        expect(one(provider, an_end(snapshot.row)), Granted)
        assert provider.admin.delete("s-10", "a", by="ops", reason="")
        expect(one(provider, a_start("s-10")), Started)
        (run,) = shown(provider).runs
        assert run.status is None

    def test_an_event_is_sent_once_and_the_schedule_sees_when_it_is_read(
        self, provider: Provider
    ) -> None:
        granted(provider, a_schedule_write(0))
        row = begin(provider)
        granted(provider, a_schedule_write(1, acts=(a_tick_event(10),)))
        assert [run.unread for run in shown(provider).runs] == [True]
        (message,) = provider.directory.messages("i")
        expect(one(provider, a_write(row, consumed=(message.sequence,))), Granted)
        assert [run.unread for run in shown(provider).runs] == [False]
        granted(provider, a_schedule_write(2, acts=(a_tick_event(10),)))
        assert provider.directory.messages("i") == []

    @pytest.mark.parametrize(
        ("instance_id", "reason"),
        [("nobody", "no instance"), ("ended", "has ended"), ("full", "is full")],
    )
    def test_an_event_that_cannot_be_sent_is_a_failed_slot_with_its_reason(
        self, provider: Provider, instance_id: str, reason: str
    ) -> None:
        granted(provider, a_schedule_write(0))
        expect(one(provider, an_end(begin(provider, "ended"))), Granted)
        begin(provider, "full")
        act = a_tick_event(10, instance_id)
        assert act.event is not None
        act = replace(act, event=replace(act.event, limits=an_append("i", limit=0).limits))
        (slot,) = granted(provider, a_schedule_write(1, acts=(act,))).slots
        assert (slot.outcome, slot.follows) == ("failed", False)
        assert reason in slot.reason
        assert instance_id in slot.reason

    def test_a_slot_cancels_the_run_before_it_in_the_same_write(self, provider: Provider) -> None:
        granted(provider, a_schedule_write(0))
        granted(provider, a_schedule_write(1, acts=(a_run(10),)))
        cancel = Cancel("s-10", UserText("the next one"), "s", incarnation="a")
        written = granted(provider, a_schedule_write(2, acts=(a_run(20),), cancels=(cancel,)))
        assert [instance_id for instance_id, _ in written.arrivals] == ["s-10"]
        mark = read(provider, "s-10").row.cancel
        assert mark is not None
        assert (mark.reason, mark.terminate) == (UserText("the next one"), False)
        assert [run.ending for run in shown(provider).runs] == [True, False]
        assert read(provider, "s-20").status is Status.OPEN

    def test_what_is_recorded_of_a_slot_stays(self, provider: Provider) -> None:
        granted(provider, a_schedule_write(0))
        missed = a_slot(
            10, outcome="missed_window", first_slot=4, slot_count=5, more=True, late=True
        )
        granted(provider, a_schedule_write(1, slots=(missed,)))
        granted(provider, a_schedule_write(2, slots=(a_slot(10, outcome="fired"),)))
        granted(
            provider, a_schedule_write(3, slots=(a_slot(10, outcome="fired", cause=TRIGGERED),))
        )
        slots = [(slot.cause, slot.outcome) for slot in shown(provider).slots]
        assert slots == [("trigger", "fired"), ("slot", "missed_window")]
        assert shown(provider).slots[1] == replace(missed, at=shown(provider).slots[1].at)

    def test_the_newest_slots_are_kept_and_those_that_are_followed(
        self, provider: Provider
    ) -> None:
        granted(provider, a_schedule_write(0))
        granted(provider, a_schedule_write(1, acts=(a_run(1),)))
        slots = tuple(a_slot(number) for number in range(2, KEPT_SLOTS + 12))
        granted(provider, a_schedule_write(2, slots=slots))
        kept = [slot.slot for slot in shown(provider, slots=500).slots]
        assert kept == [*range(KEPT_SLOTS + 11, 11, -1), 1]

    def test_the_earliest_schedule_tells_when_the_next_tick_is(self, provider: Provider) -> None:
        assert provider.store.next_tick() is None
        for name, next_at in (("a", 30), ("b", None), ("c", 10), ("d", 10)):
            granted(provider, a_schedule_write(0, a_row(name, next_at=next_at), name))
        assert provider.store.next_tick() == 10
        assert [provider.store.next_tick(after) for after in (9, 10, 29, 30)] == [10, 30, 30, None]
        assert [due.row.schedule_id for due in provider.store.due_schedules(29, 10)] == ["c", "d"]
        assert provider.store.due_schedules(9, 10) == []
        first = provider.store.due_schedules(30, 2)
        assert [due.row.schedule_id for due in first] == ["c", "d"]
        (last,) = provider.store.due_schedules(30, 2, (10, "d"))
        assert last.row.schedule_id == "a"
        for name in ("c", "d"):
            granted(provider, a_schedule_write(1, a_row(name, next_at=None), name))
        assert provider.store.next_tick() == 30

    def test_schedules_are_listed_by_id_each_with_its_newest_slot(self, provider: Provider) -> None:
        for name in ("c", "a", "b"):
            granted(provider, a_schedule_write(0, a_row(name), name))
        granted(provider, a_schedule_write(1, a_row("b"), "b", slots=(a_slot(1), a_slot(2))))
        listed = provider.directory.schedules("", 2)
        assert [one.row.schedule_id for one in listed] == ["a", "b"]
        assert [slot.slot for slot in listed[1].slots] == [2]
        assert [one.row.schedule_id for one in provider.directory.schedules("b", 2)] == ["c"]

    def test_an_operators_write_is_in_the_audit_and_a_refused_one_is_not(
        self, provider: Provider
    ) -> None:
        record = Record("ops", "create schedule", "s", {"x": 1}, UserText("because"))
        granted(provider, a_schedule_write(0, record=record))
        assert one(provider, a_schedule_write(0, record=record)) == Refused()
        (entry,) = self.read_audit(provider)
        assert entry[:3] == ("ops", "create schedule", "s")

    def test_a_refused_tick_leaves_nothing_of_its_starts(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        granted(provider, a_schedule_write(0))
        refused = a_schedule_write(7, acts=(a_run(10),))
        start = replace(a_start("s-10", request_id="later"), wake_at=clock.now() + SECOND)
        outcomes = provider.store.commit([refused, start]).outcomes
        assert [type(outcome) for outcome in outcomes] == [Refused, Started]
        assert read(provider, "s-10").schedule is None
