"""Cancelling and terminating: each order has one stated outcome (scenario 15)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestra.errors import Cancelled
from orchestra.events import ExecutionTerminated
from orchestra.store.changes import Cancel
from orchestra.store.kinds import ExecutionEnd, Status
from orchestra.store.outcomes import Appended, AppendRefused, Granted, Refusal, Refused
from tests.support.harness import HOLD, check_rest, registry


async def works(ctx, left):
    await ctx.schedule_activity("work")
    if left:
        ctx.continue_as_new(left - 1)
    return "done"


async def careful(ctx, _):
    try:
        await ctx.wait_for_event("go")
    finally:
        await ctx.schedule_activity("cleanup")


async def stubborn(ctx, left):
    """Answers a cancel with a boundary."""
    try:
        await ctx.wait_for_event("go")
    except Cancelled:
        ctx.continue_as_new(left - 1)


def test_cancelled_before_its_first_turn_it_ends_without_running_code(any_world):
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=0)
    any_world.cancel(instance_id)
    any_world.run(1)
    record = any_world.record(instance_id)
    assert record.status is Status.CANCELLED
    assert record.execution.end is ExecutionEnd.CANCELLED
    assert any_world.events(instance_id) == []
    assert node.attempts == []
    assert node.ended == [instance_id]
    check_rest(any_world, [node.registry])


def test_cancelled_during_a_boundary_the_next_execution_ends_unopened(any_world):
    """The mark lands between the step that crosses the boundary and its commit, on a node that may
    not open the next one.
    """
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=3)
    any_world.run(1)
    node.finish()
    node.engine.release_all()  # a boundary that is not crossed in one write
    node.store.before_commit = lambda: any_world.cancel(instance_id)
    node.run_until_idle()
    node.leave()
    assert any_world.status(instance_id) is Status.OPEN
    other = any_world.node(registry(works), {"work": HOLD})
    any_world.run(1)
    assert any_world.status(instance_id) is Status.CANCELLED
    assert [row.end for row in any_world.executions(instance_id)] == [
        ExecutionEnd.CONTINUED_AS_NEW,
        ExecutionEnd.CANCELLED,
    ]
    assert any_world.events(instance_id, 2) == []
    assert other.attempts == []
    check_rest(any_world, [other.registry])


def test_a_mark_that_races_with_a_lap_is_delivered_in_the_next_execution(any_world):
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=3)
    any_world.run(1)
    node.finish()
    node.store.before_commit = lambda: any_world.cancel(instance_id)
    any_world.run(1.1)
    assert any_world.status(instance_id) is Status.CANCELLED
    assert any_world.kinds(instance_id, 2)[-3:] == [
        "CANCEL_REQUESTED",
        "ACTIVITY_FAILED",
        "EXECUTION_CANCELLED",
    ]
    assert [key.execution for key in node.asked] == [2]
    check_rest(any_world, [node.registry])


def test_cancelled_in_execution_2_while_its_activity_runs_the_activity_is_asked_to_end(any_world):
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=3)
    any_world.run(1)
    node.finish()
    any_world.run(1)
    key = node.the_running().key
    assert key.execution == 2
    node.submit(Cancel(instance_id, "enough"))
    node.run_until_idle()
    assert node.asked == [key]
    assert any_world.status(instance_id) is Status.CANCELLED
    assert node.engine.running == 0
    check_rest(any_world, [node.registry])


def test_a_second_cancel_changes_nothing_and_one_after_the_end_is_refused(any_world):
    node = any_world.node(registry(careful), {"cleanup": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    first = any_world.cancel(instance_id, "first")
    any_world.run(1.1)
    second = any_world.cancel(instance_id, "second")
    assert isinstance(first, Appended)
    assert first.fresh
    assert isinstance(second, Appended)
    assert not second.fresh
    any_world.run(1.1)
    assert len(node.attempts) == 1, "the clean-up was disturbed by the second cancel"
    node.finish()
    any_world.run(1)
    assert any_world.status(instance_id) is Status.CANCELLED
    assert any_world.kinds(instance_id).count("CANCEL_REQUESTED") == 1
    assert any_world.events(instance_id)[-1].reason == "first"
    assert any_world.cancel(instance_id) == AppendRefused(Refusal.CLOSED)
    check_rest(any_world, [node.registry])


def test_clean_up_goes_on_after_a_restart_and_runs_once(any_world):
    """Scenario 32."""
    before = any_world.node(registry(careful), {"cleanup": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    any_world.cancel(instance_id)
    any_world.run(1.1)
    assert before.the_running().name == "cleanup"
    before.stop()
    after = any_world.node(registry(careful), {"cleanup": HOLD})
    any_world.run(1)
    after.finish()
    any_world.run(1)
    assert any_world.status(instance_id) is Status.CANCELLED
    assert any_world.kinds(instance_id).count("ACTIVITY_SCHEDULED") == 1
    check_rest(any_world, [after.registry])


def test_a_cancel_of_a_parked_instance_wakes_it_at_once(any_world):
    async def sleeps(ctx, _):
        await ctx.schedule_timer(timedelta(days=365))

    node = any_world.node(registry(sleeps))
    instance_id = any_world.start()
    any_world.run(1)
    assert node.engine.owned == 0
    any_world.cancel(instance_id)
    any_world.run(1.1)
    assert any_world.status(instance_id) is Status.CANCELLED


def test_the_mark_crosses_boundaries_even_where_code_answers_it_with_one(world):
    node = world.node(registry(stubborn))
    instance_id = world.start(state=1_000)
    world.run(1)
    world.cancel(instance_id)
    world.run(1.1)
    assert world.status(instance_id) is Status.CANCELLED
    assert len(world.executions(instance_id)) == 2
    check_rest(world, [node.registry])


def test_terminate_needs_no_node_and_beats_a_later_completion(any_world):
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=0)
    any_world.run(1)
    node.finish(value=1)
    outcomes = []
    node.store.before_commit = lambda: outcomes.append(any_world.terminate(instance_id))
    any_world.run(1)
    assert isinstance(outcomes[0], Granted)
    record = any_world.record(instance_id)
    assert record.status is Status.TERMINATED
    assert isinstance(any_world.events(instance_id)[-1], ExecutionTerminated)
    assert node.engine.owned == 0
    check_rest(any_world, [node.registry])


def test_terminate_that_comes_after_a_completion_is_refused(any_world):
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=0)
    any_world.run(1)
    late = any_world.termination(instance_id)
    node.finish(value=1)
    node.run_until_idle()
    assert any_world.status(instance_id) is Status.COMPLETED
    assert any_world.store.commit([late]).outcomes[0] == Refused()
    assert any_world.status(instance_id) is Status.COMPLETED


def test_terminate_beats_a_cancel_in_the_same_group(world):
    node = world.node(registry(careful), {"cleanup": HOLD})
    instance_id = world.start()
    world.run(1)
    cancel, terminate = (
        node.submit(Cancel(instance_id, "")),
        node.submit(world.termination(instance_id)),
    )
    node.run_until_idle()
    assert isinstance(node.replies[terminate], Granted)
    assert node.replies[cancel] == AppendRefused(Refusal.CLOSED)
    assert world.status(instance_id) is Status.TERMINATED
    assert node.attempts == []


@pytest.mark.parametrize("through_node", [True, False])
def test_terminate_aborts_what_runs(world, through_node):
    node = world.node(registry(works), {"work": HOLD})
    instance_id = world.start(state=0)
    world.run(1)
    key = node.the_running().key
    if through_node:
        node.submit(world.termination(instance_id))
        node.run_until_idle()
    else:
        world.terminate(instance_id)
        world.run(12)
    assert node.aborted == [key]
    assert node.engine.owned == 0


def test_an_unopened_execution_can_be_terminated(world):
    node = world.node(registry(works))
    node.crash()
    instance_id = world.start(state=0)
    assert isinstance(world.terminate(instance_id), Granted)
    assert world.status(instance_id) is Status.TERMINATED
    assert world.events(instance_id) == []
