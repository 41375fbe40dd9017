"""Measures orchestra against the bare driver of its store, in one run on one file system, all with
full durability.

    python ops/bench/bench.py [--directory DIR] [--repeat N] [--postgres] [--collector N] [--freeze]

W1: 1,000 short orchestrations (one activity each) at once, started and awaited through the client.
W3: 50 instances of a loop, 40 laps each, one activity a lap. W4: one orchestration of 500, and of
2,000, sequential ``async def`` activities; and 500 of ``def``, each in a thread.

The driver alone writes the same rows (``sqlite3``; with ``--postgres`` psycopg, pipelined, on the
same temporary server): one commit a step, and grouped. Absolute figures depend on the machine;
compare the ratios. Nothing here is a test, and no test is timed.
"""

from __future__ import annotations

import argparse
import gc
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import psycopg

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

LIMIT = timedelta(minutes=5)


@dataclass(frozen=True)
class Lap:
    """The state of the loop of W3."""

    number: int
    laps: int


@activity
async def increment(value: int) -> int:
    return value + 1


@activity
def increment_in_thread(value: int) -> int:
    return value + 1


async def short(ctx: OrchestrationContext, value: int) -> int:
    return await ctx.schedule_activity(increment, value)


async def loop(ctx: OrchestrationContext, state: Lap) -> int:
    done = await ctx.schedule_activity(increment, state.number)
    if done == state.laps:
        return done
    ctx.continue_as_new(replace(state, number=done))


async def sequence(ctx: OrchestrationContext, steps: int) -> int:
    value = 0
    for _ in range(steps):
        value = await ctx.schedule_activity(increment, value)
    return value


async def threaded(ctx: OrchestrationContext, steps: int) -> int:
    value = 0
    for _ in range(steps):
        value = await ctx.schedule_activity(increment_in_thread, value)
    return value


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("short", short)
    .register("loop", loop)
    .register("sequence", sequence)
    .register("threaded", threaded)
    .build()
)


class Sqlite:
    """Fresh files in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextmanager
    def store(self) -> Iterator[Provider]:
        """Give a fresh store for the body."""
        with tempfile.TemporaryDirectory(dir=self.directory) as folder:
            yield SqliteProvider(Path(folder) / "bench.db")

    def bare(self, steps: int, group: int) -> float:
        """Return steps a second of the bare driver."""
        return bare_sqlite(self.directory, steps, group)


class Postgres:
    """Fresh schemas on a server."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.count = 0

    @contextmanager
    def store(self) -> Iterator[Provider]:
        """Give a fresh store for the body."""
        self.count += 1
        yield PostgresProvider(self.dsn, f"bench_{self.count}")

    def bare(self, steps: int, group: int) -> float:
        """Return steps a second of the bare driver."""
        return bare_postgres(self.dsn, steps, group)


async def measured(side: Sqlite | Postgres, work: Callable[[Runtime], Awaitable[None]]) -> float:
    """Return the seconds that some work takes on a fresh store, without opening and closing it."""
    with side.store() as provider:
        activities = [increment, increment_in_thread]
        async with Runtime(
            provider, REGISTRY, activities, limits=Limits(max_events=100_000)
        ) as runtime:
            begun = time.perf_counter()
            await work(runtime)
            return time.perf_counter() - begun


async def w1(runtime: Runtime, count: int = 1000) -> None:
    async def one(number: int) -> None:
        handle = await runtime.client.start("short", number, instance_id=f"short-{number}")
        assert await handle.result(int, timeout=LIMIT) == number + 1

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(one, number)


async def w3(runtime: Runtime, instances: int = 50, laps: int = 40) -> None:
    async def one(number: int) -> None:
        handle = await runtime.client.start("loop", Lap(0, laps), instance_id=f"loop-{number}")
        assert await handle.result(int, timeout=LIMIT) == laps

    async with anyio.create_task_group() as group:
        for number in range(instances):
            group.start_soon(one, number)


def w4(steps: int, name: str = "sequence") -> Callable[[Runtime], Awaitable[None]]:
    async def work(runtime: Runtime) -> None:
        handle = await runtime.client.start(name, steps)
        assert await handle.result(int, timeout=LIMIT) == steps

    return work


def bare_postgres(dsn: str, steps: int, group: int) -> float:
    """Do the same as :func:`bare_sqlite` with psycopg: a transaction is one pipeline, and its
    statements are prepared.
    """
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as database:
        database.execute("DROP TABLE IF EXISTS bare_event, bare_instance")
        database.execute(
            "CREATE TABLE bare_event (instance text, id bigint, data bytea, PRIMARY KEY "
            "(instance, id))"
        )
        database.execute(
            "CREATE TABLE bare_instance (id text PRIMARY KEY, revision bigint, data bytea)"
        )
        database.execute("INSERT INTO bare_instance VALUES ('one', 0, %s)", (b"x" * 200,))
        begun = time.perf_counter()
        for start in range(0, steps, group):
            with database.pipeline(), database.transaction():
                for step in range(start, min(start + group, steps)):
                    rows = ("one", 2 * step, b"x" * 150, "one", 2 * step + 1, b"x" * 60)
                    database.execute(
                        "INSERT INTO bare_event VALUES (%s, %s::bigint, %s), (%s, %s::bigint, %s)",
                        rows,
                    )
                    database.execute(
                        (
                            "UPDATE bare_instance SET revision = revision + 1, data = %s WHERE "
                            "id = 'one'"
                        ),
                        (b"x" * 200,),
                    )
        return steps / (time.perf_counter() - begun)


