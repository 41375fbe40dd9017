"""Terminating: by a write, or by a mark for the owner where each write comes too late."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestra.errors import (
    AlreadyCompleted,
    InstanceNotFound,
    NewerLibraryNeeded,
    StoreUnavailable,
)
from orchestra.events import EVENTS, ExecutionTerminated, from_record
from orchestra.levels import Unknown
from orchestra.operations.steps import Get, Pause, ReadCatalogue, Submit
from orchestra.operations.terminate import terminate, termination
from orchestra.store.audit import Record
from orchestra.store.changes import Cancel, Recover, Write
from orchestra.store.kinds import THIS_LIBRARY, Status
from orchestra.store.outcomes import Appended, Granted, Recovered, Refused
from orchestra.store.snapshots import Snapshot
from tests.support.script import NOW, a_catalogue, a_record, performed

WRITER = EVENTS.writer(1, 1)
READ = a_catalogue()
ENTRY = Record("me", "terminate", "i", reason="enough")
MARKED = Appended(1, "n1", fresh=True)


def ended(answers):
    return performed(terminate("i", "enough", "me", THIS_LIBRARY), answers)


def kinds_of(steps):
    return [type(step.change if isinstance(step, Submit) else step) for step in steps]


def late(times):
    """The answers to so many writes that come too late, each after a read."""
    for _ in range(times):
        yield from (a_record(), READ, Refused())


def test_an_instance_that_is_not_written_meanwhile_is_ended_by_one_write():
    record = a_record(owner="n1", opened=True)
    steps, result = ended([record, READ, Granted(0)])
    assert result is record
    assert steps == [
        Get("i"),
        ReadCatalogue(),
        Submit(replace(termination(record.row, "enough", NOW, WRITER), record=ENTRY)),
    ]
    assert steps[2].change.revision == record.row.revision


def test_its_end_is_no_earlier_than_what_was_last_written_of_it():
    steps, _ = ended([a_record(updated_at=NOW + 50), READ, Granted(0)])
    assert steps[-1].change.executions[0].closed.at == NOW + 50


def test_an_execution_that_has_begun_gets_its_last_event_and_one_that_has_not_gets_none():
    begun = termination(
        a_record(opened=True, history_events=4, history_bytes=100).row, "enough", NOW, WRITER
    )
    (event,) = begun.executions[0].events
    assert from_record(event) == ExecutionTerminated(5, NOW, "enough")
    assert (begun.state.history_events, begun.state.history_bytes) == (5, 100 + event.size)
    waiting = termination(a_record().row, "enough", NOW, WRITER)
    assert (waiting.executions[0].events, waiting.state.history_events, waiting.state.status) == (
        (),
        0,
        Status.TERMINATED,
    )


def test_a_second_write_raises_the_revision_in_the_owners_name_first():
    record = a_record(owner="n1", opened=True)
    recovered = Recovered(Snapshot(replace(record.row, revision=9), record.execution))
    steps, result = ended([record, READ, Refused(), record, recovered, READ, Granted(0)])
    assert result is record
    assert steps[4] == Submit(Recover("i", "n1"))
    assert steps[-1].change.revision == 9


@pytest.mark.parametrize("is_reborn", [False, True], ids=["parked", "another life"])
def test_an_instance_that_its_owner_has_left_meanwhile_is_read_again_before_it_is_written(
    is_reborn,
):
    record, parked = a_record(owner="n1"), a_record(revision=8)
    reborn = Snapshot(replace(record.row, incarnation="b"), record.execution)
    steps, result = ended(
        [
            record,
            READ,
            Refused(),
            record,
            Recovered(reborn if is_reborn else None),
            parked,
            READ,
            Granted(0),
        ]
    )
    assert result is parked
    assert kinds_of(steps) == [Get, ReadCatalogue, Write, Get, Recover, Get, ReadCatalogue, Write]
    assert steps[-1].change.revision == 8


def test_after_nine_late_writes_it_marks_the_instance_and_the_owner_ends_it():
    steps, result = ended([*late(9), MARKED, None, a_record(status=Status.TERMINATED)])
    assert result is None, "it was not this operation's write that ended it"
    mark = Cancel("i", "enough", "me", terminate=True, incarnation="a", record=ENTRY)
    assert [
        step.change
        for step in steps
        if isinstance(step, Submit) and isinstance(step.change, Cancel)
    ] == [mark]
    assert kinds_of(steps).count(Write) == 9
    assert kinds_of(steps)[-3:] == [Cancel, Pause, Get]


def test_an_end_is_recorded_once_by_its_mark_or_by_the_write_after_it():
    looks = [*late(9), MARKED, None, a_record(), READ, Granted(0)]
    steps, _ = ended(looks)
    recorded = [step.change.record for step in steps if isinstance(step, Submit)][-2:]
    assert recorded == [ENTRY, None], "the mark was the act"
    steps, _ = ended([*late(9), replace(MARKED, fresh=False), *looks[-4:]])
    recorded = [step.change.record for step in steps if isinstance(step, Submit)][-2:]
    assert recorded == [ENTRY, ENTRY], "another operator's mark is another act"


def test_after_the_mark_it_looks_and_writes_again_ever_less_often():
    looks = [answer for _ in range(60) for answer in (a_record(), READ, Refused(), None)]
    steps, _ = ended([*late(9), MARKED, None, *looks, a_record(), READ, Granted(0)])
    pauses = [step.seconds for step in steps if isinstance(step, Pause)]
    assert pauses[0] == 0.01
    assert pauses == sorted(pauses)
    assert set(pauses[-10:]) == {0.5}
    assert kinds_of(steps).count(Cancel) == 1


@pytest.mark.parametrize(
    "after", [None, a_record(incarnation="b")], ids=["deleted", "another life"]
)
def test_a_marked_instance_that_is_gone_was_ended_and_one_without_a_mark_had_ended_before(after):
    assert ended([*late(9), MARKED, None, after])[1] is None
    assert isinstance(ended([*late(8), after])[1], AlreadyCompleted)


def test_an_instance_that_another_client_terminates_before_the_mark_had_ended_before():
    assert isinstance(ended([*late(8), a_record(status=Status.TERMINATED)])[1], AlreadyCompleted)


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_an_instance_that_ended_in_another_way_before_its_owner_saw_the_mark_says_how(status):
    _, result = ended([*late(9), MARKED, None, a_record(status=status)])
    assert isinstance(result, AlreadyCompleted)
    assert status.name.lower() in str(result)


def test_what_has_ended_or_does_not_exist_is_not_written():
    assert isinstance(ended([a_record(status=Status.TERMINATED)])[1], AlreadyCompleted)
    assert isinstance(ended([None])[1], InstanceNotFound)


def test_what_only_a_newer_library_knows_is_left_alone():
    assert isinstance(ended([a_record(status=Unknown("status", 9))])[1], NewerLibraryNeeded)
    record = a_record(owner="n1")
    newer = replace(record.row, kind=record.row.kind._replace(format=9))
    recovered = Recovered(Snapshot(newer, record.execution))
    (node,) = a_catalogue("1.0.0").nodes
    reads_it = replace(node, record=replace(node.record, formats=(1, 9)))
    steps, result = ended(
        [record, READ, Refused(), record, recovered, replace(READ, nodes=(node, reads_it))]
    )
    assert isinstance(result, NewerLibraryNeeded)
    assert kinds_of(steps)[-1] is ReadCatalogue
    higher = replace(record.row, kind=record.row.kind._replace(level=9))
    steps, result = ended(
        [record, READ, Refused(), record, Recovered(Snapshot(higher, record.execution))]
    )
    assert isinstance(result, NewerLibraryNeeded)
    assert kinds_of(steps)[-1] is Recover


def test_what_no_living_library_reads_is_ended_by_an_event_of_this_librarys_format():
    record = a_record(opened=True)
    newer = replace(record, row=replace(record.row, kind=record.row.kind._replace(format=9)))
    steps, result = ended([newer, READ, Granted(0)])
    assert result is newer
    (event,) = steps[-1].change.executions[0].events
    assert (event.format, steps[-1].change.state.kind.format) == (1, 9)


def test_an_error_of_the_store_ends_it_there():
    error = StoreUnavailable("gone")
    steps, result = ended([a_record(), READ, error])
    assert result is error
    assert kinds_of(steps)[-1] is Write
