"""What is over is freed at once: nothing waits for the cycle collector, so that a host may make it
rare.
"""

import gc

import pytest

from orchestra import activity
from tests.support.kit import bounded, runtime

pytestmark = pytest.mark.anyio


@activity
async def increment(value: int) -> int:
    return value + 1


async def counts(ctx, left: int) -> int:
    value = 0
    for _ in range(5):
        value = await ctx.schedule_activity(increment, value)
    if left:
        ctx.continue_as_new(left - 1)
    return value


@pytest.mark.slow
@bounded
async def test_steps_laps_and_ends_leave_no_cycles(path):
    async with runtime(path, counts, activities=[increment]) as node:
        await (await node.client.start("counts", 1)).result()
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                assert await (await node.client.start("counts", 1)).result() == 5
            left = gc.collect()
        finally:
            gc.enable()
    assert left < 20, (
        f"{left} objects wait for the collector behind 20 instances of 2 laps and 10 steps"
    )
