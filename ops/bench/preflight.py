"""Times a preflight of many live instances, on SQLite and on a temporary PostgreSQL server.

    python ops/bench/preflight.py [--live 10000] [--directory DIR]

Each instance waits for a year, and its state migrates to the next version. The aim: 10,000 in under
10 s, with memory that does not grow with them. "At start" is the check that a runtime does before it
joins. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import anyio

from orchestra import (
    Client,
    OrchestrationContext,
    OrchestrationRegistry,
    Runtime,
    SqliteProvider,
)
from orchestra.providers.postgres import PostgresProvider
from orchestra.runtime.nodes import NodeSettings, node_record
from orchestra.runtime.start_checks import StartCheck
from orchestra.store.port import Provider
from orchestra.testing.postgres import postgres_server


@dataclass(frozen=True)
class One:
    """The state of the version that runs."""

    url: str


@dataclass(frozen=True)
class Two:
    """The state of the version to be deployed."""

    host: str
    port: int


async def watch(ctx: OrchestrationContext, state: One) -> None:
    """A loop that waits for a year."""
    await ctx.schedule_timer(timedelta(days=365))
    ctx.continue_as_new(state)


async def watch_2(ctx: OrchestrationContext, state: Two) -> None:
    """Its next version."""
    await ctx.schedule_timer(timedelta(days=365))
    ctx.continue_as_new(state)


def up(state: One) -> Two:
    """Migrate a state."""
    host, _, port = state.url.partition(":")
    return Two(host, int(port))


RUNNING = OrchestrationRegistry.builder().register("watch", watch).build()
NEXT = (
    OrchestrationRegistry.builder()
    .register("watch", watch)
    .register("watch", watch_2, version="2.0.0")
    .migrate("watch", "2.0.0", up)
    .build()
)


async def measure(name: str, provider: Callable[[], Provider], live: int) -> None:
    """Make the instances, and time the preflight with and without replay."""
    async with Runtime(provider(), RUNNING) as runtime:
        limiter = anyio.CapacityLimiter(500)

        async def start(number: int) -> None:
            async with limiter:
                await runtime.client.start("watch", One(f"example.org:{number}"))

        async with anyio.create_task_group() as group:
            for number in range(live):
                group.start_soon(start, number)
        while (await runtime.client.version_report())[0].waiting < live:  # noqa: ASYNC110 - no hint
            await anyio.sleep(0.1)
    async with Client(provider()) as client:
        for replay in (False, True):
            seen: list[int] = []
            memory: list[int] = []

            def note(_: int, memory: list[int] = memory) -> None:
                memory.append(round(tracemalloc.get_traced_memory()[0] / 1e6))

            begun = time.perf_counter()
            report = await client.preflight(NEXT, replay=replay, progress=seen.append)
            took = time.perf_counter() - begun
            assert report.ok
            assert report.instances == live == seen[-1]
            tracemalloc.start()
            await client.preflight(NEXT, replay=replay, progress=note)
            tracemalloc.stop()
            print(
                f"{name:<10} {live:,} live, {'with' if replay else 'without'} replay: {took:5.2f} s, "
                f"{len(seen)} reports of progress, memory after a quarter {memory[len(memory) // 4]} MB, "
                f"at the end {memory[-1]} MB",
                flush=True,
            )
    opened = provider()
    opened.open()
    opened.store.sweep()  # as each node does once a lease: it adds up the store's counts
    check = StartCheck(node_record("n", opened, NodeSettings(NEXT)), "warn", strict=False)
    times: list[float] = []
    for _ in range(20):
        begun = time.perf_counter()
        check.before_joining(opened.directory)
        times.append(time.perf_counter() - begun)
    opened.close()
    print(f"{name:<10} {live:,} live, at start: {sorted(times)[10] * 1000:.1f} ms", flush=True)


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", type=int, default=10_000)
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = Path(directory) / "store.db"
        sqlite = partial(SqliteProvider, path, durability="relaxed")
        anyio.run(measure, "SQLite", sqlite, options.live)
    with postgres_server() as server:
        anyio.run(measure, "PostgreSQL", partial(PostgresProvider, server.dsn), options.live)


if __name__ == "__main__":
    main()
