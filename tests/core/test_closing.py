"""Code that has left memory is closed, whatever it does with the exceptions that it meets (protocol
rule 22).
"""

import asyncio
import contextlib
import gc
import os
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestra.codec import encode
from orchestra.context import Limits
from orchestra.errors import NondeterminismError
from orchestra.events import ContinuedAsNew, ExecutionCancelled
from orchestra.replay import Execution
from tests.support.driver import SUBJECT, Drive, define, replay

# ruff: noqa: B012, E701, E722, SIM105 - what is tested here is just that

# Each of these goes on for ever, unless something stops it. ``going`` bounds the test, not the
# code.
MOST_ROUNDS = 100_000


rounds = 0


def going():
    global rounds
    rounds += 1
    if rounds > MOST_ROUNDS:
        os.write(2, b"code goes on for ever\n")
        os._exit(70)
    return True


async def catches_everything_around_an_await(ctx, _):
    while going():
        try:
            await ctx.wait_for_event("x")
        except:
            pass


async def awaits_a_future_that_it_has(ctx, _):
    future = ctx.wait_for_event("x")
    while going():
        with contextlib.suppress(BaseException):
            await future


async def returns_to_the_loop_from_finally(ctx, _):
    while going():
        try:
            await ctx.wait_for_event("x")
        finally:
            continue


async def nests_handlers(ctx, _):
    while going():
        try:
            while going():
                try:
                    await ctx.wait_for_event("x")
                except BaseException:
                    try:
                        ctx.uuid4()
                    except BaseException:
                        pass
                finally:
                    try:
                        await ctx.schedule_timer(timedelta(1))
                    except BaseException:
                        pass
        except BaseException:
            continue


async def keeps_what_it_catches(ctx, _):
    caught = []
    while going():
        try:
            while going():
                try:
                    await ctx.wait_for_event("x")
                except BaseException as error:
                    caught.append(error)
        except BaseException as error:
            caught.append(error)


async def asks_without_waiting(ctx, _):
    try:
        await ctx.wait_for_event("x")
    finally:
        while going():
            try:
                ctx.uuid4()
            except BaseException:
                pass


async def loops_in_a_function(ctx, _):
    def stubborn():
        while going():
            try:
                ctx.random()
            except BaseException:
                pass

    while going():
        try:
            await ctx.wait_for_event("x")
        except BaseException:
            stubborn()


async def calls_itself(ctx, _):
    async def again():
        try:
            await ctx.wait_for_event("x")
        except BaseException:
            pass
        if going() and rounds % 500:  # not as deep as Python goes
            await again()

    while going():
        try:
            await again()
        except BaseException:
            pass


async def has_a_context_manager_that_swallows(ctx, _):
    class Swallows:
        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            try:
                await ctx.schedule_activity("cleanup")
            except BaseException:
                pass
            return True

    while going():
        async with Swallows():
            await ctx.wait_for_event("x")


async def catches_around_a_gather(ctx, _):
    async def branch():
        while going():
            try:
                await ctx.wait_for_event("x")
            except:
                pass

    while going():
        try:
            await ctx.gather(branch(), branch())
        except:
            pass


async def catches_around_a_task_group(ctx, _):
    while going():
        try:
            async with ctx.task_group() as group:
                group.create_task(catches_everything_around_an_await(ctx, None))
                await ctx.wait_for_event("y")
        except BaseException:
            pass


async def awaits_something_foreign_in_its_handler(ctx, _):
    while going():
        try:
            await ctx.wait_for_event("x")
        except BaseException:
            try:
                await asyncio.sleep(0)
            except BaseException:
                pass


async def has_an_async_generator_that_goes_on(ctx, _):
    async def numbers():
        while going():
            try:
                yield await ctx.wait_for_event("x")
            except BaseException:
                pass

    async for _number in numbers():
        pass


async def is_written_on_one_line(ctx, _):
    while going():
        try: await ctx.wait_for_event("x")  # fmt: skip
        except: pass  # fmt: skip


STUBBORN = [
    catches_everything_around_an_await,
    awaits_a_future_that_it_has,
    returns_to_the_loop_from_finally,
    nests_handlers,
    keeps_what_it_catches,
    asks_without_waiting,
    loops_in_a_function,
    calls_itself,
    has_a_context_manager_that_swallows,
    catches_around_a_gather,
    catches_around_a_task_group,
    awaits_something_foreign_in_its_handler,
    is_written_on_one_line,
]


@pytest.mark.parametrize("program", STUBBORN, ids=lambda program: program.__name__)
def test_closing_ends_whatever_the_code_catches_and_names_the_line(program, caplog):
    global rounds
    rounds = 0
    drive = Drive(program)
    assert drive.ending is None
    rounds = 0
    caplog.clear()  # of what was replayed on the way
    before = sys.gettrace(), sys.getprofile()
    drive.execution.evict()
    assert rounds < 20_000
    assert (sys.gettrace(), sys.getprofile()) == before
    (record,) = caplog.records
    assert record.instance_id == "subject-1"
    line = int(record.getMessage().split(f"went on at {__file__}:")[1].split()[0])
    handler = Path(__file__).read_text().splitlines()[line - 1]
    assert any(
        word in handler for word in ("except", "suppress", "continue", "async with", "asyncio")
    ), handler
    del drive
    gc.collect()  # what Python's finaliser cannot close would be an error here


