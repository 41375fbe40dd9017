"""The cost of a fan-out grows with its width and no faster, however its branches wait and end
(scenario 62).
"""

import gc
import time
from datetime import timedelta

import pytest

from orchestra.codec import encode
from orchestra.context import Limits
from orchestra.store.messages import MessageRow
from tests.support.driver import fresh, replay

MOMENT = timedelta(milliseconds=1)
DAY = timedelta(days=1)
WIDTH, TIMES = 400, 12
MOST = 3 * TIMES
"""Linear work takes 12 times as long, and somewhat more where memory is slow. Quadratic work takes
144 times as long.
"""


async def gathers_coroutines(ctx, width):
    async def branch(number):
        await ctx.schedule_timer(MOMENT)
        return number

    return sum(await ctx.gather(*[branch(number) for number in range(width)]))


async def gathers_coroutines_that_end_in_reverse(ctx, width):
    async def branch(number):
        await ctx.schedule_timer(MOMENT * (width - number))

    await ctx.gather(*[branch(number) for number in range(width)])


async def groups_branches(ctx, width):
    async def branch():
        await ctx.schedule_timer(MOMENT)

    async with ctx.task_group() as group:
        for _ in range(width):
            group.create_task(branch())


async def groups_branches_that_begin_others(ctx, width):
    async with ctx.task_group() as group:

        async def branch(left):
            await ctx.schedule_timer(MOMENT)
            if left:
                group.create_task(branch(left - 1))

        for _ in range(width // 4):
            group.create_task(branch(3))


async def loses_a_group(ctx, width):
    async def branch(number):
        await ctx.schedule_timer(MOMENT)
        if number == 0:
            raise ValueError(number)
        await ctx.wait_for_event("never")

    try:
        async with ctx.task_group() as group:
            for number in range(width):
                group.create_task(branch(number))
    except* ValueError:
        pass


async def cancels_the_losers_of_a_race(ctx, width):
    async def branch(number):
        await ctx.schedule_timer(MOMENT * (number + 1))

    await ctx.race(*[branch(number) for number in range(width)])


async def cancels_branches_that_wait_for_one_future(ctx, width):
    shared = ctx.schedule_timer(DAY)

    async def branch():
        await shared

    await ctx.race(ctx.schedule_timer(MOMENT), ctx.gather(*[branch() for _ in range(width)]))


async def races_one_future_many_times(ctx, width):
    shared = ctx.schedule_timer(DAY)

    async def branch():
        await ctx.race(shared, ctx.schedule_timer(MOMENT))

    await ctx.gather(*[branch() for _ in range(width)])


async def waits_with_many_names(ctx, width):
    await ctx.gather(*[ctx.wait_for_event(f"event {number}") for number in range(width)])


async def waits_for_one_name_after_the_other(ctx, width):
    for number in range(width):
        await ctx.wait_for_event(f"event {number}")


PROGRAMS = [
    gathers_coroutines,
    gathers_coroutines_that_end_in_reverse,
    groups_branches,
    groups_branches_that_begin_others,
    loses_a_group,
    cancels_the_losers_of_a_race,
    cancels_branches_that_wait_for_one_future,
    races_one_future_many_times,
    waits_with_many_names,
    waits_for_one_name_after_the_other,
]


def cost(program, width):
    """Return the processor's time for running a program, and for its replay."""
    inbox = [
        MessageRow(at + 1, f"m{at}", f"event {width - 1 - at}", encode(1, subject="m"), 0)
        for at in range(width)
    ]
    execution = fresh(program, limits=Limits(max_events=1_000_000))
    begun = time.process_time()
    execution.start(encode(width, subject="state"), 0)
    history = []
    moment = 0
    while execution.ending is None:
        turn = execution.turn(moment, (), inbox)
        history += turn.events
        consumed = set(turn.consumed)
        inbox = [message for message in inbox if message.sequence not in consumed]
        moment += 3_600_000_000
    ran = time.process_time() - begun
    begun = time.process_time()
    replay(program, history)
    return ran, time.process_time() - begun


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_the_cost_grows_with_the_width_and_no_faster(program):
    gc.collect()
    gc.disable()  # it walks over all that is alive, whoever made it
    try:
        small = [min(each) for each in zip(*(cost(program, WIDTH) for _ in range(5)), strict=True)]
        large = [
            min(each)
            for each in zip(*(cost(program, WIDTH * TIMES) for _ in range(2)), strict=True)
        ]
    finally:
        gc.enable()
    growth = [round(much / little, 1) for little, much in zip(small, large, strict=True)]
    assert max(growth) < MOST, (
        f"{TIMES} times the width takes {growth} times as long, run and replayed"
    )
