"""Background children over engines and stores: ends that reach a later lap, on other nodes, after
crashes and lost replies, and libraries of other ages.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from orchestra.children import ChildHandle
from orchestra.errors import StoreUnavailable
from orchestra.store.changes import Write
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Granted
from orchestra.testing.checker import check_store
from tests.support.ages import SECOND_LIBRARY
from tests.support.harness import HOLD, check_rest, several


@dataclass
class Loop:
    left: int = 0
    open: list[ChildHandle[int]] = field(default_factory=list)


async def kid(ctx, number):
    return await ctx.schedule_activity("work", number)


async def parent(ctx, state: Loop):
    """Starts a kid, crosses a few boundaries with it, and awaits it."""
    if not state.open:
        handle = ctx.start_background_child(kid, 5, instance_id="kid-1")
        ctx.continue_as_new(Loop(state.left, [handle]))
    if state.left:
        await ctx.schedule_timer(timedelta(seconds=1))
        ctx.continue_as_new(Loop(state.left - 1, state.open))
    return await ctx.wait_for_child(state.open[0])


async def crowd(ctx, state: Loop):
    """Starts several kids in several laps, and awaits them all in the last one."""
    if state.left:
        handle = ctx.start_background_child(kid, state.left)
        ctx.continue_as_new(Loop(state.left - 1, [*state.open, handle]))
    return await ctx.gather(*(ctx.wait_for_child(handle) for handle in state.open))


FAMILY = several(parent=parent, kid=kid, crowd=crowd)
BUSY = {"work": HOLD}


def check(world, registry=FAMILY):
    """Hold the store, where nothing is owned, against all invariants."""
    check_rest(world, [registry])
    check_store(world.provider, registry).raise_if_violated()


def test_an_end_reaches_the_lap_that_awaits_it(any_world):
    node = any_world.node(FAMILY, BUSY)
    any_world.start("parent", Loop(2), instance_id="one")
    any_world.run(5)
    assert any_world.record("one").row.execution == 4
    node.finish(value=7)
    any_world.run(2)
    assert any_world.output("one") == 7
    assert any_world.kinds("one") == [
        "EXECUTION_STARTED",
        "CHILD_AWAITED",
        "CHILD_ENDED",
        "EXECUTION_COMPLETED",
    ]
    check(any_world)


def test_an_end_that_comes_laps_before_it_is_awaited_waits_in_the_inbox(any_world):
    node = any_world.node(FAMILY, BUSY)
    any_world.start("parent", Loop(8), instance_id="one")
    any_world.run(2)
    node.finish(value=7)
    any_world.run(2)
    assert any_world.status("kid-1") is Status.COMPLETED
    lap = any_world.record("one").row.execution
    any_world.run(20)
    assert (lap < 9, any_world.output("one")) == (True, 7)
    check(any_world)


@pytest.mark.parametrize("awaits", [False, True])
def test_it_is_read_from_the_store_after_a_crash(any_world, awaits):
    node = any_world.node(FAMILY, BUSY)
    any_world.start("parent", Loop(0 if awaits else 8), instance_id="one")
    any_world.run(2)
    node.finish(value=7)
    node.crash()
    other = any_world.node(FAMILY, BUSY)
    any_world.run(60)
    if other.running:  # the crash came before the report was stored
        other.finish(value=7)
        any_world.run(20)
    assert any_world.output("one") == 7
    check(any_world)


@pytest.mark.parametrize("lost", ["lost before", "lost after"])
def test_over_lost_replies_each_end_is_told_once(any_world, lost):
    """Scenario 77."""
    node = any_world.node(FAMILY, BUSY)
    any_world.start("crowd", Loop(3), instance_id="one")
    any_world.run(1)
    for number in range(3):
        node.store.replies.append(lost)
        node.finish(next(iter(node.running.values())), value=number)
        any_world.run(30)
    assert sorted(any_world.output("one")) == [0, 1, 2]
    ends = [kind for kind in any_world.kinds("one") if kind == "CHILD_ENDED"]
    assert len(ends) == 3
    check(any_world)


def test_nodes_share_a_family_and_the_parents_owner_is_woken(any_world):
    async def by_name(ctx, handle: ChildHandle[int] | None):
        if handle is None:
            ctx.continue_as_new(ctx.start_background_child("kid", 5, returns=int))
        return await ctx.wait_for_child(handle)

    registry = several(by_name=by_name)
    any_world.node(registry)
    second = any_world.node(several(kid=kid), BUSY)
    any_world.start("by_name", None, instance_id="one")
    any_world.run(10)
    second.finish(value=3)
    any_world.run(10)
    assert any_world.output("one") == 3
    check(any_world, registry)


def test_an_operator_ends_the_child_and_the_lap_learns_it(any_world):
    any_world.node(FAMILY, BUSY)
    any_world.start("parent", Loop(1), instance_id="one")
    any_world.run(5)
    assert isinstance(any_world.terminate("kid-1"), Granted)
    any_world.run(2)
    assert any_world.status("one") is Status.FAILED
    check(any_world)


def test_a_lap_that_awaits_an_end_rests(any_world):
    node = any_world.node(FAMILY, BUSY)
    any_world.start("parent", Loop(0), instance_id="one")
    any_world.run(5)
    commits = node.store.calls["commit"]
    any_world.run(30)
    assert node.store.calls["commit"] == commits


def test_an_end_that_no_code_awaits_makes_no_turns(any_world):
    async def waits(ctx, state: Loop):
        ctx.start_background_child(kid, 5)
        await ctx.wait_for_event("never")

    node = any_world.node(several(waits=waits, kid=kid), BUSY)
    any_world.start("waits", Loop(0), instance_id="one")
    any_world.run(2)
    node.finish(value=1)
    any_world.run(5)
    commits = node.store.calls["commit"]
    any_world.run(30)
    assert node.store.calls["commit"] == commits
    assert any_world.record("one").row.wake_at is None


def test_an_end_that_arrives_in_the_very_write_of_a_boundary_is_kept(any_world):
    """The parent's boundary and its child's end are committed in one group."""
    node = any_world.node(FAMILY, BUSY)
    any_world.start("parent", Loop(1), instance_id="one")
    any_world.run(0.5)
    ended = False

    def before_commit():
        nonlocal ended
        crosses = any(
            isinstance(one, Write) and one.instance_id == "one" and len(one.executions) > 1
            for one in node.engine._in_flight.changes
        )
        ended = ended or (crosses and node.finish(value=4) is None)
        node.store.before_commit = None if ended else before_commit

    node.store.before_commit = before_commit
    any_world.run(10)
    assert ended
    assert any_world.output("one") == 4
    check(any_world)


def test_69_code_waits_for_the_last_older_node_and_nothing_runs_twice(any_world, caplog):
    """Scenario 69: a library of level 2 could not read the end of a background child."""

    async def works_first(ctx, state: Loop):
        if not state.open:
            await ctx.schedule_activity("work")
            ctx.continue_as_new(Loop(0, [ctx.start_background_child(kid, 5)]))
        return await ctx.wait_for_child(state.open[0])

    registry = several(job=works_first, kid=kid)
    caplog.set_level(logging.WARNING)
    old = any_world.node(several(other=kid), library=SECOND_LIBRARY)
    node = any_world.node(registry, BUSY)
    any_world.start("job", Loop(), instance_id="one")
    any_world.run(2)
    node.finish(value=1)
    any_world.run(20)
    record = any_world.record("one")
    assert (record.status, record.held, record.row.execution) == (Status.OPEN, False, 1)
    assert caplog.text.count("cannot go on yet") == 1
    old.stop()
    any_world.run(30)
    assert any_world.record("one").row.execution == 2
    assert len(node.attempts) == 2, "the first activity ran once; the second one is the child's"
    node.finish(value=9)
    any_world.run(2)
    assert any_world.output("one") == 9


def test_an_awaited_child_of_an_earlier_lap_is_looked_up_once(world):
    """And again, without haste, where it cannot be read. One of the same lap is not looked up."""
    node = world.node(FAMILY, BUSY)
    read, failures = [], [StoreUnavailable("away"), StoreUnavailable("away")]

    class Reading:
        def get(self, child_id):
            read.append(world.clock.now())
            if failures:
                raise failures.pop()
            return node.provider.directory.get(child_id)

    node.engine._earlier_ends._directory = Reading()
    world.start("parent", Loop(2), instance_id="one")
    world.run(60)
    assert len(read) == 3
    assert read[-1] - read[0] >= 2_000_000
    node.finish(value=7)
    world.run(2)
    assert world.output("one") == 7
    world.start("crowd", Loop(1), instance_id="two")  # both laps in one write
    world.run(5)
    assert len(read) == 3
    node.finish(value=8)
    world.run(2)
    check(world)
