"""Activities that go through the store to other nodes: those that this one lacks, has no place for,
or that have a queue.
"""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from orchestra.activities import Activity
from orchestra.errors import ActivityFailed, StoreUnavailable
from orchestra.retry import NonRetryable, RetryPolicy
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Refused
from orchestra.store.routes import Route
from tests.support.harness import HOLD, check_rest, registry

QUICK = RetryPolicy(max_attempts=3, initial_interval=timedelta(seconds=1), jitter=0)
ONCE = RetryPolicy(max_attempts=1)


def asking(retry=QUICK, queue=None, name="work"):
    work = Activity.named(name, retry=retry, queue=queue)

    async def asks(ctx, state):
        try:
            return await ctx.schedule_activity(work, state)
        except ActivityFailed as failed:
            return [
                failed.reason,
                [attempt.number for attempt in failed.attempts],
                failed.cause.type,
            ]

    return registry(asks)


async def fans_out(ctx, count):
    work = Activity.named("work", retry=QUICK)
    return await ctx.gather(*(ctx.schedule_activity(work, number) for number in range(count)))


async def races(ctx, _):
    first = await ctx.race(ctx.schedule_activity("work"), ctx.wait_for_event("go"))
    await ctx.schedule_timer(timedelta(seconds=100))
    return first.index


def lone(world, code, **options):
    """Return a node that runs orchestrations, and has no activity."""
    return world.node(code, **options)


def helper(world, script=HOLD, name="work", **options):
    """Return a node that runs activities, and no orchestration that matters."""

    async def other(ctx, _): ...

    return world.node(registry("other", v1_0_0=other), {name: script}, **options)


# --- plain names ------------------------------------------------------------------------------


def test_a_plain_name_has_the_options_of_the_activity_that_the_node_has(any_world):
    async def asks(ctx, _):
        return await ctx.schedule_activity("work", 1, unit="s")

    code = registry(asks)
    known = Activity.named(
        "work",
        int,
        retry=QUICK,
        timeout=timedelta(seconds=2),
        heartbeat_timeout=timedelta(seconds=1),
        queue="gpu",
    )
    node = any_world.node(
        code, {"work": HOLD}, queues=("default", "gpu"), registered={"work": known}
    )
    instance_id = any_world.start()
    any_world.run(1)
    scheduled = any_world.events(instance_id)[1]
    assert (scheduled.retry, scheduled.timeout, scheduled.heartbeat_timeout, scheduled.queue) == (
        QUICK,
        2_000_000,
        1_000_000,
        "gpu",
    )
    run = node.the_running()
    assert (run.timeout, run.heartbeat_timeout) == (2_000_000, 1_000_000)
    for attempt in range(2, 4):
        node.fail()
        any_world.run(3)
        assert node.the_running().attempt == attempt
    node.finish(value="no int")
    any_world.run(1)
    assert any_world.output(instance_id) == "no int", "a name says nothing of its result"
    check_rest(any_world, [code])


