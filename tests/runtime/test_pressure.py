"""More loops than places: each laps, whatever it waits for, and nothing runs twice (scenario
50).
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta

import anyio
import pytest

from orchestra import Runtime, activity
from tests.support.kit import bounded, registry, until

pytestmark = pytest.mark.anyio

LOOPS = 40
LAPS = 3


class Laps:
    """Loops over what takes 20 ms, and how often each has lapped."""

    def __init__(self):
        self.of = Counter()
        self.runs = Counter()

        @activity
        async def works(loop: int, lap: int) -> None:
            self.runs[loop, lap] += 1
            await anyio.sleep(0.02)

        @activity
        def blocks(loop: int, lap: int) -> None:
            self.runs[loop, lap] += 1
            time.sleep(0.02)

        async def laps(ctx, state: tuple[int, str, int]) -> None:
            loop, kind, lap = state
            if kind == "timer":
                await ctx.schedule_timer(timedelta(milliseconds=20))
            else:
                await ctx.schedule_activity(works if kind == "works" else blocks, loop, lap)
            self.of[loop] += 1
            ctx.continue_as_new((loop, kind, lap + 1))

        self.activities = [works, blocks]
        self.registry = registry(laps)

    def all_have_gone_on(self):
        return len(self.of) == LOOPS and min(self.of.values()) >= LAPS


@bounded
@pytest.mark.parametrize("nodes", [1, 2])
async def test_more_loops_than_places_all_lap(store, nodes):
    laps = Laps()
    runtimes = [Runtime(store(), laps.registry, laps.activities, max_owned=4) for _ in range(nodes)]
    async with runtimes[0]:
        for loop in range(LOOPS):
            kind = ("timer", "works", "blocks")[loop % 3]
            await runtimes[0].client.start("laps", (loop, kind, 0), instance_id=f"loop-{loop}")
        if nodes == 1:
            await until(laps.all_have_gone_on)
        else:
            async with runtimes[1]:
                await until(laps.all_have_gone_on)
    assert set(laps.runs.values()) == {1}, "an activity was run twice"
