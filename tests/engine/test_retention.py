"""What a node lets go of: laps in the boundary's own write, ended instances when their time has run
out.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from orchestra import OrchestrationRegistry, Retention
from orchestra.errors import Failure, InvalidArgument, RegistrationError, StoreBusy, StoreError
from orchestra.store.changes import IfEnded
from orchestra.store.kinds import ExecutionEnd, Status
from orchestra.store.queries import InstanceQuery
from tests.support.harness import HOLD, SECOND, registry, several


async def spins(ctx, left):
    """A lap without a wait: several are one write."""
    if left:
        ctx.continue_as_new(left - 1)
    return "done"


async def works(ctx, left):
    await ctx.schedule_activity("work", left)
    if left:
        ctx.continue_as_new(left - 1)
    return "done"


async def sleeps(ctx, left):
    """A lap of a minute, for which it is let go of."""
    await ctx.schedule_timer(timedelta(minutes=1))
    if left:
        ctx.continue_as_new(left - 1)
    return "done"


def kept(world, instance_id):
    """Return the executions that have rows and those that have events; both are suffixes (I3)."""
    current = world.record(instance_id).row.execution
    rows = [row.number for row in world.directory.executions(instance_id, limit=10_000)]
    histories = [
        number for number in range(1, current + 1) if world.directory.history(instance_id, number)
    ]
    for numbers in (rows, histories):
        assert numbers == list(range(numbers[0], current + 1))
    return len(rows) - 1, len(histories) - 1


@pytest.mark.parametrize("state", [0, 1])
def test_an_instance_that_is_begun_again_and_again_keeps_as_many_laps_as_any(any_world, state):
    """Its lives may have no boundary at all, or one."""
    any_world.node(registry(spins), retention=Retention(histories=2, executions=3))
    instance_id = any_world.start(state=state)
    any_world.run(1)
    for life in range(12):
        start = any_world.start_change(state=state, instance_id=instance_id)
        any_world.store.commit([replace(start, if_ended=IfEnded.RESTART)])
        any_world.run(1)
        assert any_world.status(instance_id) is Status.COMPLETED
        assert any_world.record(instance_id).row.execution == (life + 2) * (state + 1)
        rows, histories = kept(any_world, instance_id)
        assert rows <= 5
        assert histories <= 3


@pytest.mark.parametrize("orchestration", [spins, works])
@pytest.mark.parametrize(
    ("histories", "executions"), [(1, 1), (1, 5), (3, 7), (10, 10), (7, None), (None, None)]
)
def test_as_many_closed_laps_are_kept_as_was_said_and_less_than_twice_as_many(
    any_world, orchestration, histories, executions
):
    """Scenario 20, at every length of the chain."""
    node = any_world.node(
        registry(orchestration),
        {"work": HOLD},
        retention=Retention(histories=histories, executions=executions),
    )
    instance_id = any_world.start(state=60)
    any_world.run(1)
    while any_world.record(instance_id).status is Status.OPEN:
        if node.running:
            node.finish()
        node.cycle_once()
        closed = any_world.record(instance_id).row.execution - 1
        for kept_of, number in zip(
            (executions, histories), kept(any_world, instance_id), strict=True
        ):
            assert min(closed, kept_of or closed) <= number < 2 * (kept_of or closed + 1)
    assert any_world.record(instance_id).row.execution == 61
    assert any_world.output(instance_id) == "done"


def test_one_write_in_as_many_laps_as_are_kept_lets_go_of_them(any_world):
    node = any_world.node(
        registry(works),
        {"work": lambda run: None},
        retention=Retention(histories=10, executions=20),
    )
    any_world.start(state=100)
    any_world.run(1)
    prunes = [write.prune for write in node.store.writes if write.prune is not None]
    assert [prune.histories for prune in prunes] == list(range(10, 91, 10))
    assert [prune.executions for prune in prunes if prune.executions] == [20, 40, 60, 80]


def test_of_many_laps_never_five_hundred_more_are_kept_than_was_said(world):
    node = world.node(registry(spins), retention=Retention(histories=1000, executions=1000))
    instance_id = world.start(state=1700)
    world.run(1.5)
    assert world.output(instance_id) == "done"
    current, kept_from = 1, 1
    for write in node.store.writes:
        current = write.state.execution
        kept_from = max(kept_from, write.prune.executions + 1 if write.prune else 1)
        assert current - kept_from <= 1000 + 500 + 8, "and the laps of one write"
    assert (current, kept_from) == (1701, 501)


@pytest.mark.slow
def test_a_bound_that_was_lowered_is_reached_in_parts(world):
    async def slows_down(ctx, left):
        if left <= 100:
            await ctx.schedule_activity("work", left)
        if left:
            ctx.continue_as_new(left - 1)

    first = world.node(registry(slows_down), {"work": HOLD})
    instance_id = world.start(state=2600)
    world.run(1.5)
    assert kept(world, instance_id) == (2500, 2500), "all of them so far"
    first.stop()
    node = world.node(
        registry(slows_down),
        {"work": lambda run: None},
        retention=Retention(histories=10, executions=10),
    )
    left = [2500]
    while world.record(instance_id).status is Status.OPEN:
        node.cycle_once()
        left.append(kept(world, instance_id)[0])
    assert max(before - after for before, after in pairwise(left)) in range(900, 1001)
    assert left[-1] < 20


def test_laps_that_are_too_old_go_at_a_boundary_but_for_the_newest_closed_one(any_world):
    """Also after months in one lap: the current execution is never touched (scenario 21)."""
    any_world.node(registry(sleeps), retention=Retention(keep_for=timedelta(minutes=10)))
    instance_id = any_world.start(state=100)
    any_world.run(30 * 60 + 1)
    closed = any_world.record(instance_id).row.execution - 1
    assert closed >= 29
    rows, histories = kept(any_world, instance_id)
    assert rows == histories
    assert 10 <= rows <= 12, "ten minutes, and what goes at the next look"


def test_an_old_lap_goes_also_where_laps_are_rarer_than_it_may_be_old(any_world):
    async def rare(ctx, left):
        await ctx.schedule_timer(timedelta(minutes=10))
        ctx.continue_as_new(left - 1)

    any_world.node(registry(rare), retention=Retention(keep_for=timedelta(minutes=1)))
    instance_id = any_world.start(state=5)
    any_world.run(35 * 60)
    assert any_world.record(instance_id).row.execution == 4
    assert kept(any_world, instance_id) == (1, 1)


def test_a_busy_loop_looks_for_old_laps_a_few_times_while_they_grow_old(any_world):
    async def beats(ctx, left):
        await ctx.schedule_timer(timedelta(seconds=1))
        ctx.continue_as_new(left - 1)

    keep = Retention(histories=None, executions=None, keep_for=timedelta(seconds=80))
    node = any_world.node(registry(beats), retention=keep)
    instance_id = any_world.start(state=1000)
    any_world.run(400)
    looks = [write.prune for write in node.store.writes if write.prune is not None]
    assert len(looks) <= 400 / 10 + 1, "once in an eighth of the time"
    assert 80 - 1 <= kept(any_world, instance_id)[0] <= 80 + 10 + 1


def test_a_write_that_was_refused_does_not_count_as_a_look(any_world):
    node = any_world.node(registry(sleeps), retention=Retention(keep_for=timedelta(minutes=2)))
    instance_id = any_world.start(state=100)
    any_world.run(10 * 60 + 1)
    node.store.replies.extend(["lost before"] * 2)
    any_world.run(5 * 60)
    assert kept(any_world, instance_id)[0] <= 4


def test_each_name_keeps_what_its_registration_says(any_world):
    builder = OrchestrationRegistry.builder().register("short", spins).register("long", spins)
    known = builder.set_retention("short", Retention(histories=2, executions=2)).build()
    any_world.node(known, retention=Retention(histories=20, executions=20))
    short, long = any_world.start("short", 50), any_world.start("long", 50)
    any_world.run(1)
    assert kept(any_world, short)[0] < 4
    assert kept(any_world, long)[0] >= 20


def test_what_a_retention_and_a_registry_refuse():
    for wrong in (
        {"histories": 0},
        {"executions": 0},
        {"histories": 11, "executions": 10},
        {"histories": None},
        {"keep_for": timedelta(0)},
        {"finished": timedelta(days=-1)},
        {"finished": timedelta.max},
        {"keep_for": 3600},
    ):
        with pytest.raises(InvalidArgument):
            Retention(**wrong)
    with pytest.raises(RegistrationError, match="not registered"):
        OrchestrationRegistry.builder().register("a", spins).set_retention("b", Retention()).build()
    with pytest.raises(RegistrationError, match="give Retention"):
        OrchestrationRegistry.builder().register("a", spins).set_retention("a", 10).build()


# --- ended instances ---


@pytest.mark.slow
def test_ended_instances_go_by_themselves_and_open_ones_stay(any_world):
    node = any_world.node(several(spins=spins, works=works), {"work": HOLD})
    any_world.admin.set_expiry({"spins": 3600 * SECOND, "works": 3600 * SECOND})
    ended = [any_world.start("spins", 3) for _ in range(5)]
    going = any_world.start("works", 3)
    any_world.run(3599)
    assert all(any_world.record(instance_id).status is Status.COMPLETED for instance_id in ended)
    any_world.run(3)
    assert [any_world.directory.get(instance_id) for instance_id in ended] == [None] * 5
    assert any_world.record(going).status is Status.OPEN
    node.finish()
    any_world.run(1)
    assert any_world.record(going).row.execution == 2


@pytest.mark.slow
def test_a_backlog_of_ended_instances_goes_beside_the_work(any_world):
    """The others keep their throughput (I12): a batch at a time, and a breath between."""
    node = any_world.node(several(spins=spins, works=works), {"work": lambda run: None})
    any_world.admin.set_expiry({"spins": SECOND})
    for _ in range(300):
        any_world.start("spins", 0)

    def left():
        return len(any_world.directory.list(InstanceQuery(name="spins", limit=1000)))

    while left() == 300:
        any_world.run(0.01)
    assert left() == 300 - 64, "a part of them at a time"
    looping = node.start("works", 3)
    any_world.run(0.001)
    assert any_world.output(looping) == "done"
    assert left() > 0, "the work did not wait for the last of them"
    any_world.run(1)
    assert left() == 0


def test_several_nodes_delete_together(any_world):
    nodes = [any_world.node(registry(spins)) for _ in range(3)]
    any_world.admin.set_expiry({"job": SECOND})
    ended = [any_world.start(state=0) for _ in range(200)]
    any_world.run(10)
    assert [any_world.directory.get(instance_id) for instance_id in ended] == [None] * 200
    assert all(node.alive for node in nodes)


def test_a_node_looks_for_them_once_a_poll_and_writes_nothing_where_there_is_none(any_world):
    node = any_world.node(registry(spins), poll=1.0)
    any_world.run(1.5)
    node.store.forget()
    any_world.run(10)
    assert node.store.calls["expire"] == 10
    assert node.store.groups == []


def test_a_deletion_that_fails_for_good_stops_nothing_else(any_world, caplog):
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=0)
    any_world.run(1)
    node.store.expire = _raising(StoreError("it will never work"))
    node.finish()
    any_world.run(5)
    assert any_world.output(instance_id) == "done"
    assert "could not be deleted" in caplog.text
    node.store.expire = _raising(StoreBusy("later"))
    any_world.run(5)
    del node.store.expire
    other = any_world.start(state=0)
    any_world.run(10)
    node.finish()
    any_world.run(1)
    assert any_world.output(other) == "done"


def test_the_code_that_ends_an_instance_sets_when_it_goes(any_world):
    async def fails(ctx, _):
        raise Failure("no")

    any_world.node(registry(fails))
    any_world.admin.set_expiry({"job": 60 * SECOND})
    instance_id = any_world.start(state=0)
    any_world.run(1)
    record = any_world.record(instance_id)
    assert record.execution.end is ExecutionEnd.FAILED
    assert record.expires_at == record.updated_at + 60 * SECOND


def _raising(error):
    def fail(*_):
        raise error

    return fail


# --- families ---------------------------------------------------------------------------------


async def kid(ctx, grandchildren):
    for _ in range(grandchildren):
        await ctx.start_child("kid", 0)
    return "done"


async def breeds(ctx, state):
    """A lap with children; the state is how many laps are left, and the children of each."""
    left, children, grandchildren = state
    for _ in range(children):
        await ctx.start_child("kid", grandchildren)
    if left:
        ctx.continue_as_new([left - 1, children, grandchildren])
    await ctx.wait_for_event("stop")


async def leaves_open(ctx, left):
    """A lap whose child waits."""
    ctx.start_child("waits", None, on_parent_close="abandon")
    await ctx.schedule_timer(timedelta(seconds=1))
    if left:
        ctx.continue_as_new(left - 1)
    await ctx.wait_for_event("stop")


async def waits(ctx, _):
    return await ctx.wait_for_event("go")


def ids_of(world):
    return {record.row.instance_id for record in world.directory.list(InstanceQuery(limit=10_000))}


def family_of(world, instance_id):
    """Return the children that are there, by the lap that has started them."""
    found = world.directory.list(InstanceQuery(parent=instance_id, limit=10_000))
    return sorted(record.row.parent.execution for record in found)


@pytest.mark.parametrize("children", [1, 3])
def test_ended_children_go_with_the_row_of_their_lap(any_world, children):
    node = any_world.node(
        several(breeds=breeds, kid=kid), retention=Retention(histories=2, executions=4)
    )
    instance_id = any_world.start("breeds", [40, children, 0])
    any_world.run(10)
    rows, _ = kept(any_world, instance_id)
    current = any_world.record(instance_id).row.execution
    laps = family_of(any_world, instance_id)
    assert laps == [lap for lap in range(current - rows, current + 1) for _ in range(children)]
    assert len(ids_of(any_world)) == 1 + len(laps)
    assert node.ended


def test_a_lap_with_more_children_than_one_write_lets_go_leaves_no_backlog(any_world):
    any_world.node(several(breeds=breeds, kid=kid), retention=Retention(histories=1, executions=1))
    instance_id = any_world.start("breeds", [7, 70, 0])
    any_world.run(30)
    assert any_world.record(instance_id).row.execution == 8
    assert set(family_of(any_world, instance_id)) <= {6, 7, 8}


def test_their_own_children_go_with_them(any_world):
    any_world.node(several(breeds=breeds, kid=kid), retention=Retention(histories=1, executions=1))
    instance_id = any_world.start("breeds", [10, 1, 2])
    any_world.run(30)
    assert len(ids_of(any_world)) <= 1 + 3 * 3
    assert instance_id in ids_of(any_world)


def test_open_children_stay_and_go_once_they_have_ended(any_world):
    any_world.node(
        several(leaves_open=leaves_open, waits=waits),
        retention=Retention(histories=1, executions=1),
    )
    instance_id = any_world.start("leaves_open", 30)
    any_world.run(10.5)
    assert family_of(any_world, instance_id) == list(range(1, 12))
    for record in any_world.directory.list(InstanceQuery(parent=instance_id)):
        if record.row.parent.execution <= 5:
            any_world.send(record.row.instance_id, "go", 1)
    any_world.run(10)
    assert family_of(any_world, instance_id) == list(range(6, 22))


def test_children_are_kept_where_that_is_said(any_world):
    registry = (
        OrchestrationRegistry.builder()
        .register("breeds", breeds)
        .register("kid", kid)
        .set_retention("breeds", Retention(histories=1, executions=1, children="keep"))
        .build()
    )
    any_world.node(registry, retention=Retention(histories=1, executions=1))
    instance_id = any_world.start("breeds", [10, 1, 0])
    any_world.run(30)
    assert family_of(any_world, instance_id) == list(range(1, 12))


@pytest.mark.parametrize("fate", ["lost before", "lost after"])
def test_a_lost_reply_of_a_boundary_lets_the_same_children_go(any_world, fate):
    node = any_world.node(
        several(breeds=breeds, kid=kid), retention=Retention(histories=1, executions=2)
    )
    node.store.replies.extend([None, None, fate] * 10)
    instance_id = any_world.start("breeds", [10, 1, 0])
    any_world.run(60)
    rows, _ = kept(any_world, instance_id)
    assert any_world.record(instance_id).row.execution == 11
    assert family_of(any_world, instance_id) == list(range(11 - rows, 12))


def test_a_word_that_is_none_is_refused():
    with pytest.raises(InvalidArgument, match="it takes 'with_lap' or 'keep'"):
        Retention(children="yes")
