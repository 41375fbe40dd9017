"""Runs many seeds of the simulation, and tells what happened and whether an invariant was ever
broken.

    python ops/simulation/run.py --seeds 10000 --jobs 2 --json simulation.json
    python ops/simulation/run.py --postgres --seeds 500 --json postgres-simulation.json
    python ops/simulation/run.py --ages --seeds 2000

With `--postgres` each seed gets a schema of its own on a server, which `ORCHESTRA_TEST_DSN` names
or the script starts. Each failing seed is printed with the one command that repeats it exactly. The
exit code is 1 if there was any.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import platform
import shlex
import signal
import sqlite3
import sys
import time
import traceback
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from orchestra.testing.postgres import postgres_server
from tests.support.simulation import run_seed
from tests.support.simulation.clocks import VirtualTime
from tests.support.simulation.stores import StoreName

PATIENCE = 120
"""Seconds of real time in which a world's time stands still, after which its seed is taken to go on
for ever. A long seed on a slow machine moves on.
"""


def prepare() -> None:
    """What engines say of the faults is not of interest here."""
    logging.getLogger("orchestra").setLevel(logging.CRITICAL)


class TooLong(BaseException):
    """A seed goes on for ever. Engines survive every exception but one like this."""


@contextmanager
def bounded() -> Generator[None]:
    """Fail once the time of the simulated world has stood still for too long.

    Raises:
        TooLong: it has.
    """
    seen = VirtualTime.moves

    def look(*_: object) -> None:
        nonlocal seen
        if VirtualTime.moves == seen:
            raise TooLong(f"its time has not moved for {PATIENCE} s")
        seen = VirtualTime.moves
        signal.alarm(PATIENCE)

    signal.signal(signal.SIGALRM, look)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)


def run_one(
    seed: int, store: StoreName | None, dsn: str | None, *, ages: bool = False
) -> tuple[int, dict[str, int], str | None]:
    """Run a seed; return its counts, or how it failed."""
    try:
        with bounded():
            return seed, dict(run_seed(seed, store, dsn=dsn, ages=ages).counts), None
    except (Exception, TooLong) as error:  # noqa: BLE001 - whatever it is, it is this seed's failure, and the others go on
        return seed, {}, "".join(traceback.format_exception(error))[-3000:]


def rerun(seed: int, store: StoreName | None, *, ages: bool = False) -> str:
    where = {None: "", "postgres": " --postgres"}.get(store, f" --store {store}") + (
        " --ages" if ages else ""
    )
    return f"python ops/simulation/run.py --from {seed} --seeds 1{where}"


@contextmanager
def served(store: StoreName | None) -> Generator[str | None]:
    """Give the server that a store needs, if it needs one."""
    if store != "postgres":
        yield None
        return
    with postgres_server() as server:
        yield server.dsn


def server_version(dsn: str) -> str:
    import psycopg  # noqa: PLC0415 - not needed for the other stores

    with psycopg.connect(dsn) as connection:
        version = connection.info.server_version
    return f"{version // 10000}.{version % 10000}"


def results_of(
    seeds: range, store: StoreName | None, jobs: int, dsn: str | None, *, ages: bool = False
) -> Generator[tuple[int, dict[str, int], str | None]]:
    """Run the seeds, here or in processes, and yield what they did in their order."""
    if jobs == 1:
        prepare()
        yield from (run_one(seed, store, dsn, ages=ages) for seed in seeds)
        return
    # Spawned: what a fork would inherit of a server holds it up when this process ends.
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=prepare) as pool:
        try:
            yield from pool.map(
                partial(run_one, store=store, dsn=dsn, ages=ages),
                seeds,
                chunksize=8 if dsn is None else 1,
            )
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10_000, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first one")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="begin no other seed after so long"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    stores = parser.add_mutually_exclusive_group()
    stores.add_argument(
        "--store",
        choices=("memory", "sqlite", "postgres"),
        default=None,
        help="otherwise each seed has its own",
    )
    stores.add_argument(
        "--postgres",
        action="store_const",
        const="postgres",
        dest="store",
        help="the same as --store postgres",
    )
    parser.add_argument(
        "--ages", action="store_true", help="nodes have this library or an artificial next one"
    )
    parser.add_argument(
        "--fail-fast", action="store_true", help="end with the first seed that fails"
    )
    parser.add_argument(
        "--json", type=Path, default=None, help="where the result is written for a report"
    )
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.seeds)
    started, began, told = datetime.now(UTC), time.monotonic(), time.monotonic()
    counts: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    with served(options.store) as dsn:
        database = {} if dsn is None else {"postgresql": server_version(dsn)}
        results = results_of(seeds, options.store, options.jobs, dsn, ages=options.ages)
        for done, (seed, its_counts, failure) in enumerate(results, 1):
            counts.update(its_counts)
            if failure is not None:
                failures.append(
                    {
                        "seed": seed,
                        "error": failure.strip().splitlines()[-1],
                        "rerun": rerun(seed, options.store, ages=options.ages),
                    }
                )
                print(
                    (
                        f"\nseed {seed} failed\n{failure}\nrerun: "
                        f"{rerun(seed, options.store, ages=options.ages)}\n"
                    ),
                    flush=True,
                )
            if (
                failure is not None and options.fail_fast
            ) or time.monotonic() - began > options.seconds:
                seeds = range(seeds.start, seed + 1)
                break
            if time.monotonic() - told > 10:
                told = time.monotonic()
                print(
                    (
                        f"{done:,} of {len(seeds):,} seeds, {done / (told - began):.1f}/s, "
                        f"{len(failures)} failed"
                    ),
                    flush=True,
                )
        results.close()
    seconds = time.monotonic() - began
    print(
        f"seeds {seeds.start} to {seeds.stop - 1}: {len(seeds) / seconds:.1f}/s, {len(failures)} "
        "failed"
    )
    print("\n".join(f"{number:>12,}  {name}" for name, number in sorted(counts.items())))
    if options.json is not None:
        store = "PostgreSQL schema" if options.store == "postgres" else "store"
        result = {
            "campaign": "simulation",
            "what": (
                f"worlds of several nodes over one {store}, one for each seed from {seeds.start} "
                f"to {seeds.stop - 1}"
            ),
            "command": shlex.join(
                [
                    "python",
                    "ops/simulation/run.py",
                    *(sys.argv[1:] if arguments is None else arguments),
                ]
            ),
            "started": started.isoformat(timespec="seconds"),
            "seeds": [seeds.start, seeds.stop - 1],
            "cycles": len(seeds),
            "seconds": round(seconds),
            "counts": dict(sorted(counts.items())),
            "failures": failures,
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            **database,
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    for failure in failures:
        print(f"failed: {failure['rerun']}    {failure['error']}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
