"""Stopping in order: nothing new is taken, everything is given back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestra.store.changes import Claim
from orchestra.store.kinds import Status
from tests.support.harness import HOLD, check_rest, registry


async def works(ctx, _):
    return await ctx.schedule_activity("work")


async def mixed(ctx, kind):
    match kind:
        case "activity":
            await ctx.schedule_activity("work")
        case "short timer":
            await ctx.schedule_timer(timedelta(seconds=5))
        case "long timer":
            await ctx.schedule_timer(timedelta(hours=1))
        case "event":
            await ctx.gather(ctx.wait_for_event("go"), ctx.schedule_activity("work"))
    return kind


CODE = registry(works)


def test_stopping_releases_everything_and_what_ran_begins_again_at_once_elsewhere(any_world):
    node = any_world.node(registry(mixed), {"work": HOLD})
    ids = {
        kind: any_world.start(state=kind)
        for kind in ("activity", "short timer", "long timer", "event")
    }
    any_world.run(1)
    due = any_world.record(ids["short timer"]).row.wake_at
    keys = set(node.running)
    node.stop()
    rows = {kind: any_world.record(one).row for kind, one in ids.items()}
    assert {row.owner for row in rows.values()} == {None}
    assert (rows["activity"].wake_at, rows["event"].wake_at) == (0, 0)
    assert rows["short timer"].wake_at == due
    assert set(node.aborted) == keys
    heir = any_world.node(registry(mixed), {"work": HOLD})
    any_world.run(0.1)
    assert {run.attempt for run in heir.attempts} == {1}
    assert len(heir.running) == 2
    assert any_world.store.catalogue().nodes[0].record.node_id == heir.node_id
    check_rest(any_world, [heir.registry])


def test_nothing_is_claimed_once_stopping_begins_and_results_are_still_taken(any_world):
    node = any_world.node(CODE, {"work": HOLD})
    first = any_world.start()
    any_world.run(1)
    node.engine.stop_claiming()
    second = any_world.start()
    node.store.forget()
    any_world.run(3)
    assert [change for change in node.store.changes if isinstance(change, Claim)] == []
    node.finish(value="in time")
    any_world.run(1)
    assert any_world.output(first) == "in time"
    assert any_world.record(second).row.owner is None
    node.stop()


@pytest.mark.parametrize("lost", ["lost before", "lost after"])
def test_a_lost_reply_during_the_release_keeps_nothing_owned(any_world, lost):
    """What is recovered while the node stops is given back, too."""
    node = any_world.node(CODE, {"work": HOLD})
    ids = [any_world.start() for _ in range(5)]
    any_world.run(1)
    node.store.replies.append(lost)
    node.engine.stop_claiming()
    node.engine.release_all()
    for _ in range(20):
        if node.engine.owned == 0 and not node.engine.has_work:
            break
        node.cycle_once()
    assert node.engine.owned == 0
    assert {any_world.record(one).row.owner for one in ids} == {None}
    assert len(node.attempts) == 5
    node.leave()


def test_a_claim_that_was_under_way_is_given_back(world):
    node = world.node(CODE, {"work": HOLD})
    instance_id = world.start()
    node.engine.look()
    node.store.replies.append("lost after")
    node.cycle_once()
    node.engine.release_all()
    for _ in range(10):
        node.cycle_once()
    assert node.attempts == []
    assert world.record(instance_id).row.owner is None


def test_leaving_frees_even_what_could_not_be_released(any_world):
    node = any_world.node(CODE, {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    node.leave()
    row = any_world.record(instance_id).row
    assert (row.owner, row.wake_at, row.takeovers) == (None, 0, 0)
    heir = any_world.node(CODE, {"work": HOLD})
    any_world.run(0.1)
    assert heir.the_running().attempt == 1


def test_an_instance_that_arrives_at_a_boundary_while_stopping_is_left_unopened_to_others(
    any_world,
):
    async def laps(ctx, left):
        await ctx.schedule_activity("work")
        if left:
            ctx.continue_as_new(left - 1)
        return "done"

    node = any_world.node(registry(laps), {"work": HOLD})
    instance_id = any_world.start(state=1)
    any_world.run(1)
    node.finish()
    node.stop()
    row = any_world.record(instance_id).row
    assert (row.owner, row.opened, row.execution, row.wake_at) == (None, False, 2, 0)
    heir = any_world.node(registry(laps), {"work": lambda run: 1})
    any_world.run(1)
    assert any_world.status(instance_id) is Status.COMPLETED
    check_rest(any_world, [heir.registry])


def test_holds_are_not_released_by_a_node_that_stops(world):
    async def order(ctx, _):
        await ctx.schedule_activity("other")

    async def listens(ctx, _):
        await ctx.wait_for_event("go")

    first = world.node(registry(listens))
    instance_id = world.start()
    world.run(1)
    first.crash()
    bad = world.node(registry(order))
    world.send(instance_id)
    world.run(1.1)
    assert world.record(instance_id).held
    bad.crash()
    fixed = world.node(registry(listens), begin=False)
    fixed.engine.stop_claiming()
    fixed.cycle.begin()
    world.run(25)
    assert world.record(instance_id).held
