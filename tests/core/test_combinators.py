"""gather, race and task groups: order, errors, cancellation, and what they leave behind."""

from datetime import timedelta

import pytest

from orchestra.codec import EMPTY, encode
from orchestra.errors import Cancelled, OperationCancelled
from orchestra.events import ContinuedAsNew, ExecutionCancelled
from orchestra.replay import ActivityDone
from tests.support.driver import Drive


async def twice(ctx, name):
    """A branch that waits two times."""
    first = await ctx.schedule_activity(name, 1)
    second = await ctx.schedule_activity(name, 2)
    return [first, second]


# --- gather ---


def test_gather_returns_results_in_the_order_of_its_arguments():
    async def subject(ctx, _):
        return await ctx.gather(
            ctx.schedule_activity("a"), ctx.schedule_activity("b"), ctx.wait_for_event("c")
        )

    drive = Drive(subject)
    drive.send("c", 3)
    drive.done("b", 2)
    assert drive.ending is None
    drive.done("a", 1)
    assert drive.output == [1, 2, 3]


def test_gather_over_coroutines_that_await_several_times():
    async def subject(ctx, _):
        return await ctx.gather(twice(ctx, "a"), twice(ctx, "b"))

    drive = Drive(subject)
    for name, value in [("b", 3), ("a", 1), ("b", 4), ("a", 2)]:
        drive.done(name, value)
    assert drive.output == [[1, 2], [3, 4]]


def test_an_empty_gather_is_an_empty_tuple_at_once():
    async def subject(ctx, _):
        return await ctx.gather()

    assert Drive(subject).output == []


def test_gather_takes_the_same_future_twice():
    async def subject(ctx, _):
        once = ctx.schedule_activity("a")
        return await ctx.gather(once, once)

    drive = Drive(subject)
    drive.done("a", 7)
    assert drive.output == [7, 7]


def test_gather_over_futures_that_are_done_already():
    async def subject(ctx, _):
        first = ctx.schedule_activity("a")
        await first
        return await ctx.gather(first, ctx.schedule_activity("b"), first)

    drive = Drive(subject)
    drive.done("a", 1)
    drive.done("b", 2)
    assert drive.output == [1, 2, 1]


def test_a_fan_out_of_1024_activities_completes():
    async def subject(ctx, _):
        return sum(
            await ctx.gather(*(ctx.schedule_activity("a", number) for number in range(1024)))
        )

    drive = Drive(subject)
    assert len(drive.turns[0].scheduled) == 1024
    numbers = list(drive.execution.activities)
    drive.turn(
        [ActivityDone(number, 0, 1, encode(1, subject="one")) for number in reversed(numbers)]
    )
    assert drive.output == 1024


def test_the_first_error_of_a_gather_cancels_the_others_and_is_raised():
    async def subject(ctx, _):
        try:
            await ctx.gather(
                ctx.schedule_activity("a"), twice(ctx, "b"), ctx.schedule_timer(timedelta(hours=1))
            )
        except Exception as error:
            return type(error).__name__

    drive = Drive(subject)
    turn = drive.died("a")
    assert drive.output == "ActivityFailed"
    assert turn.extras.cancelled == (4,)
    assert drive.commands == ["activity a", "timer", "activity b", "cancel 4", "cancel 3"]


def test_gather_waits_for_the_finally_bodies_of_the_branches_that_it_cancels():
    async def careful(ctx):
        try:
            await ctx.schedule_activity("work")
        finally:
            await ctx.schedule_activity("clean 1")
            await ctx.schedule_activity("clean 2")

    async def subject(ctx, _):
        try:
            await ctx.gather(ctx.schedule_activity("a"), careful(ctx))
        except Exception as error:
            return str(error)

    drive = Drive(subject)
    drive.died("a")
    assert drive.pending == ["activity clean 1"]
    drive.done("clean 1")
    drive.done("clean 2")
    assert "'a' failed" in drive.output


