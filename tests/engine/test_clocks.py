"""Nodes whose wall clock is hours off, and stores whose clock is put right (rule 25, scenario
51).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from orchestra.activities import Activity
from orchestra.engine.engine import EngineOptions
from orchestra.events import TimerFired
from orchestra.retry import RetryPolicy
from orchestra.store.kinds import Status
from tests.support.harness import check_rest, registry

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
def test_a_timer_is_neither_early_nor_late_on_a_node_whose_wall_clock_is_hours_off(
    any_world, off, seconds
):
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


# --- the store's clock is put right ---

SECOND = 1_000_000
COLD = EngineOptions(cached=0, keep_owned=0)


async def laps(ctx, state):
    number, moments = state
    await ctx.schedule_timer(timedelta(seconds=1))
    moments = [*moments, ctx.now().timestamp()]
    if number == 1:
        return moments
    ctx.continue_as_new((number - 1, moments))


@pytest.mark.parametrize("jump", [HOUR, 30 * SECOND], ids=["an hour", "half a minute"])
@pytest.mark.parametrize("seconds", [8, 40], ids=["owned", "parked"])
def test_a_clock_that_is_put_back_neither_delays_nor_hurries_a_timer(any_world, seconds, jump):
    any_world.clock.off = jump  # it has run ahead since before
    node = any_world.node(CODE)
    instance_id = any_world.start(state=seconds)
    any_world.run(seconds / 2)
    any_world.clock.off = 0
    any_world.run(seconds / 2 - 1.5)
    assert any_world.status(instance_id) is Status.OPEN, "early"
    any_world.run(3)
    assert any_world.status(instance_id) is Status.COMPLETED, "late"
    times = [event.at for event in any_world.events(instance_id)]
    assert times == sorted(times), "event times never go back"
    assert node.engine.owned == 0
    check_rest(any_world, [CODE])


def test_a_node_that_keeps_nothing_in_memory_fires_what_was_parked_while_the_clock_was_ahead(
    any_world,
):
    """It cannot know how much of the duration had passed: the timer is late by that, and no
    more.
    """
    any_world.clock.off = 24 * HOUR
    any_world.node(CODE, options=COLD)
    instance_id = any_world.start(state=40)
    any_world.run(20)
    any_world.clock.off = 0
    any_world.run(19)
    assert any_world.status(instance_id) is Status.OPEN, "early"
    any_world.run(24)
    assert any_world.status(instance_id) is Status.COMPLETED, "late"


@pytest.mark.slow
def test_a_timer_that_was_set_on_the_right_clock_is_not_early_when_one_that_ran_ahead_is_put_right(
    any_world,
):
    """Who was there when it was put forward knows which timers were set before."""
    any_world.node(CODE)
    before = any_world.start(state=5_000)
    any_world.run(10)
    any_world.clock.off = HOUR
    any_world.run(10)
    meanwhile = any_world.start(state=5_000)
    any_world.run(80)
    any_world.clock.off = 0
    any_world.run(4_895)
    assert any_world.status(before) is Status.OPEN, "early"
    any_world.run(7)
    assert (any_world.status(before), any_world.status(meanwhile)) == (
        Status.COMPLETED,
        Status.OPEN,
    )
    any_world.run(12)
    assert any_world.status(meanwhile) is Status.OPEN, "early"
    any_world.run(8)
    assert any_world.status(meanwhile) is Status.COMPLETED, "late"


def test_what_was_parked_long_ago_on_a_clock_that_was_always_ahead_is_not_late(any_world):
    any_world.clock.off = 60 * SECOND
    any_world.node(CODE)
    instance_id = any_world.start(state=1_000)
    any_world.run(500)
    any_world.clock.off = 0
    any_world.run(498)
    assert any_world.status(instance_id) is Status.OPEN, "early"
    any_world.run(4)
    assert any_world.status(instance_id) is Status.COMPLETED, "late"


@pytest.mark.parametrize("options", [EngineOptions(), COLD], ids=["warm", "cold"])
def test_what_was_parked_while_the_clock_was_ahead_fires_also_where_no_node_has_seen_the_jump(
    any_world, options
):
    any_world.clock.off = 24 * HOUR
    first = any_world.node(CODE, options=options)
    instance_ids = [any_world.start(state=30) for _ in range(3)]
    any_world.run(10)
    first.engine.release_all()
    any_world.run(1)
    first.take(first.cycle.end())
    first.alive = False
    any_world.clock.off = 0
    any_world.node(CODE, options=options)
    any_world.run(18)
    assert all(any_world.status(instance_id) is Status.OPEN for instance_id in instance_ids), (
        "early"
    )
    any_world.run(15)
    assert all(any_world.status(instance_id) is Status.COMPLETED for instance_id in instance_ids), (
        "late"
    )
    check_rest(any_world, [CODE])


def test_a_loop_goes_on_at_its_pace_and_its_next_lap_is_on_the_corrected_time(any_world):
    code = registry(laps)
    any_world.clock.off = HOUR
    any_world.node(code)
    instance_id = any_world.start(state=(20, []))
    any_world.run(10)
    began = any_world.record(instance_id).row.execution
    assert began > 5
    any_world.clock.off = 0
    any_world.run(15)
    assert any_world.status(instance_id) is Status.COMPLETED
    moments = any_world.output(instance_id)
    (jump,) = [
        number for number, (before, after) in enumerate(pairwise(moments), 1) if after < before
    ]
    assert began - 2 <= jump <= began + 2, "within a lap or two"
    assert moments[-1] <= any_world.clock.now() / SECOND
    check_rest(any_world, [code])


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [8, 40], ids=["owned", "parked"])
def test_a_timer_until_an_instant_means_the_corrected_clock(any_world, seconds):
    async def until(ctx, moment):
        await ctx.schedule_timer(datetime.fromtimestamp(moment, UTC))

    any_world.clock.off = HOUR
    any_world.node(registry(until))
    due = any_world.clock.instant / SECOND + 3600 + seconds
    instance_id = any_world.start(state=due)
    any_world.run(2)
    any_world.clock.off = 0
    any_world.run(3_600 + seconds - 4)
    assert any_world.status(instance_id) is Status.OPEN, "early by the corrected clock"
    any_world.run(4)
    assert any_world.status(instance_id) is Status.COMPLETED


@pytest.mark.parametrize("seconds", [8, 400], ids=["owned", "parked"])
def test_what_came_due_while_the_machine_was_suspended_fires_at_once_when_it_goes_on(
    any_world, seconds
):
    any_world.node(CODE)
    instance_id = any_world.start(state=seconds)
    any_world.run(2)
    any_world.clock.off += HOUR  # the wall went on, the monotonic clock stood still
    any_world.run(2)
    assert any_world.status(instance_id) is Status.COMPLETED


def test_the_next_try_of_an_activity_waits_no_longer_for_a_clock_that_was_put_back(any_world):
    attempts = []

    def breaks(_effect):
        attempts.append(any_world.clock.instant)
        if len(attempts) == 1:
            raise RuntimeError("once")
        return "done"

    async def works(ctx, _):
        policy = RetryPolicy(max_attempts=3, initial_interval=timedelta(seconds=30), jitter=0)
        return await ctx.schedule_activity(Activity.named("breaks", retry=policy))

    any_world.clock.off = HOUR
    any_world.node(registry(works), {"breaks": breaks})
    instance_id = any_world.start()
    any_world.run(5)
    any_world.clock.off = 0
    any_world.run(60)
    assert any_world.output(instance_id) == "done"
    assert attempts[1] - attempts[0] >= 29 * SECOND


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
def test_no_node_spins_over_a_clock_that_jumps(any_world, jump):
    nodes = [any_world.node(CODE) for _ in range(2)]
    for _ in range(5):
        any_world.start(state=30)
        any_world.start(state=86_400)
    any_world.run(10)

    def calls():
        return sum(sum(node.store.calls.values()) for node in nodes)

    before = calls()
    any_world.run(10)
    usual, before = calls() - before, calls()
    any_world.clock.off = jump
    any_world.run(10)
    assert calls() - before <= usual + 100
