"""Which version a start takes, and why an instance cannot go on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestra.errors import (
    InvalidVersion,
    NoVersionInRange,
    UnknownOrchestration,
    UnknownVersion,
    UnreadablePolicy,
)
from orchestra.operations.holds import hold_reason, unserved_kinds
from orchestra.operations.start import chosen_version, id_of_request
from orchestra.resolution import LOWEST_VERSION, start_version
from orchestra.store.kinds import Status
from orchestra.store.routes import Kind
from orchestra.versions import Exact, Range
from tests.support.script import a_catalogue, a_record

SLOW = Kind("slow", "job", "1.0.0", 1, floating=True)
NAMED = Kind("slow", "job", "3.0.0", 1)


def test_the_id_of_a_request_is_the_same_each_time_and_its_own():
    ids = {id_of_request(name, request) for name in ("a", "b") for request in ("1", "2")} | {
        id_of_request("a", "1")
    }
    assert len(ids) == 4
    assert id_of_request("a", "b1") != id_of_request("ab", "1")


def test_a_start_takes_what_the_policy_gives_or_what_its_caller_names():
    catalogue = a_catalogue("1.0.0", "1.1.0", policy=Exact("1.0.0"))
    assert chosen_version(catalogue, "job", None, "default") == "1.0.0"
    assert chosen_version(catalogue, "job", "1.1.0", "default") == "1.1.0"
    with pytest.raises(UnknownVersion):
        chosen_version(catalogue, "job", "2.0.0", "default")
    with pytest.raises(InvalidVersion):
        chosen_version(catalogue, "job", "two", "default")


def test_while_no_node_of_the_queue_has_the_name_a_version_that_was_started_there_will_do():
    elsewhere = a_catalogue("1.0.0", "2.0.0", kinds=(SLOW, NAMED))
    assert chosen_version(elsewhere, "job", None, "slow") == "1.0.0"
    with pytest.raises(UnknownOrchestration, match="serves queue 'other'"):
        chosen_version(elsewhere, "job", None, "other")
    nowhere = a_catalogue(kinds=(SLOW,))
    assert chosen_version(nowhere, "job", None, "other") == "1.0.0"
    with pytest.raises(UnknownOrchestration, match="registered: nothing"):
        chosen_version(nowhere, "misspelt", None, "slow")


def test_a_policy_that_cannot_be_read_here_chooses_no_version_and_a_caller_may_name_one():
    catalogue = a_catalogue("1.0.0", policy="cohort:^1")
    with pytest.raises(UnreadablePolicy):
        chosen_version(catalogue, "job", None, "default")
    assert chosen_version(catalogue, "job", "1.0.0", "default") == "1.0.0"


def test_a_range_without_a_living_version_refuses_a_start_and_names_what_lives():
    catalogue = a_catalogue("1.10.0", "1.9.0", "3.0.0", policy=Range("^2"))
    with pytest.raises(
        NoVersionInRange,
        match=r"version of 'job' in the range '\^2' \(registered: 1\.9\.0, 1\.10\.0, 3\.0\.0\); .* "
        r"client\.set_version_policy\('job', \.\.\.\), start a runtime that has one, or name a version",
    ) as refused:
        chosen_version(catalogue, "job", None, "default")
    assert (refused.value.name, refused.value.range) == ("job", "^2")
    assert refused.value.registered == ("1.9.0", "1.10.0", "3.0.0")
    assert chosen_version(catalogue, "job", "3.0.0", "default") == "3.0.0", "a caller may name one"


def test_a_start_by_code_waits_for_a_version_in_the_range_and_says_so():
    catalogue = a_catalogue("1.0.0", "3.0.0", policy=Range("^2"))
    assert start_version(catalogue, "job") == LOWEST_VERSION
    assert start_version(catalogue, "unheard-of") is None
    record = a_record(version=LOWEST_VERSION)
    waiting = replace(record, row=replace(record.row, kind=record.row.kind._replace(floating=True)))
    assert hold_reason(waiting, catalogue) == (
        "no living node has registered a version of 'job' in the range '^2' of its policy "
        "(registered: 1.0.0, 3.0.0)"
    )
    assert hold_reason(waiting, a_catalogue("2.0.0", policy=Range("^2"))) is None
    nowhere = "no living node has registered 'job'"
    assert hold_reason(waiting, a_catalogue(policy=Range("^2"))) == nowhere


def test_a_stored_hold_is_the_reason_whatever_nodes_there_are():
    for catalogue in (a_catalogue(), a_catalogue("1.0.0")):
        assert hold_reason(a_record(held=True), catalogue) == "state: the state does not fit"


def test_code_that_no_living_node_has_holds_an_instance_without_a_mark():
    record, has_it = a_record(version="2.0.0"), a_catalogue("2.0.0")
    reason = "no living node has registered 'job' 2.0.0"
    assert hold_reason(record, a_catalogue("1.0.0")) == reason
    assert hold_reason(record, has_it) is None
    slow = replace(record, row=replace(record.row, kind=record.row.kind._replace(queue="slow")))
    assert hold_reason(slow, has_it) == f"{reason} and serves queue 'slow'"
    lapsed = replace(has_it, now=has_it.now + 10_000_000)
    assert hold_reason(record, lapsed) == reason, "its node has not renewed for three leases"


def test_three_lost_owners_hold_an_instance_that_no_node_owns():
    catalogue = a_catalogue("1.0.0")
    assert (
        hold_reason(a_record(takeovers=3), catalogue)
        == "crashing: 3 nodes in a row were lost while they ran it"
    )
    assert hold_reason(a_record(takeovers=3, owner="n1"), catalogue) is None
    assert hold_reason(a_record(takeovers=2), catalogue) is None


def test_nothing_holds_what_has_ended():
    assert (
        hold_reason(
            a_record(version="2.0.0", status=Status.FAILED, held=True), a_catalogue("1.0.0")
        )
        is None
    )


def test_the_kinds_that_no_living_node_serves_are_told_apart():
    served = a_record().row.kind
    assert unserved_kinds(a_catalogue("1.0.0", kinds=(served, SLOW, NAMED))) == (SLOW, NAMED)
