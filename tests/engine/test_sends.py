"""What instances send to each other, over engines and stores: with the turn's write, exactly once."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from orchestra.errors import InstanceError, InstanceNotFound
from orchestra.store.changes import Write
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Granted
from orchestra.testing.checker import check_store
from tests.support.ages import SECOND_LIBRARY
from tests.support.harness import HOLD, YEAR, check_rest, several

LOST = pytest.mark.parametrize("lost", ["lost before", "lost after"])


async def tells(ctx, target):
    await ctx.raise_event(target, "news", [ctx.instance_id, ctx.execution_id])
    return "told"


async def asks(ctx, target):
    """Return how the send was refused."""
    try:
        await ctx.raise_event(target, "news", "hello")
    except InstanceError as error:
        return [type(error).__name__, error.instance_id]


async def stops(ctx, target):
    await ctx.cancel(target, "no longer needed")
    return "stopped"


async def hears(ctx, count):
    """Return the next events, in their order."""
    return [await ctx.wait_for_event("news") for _ in range(count)]


async def chats(ctx, state):
    """Answer each event of the other one with an event, a lap for each."""
    other, left = state
    if ctx.instance_id < other:
        ctx.raise_event(other, "ball", left)
        back = await ctx.wait_for_event("ball")
    else:
        back = await ctx.wait_for_event("ball")
        ctx.raise_event(other, "ball", back)
    if left:
        ctx.continue_as_new([other, left - 1])
    return back


async def sends_and_laps(ctx, state):
    target, left = state
    ctx.raise_event(target, "news", left)
    if left:
        ctx.continue_as_new([target, left - 1])
    return "done"


async def sends_and_works(ctx, target):
    ctx.raise_event(target, "news", "hello")
    return await ctx.schedule_activity("work")


async def sends_to_itself(ctx, _):
    await ctx.raise_event(ctx.instance_id, "news", 7)
    return await ctx.wait_for_event("news")


TALK = several(
    tells=tells,
    asks=asks,
    stops=stops,
    hears=hears,
    chats=chats,
    laps=sends_and_laps,
    works=sends_and_works,
    itself=sends_to_itself,
)
BUSY = {"work": HOLD}


def check(world, registry=TALK):
    """Hold the store, where nothing is owned, against all invariants."""
    check_rest(world, [registry])
    check_store(world.provider, registry).raise_if_violated()


def test_instances_of_one_node_talk_without_polling(any_world):
    node = any_world.node(TALK, poll=YEAR, lease=YEAR)
    node.submit(any_world.start_change("hears", 1, instance_id="ear"))
    node.submit(any_world.start_change("tells", "ear", instance_id="mouth"))
    node.run_until_idle()
    assert any_world.output("ear") == [["mouth", 1]]
    assert any_world.output("mouth") == "told"
    assert any_world.kinds("mouth") == [
        "EXECUTION_STARTED",
        "EVENT_SENT",
        "SEND_DELIVERED",
        "EXECUTION_COMPLETED",
    ]
    assert node.store.calls["news"] == 0
    check(any_world)


def test_instances_of_two_nodes_talk_over_the_store(any_world):
    any_world.node(several(tells=tells))
    any_world.node(several(hears=hears))
    any_world.start("hears", 1, instance_id="ear")
    any_world.start("tells", "ear", instance_id="mouth")
    any_world.run(5)
    assert (any_world.output("ear"), any_world.output("mouth")) == ([["mouth", 1]], "told")
    check(any_world)


def test_two_loops_play_ball_over_their_boundaries(any_world):
    any_world.node(TALK)
    any_world.start("chats", ["b", 5], instance_id="a")
    any_world.start("chats", ["a", 5], instance_id="b")
    any_world.run(10)
    assert (any_world.output("a"), any_world.output("b")) == (0, 0)
    assert len(any_world.executions("a")) == len(any_world.executions("b")) == 6
    check(any_world)


def test_a_lap_sends_with_the_write_of_its_boundary_and_in_order(any_world):
    node = any_world.node(TALK)
    any_world.start("hears", 4, instance_id="ear")
    any_world.run(1)
    any_world.start("laps", ["ear", 3], instance_id="mouth")
    any_world.run(3)
    assert any_world.output("ear") == [3, 2, 1, 0]
    assert [event for lap in (1, 2, 3, 4) for event in any_world.kinds("mouth", lap)].count(
        "SEND_DELIVERED"
    ) == 0
    assert len([write for write in node.store.writes if write.instance_id == "mouth"]) == 1
    check(any_world)


def test_an_instance_sends_to_itself(any_world):
    any_world.node(TALK)
    any_world.start("itself", instance_id="me")
    any_world.run(2)
    assert any_world.output("me") == 7
    check(any_world)


def test_a_cancel_reaches_the_other_one_with_its_reason(any_world):
    any_world.node(TALK)
    any_world.start("hears", 1, instance_id="ear")
    any_world.run(1)
    any_world.start("stops", "ear", instance_id="mouth")
    any_world.run(3)
    assert (any_world.status("ear"), any_world.output("mouth")) == (Status.CANCELLED, "stopped")
    assert any_world.record("ear").row.cancel.reason == "no longer needed"
    assert any_world.record("ear").row.cancel.by == "mouth"
    check(any_world)


def test_an_instance_may_ask_itself_to_stop(any_world):
    async def suicidal(ctx, _):
        await ctx.cancel(ctx.instance_id, "enough")
        await ctx.schedule_timer(timedelta(days=1))

    registry = several(suicidal=suicidal)
    any_world.node(registry)
    any_world.start("suicidal", instance_id="me")
    any_world.run(2)
    assert any_world.status("me") is Status.CANCELLED
    check(any_world, registry)


def test_an_event_for_a_child_of_the_same_turn_arrives(any_world):
    async def parent(ctx, _):
        child = ctx.start_child("hears", 1, instance_id="kid")
        ctx.raise_event("kid", "news", "hello")
        return await child

    registry = several(parent=parent, hears=hears)
    any_world.node(registry)
    any_world.start("parent", instance_id="p")
    any_world.run(3)
    assert any_world.output("p") == ["hello"]
    check(any_world, registry)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["nobody", "ended"])
def test_a_refusal_is_an_error_where_the_code_awaits_it(any_world, target, caplog):
    caplog.set_level(logging.WARNING)
    any_world.node(TALK)
    any_world.start("itself", instance_id="ended")
    any_world.run(2)
    any_world.start("asks", target, instance_id="mouth")
    any_world.run(2)
    name = "InstanceNotFound" if target == "nobody" else "InstanceCompleted"
    assert any_world.output("mouth") == [name, target]
    assert "was refused" not in caplog.text
    check(any_world)


@pytest.mark.parametrize("name", ["works", "laps"])
def test_a_refusal_that_no_code_awaits_is_logged_with_both_ids(any_world, name, caplog):
    caplog.set_level(logging.WARNING)
    node = any_world.node(TALK, BUSY)
    any_world.start(name, "nobody" if name == "works" else ["nobody", 0], instance_id="mouth")
    any_world.run(2)
    (line,) = [one.getMessage() for one in caplog.records if "was refused" in one.getMessage()]
    assert "[mouth #1]" in line
    assert "its event 'news' for instance 'nobody' was refused: there is no such instance" in line
    if name == "works":
        node.finish(value="done")
        any_world.run(1)
    assert any_world.output("mouth") == "done"
    check(any_world)


def test_code_that_lets_a_refusal_pass_is_held_and_keeps_its_receipt(any_world):
    async def careless(ctx, target):
        await ctx.raise_event(target, "news")

    async def careful(ctx, target):
        try:
            await ctx.raise_event(target, "news")
        except InstanceNotFound:
            return "noted"

    old = any_world.node(several(job=careless))
    any_world.start("job", "nobody", instance_id="mouth")
    any_world.run(2)
    record = any_world.record("mouth")
    assert (record.held, record.reports) == (True, (2,))
    old.stop()
    mended = several(job=careful)
    any_world.node(mended)
    any_world.run(5)
    assert any_world.output("mouth") == "noted"
    check(any_world, mended)


# --- lost replies, crashes --------------------------------------------------------------------


@LOST
def test_a_send_whose_commit_got_no_reply_happens_once(any_world, lost):
    """Rule 9."""
    node = any_world.node(TALK)
    any_world.start("hears", 1, instance_id="ear")
    any_world.run(1)
    any_world.start("tells", "ear", instance_id="mouth")
    node.store.replies.extend([None, lost])
    any_world.run(30)
    assert (any_world.output("ear"), any_world.output("mouth")) == ([["mouth", 1]], "told")
    check(any_world)


@pytest.mark.parametrize("commits", range(6))
def test_a_node_that_dies_at_any_commit_has_sent_once_or_not_at_all(any_world, commits):
    first = any_world.node(TALK)
    any_world.start("hears", 3, instance_id="ear")
    any_world.start("laps", ["ear", 2], instance_id="mouth")
    for _ in range(commits):
        first.cycle_once()
    first.crash()
    any_world.node(TALK)
    any_world.run(60)
    assert (any_world.output("ear"), any_world.output("mouth")) == ([2, 1, 0], "done")
    check(any_world)


def test_a_receipt_that_comes_after_a_take_over_is_read_from_the_store(any_world):
    first = any_world.node(TALK, BUSY)
    any_world.start("hears", 1, instance_id="ear")
    any_world.start("works", "ear", instance_id="mouth")
    any_world.run(1)
    first.crash()
    second = any_world.node(TALK, BUSY)
    any_world.run(60)
    second.finish(value="done")
    any_world.run(2)
    assert (any_world.output("ear"), any_world.output("mouth")) == (["hello"], "done")
    assert any_world.kinds("mouth").count("SEND_DELIVERED") == 1
    check(any_world)


def test_an_operator_ends_the_sender_and_its_receipt_goes_with_it(any_world):
    node = any_world.node(TALK, BUSY)
    any_world.start("hears", 1, instance_id="ear")
    any_world.start("works", "ear", instance_id="mouth")
    any_world.run(1)
    assert isinstance(any_world.terminate("mouth"), Granted)
    any_world.run(1)
    assert (any_world.status("mouth"), any_world.record("mouth").reports) == (Status.TERMINATED, ())
    del node
    check(any_world)


def test_a_receipt_that_the_lap_did_not_take_leaves_no_row(any_world):
    """I9: the activity's end comes first, and ends the lap."""

    async def leaves_early(ctx, lap):
        work = ctx.schedule_activity("work")
        await ctx.wait_for_event("tick")
        ctx.raise_event("ear", "news", lap)
        await work
        if lap < 2:
            ctx.continue_as_new(lap + 1)

    registry = several(hears=hears, early=leaves_early)
    node = any_world.node(registry, BUSY)
    any_world.start("hears", 2, instance_id="ear")
    any_world.start("early", 1, instance_id="mouth")
    any_world.run(1)
    any_world.send("mouth", "tick")
    ended = False

    def before_commit():
        """End the activity while the write that sends is committed."""
        nonlocal ended
        sends = any(
            isinstance(one, Write) and one.extras.sends for one in node.engine._in_flight.changes
        )
        ended = ended or (sends and node.finish() is None)
        node.store.before_commit = None if ended else before_commit

    node.store.before_commit = before_commit
    any_world.run(1)
    assert ended
    record = any_world.record("mouth")
    assert (record.row.execution, record.reports) == (2, ())
    assert any_world.kinds("mouth", 1).count("SEND_DELIVERED") == 0
    any_world.send("mouth", "tick")
    any_world.run(1)
    node.finish()
    any_world.run(1)
    assert any_world.output("ear") == [1, 2]
    check(any_world, registry)


