"""Starts for later: nothing but a cancel or an end from outside comes before their time."""

from __future__ import annotations

from orchestra.store.changes import Write
from orchestra.store.instances import InstanceState
from orchestra.store.kinds import Status
from tests.support.harness import SECOND, check_rest, registry


async def waits(ctx, _):
    return [ctx.now().timestamp(), await ctx.wait_for_event("go", int)]


def later(world, seconds=60):
    return world.clock.now() + seconds * SECOND


def assert_begun(begun, at):
    """At that time, on a clock that goes on by microseconds."""
    assert at / SECOND <= begun < at / SECOND + 0.1


def test_it_begins_at_its_time_with_the_events_that_came_before(any_world):
    node = any_world.node(registry(waits))
    at = later(any_world)
    instance_id = any_world.start(not_before=at)
    any_world.run(10)
    any_world.send(instance_id, "go", 7)
    any_world.run(40)
    assert any_world.events(instance_id) == []
    any_world.run(20)
    begun, value = any_world.output(instance_id)
    assert value == 7
    assert_begun(begun, at)
    check_rest(any_world, [node.registry])


def test_a_cancel_ends_it_before_its_time_without_running_code(any_world):
    node = any_world.node(registry(waits))
    instance_id = any_world.start(not_before=later(any_world))
    any_world.run(5)
    any_world.send(instance_id, "go", 7)
    any_world.cancel(instance_id)
    any_world.run(5)
    assert any_world.status(instance_id) is Status.CANCELLED
    assert any_world.events(instance_id) == []
    check_rest(any_world, [node.registry])


def test_a_terminate_ends_it_before_its_time(any_world):
    node = any_world.node(registry(waits))
    instance_id = any_world.start(not_before=later(any_world))
    any_world.run(5)
    any_world.terminate(instance_id)
    any_world.run(5)
    assert any_world.status(instance_id) is Status.TERMINATED
    check_rest(any_world, [node.registry])


def test_an_operators_write_that_makes_it_ready_does_not_begin_it_early(any_world):
    """So does the store of an older library, and a clock that was put back."""
    node = any_world.node(registry(waits))
    at = later(any_world)
    instance_id = any_world.start(not_before=at)
    any_world.send(instance_id, "go", 7)
    record = any_world.record(instance_id)
    row = record.row
    state = InstanceState(
        kind=row.kind,
        owner=None,
        wake_at=0,
        seen_seq=row.seen_seq,
        execution=1,
        opened=False,
        takeovers=0,
        status=Status.OPEN,
        history_events=0,
        history_bytes=0,
        summary=record.summary,
    )
    any_world.store.commit([Write(instance_id, row.incarnation, row.revision, None, state)])
    any_world.run(30)
    assert any_world.events(instance_id) == []
    parked = any_world.record(instance_id).row
    assert (parked.owner, parked.wake_at) == (None, at)
    any_world.run(31)
    assert_begun(any_world.output(instance_id)[0], at)
    check_rest(any_world, [node.registry])


def test_the_end_of_the_only_node_does_not_begin_it_early(any_world):
    node = any_world.node(registry(waits))
    at = later(any_world)
    instance_id = any_world.start(not_before=at)
    any_world.run(5)
    node.crash()
    any_world.send(instance_id, "go", 7)
    any_world.run(10)
    other = any_world.node(registry(waits))
    any_world.run(30)
    assert any_world.events(instance_id) == []
    any_world.run(60)
    begun, value = any_world.output(instance_id)
    assert value == 7
    assert_begun(begun, at)
    check_rest(any_world, [other.registry])
