"""Measures the round trip of a request beside an event and a status read, on one runtime.

    python ops/bench/requests.py [--seconds 5] [--store sqlite|memory|postgres] [--dsn DSN]
        [--directory DIR]

One caller asks one instance, and waits for each answer before the next request: one commit for the
request, one for the answer with the next lap. Beside it: sending an event (one commit), and reading
the instance's info (no commit). It prints the median and the 99th percentile of each, in
milliseconds, with the calls of each kind taken in turn, so that a busy machine slows all alike. The
plain write of the same disk, one at a time, stands beside them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from orchestra import (
    Client,
    OrchestrationContext,
    OrchestrationRegistry,
    Runtime,
    SqliteProvider,
)
from orchestra.providers.memory import MemoryProvider
from orchestra.providers.postgres import PostgresProvider
from orchestra.store.port import Provider


async def answering(ctx: OrchestrationContext, lap: int) -> None:
    """Answers one request a lap. Its events are never read."""
    request = await ctx.wait_for_request("ask", int, returns=int)
    request.reply(request.value)
    ctx.continue_as_new(lap + 1)


async def waiting(ctx: OrchestrationContext, lap: int) -> None:
    """Takes one event a lap."""
    await ctx.wait_for_event("poke")
    ctx.continue_as_new(lap + 1)


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("answering", answering)
    .register("waiting", waiting)
    .build()
)


async def timed(call: Callable[[], Awaitable[object]], took: list[float]) -> None:
    begun = time.perf_counter()
    await call()
    took.append(time.perf_counter() - begun)


def one_write(file: int, took: list[float]) -> None:
    """Write a page and wait for the disk."""
    begun = time.perf_counter()
    os.pwrite(file, b"x" * 4096, 0)
    os.fdatasync(file)
    took.append(time.perf_counter() - begun)


async def measure(provider: Provider, seconds: float, directory: Path) -> None:
    took: dict[str, list[float]] = {
        name: [] for name in ("request", "event", "status", "disk write")
    }
    async with Runtime(provider, REGISTRY) as runtime:
        client: Client = runtime.client
        await client.start("answering", 0, instance_id="a")
        await client.start("waiting", 0, instance_id="w")
        for number in range(20):
            await client.request("a", "ask", number, returns=int)
        file = os.open(directory / "plain", os.O_RDWR | os.O_CREAT)
        until = time.perf_counter() + seconds
        number = 0
        while time.perf_counter() < until:
            number += 1
            await timed(
                lambda value=number: client.request("a", "ask", value, returns=int),
                took["request"],
            )
            await timed(lambda: client.raise_event("w", "poke"), took["event"])
            await timed(lambda: client.get_instance_info("w"), took["status"])
            one_write(file, took["disk write"])
        os.close(file)
    print(f"{provider.description}: {number:,} of each")
    for name, values in took.items():
        tail = statistics.quantiles(values, n=100)[98]
        print(
            f"{name:<10}  p50 {statistics.median(values) * 1e3:7.2f} ms  p99 {tail * 1e3:7.2f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--store", choices=("sqlite", "memory", "postgres"), default="sqlite")
    parser.add_argument("--dsn", default=os.environ.get("ORCHESTRA_BENCH_DSN", ""))
    parser.add_argument("--directory", type=Path, help="where the store is made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        directory = Path(folder)
        provider: Provider
        if arguments.store == "sqlite":
            provider = SqliteProvider(directory / "bench.db")
        elif arguments.store == "memory":
            provider = MemoryProvider()
        else:
            provider = PostgresProvider(arguments.dsn, schema="bench_requests")
        anyio.run(measure, provider, arguments.seconds, directory)


if __name__ == "__main__":
    main()
