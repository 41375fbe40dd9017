"""Children: a round starts one instance for each shop, waits for those that answer in time, and
cancels the others.

    python examples/family.py [DATABASE]

Every child is an instance of its own, with laps, a version and an info. The audit is a detached
start: it outlives the round.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import anyio

from orchestra import (
    ChildFailed,
    NonRetryable,
    OrchestrationContext,
    OrchestrationRegistry,
    PlainFormatter,
    Runtime,
    SqliteProvider,
    activity,
)

SHOPS = {"corner": 2, "mall": 3, "closed": 0, "asleep": 10_000}
"""How often each must be asked; the closed one fails at once."""


@dataclass(frozen=True)
class Question:
    shop: str
    asked: int = 0


@dataclass(frozen=True)
class Price:
    shop: str
    cents: int


@activity(timeout=timedelta(seconds=10))
async def ask(shop: str, asked: int) -> int | None:
    """Return a price, or ``None`` for now."""
    if shop == "closed":
        raise NonRetryable("there is nobody")
    return 100 * len(shop) if asked >= SHOPS[shop] else None


async def quote(ctx: OrchestrationContext, state: Question) -> Price:
    """Ask one shop, a lap for each time, until it answers."""
    cents = await ctx.schedule_activity(ask, state.shop, state.asked + 1)
    if cents is not None:
        return Price(state.shop, cents)
    await ctx.schedule_timer(timedelta(milliseconds=10))
    ctx.continue_as_new(replace(state, asked=state.asked + 1))


async def quote_or_nothing(ctx: OrchestrationContext, shop: str) -> Price | None:
    """Wait for a shop's answer. A shop that takes too long loses the race, which cancels the
    child.
    """
    try:
        child = ctx.start_child(
            quote, Question(shop), instance_id=f"{ctx.instance_id}/{shop}"
        )  # typed: Price
        first = await ctx.race(child, ctx.schedule_timer(timedelta(seconds=1)))
        return first.value
    except ChildFailed as error:
        ctx.trace_warning("no answer", shop=shop, status=error.status, cause=error.cause.type)
        return None


async def audit(ctx: OrchestrationContext, prices: list[Price]) -> int:
    """Count, long after the round is over."""
    await ctx.schedule_timer(timedelta(milliseconds=10))
    return len(prices)


async def round_of_quotes(ctx: OrchestrationContext, shops: list[str]) -> Price | None:
    """Ask all shops at once, and return the best price."""
    answers = await ctx.gather(*(quote_or_nothing(ctx, shop) for shop in shops))
    prices = [price for price in answers if price is not None]
    ctx.start_detached(audit, prices, instance_id=f"{ctx.instance_id}/audit")
    return min(prices, key=lambda price: price.cents, default=None)


registry = (
    OrchestrationRegistry.builder()
    .register("round_of_quotes", round_of_quotes)
    .register("quote", quote)
    .register("audit", audit)
    .build()
)


async def main(database: str) -> None:
    """Run one round, and show its family."""
    patience = timedelta(seconds=30)
    async with Runtime(SqliteProvider(database), registry, activities=[ask]) as runtime:
        best = await runtime.client.start("round_of_quotes", list(SHOPS), instance_id="round-1")
        print("best:", await best.result(Price, timeout=patience))
        for child in (await best.info()).children:
            info = await runtime.client.wait_for_completion(child.instance_id, patience)
            print(f"{info.instance_id}: {info.status} after {info.execution_id} laps")
        print(
            "audited:", await runtime.client.handle("round-1/audit").result(int, timeout=patience)
        )


if __name__ == "__main__":
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logging.getLogger("orchestra").addHandler(handler)
    logging.getLogger("orchestra").setLevel(logging.INFO)
    anyio.run(
        main, sys.argv[1] if len(sys.argv) > 1 else str(Path(tempfile.mkdtemp()) / "family.db")
    )
