"""Measures the cost of an activity that goes through the store to another process.

    python ops/bench/routes.py [--steps N] [--directory DIR]

Twice on SQLite and twice on a PostgreSQL server of its own, all with full durability: first with
the activity on the node that runs the orchestrations, then with it in a second process alone. One
orchestration of N sequential activities tells how long a step takes; fifty of them at once tell the
throughput.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from orchestra import (
    Limits,
    OrchestrationContext,
    OrchestrationRegistry,
    Runtime,
    SqliteProvider,
    activity,
)
from orchestra.providers.postgres import PostgresProvider
from orchestra.store.port import Provider
from orchestra.testing.postgres import postgres_server

AT_ONCE = 50


@activity
async def increment(value: int) -> int:
    return value + 1


async def sequence(ctx: OrchestrationContext, steps: int) -> int:
    value = 0
    for _ in range(steps):
        value = await ctx.schedule_activity(increment, value)
    return value


REGISTRY = OrchestrationRegistry.builder().register("sequence", sequence).build()
NOTHING = OrchestrationRegistry.builder().build()


def store(place: str) -> Provider:
    """Return the store at a DSN, or in a file."""
    return (
        PostgresProvider(place, "routes")
        if "=" in place or "://" in place
        else SqliteProvider(place)
    )


async def work(place: str) -> None:
    """Be the other process: run activities until the end of the input."""
    async with Runtime(store(place), NOTHING, [increment]):
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


@contextmanager
def worker(place: str) -> Iterator[None]:
    """Have another process run the activities."""
    command = [sys.executable, __file__, "--work", place]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.stdin.close()


async def measure(place: str, steps: int, *, here: bool) -> tuple[float, float]:
    """Return the seconds of a step alone, and the steps a second of many sequences at once."""
    limits = Limits(max_events=100_000)
    async with Runtime(
        store(place), REGISTRY, [increment] if here else [], limits=limits
    ) as runtime:
        begun = time.perf_counter()
        await (await runtime.client.start("sequence", steps)).result()
        alone = (time.perf_counter() - begun) / steps
        begun = time.perf_counter()
        handles = [await runtime.client.start("sequence", steps // 10) for _ in range(AT_ONCE)]
        for handle in handles:
            await handle.result()
        return alone, AT_ONCE * (steps // 10) / (time.perf_counter() - begun)


def compare(name: str, place: str, steps: int) -> None:
    """Print a line for each way."""
    here = anyio.run(lambda: measure(place, steps, here=True))
    with worker(place):
        there = anyio.run(lambda: measure(place, steps, here=False))
    for way, (alone, together) in (("beside its instance", here), ("through the store", there)):
        print(f"| {name}, {way} | {alone * 1e3:.2f} ms | {together:,.0f}/s |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300, help="sequential activities")
    parser.add_argument("--directory", type=Path, help="where the files go")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        anyio.run(work, options.work)
        return
    print("| | a step alone | steps of fifty at once |\n|---|---:|---:|")
    with (
        tempfile.TemporaryDirectory(dir=options.directory) as folder,
        postgres_server(options.directory) as server,
    ):
        compare("SQLite", str(Path(folder) / "routes.db"), options.steps)
        compare("PostgreSQL", server.dsn, options.steps)


if __name__ == "__main__":
    main()