def test_a_cancelled_future_in_a_gather_is_an_error_that_can_be_caught():
    async def subject(ctx, _):
        given_up = ctx.schedule_activity("a")
        given_up.cancel()
        try:
            await ctx.gather(given_up, ctx.schedule_activity("b"))
        except OperationCancelled:
            return "caught"

    drive = Drive(subject)
    assert drive.output == "caught"
    assert drive.turns[0].scheduled == ()
    assert drive.turns[0].extras.cancelled == ()  # never began: there is nothing to stop


def test_a_branch_that_catches_its_cancellation_goes_on_and_gather_waits_for_it():
    async def stubborn(ctx):
        try:
            await ctx.schedule_activity("work")
        except Cancelled:
            return await ctx.schedule_activity("more")

    async def subject(ctx, _):
        try:
            await ctx.gather(stubborn(ctx), ctx.schedule_activity("a"))
        except Exception:
            return "after"

    drive = Drive(subject)
    drive.died("a")
    assert drive.pending == ["activity more"]
    drive.done("more")
    assert drive.output == "after"


def test_a_cancelled_branch_that_returns_normally_leaves_nothing_behind():
    async def leaves(ctx):
        ctx.schedule_activity("forgotten")
        try:
            await ctx.wait_for_event("never")
        except Cancelled:
            return

    async def subject(ctx, _):
        await ctx.race(ctx.schedule_activity("a"), leaves(ctx))
        await ctx.schedule_activity("b")

    drive = Drive(subject)
    turn = drive.done("a")
    assert drive.pending == ["activity b"]
    assert turn.extras.cancelled == (3,)


def test_what_another_branch_waits_for_survives_the_branch_that_asked_for_it():
    async def subject(ctx, _):
        shared = []

        async def asks():
            shared.append(ctx.schedule_activity("shared"))
            await ctx.wait_for_event("never")

        async def waits():
            return await shared[0]

        async def races():
            await ctx.race(ctx.schedule_activity("a"), asks())

        return (await ctx.gather(races(), waits_later(ctx, waits)))[1]

    async def waits_later(ctx, waits):
        await ctx.schedule_activity("later")
        return await waits()

    drive = Drive(subject)
    drive.done("later")
    drive.done("a")
    assert drive.pending == ["activity shared"]
    drive.done("shared", 5)
    assert drive.output == 5


def test_a_coroutine_that_is_given_twice_is_an_error_and_no_wrong_result():
    async def subject(ctx, _):
        once = twice(ctx, "a")
        return await ctx.gather(once, once)

    drive = Drive(subject)
    while drive.ending is None:
        drive.done("a", 1)
    assert drive.error.type == "RuntimeError"


# --- race ---


def test_a_race_has_one_winner_and_its_losers_leave_nothing_behind():
    async def subject(ctx, _):
        won = await ctx.race(
            ctx.schedule_activity("a"),
            ctx.schedule_timer(timedelta(seconds=5)),
            ctx.wait_for_event("x"),
        )
        return [won.index, won.value]

    drive = Drive(subject)
    turn = drive.send("x", "hello")
    assert drive.output == [2, "hello"]
    assert drive.commands[-2:] == ["cancel 2", "cancel 3"]
    assert turn.extras.cancelled == (2,)


def test_a_race_of_ten_is_won_by_the_first_in_history():
    async def subject(ctx, _):
        won = await ctx.race(*(twice(ctx, f"a{number}") for number in range(10)))
        return won.index

    drive = Drive(subject)
    for name in ["a3", "a7", "a1", "a7"]:
        drive.done(name)
    assert drive.output == 7


def test_where_two_runners_end_at_once_the_order_of_history_decides():
    async def subject(ctx, _):
        shared = ctx.schedule_activity("a")

        async def slow():
            await shared
            return "slow"

        async def quick():
            return await shared

        won = await ctx.race(slow(), quick())
        return [won.index, won.value]

    drive = Drive(subject)
    drive.done("a", "quick")
    assert drive.output == [0, "slow"]


