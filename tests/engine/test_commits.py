"""How many commits work costs."""

from __future__ import annotations

from datetime import timedelta

from orchestra.engine.engine import EngineOptions
from orchestra.store.changes import Claim, Start, Write
from orchestra.store.kinds import ExecutionEnd, Status
from tests.support.harness import HOLD, check_rest, registry


async def steps(ctx, count):
    total = 0
    for number in range(count):
        total += await ctx.schedule_activity("add", number)
    return total


async def laps(ctx, left):
    await ctx.schedule_activity("work", left)
    if left:
        ctx.continue_as_new(left - 1)
    return "done"


async def spin(ctx, left):
    if left:
        ctx.continue_as_new(left - 1)
    return "done"


async def waits(ctx, _):
    return await ctx.wait_for_event("go")


def test_a_step_of_one_activity_is_one_commit_with_one_write(any_world):
    node = any_world.node(registry(steps), {"add": HOLD})
    instance_id = any_world.start(state=3)
    any_world.run(1)
    for number in range(2):
        node.store.forget()
        node.finish(value=number)
        node.run_until_idle()
        assert [[type(change) for change, _ in group] for group in node.store.groups] == [[Write]]
        assert any_world.kinds(instance_id)[-2:] == ["ACTIVITY_COMPLETED", "ACTIVITY_SCHEDULED"]
    node.store.forget()
    node.finish(value=10)
    node.run_until_idle()
    assert len(node.store.groups) == 1
    assert any_world.output(instance_id) == 11


def test_a_lap_of_one_activity_is_one_write_that_holds_the_boundary_the_opening_and_the_next_activity(
    any_world,
):
    node = any_world.node(registry(laps), {"work": HOLD})
    instance_id = any_world.start(state=5)
    any_world.run(1)
    node.store.forget()
    node.finish()
    node.run_until_idle()
    (write,) = node.store.changes
    assert isinstance(write, Write)
    closing, opening = write.executions
    assert (closing.number, closing.closed.end) == (1, ExecutionEnd.CONTINUED_AS_NEW)
    assert (opening.number, opening.create.opened_at is not None, len(opening.events)) == (
        2,
        True,
        2,
    )
    assert node.the_running().key.execution == 2
    assert any_world.kinds(instance_id) == ["EXECUTION_STARTED", "ACTIVITY_SCHEDULED"]


def test_instances_that_are_ready_together_share_one_commit(any_world):
    node = any_world.node(registry(steps), {"add": HOLD})
    for _ in range(40):
        any_world.start(state=1)
    any_world.run(1)
    assert len(node.running) == 40
    node.store.forget()
    for run in list(node.running.values()):
        node.finish(run, 1)
    node.run_until_idle()
    assert [len(group) for group in node.store.groups] == [40]
    check_rest(any_world, [node.registry])


def test_a_group_is_bounded_by_its_number_of_instances(world):
    node = world.node(registry(steps), {"add": HOLD}, options=EngineOptions(group=16))
    for _ in range(40):
        world.start(state=1)
    world.run(1)
    node.store.forget()
    for run in list(node.running.values()):
        node.finish(run, 1)
    node.run_until_idle()
    assert [len(group) for group in node.store.groups] == [16, 16, 8]


def test_a_group_is_bounded_by_its_bytes(world):
    async def talks(ctx, _):
        return await ctx.schedule_activity("say")

    node = world.node(registry(talks), {"say": HOLD}, options=EngineOptions(group_bytes=100_000))
    for _ in range(8):
        world.start()
    world.run(1)
    node.store.forget()
    for run in list(node.running.values()):
        node.finish(run, "x" * 40_000)
    node.run_until_idle()
    # Result and output are 80,000 bytes each: the bound is reached with the second write.
    assert [len(group) for group in node.store.groups] == [2, 2, 2, 2]
    assert {world.record(key.instance_id).status for key in world.returned} == {Status.COMPLETED}


def test_a_start_that_waits_for_its_time_is_left_to_a_claim(any_world):
    node = any_world.node(registry(steps), {"add": HOLD})
    node.run_until_idle()
    node.store.forget()
    node.start(state=1, not_before=any_world.clock.now() + 1)
    node.run_until_idle()
    assert [type(change) for change, _ in node.store.groups[0]] == [Start, Claim]


