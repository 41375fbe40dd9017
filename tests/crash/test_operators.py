"""Operators act on instances while workers are killed and stopped beyond their lease, and while the
operators themselves die: scenarios 65, 67 and 68.

Who comes next sends again what was not acknowledged, with the same request id. Which moments are
hit differs from run to run. ``ops/crash/run.py --operators`` does the same for hours.
"""

import pytest

from tests.support.crashes.campaigns import conduct
from tests.support.crashes.operating import operators_campaign, served_operators_campaign

pytestmark = pytest.mark.campaign

ACTS = ("hold", "release", "rewind", "pin", "nudge", "send", "give", "begin")


def expect_each_act_and_no_problem(outcome):
    assert not outcome.problems, str(outcome)
    assert [act for act in ACTS if not outcome.counts[f"act {act}"]] == []


def test_an_operators_act_is_done_once_whoever_dies_or_stands_still_meanwhile(tmp_path, seed):
    outcome = conduct(operators_campaign, tmp_path, seed, 9)
    expect_each_act_and_no_problem(outcome)
    assert outcome.counts["operators killed after a commit"] == 3


def test_an_operators_act_on_a_server_is_done_once_whoever_dies_or_stands_still_meanwhile(
    tmp_path, seed, postgres
):
    outcome = conduct(served_operators_campaign, tmp_path, seed, 9, postgres)
    expect_each_act_and_no_problem(outcome)
    assert outcome.counts["operators killed after a commit"] == 3
