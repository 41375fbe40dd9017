"""Code that goes on, whatever it is told, ends with its execution or with its runtime: it burns no
processor afterwards.
"""
# ruff: noqa: E722, SIM105 - what is tested here is just that

import logging
import threading
import time
from datetime import timedelta

import anyio
import pytest

from orchestra import OrchestrationRegistry, Runtime, SqliteProvider

pytestmark = pytest.mark.anyio

SOON = timedelta(milliseconds=50)


async def goes_on(ctx, state: int) -> int:
    await ctx.schedule_timer(timedelta(milliseconds=1))
    return state


async def swallows(ctx, state: int) -> None:
    while True:
        try:
            await ctx.wait_for_event("x")
        except:
            pass


async def spins_in_its_cleanup(ctx, state: int) -> None:
    try:
        await ctx.wait_for_event("x")
    finally:
        while True:
            try:
                state += 1
            except:
                pass


async def spins_in_a_turn(ctx, state: int) -> None:
    while True:
        try:
            while True:
                try:
                    state += 1
                except:
                    pass
        except BaseException:
            continue


def registry(function):
    return (
        OrchestrationRegistry.builder()
        .register("stubborn", function)
        .register("goes-on", goes_on)
        .build()
    )


async def all_end(threads):
    with anyio.fail_after(30):
        while any(thread.is_alive() for thread in threads):
            await anyio.sleep(0.005)


def engines():
    return {thread for thread in threading.enumerate() if thread.name == "orchestra-engine"}


@pytest.mark.parametrize("how", ["terminated", "stopped"])
@pytest.mark.parametrize(
    "code", [swallows, spins_in_its_cleanup, spins_in_a_turn], ids=lambda code: code.__name__
)
async def test_code_that_goes_on_ends_and_the_others_do_not_wait(tmp_path, caplog, code, how):
    caplog.set_level(logging.INFO, "orchestra.engine")
    before = engines()
    with anyio.fail_after(60):
        async with Runtime(
            SqliteProvider(tmp_path / "a.db"), registry(code), blocked_after=SOON
        ) as runtime:
            handle = await runtime.client.start("stubborn", 1, instance_id="stubborn-1")
            for number in range(3):
                assert await (await runtime.client.start("goes-on", number)).result(int) == number
            if how == "terminated":
                await handle.terminate("it goes on")
            for number in range(3):
                assert await (await runtime.client.start("goes-on", number)).result(int) == number
            threads = engines() - before
    await all_end(threads | (engines() - before))
    messages = [record.getMessage() for record in caplog.records]
    assert [
        message for message in messages if f"{__file__}:" in message and code.__name__ in message
    ], messages
    assert [
        record.getMessage() for record in caplog.records if record.levelno > logging.WARNING
    ] == []


@pytest.mark.slow
async def test_a_wide_turn_is_not_blamed_on_a_line(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "orchestra.engine")

    async def branch(number: int) -> None:
        if (
            number > 200
        ):  # the first ones are quick, so that the turn is a wide one whenever it is looked at
            time.sleep(0.003)

    async def wide(ctx, state: int) -> int:
        await ctx.gather(*[branch(number) for number in range(1200)])
        return state

    with anyio.fail_after(60):
        async with Runtime(
            SqliteProvider(tmp_path / "a.db"), registry(wide), blocked_after=40 * SOON
        ) as runtime:
            assert await (await runtime.client.start("stubborn", 1)).result(int) == 1
            while not caplog.records:
                await anyio.sleep(0.005)
    messages = [
        record.getMessage() for record in caplog.records if record.orchestration == "stubborn"
    ]
    assert [message for message in messages if "has blocked" in message] == []
    assert len([message for message in messages if "has kept its node busy" in message]) == 1
