"""Waits with a timeout, gathers of errors, and races whose losers live on."""

import asyncio
from datetime import timedelta

import pytest

from orchestra.errors import EventTimeout
from orchestra.events import CommandCancelled, ContinuedAsNew, ExecutionCancelled
from tests.support.driver import Drive, prefixes, replay

SECOND = timedelta(seconds=1)
BOTH = pytest.mark.parametrize("cold", [False, True])

# --- wait_for_event(timeout=) ---


async def waits_twice(ctx, _):
    found = []
    for _time in range(2):
        try:
            found.append(await ctx.wait_for_event("x", str, timeout=SECOND))
        except TimeoutError as error:
            assert isinstance(error, EventTimeout)  # noqa: PT017
            assert (error.event, error.timeout) == ("x", SECOND)  # noqa: PT017
            found.append("late")
            await ctx.wait_for_event("go")
    return found


@BOTH
def test_an_event_that_comes_in_time_is_returned_and_the_timer_is_gone(cold):
    drive = Drive(waits_twice, cold=cold)
    assert drive.pending == ["event x", "timer"]
    drive.send("x", "first")
    assert drive.pending == ["event x", "timer"]
    drive.send("x", "second")
    assert drive.output == ["first", "second"]
    assert drive.execution.time.next_due is None


@BOTH
def test_a_wait_that_timed_out_takes_no_later_event(cold):
    drive = Drive(waits_twice, cold=cold)
    drive.advance(1)
    assert drive.pending == ["event go"]
    drive.put("x", "after the first wait")
    drive.send("go")
    assert drive.output == ["late", "after the first wait"]


def test_a_wait_whose_event_and_timer_come_in_one_turn_goes_by_their_times():
    early = Drive(waits_twice)
    early.put("x", "in time")  # sent at 0, due at 1
    early.advance(2)
    assert early.pending == ["event x", "timer"]
    late = Drive(waits_twice)
    late.now = 2_000_000
    late.put("x", "too late")
    late.turn()
    assert late.pending == ["event go"]


def test_a_wait_with_a_timeout_is_recorded_at_once_and_can_be_combined():
    async def subject(ctx, _):
        first = ctx.wait_for_event("a", timeout=SECOND)
        second = ctx.wait_for_event("b", timeout=2 * SECOND)
        return await ctx.gather(first, second, return_exceptions=False)

    drive = Drive(subject)
    assert drive.pending == ["event a", "timer", "event b", "timer"]
    drive.send("b", 2)
    drive.send("a", 1)
    assert drive.output == [1, 2]


def test_the_loser_of_a_race_gives_up_its_wait_and_its_timer():
    async def subject(ctx, _):
        await ctx.race(ctx.schedule_activity("a"), ctx.wait_for_event("x", timeout=SECOND))
        await ctx.schedule_activity("b")

    drive = Drive(subject)
    drive.done("a")
    assert drive.pending == ["activity b"]


@pytest.mark.parametrize("awaits", [True, False])
def test_a_branch_that_is_cancelled_gives_up_its_wait_and_its_timer(awaits):
    async def branch(ctx):
        wait = ctx.wait_for_event("x", timeout=SECOND)
        if awaits:
            await wait
        await ctx.schedule_activity("never")

    async def subject(ctx, _):
        await ctx.race(ctx.schedule_activity("a"), branch(ctx))
        await ctx.schedule_activity("b")

    drive = Drive(subject)
    drive.done("a")
    assert drive.pending == ["activity b"]


def test_a_cancel_at_a_wait_with_a_timeout_gives_up_both():
    async def subject(ctx, _):
        try:
            await ctx.wait_for_event("x", timeout=SECOND)
        finally:
            await ctx.schedule_activity("clean")

    drive = Drive(subject)
    drive.cancel()
    assert drive.pending == ["activity clean"]
    drive.done("clean")
    assert isinstance(drive.ending, ExecutionCancelled)


def test_a_wait_with_a_timeout_of_nothing_takes_what_has_come_already():
    async def subject(ctx, _):
        found = []
        while True:
            try:
                found.append(await ctx.wait_for_event("x", timeout=timedelta(0)))
            except TimeoutError:
                return found

    drive = Drive(subject, now=10)
    assert drive.output == []

    async def later(ctx, _):
        await ctx.wait_for_event("go")
        return await subject(ctx, _)

    drive = Drive(later)
    for number in range(3):
        drive.put("x", number)
    drive.now = 10
    drive.send("go")
    assert drive.output == [0, 1, 2]


@pytest.mark.parametrize("timeout", [5, -SECOND, timedelta.max])
def test_a_timeout_that_cannot_be_one_is_refused_before_anything_is_recorded(timeout):
    async def subject(ctx, _):
        try:
            ctx.wait_for_event("x", timeout=timeout)
        except Exception as error:
            return type(error).__name__

    drive = Drive(subject)
    assert drive.output == "InvalidArgument"
    assert drive.commands == []


def test_every_beginning_of_a_history_with_timeouts_replays():
    drive = Drive(waits_twice)
    drive.advance(1)
    drive.send("go")
    drive.send("x", "second")
    assert any(isinstance(event, CommandCancelled) for event in drive.events)
    for history in prefixes(drive.history):
        replay(waits_twice, history)


# --- gather(return_exceptions=True) ---


@BOTH
def test_errors_are_results_and_cancel_nothing(cold):
    async def fails(ctx):
        await ctx.schedule_activity("b")
        raise ValueError("mine")

    async def subject(ctx, _):
        one, two, three = await ctx.gather(
            ctx.schedule_activity("a"),
            fails(ctx),
            ctx.schedule_activity("c"),
            return_exceptions=True,
        )
        return [type(one).__name__, type(two).__name__, three]

    drive = Drive(subject, cold=cold)
    drive.died("a")
    drive.done("b")
    assert drive.pending == ["activity c"]
    drive.done("c", 3)
    assert drive.output == ["ActivityFailed", "ValueError", 3]


