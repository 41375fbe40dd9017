"""Lost replies, refused writes and messages that arrive in between (rules 1, 3, 4, 7 to 10, 13)."""

from __future__ import annotations

from itertools import product

import pytest

from orchestra.activities import Activity
from orchestra.codec import encode
from orchestra.engine.messages import ActivityEnded
from orchestra.errors import OutcomeUnknown, StoreBusy, StoreError, StoreUnavailable
from orchestra.retry import RetryPolicy
from orchestra.store.changes import Append, Cancel, Claim, Recover, Release, Write
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Appended, Granted, Started, StartExists
from tests.support.harness import HOLD, check_instance, check_rest, registry

LOST = pytest.mark.parametrize("lost", ["lost before", "lost after"])


async def works(ctx, left):
    value = await ctx.schedule_activity("work", left)
    if left:
        ctx.continue_as_new(left - 1)
    return value


async def listens(ctx, _):
    return [await ctx.wait_for_event("go") for _ in range(2)]


async def races(ctx, _):
    await ctx.race(ctx.schedule_activity("work"), ctx.wait_for_event("go"))
    await ctx.schedule_activity("then")
    return "done"


@LOST
def test_a_write_whose_reply_is_lost_has_exactly_one_effect(any_world, lost):
    """Scenario 39."""
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=0)
    any_world.run(1)
    node.store.replies.append(lost)
    node.finish(value="result")
    any_world.run(1)
    assert len(node.store.recoveries) == 1, "it is found out by a write (rule 9)"
    assert len(node.attempts) == 1, "a result that was reported is not asked for again"
    assert any_world.output(instance_id) == "result"
    check_rest(any_world, [node.registry])


@pytest.mark.parametrize("how", ["loses", "returns", "moves"])
def test_steps_go_with_their_activity_whatever_becomes_of_the_writes(world, how):
    """The write that stores the first step makes the row, so no write is missing after it (I9)."""
    faults = [None, "lost before", "lost after", StoreUnavailable("away")]
    node = world.node(registry(races), {"work": HOLD, "then": HOLD})
    for first, second in product(faults, faults):
        instance_id = world.start()
        world.run(1)
        node.store.replies.append(first)
        node.step("one")
        if how == "returns":  # in the same group
            node.finish()
        elif how == "moves":
            node.cycle_once()
            node.crash()
            node = world.node(node.registry, node.activities)
            world.run(60)
        else:
            node.cycle_once()
        node.store.replies.append(second)
        world.send(instance_id)
        world.run(60)
        assert world.directory.streams(instance_id) == []
        assert world.record(instance_id).activities == ()
        node.finish(node.the_running("then"))
        world.run(60)
        assert world.output(instance_id) == "done"
    check_rest(world, [node.registry])


@LOST
def test_a_lap_whose_reply_is_lost_is_made_once(any_world, lost):
    """Scenario 39."""
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=2)
    any_world.run(1)
    node.store.replies.append(lost)
    node.finish()
    any_world.run(1)
    assert node.the_running().key.execution == 2
    while any_world.status(instance_id) is Status.OPEN:
        node.finish(value=7)
        any_world.run(1)
    assert len(any_world.executions(instance_id)) == 3
    check_rest(any_world, [node.registry])


@LOST
def test_recovering_may_lose_its_reply_too(any_world, lost):
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=0)
    any_world.run(1)
    node.store.replies.extend(["lost after", lost, lost])
    node.finish(value="result")
    any_world.run(1)
    assert any_world.output(instance_id) == "result"
    assert not node.engine._unknown
    check_rest(any_world, [node.registry])


@LOST
def test_a_park_whose_reply_is_lost_leaves_nothing_owned(any_world, lost):
    node = any_world.node(registry(listens))
    instance_id = any_world.start()
    node.cycle_once()
    node.store.replies.append(lost)
    any_world.run(1)
    assert any_world.record(instance_id).row.owner is None
    assert node.engine.owned == 0
    for number in range(2):
        any_world.send(instance_id, value=number)
    any_world.run(1.1)
    assert any_world.output(instance_id) == [0, 1]
    check_rest(any_world, [node.registry])


