"""Releasing held instances, deleting ended ones, and what a purge selects."""

from __future__ import annotations

import pytest

from orchestra.errors import (
    AlreadyCompleted,
    InstanceNotFound,
    InstanceNotHeld,
    InstanceStillOpen,
    NewerLibraryNeeded,
)
from orchestra.levels import Unknown
from orchestra.operations.delete import Purged, delete, ended_before, purge
from orchestra.operations.hold import release
from orchestra.operations.steps import Delete, DeleteAll, Find, Get, Submit
from orchestra.store.audit import Record
from orchestra.store.changes import Release, Resume
from orchestra.store.kinds import THIS_LIBRARY, Status
from orchestra.store.outcomes import Granted, Refused
from orchestra.store.queries import InstanceQuery
from tests.support.script import a_record, performed

ENDS = InstanceQuery(name="job", statuses=(Status.COMPLETED,))
ENDED = [status for status in Status if status is not Status.OPEN]


# --- releasing ------------------------------------------------------------------------------------


def released(*answers):
    return performed(release("i", THIS_LIBRARY, by="me"), answers)


def test_a_release_is_conditional_on_the_revision_that_was_read():
    steps, result = released(a_record(held=True), Granted(0))
    assert result == a_record(held=True)
    assert steps == [
        Get("i"),
        Submit(Release("i", "a", 3, Record("me", "release", "i", reason=""))),
    ]


def test_a_pause_that_has_ended_meanwhile_counts_as_released():
    """Perhaps by this very call, whose reply was lost."""
    paused = a_record(held=True, paused=True)
    for outcome in (Granted(0), Refused()):
        steps, result = released(paused, outcome)
        assert result == (paused if isinstance(outcome, Granted) else None)
        entry = Record("me", "release", "i", reason="")
        assert steps == [Get("i"), Submit(Resume("i", "me", "a", entry))]


def test_what_nothing_holds_is_not_written():
    steps, result = released(a_record())
    assert isinstance(result, InstanceNotHeld)
    assert steps == [Get("i")]


def test_what_was_written_since_it_was_read_is_said_not_to_be_held():
    assert isinstance(released(a_record(held=True), Refused())[1], InstanceNotHeld)


@pytest.mark.parametrize("status", ENDED)
def test_what_has_ended_is_not_released(status):
    assert isinstance(released(a_record(status=status, held=True))[1], AlreadyCompleted)


def test_what_does_not_exist_is_not_released():
    assert isinstance(released(None)[1], InstanceNotFound)


def test_a_hold_that_only_a_newer_library_knows_stays():
    assert isinstance(
        released(a_record(held=True, how=Unknown("resolution", 9)))[1], NewerLibraryNeeded
    )


# --- deleting -------------------------------------------------------------------------------------


def deleted(*answers):
    return performed(delete("i", THIS_LIBRARY, by="me", reason="old"), answers)


@pytest.mark.parametrize("status", ENDED)
def test_what_has_ended_is_deleted_in_the_life_that_was_read(status):
    steps, result = deleted(a_record(status=status), True)
    assert result is None
    assert steps == [Get("i"), Delete("i", "a", "me", "old")]


def test_what_goes_on_stays():
    steps, result = deleted(a_record())
    assert isinstance(result, InstanceStillOpen)
    assert steps == [Get("i")]


def test_what_another_client_has_deleted_meanwhile_is_not_found():
    assert isinstance(deleted(a_record(status=Status.FAILED), False)[1], InstanceNotFound)
    assert isinstance(deleted(None)[1], InstanceNotFound)


def test_what_ended_in_a_way_that_only_a_newer_library_knows_stays():
    steps, result = deleted(a_record(status=Unknown("status", 9)))
    assert isinstance(result, NewerLibraryNeeded)
    assert steps == [Get("i")]


# --- purging --------------------------------------------------------------------------------------


def an_end(number, closed_at=10, status=Status.COMPLETED):
    return a_record(f"i{number}", status=status, closed_at=closed_at)


def purged(*answers, limit=None, dry_run=False):
    return performed(purge(ENDS, 50, limit, dry_run=dry_run, by="me", reason="old"), answers)


def test_those_that_ended_before_the_moment_are_selected_and_no_others():
    records = [
        an_end(1, 49),
        an_end(2, 50),
        an_end(3, 51),
        an_end(4, None),
        an_end(5, 1, Status.OPEN),
        an_end(6, 0),
    ]
    assert ended_before(records, 50) == [("i1", "a"), ("i6", "a")]
    assert ended_before(records, 50, 1) == [("i1", "a")]


def test_a_dry_run_names_what_would_go_and_deletes_nothing():
    steps, result = purged([an_end(1), an_end(2, 60)], dry_run=True)
    assert result == Purged(1, ("i1",))
    assert [type(step) for step in steps] == [Find]


def test_a_purge_deletes_twenty_five_at_once_and_goes_through_all_pages():
    first, second = (
        [an_end(number) for number in range(100)],
        [an_end(number) for number in range(100, 110)],
    )
    parts = [[f"i{number}" for number in range(start, start + 25)] for start in range(0, 100, 25)]
    steps, result = purged(first, *parts, second, [f"i{number}" for number in range(100, 110)])
    assert result.count == 110
    assert result.instance_ids == tuple(f"i{number}" for number in range(100)), (
        "it names the first hundred"
    )
    assert [len(step.instances) for step in steps if isinstance(step, DeleteAll)] == [
        25,
        25,
        25,
        25,
        10,
    ]
    assert steps[1] == DeleteAll([(f"i{number}", "a") for number in range(25)], "me", "old")
    pages = [step.query for step in steps if isinstance(step, Find)]
    assert [page.after for page in pages] == [None, (7, "i99")]
    assert {(page.name, page.statuses) for page in pages} == {("job", (Status.COMPLETED,))}


def test_a_purge_counts_only_what_it_has_deleted_itself():
    _, result = purged([an_end(1), an_end(2)], ["i2"])
    assert result == Purged(1, ("i2",))


def test_a_purge_ends_at_its_limit_though_there_is_more():
    page = [an_end(number) for number in range(100)]
    steps, result = purged(page, ["i0", "i1"], limit=2)
    assert result == Purged(2, ("i0", "i1"))
    assert [len(step.instances) for step in steps if isinstance(step, DeleteAll)] == [2]


def test_a_purge_that_other_clients_were_faster_than_goes_on_until_its_limit():
    page = [an_end(number) for number in range(100)]
    _, result = purged(page, ["i0"], [an_end(100), an_end(101)], ["i100"], limit=2)
    assert result == Purged(2, ("i0", "i100"))
