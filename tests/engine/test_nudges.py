"""Nudges: what the code of an execution hears, over boundaries, crashes, holds and lost replies."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestra.errors import Cancelled
from orchestra.events import BoundaryRequested
from orchestra.store.kinds import Status
from orchestra.store.nudges import Nudged
from tests.support.harness import HOLD, check_rest, registry

NAP = timedelta(days=365)


async def sleeper(ctx, laps):
    await ctx.race(ctx.schedule_timer(NAP), ctx.wait_for_boundary_request())
    if laps == 0:
        return "done"
    ctx.continue_as_new(laps - 1)


async def worker(ctx, laps):
    await ctx.schedule_activity("work")
    if laps == 0:
        return ctx.boundary_requested
    ctx.continue_as_new(laps - 1)


def requests(world, instance_id, execution):
    events = world.events(instance_id, execution)
    return [event for event in events if isinstance(event, BoundaryRequested)]


def test_a_loop_that_sleeps_a_year_crosses_now(any_world):
    node = any_world.node(registry(sleeper))
    instance_id = any_world.start(state=2)
    any_world.run(60)
    assert any_world.nudge(instance_id) is Nudged.ASKED
    any_world.run(1.1)
    assert any_world.record(instance_id).row.execution == 2
    any_world.run(60)
    assert any_world.record(instance_id).row.execution == 2, "the next lap sleeps its year"
    (request,) = requests(any_world, instance_id, 1)
    assert (request.by, request.reason) == ("ops", "a deploy")
    assert requests(any_world, instance_id, 2) == []
    any_world.nudge(instance_id)
    any_world.run(1.1)
    any_world.nudge(instance_id)
    any_world.run(1.1)
    assert any_world.output(instance_id) == "done"
    check_rest(any_world, [node.registry])


def test_a_nudge_that_races_with_a_boundary_does_not_hit_the_next_lap(any_world):
    """It was meant for the first lap, and lands between that lap's step and its commit, or after
    it.
    """
    node = any_world.node(registry(worker), {"work": HOLD})
    first, second = any_world.start(state=1), any_world.start(state=1)
    any_world.run(1)
    runs = {run.key.instance_id: run for run in node.running.values()}
    node.finish(runs[first])
    node.store.before_commit = lambda: any_world.nudge(first, 1)
    any_world.run(1)
    node.finish(runs[second])
    any_world.run(1)
    assert any_world.nudge(second, 1) is Nudged.PASSED
    any_world.run(10)
    (again,) = [run for run in node.running.values() if run.key.instance_id == first]
    node.finish(again)  # its first end was in the refused write
    any_world.run(1)
    for instance_id in (first, second):
        assert any_world.record(instance_id).row.execution == 2
        assert requests(any_world, instance_id, 2) == []
    assert len(requests(any_world, first, 1)) == 1, "the boundary was refused, and made again"
    for run in list(node.running.values()):
        node.finish(run)
    any_world.run(1)
    assert [any_world.output(one) for one in (first, second)] == [False, False]
    check_rest(any_world, [node.registry])


def test_code_that_does_not_listen_goes_on_and_knows_it_at_its_next_step(any_world):
    async def deaf(ctx, _):
        await ctx.schedule_activity("work")
        await ctx.schedule_activity("work")
        return ctx.boundary_requested

    node = any_world.node(registry(deaf), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    any_world.nudge(instance_id)
    any_world.run(30)
    run = node.the_running()
    assert run.attempt == 1, "what runs goes on"
    node.finish()
    any_world.run(1)
    node.finish()
    any_world.run(1)
    assert any_world.output(instance_id) is True
    check_rest(any_world, [node.registry])


def test_a_nudge_is_heard_once_over_crashes_and_replays(any_world):
    async def slow(ctx, _):
        await ctx.wait_for_boundary_request()
        await ctx.schedule_activity("work")
        await ctx.schedule_activity("work")
        return "crossed"

    for _ in range(2):
        node = any_world.node(registry(slow), {"work": HOLD})
        if not any_world.directory.get("one"):
            any_world.start(instance_id="one")
            any_world.run(1)
            any_world.nudge("one")
        any_world.run(60)
        node.crash()
    other = any_world.node(registry(slow), {"work": HOLD})
    any_world.run(120)
    for _ in range(2):
        other.finish()
        any_world.run(1)
    assert any_world.output("one") == "crossed"
    assert len(requests(any_world, "one", 1)) == 1
    check_rest(any_world, [other.registry])


def test_an_execution_that_has_not_begun_hears_it_with_its_first_turn(any_world):
    node = any_world.node(registry(sleeper))
    node.crash()
    instance_id = any_world.start(state=1)
    assert any_world.nudge(instance_id) is Nudged.ASKED
    other = any_world.node(registry(sleeper))
    any_world.run(60)
    assert any_world.record(instance_id).row.execution == 2
    assert any_world.kinds(instance_id, 1) == [
        "EXECUTION_STARTED",
        "TIMER_CREATED",
        "BOUNDARY_REQUESTED",
        "COMMAND_CANCELLED",
        "CONTINUED_AS_NEW",
    ]
    check_rest(any_world, [other.registry])


def test_a_delayed_start_is_nudged_and_begins_at_its_time_all_the_same(any_world):
    any_world.node(registry(sleeper))
    change = any_world.start_change(state=1)
    later = any_world.clock.now() + 3600 * 1_000_000
    any_world.store.commit([replace(change, wake_at=later, not_before=later)])
    any_world.run(1)
    assert any_world.nudge(change.instance_id) is Nudged.ASKED
    any_world.run(3500)
    assert not any_world.record(change.instance_id).row.opened
    any_world.run(200)
    assert any_world.record(change.instance_id).row.execution == 2


def test_a_held_instance_keeps_the_nudge_until_mended_code_runs(any_world):
    async def broken(ctx, laps):
        await ctx.schedule_timer(timedelta(minutes=1))
        raise KeyError("no")

    async def mended(ctx, laps):
        await ctx.schedule_timer(timedelta(minutes=1))
        await ctx.race(ctx.schedule_timer(NAP), ctx.wait_for_boundary_request())
        return ctx.boundary_requested

    node = any_world.node(registry(broken))
    instance_id = any_world.start(state=1)
    any_world.run(90)
    assert any_world.record(instance_id).held
    assert any_world.nudge(instance_id) is Nudged.ASKED
    any_world.run(60)
    assert any_world.record(instance_id).held
    assert requests(any_world, instance_id, 1) == []
    node.leave()
    other = any_world.node(registry(mended))
    any_world.run(60)
    assert any_world.output(instance_id) is True
    check_rest(any_world, [other.registry])


def test_a_turn_that_hears_a_nudge_and_is_held_hears_it_again(any_world):
    async def broken(ctx, laps):
        await ctx.wait_for_boundary_request()
        raise KeyError("no")

    async def mended(ctx, laps):
        return (await ctx.wait_for_boundary_request()).reason

    node = any_world.node(registry(broken))
    instance_id = any_world.start()
    any_world.run(1)
    any_world.nudge(instance_id)
    any_world.run(5)
    assert any_world.record(instance_id).held
    assert requests(any_world, instance_id, 1) == []
    node.leave()
    any_world.node(registry(mended))
    any_world.run(60)
    assert any_world.output(instance_id) == "a deploy"


@pytest.mark.parametrize("fate", ["lost before", "lost after"])
def test_the_write_that_hears_a_nudge_may_lose_its_reply(any_world, fate):
    node = any_world.node(registry(sleeper))
    instance_id = any_world.start(state=1)
    any_world.run(1)
    any_world.nudge(instance_id)
    node.store.replies.extend([None, fate])
    any_world.run(60)
    assert any_world.record(instance_id).row.execution == 2
    assert len(requests(any_world, instance_id, 1)) == 1
    assert requests(any_world, instance_id, 2) == []
    check_rest(any_world, [node.registry])


def test_a_cancel_and_a_nudge_in_one_turn(any_world):
    async def careful(ctx, _):
        try:
            await ctx.wait_for_boundary_request()
        except Cancelled:
            await ctx.schedule_activity("work", ctx.boundary_requested)
            raise

    node = any_world.node(registry(careful), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    any_world.nudge(instance_id)
    any_world.cancel(instance_id)
    any_world.run(1)
    assert any_world.kinds(instance_id)[1:3] == ["CANCEL_REQUESTED", "ACTIVITY_SCHEDULED"]
    node.finish()
    any_world.run(1)
    assert any_world.status(instance_id) is Status.CANCELLED
    check_rest(any_world, [node.registry])


def test_the_write_of_a_nudge_wakes_another_node(any_world):
    """The owner is refused, drops what it has in memory, and any node may go on."""
    node = any_world.node(registry(worker), {"work": HOLD})
    instance_id = any_world.start(state=0)
    any_world.run(1)
    owner = any_world.record(instance_id).row.owner
    assert owner == node.node_id
    any_world.nudge(instance_id)
    assert any_world.record(instance_id).row.owner is None
    any_world.run(12)
    assert requests(any_world, instance_id, 1) != []
    node.finish()
    any_world.run(1)
    assert any_world.output(instance_id) is True


def test_two_nudges_of_two_operators_are_one_request(any_world):
    node = any_world.node(registry(worker), {"work": HOLD})
    instance_id = any_world.start(state=1)
    any_world.run(1)
    assert any_world.nudge(instance_id, reason="one") is Nudged.ASKED
    assert any_world.nudge(instance_id, reason="two") is Nudged.STANDING
    any_world.run(5)
    assert any_world.nudge(instance_id, reason="three") is Nudged.STANDING
    any_world.run(5)
    assert [request.reason for request in requests(any_world, instance_id, 1)] == ["one"]
    node.finish()
    any_world.run(5)
    assert any_world.nudge(instance_id, reason="four") is Nudged.ASKED
    any_world.run(5)
    assert [request.reason for request in requests(any_world, instance_id, 2)] == ["four"]


def test_many_laps_in_one_write_do_not_take_a_nudge_with_them(any_world):
    async def loops(ctx, laps):
        if laps == 5:
            await ctx.wait_for_boundary_request()
        if laps == 0:
            return "done"
        assert ctx.boundary_requested == (laps == 5)
        ctx.continue_as_new(laps - 1)

    any_world.node(registry(loops))
    instance_id = any_world.start(state=5)
    any_world.run(1)
    any_world.nudge(instance_id)
    any_world.run(5)
    assert any_world.output(instance_id) == "done"
    assert [len(requests(any_world, instance_id, lap)) for lap in range(1, 7)] == [1, 0, 0, 0, 0, 0]
