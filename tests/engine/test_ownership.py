"""What a node owns, keeps in memory, and gives back."""

from __future__ import annotations

import gc
import weakref
from datetime import timedelta

import pytest

from orchestra.engine.engine import EngineOptions
from orchestra.store.kinds import Status
from tests.support.harness import HOLD, check_instance, check_rest, registry


async def listens(ctx, _):
    return [await ctx.wait_for_event("go") for _ in range(3)]


async def sleeps(ctx, seconds):
    await ctx.schedule_timer(timedelta(seconds=seconds))
    return "woken"


async def works(ctx, _):
    return await ctx.schedule_activity("work")


def test_an_instance_that_only_waits_is_released_in_the_write_that_parks_it(any_world):
    node = any_world.node(registry(listens))
    instance_id = any_world.start()
    any_world.run(1)
    (write,) = node.store.writes
    assert (write.state.owner, write.state.wake_at) == (None, None)
    assert node.engine.owned == 0
    row = any_world.record(instance_id).row
    assert (row.owner, row.wake_at) == (None, None)


@pytest.mark.parametrize(("seconds", "stays"), [(9, True), (10, True), (11, False), (3600, False)])
def test_only_a_short_wait_stays_owned(world, seconds, stays):
    node = world.node(registry(sleeps))
    instance_id = world.start(state=seconds)
    world.run_until_idle()
    assert node.engine.owned == stays
    assert world.record(instance_id).row.owner == (node.node_id if stays else None)
    world.run(seconds - 0.001)
    assert world.status(instance_id) is Status.OPEN, "early (I7)"
    world.run(0.002)
    assert world.output(instance_id) == "woken"
    check_instance(world, instance_id, [node.registry])


def test_an_execution_that_comes_back_goes_on_without_reading_its_history(any_world):
    node = any_world.node(registry(listens))
    instance_id = any_world.start()
    any_world.run(1)
    for number in range(3):
        any_world.send(instance_id, value=number)
        any_world.run(1)
    assert any_world.output(instance_id) == [0, 1, 2]
    assert node.store.calls["history"] == 0
    check_rest(any_world, [node.registry])


def test_a_warm_execution_is_dropped_when_another_node_went_on_with_it(any_world):
    first, second = any_world.node(registry(listens)), any_world.node(registry(listens))
    instance_id = any_world.start()
    first.engine.look()
    first.run_until_idle()
    any_world.send(instance_id, value="to the second")
    second.engine.look()
    second.run_until_idle()
    assert second.store.histories == [(instance_id, 1)]
    any_world.send(instance_id, value="to the first")
    first.engine.look()
    first.run_until_idle()
    assert first.store.histories == [(instance_id, 1)], (
        "it went on with what it remembered (rule 3)"
    )
    any_world.send(instance_id, value="end")
    any_world.run(2)
    assert any_world.output(instance_id) == ["to the second", "to the first", "end"]
    check_rest(any_world, [first.registry])


def test_a_warm_execution_is_dropped_when_an_operator_wrote(any_world):
    node = any_world.node(registry(listens))
    instance_id = any_world.start()
    any_world.run(1)
    any_world.admin.set_pin(instance_id, "1.0.0", by="operator", reason="")
    any_world.send(instance_id)
    any_world.run(1)
    assert node.store.histories == [(instance_id, 1)]


def test_an_id_that_was_deleted_and_started_again_is_another_instance(any_world):
    node = any_world.node(registry(listens))
    any_world.start(instance_id="again")
    any_world.run(1)
    old = any_world.record("again").row.incarnation
    any_world.terminate("again")
    assert any_world.admin.delete("again", old, by="me", reason="")
    any_world.start(instance_id="again")
    any_world.run(1)
    for number in range(3):
        any_world.send("again", value=number)
        any_world.run(1)
    assert any_world.output("again") == [0, 1, 2]
    check_rest(any_world, [node.registry])


def test_memory_holds_no_more_warm_executions_than_it_may(world):
    node = world.node(registry(listens), options=EngineOptions(cached=5))
    ids = [world.start() for _ in range(12)]
    world.run(1)
    assert len(node.engine._ownership._cache) == 5
    kept = set(node.engine._ownership._cache._cached)
    for instance_id in ids:
        world.send(instance_id)
        node.engine.look()
        node.run_until_idle()
    cold = {instance_id for instance_id, _ in node.store.histories}
    assert cold >= set(ids) - kept
    check_rest(world, [node.registry])


