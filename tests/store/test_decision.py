"""The commit protocol by itself: what a group comes to, given what is stored. No store is
opened.
"""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from orchestra.codec import Payload
from orchestra.events import OnParentClose
from orchestra.store.changes import Append, Cancel, ChildStart, Claim, Recover, Report, Stop
from orchestra.store.decision import Circumstances, Recovery, decide
from orchestra.store.effects import Effects
from orchestra.store.executions import Closing, ExecutionDelta
from orchestra.store.facts import (
    ActivityId,
    Address,
    Addressee,
    ChildLink,
    ExecutionId,
    Facts,
    InboxName,
    Needs,
)
from orchestra.store.hot_row import HotRow
from orchestra.store.inbox_limits import InboxLimits, Waiting
from orchestra.store.instances import CancelMark, ParentLink
from orchestra.store.kinds import THIS_LIBRARY, Dialect, MessageKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import (
    Appended,
    AppendRefused,
    Granted,
    Recovered,
    Refusal,
    Refused,
    Reported,
    Started,
    StartExists,
)
from orchestra.store.routes import Route
from orchestra.store.tables import CANCEL_MARK, HOT_ROW, WRITTEN_ROW
from orchestra.store.tasks import ActivityRow
from tests.support.contract.shorthand import (
    KIND,
    a_hold,
    a_start,
    a_state,
    a_write,
    an_append,
    an_end,
    an_event,
    changed,
)

NOW = 1_000_000
NUMBERS = {KIND: 7}


def a_row(instance_id="i", owner="n1", **changes):
    row = HotRow.started(a_start(instance_id), 7, 1)
    for name, value in {"revision": 2, "read_revision": 2, "owner": owner, **changes}.items():
        setattr(row, name, value)
    return row


def decided(*changes, facts=None, rows=(), **known):
    facts = facts or Facts(rows={row.instance_id: row for row in rows}, **known)
    return decide(
        dict(enumerate(changes)),
        facts,
        Circumstances(NOW, NOW - 100, NUMBERS, Dialect(THIS_LIBRARY)),
    )


def write_of(row, **fields):
    return a_write(
        row.instance(KIND), a_state(row.instance(KIND), **fields.pop("state", {})), **fields
    )


def test_the_fields_of_the_hot_row_stand_in_the_order_of_its_columns():
    assert tuple(field.name for field in fields(HotRow))[: len(HOT_ROW)] == HOT_ROW.names
    row = a_row()
    assert row.written_values == tuple(getattr(row, name) for name in WRITTEN_ROW.names)
    assert row.mark_values == tuple(getattr(row, name) for name in CANCEL_MARK.names)


@pytest.mark.parametrize(
    "change",
    [{"revision": 1}, {"revision": 3}, {"owner": "n2"}, {"incarnation": "another"}],
    ids=lambda change: next(iter(change)),
)
def test_a_write_whose_fence_does_not_hold_changes_nothing(change):
    row = a_row()
    before = replace(row, read_revision=row.read_revision)
    decision = decided(replace(write_of(row), **change), rows=[row])
    assert decision.outcomes == {0: Refused()}
    assert row == before
    assert decision.changed_rows == []


def test_a_park_that_meets_a_newer_message_is_no_park():
    row = a_row(inbox_seq=4)
    decided(write_of(row, state={"owner": None, "wake_at": NOW + 5, "seen_seq": 3}), rows=[row])
    assert (row.owner, row.wake_at, row.is_due(NOW)) == (None, 0, True)


def test_what_arrives_meets_the_row_as_the_owners_writes_leave_it():
    row = a_row()
    end = replace(
        write_of(row, state={"status": Status.COMPLETED, "owner": None}), has_parent=False
    )
    decision = decided(an_append("i"), end, rows=[row])
    assert decision.outcomes == {0: AppendRefused(Refusal.CLOSED), 1: Granted(0)}


