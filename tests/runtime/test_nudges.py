"""Nudges and marks of patches through the client: a loop that sleeps a year is asked to cross
now.
"""

from datetime import UTC, datetime, timedelta

import pytest

from orchestra import (
    AlreadyCompleted,
    BoundaryRequest,
    Client,
    InstanceNotFound,
    InstanceStatus,
    InvalidArgument,
    LevelTooLow,
    Runtime,
    WaitingOn,
    activity,
)
from orchestra.testing import TestRuntime
from tests.support.ages import FIRST_LIBRARY
from tests.support.kit import bounded, info_when, registry, virtual

pytestmark = pytest.mark.anyio

YEAR = timedelta(days=365)


async def sleeper(ctx, laps: int):
    won = await ctx.race(ctx.schedule_timer(YEAR), ctx.wait_for_boundary_request())
    if laps == 3:
        return [won.index, ctx.boundary_requested]
    ctx.continue_as_new(laps + 1)


async def listener(ctx, _):
    request = await ctx.wait_for_boundary_request()
    return [request.by, request.reason]


@bounded
async def test_a_loop_that_sleeps_a_year_crosses_now(store):
    """In a node, by a client in another process: on each store and event loop."""
    async with Runtime(store(), registry(sleeper), []) as node:
        handle = await node.client.start("sleeper", 1, instance_id="one")
        await info_when(handle, lambda info: info.waiting_on)
        async with Client(store()) as client:
            assert await client.nudge("one", reason="2.0.0 is out", by="ops") is True
        info = await info_when(handle, lambda info: info.execution_id == 2 and info.waiting_on)
        assert info.boundary_requested is None
        assert [wait.kind for wait in info.waiting_on] == ["timer", "boundary_request"]
        assert await node.client.nudge("one") is True
        info = await info_when(handle, lambda info: info.execution_id == 3 and info.waiting_on)
        assert await node.client.nudge("one") is True
        assert await handle.result() == [1, True]
        events = await node.client.get_history("one", execution_id=1)
        (request,) = [event for event in events if event.kind == "boundary_requested"]
        assert (request.details["by"], request.details["reason"]) == ("ops", "2.0.0 is out")


async def deaf(ctx, laps: int):
    await ctx.wait_for_event("go")
    ctx.continue_as_new(laps + 1)


@bounded
async def test_the_info_says_who_has_asked_when_and_why_until_the_boundary(database):
    async with virtual(database, deaf) as env:
        handle = await env.client.start("deaf", 1)
        await env.run_until_idle()
        assert (await handle.info()).boundary_requested is None
        at = env.now
        await env.client.nudge(handle.instance_id, reason="soon", by="ops")
        await env.run_until_idle()
        assert (await handle.info()).boundary_requested == BoundaryRequest(at, "ops", "soon")
        await handle.raise_event("go")
        await env.run_until(handle, execution=2)
        assert (await handle.info()).boundary_requested is None


@bounded
async def test_the_client_is_the_author_where_none_is_named(database):
    async with virtual(database, listener) as env:
        handle = await env.client.start("listener")
        await env.run_until_idle()
        info = await handle.info()
        assert info.waiting_on == (
            WaitingOn("boundary_request", "", info.execution_started_at, None),
        )
        assert info.waiting_counts == {"boundary_request": 1}
        await env.client.nudge(handle.instance_id, reason="why")
        by, reason = await handle.result()
        assert by
        assert reason == "why"


@bounded
async def test_an_execution_is_asked_once_and_the_call_says_whether_it_was_this_one(database):
    async with virtual(database, deaf) as env:
        handle = await env.client.start("deaf", 1, instance_id="one")
        await env.run_until_idle()
        assert await env.client.nudge("one", execution_id=2) is False, "there is none yet"
        assert await env.client.nudge("one", execution_id=1) is True
        assert await env.client.nudge("one") is False
        await handle.raise_event("go")
        await env.run_until(handle, execution=2)
        assert await env.client.nudge("one", execution_id=1) is False, "it has crossed"
        assert (await handle.info()).boundary_requested is None
        assert await env.client.nudge("one") is True


@bounded
async def test_what_has_ended_or_never_was_is_not_nudged(database):
    async with virtual(database, listener) as env:
        handle = await env.client.start("listener", instance_id="one")
        await env.client.nudge("one")
        await handle.result()
        with pytest.raises(AlreadyCompleted, match="'one' has ended"):
            await env.client.nudge("one")
        with pytest.raises(InstanceNotFound, match="'two'"):
            await env.client.nudge("two")