@LOST
def test_the_reply_to_a_start_append_and_cancel_may_be_lost(any_world, lost):
    """Scenario 39."""
    node = any_world.node(registry(listens))
    any_world.run(1)
    node.store.replies.append(lost)
    start = any_world.start_change()
    token = node.submit(start)
    node.run_until_idle()
    assert node.replies[token] == (Started() if lost == "lost before" else StartExists(same=True))
    node.store.replies.append(lost)
    token = node.submit(any_world.append_change(start.instance_id, value="x"))
    node.run_until_idle()
    assert isinstance(node.replies[token], Appended)
    assert any_world.record(start.instance_id).row.inbox_seq == 1
    assert any_world.kinds(start.instance_id).count("EVENT_RECEIVED") == 1
    node.store.replies.append(lost)
    token = node.submit(Cancel(start.instance_id, "enough"))
    node.run_until_idle()
    assert any_world.status(start.instance_id) is Status.CANCELLED
    assert token in node.replies
    check_rest(any_world, [node.registry])


def test_a_client_is_told_that_nobody_knows_where_asking_again_fails_too(any_world):
    """The first attempt was committed; a plain "the store is away, nothing was written" would be a lie
    (I1).
    """
    node = any_world.node(registry(listens))
    instance_id = any_world.start()
    any_world.run(1)
    node.store.replies.extend(["lost after", StoreUnavailable("away")])
    token = node.submit(any_world.append_change(instance_id, value="x"))
    any_world.run(1)
    assert isinstance(node.replies[token], OutcomeUnknown)
    assert any_world.record(instance_id).row.inbox_seq == 1


def test_a_client_is_told_that_nobody_knows_where_no_reply_ever_comes(any_world):
    """Scenario 39."""
    node = any_world.node(registry(listens))
    instance_id = any_world.start()
    any_world.run(1)
    node.store.replies.extend(["lost before"] * 6)
    token = node.submit(any_world.append_change(instance_id))
    any_world.run(1)
    assert isinstance(node.replies[token], OutcomeUnknown)


def test_a_client_whose_change_the_store_refuses_for_good_is_told_and_others_are_not_harmed(world):
    node = world.node(registry(listens))
    instance_id = world.start()
    world.run(1)
    node.store.poisonous = lambda change: isinstance(change, Append) and change.name == "bad"
    tokens = [
        node.submit(world.append_change(instance_id, name, 1)) for name in ("go", "bad", "go")
    ]
    node.run_until_idle()
    assert [type(node.replies[token]) for token in tokens] == [Appended, StoreError, Appended]
    assert world.output(instance_id) == [1, 1]


@LOST
def test_a_claim_whose_reply_is_lost_forgets_nothing(any_world, lost):
    """What it took is owned by this node and not in memory: the ownership check adopts it (rule 13)."""
    node = any_world.node(registry(works), {"work": HOLD})
    ids = [any_world.start(state=0) for _ in range(3)]
    node.store.replies.append(lost)
    any_world.run(0.5)
    assert len(node.running) == 3
    for run in list(node.running.values()):
        node.finish(run, 1)
    any_world.run(1)
    assert {any_world.status(one) for one in ids} == {Status.COMPLETED}
    check_rest(any_world, [node.registry])


@LOST
def test_a_release_of_a_hold_whose_reply_is_lost_is_found_out(world, lost):
    async def order(ctx, _):
        await ctx.schedule_activity("other")

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
    fixed.store.replies.append(lost)
    fixed.cycle.begin()
    world.run(25)
    assert not world.record(instance_id).held
    world.send(instance_id)
    world.run(2)
    assert world.status(instance_id) is Status.COMPLETED


