"""Measures streams: what a busy one costs other instances, and how soon another process hears.

    python ops/bench/streams.py [--dsn DSN] [--rate 10000] [--seconds 5] [--items 100]

The first figure is how many laps 50 other loops make while one activity publishes ``--rate`` items a
second, against the laps they make without it, in the same process. The second one is the time from
an item's publication to its arrival at a reader in another process. Without ``--dsn`` the store is
a new SQLite file with full durability.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles

import anyio

from orchestra import (
    Client,
    OrchestrationContext,
    OrchestrationRegistry,
    Retention,
    Runtime,
    SqliteProvider,
    activity,
    activity_context,
)
from orchestra.clock import SystemClock, new_id
from orchestra.store.port import Provider

CLOCK = SystemClock()
LOOPS = 50
SLICE = 0.01


@dataclass(frozen=True)
class Lap:
    """The state of a loop."""

    number: int = 0


@activity
async def increment(value: int) -> int:
    return value + 1


@activity
async def publish_items(rate: int, seconds: float) -> float:
    """Publish at a rate; return the rate that it came to."""
    context, begun, count = activity_context(), time.monotonic(), 0
    while (now := time.monotonic()) < begun + seconds:
        due = int((now - begun + SLICE) * rate)
        for number in range(count, due):
            await context.publish("items", number)
        count = max(count, due)
        await anyio.sleep(SLICE)
    return count / (time.monotonic() - begun)


@activity
async def publish_instants(items: int, pause: float) -> None:
    """Publish the time, again and again."""
    for _ in range(items):
        await activity_context().publish("instants", CLOCK.now())
        await anyio.sleep(pause)


async def loop(ctx: OrchestrationContext, state: Lap) -> None:
    number = await ctx.schedule_activity(increment, state.number)
    ctx.continue_as_new(replace(state, number=number))


async def busy(ctx: OrchestrationContext, asked: tuple[int, float]) -> float:
    return await ctx.schedule_activity(publish_items, *asked)


async def ticking(ctx: OrchestrationContext, asked: tuple[int, float]) -> None:
    await ctx.schedule_activity(publish_instants, *asked)


def provider_of(store: str) -> Provider:
    if "://" not in store and "=" not in store:
        return SqliteProvider(store)
    from orchestra.providers.postgres import PostgresProvider  # noqa: PLC0415 - needs the extra

    dsn, _, schema = store.rpartition("#")
    return PostgresProvider(dsn, schema)


def registry() -> OrchestrationRegistry:
    builder = OrchestrationRegistry.builder().set_retention("loop", Retention(histories=3))
    for function in (loop, busy, ticking):
        builder.register(function.__name__, function)
    return builder.build()


async def laps_of(client: Client) -> int:
    infos = [await client.get_instance_info(f"loop-{number}") for number in range(LOOPS)]
    return sum(info.execution_id for info in infos)


async def rate_of_laps(client: Client, seconds: float) -> float:
    before, begun = await laps_of(client), time.monotonic()
    await anyio.sleep(seconds)
    return (await laps_of(client) - before) / (time.monotonic() - begun)


async def measure_cost(store: str, rate: int, seconds: float) -> None:
    activities = [increment, publish_items]
    async with Runtime(provider_of(store), registry(), activities) as runtime:
        client = runtime.client
        for number in range(LOOPS):
            await client.start("loop", Lap(), instance_id=f"loop-{number}")
        await anyio.sleep(1)
        alone: list[float] = []
        beside: list[float] = []
        published: list[float] = []
        for _ in range(3):
            alone.append(await rate_of_laps(client, seconds))
            handle = await client.start("busy", (rate, seconds))
            beside.append(await rate_of_laps(client, seconds))
            published.append(await handle.result(float))
        for number in range(LOOPS):
            await client.terminate(f"loop-{number}")
    print(f"items a second, published:     {median(published):>9,.0f}")
    print(f"laps a second, without them:   {median(alone):>9,.0f}")
    print(f"laps a second, beside them:    {median(beside):>9,.0f}")
    print(f"  ratio (aim: over 0.67):      {median(beside) / median(alone):>9.2f}")


async def measure_latency(store: str, items: int) -> None:
    async with Runtime(provider_of(store), registry(), [publish_instants]) as runtime:
        command = [sys.executable, __file__, "--reader", store]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:  # noqa: ASYNC220
            assert reader.stdout is not None
            await anyio.to_thread.run_sync(reader.stdout.readline)  # it is there
            handle = await runtime.client.start("ticking", (items, 0.05), instance_id="ticking")
            await handle.result()
            output = await anyio.to_thread.run_sync(reader.communicate)
    late = [float(line) for line in output[0].split()][5:]  # it looks for the instance first
    print(f"to another process, p50:       {median(late) / 1000:>9.1f} ms")
    print(f"to another process, p95:       {quantiles(late, n=20)[-1] / 1000:>9.1f} ms")


async def read_instants(store: str) -> None:
    """Print how late each item arrives."""
    async with Client(provider_of(store)) as client:
        print("ready", flush=True)
        while not (await client.list_instances(name="ticking")).items:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        late = [
            CLOCK.now() - item.value
            async for item in client.read_stream("ticking", "instants", int)
        ]
    print(*late, sep="\n")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn")
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        await read_instants(options.reader)
        return
    with tempfile.TemporaryDirectory() as folder:
        store = f"{options.dsn}#bench_{new_id()}" if options.dsn else str(Path(folder) / "app.db")
        await measure_cost(store, options.rate, options.seconds)
        await measure_latency(store, options.items)


if __name__ == "__main__":
    anyio.run(main)