def test_a_node_with_nothing_to_do_commits_nothing_between_its_polls(world):
    node = world.node(registry(waits))
    for _ in range(20):
        world.start()
    world.run(1)
    node.store.forget()
    assert 0 < node.cycle.idle_seconds() <= 1
    world.run(0.9)
    assert node.store.calls["commit"] == 0
    world.run(20)
    assert node.store.calls["commit"] <= 21, "more than one look at the store for each poll"
    assert node.store.writes == []
    assert node.store.histories == []


def test_an_activity_that_runs_costs_no_commits_while_it_runs(world):
    node = world.node(registry(steps), {"add": HOLD})
    world.start(state=1)
    world.run(1)
    node.store.forget()
    world.run(60)
    assert node.store.writes == []


def test_a_loop_that_never_waits_makes_few_writes_and_lets_others_in(world):
    node = world.node(registry(v1_0_0=spin))
    looping = world.start(state=100)
    node.cycle_once()
    other = world.start(state=0)
    for _ in range(12):
        node.engine.look()
        node.cycle_once()
        if world.status(other) is not Status.OPEN:
            break
    assert world.status(looping) is Status.OPEN, "the loop kept the engine for itself"
    world.run(1)
    assert world.output(looping) == "done"
    assert len([write for write in node.store.writes if write.instance_id == looping]) <= 15
    assert len(world.executions(looping)) == 101
    check_rest(world, [node.registry])


def test_a_full_node_does_not_spin_over_what_it_cannot_claim(world):
    node = world.node(registry(steps), {"add": HOLD}, options=EngineOptions(max_owned=2))
    for _ in range(5):
        world.start(state=1)
    world.run(0.5)
    assert node.engine.owned == 2
    assert len(node.running) == 5, (
        "an instance that only waits for its activity does not keep others from beginning"
    )
    assert node.cycle.idle_seconds() > 0, "it would turn at full speed until an activity ends"
    for _ in range(4):
        for run in list(node.running.values()):
            node.finish(run, 1)
        world.run(1)
    assert len(node.ended) == 5


def test_a_node_that_stops_does_not_spin_over_what_it_will_not_claim(world):
    node = world.node(registry(steps), {"add": HOLD})
    world.start(state=1)
    world.run(1)
    node.engine.stop_claiming()
    world.start(state=1)
    node.engine.look()
    node.run_until_idle()
    assert node.cycle.idle_seconds() > 0
    assert len(node.running) == 1


def test_timers_of_an_owned_instance_leave_nothing_behind_in_memory(world):
    """A far timer beside a running activity: each lap makes a new one, and only the present one
    counts.
    """

    async def guarded(ctx, left):
        await ctx.race(ctx.schedule_activity("work", left), ctx.schedule_timer(timedelta(days=300)))
        if left:
            ctx.continue_as_new(left - 1)
        return "done"

    node = world.node(registry(guarded), {"work": HOLD})
    instance_id = world.start(state=500)
    world.run(1)
    for _ in range(500):
        node.finish()
        node.run_until_idle()
    assert len(node.engine._run_queue._timers) < 200
    node.finish()
    node.run_until_idle()
    assert world.output(instance_id) == "done"


def test_far_timers_of_instances_that_come_and_go_leave_nothing_behind_in_memory(world):
    async def comes_and_goes(ctx, left):
        await ctx.wait_for_event("go")
        await ctx.race(ctx.schedule_activity("work", left), ctx.schedule_timer(timedelta(days=300)))
        if left:
            ctx.continue_as_new(left - 1)
        return "done"

    node = world.node(registry(comes_and_goes), {"work": HOLD})
    instance_id = world.start(state=300)
    world.run(1)
    for _ in range(300):
        node.submit(world.append_change(instance_id))
        node.run_until_idle()
        node.finish()
        node.run_until_idle()
    assert world.record(instance_id).row.execution == 301
    assert len(node.engine._run_queue._timers) < 150