def test_an_activity_that_a_lost_write_had_cancelled_is_aborted_once_the_row_shows_it(world):
    node = world.node(registry(races), {"work": HOLD, "then": HOLD})
    instance_id = world.start()
    world.run(1)
    losing = node.the_running("work")
    world.send(instance_id)
    node.store.replies.append("lost after")
    world.run(1.1)
    assert losing.key in node.aborted
    node.received.append(
        ActivityEnded(losing.key, losing.attempt, encode("late", subject="result"))
    )
    world.run(1)
    assert not node.engine._activities.has_postponed
    assert not node.engine._activities.unrecorded, "its end is kept for ever"
    node.finish(node.the_running("then"))
    world.run(1)
    assert world.output(instance_id) == "done"
    check_rest(world, [node.registry])


def test_an_activity_of_an_execution_that_a_lost_write_had_closed_is_aborted(world):
    async def boundary(ctx, left):
        await ctx.race(ctx.schedule_activity("work"), ctx.wait_for_event("go"))
        if left:
            ctx.continue_as_new(left - 1)

    node = world.node(registry(boundary), {"work": HOLD})
    instance_id = world.start(state=1)
    world.run(1)
    losing = node.the_running()
    world.send(instance_id)
    node.store.replies.append("lost after")
    world.run(1.1)
    assert losing.key in node.aborted
    assert node.the_running().key.execution == 2


def test_a_result_that_comes_while_the_row_is_asked_for_is_kept(world):
    async def two(ctx, _):
        return await ctx.gather(ctx.schedule_activity("a"), ctx.schedule_activity("b"))

    node = world.node(registry(two), {"a": HOLD, "b": HOLD})
    instance_id = world.start()
    world.run(1)
    node.store.replies.append("lost after")
    node.finish(node.the_running("a"), "a")
    node.cycle_once()
    node.finish(node.the_running("b"), "b")
    world.run(1)
    assert len(node.attempts) == 2, "an activity ran again whose result was there"
    assert world.output(instance_id) == ["a", "b"]


