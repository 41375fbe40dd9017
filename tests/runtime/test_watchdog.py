"""Orchestration code that blocks is named; the host's event loop and, afterwards, the other instances go on (scenario 30)."""

import logging
import threading
from datetime import timedelta

import anyio
import pytest

from orchestra import OrchestrationRegistry, Runtime, SqliteProvider

pytestmark = pytest.mark.anyio


async def test_a_turn_that_blocks_is_named_with_its_line_once_and_the_others_go_on(tmp_path, caplog):
    gate = threading.Event()

    async def blocks(ctx, state: int) -> int:
        gate.wait(30)
        return state

    async def goes_on(ctx, state: int) -> int:
        await ctx.schedule_timer(timedelta(milliseconds=1))
        return state

    registry = OrchestrationRegistry.builder().register("blocks", blocks, "1.2.0").register("goes-on", goes_on).build()
    caplog.set_level(logging.WARNING, "orchestra.engine")

    def warnings():
        return [record for record in caplog.records if "has blocked" in record.getMessage()]

    with anyio.fail_after(30):
        async with Runtime(SqliteProvider(tmp_path / "a.db"), registry, blocked_after=timedelta(milliseconds=20)) as runtime:
            blocked = await runtime.client.start("blocks", 1, instance_id="blocked-1")
            while not warnings():
                await anyio.sleep(0.005)  # the host's loop runs while the engine's thread does not
            await anyio.sleep(0.1)
            gate.set()
            assert await blocked.result(int) == 1
            other = await runtime.client.start("goes-on", 2)
            assert await other.result(int) == 2

    (warning,) = warnings()
    assert (warning.orchestration, warning.version, warning.instance_id, warning.execution_id) == (
        "blocks",
        "1.2.0",
        "blocked-1",
        1,
    )
    line = blocks.__code__.co_firstlineno + 1
    assert f"at {__file__}:{line} in " in warning.getMessage()
