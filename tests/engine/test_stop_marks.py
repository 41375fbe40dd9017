"""A cancelled activity that was handed out ends on its node, and only then does the code go on
(scenario 59).
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestra.activities import Activity
from orchestra.engine.engine import EngineOptions
from orchestra.errors import Cancelled
from orchestra.retry import RetryPolicy
from orchestra.store.kinds import HoldKind, Status
from orchestra.store.outcomes import Claimed
from orchestra.store.tasks import LOST
from tests.support.harness import HOLD, check_rest, registry, several

MANY = RetryPolicy(max_attempts=5, initial_interval=timedelta(seconds=5), jitter=0)
WORK = {"undo": HOLD}


def saga(on_cancel=None):
    transfer, undo = (
        Activity.named("transfer", retry=MANY, on_cancel=on_cancel),
        Activity.named("undo"),
    )

    async def saga(ctx, _):
        try:
            await ctx.schedule_activity(transfer)
        except Cancelled:
            await ctx.schedule_activity(undo)
            raise

    return registry(saga)


async def broken(ctx, _):
    try:
        await ctx.schedule_activity(Activity.named("transfer", retry=MANY))
    except Cancelled:
        raise KeyError("broken") from None


async def strange(ctx, _):
    await ctx.schedule_activity("something else")


def racing(on_cancel):
    transfer = Activity.named("transfer", on_cancel=on_cancel)

    async def racing(ctx, _):
        winner = await ctx.race(ctx.schedule_activity(transfer), ctx.wait_for_event("go"))
        await ctx.schedule_activity("undo")
        return winner.index

    return registry(racing)


async def other(ctx, _): ...


def worker(world, *, obeys=False, **options):
    """Return a node that runs transfers, and no orchestration that matters."""
    node = world.node(several(other=other), {"transfer": HOLD}, **options)
    node.obeys = obeys
    return node


def begun(world, code, **options):
    """Return the nodes that decide and that work, and an instance whose transfer runs on the
    latter.
    """
    owner, able = world.node(code, WORK, **options), worker(world)
    instance_id = world.start()
    world.run(2)
    assert able.the_running("transfer").attempt == 1
    return owner, able, instance_id


def row_of(world, instance_id):
    (row,) = world.record(instance_id).activities
    return row


def undone(world, node, instance_id, status=Status.CANCELLED):
    """Let the compensation end, which runs by now, and with it the instance."""
    node.finish(node.the_running("undo"))
    world.run(1)
    assert world.status(instance_id) is status
    check_rest(world, [node.registry])


# --- an attempt that a node has taken --------------------------------------------------------------


@pytest.mark.parametrize("on_cancel", [None, "wait"])
@pytest.mark.parametrize("how", ["finish", "fail"])
def test_it_ends_on_its_node_before_the_compensation_begins(any_world, on_cancel, how):
    owner, able, instance_id = begun(any_world, saga(on_cancel))
    transfer = able.the_running()
    any_world.cancel(instance_id)
    any_world.run(60)
    assert able.asked == [transfer.key], "it is asked once"
    assert (owner.running, able.aborted, owner.aborted) == ({}, [], [])
    row = row_of(any_world, instance_id)
    assert (row.stopping, row.owner, row.has_ended) == (True, able.node_id, False)
    assert any_world.record(instance_id).row.owner is None, (
        "its instance waits, and belongs to nobody"
    )
    getattr(able, how)(transfer)
    any_world.run(2)
    undone(any_world, owner, instance_id)
    assert any_world.kinds(instance_id)[2:5] == [
        "CANCEL_REQUESTED",
        "ACTIVITY_FAILED",
        "ACTIVITY_SCHEDULED",
    ]
    assert len(able.attempts) == 1, "a failure is not tried again"


def test_its_node_hears_of_it_within_one_look_at_the_store(any_world):
    owner, able, instance_id = begun(any_world, saga())
    able.obeys = True
    any_world.cancel(instance_id)
    owner.engine.look()
    owner.run_until_idle()
    assert row_of(any_world, instance_id).stopping
    any_world.run(1)
    assert able.running == {}
    any_world.run(1)
    undone(any_world, owner, instance_id)


def test_a_heartbeat_tells_its_node_before_the_next_look(any_world):
    owner = any_world.node(saga(), WORK)
    able = worker(any_world, poll=1_000.0, lease=3_000.0)
    instance_id = any_world.start()
    any_world.run(2)
    able.engine.look()
    able.run_until_idle()
    any_world.cancel(instance_id)
    any_world.run(5)
    assert able.asked == []
    able.beat(41)
    able.run_until_idle()
    assert able.asked == [able.the_running().key]
    able.fail()
    able.run_until_idle()
    any_world.run(2)
    undone(any_world, owner, instance_id)


def test_what_is_to_be_abandoned_is_given_up_at_once(any_world):
    owner, able, instance_id = begun(any_world, saga("abandon"))
    any_world.cancel(instance_id)
    any_world.run(2)
    assert (owner.the_running().name, able.asked) == ("undo", [])
    assert able.running == {}
    undone(any_world, owner, instance_id)


@pytest.mark.parametrize("on_cancel", [None, "abandon", "wait"])
def test_the_loser_of_a_race_is_waited_for_where_that_is_asked(any_world, on_cancel):
    owner, able, instance_id = begun(any_world, racing(on_cancel))
    transfer = able.the_running()
    any_world.send(instance_id)
    any_world.run(5)
    if on_cancel == "wait":
        assert (owner.running, able.asked) == ({}, [transfer.key])
        able.finish(transfer)
        any_world.run(2)
    undone(any_world, owner, instance_id, Status.COMPLETED)
    assert any_world.output(instance_id) == 1


def test_a_branch_that_continues_as_new_leaves_once_the_other_branch_has_ended(any_world):
    """Rule 17."""
    transfer = Activity.named("transfer", on_cancel="wait")

    async def branching(ctx, lap):
        async def leave():
            await ctx.wait_for_event("go")
            ctx.continue_as_new(lap + 1)

        async def works():
            await ctx.schedule_activity(transfer)

        if lap:
            return lap
        await ctx.race(leave(), works())

    code = registry(branching)
    owner, able = any_world.node(code), worker(any_world)
    instance_id = any_world.start(state=0)
    any_world.run(2)
    any_world.send(instance_id)
    any_world.run(30)
    assert any_world.record(instance_id).row.execution == 1
    assert able.asked == [able.the_running().key]
    able.finish()
    any_world.run(2)
    assert any_world.output(instance_id) == 1
    check_rest(any_world, [owner.registry])


def test_of_several_each_ends_before_the_compensation_begins(any_world):
    transfer = Activity.named("transfer", retry=MANY)

    async def both(ctx, _):
        try:
            await ctx.gather(ctx.schedule_activity(transfer), ctx.schedule_activity(transfer))
        finally:
            await ctx.schedule_activity("undo")

    code = registry(both)
    owner = any_world.node(code, WORK)
    first, second = worker(any_world, slots=1), worker(any_world, slots=1)
    instance_id = any_world.start()
    any_world.run(2)
    any_world.cancel(instance_id)
    any_world.run(3)
    first.finish()
    any_world.run(3)
    assert owner.running == {}
    second.fail()
    any_world.run(2)
    undone(any_world, owner, instance_id)


def test_a_second_cancel_changes_nothing_and_terminate_ends_the_wait(any_world):
    _, able, instance_id = begun(any_world, saga())
    transfer = able.the_running()
    any_world.cancel(instance_id)
    any_world.run(2)
    any_world.cancel(instance_id)
    any_world.run(2)
    assert able.asked == [transfer.key]
    any_world.terminate(instance_id)
    any_world.run(3)
    assert (any_world.status(instance_id), able.aborted) == (Status.TERMINATED, [transfer.key])
    check_rest(any_world, [])


def test_what_it_answers_when_it_was_retried_before_ends_it_as_well(any_world):
    owner, able, instance_id = begun(any_world, saga())
    able.fail()
    any_world.run(8)
    transfer = able.the_running()
    assert transfer.attempt == 2
    any_world.cancel(instance_id)
    any_world.run(3)
    assert (owner.running, able.asked) == ({}, [transfer.key])
    able.finish(transfer)
    any_world.run(2)
    undone(any_world, owner, instance_id)


# --- an attempt that no node has taken -------------------------------------------------------------


def test_what_nobody_has_taken_is_withdrawn_at_once(any_world):
    owner = any_world.node(saga(), WORK)
    instance_id = any_world.start()
    any_world.run(1)
    any_world.cancel(instance_id)
    owner.engine.look()
    owner.run_until_idle()
    assert owner.the_running().name == "undo"
    able = worker(any_world)
    any_world.run(3)
    assert able.attempts == []
    undone(any_world, owner, instance_id)
    (failed,) = [
        event for event in any_world.events(instance_id) if event.kind.name == "ACTIVITY_FAILED"
    ]
    assert (failed.cause.type, failed.reason) == ("orchestra.ActivityCancelled", "cancelled")


def test_what_waits_for_code_that_can_read_its_arguments_is_withdrawn(any_world):
    owner = any_world.node(saga(), WORK)
    old = any_world.node(
        several(other=other), {"transfer": HOLD}, fingerprints=[("transfer", "old")]
    )
    new = any_world.node(
        several(other=other), {"transfer": HOLD}, fingerprints=[("transfer", "new")], slots=0
    )
    instance_id = any_world.start()
    any_world.run(2)
    old.hand_back(unread="old")
    any_world.run(2)
    assert row_of(any_world, instance_id).route.fingerprint == "new"
    any_world.cancel(instance_id)
    any_world.run(20)
    assert new.attempts == []
    undone(any_world, owner, instance_id)


@pytest.mark.parametrize("fate", ["lost before", "lost after"])
@pytest.mark.parametrize("is_taken", [True, False])
def test_a_lost_reply_to_the_write_that_stops_it_changes_nothing(any_world, fate, is_taken):
    """Rule 9."""
    owner = any_world.node(saga(), WORK)
    able = worker(any_world, obeys=True) if is_taken else None
    instance_id = any_world.start()
    any_world.run(2)
    any_world.cancel(instance_id)
    owner.engine.look()
    while not owner.engine.owned:
        owner.cycle_once()
    owner.store.replies.append(fate)
    owner.cycle_once()
    assert not owner.store.replies
    any_world.run(15)
    undone(any_world, owner, instance_id)
    assert able is None or len(able.attempts) == 1


# --- when nodes go ----------------------------------------------------------------------------


def test_the_wait_ends_with_the_node_that_runs_it_and_nobody_tries_it_again(any_world):
    owner, able, instance_id = begun(any_world, saga())
    any_world.cancel(instance_id)
    any_world.run(2)
    able.crash()
    heir = worker(any_world)
    any_world.run(5)
    assert owner.running == {}, "nobody knows yet that it is dead"
    any_world.run(20)
    assert heir.attempts == []
    undone(any_world, owner, instance_id)


def test_the_wait_ends_where_the_node_that_runs_it_stops_in_order(any_world):
    owner, able, instance_id = begun(any_world, saga())
    any_world.cancel(instance_id)
    any_world.run(2)
    able.stop()
    assert row_of(any_world, instance_id).failure == LOST
    heir = worker(any_world)
    any_world.run(2)
    assert heir.attempts == []
    undone(any_world, owner, instance_id)


@pytest.mark.parametrize("has_ended", [False, True])
def test_whoever_takes_the_instance_over_waits_for_it(any_world, has_ended):
    code = saga()
    owner, able, instance_id = begun(any_world, code)
    transfer = able.the_running()
    any_world.cancel(instance_id)
    any_world.run(2)
    owner.crash()
    if has_ended:
        able.finish(transfer)
    heir = any_world.node(code, WORK)
    any_world.run(20)
    if not has_ended:
        assert (heir.running, able.running) == ({}, {transfer.key: transfer})
        able.finish(transfer)
        any_world.run(2)
    undone(any_world, heir, instance_id)
    assert (len(able.attempts), able.asked) == (1, [transfer.key])


def test_an_owner_that_dies_between_its_turn_and_the_mark_leaves_both_to_the_next(any_world):
    """The mark is in the write of the turn: there is no state in between."""
    code = saga()
    owner, able, instance_id = begun(any_world, code)
    any_world.cancel(instance_id)
    owner.store.before_commit = lambda: None
    owner.crash()
    assert not row_of(any_world, instance_id).stopping
    heir = any_world.node(code, WORK)
    any_world.run(20)
    assert row_of(any_world, instance_id).stopping
    able.finish()
    any_world.run(2)
    undone(any_world, heir, instance_id)


def test_an_instance_without_memory_of_itself_waits_as_one_with_it(any_world):
    """Eviction: the code is repeated from history for each turn."""
    owner, able, instance_id = begun(
        any_world, saga(), options=EngineOptions(cached=0, keep_owned=0)
    )
    any_world.cancel(instance_id)
    any_world.run(5)
    any_world.send(instance_id, "nobody waits for this")
    any_world.run(5)
    assert (owner.running, len(able.running), len(able.asked)) == ({}, 1, 1)
    able.finish()
    any_world.run(2)
    undone(any_world, owner, instance_id)


def test_a_node_that_was_not_told_that_it_has_taken_it_ends_it_without_running_it(any_world):
    """Rule 13."""
    owner = any_world.node(saga(), WORK)
    instance_id = any_world.start()
    any_world.run(1)
    able = worker(any_world, poll=3.0)
    able.store.replies.append("lost after")
    while not any(
        isinstance(outcome, Claimed) and outcome.tasks
        for group in able.store.groups
        for _, outcome in group
    ):
        able.engine.look()
        able.cycle_once()
    able.engine._check.tasks_due = False  # or it would find out at once
    any_world.cancel(instance_id)
    owner.engine.look()
    owner.run_until_idle()
    assert row_of(any_world, instance_id).stopping
    any_world.run(15)
    assert able.attempts == []
    undone(any_world, owner, instance_id)


def test_a_node_that_was_buried_while_it_ran_says_nothing_any_more(any_world):
    """I6."""
    owner, able, instance_id = begun(any_world, saga())
    transfer = able.the_running()
    any_world.cancel(instance_id)
    any_world.run(2)
    any_world.nodes.remove(able)  # it is stopped beyond its lease
    any_world.run(20)
    any_world.nodes.append(able)
    able.finish(transfer)
    any_world.run(5)
    assert able.attempts == [transfer]
    undone(any_world, owner, instance_id)


# --- attempts that go on running where their instance was ----------------------------------------


async def busy(ctx, laps):
    await ctx.schedule_timer(timedelta(milliseconds=50))
    ctx.continue_as_new(laps + 1)


def pressed(world, code):
    """Return a node with one place, whose first instance is to give it up once :func:`press` is
    called.
    """
    builder = several(job=code.find("job", "1.0.0").function, busy=busy)
    node = world.node(builder, {"transfer": HOLD, **WORK}, options=EngineOptions(max_owned=1))
    node.obeys = False
    return node


def test_what_was_handed_over_is_stopped_where_it_runs(any_world):
    code = saga()
    node = pressed(any_world, code)
    instance_id = any_world.start()
    any_world.run(1)
    transfer = node.the_running()
    any_world.start("busy", 0)
    any_world.run(1)
    row = row_of(any_world, instance_id)
    assert (row.owner, row.stopping) == (node.node_id, False), "or this test says nothing"
    any_world.cancel(instance_id)
    any_world.run(3)
    assert (node.asked, list(node.running)) == ([transfer.key], [transfer.key])
    assert row_of(any_world, instance_id).stopping
    node.finish(transfer)
    any_world.run(3)
    node.finish(node.the_running("undo"))
    any_world.run(3)
    assert any_world.status(instance_id) is Status.CANCELLED


def test_what_is_to_end_already_is_handed_over_with_its_mark(any_world):
    code = saga()
    node = pressed(any_world, code)
    instance_id = any_world.start()
    any_world.run(1)
    transfer = node.the_running()
    any_world.cancel(instance_id)
    any_world.run(1)
    assert (node.asked, any_world.record(instance_id).activities) == ([transfer.key], ())
    any_world.start("busy", 0)
    any_world.run(2)
    row = row_of(any_world, instance_id)
    assert (row.owner, row.stopping, row.has_ended) == (node.node_id, True, False)
    assert node.attempts == [transfer]
    node.crash()
    heir = any_world.node(node.registry, {"transfer": HOLD, **WORK})
    any_world.run(25)
    assert [run.name for run in heir.attempts] == ["undo"]
    heir.finish()
    any_world.run(1)
    assert any_world.status(instance_id) is Status.CANCELLED


# --- holds ------------------------------------------------------------------------------------


def test_it_ends_while_its_instance_is_held_and_the_code_goes_on_once_that_is_over(any_world):
    """Rule 39."""
    owner, able, instance_id = begun(any_world, registry(broken))
    transfer = able.the_running()
    any_world.cancel(instance_id)
    any_world.run(2)
    able.finish(transfer)
    any_world.run(3)
    assert any_world.record(instance_id).row.hold.kind is HoldKind.ERROR
    owner.stop()
    mended = any_world.node(saga(), WORK)
    any_world.run(15)
    undone(any_world, mended, instance_id)
    assert len(able.attempts) == 1


def test_a_hold_between_the_mark_and_the_end_keeps_both(any_world):
    code = saga()
    owner, able, instance_id = begun(any_world, code)
    transfer = able.the_running()
    any_world.cancel(instance_id)
    any_world.run(2)
    owner.stop()
    unfit = any_world.node(registry(strange), WORK)
    any_world.send(instance_id, "nobody waits for this")
    any_world.run(12)
    assert any_world.record(instance_id).row.hold.kind is HoldKind.NONDETERMINISM
    assert row_of(any_world, instance_id).stopping
    able.finish(transfer)
    any_world.run(3)
    unfit.stop()
    heir = any_world.node(code, WORK)
    any_world.run(15)
    undone(any_world, heir, instance_id)
    assert (len(able.attempts), able.asked) == (1, [transfer.key])


# --- cost -------------------------------------------------------------------------------------


def test_nothing_is_stopped_that_ends_by_itself(any_world):
    owner = any_world.node(saga(), WORK)
    able = worker(any_world)
    instance_id = any_world.start()
    any_world.run(2)
    able.finish()
    any_world.run(2)
    assert any_world.status(instance_id) is Status.COMPLETED
    assert not any(write.extras.stops for write in owner.store.writes)


def test_the_mark_rides_in_the_write_of_the_turn_that_cancels(any_world):
    owner, able, instance_id = begun(any_world, saga())
    owner.store.forget()
    any_world.cancel(instance_id)
    any_world.run(5)
    (write,) = owner.store.writes
    assert len(write.extras.stops) == 1
    assert write.executions[0].events
    assert len(able.running) == 1