def test_a_race_over_futures_that_are_done_takes_the_first_argument():
    async def subject(ctx, _):
        first, second = ctx.schedule_activity("a"), ctx.schedule_activity("b")
        await ctx.gather(first, second)
        won = await ctx.race(ctx.wait_for_event("x"), second, first)
        return [won.index, won.value]

    drive = Drive(subject)
    drive.done("a", 1)
    drive.done("b", 2)
    assert drive.output == [1, 2]
    assert drive.commands[-1] == "cancel 6"


def test_an_error_ends_a_race_too():
    async def subject(ctx, _):
        try:
            await ctx.race(ctx.schedule_activity("a"), ctx.schedule_activity("b"))
        except Exception as error:
            return type(error).__name__

    drive = Drive(subject)
    assert drive.died("b").extras.cancelled == (2,)
    assert drive.output == "ActivityFailed"


def test_a_race_without_runners_is_an_error():
    async def subject(ctx, _):
        await ctx.race()

    assert "at least one runner" in Drive(subject).error.message


def test_a_late_result_of_a_loser_is_dropped():
    async def subject(ctx, _):
        await ctx.race(ctx.schedule_activity("a"), ctx.schedule_activity("b"))
        return await ctx.schedule_activity("c")

    drive = Drive(subject)
    drive.done("b")
    assert drive.turn([ActivityDone(2, 0, 1, EMPTY), ActivityDone(3, 0, 1, EMPTY)]).events == ()
    drive.done("c", "c")
    assert drive.output == "c"


# --- task groups ---


def test_a_task_group_waits_for_its_branches():
    async def subject(ctx, _):
        async with ctx.task_group() as group:
            a = group.create_task(twice(ctx, "a"))
            b = group.create_task(twice(ctx, "b"))
        return [await a, await b]

    drive = Drive(subject)
    for name, value in [("a", 1), ("b", 2), ("b", 3), ("a", 4)]:
        drive.done(name, value)
    assert drive.output == [[1, 4], [2, 3]]


def test_the_first_error_of_a_task_group_cancels_the_others_and_the_block():
    async def subject(ctx, _):
        try:
            async with ctx.task_group() as group:
                group.create_task(twice(ctx, "a"))
                group.create_task(twice(ctx, "b"))
                await ctx.wait_for_event("never")
        except ExceptionGroup as caught:
            return [str(error) for error in caught.exceptions]

    drive = Drive(subject)
    turn = drive.died("a")
    assert len(drive.output) == 1
    assert "'a' failed" in drive.output[0]
    assert turn.extras.cancelled == (4,)


def test_errors_of_body_and_branches_come_together():
    async def fails(ctx):
        try:
            await ctx.schedule_activity("a")
        finally:
            raise KeyError("branch")

    async def subject(ctx, _):
        try:
            async with ctx.task_group() as group:
                group.create_task(fails(ctx))
                await ctx.schedule_activity("b")
                raise ValueError("body")
        except BaseExceptionGroup as caught:
            return sorted(type(error).__name__ for error in caught.exceptions)

    drive = Drive(subject)
    drive.done("b")
    assert drive.output == ["KeyError", "ValueError"]


def test_groups_gathers_and_races_nest():
    async def inner(ctx, number):
        async with ctx.task_group() as group:
            task = group.create_task(twice(ctx, f"g{number}"))
        won = await ctx.race(twice(ctx, f"r{number}"), ctx.schedule_timer(timedelta(days=1)))
        return [await task, won.value]

    async def subject(ctx, _):
        return await ctx.gather(inner(ctx, 1), inner(ctx, 2))

    drive = Drive(subject)
    for name in ["g2", "g1", "g2", "g1", "r1", "r2", "r2", "r1"]:
        drive.done(name, name)
    assert drive.output == [[["g1", "g1"], ["r1", "r1"]], [["g2", "g2"], ["r2", "r2"]]]