def test_of_two_writes_of_one_instance_the_second_builds_on_the_first():
    row = a_row()
    first = write_of(row, executions=(ExecutionDelta(1, events=(an_event(1),)),))
    second = replace(
        write_of(row, executions=(ExecutionDelta(1, events=(an_event(2),)),)), revision=3
    )
    decision = decided(first, second, rows=[row])
    assert decision.outcomes == {0: Granted(0), 1: Granted(0)}
    assert [len(step.events) for step in decision.steps if isinstance(step, Effects)] == [1, 1], (
        "each in a step of its own"
    )
    assert (row.revision, row.read_revision) == (4, 2)


def test_a_recovery_shows_the_row_between_the_steps_around_it():
    row = a_row()
    decision = decided(Recover("i", "n1"), Recover("i", "n2"), an_append("i"), rows=[row])
    (recovery,) = [step for step in decision.steps if isinstance(step, Recovery)]
    assert (recovery.row.revision, recovery.row.inbox_seq) == (3, 0)
    assert (row.revision, row.inbox_seq) == (3, 1)
    assert decision.outcomes[1] == Recovered(None)


def test_a_message_is_counted_once_whoever_sends_it_again():
    row = a_row(owner=None, wake_at=NOW + 9)
    decision = decided(an_append("i"), an_append("i"), rows=[row])
    first, again = decision.outcomes[0], decision.outcomes[1]
    assert (first.sequence, first.fresh, again.sequence, again.fresh) == (1, True, 1, False)
    assert len(decision.messages) == 1
    assert row.wake_at == 0


@pytest.mark.parametrize(("removed_at", "fresh"), [(NOW - 99, False), (NOW - 100, True)])
def test_a_message_that_was_read_is_known_for_the_window(removed_at, fresh):
    known = {Address("i", "m1"): Addressee(removed_as=5, removed_at=removed_at)}
    outcome = decided(an_append("i"), rows=[a_row(inbox_seq=5)], addressees=known).outcomes[0]
    assert (outcome.fresh, outcome.sequence) == (fresh, 6 if fresh else 5)


def test_what_a_write_consumes_makes_room_for_what_comes_in_the_same_group():
    row = a_row(inbox_seq=1, seen_seq=1, most_unread=1, most_unread_bytes=7)
    append = replace(an_append("i", "m2"), limits=InboxLimits(1, 1_000))
    counted = {
        "whole": {"i": Waiting(1, 7)},
        "named": {InboxName("i", "go"): Waiting(1, 7)},
        "consumed": {("i", 1): ("go", 7)},
    }
    full = decided(append, rows=[a_row()], **counted).outcomes[0]
    assert isinstance(full, AppendRefused)
    decision = decided(append, write_of(row, consumed=(1,)), rows=[row], **counted)
    assert isinstance(decision.outcomes[0], Appended)


def test_terminate_beats_cancel_and_nothing_else_changes_a_mark():
    row = a_row()
    changes = [
        Cancel("i", "first"),
        Cancel("i", "second"),
        Cancel("i", "now", terminate=True),
        Cancel("i", "later"),
    ]
    decision = decided(*changes, rows=[row])
    assert [outcome.fresh for outcome in decision.outcomes.values()] == [True, False, True, False]
    assert row.cancel == CancelMark(NOW, "now", "", terminate=True)


def child_of(row, child_id="c", on_close=OnParentClose.CANCEL, request_id="r"):
    link = ParentLink(row.instance_id, row.incarnation, row.execution, 1)
    start = replace(a_start(child_id, request_id=request_id), parent=link, on_parent_close=on_close)
    return ChildStart(child_id, link, start, b"taken")


def test_a_child_whose_id_is_foreign_is_told_to_its_parent_in_the_same_group():
    row, foreign = a_row(), a_row("c")
    decision = decided(
        write_of(row, starts=(child_of(row),)), rows=[row, foreign], requests={"c": "of another"}
    )
    ((instance_id, arrival),) = decision.outcomes[0].arrivals
    assert (instance_id, arrival.message.kind, arrival.message.payload) == (
        "i",
        MessageKind.CHILD_FAILED,
        Payload(b"taken"),
    )
    assert decision.started == {}


