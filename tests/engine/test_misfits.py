"""Two nodes with different code under one version: what one cannot go on with, the other has at
once (scenario 9, rule 27).
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestra.store.changes import Release
from orchestra.store.kinds import HoldKind, Status
from tests.support.harness import HOLD, check_rest, registry


async def counts(ctx, turns):
    for _ in range(turns):
        await ctx.schedule_timer(timedelta(seconds=20))
    return "done"


async def counts_otherwise(ctx, turns):
    for number in range(turns):
        await ctx.schedule_activity("other", number)
    return "otherwise"


def nodes_of(world):
    fitting = world.node(registry(counts))
    world.run(1)
    instance_id = world.start(state=5)
    world.run(2)
    assert world.record(instance_id).row.opened
    misfit = world.node(registry(counts_otherwise), {"other": HOLD})
    world.run(3)
    return fitting, misfit, instance_id


def claim_as_misfit(world, fitting, seconds):
    """Let time pass in which the fitting node claims nothing, so that what comes due goes to the
    other one.
    """
    fitting.engine._claims.stopped = True
    world.run(seconds)
    fitting.engine._claims.stopped = False


def test_what_the_misfit_claims_goes_on_elsewhere_at_once(any_world):
    world = any_world
    fitting, _, instance_id = nodes_of(world)
    claim_as_misfit(world, fitting, 19)
    hold = world.record(instance_id).row.hold
    assert hold is not None
    assert hold.kind is HoldKind.NONDETERMINISM
    begun = len(world.events(instance_id))
    world.run(1.1)
    assert len(world.events(instance_id)) > begun, (
        "it waits for the lease instead of for the next look"
    )
    assert not world.record(instance_id).held
    world.run(120)
    assert world.output(instance_id) == "done"
    check_rest(world, [fitting.registry])


def test_each_turn_goes_on_within_a_second_and_costs_the_misfit_at_most_one_claim(any_world):
    world = any_world
    fitting, misfit, instance_id = nodes_of(world)
    begun = world.clock.now()
    misfit.store.forget()
    while world.status(instance_id) is Status.OPEN:
        fitting.engine._claims.stopped = True
        world.run(0.5)
        fitting.engine._claims.stopped = False
        world.run(1.1)
        assert world.clock.now() - begun < 200_000_000
    took = (world.clock.now() - begun) / 1e6
    assert took <= 5 * (20 + 3), took
    writes = [write for write in misfit.store.writes if write.instance_id == instance_id]
    assert len(writes) <= 6, "the misfit claims it again and again"
    assert world.output(instance_id) == "done"


def test_where_no_other_code_is_left_it_stays_held(any_world):
    world = any_world
    fitting, misfit, instance_id = nodes_of(world)
    fitting.stop()
    world.run(60)
    record = world.record(instance_id)
    assert record.held
    assert record.row.hold.kind is HoldKind.NONDETERMINISM
    assert [change for change in misfit.store.changes if isinstance(change, Release)] == []
    assert len([write for write in misfit.store.writes if write.instance_id == instance_id]) == 1
    again = world.node(registry(counts))
    world.run(100)
    assert world.output(instance_id) == "done"
    check_rest(world, [again.registry])


async def asks_otherwise(ctx, turns):
    return await ctx.wait_for_event("never")


@pytest.mark.parametrize("third", [True, False])
def test_with_two_misfits_it_goes_to_the_one_that_can(any_world, third):
    world = any_world
    fitting, misfit, instance_id = nodes_of(world)
    second = world.node(registry(asks_otherwise))
    world.run(2)
    if not third:
        fitting.stop()
    claim_as_misfit(world, fitting, 19)
    world.run(120)
    if third:
        assert world.output(instance_id) == "done"
    else:
        assert len(world.record(instance_id).row.hold.tried) == 2
        held = [
            write
            for node in (misfit, second)
            for write in node.store.writes
            if write.instance_id == instance_id
        ]
        assert len(held) == 2, "they hand it to one another without end"
