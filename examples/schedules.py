"""Schedules on virtual time: a digest at nine in Berlin over the change of clocks, a tick for a loop
that lives, and a service that is away for a day.

    python examples/schedules.py

A schedule starts instances, or sends events to an instance that lives. Any node ticks; a slot starts
one instance, whatever dies meanwhile. `TestRuntime` runs three weeks in a moment; a service gives the
same list to `Runtime(schedules=...)`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta

import anyio

from orchestra import (
    Daily,
    Event,
    Every,
    OrchestrationContext,
    OrchestrationRegistry,
    Schedule,
    Start,
    activity,
)
from orchestra.testing import TestRuntime

SENT: list[str] = []


@dataclass
class Digest:
    user: str


@dataclass
class Sweep:
    ticks: int = 0


@activity
async def send(user: str) -> None:
    SENT.append(user)


async def digest(ctx: OrchestrationContext, state: Digest) -> None:
    await ctx.schedule_activity(send, state.user)


async def sweeper(ctx: OrchestrationContext, state: Sweep) -> None:
    """A loop that lives for ever: the schedule only wakes it."""
    await ctx.wait_for_event("tick")
    ctx.set_custom_status({"ticks": state.ticks + 1})
    ctx.continue_as_new(replace(state, ticks=state.ticks + 1))


REGISTRY = (
    OrchestrationRegistry.builder().register("digest", digest).register("sweeper", sweeper).build()
)

SCHEDULES = [
    Schedule("digest", Daily(time(9), "Europe/Berlin"), Start("digest", Digest("ada"))),
    Schedule("sweep", Every(timedelta(hours=6)), Event("sweeper", "tick")),
]


async def main() -> None:
    async with TestRuntime(
        REGISTRY, [send], schedules=SCHEDULES, start=datetime(2026, 3, 20, tzinfo=UTC)
    ) as env:
        schedules = env.client.schedules
        await env.client.start("sweeper", Sweep(), instance_id="sweeper")
        await env.advance(timedelta(days=14))  # the clocks go forward on the 29th
        info = await schedules.get("digest")
        hours = sorted({slot.slot.hour for slot in info.last_slots})
        print(f"digest: {info.verdict}, {info.counters.fired} runs, at {hours} o'clock UTC")
        loop = await env.client.get_instance_info("sweeper")
        print(f"sweeper: lap {loop.execution_id}, {loop.custom_status['ticks']} ticks")

        await schedules.create(
            Schedule("hourly", Every(timedelta(hours=1)), Start("digest", Digest("bob"))),
            reason="bob asked for it",
        )
        await env.advance(timedelta(hours=2))
        await env.away(timedelta(days=1))
        info = await schedules.get("hourly")
        print(
            f"hourly, after a day away: {info.counters.fired} runs, {info.counters.missed} missed"
        )
        print(f"  {info.last_slots[1].outcome}: {info.last_slots[1].reason}")

        await schedules.pause("hourly", "bob is on holiday", by="ada")
        await env.advance(timedelta(days=1))
        info = await schedules.get("hourly")
        assert info.pause is not None
        print(f"hourly: {info.verdict} by {info.pause.by}: {info.pause.reason}")
        run = await schedules.trigger("hourly", reason="just once")
        assert run is not None
        print(f"hourly, by hand: {run.outcome}")
        await env.run_until_idle()
        print(f"sent: {len(SENT)}")


if __name__ == "__main__":
    anyio.run(main)
