"""Boundaries that are due: what their executions hear, over crashes, laps, holds and lost
replies.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestra.errors import Cancelled
from orchestra.events import BoundaryRequested, CancelRequested
from orchestra.registry import OrchestrationRegistry
from orchestra.store.changes import Resume, Suspend
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Granted
from tests.support.ages import FIRST_LIBRARY
from tests.support.harness import HOLD, SECOND, check_rest, several

PERIOD = timedelta(minutes=6)
DUE = timedelta(minutes=1)


def due(function, then, after=DUE):
    builder = OrchestrationRegistry.builder().register("job", function)
    return builder.set_boundary("job", due=after, then=then).build()


async def listener(ctx, laps):
    won = await ctx.race(ctx.schedule_timer(PERIOD), ctx.wait_for_boundary_request())
    if laps == 0:
        return won.index
    ctx.continue_as_new(laps - 1)


async def careful(ctx, laps):
    try:
        await ctx.schedule_timer(PERIOD)
    except Cancelled:
        await ctx.schedule_activity("clean up")
        raise


async def sleeper(ctx, laps):
    await ctx.schedule_timer(PERIOD)
    if laps == 0:
        return "slept"
    ctx.continue_as_new(laps - 1)


async def two_steps(ctx, _):
    await ctx.schedule_activity("work")
    await ctx.schedule_activity("work")
    return "done"


def requests(world, instance_id, execution=None):
    events = world.events(instance_id, execution)
    return [event for event in events if isinstance(event, BoundaryRequested)]


def test_it_is_due_a_fixed_time_after_the_execution_opens(any_world):
    node = any_world.node(due(sleeper, "report"))
    instance_id = any_world.start(state=1)
    any_world.run(1)
    first = any_world.record(instance_id)
    assert first.row.boundary_due == first.execution.opened_at + 60 * SECOND
    any_world.run(180)
    record = any_world.record(instance_id)
    assert record.row.boundary_due == first.row.boundary_due
    assert any_world.kinds(instance_id) == ["EXECUTION_STARTED", "TIMER_CREATED"], "only reported"
    any_world.run(200)
    second = any_world.record(instance_id)
    assert second.row.execution == 2
    assert second.row.boundary_due == second.execution.opened_at + 60 * SECOND
    node.leave()
    other = any_world.node(due(sleeper, "report", timedelta(minutes=30)))
    any_world.run(60)
    assert any_world.record(instance_id).row.boundary_due == second.row.boundary_due
    any_world.run(370)
    assert any_world.output(instance_id) == "slept"
    assert any_world.record(instance_id).row.boundary_due is None
    check_rest(any_world, [other.registry])


def test_a_due_execution_is_nudged_once_when_it_is_due(any_world):
    node = any_world.node(due(listener, "nudge"))
    instance_id = any_world.start(state=1)
    any_world.run(1)
    assert any_world.record(instance_id).row.owner is None, "it is parked until then"
    any_world.run(58)
    assert requests(any_world, instance_id) == []
    any_world.run(3)
    record = any_world.record(instance_id)
    assert record.row.execution == 2
    (request,) = requests(any_world, instance_id, 1)
    assert request.by == "boundary due"
    assert "was due at" in request.reason
    any_world.run(66)
    assert any_world.output(instance_id) == 1
    assert [len(requests(any_world, instance_id, lap)) for lap in (1, 2)] == [1, 1]
    check_rest(any_world, [node.registry])


def test_code_that_does_not_listen_is_nudged_once_and_not_woken_again(any_world):
    node = any_world.node(due(sleeper, "nudge"))
    instance_id = any_world.start(state=0)
    any_world.run(70)
    assert len(requests(any_world, instance_id)) == 1
    record = any_world.record(instance_id)
    assert record.row.nudge.by == "boundary due"
    assert record.row.wake_at == record.execution.opened_at + 360 * SECOND
    node.store.forget()
    any_world.run(100)
    assert node.store.writes == []
    any_world.run(200)
    assert any_world.output(instance_id) == "slept"
    check_rest(any_world, [node.registry])


def test_an_operator_has_nudged_before(any_world):
    any_world.node(due(sleeper, "nudge"))
    instance_id = any_world.start(state=0)
    any_world.run(10)
    any_world.nudge(instance_id, reason="by hand")
    any_world.run(70)
    assert [request.reason for request in requests(any_world, instance_id)] == ["by hand"]


def test_a_due_execution_is_cancelled_and_cleans_up(any_world):
    node = any_world.node(due(careful, "cancel"), {"clean up": HOLD})
    instance_id = any_world.start()
    any_world.run(62)
    record = any_world.record(instance_id)
    assert (record.row.cancel.by, record.row.cancel.terminate) == ("boundary due", False)
    (cancelled,) = [
        event for event in any_world.events(instance_id) if isinstance(event, CancelRequested)
    ]
    assert "was due at" in cancelled.reason
    assert node.the_running().name == "clean up"
    any_world.run(60)
    node.finish()
    any_world.run(1)
    assert any_world.status(instance_id) is Status.CANCELLED
    check_rest(any_world, [node.registry])


def test_a_due_execution_is_held_as_by_an_operator_until_it_is_released(any_world):
    node = any_world.node(due(two_steps, "hold"), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(6)
    run = node.the_running()
    any_world.run(56)
    record = any_world.record(instance_id)
    assert (record.held, record.row.paused, record.row.owner) == (True, True, None)
    assert record.row.operator_hold.by == "boundary due"
    assert run.key in node.aborted, "what runs is cancelled"
    any_world.run(60)
    assert node.running == {}
    assert any_world.store.commit([Resume(instance_id, "ops")]).outcomes == (
        Granted(record.row.inbox_seq),
    )
    any_world.run(5)
    again = node.the_running()
    assert again.attempt == 1, "its attempt did not count"
    any_world.run(60)
    assert not any_world.record(instance_id).held, "the operator knows that it is due"
    node.finish()
    any_world.run(1)
    node.finish()
    any_world.run(1)
    assert any_world.output(instance_id) == "done"
    check_rest(any_world, [node.registry])


def test_a_timer_that_was_due_fires_after_the_release(any_world):
    node = any_world.node(due(sleeper, "hold"))
    instance_id = any_world.start(state=0)
    any_world.run(720)
    assert any_world.record(instance_id).held
    any_world.store.commit([Resume(instance_id, "ops")])
    any_world.run(2)
    assert any_world.output(instance_id) == "slept"
    check_rest(any_world, [node.registry])


def test_a_timer_that_is_not_due_yet_is_waited_for_after_the_release(any_world):
    any_world.node(due(sleeper, "hold"))
    instance_id = any_world.start(state=0)
    any_world.run(70)
    opened_at = any_world.record(instance_id).execution.opened_at
    any_world.store.commit([Resume(instance_id, "ops")])
    any_world.run(60)
    assert any_world.record(instance_id).row.wake_at == opened_at + 360 * SECOND


def test_what_arrived_with_the_due_time_is_taken_before_the_hold(any_world):
    """An end of an activity that comes in the step that holds is not lost."""
    node = any_world.node(due(two_steps, "hold"), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    run = node.the_running()
    any_world.clock.skip(60)
    node.finish(run, 1)
    any_world.run(1)
    assert any_world.record(instance_id).held
    assert any_world.kinds(instance_id)[2:] == ["ACTIVITY_COMPLETED", "ACTIVITY_SCHEDULED"]
    assert node.running == {}
    any_world.store.commit([Resume(instance_id, "ops")])
    any_world.run(2)
    assert node.the_running().key.event_id == 4
    node.finish()
    any_world.run(1)
    check_rest(any_world, [node.registry])


def test_a_lap_that_ends_when_it_is_due_is_in_time(any_world):
    any_world.node(due(sleeper, "hold", PERIOD))
    instance_id = any_world.start(state=1)
    any_world.run(365)
    record = any_world.record(instance_id)
    assert (record.row.execution, record.held) == (2, False)


@pytest.mark.parametrize("then", ["nudge", "cancel", "hold"])
def test_the_node_dies_before_it_is_due(any_world, then):
    """Nothing of it is in memory alone: any node acts, at its time."""
    node = any_world.node(due(listener, then))
    instance_id = any_world.start(state=0)
    any_world.run(10)
    node.crash()
    any_world.node(due(listener, then))
    any_world.run(100)
    record = any_world.record(instance_id)
    if then == "hold":
        assert record.held
    else:
        assert record.status is (Status.COMPLETED if then == "nudge" else Status.CANCELLED)


@pytest.mark.parametrize("fate", ["lost before", "lost after"])
@pytest.mark.parametrize("then", ["nudge", "cancel", "hold"])
def test_the_write_may_lose_its_reply(world, then, fate):
    node = world.node(due(listener, then))
    instance_id = world.start(state=0)
    world.run(58)
    node.store.replies.extend([None, fate])
    world.run(60)
    record = world.record(instance_id)
    if then == "hold":
        assert record.held
        world.store.commit([Resume(instance_id, "ops")])
        world.run(720)
        assert world.output(instance_id) == 0
    elif then == "nudge":
        assert world.output(instance_id) == 1
        assert len(requests(world, instance_id)) == 1
    else:
        assert record.status is Status.CANCELLED
    check_rest(world, [node.registry])


def test_a_held_instance_is_only_overdue_and_acted_on_once_it_goes_on(any_world):
    async def broken(ctx, _):
        await ctx.schedule_timer(timedelta(minutes=1))
        raise KeyError("no")

    async def mended(ctx, _):
        await ctx.schedule_timer(timedelta(minutes=1))
        return (await ctx.wait_for_boundary_request()).by

    node = any_world.node(due(broken, "nudge"))
    instance_id = any_world.start()
    any_world.run(90)
    record = any_world.record(instance_id)
    assert record.held
    assert record.row.boundary_due < any_world.clock.now()
    assert requests(any_world, instance_id) == []
    node.leave()
    any_world.node(due(mended, "nudge"))
    any_world.run(60)
    assert any_world.output(instance_id) == "boundary due"


def test_an_instance_that_an_operator_holds_is_acted_on_after_the_release(any_world):
    any_world.node(due(listener, "nudge"))
    instance_id = any_world.start(state=0)
    any_world.run(10)
    any_world.store.commit([Suspend(instance_id, "ops", "wait")])
    any_world.run(100)
    assert requests(any_world, instance_id) == []
    any_world.store.commit([Resume(instance_id, "ops")])
    any_world.run(2)
    assert any_world.output(instance_id) == 1


def test_a_failed_opening_leaves_no_due_time(any_world):
    async def raises(ctx, laps):
        if laps == 0:
            raise KeyError("no")
        await ctx.schedule_timer(timedelta(seconds=1))
        ctx.continue_as_new(laps - 1)

    any_world.node(due(raises, "nudge"))
    instance_id = any_world.start(state=1)
    any_world.run(5)
    record = any_world.record(instance_id)
    assert (record.held, record.row.opened, record.row.boundary_due) == (True, False, None)


def test_nothing_is_due_while_a_node_with_an_older_library_lives(any_world):
    older = any_world.node(several(other=sleeper), library=FIRST_LIBRARY)
    any_world.node(due(listener, "nudge"))
    instance_id = any_world.start(state=0)
    any_world.run(90)
    assert any_world.record(instance_id).row.boundary_due is None
    assert requests(any_world, instance_id) == []
    older.leave()


def test_a_node_without_the_rule_only_reports(any_world):
    """Its registry says nothing of boundaries any more: what opened before keeps its time."""
    node = any_world.node(due(listener, "nudge"))
    instance_id = any_world.start(state=0)
    any_world.run(10)
    node.leave()
    any_world.node(several(job=listener))
    any_world.run(90)
    assert any_world.record(instance_id).row.boundary_due is not None
    assert requests(any_world, instance_id) == []