def test_an_id_that_was_made_for_a_refused_write_is_there_for_who_asks_next():
    row = a_row()
    refused = replace(write_of(row, starts=(child_of(row, "new"),)), revision=9)
    decision = decided(
        refused,
        a_start("new", "b", "mine"),
        a_start("new", "c", "theirs"),
        rows=[row],
        made={"new"},
    )
    assert list(decision.outcomes.values()) == [Refused(), Started(), StartExists(same=False)]
    assert (
        decision.started["new"].incarnation,
        decision.rows["new"].incarnation,
        decision.unmade,
    ) == ("b", "b", [])


def test_an_id_that_was_made_in_vain_is_unmade():
    row = a_row()
    decision = decided(
        replace(write_of(row, starts=(child_of(row, "new"),)), revision=9), rows=[row], made={"new"}
    )
    assert (decision.unmade, decision.started) == (["new"], {})


def test_the_end_of_a_child_reaches_the_execution_that_asked_for_it_and_no_other():
    for execution, told in ((1, 1), (2, 0)):
        parent, child = a_row("p", execution=execution), a_row("c")
        link = ChildLink(ParentLink("p", "a", 1, 3), OnParentClose.ABANDON)
        decision = decided(an_end(child.instance(KIND)), rows=[parent, child], links={"c": link})
        assert len(decision.messages) == parent.inbox_seq == told


def test_an_end_without_a_parent_concerns_nobody_else():
    end = an_end(a_row().instance(KIND))
    assert Needs({0: end}).concerns_others
    assert not Needs({0: replace(end, has_parent=False)}).concerns_others


def handed_out(owner="n2", revision=4):
    return ActivityRow(
        1, 3, 1, None, 1, b"[]", route=Route("default", "probe"), owner=owner, revision=revision
    )


def test_a_report_counts_under_its_fence_only_and_once():
    key = ActivityId("i", 1, 3)
    report = Report("i", "a", 1, 3, 4, "n2", result=Payload(b"1"))
    row = a_row(owner=None)
    decision = decided(
        replace(report, revision=3),
        replace(report, node="n3"),
        report,
        report,
        rows=[row],
        activities={key: handed_out()},
    )
    refused, foreign, taken, again = decision.outcomes.values()
    assert (refused, foreign, again) == (Refused(), Refused(), Refused())
    assert isinstance(taken, Reported)
    assert decision.reported[key].result == Payload(b"1")
    assert (row.inbox_seq, row.wake_at) == (1, 0)


def test_a_report_on_what_its_owner_has_settled_in_the_same_group_is_refused():
    row = a_row()
    report = Report("i", "a", 1, 3, 4, "n2", result=Payload(b"1"))
    decision = decided(
        report,
        write_of(row, completed=(3,)),
        rows=[row],
        activities={ActivityId("i", 1, 3): handed_out()},
    )
    assert decision.outcomes[0] == Refused()


def stopping(row, *numbers, **fields):
    return write_of(row, stops=tuple(Stop(number, b"withdrawn") for number in numbers), **fields)


def test_a_stop_ends_what_no_node_has_taken_and_marks_what_one_has():
    row = a_row()
    taken, free = replace(handed_out(), event_id=3), replace(handed_out(owner=None), event_id=4)
    known = {ActivityId("i", 1, one.event_id): one for one in (taken, free)}
    decision = decided(stopping(row, 3, 4, 5), rows=[row], activities=known)
    ((instance_id, arrival),) = decision.outcomes[0].arrivals
    assert (instance_id, arrival.sequence, row.inbox_seq, row.wake_at) == ("i", 1, 1, NOW)
    assert arrival.activity == replace(free, stopping=True, failure=b"withdrawn", revision=5)
    assert known[ActivityId("i", 1, 3)] == replace(taken, stopping=True), "its fence holds"
    assert len(decision.steps[0].extras.stopped) == 2