def test_a_branch_can_be_cancelled_alone():
    async def subject(ctx, _):
        async with ctx.task_group() as group:
            given_up = group.create_task(twice(ctx, "a"))
            await ctx.schedule_timer(timedelta(seconds=1))
            given_up.cancel()
            await ctx.schedule_activity("b")
        return "done"

    drive = Drive(subject)
    assert drive.advance(1).extras.cancelled == (3,)
    drive.done("b")
    assert drive.output == "done"


def test_awaiting_a_branch_that_was_cancelled_does_not_cancel_who_awaits():
    async def subject(ctx, _):
        async with ctx.task_group() as group:
            given_up = group.create_task(twice(ctx, "a"))
            await ctx.schedule_timer(timedelta(seconds=1))
            given_up.cancel()
            try:
                await given_up
            except Exception as error:
                return type(error).__name__

    drive = Drive(subject)
    drive.advance(1)
    assert drive.output == "OperationCancelled"


@pytest.mark.parametrize("handled", ["timer", "activity"])
def test_a_block_that_awaits_its_failing_branch_is_woken_once(handled):
    """The branch's end both throws into the block and wakes it; the second wake-up once resumed the
    handler's await.
    """

    async def fails(ctx):
        await ctx.schedule_activity("a")

    async def subject(ctx, _):
        try:
            async with ctx.task_group() as group:
                task = group.create_task(fails(ctx))
                try:
                    await task
                except Cancelled:
                    if handled == "timer":
                        await ctx.schedule_timer(timedelta(seconds=9))
                    else:
                        return await ctx.schedule_activity("handler")
        except ExceptionGroup:
            return "failed"

    drive = Drive(subject)
    drive.died("a")
    assert drive.ending is None
    if handled == "timer":
        drive.advance(9)
    else:
        drive.done("handler", 1)
    assert drive.output == "failed"


def test_two_groups_that_fail_at_once_cancel_nothing_behind_them():
    """The outer group's cancellation of its block was left over, and hit the next await or passed
    as a cancel.
    """

    async def subject(ctx, _):
        shared = ctx.schedule_activity("a")

        async def fails():
            await shared

        try:
            async with ctx.task_group() as outer:
                outer.create_task(fails())
                async with ctx.task_group() as inner:
                    inner.create_task(fails())
                    await ctx.wait_for_event("never")
        except ExceptionGroup:
            return await ctx.schedule_activity("after")

    drive = Drive(subject)
    drive.died("a")
    assert drive.pending == ["activity after"]
    drive.done("after", "fine")
    assert drive.output == "fine"


def test_the_leftover_of_a_failed_group_does_not_disturb_cleanup():
    async def subject(ctx, _):
        shared = ctx.schedule_activity("a")

        async def fails():
            await shared

        async def fails_a_step_later():
            await ctx.gather(fails())

        async def host():
            try:
                async with ctx.task_group() as group:
                    group.create_task(fails_a_step_later())
                    await ctx.wait_for_event("never")
            finally:
                await ctx.schedule_activity("clean")

        try:
            await ctx.gather(fails(), host())
        except Exception as error:
            return type(error).__name__

    drive = Drive(subject)
    drive.died("a")
    assert drive.pending == ["activity clean"]
    drive.done("clean")
    assert drive.output == "ActivityFailed"


@pytest.mark.parametrize("when", ["before", "after"])
def test_branches_start_only_inside_the_block(when):
    async def subject(ctx, _):
        group = ctx.task_group()
        if when == "after":
            async with group:
                pass
        group.create_task(twice(ctx, "a"))

    assert "only inside" in Drive(subject).error.message


def test_a_branch_must_be_a_coroutine():
    async def subject(ctx, _):
        async with ctx.task_group() as group:
            try:
                group.create_task(ctx.schedule_activity("a"))
            except TypeError as error:
                return str(error)

    assert "a branch is a coroutine" in Drive(subject).output


