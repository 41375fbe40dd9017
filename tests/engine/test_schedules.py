"""Engines tick schedules: any node, each slot once, whatever is lost (rule 35, I14)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestra.codec import Payload
from orchestra.operations.scheduling import definition_of, first_row
from orchestra.schedules import Event, Every, Schedule, Start
from orchestra.store.changes import ScheduleWrite
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Refused, ScheduleWritten
from tests.support.harness import check_rest, registry, several

LOST = pytest.mark.parametrize("lost", ["lost before", "lost after"])
MINUTE = 60


async def quick(ctx, state):
    return state


async def listens(ctx, count):
    await ctx.wait_for_event("tick")
    ctx.continue_as_new(count + 1)


def minutely(schedule_id="s", action=None, **options):
    anchor = datetime(2020, 1, 1, tzinfo=UTC)
    every = Every(timedelta(seconds=MINUTE), anchor=anchor)
    return Schedule(schedule_id, every, action or Start("job"), **options)


def make(world, schedule):
    row = first_row(
        schedule,
        definition_of(schedule, None, None),
        Payload(b'"hello"'),
        world.clock.now(),
        by="test",
        request_id="r",
        declared=None,
    )
    write = ScheduleWrite(schedule.id, "life", 0, row)
    (outcome,) = world.provider.store.commit([write]).outcomes
    assert isinstance(outcome, ScheduleWritten)


def shown(world, schedule_id="s"):
    return world.provider.directory.schedule(schedule_id, 100)


def fired(world, schedule_id="s"):
    return [slot for slot in shown(world, schedule_id).slots if slot.outcome == "fired"]


def ticks(node):
    return [change for change in node.store.changes if isinstance(change, ScheduleWrite)]


def test_a_node_ticks_at_each_slot_and_asks_the_index_alone_while_none_is_due(any_world):
    node = any_world.node(registry(quick))
    make(any_world, minutely())
    any_world.run(3 * MINUTE)
    assert len(fired(any_world)) == 3
    assert len(ticks(node)) == 3, "a tick a slot, and none in between"
    for slot in fired(any_world):
        assert any_world.status(slot.instance_id) is Status.COMPLETED
    check_rest(any_world, [node.registry])


def test_of_two_nodes_that_tick_at_once_one_wins_and_the_other_reads_again(any_world):
    """Scenario 72."""
    nodes = [any_world.node(registry(quick)) for _ in range(2)]
    make(any_world, minutely())
    any_world.run(5 * MINUTE)
    assert len(fired(any_world)) == 5
    outcomes = [outcome for node in nodes for outcome in _outcomes(node)]
    assert outcomes.count(ScheduleWritten) == 5
    assert set(outcomes) <= {ScheduleWritten, Refused}
    check_rest(any_world, [nodes[0].registry])


def _outcomes(node):
    return [
        type(outcome)
        for group in node.store.groups
        for change, outcome in group
        if isinstance(change, ScheduleWrite)
    ]


@LOST
def test_a_tick_whose_reply_is_lost_starts_one_instance(any_world, lost):
    """Scenario 72."""
    node = any_world.node(registry(quick))
    make(any_world, minutely())
    any_world.run(MINUTE / 2)
    for _ in range(3):
        node.store.replies.append(lost)
        any_world.run(MINUTE)
    slots = [slot.slot for slot in fired(any_world)]
    assert len(slots) == len(set(slots)) == 3
    assert {slot.outcome for slot in shown(any_world).slots} == {"fired"}
    check_rest(any_world, [node.registry])


def test_a_node_that_dies_in_mid_tick_leaves_the_slot_to_another_one(any_world):
    """Scenario 72."""
    first = any_world.node(registry(quick))
    make(any_world, minutely())
    any_world.run(MINUTE / 2)
    first.store.replies.append("lost before")
    first.crash()
    second = any_world.node(registry(quick))
    any_world.run(2 * MINUTE)
    assert len(fired(any_world)) == 2
    check_rest(any_world, [second.registry])


def test_a_node_without_the_code_ticks_all_the_same_and_the_run_waits_for_its_code(any_world):
    """Scenario 74."""
    node = any_world.node(several(other=quick))
    make(any_world, minutely())
    any_world.run(1.5 * MINUTE)
    (slot,) = fired(any_world)
    assert any_world.status(slot.instance_id) is Status.OPEN
    capable = any_world.node(registry(quick))
    any_world.run(MINUTE / 4)
    assert any_world.status(slot.instance_id) is Status.COMPLETED
    check_rest(any_world, [node.registry, capable.registry])


def test_an_event_of_a_schedule_reaches_its_owner_in_memory(any_world):
    node = any_world.node(registry(listens))
    instance_id = any_world.start(state=0)
    make(any_world, minutely(action=Event(instance_id, "tick")))
    any_world.run(4 * MINUTE)
    assert any_world.record(instance_id).row.execution == 5
    check_rest(any_world, [node.registry])


def test_a_write_that_the_store_never_takes_leaves_the_other_schedules_alone(any_world):
    node = any_world.node(registry(quick))
    make(any_world, minutely("bad"))
    make(any_world, minutely("good"))
    node.store.poisonous = lambda change: (
        isinstance(change, ScheduleWrite) and change.schedule_id == "bad"
    )
    any_world.run(2 * MINUTE)
    assert fired(any_world, "bad") == []
    assert len(fired(any_world, "good")) == 2


def test_schedules_that_wait_are_not_read_and_nothing_is_written(world):
    node = world.node(registry(quick))
    for number in range(200):
        make(world, minutely(f"s{number}", start_at=datetime(2100, 1, 1, tzinfo=UTC)))
    world.run(5)
    node.store.forget()
    world.run(MINUTE)
    assert node.store.calls["due_schedules"] == 0
    assert node.store.calls["next_tick"] <= MINUTE + 1, "once a poll"
    assert node.store.changes == []