def test_a_stop_builds_on_what_an_earlier_write_of_the_group_has_handed_out():
    row, key = a_row(), ActivityId("i", 1, 3)
    first = write_of(row, activities=(handed_out(owner=None),))
    second = replace(stopping(row, 3), revision=3)
    third = replace(stopping(row, 3, completed=(3,)), revision=4)
    known = {key: handed_out()}
    decision = decided(first, second, third, rows=[row], activities=known)
    ((_, arrival),) = decision.outcomes[1].arrivals
    assert (arrival.activity.revision, arrival.activity.owner) == (6, None)
    assert decision.outcomes[2].arrivals == ()
    assert known == {}


def test_what_an_ending_write_says_of_activities_is_neither_stopped_nor_reported():
    row, key = a_row(), ActivityId("i", 1, 3)
    end = changed(
        an_end(row.instance(KIND)), activities=(handed_out(),), stops=(Stop(3, b"withdrawn"),)
    )
    report = Report("i", "a", 1, 3, 0, "n2", result=Payload(b"1"))
    decision = decided(end, report, rows=[row], activities={key: handed_out()})
    assert decision.outcomes == {0: Granted(0), 1: Refused()}
    assert [step.extras.stopped for step in decision.steps if isinstance(step, Effects)] == [[]]


def test_a_stop_and_the_report_of_the_node_that_has_it_tell_one_end():
    row = a_row()
    report = Report("i", "a", 1, 3, 4, "n2", result=Payload(b"1"))
    decision = decided(
        report, stopping(row, 3), rows=[row], activities={ActivityId("i", 1, 3): handed_out()}
    )
    assert decision.outcomes[1].arrivals == ()
    assert decision.outcomes[0].stopping
    assert row.inbox_seq == 1


def test_those_who_have_something_to_do_are_named_with_the_owner_of_the_moment():
    row, other = a_row(), a_row("other", owner="n2")
    decision = decided(
        write_of(row, state={"owner": None}, hold=a_hold()), an_append("other"), rows=[row, other]
    )
    assert decision.touched == {("i", "n1"), ("i", None), ("other", "n2")}


def test_the_needs_of_a_group_name_all_that_it_locks_in_order():
    parent = a_row("p")
    closing = ExecutionDelta(1, closed=Closing(1, None, None, None), children=True)
    needs = Needs(
        {
            0: write_of(
                parent,
                starts=(child_of(parent, "c"),),
                executions=(closing,),
                state={"execution": 2},
            ),
            1: an_append("b"),
            2: Cancel("a", "enough"),
            3: Claim("n1", (KIND,), 1),
            4: a_start("z"),
        }
    )
    assert needs.rows == ["a", "b", "c", "p", "z"]
    assert needs.closing == [ExecutionId("p", 1)]
    assert set(needs.candidates) == {"c", "z"}
    assert Needs({0: an_append("b"), 1: a_start("z")}).rows == ["b"], (
        "new ids are locked by being made"
    )


def test_a_message_that_was_consumed_in_the_group_is_known():
    row = a_row(inbox_seq=1, seen_seq=1)
    message = MessageRow(1, "m1", "go", Payload(b"1"), 1)
    decision = decided(
        an_append("i"),
        write_of(row, consumed=(1,)),
        rows=[row],
        addressees={Address("i", "m1"): Addressee(message)},
    )
    assert decision.outcomes[0] == Appended(1, "n1", fresh=False)


def test_an_append_to_what_the_group_has_started_finds_it():
    decision = decided(a_start("new"), Append("new", "m", "go", Payload(b"1")), made={"new"})
    assert isinstance(decision.outcomes[1], Appended)
    assert decision.rows["new"].inbox_seq == 1
