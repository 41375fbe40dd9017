"""Awaiting what is not durable is an error that names the line and the right call."""

import asyncio

import anyio
import pytest
import trio
from driver import Drive

TIMER = "ctx.schedule_timer"
ACTIVITY = "ctx.schedule_activity"


async def asyncio_sleep_0(ctx, _):
    await asyncio.sleep(0)


async def asyncio_sleep(ctx, _):
    await asyncio.sleep(1)


async def anyio_sleep(ctx, _):
    await anyio.sleep(1)


async def trio_sleep(ctx, _):
    await trio.sleep(1)


async def asyncio_wait_for(ctx, _):
    await asyncio.wait_for(asyncio.sleep(1), 1)


async def anyio_event(ctx, _):
    await anyio.Event().wait()


async def in_a_branch(ctx, _):
    await ctx.gather(asyncio_sleep_0(ctx, None), ctx.schedule_activity("a"))


async def in_a_helper(ctx, _):
    await asyncio_sleep_0(ctx, None)


def outside_of_any_loop(subject):
    return Drive(subject)


def on_asyncio(subject):
    async def main():
        return Drive(subject)

    return asyncio.run(main())


def on_trio(subject):
    async def main():
        return Drive(subject)

    return trio.run(main)


CASES = {
    (asyncio_sleep_0, outside_of_any_loop): ("sleep()", TIMER),
    (asyncio_sleep_0, on_asyncio): ("sleep()", TIMER),
    (asyncio_sleep_0, on_trio): ("sleep()", TIMER),
    (asyncio_sleep, outside_of_any_loop): ("sleep()", TIMER),
    (asyncio_sleep, on_asyncio): ("sleep()", TIMER),
    (anyio_sleep, outside_of_any_loop): ("sleep()", TIMER),
    (anyio_sleep, on_asyncio): ("sleep()", TIMER),
    (anyio_sleep, on_trio): ("sleep()", TIMER),
    (trio_sleep, outside_of_any_loop): ("sleep()", TIMER),
    (trio_sleep, on_trio): ("sleep()", TIMER),
    (anyio_event, on_asyncio): ("wait()", "ctx.race"),
    (anyio_event, on_trio): ("wait()", "ctx.race"),
    (in_a_branch, on_asyncio): ("sleep()", TIMER),
    (in_a_helper, on_asyncio): ("sleep()", TIMER),
}


@pytest.mark.parametrize(("subject", "where"), CASES, ids=lambda value: value.__name__)
def test_a_foreign_await_names_the_line_and_the_right_call(subject, where):
    called, advice = CASES[subject, where]
    error = where(subject).error
    assert error.type == "orchestra.errors.ForeignAwait"
    blamed = asyncio_sleep_0 if subject in {in_a_branch, in_a_helper} else subject
    line = blamed.__code__.co_firstlineno + 1
    assert error.message.startswith(f"{__file__}:{line} in {blamed.__name__} awaits {called}: ")
    assert advice in error.message


def test_asyncio_gather_is_answered_with_the_gather_of_the_context():
    async def subject(ctx, future):
        await asyncio.gather(future)

    async def main():
        return Drive(partial_state(subject, asyncio.get_running_loop().create_future()))

    error = asyncio.run(main()).error
    assert "awaits gather(): use `await ctx.gather(...)`" in error.message


def test_a_plain_asyncio_future_is_answered_with_what_may_be_awaited():
    async def subject(ctx, future):
        await future

    async def main():
        return Drive(partial_state(subject, asyncio.get_running_loop().create_future()))

    error = asyncio.run(main()).error
    assert "something that is not durable (Future)" in error.message
    assert ACTIVITY in error.message


def partial_state(subject, value):
    """Return an orchestration that hands a live object to ``subject``."""

    async def with_value(ctx, _):
        await subject(ctx, value)

    return with_value


def test_code_may_catch_a_foreign_await_and_go_on():
    async def subject(ctx, _):
        try:
            await asyncio.sleep(0)
        except Exception as error:
            return await ctx.schedule_activity("a", type(error).__name__)

    drive = Drive(subject)
    drive.done("a", "went on")
    assert drive.output == "went on"


def test_a_future_of_another_execution_is_foreign():
    kept = []

    async def keeps(ctx, _):
        future = ctx.schedule_activity("a")
        kept.append(future)
        await future

    alive = Drive(keeps)

    async def subject(ctx, _):
        await kept[0]

    assert Drive(subject).error.type == "orchestra.errors.ForeignAwait"
    alive.done("a")
    assert alive.output is None


def test_an_error_of_the_code_itself_is_left_as_it_is():
    async def subject(ctx, _):
        raise RuntimeError("mine")

    assert Drive(subject).error.type == "RuntimeError"
