"""Loops whose children work over their boundaries, in virtual time: killed at each commit, rewound,
restarted, pruned, faked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from orchestra import (
    ChildEndForgotten,
    ChildFailed,
    ChildHandle,
    Failure,
    HoldKind,
    InstanceStatus,
    OrchestrationContext,
    OrchestrationRegistry,
    Retention,
    Selection,
    StaleChildHandle,
    WaitingFor,
)
from orchestra.engine.earlier_ends import EarlierEnds
from orchestra.testing import TestRuntime, check_store, crash_everywhere

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


@dataclass
class Report:
    day: int
    lines: int


@dataclass
class Loop:
    lap: int = 0
    open: list[ChildHandle[Report]] = field(default_factory=list)
    done: list[Report] = field(default_factory=list)


async def report(ctx: OrchestrationContext, day: int) -> Report:
    """Works for three laps of the loop."""
    await ctx.schedule_timer(3 * HOUR)
    if day == 2:
        raise Failure("no data")
    return Report(day, day * 10)


async def loop(ctx: OrchestrationContext, state: Loop) -> list[Report]:
    """Starts a report in each of its first laps, and reads each when it has ended."""
    started = [*state.open]
    if state.lap < 3:
        started.append(ctx.start_background_child(report, state.lap))
    await ctx.schedule_timer(HOUR)
    done = [*state.done]
    if state.lap >= 4:
        for handle in started:
            try:
                done.append(await ctx.wait_for_child(handle))
            except ChildFailed as error:
                done.append(Report(-1, len(str(error.cause.message))))
        return done
    ctx.continue_as_new(Loop(state.lap + 1, started, done))


async def keeps(ctx: OrchestrationContext, handle: ChildHandle[Report] | None) -> Report:
    """Starts a report in its first lap, and awaits it in its second."""
    if handle is None:
        ctx.continue_as_new(ctx.start_background_child(report, 1))
    got = await ctx.wait_for_child(handle)
    await ctx.wait_for_event("end")
    return got


async def asks_again(ctx: OrchestrationContext, state: Loop) -> list[Report]:
    """Awaits one report in three laps, one after the other."""
    if not state.open:
        ctx.continue_as_new(replace(state, open=[ctx.start_background_child(report, state.lap)]))
    try:
        done = [*state.done, await ctx.wait_for_child(state.open[0])]
    except ChildFailed as error:
        done = [*state.done, Report(-1, len(str(error.cause.message)))]
    if len(done) == 3:
        return done
    await ctx.schedule_timer(HOUR)
    ctx.continue_as_new(replace(state, done=done))


async def refused(ctx: OrchestrationContext, handle: ChildHandle[object] | None) -> list[str]:
    """Starts what no node has, and learns it a lap later."""
    if handle is None:
        ctx.continue_as_new(ctx.start_background_child("nowhere"))
    try:
        await ctx.wait_for_child(handle)
    except ChildFailed as error:
        return [error.orchestration, error.status, error.cause.type]
    return []


async def stops(ctx: OrchestrationContext, handle: ChildHandle[Report] | None) -> str:
    """Cancels its report from a later lap."""
    if handle is None:
        ctx.continue_as_new(ctx.start_background_child(report, 1))
    await ctx.cancel(handle.instance_id, "enough")
    try:
        await ctx.wait_for_child(handle)
    except ChildFailed as error:
        return error.status
    return "completed"


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("report", report)
    .register("loop", loop)
    .register("keeps", keeps)
    .register("asks_again", asks_again)
    .register("refused", refused)
    .register("stops", stops)
    .build()
)

EXPECTED = [Report(0, 0), Report(1, 10), Report(-1, len("no data"))]


async def test_a_loop_reads_the_reports_that_it_has_started_laps_ago():
    async with TestRuntime(REGISTRY) as env:
        handle = await env.client.start("loop", Loop(), instance_id="one")
        await env.advance(10 * HOUR)
        assert await handle.result() == [{"day": one.day, "lines": one.lines} for one in EXPECTED]
        check_store(env.provider, REGISTRY, quiescent=True).raise_if_violated()


async def test_killed_at_each_commit_each_report_is_made_and_read_once():
    async def scenario(env):
        handle = await env.client.start("loop", Loop(), instance_id="one", if_ended="return")
        await env.advance(10 * HOUR)
        assert await handle.result() == [{"day": one.day, "lines": one.lines} for one in EXPECTED]
        counts = await env.client.count_instances(Selection(name="report"))
        assert counts.total == 3

    commits = (await crash_everywhere(scenario, REGISTRY)).commits
    assert commits > 10


async def test_what_an_instance_waits_for_is_shown_and_can_be_selected():
    async with TestRuntime(REGISTRY) as env:
        await env.client.start("keeps", instance_id="one")
        await env.advance(timedelta(minutes=1))
        info = await env.client.get_instance_info("one")
        assert info.execution_id == 2
        (waiting,) = info.waiting_on
        assert (waiting.kind, waiting.name) == ("child", "report")
        child = await env.client.get_instance_info(waiting.instance_id)
        assert child.name == "report"
        assert child.parent is not None
        selected = await env.client.list_instances(
            Selection(waiting_on=WaitingFor("child", "report"))
        )
        assert [one.instance_id for one in selected.items] == ["one"]
        await env.advance(4 * HOUR)
        events = await env.client.get_history("one")
        assert [event.kind for event in events] == [
            "execution_started",
            "child_awaited",
            "child_ended",
            "event_awaited",
        ]
        details = dict(events[2].details)
        assert details == {
            "source": 2,
            "instance_id": waiting.instance_id,
            "status": "completed",
            "sequence": 1,
            "result": {"day": 1, "lines": 10},
            "error": None,
        }


async def test_an_end_that_no_code_has_awaited_yet_is_listed_and_can_be_dropped():
    async with TestRuntime(REGISTRY) as env:
        await env.client.start("loop", Loop(), instance_id="one")
        await env.advance(timedelta(hours=3, minutes=30))
        (unread,) = await env.client.list_messages("one")
        assert (unread.kind, unread.payload) == ("child", {"day": 0, "lines": 0})
        info = await env.client.get_instance_info("one")
        assert info.unread_messages == 0, "no sender has sent it"
        assert await env.client.drop_messages("one", unread.name, reason="a test") == 1
        assert await env.client.list_messages("one") == ()


async def test_a_start_that_is_refused_is_told_in_the_lap_that_awaits_it():
    async with TestRuntime(REGISTRY) as env:
        handle = await env.client.start("refused")
        assert await handle.result() == [
            "nowhere",
            "failed",
            "orchestra.errors.UnknownOrchestration",
        ]


async def test_a_later_lap_can_cancel_the_child():
    async with TestRuntime(REGISTRY) as env:
        handle = await env.client.start("stops")
        assert await handle.result() == "cancelled"


async def test_the_end_of_the_parent_leaves_the_child_alone():
    async with TestRuntime(REGISTRY) as env:
        handle = await env.client.start("keeps", instance_id="one")
        await env.advance(timedelta(minutes=1))
        (waiting,) = (await env.client.get_instance_info("one")).waiting_on
        await handle.cancel()
        await env.advance(5 * HOUR)
        assert (await env.client.get_instance_info("one")).status is InstanceStatus.CANCELLED
        child = await env.client.get_instance_info(waiting.instance_id)
        assert child.status is InstanceStatus.COMPLETED


async def test_a_rewound_lap_receives_the_end_again():
    async with TestRuntime(REGISTRY) as env:
        handle = await env.client.start("keeps", instance_id="one")
        await env.advance(4 * HOUR)
        assert (await env.client.get_instance_info("one")).waiting_on[0].kind == "event"
        for _ in range(2):  # the second finds the end that the first has put back read again
            rewound = await env.client.rewind("one", 2, reason="once more")
            assert rewound.events_restored == 1
            await env.advance(timedelta(minutes=1))
        await env.client.raise_event("one", "end")
        assert await handle.result() == {"day": 1, "lines": 10}


async def test_a_rewind_before_the_end_has_come_and_twice_at_once():
    async with TestRuntime(REGISTRY) as env:
        handle = await env.client.start("keeps", instance_id="one")
        await env.advance(timedelta(minutes=1))
        await env.client.rewind("one", 2, reason="once more")
        await env.advance(4 * HOUR)
        await env.client.hold("one", reason="a test")
        await env.client.rewind("one", 2, reason="once more")
        await env.client.rewind("one", 2, reason="and again")
        assert len(await env.client.list_messages("one")) == 1
        await env.client.release("one")
        await env.client.raise_event("one", "end")
        assert await handle.result() == {"day": 1, "lines": 10}


async def test_the_lap_that_starts_a_child_anew_does_not_get_the_former_ones_end():
    async with TestRuntime(REGISTRY) as env:
        await env.client.start("keeps", instance_id="one")
        await env.advance(4 * HOUR)
        rewound = await env.client.rewind("one", 1, reason="from the beginning")
        assert rewound.events_restored == 0
        await env.advance(timedelta(minutes=1))
        (waiting,) = (await env.client.get_instance_info("one")).waiting_on
        assert waiting.kind == "child"
        await env.advance(4 * HOUR)
        assert (await env.client.get_instance_info("one")).waiting_on[0].kind == "event"
        assert await env.client.list_messages("one") == ()


async def test_an_ended_instance_that_is_rewound_has_the_ends_it_had_received():
    async with TestRuntime(REGISTRY) as env:
        handle = await env.client.start("keeps", instance_id="one")
        await env.advance(4 * HOUR)
        await handle.terminate()
        await env.client.rewind("one", 2, reason="once more")
        await env.client.raise_event("one", "end")
        info = await env.client.wait_for_completion("one")
        assert info.output == {"day": 1, "lines": 10}


async def test_a_handle_of_a_former_life_holds_the_instance_with_a_clear_error():
    async with TestRuntime(REGISTRY) as env:
        handle = await env.client.start("keeps", instance_id="one")
        await env.advance(timedelta(minutes=1))
        await handle.terminate()
        await env.client.rewind("one", 2, reason="once more")
        await env.advance(timedelta(minutes=1))
        info = await env.client.get_instance_info("one")
        assert info.hold is not None
        assert info.hold.kind is HoldKind.ERROR
        assert StaleChildHandle.__name__ in info.hold.detail


async def test_the_result_of_a_child_that_retention_has_deleted_is_still_there():
    retention = Retention(histories=1, executions=1, children="with_lap")
    async with TestRuntime(REGISTRY, retention=retention) as env:
        handle = await env.client.start("loop", Loop(), instance_id="one")
        await env.advance(10 * HOUR)
        assert (await handle.result())[0] == {"day": 0, "lines": 0}


@pytest.mark.parametrize(
    ("day", "got"), [(1, {"day": 1, "lines": 10}), (2, {"day": -1, "lines": 7})]
)
async def test_a_later_lap_may_await_again_what_an_earlier_one_has_received(day, got):
    """Scenario 77: wherever the process dies; and after a rewind."""

    async def scenario(env):
        handle = await env.client.start(
            "asks_again", Loop(day), instance_id="one", if_ended="return"
        )
        await env.advance(10 * HOUR)
        assert await handle.result() == [got] * 3
        check_store(env.provider, REGISTRY, quiescent=True).raise_if_violated()

    assert (await crash_everywhere(scenario, REGISTRY)).commits > 8
    async with TestRuntime(REGISTRY) as env:
        handle = await env.client.start("asks_again", Loop(day), instance_id="one")
        await env.advance(timedelta(hours=4, minutes=30))
        for lap, restored in ((3, 0), (2, 1)):
            rewound = await env.client.rewind("one", lap, reason="once more")
            assert rewound.events_restored == restored
            await env.advance(timedelta(minutes=1))
        await env.advance(10 * HOUR)
        assert await handle.result() == [got] * 3


async def test_an_end_that_was_received_and_whose_child_is_deleted_is_a_clear_error():
    async with TestRuntime(REGISTRY) as env:
        await env.client.start("asks_again", Loop(1), instance_id="one")
        await env.advance(timedelta(hours=3, minutes=30))
        (child,) = (await env.client.list_instances(Selection(name="report"))).items
        await env.client.delete(child.instance_id)
        await env.advance(HOUR)
        info = await env.client.get_instance_info("one")
        assert info.hold is not None
        assert ChildEndForgotten.__name__ in info.hold.detail
        assert "Keep a child's result in the state" in info.hold.detail


async def test_a_wait_that_is_not_answered_is_named_by_the_check(monkeypatch):
    def look(_, instance, write, step):
        return write

    monkeypatch.setattr(EarlierEnds, "look", look)
    async with TestRuntime(REGISTRY) as env:
        handle = await env.client.start("asks_again", Loop(1), instance_id="one")
        await env.advance(10 * HOUR)
        found = check_store(env.provider, REGISTRY, quiescent=True)
        (violation,) = found.violations
        assert violation.invariant == "I11"
        assert "an earlier lap has received it" in violation.problem
        await handle.terminate()


async def test_a_faked_child_works_in_the_background_too():
    async with TestRuntime(REGISTRY) as env:
        env.fake(report, [Report(7, 7), Report(8, 8), Failure("faked")])
        handle = await env.client.start("loop", Loop(), instance_id="one")
        await env.advance(10 * HOUR)
        assert await handle.result() == [
            {"day": 7, "lines": 7},
            {"day": 8, "lines": 8},
            {"day": -1, "lines": len("faked")},
        ]
