"""Cancel, boundary and eviction: what passes user code, and what its ``finally`` bodies may still
do.
"""

import contextlib
import gc
import weakref
from datetime import timedelta

import pytest

from orchestra.codec import encode, plain
from orchestra.errors import Cancelled, Evicted
from orchestra.events import CancelRequested, ContinuedAsNew, ExecutionCancelled, ExecutionFailed
from tests.support.driver import Drive, fresh, prefixes, replay

# --- cancel ---


def test_a_cancel_is_raised_at_the_await_and_ends_the_instance_cancelled():
    async def subject(ctx, _):
        await ctx.schedule_activity("a")

    drive = Drive(subject)
    turn = drive.cancel("by hand")
    assert drive.ending == ExecutionCancelled(5, 0, "by hand")
    assert turn.extras.cancelled == (2,)


def test_a_cancel_is_delivered_once_and_before_all_else():
    async def subject(ctx, _):
        try:
            return await ctx.wait_for_event("x")
        finally:
            await ctx.schedule_timer(timedelta(seconds=1))

    drive = Drive(subject)
    drive.put("x", "too late")
    drive.cancel()
    assert drive.cancel().events == ()
    drive.now = 10**9
    drive.cancel()
    assert isinstance(drive.ending, ExecutionCancelled)
    assert sum(isinstance(event, CancelRequested) for event in drive.events) == 1
    assert [message.name for message in drive.inbox] == ["x"]


def test_compensation_after_a_cancel_may_await_activities():
    async def subject(ctx, _):
        try:
            await ctx.schedule_activity("book")
            await ctx.schedule_activity("pay")
        except Cancelled as error:
            await ctx.schedule_activity("unbook", error.reason)
            raise

    drive = Drive(subject)
    drive.done("book")
    drive.cancel("changed my mind")
    assert plain(drive.execution.activities[drive.activity("unbook")].arguments) == [
        "changed my mind"
    ]
    drive.done("unbook")
    assert isinstance(drive.ending, ExecutionCancelled)


def test_code_that_catches_its_cancel_and_goes_on_completes():
    async def subject(ctx, _):
        try:
            await ctx.wait_for_event("x")
        except Cancelled:
            return await ctx.schedule_activity("after")

    drive = Drive(subject)
    drive.cancel()
    drive.done("after", "went on")
    assert drive.output == "went on"


def test_a_cancel_reaches_every_branch_and_waits_for_their_cleanup():
    async def branch(ctx, number):
        try:
            await ctx.schedule_activity(f"work {number}")
        finally:
            await ctx.schedule_activity(f"clean {number}")

    async def subject(ctx, _):
        async with ctx.task_group() as group:
            group.create_task(branch(ctx, 1))
            await ctx.gather(branch(ctx, 2), ctx.race(branch(ctx, 3), branch(ctx, 4)))

    drive = Drive(subject)
    drive.cancel()
    for number in (
        2,
        3,
        4,
        1,
    ):  # from the inside out: a gather ends before the group that holds it is left
        drive.done(f"clean {number}")
    assert isinstance(drive.ending, ExecutionCancelled)


def test_a_cancel_while_cleanup_waits_is_delivered_there():
    async def subject(ctx, _):
        try:
            await ctx.schedule_activity("a")
        finally:
            await ctx.schedule_activity("clean")

    drive = Drive(subject)
    drive.died("a")
    drive.cancel()
    assert isinstance(drive.ending, ExecutionCancelled)


def test_a_cleanup_after_a_cancel_may_continue_as_new():
    async def subject(ctx, _):
        try:
            await ctx.wait_for_event("x")
        finally:
            await ctx.schedule_activity("clean")
            ctx.continue_as_new("next")

    drive = Drive(subject)
    drive.cancel()
    drive.done("clean")
    assert isinstance(drive.ending, ContinuedAsNew)


def test_cancelled_raised_by_code_itself_without_a_cancel_is_a_failure():
    async def subject(ctx, _):
        raise Cancelled("not really")

    assert Drive(subject).error.type == "orchestra.errors.Cancelled"


# --- the boundary ---


def test_cleanup_of_a_boundary_may_await_activities_over_several_turns():
    async def subject(ctx, _):
        try:
            ctx.continue_as_new("next", version="2.0.0")
        finally:
            await ctx.schedule_activity("clean 1")
            await ctx.schedule_activity("clean 2")

    drive = Drive(subject)
    drive.done("clean 1")
    assert drive.ending is None
    drive.done("clean 2")
    assert (drive.ending.version, plain(drive.ending.state)) == ("2.0.0", "next")


def test_a_cancel_while_a_boundary_cleans_up_ends_the_execution_cancelled():
    """It was a failure once: the boundary counted as swallowed."""

    async def subject(ctx, _):
        try:
            ctx.continue_as_new("next")
        finally:
            await ctx.schedule_activity("clean")

    drive = Drive(subject)
    drive.cancel()
    assert isinstance(drive.ending, ExecutionCancelled)


@pytest.mark.parametrize("how", ["returned", "raised"])
def test_a_boundary_that_is_swallowed_is_a_failure_with_its_own_type(how):
    async def subject(ctx, _):
        with contextlib.suppress(BaseException):
            ctx.continue_as_new("next")
        if how == "raised":
            raise ValueError("mine")

    drive = Drive(subject)
    assert drive.error.type == "orchestra.errors.ContinueAsNewSwallowed"
    assert how in drive.error.message