def test_code_that_cleans_up_much_and_in_order_is_not_unwound_by_force(caplog):
    """Each branch is refused a few things; all together are refused thousands."""
    cleaned = []

    async def branch(ctx, number):
        try:
            await ctx.wait_for_event("x")
        finally:
            for attempt in range(3):
                with contextlib.suppress(BaseException):
                    await ctx.schedule_activity("clean", attempt)
            cleaned.append(number)

    async def subject(ctx, _):
        await ctx.gather(*[branch(ctx, number) for number in range(1000)])

    Drive(subject).execution.evict()
    assert len(cleaned) >= 1000
    assert caplog.records == []


def test_the_line_is_named_once_for_all_instances_of_a_registry(caplog):
    definition = define(catches_everything_around_an_await)
    for number in range(3):
        execution = Execution(
            definition, replace(SUBJECT, instance_id=f"subject-{number}"), Limits(), {}
        )
        execution.start(encode(None, subject="state"), 0)
        execution.turn(0)
        execution.evict()
    assert len(caplog.records) == 1


def test_code_that_goes_on_when_history_says_otherwise_is_unwound_as_well():
    async def recorded(ctx, _):
        await ctx.schedule_activity("a")
        await ctx.wait_for_event("x")

    async def other(ctx, _):
        await ctx.schedule_activity("a")
        while going():
            try:
                await ctx.wait_for_event("y")
            except:
                pass

    global rounds
    rounds = 0
    drive = Drive(recorded)
    drive.done("a")
    with pytest.raises(NondeterminismError):
        replay(other, drive.history)
    assert rounds < 1000
    assert (sys.gettrace(), sys.getprofile()) == (None, None)


def test_who_traces_the_thread_traces_it_again_afterwards():
    seen = []

    def tracer(frame, event, argument):
        seen.append(event)

    drive = Drive(catches_everything_around_an_await)
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        drive.execution.evict()
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


def test_a_terminated_execution_that_goes_on_ends():
    """The engine drops what an operator has ended: history says so, and the code is not asked."""
    drive = Drive(catches_everything_around_an_await)
    drive.execution.evict()
    assert drive.execution.turn(0).events == ()


# --- async generators that are left early ---


async def numbers(ctx, log):
    try:
        for number in range(5):
            yield number
            await ctx.schedule_activity("step")
    finally:
        log.append("closing")
        await ctx.schedule_activity("clean")
        log.append("closed")


def test_an_async_generator_that_is_left_early_is_closed_in_that_turn_and_its_awaits_are_recorded():
    log = []

    async def subject(ctx, _):
        async for _number in numbers(ctx, log):
            break
        await ctx.schedule_activity("next")
        log.append("next")
        await ctx.schedule_activity("last")

    drive = Drive(subject, cold=False)
    assert drive.pending == ["activity next", "activity clean"]
    assert "closing" in log
    drive.done("clean")
    drive.done("next")
    drive.done("last")
    assert drive.output is None


@pytest.mark.parametrize("cold", [False, True])
def test_a_task_ends_when_the_generators_that_it_left_are_closed(cold):
    async def subject(ctx, _):
        async for number in numbers(ctx, []):
            return number

    drive = Drive(subject, cold=cold)
    assert drive.pending == ["activity clean"]
    assert drive.ending is None
    drive.done("clean")
    assert drive.output == 0


def test_a_boundary_waits_for_generators_as_it_does_for_finally():
    async def subject(ctx, _):
        async for number in numbers(ctx, []):
            ctx.continue_as_new(number)

    drive = Drive(subject)
    assert drive.pending == ["activity clean"]
    drive.done("clean")
    assert isinstance(drive.ending, ContinuedAsNew)


def test_an_error_in_the_closing_of_a_generator_is_one_of_the_task_that_left_it():
    async def broken(ctx):
        try:
            yield 1
        finally:
            await ctx.schedule_activity("clean")
            raise ValueError("not cleaned")

    async def subject(ctx, _):
        async for number in broken(ctx):
            return number

    drive = Drive(subject)
    drive.done("clean")
    assert (drive.error.type, drive.error.message) == ("ValueError", "not cleaned")


def test_a_cancel_reaches_a_generator_that_is_being_closed():
    async def subject(ctx, _):
        async for number in numbers(ctx, []):
            return number

    drive = Drive(subject)
    drive.cancel()
    assert isinstance(drive.ending, ExecutionCancelled)
    assert drive.pending == []


def test_a_generator_that_is_alive_when_its_execution_leaves_memory_decides_nothing():
    log = []

    async def subject(ctx, _):
        async for _number in numbers(ctx, log):
            await ctx.wait_for_event("x")

    drive = Drive(subject)
    log.clear()
    drive.execution.evict()
    assert log == ["closing"]
    gc.collect()


def test_a_generator_is_not_left_to_the_event_loop_of_the_host():
    async def main():
        async def subject(ctx, _):
            async for number in numbers(ctx, []):
                return number

        drive = Drive(subject)
        assert drive.pending == ["activity clean"]
        drive.done("clean")
        return drive.output

    assert asyncio.run(main()) == 0


def test_a_generator_that_is_closed_by_the_code_itself_is_left_alone():
    async def subject(ctx, _):
        async with contextlib.aclosing(numbers(ctx, [])) as generator:
            async for _number in generator:
                break
        return "closed"

    drive = Drive(subject)
    drive.done("clean")
    assert drive.output == "closed"
    assert drive.commands == ["activity clean"]
