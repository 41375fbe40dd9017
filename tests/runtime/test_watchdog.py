"""Orchestration code that blocks is named, and all else goes on: the host's loop and the other
instances (scenario 30).
"""

import logging
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace

import anyio
import pytest

from orchestra import OrchestrationRegistry, PlainFormatter, Runtime, SqliteProvider
from orchestra.runtime.watchdog import Watchdog

pytestmark = pytest.mark.anyio

SOON = timedelta(milliseconds=50)


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
    return (
        OrchestrationRegistry.builder()
        .register("blocks", blocks, "1.2.0")
        .register("goes-on", goes_on)
        .build()
    )


def warnings(caplog):
    """Return what was said of the code that blocks. Whatever else a busy machine may stop for long
    is not meant.
    """
    found = [record for record in caplog.records if "has blocked" in record.getMessage()]
    return [record for record in found if record.orchestration == "blocks"]


async def test_a_turn_that_blocks_is_named_with_its_line_once_and_the_others_go_on_meanwhile(
    tmp_path, caplog
):
    caplog.set_level(logging.INFO, "orchestra.engine")
    with anyio.fail_after(30), gated() as (gate, blocks):
        async with Runtime(
            SqliteProvider(tmp_path / "a.db"), serving(blocks), blocked_after=SOON
        ) as runtime:
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
    # Where a handler shows the text alone, it names the instance nevertheless.
    assert warning.getMessage().startswith("blocks 1.2.0 [blocked-1 #1] has blocked its node for ")
    assert any(
        "blocks 1.2.0 [blocked-1 #1] has returned after" in record.getMessage()
        for record in caplog.records
    )


async def test_more_turns_that_block_than_can_be_left_behind_make_the_node_wait_and_it_says_so(
    tmp_path, caplog
):
    caplog.set_level(logging.WARNING, "orchestra.engine")
    with anyio.fail_after(60), gated() as (gate, blocks):
        limit = timedelta(milliseconds=5)
        async with Runtime(
            SqliteProvider(tmp_path / "a.db"), serving(blocks), blocked_after=limit
        ) as runtime:
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


async def test_a_loop_without_end_does_not_keep_the_others_from_working_nor_the_runtime_from_stopping(
    tmp_path, caplog
):
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


async def test_an_instance_that_blocks_while_its_runtime_stops_begins_its_turn_anew_in_the_next_one(
    tmp_path,
):
    with anyio.fail_after(30):
        with gated() as (_, blocks):
            async with Runtime(
                SqliteProvider(tmp_path / "a.db"), serving(blocks), blocked_after=SOON
            ) as runtime:
                await runtime.client.start("blocks", 7, instance_id="blocked-1")
                other = await runtime.client.start("goes-on", 1)
                assert (
                    await other.result(int) == 1
                )  # the first one is away by now, or was not begun
        async with Runtime(SqliteProvider(tmp_path / "a.db"), serving(goes_on)) as runtime:
            assert await runtime.client.handle("blocked-1").result(int) == 7


async def test_a_runtime_stops_in_order_while_several_are_away_and_what_they_do_later_reaches_nobody(
    tmp_path, caplog
):
    """It leaves and releases; its provider is free for the next runtime at once, and no thread of
    the first one uses it.
    """
    caplog.set_level(logging.INFO, "orchestra.engine")
    provider = SqliteProvider(tmp_path / "a.db")
    with anyio.fail_after(60):
        with gated() as (gate, blocks):
            async with Runtime(provider, serving(blocks), blocked_after=SOON) as runtime:
                for number in range(4):
                    await runtime.client.start("blocks", number, instance_id=f"blocked-{number}")
                while len(warnings(caplog)) < 4:
                    await anyio.sleep(0.005)
                threads = list(runtime._thread._abandoned)
            assert not any("lease has run out" in record.getMessage() for record in caplog.records)
            async with Runtime(provider, serving(goes_on)) as runtime:
                for number in range(4):
                    assert await runtime.client.handle(f"blocked-{number}").result(int) == number
                gate.set()
                for thread in threads:
                    await anyio.to_thread.run_sync(thread.join)
                assert await (await runtime.client.start("goes-on", 9)).result(int) == 9
    assert len(threads) == 4
    assert [
        record.getMessage() for record in caplog.records if record.levelno > logging.WARNING
    ] == []


@pytest.mark.parametrize("share", [1.02, 1.2, 1.4, 1.6])
async def test_every_turn_that_takes_longer_than_the_limit_is_named_once_however_little_longer(
    tmp_path, caplog, share
):
    caplog.set_level(logging.WARNING, "orchestra.engine")
    limit = timedelta(milliseconds=100)

    async def blocks(ctx, state: int) -> int:
        time.sleep(share * limit.total_seconds())
        return state

    with anyio.fail_after(60):
        async with Runtime(
            SqliteProvider(tmp_path / "a.db"), serving(blocks), blocked_after=limit
        ) as runtime:
            for number in range(3):
                assert (
                    await (
                        await runtime.client.start("blocks", number, instance_id=f"slow-{number}")
                    ).result(int)
                    == number
                )
    found = warnings(caplog)
    assert [record.instance_id for record in found] == [f"slow-{number}" for number in range(3)]
    for record in found:
        assert record.getMessage().startswith(f"blocks 1.2.0 [{record.instance_id} #1] has blocked")


