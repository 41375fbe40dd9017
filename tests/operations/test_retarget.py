"""Executions that have not begun follow pins and changed policies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestra.errors import (
    AlreadyCompleted,
    InstanceNotFound,
    NoVersionInRange,
    RuntimeClosed,
    StoreBusy,
    StoreError,
    UnknownVersion,
)
from orchestra.levels import Unknown
from orchestra.operations import retarget
from orchestra.operations.retarget import (
    check_target,
    follow_pin,
    follow_policy,
    following,
    pin,
    retargeting,
)
from orchestra.operations.steps import Find, Get, ReadCatalogue, SetPin, Submit, SubmitAll
from orchestra.resolution import LOWEST_VERSION
from orchestra.store.executions import Resolution
from orchestra.store.instances import Pin
from orchestra.store.kinds import ResolvedBy, Status
from orchestra.store.outcomes import Granted, Refused
from orchestra.store.queries import InstanceQuery
from orchestra.versions import Exact, Latest, Range
from tests.support.script import a_catalogue, a_record, performed

PIN = Pin("1.0.0", 5, "me", "")
BOTH = a_catalogue("1.0.0", "1.1.0", policy=Exact("1.0.0"))


def target(change):
    """Return the version that a write gives, how it was chosen, and whether nodes may still take a
    higher one.
    """
    target = change.executions[0].retargeted
    version, resolution = target.version, target.resolution
    assert change.state.kind.version == version
    return version, resolution, change.state.kind.floating


# --- pins -----------------------------------------------------------------------------------------


def test_a_pin_gives_its_version_to_what_has_not_begun():
    change = retargeting(a_record(version="1.1.0", pin=PIN), BOTH, "me")
    assert target(change) == ("1.0.0", Resolution(ResolvedBy.PIN, "me", 2), False)
    assert (change.revision, change.owner, change.state.opened) == (3, None, False)


def test_without_its_pin_an_execution_takes_what_the_policy_gives():
    pinned = a_record(version="1.1.0", how=ResolvedBy.PIN, floating=False)
    assert target(retargeting(pinned, BOTH, "me")) == (
        "1.0.0",
        Resolution(ResolvedBy.POLICY, "me", 2),
        True,
    )
    assert target(retargeting(pinned, a_catalogue(), "me"))[0] == LOWEST_VERSION, (
        "no node has the name"
    )
    later = a_record(version="1.1.0", how=ResolvedBy.PIN, state_version="1.1.0")
    assert target(retargeting(later, a_catalogue("1.0.0"), "me"))[0] == "1.1.0", (
        "Latest never goes down at a boundary"
    )


@pytest.mark.parametrize(
    "record",
    [
        a_record(opened=True, pin=PIN, version="1.1.0"),
        a_record(status=Status.COMPLETED, pin=PIN, version="1.1.0"),
        a_record(how=ResolvedBy.EXPLICIT, pin=PIN, version="1.1.0"),
        a_record(how=ResolvedBy.PIN, pin=PIN, version="1.0.0", floating=False),
        a_record(how=Unknown("resolution", 9), pin=PIN, version="1.1.0"),
        a_record(version="1.1.0"),
    ],
    ids=[
        "it has begun",
        "it has ended",
        "its caller named a version",
        "it has the pin",
        "a newer library's",
        "no pin",
    ],
)
def test_a_pin_moves_nothing_else(record):
    assert retargeting(record, BOTH, "me") is None


@pytest.mark.parametrize(
    "stood_still", [{"held": True}, {"takeovers": 2}], ids=["held", "crashing"]
)
def test_what_could_not_go_on_is_due_at_once_and_a_start_for_later_stays_for_later(stood_still):
    change = retargeting(a_record(version="1.1.0", pin=PIN, wake_at=90, **stood_still), BOTH, "me")
    assert (change.state.wake_at, change.state.takeovers) == (0, 0)
    assert (
        retargeting(a_record(version="1.1.0", pin=PIN, wake_at=90), BOTH, "me").state.wake_at == 90
    )


def test_a_pin_is_set_and_then_followed():
    record = a_record(version="1.1.0", pin=PIN)
    steps, result = performed(
        pin("i", "1.0.0", by="me", reason="slow"), [True, record, BOTH, Granted(0)]
    )
    assert result is None
    assert steps == [
        SetPin("i", "1.0.0", "me", "slow"),
        Get("i"),
        ReadCatalogue(),
        Submit(retargeting(record, BOTH, "me")),
    ]


@pytest.mark.parametrize(
    ("record", "error"),
    [(None, InstanceNotFound), (a_record(status=Status.FAILED), AlreadyCompleted)],
)
def test_a_pin_of_what_is_not_open_says_why(record, error):
    _, result = performed(pin("i", None, by="me", reason=""), [False, record])
    assert isinstance(result, error)


def test_a_refused_write_is_decided_anew_upon_what_stands_there_now():
    record = a_record(version="1.1.0", pin=PIN)
    again = a_record(version="1.1.0", pin=replace(PIN, version="1.2.0"), revision=4)
    steps, _ = performed(follow_pin("i", "me"), [record, BOTH, Refused(), again, BOTH, Granted(0)])
    assert target(steps[-1].change)[0] == "1.2.0"
    assert steps[-1].change.revision == 4
    steps, _ = performed(
        follow_pin("i", "me"), [record, BOTH, Refused(), a_record(opened=True, pin=PIN), BOTH]
    )
    assert steps[-1] == ReadCatalogue(), "a node has begun it meanwhile"


def test_what_is_written_before_each_write_is_given_up_at_some_time(monkeypatch):
    monkeypatch.setattr(retarget, "_ATTEMPTS", 2)
    record = a_record(version="1.1.0", pin=PIN)
    _, result = performed(follow_pin("i", "me"), [record, BOTH, Refused()] * 2)
    assert isinstance(result, StoreError)
    assert "try again" in str(result)


# --- policies -------------------------------------------------------------------------------------


def waiting(instance_id="i", version="9.0.0", **changes):
    """An execution that a policy gave a version which no node has."""
    return a_record(instance_id, version=version, **changes)


def test_what_is_held_takes_the_version_of_the_policy_that_was_set_since():
    assert target(following(waiting(), BOTH, "me")) == (
        "1.0.0",
        Resolution(ResolvedBy.POLICY, "me", 2),
        True,
    )


@pytest.mark.parametrize(
    "record",
    [
        waiting(opened=True),
        waiting(status=Status.TERMINATED),
        waiting(pin=PIN),
        waiting(how=ResolvedBy.EXPLICIT, floating=False),
        waiting(policy_revision=3),
        a_record(version="1.1.0"),
        a_record(version="1.0.0", held=True),
    ],
    ids=[
        "begun",
        "ended",
        "pinned",
        "named by its caller",
        "by a later policy",
        "not held",
        "held where it belongs",
    ],
)
def test_a_policy_moves_nothing_else(record):
    assert following(record, BOTH, "me") is None


def test_what_nodes_take_upwards_by_themselves_is_left_to_them():
    newest = a_catalogue("1.0.0", "1.1.0", policy=Latest())
    assert following(a_record(version="1.0.0", held=True), newest, "me") is None
    assert target(following(waiting(), newest, "me"))[0] == "1.1.0", "downwards they do not go"


def test_what_is_held_takes_the_highest_version_in_the_range():
    catalogue = a_catalogue("1.0.0", "1.1.0", "2.0.0", policy=Range("^1"))
    assert target(following(waiting(), catalogue, "me"))[0] == "1.1.0"
    nowhere = a_catalogue("1.0.0", "1.1.0", policy=Range("^2"))
    assert target(following(waiting(), nowhere, "me"))[0] == LOWEST_VERSION, "until one lives"


def test_a_policy_that_only_a_newer_library_can_read_moves_nothing():
    assert following(waiting(), a_catalogue("1.0.0", policy="cohort:^1"), "me") is None


def followed(*answers):
    return performed(follow_policy("job", "me"), answers)


def test_all_pages_of_what_is_held_follow_each_in_one_group(monkeypatch):
    monkeypatch.setattr(retarget, "_PAGE", 2)
    unserved = waiting().row.kind
    catalogue = replace(BOTH, kinds=(unserved, a_record(floating=False).row.kind))
    first, second = [waiting("a"), waiting("b")], [waiting("c")]
    steps, count = followed(
        catalogue, first, [Granted(0), Granted(0)], catalogue, second, [Granted(0)]
    )
    assert count == 3
    query = InstanceQuery(
        name="job", statuses=(Status.OPEN,), held=True, unserved=(unserved,), limit=2
    )
    assert [step for step in steps if isinstance(step, Find)] == [
        Find(query),
        Find(replace(query, after=(7, "b"))),
    ]
    groups = [step.changes for step in steps if isinstance(step, SubmitAll)]
    assert [[change.instance_id for change in group] for group in groups] == [["a", "b"], ["c"]]


def test_what_is_held_for_another_reason_is_not_written():
    steps, count = followed(
        BOTH, [waiting("a", pin=PIN), a_record("b", version="1.0.0", held=True)]
    )
    assert count == 0
    assert [type(step) for step in steps] == [ReadCatalogue, Find]


def test_what_was_written_meanwhile_is_read_again_and_follows_only_if_it_still_has_to():
    found = [waiting("a"), waiting("b"), waiting("c"), waiting("d")]
    outcomes = [Refused(), Granted(0), Refused(), Refused()]
    changed = a_catalogue("1.0.0", "1.1.0", policy=Exact("1.1.0"), revision=3)
    again = [waiting("a", revision=4), waiting("c", opened=True), None]
    steps, count = followed(BOTH, found, outcomes, changed, *again, [Granted(0)])
    assert count == 2
    assert [step.instance_id for step in steps if isinstance(step, Get)] == ["a", "c", "d"]
    (last,) = steps[-1].changes
    assert (last.instance_id, last.revision, target(last)[0]) == ("a", 4, "1.1.0")


def test_an_error_of_one_write_is_raised_after_the_others_have_followed():
    error = StoreBusy("locked")
    found = [waiting("a"), waiting("b"), waiting("c")]
    steps, result = followed(
        BOTH, found, [error, Refused(), RuntimeClosed("later")], BOTH, waiting("b"), [Granted(0)]
    )
    assert result is error
    assert [change.instance_id for change in steps[-1].changes] == ["b"]


def test_what_is_written_before_each_write_is_left_to_the_nodes(monkeypatch):
    monkeypatch.setattr(retarget, "_ATTEMPTS", 2)
    _, count = followed(
        BOTH, [waiting()], [Refused()], BOTH, waiting(), [Refused()], BOTH, waiting()
    )
    assert count == 0


# --- where a policy leads -------------------------------------------------------------------------


def test_a_policy_must_lead_to_a_version_of_a_living_node_if_one_has_the_name():
    check_target(BOTH, "job", Exact("1.1.0"))
    check_target(BOTH, "job", Latest())
    check_target(BOTH, "elsewhere", Exact("9.0.0"))
    check_target(a_catalogue(), "job", Exact("9.0.0"))
    with pytest.raises(UnknownVersion, match=r"registered: 1\.0\.0, 1\.1\.0"):
        check_target(BOTH, "job", Exact("9.0.0"))


def test_a_range_must_have_a_version_of_a_living_node_if_one_has_the_name():
    check_target(BOTH, "job", Range("~1.1"))
    check_target(BOTH, "elsewhere", Range("^9"))
    check_target(a_catalogue(), "job", Range("^9"))
    with pytest.raises(NoVersionInRange, match=r"'\^9' \(registered: .*pass allow_missing=True"):
        check_target(BOTH, "job", Range("^9"))
