"""A program that works on an encrypted store until it is killed, or has done all of its work::

python -m tests.payloads.killed STORE KEYS
"""

import sys

import anyio

from orchestra import Compress, Encrypt, Keys, OrchestrationRegistry, Pipeline, Runtime, activity
from orchestra.providers import from_url

LAPS = 12


@activity
async def double(text):
    return text * 2


async def child(ctx, text: str):
    return await ctx.schedule_activity(double, text)


async def loop(ctx, state: list[str]):
    if len(state) == LAPS:
        return state
    done = await ctx.start_child(child, f"secret {len(state)} ")
    await ctx.raise_event("ear", "said", done)
    ctx.publish("words", done)
    ctx.continue_as_new([*state, done])


async def ear(ctx, heard: list[str]):
    if len(heard) == LAPS:
        return heard
    ctx.continue_as_new([*heard, await ctx.wait_for_event("said", str)])


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("child", child)
    .register("loop", loop)
    .register("ear", ear)
    .build()
)
EXPECTED = [f"secret {number} " * 2 for number in range(LAPS)]


def pipeline(path):
    return Pipeline(Compress(10), Encrypt(Keys.from_file(path), plain="refuse"))


async def work(store, schema, keys):
    provider = from_url(store, schema=schema)
    async with Runtime(provider, REGISTRY, [double], payloads=pipeline(keys)) as runtime:
        await runtime.client.handle("loop").wait()
        await runtime.client.handle("ear").wait()


if __name__ == "__main__":
    anyio.run(work, sys.argv[1], sys.argv[2] or None, sys.argv[3])
