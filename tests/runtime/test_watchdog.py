"""Orchestration code that blocks is named, and all else goes on: the host's loop and the other instances (scenario 30)."""

import logging
import threading
from contextlib import contextmanager
from datetime import timedelta

import anyio
import pytest

from orchestra import OrchestrationRegistry, Runtime, SqliteProvider

pytestmark = pytest.mark.anyio

SOON = timedelta(milliseconds=20)


async def goes_on(ctx, state: int) -> int:
    await ctx.schedule_timer(timedelta(milliseconds=1))
    return state


@contextmanager
def gated():
    """Give an orchestration that blocks until the gate is set, and set it in the end."""
    gate = threading.Event()

    async def blocks(ctx, state: int) -> int:
        gate.wait(30)
        await ctx.schedule_timer(timedelta(milliseconds=1))
        return state

    try:
        yield gate, blocks
    finally:
        gate.set()


def serving(blocks):
    return OrchestrationRegistry.builder().register("blocks", blocks, "1.2.0").register("goes-on", goes_on).build()


def warnings(caplog):
    return [record for record in caplog.records if "has blocked" in record.getMessage()]


async def test_a_turn_that_blocks_is_named_with_its_line_once_and_the_others_go_on_meanwhile(tmp_path, caplog):
    caplog.set_level(logging.INFO, "orchestra.engine")
    with anyio.fail_after(30), gated() as (gate, blocks):
        async with Runtime(SqliteProvider(tmp_path / "a.db"), serving(blocks), blocked_after=SOON) as runtime:
            client = runtime.client
            blocked = await client.start("blocks", 1, instance_id="blocked-1")
            for number in range(5):
                other = await client.start("goes-on", number)
                assert await other.result(int) == number
            info = await client.get_instance_info("blocked-1")
            assert info.owner == runtime.node_id
            gate.set()
            assert await blocked.result(int) == 1

    (warning,) = warnings(caplog)
    assert (warning.orchestration, warning.version, warning.instance_id, warning.execution_id) == (
        "blocks",
        "1.2.0",
        "blocked-1",
        1,
    )
    line = blocks.__code__.co_firstlineno + 1
    assert f"at {__file__}:{line} in " in warning.getMessage()
    assert "the node's other instances go on without it" in warning.getMessage()
    assert any("'blocked-1' has returned after" in record.getMessage() for record in caplog.records)


async def test_more_turns_that_block_than_can_be_left_behind_make_the_node_wait_and_it_says_so(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "orchestra.engine")
    with anyio.fail_after(60), gated() as (gate, blocks):
        limit = timedelta(milliseconds=5)
        async with Runtime(SqliteProvider(tmp_path / "a.db"), serving(blocks), blocked_after=limit) as runtime:
            handles = [await runtime.client.start("blocks", number) for number in range(16)]
            while len(warnings(caplog)) < 16:
                await anyio.sleep(0.005)
            one_more = await runtime.client.start("blocks", 16)
            while len(warnings(caplog)) < 17:
                await anyio.sleep(0.005)
            gate.set()
            for number, handle in enumerate([*handles, one_more]):
                assert await handle.result(int) == number
    messages = [record.getMessage() for record in warnings(caplog)]
    assert all("go on without it" in message for message in messages[:16])
    assert "every instance of this node waits" in messages[16]


async def test_a_loop_without_end_does_not_keep_the_others_from_working_nor_the_runtime_from_stopping(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "orchestra.engine")
    enough = threading.Event()

    async def spins(ctx, state: int) -> int:
        while not enough.is_set():
            pass
        return state

    try:
        with anyio.fail_after(30):
            provider = SqliteProvider(tmp_path / "a.db")
            async with Runtime(provider, serving(spins), blocked_after=SOON) as runtime:
                await runtime.client.start("blocks", 1, instance_id="spinning")
                for number in range(3):
                    other = await runtime.client.start("goes-on", number)
                    assert await other.result(int) == number
                await runtime.client.terminate("spinning", "it spins")
                ended = await runtime.client.get_instance_info("spinning")
                assert ended.status == "terminated"
            # What its thread does afterwards reaches nobody.
            enough.set()
            async with Runtime(SqliteProvider(tmp_path / "a.db"), serving(goes_on)) as runtime:
                assert (await runtime.client.get_instance_info("spinning")).status == "terminated"
    finally:
        enough.set()


async def test_an_instance_that_blocks_while_its_runtime_stops_begins_its_turn_anew_in_the_next_one(tmp_path):
    with anyio.fail_after(30):
        with gated() as (_, blocks):
            async with Runtime(SqliteProvider(tmp_path / "a.db"), serving(blocks), blocked_after=SOON) as runtime:
                await runtime.client.start("blocks", 7, instance_id="blocked-1")
                other = await runtime.client.start("goes-on", 1)
                assert await other.result(int) == 1  # the first one is away by now, or was not begun
        async with Runtime(SqliteProvider(tmp_path / "a.db"), serving(goes_on)) as runtime:
            assert await runtime.client.handle("blocked-1").result(int) == 7


async def test_a_runtime_stops_in_order_while_several_are_away_and_what_they_do_later_reaches_nobody(tmp_path, caplog):
    """It leaves and releases; its provider is free for the next runtime at once, and no thread of the first one uses it."""
    caplog.set_level(logging.INFO, "orchestra.engine")
    provider = SqliteProvider(tmp_path / "a.db")
    with anyio.fail_after(60):
        with gated() as (gate, blocks):
            async with Runtime(provider, serving(blocks), blocked_after=SOON) as runtime:
                for number in range(4):
                    await runtime.client.start("blocks", number, instance_id=f"blocked-{number}")
                while len(warnings(caplog)) < 4:
                    await anyio.sleep(0.005)
                threads = list(runtime._thread._left_behind)
            assert not any("lease has run out" in record.getMessage() for record in caplog.records)
            async with Runtime(provider, serving(goes_on)) as runtime:
                for number in range(4):
                    assert await runtime.client.handle(f"blocked-{number}").result(int) == number
                gate.set()
                for thread in threads:
                    await anyio.to_thread.run_sync(thread.join)
                assert await (await runtime.client.start("goes-on", 9)).result(int) == 9
    assert len(threads) == 4
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.WARNING] == []
