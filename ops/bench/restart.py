"""Measures how soon all work goes on after ``kill -9`` of the only process of a store, with full
durability: on SQLite, or on a temporary PostgreSQL server.

    python ops/bench/restart.py [--postgres] [--survivor] [--instances 500] [--repeat 5] [--directory DIR]

A process runs loops of one activity that takes half a second. It is killed in the middle of them,
and started again on the same file at once. The times count from the start of the new process, with
Python's start: until its runtime is entered, until the first activity runs again, and until all do.

With ``--survivor`` a second process is there before, with nothing to do. The times count from the
kill, until it runs the first and all of the loops.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import anyio

from orchestra import (
    OrchestrationContext,
    OrchestrationRegistry,
    Runtime,
    activity,
    activity_context,
)
from orchestra.providers import from_url

PATIENCE = 60.0
TAKES = 0.5
LEDGER = "ledger"
ENTERED = "-"


class Ledger:
    """The begun activities, with process and time: a line each, written at once, so that a kill
    loses none.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, name: str) -> None:
        """Write down that this process has begun something now."""
        os.write(self._file, f"{os.getpid()} {time.time()} {name}\n".encode())


async def loop(ctx: OrchestrationContext, lap: int) -> None:
    ctx.continue_as_new(await ctx.schedule_activity("step", lap))


async def work(folder: Path, store: str, instances: int) -> None:
    """Be the process that is killed."""
    ledger = Ledger(folder / LEDGER)

    @activity
    async def step(lap: int) -> int:
        ledger.note(activity_context().instance_id)
        await anyio.sleep(TAKES)
        return lap + 1

    registry = OrchestrationRegistry.builder().register("loop", loop).build()
    async with Runtime(
        from_url(store), registry, [step], max_concurrent_activities=instances
    ) as runtime:
        ledger.note(ENTERED)
        async with anyio.create_task_group() as group:
            for number in range(instances):
                group.start_soon(
                    lambda key=f"loop-{number}": runtime.client.start(
                        "loop", 0, instance_id=key, if_running="return", if_ended="restart"
                    )
                )
        await anyio.sleep_forever()


def seen(folder: Path, process: subprocess.Popen[bytes], since: float = 0.0) -> dict[str, float]:
    """Return when a process first began what, since a moment."""
    first: dict[str, float] = {}
    for line in (folder / LEDGER).read_text(encoding="utf-8").splitlines():
        pid, moment, name = line.split()
        if int(pid) == process.pid and float(moment) >= since:
            first.setdefault(name, float(moment))
    return first


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other processes do."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > PATIENCE:
            raise TimeoutError(f"it has not come about in {PATIENCE:g} s")
        time.sleep(0.02)


def begin(folder: Path, store: str, instances: int) -> subprocess.Popen[bytes]:
    """Start the process that works."""
    work = ["--work", str(folder), "--store", store, "--instances", str(instances)]
    return subprocess.Popen([sys.executable, __file__, *work], stderr=subprocess.DEVNULL)


def measure(folder: Path, store: str, instances: int) -> tuple[float, float, float]:
    """Kill the only process in the middle of its work; return the seconds until the next one is
    entered, begins, has all.
    """
    (folder / LEDGER).touch()
    victim = begin(folder, store, instances)
    until(lambda: len(seen(folder, victim)) > instances)
    time.sleep(TAKES * 2.5)
    victim.kill()
    victim.wait()
    started = time.time()
    heir = begin(folder, store, instances)
    until(lambda: len(seen(folder, heir)) > instances)
    heir.kill()
    heir.wait()
    first = seen(folder, heir)
    entered = first.pop(ENTERED)
    return entered - started, min(first.values()) - started, max(first.values()) - started


def measure_survivor(folder: Path, store: str, instances: int) -> tuple[float, float]:
    """Kill the process that has all loops beside one that has none; return the seconds until that
    one begins, and has all.
    """
    (folder / LEDGER).touch()
    victim = begin(folder, store, instances)
    until(lambda: len(seen(folder, victim)) > instances)
    survivor = begin(folder, store, instances)
    until(lambda: ENTERED in seen(folder, survivor))
    time.sleep(TAKES * 4 + random.random())  # at any moment between two of its looks
    victim.kill()
    killed = time.time()
    victim.wait()
    until(lambda: len(seen(folder, survivor, killed)) == instances)
    survivor.kill()
    survivor.wait()
    first = seen(folder, survivor, killed)
    return min(first.values()) - killed, max(first.values()) - killed


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=None, help="where the stores are made")
    parser.add_argument("--postgres", action="store_true", help="on a temporary server")
    parser.add_argument("--survivor", action="store_true", help="another process goes on")
    parser.add_argument("--work", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--store", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        anyio.run(work, options.work, options.store, options.instances)
        return
    rounds: list[tuple[float, ...]] = []
    measured = measure_survivor if options.survivor else measure
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory(dir=options.directory) as folder, ExitStack() as stack:
            store = str(Path(folder) / "store.db")
            if options.postgres:
                # Not where the working processes would import it too: their start is measured.
                from orchestra.testing.postgres import postgres_server  # noqa: PLC0415

                store = stack.enter_context(postgres_server(options.directory)).dsn
            rounds.append(measured(Path(folder), store, options.instances))
    begun = "kill" if options.survivor else "start of the new process"
    print(f"{options.instances} instances, {options.repeat} kills; seconds from the {begun}\n")
    print("| until | median | longest |\n|---|---:|---:|")
    names = ("the runtime is entered", "the first activity runs", "all run again")
    names = names[-len(rounds[0]) :]
    for name, values in zip(names, zip(*rounds, strict=True), strict=True):
        print(f"| {name} | {statistics.median(values):.2f} | {max(values):.2f} |")


if __name__ == "__main__":
    main()
