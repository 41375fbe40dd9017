"""Runs one loop for many laps under the default retention, and prints the store's size
meanwhile.

    python ops/bench/laps.py [--laps 100000] [--directory DIR] [--auto-vacuum none|incremental]
    [--readers N]

A lap is one activity, whose result is the next lap's state. The store is opened with
``durability="relaxed"``, to save time; rows and sizes are the same. ``--readers`` lets threads read
all the time, 20 ms each.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import anyio

from orchestra import OrchestrationContext, OrchestrationRegistry, Runtime, SqliteProvider, activity

LIMIT = timedelta(hours=2)
TABLES = ("execution", "event", "tombstone", "message")


@dataclass(frozen=True)
class Lap:
    """The state of the loop."""

    number: int
    laps: int


@activity
async def increment(value: int) -> int:
    return value + 1


async def loop(ctx: OrchestrationContext, state: Lap) -> int:
    done = await ctx.schedule_activity(increment, state.number)
    if done == state.laps:
        return done
    ctx.continue_as_new(replace(state, number=done))


@dataclass(frozen=True)
class Room:
    """What a store takes after so many laps; ``largest_log`` since the last look."""

    laps: int
    rows: dict[str, int]
    file: int
    free: int
    largest_log: int
    seconds: float

    def line(self) -> str:
        rows = " | ".join(f"{self.rows[table]:>7,}" for table in TABLES)
        file, log, free = (
            f"{size / 1024:>9,.0f}" for size in (self.file, self.largest_log, self.free)
        )
        return (
            f"| {self.laps:>9,} | {rows} | {file} | {free} | {log} | "
            f"{self.laps / self.seconds:>7,.0f} |"
        )


HEAD = (
    f"| laps      | {' | '.join(f'{table:>7}s' for table in TABLES)} | file, KiB | free, KiB | "
    "log, KiB | laps/s |\n"
    f"|{'---:|' * (len(TABLES) + 5)}"
)


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class Watcher:
    """Looks at a store from outside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path.with_name(path.name + "-wal")
        self.largest_log = 0
        self.begun = time.perf_counter()

    def look(self, laps: int) -> Room:
        with contextlib.closing(
            sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        ) as connection:
            rows = {
                table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in TABLES
            }
            page, free = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_size", "freelist_count")
            )
        largest, self.largest_log = self.largest_log, 0
        return Room(
            laps, rows, size_of(self.path), page * free, largest, time.perf_counter() - self.begun
        )


def read_all_the_while(path: Path, stop: threading.Event) -> None:
    """Hold one read transaction after the other."""
    with contextlib.closing(
        sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    ) as connection:
        while not stop.is_set():
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM instance").fetchone()
            time.sleep(0.02)
            connection.execute("ROLLBACK")


async def measure(path: Path, laps: int, looks: list[int], readers: int) -> list[Room]:
    """Run the loop; return what was seen at each look."""
    registry = OrchestrationRegistry.builder().register("loop", loop).build()
    rooms: list[Room] = []
    stop = threading.Event()
    async with Runtime(
        SqliteProvider(path, durability="relaxed"), registry, [increment]
    ) as runtime:
        threads = [
            threading.Thread(target=read_all_the_while, args=(path, stop)) for _ in range(readers)
        ]
        for thread in threads:
            thread.start()
        try:
            watcher = Watcher(path)
            handle = await runtime.client.start("loop", Lap(0, laps), instance_id="loop")
            for look in looks:
                while (await handle.info()).execution_id < look:
                    watcher.largest_log = max(watcher.largest_log, size_of(watcher.log))
                    await anyio.sleep(0.02)
                rooms.append(await anyio.to_thread.run_sync(watcher.look, look))
            assert await handle.result(int, timeout=LIMIT) == laps
        finally:
            stop.set()
            for thread in threads:
                await anyio.to_thread.run_sync(thread.join)
    return rooms


async def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where the database is made",
    )
    parser.add_argument("--laps", type=int, default=100_000)
    parser.add_argument(
        "--auto-vacuum",
        choices=("none", "incremental"),
        default="none",
        help="as the file is made with",
    )
    parser.add_argument("--readers", type=int, default=0, help="threads that read all the while")
    options = parser.parse_args()
    looks = [
        number for number in (1_000, 10_000, 100_000, 1_000_000) if number <= options.laps
    ] or [options.laps]
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        path = Path(folder) / "laps.db"
        if options.auto_vacuum == "incremental":
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("VACUUM")
        print(HEAD)
        for room in await measure(path, options.laps, looks, options.readers):
            print(room.line())


if __name__ == "__main__":
    anyio.run(main)
