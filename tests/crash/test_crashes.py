"""Processes are killed and stopped while they work; nothing that was acknowledged is lost, nothing happens twice.

Which moments are hit differs from run to run. ``ops/crash/run.py`` does the same for hours.
"""

import os
from random import SystemRandom

import pytest
from crashes.campaigns import conduct, kill_campaign, pause_campaign, sharing_campaign, versions_campaign

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def seed():
    return int(os.environ.get("ORCHESTRA_CRASH_SEED") or SystemRandom().randrange(1_000_000))


def expect_no_problems(outcome, command):
    assert not outcome.problems, f"{outcome}\nThe same plan again: python ops/crash/run.py {command}"


def test_nothing_is_lost_or_doubled_over_fifty_kills(tmp_path, seed):
    outcome = conduct(kill_campaign, tmp_path, seed, 50)
    expect_no_problems(outcome, f"--cycles 50 --seed {seed}")
    kills = sum(number for name, number in outcome.counts.items() if name.startswith("kills"))
    assert kills == 50


def test_a_worker_that_was_stopped_beyond_its_lease_writes_nothing_any_more(tmp_path, seed):
    outcome = conduct(pause_campaign, tmp_path, seed, 20, 4)
    expect_no_problems(outcome, f"--pauses 20 --seed {seed}")
    assert outcome.counts["stopped with a write in hand"] + outcome.counts["stopped anywhere"] == 20
    assert outcome.counts["refused"] > 0


def test_two_programs_with_different_versions_share_a_file_and_nobody_goes_back(tmp_path, seed):
    outcome = conduct(versions_campaign, tmp_path, seed)
    expect_no_problems(outcome, f"--versions 1 --seed {seed}")


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_several_processes_share_the_work_and_none_is_starved(tmp_path, seed, workers):
    outcome = conduct(sharing_campaign, tmp_path, seed, workers)
    expect_no_problems(outcome, f"--sharing 1 --seed {seed}")
