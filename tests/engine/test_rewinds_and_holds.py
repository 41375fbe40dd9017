"""Scenarios 67 and 68: rewinds and operators' holds that meet boundaries, cancels, ends of children,
changes of policies, turns and activities, in both orders.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest

from orchestra.errors import InstanceNotHeld, InvalidArgument
from orchestra.events import TimerFired
from orchestra.operations.hold import hold, release
from orchestra.operations.rewind import Rewinding, rewind
from orchestra.operations.steps import Submit
from orchestra.retention import Retention
from orchestra.store.kinds import THIS_LIBRARY, ExecutionEnd, ResolvedBy, Status
from orchestra.testing.checker import check_store
from orchestra.versions import Exact, Latest
from tests.support.harness import HOLD, performed, registry, several

BOTH_ORDERS = pytest.mark.parametrize("first", ["operator", "node"])


async def works(ctx, laps):
    await ctx.schedule_activity("work", laps)
    if laps:
        ctx.continue_as_new(laps - 1)
    return "done"


async def works_too(ctx, laps):
    await works(ctx, laps)
    return "done in 1.1.0"


async def naps(ctx, _):
    await ctx.schedule_timer(timedelta(minutes=5))
    await ctx.schedule_activity("work")
    return "rested"


async def waits(ctx, _):
    await ctx.wait_for_event("go")
    return "heard"


async def hears_and_works(ctx, _):
    word, _ = await ctx.gather(ctx.wait_for_event("go", str), ctx.schedule_activity("work"))
    return word


async def collects(ctx, words):
    ctx.continue_as_new([*words, await ctx.wait_for_event("go", int)])


async def parent(ctx, laps):
    told = await ctx.start_child("child", None, instance_id=f"{ctx.instance_id} {laps}")
    await ctx.wait_for_event("next")
    if laps:
        ctx.continue_as_new(laps - 1)
    return told


def check_rest(world, registries):
    """Check the whole store, over a connection of its own."""
    provider = world._make_provider(world.clock)
    check_store(provider, registries[0], quiescent=False).raise_if_violated()


def back(world, instance_id, execution=1, **options):
    """Rewind an instance as a client does."""
    return performed(
        world, rewind(rewinding(world, instance_id, execution, **options), THIS_LIBRARY)
    )


def rewinding(
    world, instance_id, execution=1, *, pins=False, children="abandon", request_id="back"
):
    return Rewinding(
        instance_id=instance_id,
        execution=execution,
        version=None,
        pins=pins,
        children=children,
        by="ops",
        reason="a test",
        request_id=request_id,
        incarnation=world.id("incarnation"),
    )


def pause(world, instance_id):
    return performed(world, hold(instance_id, THIS_LIBRARY, by="ops", reason="look"))


def go_on(world, instance_id):
    return performed(world, release(instance_id, THIS_LIBRARY, by="ops"))


def finish_all(world, *nodes, instance_id):
    """Let activities return until an instance has ended."""
    for _ in range(20):
        for node in nodes:
            for run in list(node.running.values()):
                node.finish(run)
        world.run(1.1)
        if world.status(instance_id) is not Status.OPEN:
            return
    raise AssertionError("it does not end")


def meeting(operation, *meanwhile):
    """Perform an operation. Before its n-th submission comes what happens meanwhile."""
    answer, happen = None, iter(meanwhile)
    while True:
        try:
            step = operation.send(answer)
        except StopIteration as end:
            return end.value
        if isinstance(step, Submit):
            next(happen, lambda: None)()
        answer = yield step


def amid(operation, each, happens):
    """Perform an operation. Again and again, after so many of its steps, something else happens."""
    answer, steps = None, 0
    while True:
        try:
            step = operation.send(answer)
        except StopIteration as end:
            return end.value
        answer = yield step
        steps += 1
        if steps % each == 0:
            happens()


# --- rewinds ----------------------------------------------------------------------------------


def test_no_loop_is_too_fast_for_a_rewind_over_many_laps(any_world):
    """Its owner writes a lap while the operator reads a few: each try reads only what is new."""
    node = any_world.node(registry(collects))
    instance_id = any_world.start(state=[])
    for _ in range(40):
        any_world.send(instance_id, "go", 0)
    any_world.run(2)
    before = any_world.record(instance_id).row.execution

    def another_lap():
        any_world.send(instance_id, "go", 0)
        any_world.run(1.1)

    asked = rewinding(any_world, instance_id)
    done = performed(any_world, amid(rewind(asked, THIS_LIBRARY), 8, another_lap))
    laps = done.execution - 1
    assert laps > before, "it went on meanwhile"
    assert done.restored == laps - 1, "the last lap has read nothing"
    assert words(any_world, instance_id, laps) == []
    check_rest(any_world, [node.registry])


async def starts_what_nobody_has(ctx, _):
    ctx.start_detached("later", instance_id="early")


@pytest.mark.parametrize("pins", [True, False])
@pytest.mark.parametrize("has_ended", [True, False])
def test_what_never_had_a_version_is_not_rewound_to_the_one_that_it_had(any_world, pins, has_ended):
    """It waits for the first version of its name. Rewound to none, it would wait for ever."""
    any_world.node(several(job=starts_what_nobody_has))
    any_world.start()
    any_world.run(1.1)
    if has_ended:
        any_world.terminate("early")
        any_world.run(1.1)
    asked = rewinding(any_world, "early", pins=pins)
    with pytest.raises(InvalidArgument, match="execution 1 of 'early' never had a version"):
        performed(any_world, rewind(asked, THIS_LIBRARY))
    assert any_world.record("early").row.execution == 1, "nothing was done"

    performed(any_world, rewind(replace(asked, version="1.0.0"), THIS_LIBRARY))
    deployed = any_world.node(several(job=starts_what_nobody_has, later=waits))
    any_world.send("early", "go", None)
    any_world.run(3)
    assert any_world.status("early") is Status.COMPLETED
    check_rest(any_world, [deployed.registry])


def test_a_rewind_that_raced_with_the_first_turn_brings_back_what_that_turn_received(any_world):
    """Its first write meets a claim; the turn is written before it can fence the owner off."""
    node = any_world.node(registry(hears_and_works), {"work": HOLD})
    instance_id = any_world.start()
    any_world.send(instance_id, "go", "heard")

    def claim():
        while any_world.record(instance_id).row.owner is None:
            node.cycle_once()
        assert not any_world.record(instance_id).row.opened

    asked = rewinding(any_world, instance_id)
    done = performed(any_world, meeting(rewind(asked, THIS_LIBRARY), claim, node.run_until_idle))
    assert [row.opened_at is None for row in any_world.executions(instance_id)] == [False, True]
    assert done.restored == 1
    any_world.run(2)
    node.finish()
    any_world.run(1.1)
    assert any_world.output(instance_id) == "heard"
    check_rest(any_world, [node.registry])


@BOTH_ORDERS
def test_a_rewind_meets_a_boundary(any_world, first):
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=1)
    any_world.run(1)
    node.finish()
    if first == "operator":
        node.store.before_commit = lambda: back(any_world, instance_id)
        any_world.run(1)
    else:
        any_world.run(1)
        back(any_world, instance_id)
    ends = [row.end for row in any_world.executions(instance_id)]
    boundaries = 1 if first == "node" else 0
    assert ends.count(ExecutionEnd.REWOUND) == 1
    assert ends.index(ExecutionEnd.REWOUND) == boundaries
    finish_all(any_world, node, instance_id=instance_id)
    laps = [row.end for row in any_world.executions(instance_id)]
    assert laps.count(ExecutionEnd.CONTINUED_AS_NEW) == boundaries + 1
    check_rest(any_world, [node.registry])


@BOTH_ORDERS
def test_a_rewind_meets_a_cancel(any_world, first):
    """The rewind clears a mark that stands; one that comes afterwards counts."""
    node = any_world.node(registry(waits), {})
    instance_id = any_world.start()
    any_world.run(1)
    if first == "operator":
        back(any_world, instance_id)
        any_world.cancel(instance_id)
        any_world.run(2)
        assert any_world.status(instance_id) is Status.CANCELLED
    else:
        any_world.cancel(instance_id)
        back(any_world, instance_id)
        any_world.run(2)
        assert any_world.record(instance_id).row.cancel is None
        any_world.send(instance_id)
        any_world.run(1.1)
        assert any_world.output(instance_id) == "heard"
    check_rest(any_world, [node.registry])


@BOTH_ORDERS
@pytest.mark.parametrize("children", ["abandon", "cancel"])
def test_a_rewind_meets_the_end_of_a_child(any_world, first, children):
    both = several(job=parent, child=waits)
    any_world.node(both)
    instance_id = any_world.start(state=0)
    any_world.run(1)
    child_id = f"{instance_id} 0"
    if first == "operator":
        back(any_world, instance_id, children=children)
        any_world.send(child_id)
    else:
        any_world.send(child_id)
        any_world.run_until_idle()
        back(any_world, instance_id, children=children)
    any_world.run(3)
    record = any_world.record(instance_id)
    assert record.row.execution == 2
    child = any_world.record(child_id)
    if child.status is Status.OPEN:  # the next lap has begun it again
        assert child.row.parent.execution == 2
        any_world.send(child_id)
        any_world.run(2)
    any_world.send(instance_id, "next")
    any_world.run(2)
    assert any_world.status(instance_id) is not Status.OPEN
    check_rest(any_world, [both])


@BOTH_ORDERS
@pytest.mark.parametrize("pins", [True, False])
def test_a_rewind_meets_a_change_of_policy(any_world, first, pins):
    """A rewound lap keeps the version that the operator has named; the next one follows the
    policy, unless it is pinned.
    """
    both = registry(v1_0_0=works, v1_1_0=works_too)
    any_world.set_policy(Exact("1.0.0"))
    node = any_world.node(both, {"work": HOLD})
    any_world.run(2)
    instance_id = any_world.start(state=1)
    any_world.run(1)
    if first == "operator":
        back(any_world, instance_id, pins=pins)
        any_world.set_policy(Latest())
    else:
        any_world.set_policy(Latest())
        back(any_world, instance_id, pins=pins)
    any_world.run(3)
    finish_all(any_world, node, instance_id=instance_id)
    rows = any_world.executions(instance_id)
    assert [row.version for row in rows] == ["1.0.0", "1.0.0", "1.0.0" if pins else "1.1.0"]
    hows = [row.resolution.how for row in rows]
    expected = [ResolvedBy.PIN] * 2 if pins else [ResolvedBy.REWIND, ResolvedBy.POLICY]
    assert hows[1:] == expected
    check_rest(any_world, [both])


def words(world, instance_id, execution=-1):
    """Return what the state of an execution has read."""
    return json.loads(world.executions(instance_id)[execution].state.data)


def test_a_rewind_to_an_execution_that_was_undone_reads_nothing_twice(any_world):
    node = any_world.node(registry(collects))
    instance_id = any_world.start(state=[])
    for word in range(4):
        any_world.send(instance_id, "go", word)
    any_world.run(2)
    pause(any_world, instance_id)
    back(any_world, instance_id, 1, request_id="to the first")
    done = back(any_world, instance_id, 3, request_id="to one that was undone")
    assert (done.restored, words(any_world, instance_id)) == (0, [0, 1])
    assert [one.sequence for one in any_world.directory.messages(instance_id)] == [3, 4]
    back(any_world, instance_id, 2, request_id="further back")
    back(any_world, instance_id, done.execution, request_id="there again")
    assert [one.sequence for one in any_world.directory.messages(instance_id)] == [3, 4]
    go_on(any_world, instance_id)
    any_world.run(2)
    assert words(any_world, instance_id) == [0, 1, 2, 3]
    assert any_world.directory.messages(instance_id) == []
    check_rest(any_world, [node.registry])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("histories", [None, 2])
def test_rewinds_in_any_order_read_each_event_once(any_world, seed, histories):
    """Back, forth to what was undone, several times in a row, and after the end. Whichever way was
    taken, the state and the inbox together have each event once.
    """
    random = Random(seed)
    kept = Retention(histories=histories, executions=None)
    node = any_world.node(registry(collects), retention=kept)
    instance_id = any_world.start(state=[])
    sent, lost = 0, False
    for number in range(15):
        for _ in range(random.randrange(4)):
            any_world.send(instance_id, "go", sent)
            sent += 1
        if random.random() < 0.6:
            any_world.run(2)
            if random.random() < 0.2:
                any_world.terminate(instance_id)
        target = random.randint(1, any_world.record(instance_id).row.execution)
        expected = words(any_world, instance_id, target - 1)
        done = back(any_world, instance_id, target, request_id=f"{number}")
        lost = lost or bool(done.lost)
        assert words(any_world, instance_id) == expected
        unread = [message.sequence - 1 for message in any_world.directory.messages(instance_id)]
        assert not set(expected) & set(unread)
        assert lost or sorted([*expected, *unread]) == list(range(sent))
    any_world.run(2)
    collected = words(any_world, instance_id)
    assert len(set(collected)) == len(collected)
    assert lost or sorted(collected) == list(range(sent))
    assert lost is (histories is not None)
    check_rest(any_world, [node.registry])


# --- holds ------------------------------------------------------------------------------------


@BOTH_ORDERS
def test_a_hold_meets_a_turn_that_reaches_a_boundary(any_world, first):
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=1)
    any_world.run(1)
    node.finish()
    if first == "operator":
        node.store.before_commit = lambda: pause(any_world, instance_id)
        any_world.run(1)
    else:
        any_world.run(1)
        pause(any_world, instance_id)
    any_world.run(60)
    record = any_world.record(instance_id)
    assert record.row.execution == (1 if first == "operator" else 2)
    assert (record.held, record.row.owner) == (True, None)
    assert node.running == {}, "nothing runs under a hold"
    go_on(any_world, instance_id)
    any_world.run(2)
    finish_all(any_world, node, instance_id=instance_id)
    assert len(any_world.executions(instance_id)) == 2
    check_rest(any_world, [node.registry])


@BOTH_ORDERS
def test_a_hold_meets_the_end_of_an_activity(any_world, first):
    """What ended before the hold counts; what was running runs anew, as the same attempt."""
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=0)
    any_world.run(1)
    run = node.the_running()
    if first == "operator":
        pause(any_world, instance_id)
        node.finish(run)
    else:
        node.finish(run)
        any_world.run_until_idle()
        if any_world.status(instance_id) is Status.OPEN:
            pause(any_world, instance_id)
    any_world.run(60)
    if first == "node":
        assert any_world.status(instance_id) is Status.COMPLETED
        return
    assert any_world.status(instance_id) is Status.OPEN
    go_on(any_world, instance_id)
    any_world.run(2)
    assert node.the_running().attempt == 1
    finish_all(any_world, node, instance_id=instance_id)
    check_rest(any_world, [node.registry])


def test_a_timer_that_came_due_under_a_hold_fires_once_behind_it(any_world):
    node = any_world.node(registry(naps), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    pause(any_world, instance_id)
    any_world.run(3_600)
    assert not [one for one in any_world.events(instance_id) if isinstance(one, TimerFired)]
    go_on(any_world, instance_id)
    any_world.run(2)
    finish_all(any_world, node, instance_id=instance_id)
    fired = [one for one in any_world.events(instance_id) if isinstance(one, TimerFired)]
    assert len(fired) == 1
    assert any_world.output(instance_id) == "rested"
    check_rest(any_world, [node.registry])


def test_a_timer_that_is_not_due_yet_keeps_its_time_over_a_hold(any_world):
    node = any_world.node(registry(naps), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    pause(any_world, instance_id)
    any_world.run(60)
    go_on(any_world, instance_id)
    any_world.run(180)
    assert node.running == {}, "it is not early"
    any_world.run(61)
    assert node.the_running().name == "work"
    finish_all(any_world, node, instance_id=instance_id)
    check_rest(any_world, [node.registry])


def test_new_code_does_not_end_an_operators_hold(any_world):
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start(state=0)
    any_world.run(1)
    pause(any_world, instance_id)
    node.stop()
    later = any_world.node(registry(v1_0_0=works_too), {"work": HOLD})
    any_world.run(60)
    assert any_world.record(instance_id).row.paused
    assert later.running == {}
    go_on(any_world, instance_id)
    any_world.run(2)
    finish_all(any_world, later, instance_id=instance_id)


@pytest.mark.parametrize("lost", ["lost before", "lost after"])
def test_a_hold_whose_reply_is_lost_is_put_once(any_world, lost):
    node = any_world.node(registry(waits))
    instance_id = any_world.start()
    any_world.run(1)
    node.store.replies.append(lost)
    performed(any_world, hold(instance_id, THIS_LIBRARY, by="ops", reason="x"), node=node)
    assert any_world.record(instance_id).row.paused
    node.store.replies.append(lost)
    # Who asks again finds no hold: it cannot be told from one that another operator has released.
    with suppress(InstanceNotHeld):
        performed(any_world, release(instance_id, THIS_LIBRARY, by="ops"), node=node)
    assert not any_world.record(instance_id).row.paused
    any_world.send(instance_id)
    any_world.run(2)
    assert any_world.output(instance_id) == "heard"
    check_rest(any_world, [node.registry])
