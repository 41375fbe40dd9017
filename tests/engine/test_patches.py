"""Branches in place: marks in the store, over crashes, takeovers, holds and libraries of different
ages.
"""

from __future__ import annotations

import pytest

from tests.support.ages import FIRST_LIBRARY
from tests.support.harness import HOLD, check_rest, registry, several


async def old(ctx, _):
    await ctx.schedule_activity("first")
    await ctx.schedule_activity("charge")


async def new(ctx, _):
    await ctx.schedule_activity("first")
    if ctx.patched("tax"):
        await ctx.schedule_activity("tax")
    await ctx.schedule_activity("charge")


WORK = {"first": HOLD, "charge": HOLD, "tax": HOLD}


def test_what_ran_on_the_old_code_goes_on_and_what_comes_later_takes_the_new_way(any_world):
    node = any_world.node(registry(old), WORK)
    before, there = any_world.start(), any_world.start()
    any_world.run(1)
    (run,) = [run for run in node.running.values() if run.key.instance_id == there]
    node.finish(run)
    any_world.run(1)
    node.crash()
    other = any_world.node(registry(new), WORK)
    any_world.run(60)
    names = {run.key.instance_id: run.name for run in other.running.values()}
    assert names == {before: "first", there: "charge"}
    for _ in range(3):
        for run in list(other.running.values()):
            other.finish(run)
        any_world.run(1)
    assert any_world.kinds(before)[3] == "PATCHED"
    assert "PATCHED" not in any_world.kinds(there)
    assert [any_world.executions(one)[0].patches for one in (before, there)] == [("tax",), ()]
    check_rest(any_world, [other.registry])


def test_code_that_comes_there_again_goes_the_way_that_it_went_before(any_world):
    """Its history began without the mark, so it never gets one."""

    async def before(ctx, _):
        for _ in range(3):
            await ctx.schedule_activity("charge")

    async def after(ctx, _):
        for _ in range(3):
            await ctx.schedule_activity("tax" if ctx.patched("tax") else "charge")

    node = any_world.node(registry(before), WORK)
    instance_id = any_world.start()
    any_world.run(1)
    node.crash()
    other = any_world.node(registry(after), WORK)
    any_world.run(60)
    for _ in range(3):
        assert other.the_running().name == "charge"
        other.finish()
        any_world.run(1)
    assert "PATCHED" not in any_world.kinds(instance_id)
    check_rest(any_world, [other.registry])


def test_the_mark_stands_with_the_turn_that_recorded_it_and_outlives_its_node(any_world):
    node = any_world.node(registry(new), WORK)
    instance_id = any_world.start()
    any_world.run(1)
    node.finish()
    any_world.run(1)
    assert any_world.executions(instance_id)[0].patches == ("tax",)
    node.crash()
    other = any_world.node(registry(new), WORK)
    any_world.run(60)
    assert other.the_running().name == "tax"
    other.finish()
    any_world.run(1)
    other.finish()
    any_world.run(1)
    assert any_world.kinds(instance_id).count("PATCHED") == 1
    check_rest(any_world, [other.registry])


@pytest.mark.parametrize("fate", ["lost before", "lost after"])
def test_a_mark_of_a_write_whose_reply_is_lost_is_recorded_once(any_world, fate):
    node = any_world.node(registry(new), WORK)
    instance_id = any_world.start()
    any_world.run(1)
    node.finish()
    node.store.replies.append(fate)
    any_world.run(60)
    assert any_world.executions(instance_id)[0].patches == ("tax",)
    assert any_world.kinds(instance_id).count("PATCHED") == 1


def test_several_marks_of_several_turns_stand_in_the_row(any_world):
    async def subject(ctx, left):
        ctx.patched("one")
        ctx.patched("two")
        await ctx.schedule_activity("first")
        ctx.patched("three")
        ctx.patched("one")
        if left:
            ctx.continue_as_new(left - 1)
        await ctx.schedule_activity("charge")

    node = any_world.node(registry(subject), WORK)
    instance_id = any_world.start(state=1)
    any_world.run(1)
    assert any_world.executions(instance_id)[0].patches == ("one", "two")
    node.finish()
    any_world.run(1)
    assert [row.patches for row in any_world.executions(instance_id)] == [
        ("one", "two", "three"),
        ("one", "two"),
    ]


def test_a_mark_in_the_write_that_opens_an_execution_is_in_its_row(any_world):
    async def subject(ctx, _):
        if ctx.patched("start"):
            await ctx.schedule_activity("first")

    any_world.node(registry(subject), WORK)
    instance_id = any_world.start()
    any_world.run(1)
    assert any_world.executions(instance_id)[0].patches == ("start",)


def test_a_turn_that_is_held_leaves_no_mark_and_the_mended_code_may_ask(any_world):
    async def broken(ctx, _):
        await ctx.schedule_activity("first")
        ctx.patched("broken")
        raise KeyError("no")

    node = any_world.node(registry(broken), WORK)
    instance_id = any_world.start()
    any_world.run(1)
    node.finish()
    any_world.run(1)
    assert any_world.record(instance_id).held
    assert any_world.executions(instance_id)[0].patches == ()
    node.leave()
    other = any_world.node(registry(new), WORK)
    any_world.run(60)
    assert other.the_running().name == "tax"
    assert any_world.executions(instance_id)[0].patches == ("tax",)


def test_while_a_node_with_an_older_library_lives_no_mark_is_written(any_world):
    any_world.node(several(other=new), library=FIRST_LIBRARY)
    node = any_world.node(registry(new), WORK)
    instance_id = any_world.start()
    any_world.run(1)
    node.finish()
    any_world.run(1)
    assert node.the_running().name == "charge", "as on its replay, for there is no mark"
    assert any_world.executions(instance_id)[0].patches == ()
    node.crash()
    again = any_world.node(registry(new), WORK)
    any_world.run(60)
    assert again.the_running().name == "charge"
