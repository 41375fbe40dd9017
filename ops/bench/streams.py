"""Measures streams: what a busy one costs other instances, and how soon another process hears.

    python ops/bench/streams.py [--postgres | --dsn DSN] [--rate 10000] [--seconds 5] [--items 100]

The first figure is how many laps 50 other loops make while one activity publishes ``--rate`` items a
second, against the laps they make without it, in the same process. The second one is the time from
an item's publication to its arrival at a reader in another process. The third is the processor time
of an item, of one activity that publishes as fast as it may and is alone: a busy machine does not
change it much.

Without ``--postgres`` or ``--dsn`` the store is a new SQLite file with full durability. With
``--postgres`` the script starts a server of its own in ``--directory``. It ends within ``--limit``
seconds, however busy the machine is, and then with exit code 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
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
from orchestra.testing.postgres import postgres_server

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
    end = begun + seconds
    while (now := time.monotonic()) < end:
        due = int((min(now + SLICE, end) - begun) * rate)
        while count < due and (count % 256 or time.monotonic() < end):
            await context.publish("items", count)
            count += 1
        await anyio.sleep(SLICE)
    return count / seconds


@activity
async def publish_all(items: int) -> None:
    """Publish as fast as it may."""
    context = activity_context()
    for number in range(items):
        await context.publish("items", number)


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


async def flood(ctx: OrchestrationContext, items: int) -> None:
    await ctx.schedule_activity(publish_all, items)


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
    for function in (loop, busy, flood, ticking):
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


async def measure_processor(store: str, items: int) -> None:
    async with Runtime(provider_of(store), registry(), [publish_all]) as runtime:
        found: list[float] = []
        for _ in range(5):
            begun = time.process_time()
            await (await runtime.client.start("flood", items)).result()
            found.append((time.process_time() - begun) / items * 1e6)
    print(f"processor time of an item:     {min(found):>9.1f} us")


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


async def measure(store: str, options: argparse.Namespace) -> None:
    await measure_cost(store, options.rate, options.seconds)
    await measure_latency(store, options.items)
    await measure_processor(store, 20_000)


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--dsn")
    where.add_argument("--postgres", action="store_true")
    parser.add_argument("--directory", type=Path, help="where the files are; a new one by default")
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--limit", type=float, default=180.0)
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        await read_instants(options.reader)
        return 0
    with ExitStack() as stack:
        dsn = options.dsn
        if options.postgres:
            dsn = stack.enter_context(postgres_server(options.directory)).dsn
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=options.directory))
        store = f"{dsn}#bench_{new_id()}" if dsn else str(Path(folder) / "app.db")
        print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
        with anyio.move_on_after(options.limit) as scope:
            await measure(store, options)
    if scope.cancelled_caught:
        print(f"not done after {options.limit:g} s")
    return int(scope.cancelled_caught)


if __name__ == "__main__":
    sys.exit(anyio.run(main))
