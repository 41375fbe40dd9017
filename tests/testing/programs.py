"""Orchestrations that another process can import."""

import functools
from dataclasses import dataclass
from datetime import timedelta

from orchestra import OrchestrationRegistry, RetryPolicy, activity

PATIENT = RetryPolicy(max_attempts=None, initial_interval=timedelta(seconds=1))


@activity(retry=PATIENT)
async def charge(order: str, amount: int) -> int:
    raise NotImplementedError


@activity(retry=PATIENT)
async def ship(order: str) -> str:
    raise NotImplementedError


async def order(ctx, number: str) -> str:
    await ctx.schedule_activity(charge, number, 5)
    await ctx.schedule_timer(timedelta(days=2))
    answer = await ctx.wait_for_event("address", str)
    return await ctx.schedule_activity(ship, answer)


async def sorts(ctx, _: None) -> list[str]:
    """Asks in the order of a set, which each process has its own of."""
    words = {"apple", "pear", "plum", "cherry", "quince", "fig"}
    return [await ctx.schedule_activity("note", word) for word in words]


runs = []


async def flips(ctx, _: None) -> None:
    """Reads what is another value at each run."""
    runs.append(1)
    if len(runs) % 2:
        await ctx.schedule_timer(timedelta(days=1))
    await ctx.wait_for_event("never", str)


async def grows(ctx, number: int) -> None:
    await ctx.schedule_activity(charge, str(number), number)
    await ctx.schedule_timer(timedelta(days=1))
    ctx.continue_as_new(number + 1)


async def grows_otherwise(ctx, number: int) -> None:
    await ctx.schedule_activity(ship, str(number))
    await ctx.schedule_timer(timedelta(days=1))
    ctx.continue_as_new(number + 1)


async def grows_and_breaks(ctx, number: int) -> None:
    raise LookupError(f"no lap after {number}")


ORDERS = OrchestrationRegistry.builder().register("order", order).build()
SETS = OrchestrationRegistry.builder().register("sorts", sorts).build()
FLIPS = OrchestrationRegistry.builder().register("flips", flips).build()
LOOPS = OrchestrationRegistry.builder().register("grows", grows).build()


@dataclass(frozen=True)
class Question:
    shop: str


@dataclass(frozen=True)
class Price:
    shop: str
    cents: int


async def priced(ctx, question: Question) -> Price:
    raise NotImplementedError


class Held:
    async def method(self, ctx, number: int) -> int:
        await ctx.schedule_timer(timedelta(days=1))
        return number


HELD = Held()


def unchanged(function):
    @functools.wraps(function)
    async def call(ctx, number: int) -> int:
        return await function(ctx, number)

    return call


def made():
    async def inner(ctx, number: int) -> int:
        await ctx.schedule_timer(timedelta(days=1))
        return number

    return inner


ALIAS = made()
"""A function that only this name leads to."""


@unchanged
async def decorated(ctx, number: int) -> int:
    await ctx.schedule_timer(timedelta(days=1))
    return number