def test_the_watchdog_looks_when_what_runs_now_will_have_taken_too_long_and_else_once_in_a_limit():
    engine, now = SimpleNamespace(running_code=None), SimpleNamespace(monotonic=lambda: 100.0)
    watchdog = Watchdog(engine, SimpleNamespace(), now, 1.0)
    assert watchdog.look() == 1.0
    engine.running_code = SimpleNamespace(since=99.25)
    assert watchdog.look() == 0.25


async def test_a_line_of_the_plain_formatter_names_the_instance_once(tmp_path, caplog):
    with anyio.fail_after(30), gated() as (gate, blocks):
        async with Runtime(
            SqliteProvider(tmp_path / "a.db"), serving(blocks), blocked_after=SOON
        ) as runtime:
            await runtime.client.start("blocks", 1, instance_id="blocked-1")
            while not warnings(caplog):
                await anyio.sleep(0.005)
            gate.set()
    (warning,) = warnings(caplog)
    assert (
        " WARNING blocks 1.2.0 [blocked-1 #1] has blocked its node for "
        in PlainFormatter().format(warning)
    )


# --- what leaves memory ---------------------------------------------------------------------------


@contextmanager
def tidying():
    """Give an orchestration whose ``finally`` block does not return until the gate is set, and the
    line of that.
    """
    gate = threading.Event()

    async def blocks(ctx, state: int) -> int:
        try:
            await ctx.schedule_timer(timedelta(hours=1))
        finally:
            gate.wait(30)
        return state

    try:
        yield gate, blocks, blocks.__code__.co_firstlineno + 4
    finally:
        gate.set()


async def parked(runtime, instance_id):
    handle = await runtime.client.start("blocks", 1, instance_id=instance_id)
    while not (info := await handle.info()).waiting_on or info.owner is not None:
        await anyio.sleep(0.005)


async def test_a_finally_block_that_does_not_return_when_its_execution_leaves_memory_is_named_and_all_others_go_on(
    tmp_path, caplog
):
    caplog.set_level(logging.INFO, "orchestra.engine")
    with anyio.fail_after(30), tidying() as (gate, blocks, line):
        provider = SqliteProvider(tmp_path / "a.db")
        async with Runtime(
            provider, serving(blocks), blocked_after=SOON, warm_executions=0
        ) as runtime:
            for number in range(2):
                await parked(runtime, f"parked-{number}")
            while len(warnings(caplog)) < 2:
                await anyio.sleep(0.005)
            for number in range(5):
                assert await (await runtime.client.start("goes-on", number)).result(int) == number
            # Even the instance itself goes on, with an execution of its own.
            await runtime.client.cancel("parked-0")
            while len(warnings(caplog)) < 3:
                await anyio.sleep(0.005)
            gate.set()
            info = await runtime.client.wait_for_completion("parked-0")
            assert info.status == "cancelled"
    assert {record.instance_id for record in warnings(caplog)} == {"parked-0", "parked-1"}
    for record in warnings(caplog):
        assert (record.orchestration, record.version, record.execution_id) == ("blocks", "1.2.0", 1)
        assert f"at {__file__}:{line} in " in record.getMessage()
        assert "the node's other instances go on without it" in record.getMessage()
    assert any(
        "[parked-1 #1] has returned after" in record.getMessage() for record in caplog.records
    )


async def test_a_finally_block_that_does_not_return_keeps_no_runtime_from_stopping_in_order(
    tmp_path, caplog
):
    caplog.set_level(logging.INFO, "orchestra.engine")
    provider = SqliteProvider(tmp_path / "a.db")
    with anyio.fail_after(30), tidying() as (gate, blocks, line):
        async with Runtime(provider, serving(blocks), blocked_after=SOON) as runtime:
            for number in range(2):
                await parked(runtime, f"parked-{number}")
        threads = list(runtime._thread._abandoned)
        assert [record.instance_id for record in warnings(caplog)] == ["parked-1", "parked-0"]
        assert all(
            f"at {__file__}:{line} in " in record.getMessage() for record in warnings(caplog)
        )
        assert (
            len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 2
        ), "it stopped in order"
        async with Runtime(provider, serving(goes_on)) as runtime:
            assert await (await runtime.client.start("goes-on", 9)).result(int) == 9
            gate.set()
            for thread in threads:
                await anyio.to_thread.run_sync(thread.join)
    assert len(threads) == 2


async def test_a_stop_that_is_kept_up_by_code_says_so_and_blames_no_store(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("orchestra.runtime.runtime._RELEASE_SECONDS", 0.05)
    caplog.set_level(logging.WARNING, "orchestra.engine")
    entered = threading.Event()
    with anyio.fail_after(30):
        with gated() as (_, waits):

            async def blocks(ctx, state: int) -> int:
                entered.set()
                return await waits(ctx, state)

            hour = timedelta(hours=1)
            async with Runtime(
                SqliteProvider(tmp_path / "a.db"), serving(blocks), blocked_after=hour
            ) as runtime:
                await runtime.client.start("blocks", 1, instance_id="stuck-1")
                await anyio.to_thread.run_sync(entered.wait)
            line = waits.__code__.co_firstlineno + 1
            place = (
                f"code of blocks 1.2.0 [stuck-1 #1] at {__file__}:{line} in gated.<locals>.blocks "
                "does not return; "
            )
            assert [record.getMessage() for record in caplog.records] == [
                place + "what this node owns is taken over when its lease has run out",
                place + "the engine's thread is abandoned",
            ]
        await anyio.to_thread.run_sync(runtime._thread._thread.join)
