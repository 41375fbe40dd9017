"""Sessions: activities that run on one node, and are lost with it."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from orchestra.activities import Activity
from orchestra.engine.engine import EngineOptions
from orchestra.engine.messages import SessionsOpen
from orchestra.errors import ActivityFailed, Cancelled, SessionLost, SessionTimeout
from orchestra.events import ActivityScheduled
from orchestra.retry import RetryPolicy
from orchestra.sessions import ENTER, OPEN
from orchestra.store.changes import Resume, Suspend
from orchestra.store.kinds import Status
from orchestra.store.routes import Route, node_queue, session_route
from tests.support.harness import HOLD, check_rest, registry

QUICK = RetryPolicy(max_attempts=3, initial_interval=timedelta(seconds=1), jitter=0)
FETCH = Activity.named("fetch", retry=QUICK)
BUILD = Activity.named("build", retry=QUICK)
BOTH = {"fetch": HOLD, "build": HOLD}


async def job(ctx, state):
    """Fetch and build on one node; what is lost is told."""
    try:
        async with ctx.session(FETCH, BUILD) as session:
            path = await session.schedule_activity(FETCH, state)
            return [session.node_id, await session.schedule_activity(BUILD, path)]
    except SessionLost as lost:
        return ["lost", lost.activity, lost.node_id]


CODE = registry(job)


def lone(world, code=CODE, **options):
    """Return a node that runs orchestrations, and has no activity."""
    return world.node(code, **options)


def helper(world, activities=BOTH, **options):
    """Return a node that runs activities, and no orchestration that matters."""

    async def other(ctx, _): ...

    return world.node(registry("other", v1_0_0=other), activities, **options)


def scheduled(world, instance_id):
    return [event for event in world.events(instance_id) if isinstance(event, ActivityScheduled)]


# --- who gets it ------------------------------------------------------------------------------


def test_all_of_a_session_runs_on_one_node_of_several(any_world):
    lone(any_world)
    helpers = [helper(any_world), helper(any_world), helper(any_world)]
    ids = [any_world.start(state=number) for number in range(6)]
    any_world.run(6)
    for _ in range(2):
        for node in helpers:
            for run in list(node.running.values()):
                assert run.session == node.node_id
                node.finish(run, node.node_id)
        any_world.run(4)
    for instance_id in ids:
        node_id, built = any_world.output(instance_id)
        assert node_id == built
    check_rest(any_world, [CODE])


def test_its_own_node_runs_it_without_the_store(any_world):
    node = any_world.node(CODE, BOTH)
    instance_id = any_world.start(state="x")
    any_world.run(1)
    assert node.the_running().arguments.data == b'["x"]'
    node.finish(value="path")
    any_world.run(1)
    node.finish(value="built")
    any_world.run(1)
    assert any_world.output(instance_id) == [node.node_id, "built"]
    assert node.store.reports == [], "nothing was handed out"
    enter, opened, fetch, build = scheduled(any_world, instance_id)
    assert (enter.name, opened.name) == (ENTER, OPEN)
    assert {one.queue for one in (opened, fetch, build)} == {node_queue(node.node_id)}
    check_rest(any_world, [CODE])


def test_a_node_without_one_of_its_activities_never_gets_it(any_world):
    lone(any_world)
    half = helper(any_world, {"fetch": HOLD})
    instance_id = any_world.start()
    any_world.run(20)
    assert half.attempts == []
    (row,) = any_world.record(instance_id).activities
    assert (row.route, row.owner) == (session_route("default", ["fetch", "build"]), None)
    whole = helper(any_world)
    any_world.run(6)
    whole.finish(value="path")
    any_world.run(6)
    whole.finish(value="built")
    any_world.run(6)
    assert any_world.output(instance_id) == [whole.node_id, "built"]
    assert half.attempts == []
    check_rest(any_world, [CODE])


def test_its_own_node_without_one_of_its_activities_leaves_it_to_others(any_world, caplog):
    owner = any_world.node(CODE, {"fetch": HOLD})
    any_world.start()
    with caplog.at_level(logging.WARNING, "orchestra"):
        any_world.run(5)
    assert "no living node has all of 'build', 'fetch', which a session needs" in caplog.text
    whole = helper(any_world)
    any_world.run(6)
    assert (len(whole.attempts), owner.attempts) == (1, [])


def test_it_goes_to_a_node_that_serves_its_queue(any_world):
    async def elsewhere(ctx, _):
        async with ctx.session("fetch", queue="gpu") as session:
            await session.schedule_activity("fetch")
            return session.node_id

    code = registry(elsewhere)
    plain = any_world.node(code, BOTH)
    gpu = helper(any_world, {"fetch": lambda _: None}, queues=("gpu",))
    instance_id = any_world.start()
    any_world.run(6)
    assert any_world.output(instance_id) == gpu.node_id
    assert plain.attempts == []
    check_rest(any_world, [code])


def test_a_node_takes_no_more_than_it_may_have_and_the_next_one_when_one_ends(any_world):
    node = any_world.node(CODE, BOTH, options=EngineOptions(sessions=2))
    for _ in range(5):
        any_world.start()
    any_world.run(6)
    assert len(node.running) == 2
    for _ in range(2):
        node.finish(next(iter(node.running.values())), "path")
        any_world.run(1)
    assert len(node.running) == 2, "a session is open until its block is left"
    node.finish(node.running[min(node.running)], "built")
    any_world.run(6)
    assert len(node.running) == 2
    for _ in range(20):
        for run in list(node.running.values()):
            node.finish(run, "done")
        any_world.run(6)
    assert node.engine.running == 0
    check_rest(any_world, [CODE])


def test_a_claim_that_brings_too_many_hands_them_back_untried(any_world):
    lone(any_world)
    ids = [any_world.start() for _ in range(4)]
    any_world.run(4)
    first = helper(any_world, options=EngineOptions(sessions=1))
    any_world.run(6)
    assert len(first.running) == 1
    second = helper(any_world)
    any_world.run(5)
    assert (len(first.running), len(second.running)) == (1, 3)
    attempts = [activity.attempt for one in ids for activity in any_world.record(one).activities]
    assert set(attempts) == {1}


# --- how it goes on ---------------------------------------------------------------------------


def test_a_failed_attempt_is_repeated_on_its_node(any_world):
    lone(any_world)
    first, second = helper(any_world), helper(any_world)
    any_world.start()
    any_world.run(6)
    node, other = (first, second) if first.running else (second, first)
    for attempt in range(1, 4):
        assert node.the_running().attempt == attempt
        node.fail()
        any_world.run(5)
    assert other.attempts == []


def test_one_that_fails_for_good_ends_no_session(any_world):
    async def tries(ctx, _):
        async with ctx.session(FETCH, BUILD) as session:
            try:
                await session.schedule_activity(FETCH)
            except ActivityFailed as failed:
                return [failed.reason, await session.schedule_activity(BUILD)]

    def breaks(_):
        raise RuntimeError("it broke")

    code = registry(tries)
    lone(any_world, code)
    node = helper(any_world, {"fetch": breaks, "build": lambda _: "built"})
    instance_id = any_world.start()
    any_world.run(25)
    assert any_world.output(instance_id) == ["attempts exhausted", "built"]
    assert [run.name for run in node.attempts] == ["fetch"] * 3 + ["build"]
    check_rest(any_world, [code])


def test_it_survives_the_node_of_its_instance(any_world):
    owner, node = lone(any_world), helper(any_world)
    instance_id = any_world.start(state="x")
    any_world.run(6)
    owner.crash()
    node.finish(value="path")
    any_world.run(6)
    lone(any_world)
    any_world.run(15)
    node.finish(value="built")
    any_world.run(6)
    assert any_world.output(instance_id) == [node.node_id, "built"]
    assert [run.attempt for run in node.attempts] == [1, 1]
    check_rest(any_world, [CODE])


def test_branches_share_it_and_the_end_of_one_ends_no_session(any_world):
    async def many(ctx, _):
        async with ctx.session("fetch") as session:
            first = await ctx.race(
                session.schedule_activity("fetch", 1), session.schedule_activity("fetch", 2)
            )
            rest = await ctx.gather(*(session.schedule_activity("fetch", n) for n in range(3)))
            return [first.value, rest]

    code = registry(many)
    lone(any_world, code)
    node = helper(any_world, {"fetch": HOLD})
    instance_id = any_world.start()
    any_world.run(6)
    node.finish(next(iter(node.running.values())), "won")
    any_world.run(6)
    for run in list(node.running.values()):
        node.finish(run, run.arguments.data.decode())
    any_world.run(6)
    assert any_world.output(instance_id) == ["won", ["[0]", "[1]", "[2]"]]
    assert node.engine.running == 0
    check_rest(any_world, [code])


def test_a_cancel_ends_it_and_its_cleanup_runs_on_its_node(any_world):
    async def cleans(ctx, _):
        async with ctx.session("fetch", "clean") as session:
            try:
                await session.schedule_activity("fetch")
            except Cancelled:
                await session.schedule_activity("clean")
                raise

    code = registry(cleans)
    lone(any_world, code)
    first = helper(any_world, {"fetch": HOLD, "clean": HOLD})
    second = helper(any_world, {"fetch": HOLD, "clean": HOLD})
    instance_id = any_world.start()
    any_world.run(6)
    node = first if first.running else second
    any_world.cancel(instance_id)
    any_world.run(6)
    assert node.the_running().name == "clean"
    node.finish()
    any_world.run(6)
    assert any_world.status(instance_id) is Status.CANCELLED
    assert (first.engine.running, second.engine.running) == (0, 0)
    check_rest(any_world, [code])


def test_a_cancel_while_it_waits_for_a_node_leaves_nothing_behind(any_world):
    lone(any_world)
    instance_id = any_world.start()
    any_world.run(4)
    any_world.cancel(instance_id)
    any_world.run(4)
    assert any_world.status(instance_id) is Status.CANCELLED
    node = helper(any_world)
    any_world.run(6)
    assert node.attempts == []
    assert any_world.store.catalogue().sessions == ()
    check_rest(any_world, [CODE])


def test_one_that_no_node_takes_in_time_is_given_up(any_world):
    async def waits(ctx, _):
        try:
            async with ctx.session("fetch", timeout=timedelta(seconds=5)):
                return "entered"
        except SessionTimeout as late:
            return [late.activities, late.timeout.total_seconds()]

    code = registry(waits)
    lone(any_world, code)
    instance_id = any_world.start()
    any_world.run(6)
    assert any_world.output(instance_id) == [["fetch"], 5.0]
    node = helper(any_world)
    any_world.run(6)
    assert node.engine.running == 0
    check_rest(any_world, [code])


def test_a_boundary_ends_it(any_world):
    async def laps(ctx, laps):
        async with ctx.session("fetch") as session:
            await session.schedule_activity("fetch")
            if laps:
                ctx.continue_as_new(laps - 1)

    code = registry(laps)
    lone(any_world, code)
    node = helper(any_world, {"fetch": lambda _: None})
    instance_id = any_world.start(state=2)
    any_world.run(25)
    assert any_world.status(instance_id) is Status.COMPLETED
    assert len(any_world.executions(instance_id)) == 3
    any_world.run(6)
    assert node.engine.running == 0
    assert any_world.store.taken(node.node_id) == []
    check_rest(any_world, [code])


def test_a_terminated_instance_leaves_its_node_no_session(any_world):
    lone(any_world)
    node = helper(any_world, options=EngineOptions(sessions=1))
    first = any_world.start()
    any_world.run(6)
    any_world.terminate(first)
    second = any_world.start()
    any_world.run(5)
    assert node.the_running().key.instance_id == second
    check_rest(any_world, [CODE])


def test_an_operators_hold_and_its_release_go_on_in_the_session(any_world):
    lone(any_world)
    node = helper(any_world)
    instance_id = any_world.start()
    any_world.run(6)
    any_world.store.commit([Suspend(instance_id, "ops", "a look")])
    any_world.run(6)
    assert node.running == {}
    any_world.store.commit([Resume(instance_id, "ops")])
    any_world.run(6)
    node.finish(value="path")
    any_world.run(6)
    node.finish(value="built")
    any_world.run(6)
    assert any_world.output(instance_id) == [node.node_id, "built"]
    check_rest(any_world, [CODE])


# --- how it is lost ---------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fetch", "build"])
def test_what_runs_on_a_node_that_dies_is_lost_and_runs_nowhere_else(any_world, step):
    lone(any_world)
    node = helper(any_world)
    instance_id = any_world.start()
    any_world.run(6)
    if step == "build":
        node.finish(value="path")
        any_world.run(6)
    assert node.the_running().name == step
    other = helper(any_world)
    node.crash()
    any_world.run(25)
    assert any_world.output(instance_id) == ["lost", step, node.node_id]
    assert other.attempts == []
    check_rest(any_world, [CODE])


def test_the_death_of_the_node_that_owns_its_instance_loses_it(any_world):
    node = any_world.node(CODE, BOTH)
    instance_id = any_world.start()
    any_world.run(6)
    node.finish(value="path")
    any_world.run(1)
    node.crash()
    heir = any_world.node(CODE, BOTH)
    any_world.run(25)
    assert any_world.output(instance_id) == ["lost", "build", node.node_id]
    assert heir.attempts == []
    check_rest(any_world, [CODE])


def test_what_its_node_has_not_taken_is_lost_with_it(any_world):
    async def late(ctx, _):
        async with ctx.session("fetch") as session:
            await ctx.wait_for_event("go")
            try:
                await session.schedule_activity("fetch")
            except SessionLost:
                try:
                    session.schedule_activity("fetch")
                except SessionLost:
                    return "lost at once"

    code = registry(late)
    lone(any_world, code)
    node = helper(any_world, {"fetch": HOLD})
    instance_id = any_world.start()
    any_world.run(6)
    node.crash()
    any_world.send(instance_id)
    any_world.run(1)
    activities = any_world.record(instance_id).activities
    assert [row.route for row in activities if row.owner is None] == [
        Route(node_queue(node.node_id), "fetch")
    ]
    other = helper(any_world, {"fetch": HOLD})
    any_world.run(25)
    assert any_world.output(instance_id) == "lost at once"
    assert other.attempts == []
    check_rest(any_world, [code])


def test_an_instance_that_waits_in_a_lost_session_learns_of_it_at_its_next_call(any_world):
    async def idle(ctx, _):
        async with ctx.session("fetch") as session:
            await ctx.wait_for_event("go")
            try:
                session.schedule_activity("fetch")
            except SessionLost as lost:
                return [lost.activity, lost.node_id]

    code = registry(idle)
    lone(any_world, code)
    node = helper(any_world, {"fetch": HOLD})
    instance_id = any_world.start()
    any_world.run(6)
    node.crash()
    any_world.run(25)
    any_world.send(instance_id)
    any_world.run(4)
    assert any_world.output(instance_id) == ["fetch", node.node_id]
    check_rest(any_world, [code])


def test_a_new_session_does_the_work_again_elsewhere(any_world):
    async def again(ctx, _):
        lost = 0
        while True:
            try:
                async with ctx.session(FETCH, BUILD) as session:
                    path = await session.schedule_activity(FETCH)
                    return [lost, session.node_id, await session.schedule_activity(BUILD, path)]
            except SessionLost:
                lost += 1

    code = registry(again)
    lone(any_world, code)
    node = helper(any_world)
    instance_id = any_world.start()
    any_world.run(6)
    node.crash()
    other = helper(any_world, {"fetch": lambda _: "path", "build": lambda _: "built"})
    any_world.run(25)
    assert any_world.output(instance_id) == [1, other.node_id, "built"]
    check_rest(any_world, [code])


def test_an_entered_session_whose_node_dies_before_its_instance_learns_it_is_lost(any_world):
    owner, node = lone(any_world), helper(any_world)
    instance_id = any_world.start()
    while not any_world.store.catalogue().sessions:
        owner.cycle_once()
        any_world.clock.skip(0.1)
    any_world.clock.skip(2)
    for _ in range(4):
        node.cycle_once()
    node.crash()
    any_world.run(30)
    assert any_world.output(instance_id) == ["lost", "fetch", node.node_id]
    check_rest(any_world, [CODE])


# --- deploys ----------------------------------------------------------------------------------


def test_a_node_that_stops_takes_no_session_and_what_is_scheduled_in_its_own_still_comes(any_world):
    lone(any_world)
    node = helper(any_world)
    first = any_world.start()
    any_world.run(6)
    node.engine.stop_claiming()
    second = any_world.start()
    any_world.run(5)
    assert node.the_running().key.instance_id == first
    node.finish(value="path")
    any_world.run(6)
    assert node.the_running().name == "build"
    node.finish(value="built")
    any_world.run(6)
    assert any_world.output(first) == [node.node_id, "built"]
    assert len(node.attempts) == 2, "the new one waits"
    assert any_world.store.catalogue().sessions != ()
    other = helper(any_world)
    any_world.run(6)
    assert other.the_running().key.instance_id == second


def test_a_node_that_stops_takes_no_session_of_its_own_instances_either(any_world):
    async def later(ctx, _):
        await ctx.schedule_activity(FETCH)
        async with ctx.session(BUILD) as session:
            return [session.node_id, await session.schedule_activity(BUILD)]

    code = registry(later)
    node = any_world.node(code, BOTH)
    instance_id = any_world.start()
    any_world.run(2)
    node.engine.stop_claiming()
    node.finish(value="path")
    any_world.run(4)
    assert any_world.record(instance_id).row.owner is None, "it waits in the store"
    lone(any_world, code)
    other = helper(any_world)
    any_world.run(8)
    other.finish(value="built")
    any_world.run(6)
    assert any_world.output(instance_id) == [other.node_id, "built"]
    assert [run.name for run in node.attempts] == ["fetch"]
    check_rest(any_world, [code])


@pytest.mark.parametrize("is_owner", [True, False])
def test_what_is_left_of_a_session_when_its_node_leaves_is_lost(any_world, is_owner):
    if is_owner:
        node = any_world.node(CODE, BOTH)
    else:
        lone(any_world)
        node = helper(any_world)
    instance_id = any_world.start()
    any_world.run(6)
    assert node.the_running().name == "fetch"
    other = any_world.node(CODE, BOTH)
    any_world.run(4)
    node.stop()
    any_world.run(4)  # long before a lease
    assert any_world.output(instance_id) == ["lost", "fetch", node.node_id]
    assert other.attempts == []
    check_rest(any_world, [CODE])


def test_the_shell_hears_how_many_sessions_are_open(any_world):
    node = any_world.node(CODE, BOTH)
    heard = []
    take = node.take

    def listens(messages):
        heard.extend(one.count for one in messages if isinstance(one, SessionsOpen))
        take(messages)

    node.take = listens
    any_world.start()
    any_world.run(1)
    assert heard == [1]
    node.finish(value="path")
    any_world.run(1)
    node.finish(value="built")
    any_world.run(1)
    assert heard == [1, 0]


def test_a_buried_node_that_lives_on_begins_without_sessions(any_world):
    lone(any_world)
    node = helper(any_world)
    instance_id = any_world.start()
    any_world.run(6)
    run = node.the_running()
    before = node.node_id
    (row,) = [one for one in any_world.store.catalogue().nodes if one.record.node_id == before]
    any_world.store.bury(before, row.renewals)
    any_world.run(30)
    assert node.node_id != before
    assert run.key in node.aborted
    assert any_world.output(instance_id) == ["lost", "fetch", before]
    check_rest(any_world, [CODE])


# --- lost replies -----------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["lost before", "lost after"])
@pytest.mark.parametrize("which", ["owner", "helper"])
def test_a_lost_reply_loses_no_session_and_enters_none_twice(any_world, which, fate):
    """Each commit of either node is tried in turn."""
    for commit in range(6):
        owner = lone(any_world)
        node = helper(any_world, {"fetch": lambda _: "path", "build": lambda _: "built"})
        (owner if which == "owner" else node).store.replies.extend([*[None] * commit, fate])
        instance_id = any_world.start()
        any_world.run(40)
        assert any_world.output(instance_id) == [node.node_id, "built"]
        assert node.engine.running == 0
        check_rest(any_world, [CODE])
        node.stop()
        owner.stop()
