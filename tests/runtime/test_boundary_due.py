"""``builder.set_boundary``: what it refuses, and what clients see of a boundary that is due."""

from datetime import timedelta

import pytest

from orchestra import (
    HoldKind,
    InstanceCancelled,
    InstanceStatus,
    OrchestrationRegistry,
    RegistrationError,
    Runtime,
)
from orchestra.testing import TestRuntime
from tests.support.kit import bounded, info_when, registry

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)
YEAR = timedelta(days=365)


async def sleeper(ctx, laps: int):
    won = await ctx.race(ctx.schedule_timer(YEAR), ctx.wait_for_boundary_request())
    if laps == 0:
        return won.index
    ctx.continue_as_new(laps - 1)


async def deaf(ctx, laps: int):
    await ctx.schedule_timer(YEAR)
    return laps


def due(function, then="report", after=DAY):
    builder = OrchestrationRegistry.builder().register("job", function)
    return builder.set_boundary("job", due=after, then=then).build()


@bounded
async def test_a_loop_that_should_cross_each_day_crosses_each_day():
    """A year of it, in virtual time."""
    async with TestRuntime(due(sleeper, "nudge")) as env:
        handle = await env.client.start("job", 365, instance_id="one")
        await env.advance(timedelta(days=100, minutes=1))
        info = await handle.info()
        assert info.execution_id == 101
        assert info.boundary_due_at - info.execution_started_at == DAY
        assert not info.boundary_overdue
        await env.advance(timedelta(days=300))
        assert await handle.result() == 1
        events = await env.client.get_history("one")
        (request,) = [event for event in events if event.kind == "boundary_requested"]
        assert request.details["by"] == "boundary due"


@bounded
async def test_what_is_only_reported_is_shown_as_overdue():
    async with TestRuntime(due(deaf)) as env:
        handle = await env.client.start("job", 7)
        await env.run_until_idle()
        info = await handle.info()
        assert (info.boundary_due_at, info.boundary_overdue) == (env.now + DAY, False)
        await env.advance(2 * DAY)
        info = await handle.info()
        assert info.boundary_overdue
        assert info.boundary_requested is None
        await env.advance(YEAR)
        assert await handle.result() == 7
        info = await handle.info()
        assert (info.boundary_due_at, info.boundary_overdue) == (None, False)


@bounded
async def test_what_was_nudged_and_goes_on_stays_overdue_and_shows_who_has_asked():
    async with TestRuntime(due(deaf, "nudge")) as env:
        handle = await env.client.start("job", 7)
        await env.advance(DAY + timedelta(minutes=1))
        info = await handle.info()
        assert info.boundary_overdue
        assert info.boundary_requested is not None
        assert info.boundary_requested.by == "boundary due"
        assert "was due at" in info.boundary_requested.reason


@bounded
async def test_what_is_cancelled_names_the_boundary():
    async with TestRuntime(due(deaf, "cancel")) as env:
        handle = await env.client.start("job", 7)
        await env.advance(2 * DAY)
        with pytest.raises(InstanceCancelled, match="its boundary was due at"):
            await handle.result()


@bounded
async def test_what_is_held_waits_for_an_operator_who_then_knows_that_it_is_due():
    async with TestRuntime(due(deaf, "hold")) as env:
        handle = await env.client.start("job", 7)
        await env.advance(2 * YEAR)
        hold = (await handle.info()).hold
        assert hold is not None
        assert (hold.kind, hold.by) == (HoldKind.OPERATOR, "boundary due")
        assert "its boundary was due at" in hold.detail
        await env.crash()
        await env.advance(2 * YEAR)
        info = await env.client.get_instance_info(handle.instance_id)
        assert (info.status, info.boundary_overdue) == (InstanceStatus.HELD, True)
        await env.client.release(handle.instance_id)
        assert await env.client.handle(handle.instance_id).result() == 7


@bounded
async def test_a_child_is_due_by_its_own_name():
    async def parent(ctx, _):
        return await ctx.start_child("child", 0, instance_id="the-child", returns=int)

    code = (
        OrchestrationRegistry.builder()
        .register("parent", parent)
        .register("child", sleeper)
        .set_boundary("child", due=DAY, then="nudge")
        .build()
    )
    async with TestRuntime(code) as env:
        handle = await env.client.start("parent")
        await env.run_until_idle()
        assert (await handle.info()).boundary_due_at is None
        assert (await env.client.get_instance_info("the-child")).boundary_due_at == env.now + DAY
        await env.advance(2 * DAY)
        assert await handle.result() == 1


@bounded
async def test_a_new_value_counts_from_the_next_boundary_on():
    async with TestRuntime(due(sleeper, "nudge")) as env:
        handle = await env.client.start("job", 3, instance_id="one")
        await env.run_until_idle()
        first = (await handle.info()).boundary_due_at
        await env.upgrade(due(sleeper, "nudge", timedelta(hours=1)))
        info = await env.client.get_instance_info("one")
        assert info.boundary_due_at == first
        await env.advance(DAY + timedelta(minutes=1))
        info = await env.client.get_instance_info("one")
        assert info.execution_id == 2
        assert info.boundary_due_at - info.execution_started_at == timedelta(hours=1)


@bounded
async def test_the_due_time_stays_where_an_event_is_dropped(store):
    async with Runtime(store(), due(deaf), []) as node:
        handle = await node.client.start("job", 1, instance_id="one")
        before = await info_when(handle, lambda info: info.waiting_on)
        await handle.raise_event("noise")
        await info_when(handle, lambda info: info.unread_messages)
        assert await node.client.drop_messages("one", name="noise")
        info = await info_when(handle, lambda info: not info.unread_messages)
        assert info.boundary_due_at == before.boundary_due_at != None  # noqa: E711


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"due": 3600}, "due takes a timedelta"),
        ({"due": timedelta(0)}, "due is 0:00:00; it must be positive"),
        ({"due": timedelta(days=-1)}, "must be positive"),
        ({"due": timedelta(days=40_000)}, "at most"),
        ({"due": DAY, "then": "explode"}, "then must be one of 'report', 'nudge'"),
        ({"due": DAY, "then": None}, "then must be one of"),
        ({"due": DAY, "then": ["nudge"]}, "then must be one of"),
    ],
)
def test_a_boundary_that_cannot_be_is_refused_where_it_is_set(arguments, message):
    builder = OrchestrationRegistry.builder().register("job", deaf)
    with pytest.raises(RegistrationError, match=message):
        builder.set_boundary("job", **arguments)


def test_a_boundary_of_what_is_not_registered_is_refused_by_build():
    builder = OrchestrationRegistry.builder().register("job", deaf)
    with pytest.raises(RegistrationError, match="a boundary is set for 'jobs'"):
        builder.set_boundary("jobs", due=DAY).build()


def test_the_registry_says_when_boundaries_are_due():
    assert registry(deaf).boundaries == {}
    boundary = due(deaf, "nudge").boundaries["job"]
    assert (boundary.after, boundary.then) == (DAY, "nudge")