def test_an_evicted_execution_decides_nothing(world):
    said = []

    async def cleans_up(ctx, _):
        try:
            await ctx.wait_for_event("go")
        finally:
            said.append("left")
            ctx.schedule_activity("cleanup")

    node = world.node(registry(cleans_up), options=EngineOptions(cached=1))
    first = world.start()
    world.run(1)
    world.start()
    world.run(1)
    assert said == ["left"]  # plain Python effects cannot be undone (rule 22) ...
    assert world.kinds(first) == [
        "EXECUTION_STARTED",
        "EVENT_AWAITED",
    ]  # ... decisions are not made
    assert node.attempts == []


def test_an_execution_that_ended_is_not_kept(world):
    node = world.node(registry(sleeps))
    world.start(state=60)
    world.run(1)
    (_, _, execution) = next(iter(node.engine._ownership._cache._cached.values()))
    gone = weakref.ref(execution.scheduler)
    del execution
    world.run(60)
    gc.collect()
    assert node.ended
    assert gone() is None
    assert not node.engine._ownership._cache._cached


def test_what_an_operator_took_away_stops_running_once_the_inventory_shows_it(any_world):
    """Nothing is written while an activity runs, so that no refused write would ever tell the
    owner.
    """
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    key = node.the_running().key
    any_world.terminate(instance_id)
    any_world.run(11)
    assert node.aborted == [key]
    assert node.engine.owned == node.engine.running == 0
    assert any_world.status(instance_id) is Status.TERMINATED


def test_an_instance_that_is_pinned_while_its_activity_runs_keeps_the_running_attempt(any_world):
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    any_world.admin.set_pin(instance_id, "1.0.0", by="operator", reason="")
    any_world.run(2)
    assert any_world.record(instance_id).row.owner == node.node_id
    assert len(node.attempts) == 1, "the same attempt was begun twice"
    node.finish(value="once")
    any_world.run(1)
    assert any_world.output(instance_id) == "once"
    check_rest(any_world, [node.registry])


def test_an_attempt_that_the_row_has_left_behind_is_given_up_for_the_present_one(world):
    """Taken away unnoticed, failed elsewhere, and back: the old attempt's end must not leave the
    instance waiting for ever.
    """
    first = world.node(registry(works), {"work": HOLD})
    instance_id = world.start()
    first.run_until_idle()
    old = first.the_running()
    world.admin.set_pin(instance_id, "1.0.0", by="operator", reason="")
    second = world.node(registry(works), {"work": HOLD})
    second.run_until_idle()
    second.fail(second.the_running())
    second.stop()
    first.engine.look()
    world.run(3)
    assert first.the_running().attempt == 2
    assert first.aborted == [old.key]
    first.finish(old, "late")
    first.running[old.key] = first.attempts[-1]
    world.run(1)
    assert world.status(instance_id) is Status.OPEN
    first.finish(first.attempts[-1], "present")
    world.run(1)
    assert world.output(instance_id) == "present"
    check_rest(world, [first.registry])


def test_messages_that_nobody_awaits_do_not_make_an_instance_spin(world):
    node = world.node(registry(listens))
    instance_id = world.start()
    world.run(1)
    for _ in range(5):
        world.send(instance_id, "noise")
    world.run(1)
    node.store.forget()
    world.run(10)
    assert node.store.writes == []
    assert world.record(instance_id).unread_messages == 5


def test_what_others_start_and_send_is_found_by_polling_alone(world):
    """No hint comes here: the store says that nobody else has written."""
    node = world.node(registry(listens))
    node.store.changed = lambda: False
    world.run(3)
    instance_id = world.start()
    world.run(1.5)
    assert world.kinds(instance_id) == ["EXECUTION_STARTED", "EVENT_AWAITED"]
    for value in range(3):
        world.send(instance_id, value=value)
        world.run(1.5)
    assert world.output(instance_id) == [0, 1, 2]
