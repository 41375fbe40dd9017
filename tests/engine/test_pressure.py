"""More instances than places: whoever only waits gives up its place, and each goes on in its turn
(scenario 50).
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from orchestra.activities import Activity
from orchestra.engine.engine import EngineOptions
from orchestra.events import ActivityCompleted
from orchestra.retry import RetryPolicy
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Refused
from tests.support.harness import HOLD, SECOND, check_rest, registry, several

FEW = EngineOptions(max_owned=4)
MANY = 16
QUICK = RetryPolicy(max_attempts=3, initial_interval=timedelta(seconds=1), jitter=0)


async def ticks(ctx, laps):
    await ctx.schedule_timer(timedelta(milliseconds=50))
    ctx.continue_as_new(laps + 1)


async def works(ctx, laps):
    await ctx.schedule_activity("work")
    ctx.continue_as_new(laps + 1)


async def never_waits(ctx, laps):
    if laps >= 400:
        return laps
    return ctx.continue_as_new(laps + 1)


async def works_once(ctx, _):
    return await ctx.schedule_activity(Activity.named("work", retry=QUICK))


async def gathers(ctx, count):
    return await ctx.gather(
        *(ctx.schedule_activity(Activity.named("work", retry=QUICK)) for _ in range(count))
    )


async def races(ctx, _):
    first = await ctx.race(ctx.schedule_activity("work"), ctx.wait_for_event("go"))
    await ctx.schedule_timer(timedelta(seconds=1))
    return first.index


def laps_of(world, ids):
    return [world.record(instance_id).row.execution for instance_id in ids]


def run_with_work(world, seconds, nodes):
    """Let activities take 50 ms each."""
    for _ in range(round(seconds / 0.05)):
        running = [(node, list(node.running.values())) for node in nodes]
        world.run(0.05)
        for node, messages in running:
            for run in messages:
                if run.key in node.running:
                    node.finish(run)
        world.run_until_idle()


def commits(node):
    return len(node.store.groups)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_more_loops_than_places_lap_in_equal_numbers(any_world, nodes):
    world = any_world
    made = [world.node(registry(ticks), options=FEW) for _ in range(nodes)]
    ids = [world.start(state=0) for _ in range(MANY)]
    world.run(1.5)
    laps = laps_of(world, ids)
    assert min(laps) >= 14, laps
    assert max(laps) - min(laps) <= max(laps) // 3, laps
    assert all(node.engine.owned <= FEW.max_owned for node in made)
    assert sum(map(commits, made)) <= 3 * sum(laps), (
        "a lap costs few commits also where places are given up"
    )
    check_rest(world, [made[0].registry])


@pytest.mark.parametrize("nodes", [1, 2])
def test_more_loops_than_places_lap_in_equal_numbers_while_their_activities_run(any_world, nodes):
    world = any_world
    made = [world.node(registry(works), {"work": HOLD}, options=FEW) for _ in range(nodes)]
    ids = [world.start(state=0) for _ in range(MANY)]
    run_with_work(world, 1.5, made)
    laps = laps_of(world, ids)
    assert min(laps) >= 9, laps
    assert max(laps) - min(laps) <= max(laps) // 3, laps
    runs = Counter(run.key for node in made for run in node.attempts)
    assert set(runs.values()) == {1}, "an activity was run twice"
    check_rest(world, [made[0].registry])


@pytest.mark.slow
def test_loops_that_never_wait_take_turns(any_world):
    node = any_world.node(registry(never_waits), options=EngineOptions(max_owned=2))
    ids = [any_world.start(state=0) for _ in range(6)]
    for _ in range(80):
        any_world.clock.skip(0.001)
        node.cycle_once()
    laps = laps_of(any_world, ids)
    assert min(laps) >= max(laps) // 2 > 8, laps
    any_world.run(1)
    assert {any_world.status(instance_id) for instance_id in ids} == {Status.COMPLETED}


def test_without_pressure_nothing_gives_up_its_place(world):
    node = world.node(registry(works), {"work": HOLD}, options=EngineOptions(max_owned=MANY))
    ids = [world.start(state=0) for _ in range(MANY)]
    world.run(0.2)
    node.store.forget()
    run_with_work(world, 1, [node])
    assert min(laps_of(world, ids)) >= 15
    assert all(write.state.owner == node.node_id for write in node.store.writes)
    assert not any(write.activities for write in node.store.writes)
    assert not node.store.reports
    assert not [claim for claim in node.store.claims if claim.limit], (
        "and a full node asks for nothing"
    )


def test_only_as_many_give_up_their_place_as_are_due(world):
    node = world.node(registry(works_once), {"work": HOLD}, options=EngineOptions(max_owned=64))
    for _ in range(64):
        world.start()
    world.run(1)
    node.store.forget()
    world.start()
    world.run(1)
    assert len(node.running) == 65
    released = [write for write in node.store.writes if write.state.owner is None]
    assert len(released) == 1
    assert node.cycle.idle_seconds() > 0


def test_what_runs_for_an_instance_that_gave_up_its_place_ends_once(any_world):
    world = any_world
    node = world.node(registry(works_once), {"work": HOLD}, options=EngineOptions(max_owned=1))
    ids = [world.start() for _ in range(3)]
    world.run(0.5)
    assert len(node.running) == 3
    owned = [instance_id for instance_id in ids if world.record(instance_id).row.owner is not None]
    assert len(owned) <= 1
    for run in list(node.running.values()):
        node.finish(run, run.key.instance_id)
    world.run(1)
    assert [world.output(instance_id) for instance_id in ids] == ids
    assert len(node.attempts) == 3
    for instance_id in ids:
        ends = [
            event for event in world.events(instance_id) if isinstance(event, ActivityCompleted)
        ]
        assert [event.attempt for event in ends] == [1]
    assert not node.aborted
    check_rest(world, [node.registry])


def test_a_failed_try_of_an_instance_that_gave_up_its_place_is_tried_again(any_world):
    world = any_world
    node = world.node(registry(works_once), {"work": HOLD}, options=EngineOptions(max_owned=1))
    ids = [world.start() for _ in range(3)]
    world.run(0.5)
    for run in list(node.running.values()):
        node.beat("so far", run)
        node.fail(run, heartbeat="half")
    world.run(2)
    assert sorted(run.attempt for run in node.running.values()) == [2, 2, 2]
    assert {run.last_heartbeat.data for run in node.running.values()} == {b'"half"'}
    for run in list(node.running.values()):
        node.finish(run, "done")
    world.run(2)
    assert [world.output(instance_id) for instance_id in ids] == ["done"] * 3


def test_what_ran_for_others_is_lost_with_its_node_and_counts_as_an_attempt(any_world):
    world = any_world
    first = world.node(registry(works_once), {"work": HOLD}, options=EngineOptions(max_owned=1))
    ids = [world.start() for _ in range(3)]
    world.run(0.5)
    assert len(first.running) == 3
    second = world.node(registry(works_once), {"work": HOLD})
    first.crash()
    world.run(30)
    assert {run.attempt for run in second.running.values()} == {2}
    for run in list(second.running.values()):
        second.finish(run, "done")
    world.run(2)
    assert [world.output(instance_id) for instance_id in ids] == ["done"] * 3
    check_rest(world, [second.registry])


@pytest.mark.parametrize("fate", ["lost before", "lost after"])
def test_a_lost_reply_to_the_write_that_gives_up_a_place_runs_nothing_twice(any_world, fate):
    world = any_world
    node = world.node(registry(works_once), {"work": HOLD}, options=EngineOptions(max_owned=1))
    first = world.start()
    world.run(0.5)
    second = world.start()
    node.store.replies.append(fate)
    world.run(3)
    assert len(node.running) == 2
    for run in list(node.running.values()):
        node.finish(run, "done")
    world.run(3)
    assert [world.output(instance_id) for instance_id in (first, second)] == ["done"] * 2
    assert len(node.attempts) == 2, "what was running already was begun anew"
    check_rest(world, [node.registry])


def test_what_gives_up_its_place_and_loses_its_fence_is_not_run_for_it(any_world):
    world = any_world
    node = world.node(registry(works_once), {"work": HOLD}, options=EngineOptions(max_owned=1))
    first = world.start()
    world.run(0.5)
    second = world.start()
    node.store.before_commit = lambda: world.terminate(first)
    world.run(2)
    assert any(isinstance(outcome, Refused) for group in node.store.groups for _, outcome in group)
    assert [run.key.instance_id for run in node.running.values()] == [second]
    node.finish(value="done")
    world.run(1)
    assert world.output(second) == "done"
    check_rest(world, [node.registry])


def test_an_activity_that_loses_a_race_after_its_instance_gave_up_its_place_is_aborted_at_once(
    any_world,
):
    world = any_world
    node = world.node(registry(races), {"work": HOLD}, options=EngineOptions(max_owned=1))
    ids = [world.start() for _ in range(3)]
    world.run(0.5)
    assert len(node.running) == 3
    for instance_id in ids:
        world.send(instance_id)
    node.engine.look()
    world.run_until_idle()
    assert not node.running
    assert sorted(key.instance_id for key in node.aborted) == sorted(ids)
    world.run(3)
    assert [world.output(instance_id) for instance_id in ids] == [1, 1, 1]
    check_rest(world, [node.registry])


def test_an_instance_with_many_running_activities_gives_up_its_place_last(world):
    node = world.node(registry(gathers), {"work": HOLD}, options=EngineOptions(max_owned=2))
    wide = world.start(state=100)
    world.run(0.5)
    narrow = [world.start(state=1) for _ in range(4)]
    world.run(0.5)
    assert len(node.running) == 104
    assert world.record(wide).row.owner == node.node_id
    more = [world.start(state=100) for _ in range(3)]
    world.run(1)
    assert len(node.running) == 404, "where all are wide, they give way nevertheless"
    while node.running:
        for run in list(node.running.values()):
            node.finish(run, 1)
        world.run(1)
    assert {world.status(instance_id) for instance_id in (wide, *narrow, *more)} == {
        Status.COMPLETED
    }
    assert len(node.attempts) == 404


def test_a_node_that_stops_hands_what_it_runs_for_others_on(any_world):
    world = any_world
    first = world.node(registry(works_once), {"work": HOLD}, options=EngineOptions(max_owned=1))
    ids = [world.start() for _ in range(3)]
    world.run(0.5)
    second = world.node(registry(works_once), {"work": HOLD})
    first.stop()
    world.run(2)
    assert {run.attempt for run in second.running.values()} == {1}, "nobody is charged for it"
    for run in list(second.running.values()):
        second.finish(run, "done")
    world.run(2)
    assert [world.output(instance_id) for instance_id in ids] == ["done"] * 3


def test_a_full_node_whose_loops_are_early_wakes_when_one_is_due(world):
    """It keeps its own until another one is due, and not longer."""

    async def waits(ctx, milliseconds):
        await ctx.schedule_timer(timedelta(milliseconds=milliseconds))
        return ctx.now().timestamp()

    node = world.node(registry(waits), options=EngineOptions(max_owned=1, keep_owned=60 * SECOND))
    late = world.start(state=50_000)
    world.run(0.1)
    soon = world.start(state=200)
    begun = world.clock.now() / 1e6
    world.run(2)
    assert world.output(soon) - begun <= 1.3
    world.run(60)
    assert world.status(late) is Status.COMPLETED
    assert commits(node) < 40


def test_an_end_that_comes_while_nobody_knows_whether_its_instance_has_left_is_told(any_world):
    """The reply to the write that hands the activity over is lost (rules 9 and 13)."""
    code = several(job=works_once, busy=ticks)
    node = any_world.node(code, {"work": HOLD}, options=EngineOptions(max_owned=1))
    instance_id = any_world.start()
    any_world.run(1)
    run = node.the_running()

    def lose():
        hands_over = any(getattr(change, "activities", ()) for change in node.engine.in_flight)
        if hands_over and run.key in node.running:
            node.store.replies.append("lost after")
            node.finish(run, "done")

    node.store.around = lose
    any_world.start("busy", 0)
    any_world.run(15)
    assert run.key not in node.running, "or this test says nothing"
    assert any_world.output(instance_id) == "done"
    assert node.attempts == [run]
