"""Mistakes with futures and activities: what is never awaited, asked for its truth, or called
directly (scenario 63).
"""

import asyncio
import contextvars
import inspect
import logging
from datetime import timedelta

import pytest

from orchestra import activity
from orchestra.codec import encode
from orchestra.context import Limits
from orchestra.replay import Execution
from tests.support.driver import SUBJECT, Drive, define, replay

# --- never awaited ---


def remarks(drive):
    """Return what the turns have said of futures that were never awaited."""
    logs = [entry for turn in drive.turns for entry in turn.extras.logs]
    assert all(entry.level == logging.WARNING for entry in logs)
    return [entry.message for entry in logs]


def marked(function):
    """Return the line of a function that is marked."""
    source, first = inspect.getsourcelines(function)
    return first + next(at for at, text in enumerate(source) if "# <-" in text)


async def a_timer(ctx):
    ctx.schedule_timer(timedelta(1))  # <-


async def an_activity(ctx):
    ctx.schedule_activity("a")  # <-


async def an_event(ctx):
    ctx.wait_for_event("x")  # <-


async def an_event_with_a_timeout(ctx):
    ctx.wait_for_event("x", timeout=timedelta(1))  # <-


async def a_child(ctx):
    ctx.start_child("child")  # <-


LOST = {
    a_timer: "a timer",
    an_activity: "activity 'a'",
    an_event: "a wait for event 'x'",
    an_event_with_a_timeout: "a wait for event 'x'",
    a_child: "child 'child'",
}


@pytest.mark.parametrize("ends", ["completes", "continues", "in a branch"])
@pytest.mark.parametrize("asks", LOST, ids=lambda asks: asks.__name__)
def test_what_is_never_awaited_is_named_with_its_line_when_the_lap_ends(asks, ends):
    async def subject(ctx, _):
        if ends == "in a branch":
            await ctx.gather(asks(ctx))
        else:
            await asks(ctx)
        await ctx.schedule_activity("other")
        if ends == "continues":
            ctx.continue_as_new()

    drive = Drive(subject)
    assert remarks(drive) == []
    drive.done("other")
    assert drive.ending is not None
    (message,) = remarks(drive)
    assert message.startswith(f"{LOST[asks]}")
    assert (
        f"asked for at {__file__}:{marked(asks)} in {asks.__qualname__}, was never awaited"
        in message
    )


def test_what_has_ended_and_was_never_asked_is_named_as_well():
    async def subject(ctx, _):
        ctx.schedule_activity("a")
        await ctx.schedule_activity("b")

    drive = Drive(subject)
    drive.died("a", "nobody hears of it")
    drive.done("b")
    assert len(remarks(drive)) == 1


def test_a_line_is_named_once_for_all_laps_and_instances():
    async def subject(ctx, _):
        for _time in range(3):
            ctx.schedule_timer(timedelta(1))

    definition, logs = define(subject), []
    for _lap in range(3):
        execution = Execution(definition, SUBJECT, Limits(), {})
        execution.start(encode(None, subject="state"), 0)
        logs += execution.turn(0).extras.logs
    assert len(logs) == 1


def test_on_replay_nothing_is_said_again():
    async def subject(ctx, _):
        ctx.schedule_timer(timedelta(1))
        await ctx.schedule_activity("a")

    drive = Drive(subject)
    drive.done("a")
    assert len(remarks(drive)) == 1
    again = replay(subject, drive.history)
    assert again.turn(0).extras.logs == ()


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_a_lap_that_was_cut_off_has_lost_nothing_by_mistake(how):
    async def subject(ctx, _):
        later = ctx.schedule_activity("later")
        await ctx.schedule_activity("first")
        await later

    drive = Drive(subject)
    if how == "fails":
        drive.died("first")
    else:
        drive.cancel()
    assert drive.ending is not None
    assert remarks(drive) == []


def test_whatever_uses_a_future_counts_as_awaiting_it():
    async def waits(future):
        await future

    async def subject(ctx, _):
        asked = ctx.wait_for_event("never")
        cancelled = ctx.schedule_timer(timedelta(1))
        cancelled.cancel()
        timed = ctx.wait_for_event("timed", timeout=timedelta(1))
        timed.cancel()
        ctx.start_detached("child")
        await ctx.gather(ctx.schedule_activity("a"), ctx.schedule_activity("b"))
        await ctx.race(ctx.schedule_activity("a"), ctx.schedule_activity("b"))
        await ctx.wait(
            ctx.schedule_activity("a"), ctx.wait_for_event("x"), return_when="first_completed"
        )
        async with ctx.task_group() as group:
            group.create_task(waits(ctx.schedule_activity("a")))
        late = ctx.schedule_activity("late")
        await ctx.schedule_activity("c")
        await late
        if asked.done:
            return "it has come"

    drive = Drive(subject)
    for name in ("a", "b", "a", "a", "a", "late", "c"):
        drive.done(name)
    assert drive.output is None
    assert remarks(drive) == []


def test_what_a_cancelled_branch_leaves_behind_is_given_up_and_no_mistake():
    async def branch(ctx):
        ctx.schedule_activity("extra")
        await ctx.schedule_activity("main")

    async def subject(ctx, _):
        await ctx.race(ctx.schedule_activity("a"), branch(ctx))

    drive = Drive(subject)
    drive.done("a")
    assert drive.output is None
    assert remarks(drive) == []


# --- truth ---


def test_a_future_has_no_truth_value_and_the_error_says_what_to_ask():
    async def subject(ctx, _):
        errors = []
        async with ctx.task_group() as group:
            for future in (ctx.schedule_activity("a"), group.create_task(a_wait(ctx))):
                try:
                    if future:
                        errors.append("true")
                except TypeError as error:
                    errors.append(str(error))
                await future
        return errors

    async def a_wait(ctx):
        await ctx.schedule_activity("b")

    drive = Drive(subject)
    drive.done("a")
    drive.done("b")
    first, second = drive.output
    assert "pending a, event 2> has no truth value: await it" in first
    assert "has no truth value" in second


# --- activities that are called directly ---


@activity
def doubled(number: int) -> int:
    return 2 * number


@activity(name="other-name")
async def doubled_later(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("called", [doubled, doubled_later], ids=["def", "async def"])
@pytest.mark.parametrize("where", ["root", "branch", "helper"])
def test_an_activity_that_orchestration_code_calls_directly_raises_before_it_runs(called, where):
    async def calls(ctx):
        return called(1)  # <-

    async def subject(ctx, _):
        match where:
            case "root":
                return called(1)
            case "branch":
                await ctx.gather(calls(ctx))
            case _:
                await calls(ctx)

    error = Drive(subject).error
    assert error.type == "orchestra.errors.OrchestrationError"
    assert "`await ctx.schedule_activity(" in error.message
    if where != "root":
        assert f"at {__file__}:{marked(calls)} in " in error.message


def test_an_activity_is_called_directly_everywhere_else():
    async def subject(ctx, _):
        return doubled.function(4)  # on purpose, and by name

    assert doubled(2) == 4
    assert asyncio.run(doubled_later(2)) == 4
    assert Drive(subject).output == 8
    assert doubled(3) == 6
    assert contextvars.copy_context().run(doubled, 3) == 6
