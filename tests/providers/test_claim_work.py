"""Scenario 38: what a claim costs does not depend on how many instances wait. Work is counted, not
time.
"""

import sqlite3
from contextlib import contextmanager

import pytest

from orchestra import SqliteProvider
from orchestra.testing import ManualClock
from tests.support.contract.shorthand import KIND, OTHER_KIND, a_park, a_start, claim, one

PARKED = 100_000
DUE = 20


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def provider(tmp_path, clock):
    provider = SqliteProvider(tmp_path / "store.db", durability="relaxed", clock=clock)
    provider.open()
    yield provider
    provider.close()


@contextmanager
def counted(provider):
    """Count the steps of SQLite's virtual machine, of all that is done on the writer's
    connection.
    """
    connection: sqlite3.Connection = provider._writer._session.connection
    steps = [0]

    def step():
        steps[0] += 1

    connection.set_progress_handler(step, 1)
    try:
        yield steps
    finally:
        connection.set_progress_handler(None, 1)


def multiply(provider, instance_id, wake_at):
    """Make 100,000 instances that wait, each like one that a node has parked."""
    connection = provider._writer._session.connection
    columns = [row[1] for row in connection.execute("PRAGMA table_info(instance)")]
    others = [name for name in columns if name not in ("instance_id", "wake_at")]
    connection.execute(
        f"""
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {PARKED})
        INSERT INTO instance (instance_id, wake_at, {", ".join(others)})
        SELECT printf('parked-%06d', n), ?, {", ".join(f"i.{name}" for name in others)}
        FROM numbers CROSS JOIN instance i WHERE i.instance_id = ?
        """,
        (wake_at, instance_id),
    )


def work_of_claiming(provider, clock, prefix):
    """Return the steps of looking for the next wake-up, of a claim with something to do, and of one
    with nothing.
    """
    provider.store.commit(
        [a_start(f"{prefix}-{number:02d}", wake_at=clock.now() - 1) for number in range(DUE)]
    )
    with counted(provider) as looking:
        provider.store.next_wake([KIND])
    with counted(provider) as taking:
        assert len(claim(provider, limit=DUE)) == DUE
    with counted(provider) as idling:
        assert claim(provider, limit=DUE) == ()
    assert all(steps[0] > 0 for steps in (looking, taking, idling)), "nothing was counted"
    return looking[0], taking[0], idling[0]


@pytest.mark.parametrize(
    "waiting_for",
    ["a message", "a far timer", "code that nobody has", "code that nobody has, and due"],
)
def test_claims_cost_the_same_over_a_hundred_thousand_parked_instances(
    provider, clock, waiting_for
):
    """Scenario 38: also where they are due and of a kind that no node here can run (rule 24)."""
    before = work_of_claiming(provider, clock, "before")
    kind = OTHER_KIND if "nobody" in waiting_for else KIND
    if waiting_for == "a message":
        provider.store.commit([a_start("model")])
        (snapshot,) = claim(provider)
        one(provider, a_park(snapshot.row))
        wake_at = None
    else:
        wake_at = clock.now() - 5 if waiting_for.endswith("due") else clock.now() + 3_600_000_000
        provider.store.commit([a_start("model", wake_at=wake_at, kind=kind)])
    multiply(provider, "model", wake_at)
    looking, taking, idling = work_of_claiming(provider, clock, "after")
    # A tree of 100,000 entries is deeper than one of 20; its depth costs no steps of the machine,
    # only pages.
    assert looking <= before[0] + 20
    assert taking <= before[1] + 20
    assert idling <= before[2] + 20
