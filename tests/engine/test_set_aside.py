"""Messages that do not decode: set aside in the turn's write, whatever happens to that write."""

from __future__ import annotations

import pytest

from orchestra.store.kinds import HoldKind, Status
from tests.support.ages import FIRST_LIBRARY
from tests.support.harness import check_rest, registry


async def numbers(ctx, _):
    return [await ctx.wait_for_event("go", int), await ctx.wait_for_event("go", int)]


async def numbers_then_stop(ctx, _):
    """Other code of the same shape: it reads no more than the first."""
    found = [await ctx.wait_for_event("go", int), await ctx.wait_for_event("go", int)]
    assert found
    return found


async def anything(ctx, _):
    """Other code of the same version, which reads all that is sent."""
    first = await ctx.wait_for_event("go")
    second = await ctx.wait_for_event("go")
    return [first, second]


def asides(world, instance_id):
    return [
        message.sequence
        for message in world.directory.messages(instance_id)
        if message.aside is not None
    ]


def said_of(caplog, instance_id):
    return [
        record.getMessage()
        for record in caplog.records
        if getattr(record, "instance_id", None) == instance_id
        and "has set aside" in record.getMessage()
    ]


def test_the_instance_goes_on_with_the_next_one(any_world, caplog):
    node = any_world.node(registry(numbers))
    instance_id = any_world.start()
    any_world.run(1)
    any_world.send(instance_id, "go", "bad")
    any_world.run(1)
    record = any_world.record(instance_id)
    assert (record.held, record.set_aside, record.unread_messages) == (False, 1, 0)
    assert dict(record.unread_by_name) == {"go": 1}
    any_world.send(instance_id, "go", 1)
    any_world.send(instance_id, "go", {"no": "number"})
    any_world.send(instance_id, "go", 2)
    any_world.run(1)
    assert any_world.output(instance_id) == [1, 2]
    assert dict(any_world.record(instance_id).unread_at_end) == {"go": 2}
    told = said_of(caplog, instance_id)
    assert len(told) == 2
    assert "message 1, event 'go'" in told[0]
    assert "does not fit int" in told[0]
    assert "\n" not in told[0]
    check_rest(any_world, [node.registry])


@pytest.mark.parametrize("fate", ["lost before", "lost after"])
def test_a_lost_reply_sets_nothing_aside_twice_and_loses_nothing(any_world, fate, caplog):
    node = any_world.node(registry(numbers))
    instance_id = any_world.start()
    any_world.run(1)
    any_world.send(instance_id, "go", "bad")
    any_world.send(instance_id, "go", 1)
    node.store.replies.append(None)  # the claim
    node.store.replies.append(fate)
    any_world.run(5)
    assert asides(any_world, instance_id) == [1]
    any_world.send(instance_id, "go", 2)
    any_world.run(5)
    assert any_world.output(instance_id) == [1, 2]
    check_rest(any_world, [node.registry])


def test_a_node_that_dies_before_the_commit_has_set_nothing_aside(any_world):
    node = any_world.node(registry(numbers))
    instance_id = any_world.start()
    any_world.run(1)
    any_world.send(instance_id, "go", "bad")
    node.store.replies.extend([None, "lost before"])
    node.crash()
    assert asides(any_world, instance_id) == []
    other = any_world.node(registry(numbers))
    any_world.run(40)
    assert asides(any_world, instance_id) == [1]
    any_world.send(instance_id, "go", 1)
    any_world.send(instance_id, "go", 2)
    any_world.run(5)
    assert any_world.output(instance_id) == [1, 2]
    check_rest(any_world, [other.registry])


def test_more_bad_ones_than_fit_into_memory_do_not_keep_the_good_one_out(any_world):
    node = any_world.node(registry(numbers))
    instance_id = any_world.start()
    for start in range(0, 1_500, 100):
        any_world.store.commit(
            [any_world.append_change(instance_id, "go", "bad") for _ in range(start, start + 100)]
        )
    any_world.send(instance_id, "go", 1)
    any_world.send(instance_id, "go", 2)
    any_world.run(5)
    assert any_world.output(instance_id) == [1, 2]
    assert dict(any_world.record(instance_id).unread_at_end) == {"go": 1_000}
    check_rest(any_world, [node.registry])


def test_a_flood_of_them_does_not_flood_the_log(world, caplog):
    world.node(registry(numbers))
    instance_id = world.start()
    world.store.commit([world.append_change(instance_id, "go", "bad") for _ in range(300)])
    world.run(1)
    assert len(said_of(caplog, instance_id)) == 20
    world.run(61)
    world.send(instance_id, "go", "bad")
    world.run(1)
    assert "280 more" in said_of(caplog, instance_id)[-1]


# --- nodes whose code differs -----------------------------------------------------------------


def test_what_other_code_of_the_version_can_read_goes_to_that_code(any_world):
    """A deploy is under way: the version stayed, and the new code reads more."""
    any_world.node(registry(numbers))
    instance_id = any_world.start()
    any_world.run(1)
    any_world.node(registry(anything))
    any_world.run(2)
    any_world.send(instance_id, "go", "text")
    any_world.send(instance_id, "go", 2)
    any_world.run(20)
    assert any_world.output(instance_id) == ["text", 2]
    assert dict(any_world.record(instance_id).unread_at_end) == {}
    check_rest(any_world)  # the code that began it could not repeat its history


def test_what_no_code_of_the_version_can_read_is_set_aside_once_all_have_tried(any_world):
    nodes = [any_world.node(registry(code)) for code in (numbers, numbers_then_stop)]
    instance_id = any_world.start()
    any_world.run(2)
    any_world.send(instance_id, "go", "text")
    any_world.run(20)
    record = any_world.record(instance_id)
    assert (record.held, asides(any_world, instance_id)) == (False, [1])
    any_world.send(instance_id, "go", 1)
    any_world.send(instance_id, "go", 2)
    any_world.run(5)
    assert any_world.output(instance_id) == [1, 2]
    check_rest(any_world, [node.registry for node in nodes])


def test_code_of_another_version_does_not_count(any_world):
    node = any_world.node(registry(numbers))
    instance_id = any_world.start()
    any_world.run(1)
    any_world.node(registry(v2_0_0=anything))
    any_world.run(2)
    any_world.send(instance_id, "go", "text")
    any_world.run(5)
    assert (any_world.record(instance_id).held, asides(any_world, instance_id)) == (False, [1])
    check_rest(any_world, [node.registry])


def test_nothing_is_set_aside_while_an_older_library_works_on_the_store(any_world):
    """It would leave the messages behind when it deletes the instance."""
    any_world.node(registry(v1_0_0=numbers), library=FIRST_LIBRARY, queues=("other",))
    node = any_world.node(registry(numbers))
    instance_id = any_world.start()
    any_world.run(1)
    any_world.send(instance_id, "go", "text")
    any_world.run(5)
    record = any_world.record(instance_id)
    assert (record.held, record.row.hold.kind) == (True, HoldKind.STATE)
    assert "message 1 from" in record.row.hold.detail
    assert (record.unread_messages, record.set_aside) == (1, 0)
    assert any_world.status(instance_id) is Status.OPEN
    check_rest(any_world, [node.registry])
