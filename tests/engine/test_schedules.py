"""Engines tick schedules: any node, each slot once, whatever is lost (rule 35, I14)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zlib import crc32

import pytest

from orchestra.codec import Payload
from orchestra.engine.schedules import Schedules
from orchestra.operations.scheduling import definition_of, first_row
from orchestra.providers.memory import MemoryProvider
from orchestra.schedules import Event, Every, Schedule, Start
from orchestra.store.changes import ScheduleWrite
from orchestra.store.inbox_limits import InboxLimits
from orchestra.store.kinds import SCHEDULE_LEVEL, THIS_LIBRARY, Status
from orchestra.store.outcomes import Refused, ScheduleWritten
from orchestra.telemetry import Recorder
from orchestra.testing import ManualClock
from tests.support.contract.shorthand import a_node
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


def lateness(world, schedule_id="s"):
    """Return by how many seconds the slots of a schedule have fired late."""
    return [(slot.at - slot.slot) / 1e6 for slot in fired(world, schedule_id)]


@pytest.mark.parametrize("number", [1, 2, 5])
def test_of_any_number_of_nodes_one_writes_for_a_slot_at_once_and_the_others_find_it_taken(
    any_world, number
):
    nodes = [any_world.node(registry(quick)) for _ in range(number)]
    any_world.run(2)  # all have read the catalogue
    names = ("a", "b", "c", "d")
    for name in names:
        make(any_world, minutely(name))
    any_world.run(4 * MINUTE)
    written = [outcome for node in nodes for outcome in _outcomes(node)]
    assert written == [ScheduleWritten] * 16, "a write a slot, and none that is refused"
    alone = 1.0  # that is what a single node may need: it polls
    assert max(late for name in names for late in lateness(any_world, name)) <= alone
    if number > 1:
        assert sum(bool(ticks(node)) for node in nodes) > 1, "they share the schedules"
    check_rest(any_world, [nodes[0].registry])


def test_if_the_first_node_is_dead_the_next_one_ticks_a_moment_later_and_none_waits_for_its_lease(
    any_world,
):
    nodes = [any_world.node(registry(quick)) for _ in range(3)]
    any_world.run(2)
    make(any_world, minutely())
    any_world.run(MINUTE)
    (first,) = [node for node in nodes if ticks(node)]
    first.crash()
    any_world.run(MINUTE)
    assert len(fired(any_world)) == 2
    late = lateness(any_world)
    assert max(late) - min(late) <= 2 * 0.2 + 0.1, late


def test_a_node_that_lets_another_one_tick_misses_no_schedule_that_is_due_meanwhile(any_world):
    """It asks when the next one is due, and does not wait for its poll."""
    nodes = [any_world.node(registry(quick)) for _ in range(2)]
    any_world.run(2)
    step = timedelta(milliseconds=50)
    anchor = datetime(2020, 1, 1, tzinfo=UTC)
    for number in range(20):
        every = Every(timedelta(seconds=MINUTE), anchor=anchor + number * step)
        make(any_world, Schedule(f"s{number}", every, Start("job")))
    any_world.run(2 * MINUTE)
    late = [one for number in range(20) for one in lateness(any_world, f"s{number}")]
    assert len(late) == 40
    assert max(late) <= 1.0, late
    assert len([outcome for node in nodes for outcome in _outcomes(node)]) == 40


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


class Simultaneous:
    """Nodes that all look at the same instant, before any of them writes."""

    def __init__(self, number):
        self.clock = ManualClock()
        self.provider = MemoryProvider(clock=self.clock)
        self.provider.open()
        store = self.provider.store
        store.raise_level(THIS_LIBRARY.target(SCHEDULE_LEVEL))
        self.nodes = []
        self.living = [f"node-{place}" for place in range(number)]
        self.writes = []
        for name in self.living:
            level = THIS_LIBRARY.level
            store.join(replace(a_node(name), reads=level, writes=level))
            self.nodes.append(
                Schedules(
                    store,
                    name,
                    self.writes.append,
                    Recorder(),
                    InboxLimits(),
                    THIS_LIBRARY,
                )
            )

    def run(self, seconds):
        """Let time pass; return how many writes were granted, and how many refused."""
        store, granted, refused = self.provider.store, 0, 0
        for step in range(seconds * 100):
            self.clock.advance(timedelta(milliseconds=10))
            for name in self.living if step % 1_000 == 0 else ():
                store.renew(name, 3)
            catalogue, now = store.catalogue(), self.clock.now()
            for node in self.nodes:
                node.serve(catalogue)
                node.next_due(now)
                node.step(catalogue, now)
            writes, self.writes[:] = [*self.writes], []
            for write in writes:
                (outcome,) = store.commit([write]).outcomes
                granted += isinstance(outcome, ScheduleWritten)
                refused += isinstance(outcome, Refused)
            for node in self.nodes:
                for write in writes:
                    node.answered(write)
        return granted, refused


@pytest.mark.parametrize("number", [1, 2, 3, 8])
def test_nodes_that_look_at_the_same_instant_make_one_write_for_a_slot(number):
    nodes = Simultaneous(number)
    for name in ("a", "b", "c"):
        make(nodes, minutely(name, overlap="allow_all"))
    assert nodes.run(3 * MINUTE) == (9, 0)
    for name in ("a", "b", "c"):
        assert len(fired(nodes, name)) == 3
        assert max(lateness(nodes, name)) <= 0.02, "the first node ticks at once"


def test_where_the_first_nodes_live_and_do_not_tick_the_others_tick_in_their_order():
    nodes = Simultaneous(4)
    make(nodes, minutely(overlap="allow_all"))
    nodes.run(MINUTE)
    (slot,) = fired(nodes)
    order = sorted(nodes.nodes, key=lambda node: crc32(f"s/{node.node_id}".encode()))
    for away in (1, 2):
        nodes.nodes = [node for node in nodes.nodes if node not in order[:away]]
        assert nodes.run(MINUTE) == (1, 0)
        assert lateness(nodes)[0] == pytest.approx(away * 0.2, abs=0.05)
    assert lateness(nodes)[-1] <= 0.02
    assert slot.outcome == "fired"
