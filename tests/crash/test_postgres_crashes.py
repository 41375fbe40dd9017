"""Workers on a PostgreSQL server are killed and stopped, their connections and the server go away;
nothing is lost or doubled.

Which moments are hit differs from run to run. ``ops/crash/run.py --postgres`` does the same for
hours.
"""

import pytest

from tests.support.crashes.campaigns import conduct
from tests.support.crashes.proxy import WAYS
from tests.support.crashes.servers import (
    served_kill_campaign,
    served_last_kill_campaign,
    served_pause_campaign,
    served_proxy_campaign,
    served_restart_campaign,
    served_rolling_campaign,
    served_termination_campaign,
)

pytestmark = pytest.mark.campaign


@pytest.fixture
def campaign(tmp_path, seed, postgres):
    """Return a function that conducts a campaign of so many cycles, and returns what it counted if
    all was well.
    """

    def conduct_campaign(campaign, cycles, *more):
        outcome = conduct(campaign, tmp_path, seed, cycles, postgres, *more)
        assert not outcome.problems, str(outcome)
        return outcome.counts

    return conduct_campaign


def test_of_three_workers_one_after_the_other_is_killed_and_nothing_is_lost_or_doubled(campaign):
    assert campaign(served_kill_campaign, 4, 0.0)["kills"] == 4


def test_who_is_killed_when_all_is_over_leaves_nothing_at_rest(campaign):
    """The others do not go home before they have buried it: nobody else would."""
    assert campaign(served_last_kill_campaign, 1)["kills"] == 1


def test_a_worker_that_was_stopped_beyond_its_lease_also_in_a_transaction_writes_nothing_any_more(
    campaign,
):
    """Scenario 35."""
    counts = campaign(served_pause_campaign, 3)
    assert sum(number for name, number in counts.items() if name.startswith("stopped")) == 3
    assert counts["refused"] > 0


def test_any_connection_may_be_terminated_at_any_moment(campaign):
    """Scenario 41."""
    counts = campaign(served_termination_campaign, 30)
    assert sum(number for name, number in counts.items() if name.startswith("terminated")) >= 30


def test_a_server_that_is_restarted_under_load_and_stays_away_for_seconds_costs_nothing_but_time(
    campaign, postgres
):
    """Scenario 41."""
    if not postgres.is_own:
        pytest.skip("somebody else's server is not restarted")
    counts = campaign(served_restart_campaign, 3, 2.0)
    assert counts["immediate"] + counts["fast"] == 3


def test_a_commit_or_its_answer_that_is_lost_or_never_comes_has_one_effect_and_everybody_goes_on(
    campaign,
):
    """Scenario 39."""
    counts = campaign(served_proxy_campaign, 4)
    assert [counts[way] for way in WAYS] == [1, 1, 1, 1]


def test_a_rolling_deploy_over_three_nodes_and_back_fails_nothing_and_nobody_waits_for_those_who_cannot(
    campaign,
):
    """Scenario 9: no instance goes back to an older version, and nobody claims what it cannot
    run.
    """
    assert campaign(served_rolling_campaign, 1)["rolling deploys"] == 1