@pytest.mark.parametrize(
    "wrong",
    [
        {"reason": 7},
        {"reason": "x" * 1_025},
        {"by": "a\0b"},
        {"execution_id": "1"},
        {"execution_id": True},
    ],
)
@bounded
async def test_a_careless_nudge_is_refused_before_anything_is_written(database, wrong):
    async with virtual(database, listener) as env:
        await env.client.start("listener", instance_id="one")
        with pytest.raises(InvalidArgument):
            await env.client.nudge("one", **wrong)
        with pytest.raises(InvalidArgument):
            await env.client.nudge("")
        assert (await env.client.get_instance_info("one")).boundary_requested is None


@bounded
async def test_while_a_node_with_an_older_library_lives_nobody_is_nudged(store):
    async with (
        Runtime(store(library=FIRST_LIBRARY), registry(sleeper), []),
        Runtime(store(), registry(listener), []) as node,
    ):
        await node.client.start("listener", instance_id="one")
        with pytest.raises(LevelTooLow, match="older library"):
            await node.client.nudge("one")


@bounded
async def test_a_held_instance_keeps_the_nudge_until_it_runs(database):
    async def broken(ctx, _):
        raise KeyError("no")

    async with virtual(database, ("job", "1.0.0", broken)) as env:
        handle = await env.client.start("job", instance_id="one")
        await env.run_until_idle()
        assert (await handle.info()).status is InstanceStatus.HELD
        assert await env.client.nudge("one", reason="kept") is True
        await env.upgrade(registry(("job", "1.0.0", listener)))
        await env.run_until_idle()
        assert (await env.client.handle("one").result())[1] == "kept"


@bounded
async def test_a_nudge_outlives_the_death_of_the_process_and_counts_once():
    @activity
    async def step() -> None: ...

    async def careful(ctx, _):
        await ctx.race(ctx.schedule_timer(YEAR), ctx.wait_for_boundary_request())
        await ctx.schedule_activity(step)
        await ctx.schedule_timer(timedelta(hours=1))
        return ctx.boundary_requested

    async with TestRuntime(registry(careful), activities=[step]) as env:
        await env.client.start("careful", instance_id="one")
        await env.run_until_idle()
        await env.client.nudge("one")
        await env.crash()
        await env.run_until_idle()
        await env.crash()
        await env.advance(timedelta(hours=1))
        assert await env.client.handle("one").result() is True
        events = await env.client.get_history("one")
        assert [event.kind for event in events].count("boundary_requested") == 1


@bounded
async def test_the_loop_goes_to_the_new_version_at_once():
    async def first(ctx, laps: int):
        await ctx.race(ctx.schedule_timer(YEAR), ctx.wait_for_boundary_request())
        ctx.continue_as_new(laps + 1)

    async def second(ctx, laps: int):
        await ctx.race(ctx.schedule_timer(YEAR), ctx.wait_for_boundary_request())
        ctx.continue_as_new(laps + 1)

    old = ("loop", "1.0.0", first)
    async with TestRuntime(registry(old), start=datetime(2026, 3, 1, tzinfo=UTC)) as env:
        for number in range(3):
            await env.client.start("loop", 1, instance_id=f"loop-{number}")
        await env.run_until_idle()
        await env.upgrade(registry(old, ("loop", "2.0.0", second)))
        for number in range(3):
            await env.client.nudge(f"loop-{number}", reason="2.0.0 is out")
        await env.run_until_idle()
        assert env.now < datetime(2026, 3, 2, tzinfo=UTC)
        for number in range(3):
            info = await env.client.get_instance_info(f"loop-{number}")
            assert (info.version, info.execution_id) == ("2.0.0", 2)


@bounded
async def test_an_execution_shows_its_marks(database):
    async def subject(ctx, _):
        if ctx.patched("tax"):
            ctx.patched("fee")
        await ctx.wait_for_event("go")

    async with virtual(database, subject) as env:
        handle = await env.client.start("subject")
        await env.run_until_idle()
        (execution,) = await env.client.list_executions(handle.instance_id)
        assert execution.patches == ("tax", "fee")
        events = await env.client.get_history(handle.instance_id)
        assert [event.details for event in events if event.kind == "patched"] == [
            {"patch": "tax"},
            {"patch": "fee"},
        ]