def test_a_boundary_in_a_branch_is_no_result():
    async def laps(ctx):
        await ctx.schedule_activity("a")
        ctx.continue_as_new(1)

    async def subject(ctx, _):
        await ctx.gather(laps(ctx), ctx.schedule_activity("b"), return_exceptions=True)

    drive = Drive(subject)
    drive.done("a")
    assert isinstance(drive.ending, ContinuedAsNew)


def test_a_cancel_of_the_orchestration_is_no_result():
    async def subject(ctx, _):
        await ctx.gather(
            ctx.schedule_activity("a"), ctx.schedule_activity("b"), return_exceptions=True
        )

    drive = Drive(subject)
    assert drive.cancel().extras.cancelled == (2, 3)
    assert isinstance(drive.ending, ExecutionCancelled)


# --- wait ---


@BOTH
def test_the_losers_of_a_wait_live_on(cold):
    async def subject(ctx, _):
        slow, fast = ctx.schedule_activity("slow"), ctx.schedule_activity("fast")
        done, pending = await ctx.wait(slow, fast, return_when="first_completed")
        assert (done, pending) == ((fast,), (slow,))
        result = await ctx.wait(slow, fast)
        assert (result.done, result.pending) == ((slow, fast), ())
        return [await slow, await fast]

    drive = Drive(subject, cold=cold)
    drive.done("fast", 1)
    assert drive.pending == ["activity slow"]
    drive.done("slow", 2)
    assert drive.output == [2, 1]
    assert drive.commands == ["activity slow", "activity fast"]


def test_a_wait_raises_no_error_of_what_it_waits_for():
    async def subject(ctx, _):
        bad, good = ctx.schedule_activity("bad"), ctx.schedule_activity("good")
        done, pending = await ctx.wait(bad, good, return_when="all_completed")
        assert not pending
        return [type(future.error).__name__ for future in done]

    drive = Drive(subject)
    drive.died("bad")
    assert drive.pending == ["activity good"]
    drive.done("good")
    assert drive.output == ["ActivityFailed", "NoneType"]


@BOTH
def test_a_wait_whose_time_is_up_tells_what_is_done(cold):
    async def subject(ctx, _):
        one, two = ctx.schedule_activity("one"), ctx.schedule_activity("two")
        done, pending = await ctx.wait(one, two, timeout=SECOND)
        assert (done, pending) == ((one,), (two,))
        return await two

    drive = Drive(subject, cold=cold)
    drive.done("one")
    drive.advance(1)
    assert drive.pending == ["activity two"]
    drive.done("two", 2)
    assert drive.output == 2


def test_the_timer_of_a_wait_that_was_in_time_is_gone():
    async def subject(ctx, _):
        one = ctx.schedule_activity("one")
        await ctx.wait(one, timeout=SECOND)
        await ctx.wait_for_event("x")

    drive = Drive(subject)
    drive.done("one")
    assert drive.pending == ["event x"]


def test_a_wait_for_what_is_done_returns_at_once_and_begins_no_timer():
    async def subject(ctx, _):
        one, two = ctx.schedule_activity("one"), ctx.schedule_activity("two")
        await one
        done, pending = await ctx.wait(
            one, two, one, return_when=asyncio.FIRST_COMPLETED, timeout=SECOND
        )
        return [len(done), len(pending)]

    drive = Drive(subject)
    drive.done("one")
    assert drive.output == [1, 1]
    assert "timer" not in drive.commands


def test_a_cancel_at_a_wait_gives_up_its_timer_and_nothing_else():
    async def branch(ctx, shared):
        await ctx.wait(shared, timeout=SECOND)

    async def subject(ctx, _):
        shared = ctx.schedule_activity("shared")
        await ctx.race(ctx.schedule_activity("a"), branch(ctx, shared))
        return await shared

    drive = Drive(subject)
    drive.done("a")
    assert drive.pending == ["activity shared"]
    drive.done("shared", 1)
    assert drive.output == 1


def test_a_wait_for_branches_of_a_task_group():
    async def branch(ctx, name):
        return await ctx.schedule_activity(name)

    async def subject(ctx, _):
        async with ctx.task_group() as group:
            tasks = [group.create_task(branch(ctx, name)) for name in ("a", "b")]
            done, pending = await ctx.wait(*tasks, return_when="first_completed")
            assert (done, pending) == ((tasks[1],), (tasks[0],))
        return [await task for task in tasks]

    drive = Drive(subject)
    drive.done("b", 2)
    drive.done("a", 1)
    assert drive.output == [1, 2]


@pytest.mark.parametrize("what", ["coroutine", "nothing", "value"])
def test_a_wait_takes_futures_alone(what):
    async def branch():
        pass

    async def subject(ctx, _):
        given = {"coroutine": lambda: (branch(),), "nothing": tuple, "value": lambda: (1,)}[what]()
        try:
            await ctx.wait(*given)
        except TypeError as error:
            return str(error)

    message = Drive(subject).output
    assert "at least one" in message if what == "nothing" else "group.create_task" in message


def test_a_wait_refuses_a_mode_that_it_does_not_have():
    async def subject(ctx, _):
        try:
            await ctx.wait(ctx.schedule_activity("a"), return_when="first_exception")
        except ValueError as error:
            return str(error)

    assert "'first_completed'" in Drive(subject).output
