"""Requests on engines: a write level that is too low, deaths between receiving and answering, a
lost reply, and who wakes for what (scenarios 69 and 75).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestra.codec import plain
from orchestra.errors import LevelTooLow
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Appended
from tests.support.ages import SECOND_LIBRARY
from tests.support.harness import HOLD, check_rest, registry, several


async def answering(ctx, laps):
    request = await ctx.wait_for_request("ask", int, returns=int)
    await ctx.schedule_activity("work")
    request.reply(request.value + 1)
    if request.value == 0:
        return laps
    ctx.continue_as_new((laps or 0) + 1)


def ask(world, instance_id, value, request_id="r1"):
    change = replace(world.append_change(instance_id, "ask", value, request_id), asks=True)
    return world.store.commit([change]).outcomes[0]


def answer_to(world, instance_id, request_id="r1"):
    state = world.directory.request(instance_id, request_id)
    return state.row.answer and plain(state.row.answer.value)


def test_a_request_that_was_received_survives_the_death_of_its_node(any_world):
    node = any_world.node(registry(answering), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    assert isinstance(ask(any_world, instance_id, 5), Appended)
    any_world.run(1)
    assert node.the_running().name == "work"
    assert "REQUEST_RECEIVED" in any_world.kinds(instance_id)
    node.crash()
    other = any_world.node(registry(answering), {"work": HOLD})
    any_world.run(60)
    other.finish()
    any_world.run(1)
    assert answer_to(any_world, instance_id) == 6
    assert any_world.record(instance_id).row.execution == 2
    assert any_world.kinds(instance_id)[-1] == "REQUEST_AWAITED", "it was not received again"
    assert not ask(any_world, instance_id, 5).fresh
    ask(any_world, instance_id, 0, "r2")
    any_world.run(1)
    other.finish()
    any_world.run(1)
    assert (any_world.status(instance_id), any_world.output(instance_id)) == (Status.COMPLETED, 1)
    check_rest(any_world, [other.registry])


@pytest.mark.parametrize("fate", ["lost before", "lost after"])
def test_a_lost_reply_to_the_write_that_answers_answers_once(any_world, fate):
    node = any_world.node(registry(answering), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    ask(any_world, instance_id, 5)
    any_world.run(1)
    node.finish()
    node.store.replies.append(fate)
    any_world.run(30)
    if node.running:  # the write had not come, and what ran was lost with the node's memory
        node.finish()
        any_world.run(1)
    assert answer_to(any_world, instance_id) == 6
    assert any_world.record(instance_id).row.execution == 2
    assert any_world.kinds(instance_id)[-1] == "REQUEST_AWAITED", "it was not received again"


def test_a_request_in_hand_lets_its_instance_rest(any_world):
    node = any_world.node(registry(answering), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    ask(any_world, instance_id, 5)
    any_world.run(1)
    commits = node.store.calls["commit"]
    any_world.run(30)
    assert node.store.calls["commit"] == commits, "it stays in the inbox and wakes nothing"


def test_while_a_node_with_an_older_library_lives_code_waits_and_is_not_held(any_world):
    """The turn is made again once the level has risen; nothing of it was stored before."""
    old = any_world.node(several(other=answering), library=SECOND_LIBRARY)
    node = any_world.node(registry(answering), {"work": HOLD})
    assert any_world.store.catalogue().levels.write == 2
    instance_id = any_world.start()
    any_world.run(10)
    record = any_world.record(instance_id)
    assert (record.held, record.status, record.row.opened) == (False, Status.OPEN, False)
    assert record.row.takeovers == 0
    with pytest.raises(LevelTooLow):
        ask(any_world, instance_id, 5)
    turns = node.store.calls["commit"]
    any_world.run(10)
    assert node.store.calls["commit"] - turns < 40, "it does not spin"
    old.leave()
    any_world.run(30)
    assert any_world.store.catalogue().levels.write == 3
    assert any_world.kinds(instance_id) == ["EXECUTION_STARTED", "REQUEST_AWAITED"]
    ask(any_world, instance_id, 5)
    any_world.run(1)
    node.finish()
    any_world.run(1)
    assert answer_to(any_world, instance_id) == 6


def test_code_that_comes_to_a_request_in_a_later_turn_waits_there_and_repeats_no_activity(
    any_world,
):
    async def later(ctx, _):
        await ctx.schedule_activity("work")
        request = await ctx.wait_for_request("ask", int)
        request.reply(1)
        await ctx.wait_for_event("end")

    old = any_world.node(several(other=answering), library=SECOND_LIBRARY)
    node = any_world.node(registry(later), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    node.finish()
    any_world.run(10)
    assert any_world.kinds(instance_id) == ["EXECUTION_STARTED", "ACTIVITY_SCHEDULED"]
    assert not any_world.record(instance_id).held
    assert not node.running, "what has ended is kept, and never runs again"
    old.leave()
    any_world.run(30)
    assert any_world.kinds(instance_id) == [
        "EXECUTION_STARTED",
        "ACTIVITY_SCHEDULED",
        "ACTIVITY_COMPLETED",
        "REQUEST_AWAITED",
    ]
    ask(any_world, instance_id, 5)
    any_world.run(1)
    assert answer_to(any_world, instance_id) == 1
