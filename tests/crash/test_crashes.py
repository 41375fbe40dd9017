"""Processes are killed and stopped while they work; nothing that was acknowledged is lost, nothing
happens twice.

Which moments are hit differs from run to run. ``ops/crash/run.py`` does the same for hours.
"""

import pytest

from tests.support.crashes.campaigns import (
    conduct,
    kill_campaign,
    pause_campaign,
    sharing_campaign,
    versions_campaign,
)
from tests.support.crashes.deploys import rolling_campaign
from tests.support.crashes.injections import failing_campaign, injection_campaign, lone_campaign
from tests.support.crashes.ways import by_every_way

pytestmark = pytest.mark.campaign

KILLS, CALLS, FAILURES, STOPS = 25, 24, 10, 12
"""A few of each on every change; the long campaigns have thousands."""


def expect_no_problems(outcome):
    assert not outcome.problems, str(outcome)


def test_nothing_is_lost_or_doubled_over_many_kills(tmp_path, seed):
    outcome = conduct(kill_campaign, tmp_path, seed, KILLS)
    expect_no_problems(outcome)
    kills = sum(number for name, number in outcome.counts.items() if name.startswith("kills"))
    assert kills == KILLS


def killed(outcome):
    return sum(number for name, number in outcome.counts.items() if name.startswith("killed at"))


def test_death_at_any_call_on_the_stores_files_loses_nothing(tmp_path, seed):
    outcome = by_every_way(injection_campaign, tmp_path, seed, CALLS)
    expect_no_problems(outcome)
    assert killed(outcome) == CALLS


def test_death_at_any_call_between_making_a_store_and_closing_it_leaves_it_sound(tmp_path, seed):
    outcome = by_every_way(lone_campaign, tmp_path, seed, CALLS)
    expect_no_problems(outcome)
    assert killed(outcome) == CALLS


def test_a_device_that_fails_for_a_while_costs_nothing_but_time(tmp_path, seed):
    """Scenarios 41 and 42: writes, syncs and truncations fail, in the middle of anything."""
    outcome = by_every_way(failing_campaign, tmp_path, seed, FAILURES)
    expect_no_problems(outcome)
    assert sum(number for name, number in outcome.counts.items() if " at " in name) >= FAILURES
    assert any(name.startswith("told Store") for name in outcome.counts), "nobody was told"


def test_a_worker_that_was_stopped_beyond_its_lease_writes_nothing_any_more(tmp_path, seed):
    """Scenario 35."""
    outcome = conduct(pause_campaign, tmp_path, seed, STOPS, 4)
    expect_no_problems(outcome)
    assert (
        outcome.counts["stopped with a write in hand"] + outcome.counts["stopped anywhere"] == STOPS
    )
    assert outcome.counts["refused"] > 0


def test_two_programs_with_different_versions_share_a_file_and_nobody_goes_back(tmp_path, seed):
    outcome = conduct(versions_campaign, tmp_path, seed)
    expect_no_problems(outcome)


def test_a_rolling_deploy_over_three_processes_and_back_fails_nothing_and_nobody_waits_for_those_who_cannot(
    tmp_path, seed
):
    """Scenario 9."""
    outcome = conduct(rolling_campaign, tmp_path, seed, 1)
    expect_no_problems(outcome)
    assert outcome.counts["rolling deploys"] == 1
    assert outcome.counts["waited for a capable node"] > 0


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_several_processes_share_the_work_and_none_is_starved(tmp_path, seed, workers):
    """Scenario 43."""
    outcome = conduct(sharing_campaign, tmp_path, seed, workers)
    expect_no_problems(outcome)