# --- libraries of other ages ------------------------------------------------------------------


def test_69_code_waits_for_the_last_older_node_and_nothing_runs_twice(any_world, caplog):
    """Scenario 69: a library of level 2 could not read what is sent."""

    async def works_and_tells(ctx, target):
        await ctx.schedule_activity("work")
        await ctx.raise_event(target, "news", "hello")
        return "told"

    registry = several(job=works_and_tells, hears=hears)
    caplog.set_level(logging.WARNING)
    old = any_world.node(several(other=hears), library=SECOND_LIBRARY)
    node = any_world.node(registry, BUSY)
    any_world.start("hears", 1, instance_id="ear")
    any_world.start("job", "ear", instance_id="mouth")
    any_world.run(2)
    node.finish(value=1)
    any_world.run(20)
    record = any_world.record("mouth")
    assert (record.status, record.held) == (Status.OPEN, False)
    assert caplog.text.count("cannot go on yet") == 1
    assert any_world.kinds("mouth") == ["EXECUTION_STARTED", "ACTIVITY_SCHEDULED"]
    old.stop()
    any_world.run(30)
    assert (any_world.output("ear"), any_world.output("mouth")) == (["hello"], "told")
    assert len(node.attempts) == 1, "the activity ran once"
    check(any_world, registry)