def test_a_branch_may_start_branches_while_the_block_waits_for_it():
    async def grows(ctx, group, depth):
        await ctx.schedule_activity("a", depth)
        if depth:
            group.create_task(grows(ctx, group, depth - 1))

    async def subject(ctx, _):
        async with ctx.task_group() as group:
            group.create_task(grows(ctx, group, 2))
        return "done"

    drive = Drive(subject)
    for _ in range(3):
        drive.done("a")
    assert drive.output == "done"


def test_a_branch_that_starts_after_an_error_is_cancelled_before_it_begins():
    async def fails(ctx):
        await ctx.schedule_activity("a")

    async def subject(ctx, _):
        try:
            async with ctx.task_group() as group:
                group.create_task(fails(ctx))
                try:
                    await ctx.wait_for_event("never")
                except Cancelled:
                    group.create_task(twice(ctx, "b"))
                    raise
        except ExceptionGroup:
            return "failed"

    drive = Drive(subject)
    drive.died("a")
    assert drive.output == "failed"
    assert "activity b" not in drive.commands


# --- continue_as_new in a branch ---


async def laps(ctx, after="go"):
    await ctx.wait_for_event(after)
    ctx.continue_as_new("next")


async def careful(ctx):
    try:
        await ctx.schedule_activity("work")
    finally:
        await ctx.schedule_activity("clean 1")
        await ctx.schedule_activity("clean 2")


async def by_gather(ctx, _):
    await ctx.gather(careful(ctx), laps(ctx))


async def by_race(ctx, _):
    await ctx.race(careful(ctx), laps(ctx))


async def by_group(ctx, _):
    async with ctx.task_group() as group:
        group.create_task(careful(ctx))
        group.create_task(laps(ctx))


async def by_group_in_its_block(ctx, _):
    async with ctx.task_group() as group:
        group.create_task(careful(ctx))
        await laps(ctx)


async def by_nesting(ctx, _):
    async with ctx.task_group() as group:
        group.create_task(by_gather(ctx, None))
        await ctx.wait_for_event("never")


BOUNDARIES = [by_gather, by_race, by_group, by_group_in_its_block, by_nesting]


@pytest.mark.parametrize("subject", BOUNDARIES)
def test_continue_as_new_in_a_branch_lets_the_others_clean_up_and_passes_unwrapped(subject):
    drive = Drive(subject)
    assert drive.send("go").extras.cancelled == (drive.events[-2].source,)
    assert "activity clean 1" in drive.pending
    drive.done("clean 1")
    drive.done("clean 2")
    assert isinstance(drive.ending, ContinuedAsNew)
    assert drive.ending.state.data == b'"next"'


@pytest.mark.parametrize("subject", BOUNDARIES)
def test_a_cancel_while_a_boundary_unwinds_ends_the_execution_without_a_failure(subject):
    drive = Drive(subject)
    drive.send("go")
    drive.cancel()
    while drive.ending is None:
        drive.done(
            next(
                command for command in drive.pending if command.startswith("activity")
            ).removeprefix("activity ")
        )
    assert isinstance(drive.ending, (ContinuedAsNew, ExecutionCancelled))


def test_a_boundary_that_ties_with_the_winner_of_a_race_is_heard():
    """The race had its winner, and dropped the other branch's ContinueAsNew as if it had lost."""

    async def subject(ctx, _):
        shared = ctx.schedule_activity("a")

        async def wins():
            await shared

        async def bounds():
            await shared
            ctx.continue_as_new("next")

        await ctx.race(wins(), bounds())
        await ctx.schedule_activity("never")

    drive = Drive(subject)
    drive.done("a")
    assert isinstance(drive.ending, ContinuedAsNew)


def test_a_boundary_from_the_cleanup_of_a_gather_is_heard():
    async def bounds(ctx):
        try:
            await ctx.schedule_activity("b")
        finally:
            ctx.continue_as_new("from cleanup")

    async def subject(ctx, _):
        try:
            await ctx.gather(ctx.schedule_activity("a"), bounds(ctx))
        except Exception:
            return "lost"

    drive = Drive(subject)
    drive.died("a")
    assert isinstance(drive.ending, ContinuedAsNew)
