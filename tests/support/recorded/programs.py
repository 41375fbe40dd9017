"""The programs whose histories were recorded. Do not change them: add others instead."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any

from orchestra import (
    ActivityFailed,
    Cancelled,
    NonRetryable,
    OrchestrationContext,
    activity,
)


class Color(Enum):
    """A value of users."""

    RED = "red"
    BLUE = "blue"


@dataclass
class Order:
    """A state of users, with what is not plain JSON."""

    id: str
    color: Color = Color.RED
    laps: int = 0


@activity
async def charge(order: str, amount: int) -> int:
    """Return the amount."""
    return amount


@activity
def count(text: str) -> int:
    """Return the length of a text, in a thread."""
    return len(text)


@activity
async def refuses(order: str) -> None:
    """Fail for good."""
    raise NonRetryable(f"{order} is refused")


async def everything(ctx: OrchestrationContext, order: Order) -> dict[str, Any]:
    """Ask for one of each kind of command, and complete."""
    first = await ctx.schedule_activity(charge, order.id, 7)
    numbers = await ctx.gather(*(ctx.schedule_activity(count, "x" * n) for n in range(4)))
    winner = await ctx.race(
        ctx.schedule_timer(timedelta(days=400)), ctx.schedule_activity(count, "abc")
    )
    await ctx.schedule_timer(timedelta(milliseconds=2))
    try:
        await ctx.schedule_activity(refuses, order.id)
        failed = ""
    except ActivityFailed as error:
        failed = type(error).__name__
    child = await ctx.start_child("child", order, instance_id=f"{order.id}/child")
    ctx.start_detached("child", order, instance_id=f"{order.id}/detached")
    told = await ctx.wait_for_event("tell", Color)
    ctx.set_custom_status({"told": told.value})
    return {
        "first": first,
        "numbers": list(numbers),
        "winner": winner.index,
        "failed": failed,
        "child": child,
        "told": told.value,
        "random": ctx.random(),
        "id": str(ctx.uuid4()),
        "now": ctx.now().isoformat(),
    }


async def child(ctx: OrchestrationContext, order: Order) -> str:
    """Complete after an activity."""
    return f"{order.color.value} {await ctx.schedule_activity(count, order.id)}"


async def laps(ctx: OrchestrationContext, order: Order) -> int:
    """Lap three times by itself, then once for each event."""
    done = await ctx.schedule_activity(charge, order.id, order.laps + 1)
    if done > 3:
        await ctx.wait_for_event("go")
    if done > 4:
        return done
    ctx.continue_as_new(Order(order.id, Color.BLUE, done))


async def careful(ctx: OrchestrationContext, order: Order) -> str:
    """Clean up when it is cancelled."""
    try:
        await ctx.wait_for_event("never")
    except Cancelled:
        await ctx.schedule_activity(charge, order.id, -1)
        raise
    return "never"


PROGRAMS = {"everything": everything, "child": child, "laps": laps, "careful": careful}
ACTIVITIES = [charge, count, refuses]