def bare_sqlite(directory: Path, steps: int, group: int) -> float:
    """Return steps a second of the bare driver: the rows of one step (two events, one update),
    ``group`` steps a commit.
    """
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        database = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute(
            "CREATE TABLE event (instance TEXT, id INTEGER, data BLOB, PRIMARY KEY (instance, "
            "id)) WITHOUT ROWID"
        )
        database.execute("CREATE TABLE instance (id TEXT PRIMARY KEY, revision INTEGER, data BLOB)")
        database.execute("INSERT INTO instance VALUES ('one', 0, ?)", (b"x" * 200,))
        begun = time.perf_counter()
        for start in range(0, steps, group):
            database.execute("BEGIN IMMEDIATE")
            for step in range(start, min(start + group, steps)):
                rows = [("one", 2 * step, b"x" * 150), ("one", 2 * step + 1, b"x" * 60)]
                database.executemany("INSERT INTO event VALUES (?, ?, ?)", rows)
                database.execute(
                    "UPDATE instance SET revision = revision + 1, data = ? WHERE id = 'one'",
                    (b"x" * 200,),
                )
            database.execute("COMMIT")
        seconds = time.perf_counter() - begun
        database.close()
        return steps / seconds


@dataclass
class Round:
    """The results of one round: per second, and seconds for W4."""

    bare_single: float
    bare_grouped: float
    w1: float
    w3: float
    w4_500: float
    w4_2000: float
    w4_threaded: float


async def round_of(side: Sqlite | Postgres) -> Round:
    """Measure everything once, the bare driver before and after, to detect a drifting machine."""
    before = side.bare(1000, 1)
    w1_seconds = await measured(side, w1)
    w3_seconds = await measured(side, w3)
    small = await measured(side, w4(500))
    large = await measured(side, w4(2000))
    in_threads = await measured(side, w4(500, "threaded"))
    after = side.bare(1000, 1)
    single, grouped = (before + after) / 2, side.bare(20_000, 100)
    return Round(single, grouped, 1000 / w1_seconds, 2000 / w3_seconds, small, large, in_threads)


def report(rounds: list[Round]) -> str:
    """Return the table: medians over the rounds, and the ratios."""

    def median(read: Callable[[Round], float]) -> float:
        return statistics.median(read(one) for one in rounds)

    rows: list[tuple[str, str, Any]] = [
        ("bare driver, one step a commit", f"{median(lambda r: r.bare_single):,.0f}/s", ""),
        ("bare driver, 100 steps a commit", f"{median(lambda r: r.bare_grouped):,.0f}/s", ""),
        (
            "W1, 1,000 short orchestrations at once",
            f"{median(lambda r: r.w1):,.0f}/s",
            "aim: > 2,000/s at 4,000 bare commits/s",
        ),
        (
            "  per bare single commit",
            f"{median(lambda r: r.w1 / r.bare_single):.2f}",
            "aim: > 0.50",
        ),
        (
            "W3, 50 instances x 40 laps",
            f"{median(lambda r: r.w3):,.0f} laps/s",
            "aim: > 2,000/s at 4,000 bare commits/s",
        ),
        (
            "  per bare single commit",
            f"{median(lambda r: r.w3 / r.bare_single):.2f}",
            "aim: > 0.50",
        ),
        (
            "W4, 500 sequential activities",
            f"{median(lambda r: r.w4_500) / 500 * 1e6:,.0f} us a step",
            "",
        ),
        (
            "  in bare commits",
            f"{median(lambda r: r.w4_500 / 500 * r.bare_single):.2f}",
            "aim: < 2",
        ),
        (
            "W4, 2,000 sequential activities",
            f"{median(lambda r: r.w4_2000) / 2000 * 1e6:,.0f} us a step",
            "",
        ),
        ("  against 500", f"{median(lambda r: r.w4_2000 / r.w4_500):.2f} x", "aim: < 4.3"),
        (
            "W4, 500 of `def`, in threads",
            f"{median(lambda r: r.w4_threaded) / 500 * 1e6:,.0f} us a step",
            "",
        ),
        ("  in bare commits", f"{median(lambda r: r.w4_threaded / 500 * r.bare_single):.2f}", ""),
    ]
    return "\n".join(f"| {name:<42} | {figure:>16} | {aim} |" for name, figure, aim in rows)


async def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where the databases are made",
    )
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the table shows medians")
    parser.add_argument(
        "--postgres",
        action="store_true",
        help="measure PostgreSQL, on a server of its own or ORCHESTRA_TEST_DSN",
    )
    parser.add_argument(
        "--collector",
        type=int,
        metavar="N",
        help="the cycle collector waits for N new objects, as a host may have it",
    )
    parser.add_argument(
        "--freeze",
        action="store_true",
        help="the cycle collector walks no more through what is there when the bench begins",
    )
    options = parser.parse_args()
    if options.collector:
        gc.set_threshold(options.collector)
    if options.freeze:
        gc.collect()
        gc.freeze()
    with ExitStack() as stack:
        if options.postgres:
            side: Sqlite | Postgres = Postgres(
                stack.enter_context(postgres_server(options.directory)).dsn
            )
        else:
            side = Sqlite(options.directory)
        print(report([await round_of(side) for _ in range(options.repeat)]))


if __name__ == "__main__":
    anyio.run(main)
