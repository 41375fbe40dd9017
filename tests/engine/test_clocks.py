"""Nodes whose wall clock is hours off (rule 25)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from harness import check_rest, registry

from orchestra.events import TimerFired
from orchestra.providers.rows import Status

HOUR = 3_600_000_000


async def sleeps(ctx, seconds):
    await ctx.schedule_timer(timedelta(seconds=seconds))
    return ctx.now().timestamp()


CODE = registry(sleeps)


class OffClock:
    """A machine that has its own idea of the time of day, and of when it was started."""

    def __init__(self, world, off):
        self._world = world
        self._off = off

    def now(self):
        return self._world.clock.now() + self._off

    def monotonic(self):
        return self._world.clock.monotonic() + 12_345.0


@pytest.mark.parametrize("off", [-7 * HOUR, 5 * HOUR], ids=["behind", "ahead"])
@pytest.mark.parametrize("seconds", [4, 40], ids=["owned", "parked"])
def test_a_timer_is_neither_early_nor_late_on_a_node_whose_wall_clock_is_hours_off(any_world, off, seconds):
    any_world.node(CODE, clock=OffClock(any_world, off))
    instance_id = any_world.start(state=seconds)
    began = any_world.clock.now()
    any_world.run(seconds - 0.1)
    assert any_world.status(instance_id) is Status.OPEN
    any_world.run(2)
    assert any_world.status(instance_id) is Status.COMPLETED
    fired = next(event for event in any_world.events(instance_id) if isinstance(event, TimerFired))
    assert began + seconds * 1_000_000 <= fired.at <= began + (seconds + 2) * 1_000_000
    check_rest(any_world, [CODE])
