"""A program with a runtime and loops, to be killed. Run as ``python loops.py MODE BACKEND PATH
[NUMBER]``.

Each line that it prints is an acknowledgement: what it names is durable.
"""

import sys
from dataclasses import dataclass, replace
from datetime import timedelta

import anyio

from orchestra import Client, OrchestrationRegistry, RetryPolicy, Runtime, SqliteProvider, activity

LEASE = timedelta(seconds=60)


@dataclass
class Loop:
    number: int
    laps: int = 0
    seen: tuple[int, ...] = ()


@activity(retry=RetryPolicy(max_attempts=None, initial_interval=timedelta(0)))
async def add(a: int, b: int) -> int:
    return a + b


@activity(retry=RetryPolicy(max_attempts=None, initial_interval=timedelta(0)))
def add_in_thread(a: int, b: int) -> int:
    return a + b


async def loop(ctx, state: Loop):
    """Collects the numbers that it is sent, lap after lap, until it is told to stop (-1)."""
    laps = await ctx.schedule_activity(add if state.laps % 2 else add_in_thread, state.laps, 1)
    await ctx.schedule_timer(timedelta(milliseconds=1))
    won = await ctx.race(
        ctx.wait_for_event("number", int), ctx.schedule_timer(timedelta(milliseconds=3))
    )
    if won.value != -1:
        seen = state.seen if won.value is None else (*state.seen, won.value)
        ctx.continue_as_new(replace(state, laps=laps, seen=seen))
    return [ctx.version, list(state.seen)]


async def nap(ctx, milliseconds: int) -> str:
    await ctx.schedule_timer(timedelta(milliseconds=milliseconds))
    return "woken"


def registry(generations):
    builder = OrchestrationRegistry.builder().register("nap", nap)
    for number in range(generations):
        builder.register("loop", loop, version=f"1.{number}.0")
    return builder.build()


def runtime(path, generations=1):
    return Runtime(SqliteProvider(path), registry(generations), [add, add_in_thread], lease=LEASE)


def say(*words):
    print(*words, flush=True)


async def work(path, generation):
    """Start loops and send numbers, for ever; say what was acknowledged."""
    async with runtime(path, generation + 1) as node:
        sent = 1000 * generation
        for number in range(3):
            name = f"loop-{generation}-{number}"
            await node.client.start("loop", Loop(number), instance_id=name)
            say("started", name)
        names = [info.instance_id for info in (await node.client.list_instances(limit=1000)).items]
        while True:
            for name in names:
                await node.client.raise_event(name, "number", sent, message_id=f"{name}-{sent}")
                say("sent", name, sent)
                sent += 1
            await anyio.sleep(0.005)


async def park(path, milliseconds):
    """Start a nap, and say so once it is asleep."""
    async with runtime(path) as node:
        handle = await node.client.start("nap", milliseconds, instance_id="nap")
        while not (await handle.info()).waiting_on:
            await anyio.sleep(0.002)
        say("asleep")
        await anyio.sleep_forever()


async def ask(path, _):
    """Start and wake instances from a process that has no runtime."""
    async with Client(SqliteProvider(path)) as client:
        handle = await client.start("loop", Loop(7), instance_id="from-outside")
        await client.raise_event("from-inside", "number", 42)
        await client.raise_event("from-inside", "number", -1)
        await handle.raise_event("number", -1)
        say("result", *(await handle.result()))
        say("result", *(await client.handle("from-inside").result()))


if __name__ == "__main__":
    mode, backend, path, *rest = sys.argv[1:]
    anyio.run(
        {"work": work, "park": park, "ask": ask}[mode],
        path,
        int(rest[0]) if rest else 0,
        backend=backend,
    )
