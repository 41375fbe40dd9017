"""Long inboxes: what is read of them, what lies in memory, and in which order it is delivered."""

import pytest

from orchestra.engine.engine import EngineOptions
from orchestra.errors import StoreUnavailable
from orchestra.store.changes import Append
from orchestra.store.kinds import Status
from orchestra.store.messages import InboxPage
from tests.support.harness import HOLD, check_instance, check_rest, registry

SMALL = EngineOptions(inbox_page=InboxPage(2, 50), inbox_room=InboxPage(3, 60))


def fill(world, instance_id, number, name="item", size=0):
    values = [f"{count:04}" + "x" * size for count in range(number)]
    for start in range(0, number, 500):
        group = [
            world.append_change(instance_id, name, value) for value in values[start : start + 500]
        ]
        world.store.commit(group)
    return values


async def actor(ctx, state):
    left, heard = state
    heard = [*heard, await ctx.wait_for_event("item", str)]
    if left == 1:
        return heard
    ctx.continue_as_new((left - 1, heard))


async def counts(ctx, left: int):
    await ctx.wait_for_event("item", str)
    if left > 1:
        ctx.continue_as_new(left - 1)


def test_an_actor_takes_one_event_a_lap_in_order_whatever_fits_into_memory(any_world):
    node = any_world.node(registry(actor), options=SMALL)
    instance_id = any_world.start(state=(30, []))
    values = fill(any_world, instance_id, 30)
    any_world.run(2)
    assert any_world.output(instance_id) == values
    check_instance(any_world, instance_id, [node.registry])
    check_rest(any_world)


def cost_of(world, node, number):
    """Return how many messages are read for so many laps with one event each, how many reads that
    takes, how many writes.
    """
    instance_id = world.start(state=number)
    fill(world, instance_id, number)
    node.store.forget()
    unread, messages = node.store.inner.unread, 0

    def counted(*args):
        nonlocal messages
        found = unread(*args)
        messages += sum(len(page.messages) for page in found.values())
        return found

    node.store.inner.unread = counted
    world.run(2)
    node.store.inner.unread = unread
    assert world.status(instance_id) is Status.COMPLETED
    return messages, node.store.calls["unread"], len(node.store.writes)


def test_four_times_as_many_events_cost_four_times_as_much(any_world):
    """Scenario 62."""
    node = any_world.node(registry(counts))
    few, many = cost_of(any_world, node, 300), cost_of(any_world, node, 1_200)
    assert few[0] <= 300
    assert many[0] <= 1_200
    for before, after in zip(few[1:], many[1:], strict=True):
        assert after <= 4 * before + 8, (few, many)


async def waits_for_stop(ctx, _):
    return await ctx.wait_for_event("stop", str)


def test_events_that_nobody_awaits_stay_in_the_store_when_the_instance_wakes(any_world):
    node = any_world.node(registry(waits_for_stop))
    instance_id = any_world.start()
    any_world.run(2)
    fill(any_world, instance_id, 40, "later", size=100_000)
    any_world.send(instance_id, "stop", "now")
    sizes = []
    advance = node.engine._stepper.advance

    def watched(instance, *args, **kwargs):
        sizes.append(instance.inbox.size)
        return advance(instance, *args, **kwargs)

    node.engine._stepper.advance = watched
    any_world.run(2)
    assert any_world.output(instance_id) == "now"
    assert max(sizes) <= node.engine.options.inbox_room.bytes, "and not 4 MB"
    assert any_world.record(instance_id).unread_at_end == {"later": 40}


def test_what_is_sent_through_the_own_node_does_not_gather_in_memory(any_world):
    async def stays(ctx, _):
        return (
            await ctx.race(ctx.wait_for_event("stop", str), ctx.schedule_activity("hang"))
        ).value

    node = any_world.node(registry(stays), {"hang": HOLD}, options=SMALL)
    instance_id = any_world.start()
    any_world.run(2)
    for count in range(30):
        node.submit(any_world.append_change(instance_id, "later", count))
        any_world.run(2)
    instance = node.engine._run_queue.get(instance_id)
    assert len(instance.inbox) <= SMALL.inbox_room.messages
    node.submit(any_world.append_change(instance_id, "stop", "now"))
    any_world.run(2)
    assert any_world.output(instance_id) == "now"


@pytest.mark.parametrize("first", ["a", "b"])
def test_of_names_that_are_awaited_together_the_first_message_counts(any_world, first):
    async def races(ctx, _):
        won = await ctx.race(ctx.wait_for_event("a"), ctx.wait_for_event("b"))
        return "ab"[won.index]

    any_world.node(registry(races), options=SMALL)
    instance_id = any_world.start()
    fill(any_world, instance_id, 10, "noise")
    any_world.send(instance_id, first, 1)
    fill(any_world, instance_id, 10, "noise")
    any_world.send(instance_id, "ab".replace(first, ""), 2)
    any_world.run(2)
    assert any_world.output(instance_id) == first


def test_an_end_of_an_activity_is_kept_while_the_inbox_is_read(any_world):
    """It has been taken out of the activity, and stands in no history yet."""

    async def both(ctx, _):
        return await ctx.gather(ctx.schedule_activity("work"), ctx.wait_for_event("stop", str))

    node = any_world.node(registry(both), {"work": HOLD}, options=SMALL)
    instance_id = any_world.start()
    any_world.run(2)
    fill(any_world, instance_id, 10, "noise")
    any_world.send(instance_id, "stop", "now")
    node.finish(value="done")
    any_world.run(2)
    assert any_world.output(instance_id) == ["done", "now"]
    assert len(node.attempts) == 1
    check_instance(any_world, instance_id, [node.registry])


def test_an_inbox_that_cannot_be_read_now_is_read_later_and_nothing_is_lost(any_world):
    node = any_world.node(registry(actor), options=SMALL)
    instance_id = any_world.start(state=(12, []))
    values = fill(any_world, instance_id, 12)
    unread, failures = node.store.inner.unread, 3

    def fails(*args):
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreUnavailable("the store is away")
        return unread(*args)

    node.store.inner.unread = fails
    any_world.run(30)
    assert failures == 0
    assert any_world.output(instance_id) == values


def test_another_node_goes_on_in_the_middle_of_a_long_inbox(any_world):
    first = any_world.node(registry(actor), options=SMALL)
    instance_id = any_world.start(state=(20, []))
    values = fill(any_world, instance_id, 10)
    any_world.run(2)
    first.alive = False
    values += [f"more {count}" for count in range(10)]
    any_world.store.commit(
        [any_world.append_change(instance_id, "item", value) for value in values[10:]]
    )
    second = any_world.node(registry(actor), options=SMALL)
    any_world.run(40)
    assert any_world.output(instance_id) == values
    check_instance(any_world, instance_id, [second.registry])


def test_the_end_of_an_instance_counts_thousands_of_unread_events(any_world):
    any_world.node(registry(waits_for_stop))
    instance_id = any_world.start()
    any_world.run(2)
    any_world.store.commit(
        [
            Append(instance_id, f"m{n}", f"n{n % 3}", any_world.append_change("x").payload)
            for n in range(3_000)
        ]
    )
    any_world.send(instance_id, "stop", "now")
    any_world.run(2)
    assert any_world.record(instance_id).unread_at_end == {"n0": 1_000, "n1": 1_000, "n2": 1_000}
    check_rest(any_world)