def test_a_boundary_that_is_swallowed_and_asked_for_again_takes_the_last_state():
    async def subject(ctx, _):
        with contextlib.suppress(BaseException):
            ctx.continue_as_new("first")
        ctx.continue_as_new("second")

    assert plain(Drive(subject).ending.state) == "second"


def test_what_is_scheduled_in_the_turn_of_the_boundary_is_not_begun():
    async def subject(ctx, _):
        ctx.schedule_activity("a")
        ctx.continue_as_new()

    (turn,) = Drive(subject).turns
    assert isinstance(turn.ending, ContinuedAsNew)
    assert turn.scheduled == ()


@pytest.mark.parametrize(
    ("state", "version", "error"),
    [
        (float("nan"), None, "EncodeError"),
        ("x" * 3_000_000, None, "PayloadTooLarge"),
        (1, "two", "InvalidVersion"),
    ],
)
def test_a_boundary_that_cannot_be_goes_on(state, version, error):
    async def subject(ctx, _):
        try:
            ctx.continue_as_new(state, version=version)
        except Exception as caught:
            return type(caught).__name__

    assert Drive(subject).output == error


# --- broad handlers ---


@pytest.mark.parametrize("end", ["cancel", "boundary", "evict"])
def test_a_handler_of_exception_swallows_neither_cancel_nor_boundary_nor_eviction(end):
    """Scenario 31."""
    swallowed = []

    async def subject(ctx, _):
        while True:
            try:
                if await ctx.wait_for_event("x") == "lap":
                    ctx.continue_as_new()
            except Exception as error:
                swallowed.append(error)

    drive = Drive(subject)
    match end:
        case "cancel":
            drive.cancel()
            assert isinstance(drive.ending, ExecutionCancelled)
        case "boundary":
            drive.send("x", "lap")
            assert isinstance(drive.ending, ContinuedAsNew)
        case _:
            drive.execution.evict()
    assert swallowed == []


# --- eviction ---


async def full_of_cleanup(ctx, _):
    async def branch(name):
        try:
            await ctx.schedule_activity(name)
        finally:
            ctx.trace_info("cleaning")
            await ctx.gather(ctx.schedule_activity(f"clean {name}"), tidy(f"tidy {name}"))

    async def tidy(name):
        try:
            await ctx.schedule_activity(name)
        finally:
            ctx.set_custom_status(name)

    try:
        async with ctx.task_group() as group:
            group.create_task(branch("a"))
            await ctx.race(branch("b"), ctx.wait_for_event("x"))
            await ctx.gather(branch("c"), branch("d"))
    except Exception:
        await ctx.schedule_activity("after")
        raise
    finally:
        async with ctx.task_group() as group:
            group.create_task(branch("last"))


def test_eviction_decides_nothing_at_any_point_and_replay_goes_on_alike():
    """Scenario 32."""

    def play(cold):
        drive = Drive(full_of_cleanup, cold=cold)
        drive.send("x")
        for name in ["clean b", "tidy b", "c", "clean c", "a"]:
            drive.done(name)
        drive.died("d")
        while drive.ending is None:
            drive.done(drive.pending[0].removeprefix("activity "))
        return drive

    warm, cold = play(cold=False), play(cold=True)
    assert warm.history == cold.history
    assert isinstance(warm.ending, ExecutionFailed)
    for history in prefixes(warm.history):
        execution = replay(full_of_cleanup, history)
        execution.evict()
        assert execution.journal.take_fresh() == ()
        assert execution.commands.open_turn is None


def test_a_sealed_context_raises_at_every_call_and_await_and_is_mute():
    refused = []

    async def subject(ctx, _):
        done = ctx.schedule_activity("done")
        await done
        try:
            await ctx.wait_for_event("x")
        finally:
            ctx.trace_info("mute")
            for use in (
                lambda: ctx.schedule_activity("b"),
                lambda: ctx.schedule_timer(timedelta(1)),
                lambda: ctx.wait_for_event("y"),
                lambda: ctx.continue_as_new(),
                lambda: ctx.set_custom_status("x"),
                lambda: ctx.task_group(),
                lambda: ctx.uuid4(),
                lambda: ctx.random(),
                done.cancel,
            ):
                try:
                    use()
                except Evicted:
                    refused.append(use)
            try:
                await done
            except Evicted:
                refused.append("await")

    drive = Drive(subject)
    drive.done("done")
    refused.clear()
    drive.execution.evict()
    assert len(refused) == 10


def test_eviction_leaves_no_coroutine_that_was_never_awaited():
    """A ``finally`` body may make coroutines for a gather, a race or a group that refuse them:
    nobody would close them.
    """

    async def clean(ctx):
        await ctx.schedule_activity("clean")

    async def subject(ctx, _):
        async with ctx.task_group() as group:
            try:
                try:
                    await ctx.wait_for_event("x")
                finally:
                    await ctx.gather(clean(ctx), clean(ctx))
            finally:
                try:
                    await ctx.race(clean(ctx), clean(ctx))
                finally:
                    group.create_task(clean(ctx))

    Drive(subject).execution.evict()
    gc.collect()  # warnings are errors here, those of the collector too


@pytest.mark.parametrize("ends", ["boundary", "failure"])
def test_an_execution_that_ended_by_an_exception_is_freed_without_the_collector(ends):
    async def subject(ctx, state):
        if ends == "boundary":
            ctx.continue_as_new(state)
        raise ValueError("on purpose")

    gc.disable()
    try:
        execution = fresh(subject)
        execution.start(encode(None, subject="state"), 0)
        assert execution.turn(0).ending is not None
        gone = weakref.ref(execution)
        del execution
        assert gone() is None
    finally:
        gc.enable()