def test_a_refused_write_drops_the_instance_and_aborts_its_activities(any_world):
    async def two(ctx, _):
        return await ctx.gather(ctx.schedule_activity("a"), ctx.schedule_activity("b"))

    node = any_world.node(registry(two), {"a": HOLD, "b": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    loser = node.the_running("b").key
    node.finish(node.the_running("a"), 1)
    node.store.before_commit = lambda: any_world.terminate(instance_id)
    node.run_until_idle()
    assert node.aborted == [loser]
    assert node.engine.owned == node.engine.running == 0
    assert any_world.kinds(instance_id)[-1] == "EXECUTION_TERMINATED"
    assert "ACTIVITY_COMPLETED" not in any_world.kinds(instance_id)


def test_a_stale_write_of_the_same_node_is_refused_by_the_revision(any_world):
    """Rule 1: the owner is right, the revision is old."""
    node = any_world.node(registry(listens))
    instance_id = any_world.start()
    any_world.run(1)
    (stale,) = node.store.writes
    any_world.send(instance_id)
    node.engine.look()
    node.run_until_idle()
    before = any_world.record(instance_id).row
    outcome = any_world.store.commit([stale]).outcomes[0]
    assert not isinstance(outcome, Granted)
    assert any_world.record(instance_id).row == before


@pytest.mark.parametrize("through", ["another node", "the same node"])
def test_a_message_between_a_turn_and_its_park_is_not_lost(any_world, through):
    node = any_world.node(registry(listens))
    instance_id = any_world.start()
    node.cycle_once()  # claims
    if through == "another node":
        node.store.before_commit = lambda: any_world.send(instance_id, value="early")
    else:
        node.submit(
            any_world.append_change(instance_id, value="early")
        )  # in the very group of the park
    node.cycle_once()  # parks
    assert len(node.store.groups[-1]) >= 1
    node.run_until_idle()
    assert any_world.kinds(instance_id).count("EVENT_RECEIVED") == 1
    any_world.send(instance_id, value="late")
    any_world.run(1.1)
    assert any_world.output(instance_id) == ["early", "late"]
    check_rest(any_world, [node.registry])


def test_a_message_that_meets_a_step_of_an_instance_that_stays_owned_is_delivered(any_world):
    async def both(ctx, _):
        return await ctx.gather(ctx.schedule_activity("work"), ctx.wait_for_event("go"))

    node = any_world.node(registry(both), {"work": HOLD})
    instance_id = any_world.start()
    node.cycle_once()
    node.store.before_commit = lambda: any_world.send(instance_id, value="x")
    node.cycle_once()
    node.run_until_idle()
    assert any_world.kinds(instance_id)[-1] == "EVENT_RECEIVED"
    assert node.engine.owned == 1
    node.finish(value=1)
    node.run_until_idle()
    assert any_world.output(instance_id) == [1, "x"]


def test_a_message_that_races_with_the_boundary_is_delivered_once_in_one_of_the_executions(
    any_world,
):
    """Scenario 14."""

    async def one_each(ctx, got):
        got = [*got, await ctx.wait_for_event("go")]
        if len(got) < 3:
            ctx.continue_as_new(got)
        return got

    node = any_world.node(registry(one_each))
    instance_id = any_world.start(state=[])
    any_world.run(1)
    any_world.send(instance_id, value=1)
    node.store.before_commit = lambda: any_world.send(instance_id, value=2)
    any_world.run(1.1)
    any_world.send(instance_id, value=3)
    any_world.run(1.1)
    assert any_world.output(instance_id) == [1, 2, 3]
    check_rest(any_world, [node.registry])


def test_other_clients_messages_in_between_are_fetched_and_order_is_kept(any_world):
    async def many(ctx, _):
        work = ctx.schedule_activity("work")
        got = [await ctx.wait_for_event("go") for _ in range(4)]
        await work
        return got

    node = any_world.node(registry(many), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    any_world.send(instance_id, value=1)
    any_world.send(instance_id, value=2)
    node.submit(
        any_world.append_change(instance_id, value=3)
    )  # the node learns 3 before it has heard of 1 and 2
    node.submit(any_world.append_change(instance_id, value=4))
    node.run_until_idle()
    node.finish()
    node.run_until_idle()
    assert any_world.output(instance_id) == [1, 2, 3, 4]
    check_rest(any_world, [node.registry])


def test_the_same_message_twice_is_delivered_once(any_world):
    any_world.node(registry(listens))
    instance_id = any_world.start()
    any_world.run(1)
    for value in ("one", "one", "two"):
        any_world.send(instance_id, value=value, message_id=value)
        any_world.run(1.1)
    assert any_world.output(instance_id) == ["one", "two"]


def test_a_late_completion_of_an_older_execution_is_ignored(any_world):
    """Scenario 13."""

    async def boundary(ctx, left):
        await ctx.race(ctx.schedule_activity("work"), ctx.wait_for_event("go"))
        if left:
            ctx.continue_as_new(left - 1)
        return "done"

    node = any_world.node(registry(boundary), {"work": HOLD})
    instance_id = any_world.start(state=1)
    any_world.run(1)
    old = node.the_running()
    any_world.send(instance_id)
    any_world.run(1.1)
    node.received.append(ActivityEnded(old.key, 1, encode("late", subject="result")))
    any_world.run(1)
    assert any_world.kinds(instance_id) == [
        "EXECUTION_STARTED",
        "ACTIVITY_SCHEDULED",
        "EVENT_AWAITED",
    ]
    node.finish(value="in time")
    any_world.run(1)
    assert any_world.output(instance_id) == "done"
    check_rest(any_world, [node.registry])


def test_a_completion_that_is_reported_twice_counts_once(any_world):
    async def three(ctx, _):
        return [await ctx.schedule_activity("work") for _ in range(3)]

    node = any_world.node(registry(three), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    run = node.the_running()
    node.finish(run, 1)
    node.received.append(node.received[0])
    any_world.run(1)
    node.received.append(ActivityEnded(run.key, 1, encode(5, subject="result")))
    any_world.run(1)
    assert any_world.kinds(instance_id).count("ACTIVITY_COMPLETED") == 1
    check_rest(any_world, [node.registry])


def test_a_group_that_fails_in_its_second_half_is_asked_for_and_nothing_is_done_twice(world):
    node = world.node(registry(works), {"work": HOLD})
    ids = [world.start(state=0) for _ in range(4)]
    world.run(1)
    for run in list(node.running.values()):
        node.finish(run, run.key.instance_id)
    node.store.replies.extend(["odd", None, StoreBusy("busy")])
    world.run(1)
    for run in list(node.running.values()):
        node.finish(run, run.key.instance_id)
    world.run(1)
    assert [world.output(one) for one in ids] == ids
    check_rest(world, [node.registry])


def test_a_stale_poison_is_not_held_against_an_instance_that_went_its_way(world):
    """The write was poisonous, but by the time the row was asked for, an operator had taken it."""
    node = world.node(registry(works), {"work": HOLD})
    instance_id = world.start(state=0)
    world.run(1)
    node.store.poisonous = lambda change: isinstance(change, Write) and bool(change.executions)
    node.finish(value="bad")
    node.cycle_once()
    node.store.poisonous = lambda change: False
    world.admin.set_pin(instance_id, "1.0.0", by="operator", reason="")
    world.run(2)
    assert not world.record(instance_id).held
    node.finish(value="good")
    world.run(1)
    assert world.output(instance_id) == "good"
    check_instance(world, instance_id, [node.registry])


def test_kinds_of_changes_in_this_module_are_what_the_store_takes(world):
    """Guards the harness: a counter that counts nothing would make the tests above pass."""
    node = world.node(registry(works), {"work": HOLD})
    world.start(state=0)
    world.run(1)
    node.store.replies.append("lost after")
    node.finish()
    world.run(1)
    assert {type(change) for change in node.store.changes} >= {Claim, Write, Recover}
    assert Release not in {type(change) for change in node.store.changes}


@LOST
def test_a_failed_try_whose_reply_is_lost_counts_once(any_world, lost):
    async def attempts(ctx, _):
        return await ctx.schedule_activity(
            Activity.named("work", retry=RetryPolicy(max_attempts=2, jitter=0))
        )

    node = any_world.node(registry(attempts), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    node.store.replies.append(lost)
    node.fail()
    any_world.run(5)
    assert [run.attempt for run in node.attempts] == [1, 2]
    node.fail()
    any_world.run(1)
    assert any_world.status(instance_id) is Status.FAILED
    check_rest(any_world, [node.registry])


def test_an_instance_that_ends_between_its_claim_and_the_reading_of_its_history_is_let_go(
    any_world, caplog
):
    async def waits(ctx, _):
        await ctx.wait_for_event("never")

    first = any_world.node(registry(waits))
    instance_id = any_world.start()
    any_world.run(1)
    first.stop()
    second = any_world.node(registry(waits))
    second.store.before_history = lambda: any_world.terminate(instance_id)
    any_world.send(instance_id)
    any_world.run(2)
    assert any_world.status(instance_id) is Status.TERMINATED
    assert not len(second.engine._run_queue)
    assert not caplog.records
    check_rest(any_world, [second.registry])


def test_a_revision_that_was_raised_in_the_owners_name_costs_neither_the_result_nor_another_try(
    any_world,
):
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=0)
    any_world.run(1)
    any_world.store.commit(
        [Recover(instance_id, node.node_id)]
    )  # as a terminate does that is given up half way
    node.finish(value="result")
    any_world.run(1)
    assert any_world.output(instance_id) == "result"
    assert len(node.attempts) == 1
    check_rest(any_world, [node.registry])
