"""Whether the code goes on before or after the end of an activity that it has cancelled (scenario
59).
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestra.activities import Activity
from orchestra.retry import RetryPolicy
from orchestra.store.kinds import Status
from tests.support.harness import HOLD, check_rest, registry

MANY = RetryPolicy(max_attempts=5, initial_interval=timedelta(seconds=5), jitter=0)


def saga(on_cancel=None, retry=MANY):
    transfer = Activity.named("transfer", retry=retry, on_cancel=on_cancel)
    undo = Activity.named("undo")

    async def saga(ctx, _):
        try:
            await ctx.schedule_activity(transfer)
        finally:
            await ctx.schedule_activity(undo)

    return registry(saga)


def gathered(on_cancel=None):
    transfer, undo = (
        Activity.named("transfer", retry=MANY, on_cancel=on_cancel),
        Activity.named("undo"),
    )

    async def both(ctx):
        async def branch():
            await ctx.schedule_activity(transfer)

        async with ctx.task_group() as group:
            group.create_task(branch())
            await ctx.gather(branch(), ctx.wait_for_event("never"))

    async def saga(ctx, _):
        try:
            await ctx.race(both(ctx), ctx.wait_for_event("neither"))
        finally:
            await ctx.schedule_activity(undo)

    return registry(saga)


def racing(on_cancel, *, in_a_branch=False):
    transfer = Activity.named("transfer", on_cancel=on_cancel)

    async def racing(ctx, _):
        async def branch():
            return await ctx.schedule_activity(transfer)

        runner = branch() if in_a_branch else ctx.schedule_activity(transfer)
        winner = await ctx.race(runner, ctx.wait_for_event("go"))
        await ctx.schedule_activity(Activity.named("undo"))
        return winner.index

    return registry(racing)


WORK = {"transfer": HOLD, "undo": HOLD}


def begun(any_world, code, *, obeys=False, **options):
    node = any_world.node(code, WORK, **options)
    node.obeys = obeys
    instance_id = any_world.start()
    any_world.run(1)
    return node, instance_id


def names(node):
    return sorted(run.name for run in node.running.values())


@pytest.mark.parametrize("on_cancel", [None, "wait"])
@pytest.mark.parametrize("how", ["finish", "fail"])
def test_a_cancelled_activity_ends_before_the_compensation_begins(any_world, on_cancel, how):
    node, instance_id = begun(any_world, saga(on_cancel))
    transfer = node.the_running()
    any_world.cancel(instance_id)
    any_world.run(60)
    assert node.asked == [transfer.key]
    assert (names(node), any_world.status(instance_id)) == (["transfer"], Status.OPEN)
    getattr(node, how)(transfer)
    any_world.run(1)
    assert names(node) == ["undo"]
    node.finish()
    any_world.run(1)
    assert any_world.status(instance_id) is Status.CANCELLED
    assert any_world.kinds(instance_id, 1)[2:5] == [
        "CANCEL_REQUESTED",
        "ACTIVITY_FAILED",
        "ACTIVITY_SCHEDULED",
    ]
    assert (
        len([run for run in node.attempts if run.name == "transfer"]) == 1
    )  # a failure is not tried again
    check_rest(any_world, [node.registry])


def test_an_activity_that_is_to_be_abandoned_is_not_waited_for(any_world):
    node, instance_id = begun(any_world, saga("abandon"))
    transfer = node.the_running()
    any_world.cancel(instance_id)
    any_world.run(1)
    assert (names(node), node.aborted, node.asked) == (["undo"], [transfer.key], [])
    node.finish()
    any_world.run(1)
    assert any_world.kinds(instance_id, 1)[2:4] == ["CANCEL_REQUESTED", "COMMAND_CANCELLED"]
    check_rest(any_world, [node.registry])


def test_activities_in_branches_end_before_the_compensation_begins(any_world):
    node, instance_id = begun(any_world, gathered())
    any_world.cancel(instance_id)
    any_world.run(5)
    assert names(node) == ["transfer"] * 2
    first, second = node.running.values()
    node.finish(first)
    any_world.run(1)
    assert names(node) == ["transfer"]
    node.finish(second)
    any_world.run(1)
    assert names(node) == ["undo"]
    node.finish()
    any_world.run(1)
    assert any_world.status(instance_id) is Status.CANCELLED
    check_rest(any_world, [node.registry])


@pytest.mark.parametrize("in_a_branch", [False, True])
@pytest.mark.parametrize("on_cancel", [None, "abandon", "wait"])
def test_the_loser_of_a_race_is_waited_for_where_that_is_asked(any_world, on_cancel, in_a_branch):
    node, instance_id = begun(any_world, racing(on_cancel, in_a_branch=in_a_branch))
    transfer = node.the_running()
    any_world.send(instance_id, "go")
    any_world.run(5)
    if on_cancel == "wait":
        assert (names(node), node.asked) == (["transfer"], [transfer.key])
        node.finish(transfer)
        any_world.run(1)
    assert names(node) == ["undo"]
    node.finish()
    any_world.run(1)
    assert any_world.output(instance_id) == 1
    check_rest(any_world, [node.registry])


def test_the_wait_ends_with_the_node_that_ran_the_activity(any_world):
    code = saga()
    node, instance_id = begun(any_world, code)
    any_world.cancel(instance_id)
    any_world.run(1)
    assert names(node) == ["transfer"]
    node.crash()
    heir = any_world.node(code, WORK)
    any_world.run(20)
    assert names(heir) == ["undo"]  # and no other attempt of the transfer
    heir.finish()
    any_world.run(1)
    assert any_world.status(instance_id) is Status.CANCELLED
    check_rest(any_world, [code])


def test_the_wait_ends_where_its_node_stops_in_order(any_world):
    code = saga()
    node, instance_id = begun(any_world, code)
    any_world.cancel(instance_id)
    any_world.run(1)
    node.stop()
    heir = any_world.node(code, WORK)
    any_world.run(5)
    assert names(heir) == ["undo"]
    heir.finish()
    any_world.run(1)
    assert any_world.status(instance_id) is Status.CANCELLED


def test_a_second_cancel_changes_nothing_and_terminate_ends_the_wait(any_world):
    node, instance_id = begun(any_world, saga())
    transfer = node.the_running()
    any_world.cancel(instance_id)
    any_world.run(1)
    any_world.cancel(instance_id)
    any_world.run(1)
    assert node.asked == [transfer.key]
    any_world.terminate(instance_id)
    any_world.run(15)
    assert (any_world.status(instance_id), node.aborted) == (Status.TERMINATED, [transfer.key])
    check_rest(any_world, [node.registry])


def test_an_activity_that_waits_for_its_next_try_is_given_up_at_once(any_world):
    node, instance_id = begun(any_world, saga("wait"))
    node.fail()
    any_world.run(1)
    any_world.cancel(instance_id)
    any_world.run(1)
    assert (names(node), node.asked) == (["undo"], [])
    node.finish()
    any_world.run(1)
    assert any_world.status(instance_id) is Status.CANCELLED
    check_rest(any_world, [node.registry])