def test_a_call_by_name_goes_by_history_whatever_is_registered_where_it_is_repeated(any_world):
    async def asks(ctx, _):
        return [
            await ctx.schedule_activity("work", unit="s"),
            await ctx.schedule_activity("work", unit="s"),
        ]

    code = registry(asks)
    first = any_world.node(code, {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    first.finish(value="first")
    any_world.run(1)
    first.crash()
    known = Activity.named("work", retry=ONCE, timeout=timedelta(seconds=9), queue="gpu")
    second = any_world.node(code, {"work": HOLD}, registered={"work": known})
    any_world.run(13)
    run = second.the_running()
    assert (run.attempt, run.timeout) == (2, None), (
        "as it was asked for: three attempts, no bound, the instance's queue"
    )
    second.crash()
    any_world.node(code, {"work": lambda run: "third"})
    any_world.run(30)
    assert any_world.output(instance_id) == ["first", "third"]
    check_rest(any_world, [code])


# --- to whom it goes --------------------------------------------------------------------------


def test_what_its_node_does_not_have_runs_where_it_is(any_world):
    code = asking()
    owner, able = lone(any_world, code), helper(any_world)
    instance_id = any_world.start(state="x")
    any_world.run(2)
    run = able.the_running()
    assert (run.name, run.attempt, run.orchestration, run.version) == (
        "work",
        1,
        "job",
        "1.0.0",
    )
    assert run.key.instance_id == instance_id
    (row,) = any_world.record(instance_id).activities
    assert (row.route, row.owner) == (Route("default", "work"), able.node_id)
    assert any_world.record(instance_id).row.owner is None, (
        "its instance waits, and belongs to nobody"
    )
    able.finish(run, "done")
    any_world.run(2)
    assert any_world.output(instance_id) == "done"
    assert owner.attempts == []
    check_rest(any_world, [code])


def test_what_its_node_has_and_has_a_place_for_never_touches_the_store(any_world):
    code = asking()
    owner = any_world.node(code, {"work": lambda run: "done"})
    helper(any_world)
    instance_id = any_world.start()
    any_world.run(1)
    assert any_world.output(instance_id) == "done"
    assert all(not write.activities for write in owner.store.writes)


def test_what_finds_no_place_goes_to_who_has_one(any_world):
    code = registry(fans_out)
    owner = any_world.node(code, {"work": HOLD}, slots=2)
    able = helper(any_world, slots=3)
    any_world.run(2)
    instance_id = any_world.start(state=9)
    any_world.run(3)
    assert (len(owner.running), len(able.running)) == (2, 3)
    for _ in range(5):
        for node in (owner, able):
            for run in list(node.running.values()):
                node.finish(run, run.key.event_id)
        any_world.run(2)
        assert len(owner.running) <= 2
        assert len(able.running) <= 3
    assert sorted(any_world.output(instance_id)) == list(range(2, 11))
    assert len(owner.attempts) + len(able.attempts) == 9
    assert len(able.attempts) >= 3
    check_rest(any_world, [code])


def test_what_nobody_else_has_waits_for_a_place_here(any_world):
    owner = any_world.node(registry(fans_out), {"work": HOLD}, slots=2)
    lone(any_world, registry(fans_out))
    instance_id = any_world.start(state=5)
    any_world.run(2)
    assert len(owner.attempts) == 5, "the shell lets them wait"
    assert any_world.record(instance_id).activities == ()


def test_the_load_of_a_node_is_what_runs_and_not_what_waits_for_a_place(any_world):
    owner = any_world.node(registry(fans_out), {"work": HOLD}, slots=2)
    any_world.start(state=5)
    any_world.run(12)
    assert owner.engine.running == 5
    assert [node.load for node in any_world.directory.catalogue().nodes] == [2]
    for _ in range(4):
        owner.finish(next(iter(owner.running.values())), "done")
    any_world.run(12)
    assert [node.load for node in any_world.directory.catalogue().nodes] == [1]


def test_a_node_takes_up_its_own_once_it_has_a_place(any_world):
    """Handed out to a node that has died since: whoever has a place takes it, the owner of the
    instance too.
    """
    code = registry(fans_out)
    owner = any_world.node(code, {"work": HOLD}, slots=1)
    able = helper(any_world, slots=1)
    any_world.run(2)
    instance_id = any_world.start(state=3)
    any_world.run(2)
    able.stop()
    for _ in range(3):
        owner.finish(value="done")
        any_world.run(3)
    assert any_world.output(instance_id) == ["done"] * 3
    check_rest(any_world, [code])


def test_a_queue_goes_to_those_who_serve_it(any_world):
    code = asking(queue="gpu")
    owner = any_world.node(code, {"work": HOLD})
    elsewhere = helper(any_world, queues=("default", "cpu"))
    instance_id = any_world.start()
    any_world.run(20)
    assert (owner.attempts, elsewhere.attempts) == ([], [])
    serving = helper(any_world, queues=("gpu",))
    any_world.run(2)
    serving.finish(value="rendered")
    any_world.run(2)
    assert any_world.output(instance_id) == "rendered"
    check_rest(any_world, [code])


def test_an_orchestration_runs_where_its_queue_is_served_and_so_do_its_activities(any_world):
    code = asking()
    bystander = any_world.node(code, {"work": HOLD})
    instance_id = any_world.start(queue="eu")
    any_world.run(5)
    assert any_world.record(instance_id).row.owner is None
    serving = any_world.node(code, {"work": HOLD}, queues=("eu",))
    any_world.run(2)
    serving.finish(value=1)
    any_world.run(1)
    assert any_world.output(instance_id) == 1
    assert bystander.attempts == []


def test_versions_are_resolved_among_those_who_serve_the_queue(any_world):
    """A newer version that no node of the queue has must not strand its instances."""

    async def lap(ctx, count):
        await ctx.schedule_timer(timedelta(seconds=1))
        if count:
            ctx.continue_as_new(count - 1)

    any_world.node(registry(v1_0_0=lap, v1_1_0=lap))
    any_world.node(registry(v1_0_0=lap), queues=("eu",))
    there, here = any_world.start(state=2, queue="eu"), any_world.start(state=2)
    any_world.run(10)
    assert any_world.versions(there) == ["1.0.0"] * 3
    assert any_world.versions(here) == ["1.1.0"] * 3


def test_a_child_runs_in_its_parent_s_queue_or_as_told(any_world):
    async def parent(ctx, _):
        first = ctx.start_child("child", 1, instance_id="inherits")
        second = ctx.start_child("child", 1, instance_id="told", queue="us")
        return await ctx.gather(first, second)

    async def child(ctx, state):
        await ctx.schedule_timer(timedelta(seconds=1))
        return state

    code = registry(parent).builder().register("job", parent).register("child", child).build()
    any_world.node(code, queues=("eu",))
    any_world.node(code, queues=("us",))
    instance_id = any_world.start(queue="eu")
    any_world.run(8)
    assert any_world.output(instance_id) == [1, 1]
    assert [any_world.record(one).row.kind.queue for one in ("inherits", "told")] == ["eu", "us"]


def test_what_nobody_has_waits_without_polling_and_is_said_once(any_world, caplog):
    code = asking()
    owner = lone(any_world, code)
    first, second = any_world.start(), any_world.start()
    with caplog.at_level(logging.WARNING):
        any_world.run(3)
    said = [
        record
        for record in caplog.records
        if "no living node has activity 'work'" in record.getMessage()
    ]
    assert len(said) == 1
    owner.store.forget()
    any_world.run(60)
    assert owner.store.writes == []
    assert {any_world.status(one) for one in (first, second)} == {Status.OPEN}
    able = helper(any_world, lambda run: "at last")
    any_world.run(3)
    assert [any_world.output(one) for one in (first, second)] == ["at last"] * 2
    assert [run.attempt for run in able.attempts] == [1, 1]


# --- how it ends ------------------------------------------------------------------------------


def test_its_failures_are_tried_again_by_the_policy(any_world):
    code = asking()
    lone(any_world, code)
    able = helper(any_world)
    instance_id = any_world.start()
    for number in (1, 2, 3):
        any_world.run(5)
        assert able.the_running().attempt == number
        able.fail(error=KeyError("broken"))
    any_world.run(3)
    assert any_world.output(instance_id) == ["attempts exhausted", [1, 2, 3], "KeyError"]
    check_rest(any_world, [code])


def test_an_error_that_is_not_retryable_is_not_retried(any_world):
    lone(any_world, asking())
    able = helper(any_world)
    instance_id = any_world.start()
    any_world.run(2)
    able.fail(error=NonRetryable("useless"))
    any_world.run(60)
    assert any_world.output(instance_id)[:2] == ["not retryable", [1]]


def test_the_last_heartbeat_reaches_the_next_try(any_world):
    """Scenario 27."""
    lone(any_world, asking())
    able = helper(any_world)
    any_world.start()
    any_world.run(2)
    able.beat(41)
    any_world.run(1)
    able.beat(42)
    any_world.run(1)
    able.fail()
    any_world.run(4)
    assert (able.the_running().attempt, able.the_running().last_heartbeat.data) == (2, b"42")


def test_a_heartbeat_and_the_end_that_are_told_in_one_group_both_count(any_world):
    """Rule 7: two changes of one row."""
    lone(any_world, asking())
    able = helper(any_world)
    any_world.start()
    any_world.run(2)
    able.store.forget()
    able.beat(41)
    able.fail()
    able.cycle_once()
    assert len(able.store.groups) == 1
    assert len(able.store.reports) == 2, "or this test says nothing"
    any_world.run(4)
    assert (able.the_running().attempt, able.the_running().last_heartbeat.data) == (2, b"41")


def test_a_node_that_dies_with_it_counts_as_an_attempt(any_world):
    """Rule 14."""
    code = asking(ONCE)
    lone(any_world, code)
    able = helper(any_world)
    instance_id = any_world.start()
    any_world.run(2)
    able.crash()
    any_world.run(30)
    assert any_world.output(instance_id) == ["attempts exhausted", [1], "orchestra.NodeLost"]
    check_rest(any_world, [code])


def test_another_node_takes_it_up_when_one_has_died(any_world):
    code = asking()
    lone(any_world, code)
    able = helper(any_world)
    instance_id = any_world.start()
    any_world.run(2)
    able.beat("half way")
    any_world.run(1)
    able.crash()
    heir = helper(any_world)
    any_world.run(25)
    assert (heir.the_running().attempt, heir.the_running().last_heartbeat.data) == (
        2,
        b'"half way"',
    )
    heir.finish(value="done")
    any_world.run(2)
    assert any_world.output(instance_id) == "done"


def test_the_death_of_the_instance_s_node_costs_the_activity_nothing(any_world):
    code = asking(ONCE)
    owner = lone(any_world, code)
    able = helper(any_world)
    instance_id = any_world.start()
    any_world.run(2)
    owner.crash()
    lone(any_world, code)
    any_world.run(15)
    assert able.the_running().attempt == 1
    able.finish(value="done")
    any_world.run(3)
    assert any_world.output(instance_id) == "done"
    check_rest(any_world, [code])


def test_a_crash_of_the_owner_counts_for_what_ran_there_and_not_for_what_ran_elsewhere(any_world):
    async def both(ctx, _):
        here = Activity.named("here", retry=QUICK)
        there = Activity.named("there", retry=ONCE)
        return await ctx.gather(ctx.schedule_activity(here), ctx.schedule_activity(there))

    code = registry(both)
    owner = any_world.node(code, {"here": HOLD})
    able = helper(any_world, name="there")
    instance_id = any_world.start()
    any_world.run(2)
    owner.crash()
    able.stop()
    heir = any_world.node(code, {"here": HOLD})
    able = helper(any_world, name="there")
    any_world.run(15)
    assert heir.the_running("here").attempt == 2
    assert able.the_running("there").attempt == 1, "a node that stops in order has tried nothing"
    heir.finish(heir.the_running("here"), 1)
    any_world.run(1)
    able.finish(able.the_running("there"), 2)
    any_world.run(3)
    assert any_world.output(instance_id) == [1, 2]
    check_rest(any_world, [code])


def test_a_node_that_stops_hands_back_what_it_has(any_world):
    lone(any_world, asking(ONCE))
    able = helper(any_world)
    instance_id = any_world.start()
    any_world.run(2)
    able.stop()
    heir = helper(any_world)
    any_world.run(2)
    assert heir.the_running().attempt == 1
    heir.finish(value="done")
    any_world.run(2)
    assert any_world.output(instance_id) == "done"


def test_a_node_that_was_buried_says_nothing_any_more(any_world):
    """I6."""
    code = asking()
    lone(any_world, code)
    able = helper(any_world)
    instance_id = any_world.start()
    any_world.run(2)
    run = able.the_running()
    any_world.nodes.remove(able)  # it is stopped beyond its lease
    any_world.run(15)
    any_world.nodes.append(able)
    able.finish(run, "too late")
    any_world.run(5)
    assert any_world.status(instance_id) is Status.OPEN
    assert able.the_running().attempt == 2, "it goes on under a new name, with a new attempt"
    able.finish(value="in time")
    any_world.run(2)
    assert any_world.output(instance_id) == "in time"
    check_rest(any_world, [code])


def test_what_lost_a_race_is_given_up_where_it_runs(any_world):
    """Scenario 23."""
    lone(any_world, registry(races))
    able = helper(any_world)
    instance_id = any_world.start()
    any_world.run(2)
    run = able.the_running()
    any_world.send(instance_id)
    any_world.run(3)
    assert any_world.record(instance_id).activities == ()
    assert able.aborted == [run.key]
    assert able.running == {}
    any_world.run(100)
    assert any_world.output(instance_id) == 1


def test_a_late_result_of_what_lost_a_race_is_dropped(any_world):
    lone(any_world, registry(races))
    able = helper(any_world)
    instance_id = any_world.start()
    any_world.run(2)
    run = able.the_running()
    any_world.send(instance_id)
    any_world.nodes[0].engine.look()
    any_world.nodes[0].run_until_idle()
    able.finish(run, "late")
    any_world.run(110)
    assert any_world.output(instance_id) == 1
    assert [
        outcome
        for group in able.store.groups
        for change, outcome in group
        if change in able.store.reports
    ] == [Refused()]


def test_terminating_the_instance_gives_up_what_runs_elsewhere(any_world):
    lone(any_world, asking())
    able = helper(any_world)
    instance_id = any_world.start()
    any_world.run(2)
    any_world.terminate(instance_id)
    any_world.run(3)
    assert able.running == {}
    check_rest(any_world, [])


# --- when the store fails ---------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["lost before", "lost after"])
def test_a_lost_reply_to_a_report_tells_it_once(any_world, fate):
    """Rule 9, scenario 39."""
    code = asking()
    lone(any_world, code)
    able = helper(any_world)
    instance_id = any_world.start()
    any_world.run(2)
    able.store.replies.append(fate)
    able.finish(value="done")
    any_world.run(12)
    assert any_world.output(instance_id) == "done"
    assert len(able.attempts) == 1
    check_rest(any_world, [code])


@pytest.mark.parametrize("fate", ["lost before", "lost after"])
def test_a_lost_reply_to_a_claim_leaves_no_activity_behind(any_world, fate):
    """Rule 13: what was taken and never told of is found at the next ownership check."""
    code = asking()
    lone(any_world, code)
    able = helper(any_world)
    instance_id = any_world.start()
    any_world.nodes[0].run_until_idle()
    able.store.replies.append(fate)
    any_world.run(25)
    assert able.the_running().attempt == 1
    able.finish(value="done")
    any_world.run(2)
    assert any_world.output(instance_id) == "done"
    check_rest(any_world, [code])


def test_a_result_that_the_store_will_never_take_fails_the_activity(any_world):
    """I12."""
    lone(any_world, asking())
    able = helper(any_world)
    instance_id = any_world.start()
    any_world.run(2)
    able.store.poisonous = lambda change: getattr(change, "result", None) is not None
    able.finish(value="indigestible")
    any_world.run(5)
    assert any_world.output(instance_id)[:2] == ["not retryable", [1]]
    assert len(able.attempts) == 1


def test_a_store_that_is_away_keeps_the_report(any_world):
    lone(any_world, asking())
    able = helper(any_world)
    instance_id = any_world.start()
    any_world.run(2)
    able.store.down = StoreUnavailable("away")
    able.finish(value="done")
    any_world.run(4)
    able.store.down = None
    any_world.run(8)
    assert any_world.output(instance_id) == "done"
    assert len(able.attempts) == 1


def test_a_node_that_does_not_know_yet_that_it_is_dead_gives_up_the_earlier_try_of_what_it_takes(
    any_world,
):
    """It lost an instance with a running activity, and takes the next attempt of that very activity
    from the new owner.
    """
    code = asking()
    stopped = any_world.node(code, {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    earlier = stopped.the_running()
    any_world.nodes.remove(stopped)
    lone(any_world, code)
    any_world.run(15)
    (row,) = any_world.record(instance_id).activities
    assert (row.route, row.attempt, row.owner) == (Route("default", "work"), 2, None)
    any_world.nodes.append(stopped)
    stopped.membership.renew = lambda load=0: (
        False
    )  # it asks for work before it asks whether it lives
    stopped.engine.look()
    stopped.cycle_once()
    assert stopped.aborted == [earlier.key]
    assert stopped.the_running().attempt == 2
    del stopped.membership.renew
    any_world.run(30)
    stopped.finish(value="done")
    any_world.run(2)
    assert any_world.output(instance_id) == "done"
    check_rest(any_world, [code])


# --- cost -------------------------------------------------------------------------------------


def test_a_node_without_places_asks_for_nothing_and_takes_the_next_when_one_is_free(any_world):
    lone(any_world, registry(fans_out))
    able = helper(any_world, slots=1)
    instance_id = any_world.start(state=3)
    any_world.run(2)
    able.store.forget()
    any_world.run(0.5)
    assert able.store.claims == []
    assert able.cycle.idle_seconds() > 0
    for _ in range(3):
        able.finish(value=1)
        any_world.run(1)
    any_world.run(2)
    assert any_world.output(instance_id) == [1, 1, 1]
