"""Kills and stops workers for as long as you like, and tells whether anything was lost or done twice.

    python ops/crash/run.py --cycles 1000 --seed 7

The work is cut into rounds of at most 100 cycles, each on a fresh store, with a seed of its own made from the given one; the
verdict comes after each round. A round with violations leaves its directory behind and says where. The seed repeats the plan
(what is sent, how and after how long a worker is killed), not the machine's own timing. The last line is a row for a table.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "crash"))

from crashes.campaigns import Outcome, conduct, kill_campaign, pause_campaign, sharing_campaign, versions_campaign

CYCLES_PER_ROUND = 100
PAUSES_PER_ROUND = 20
HEAD = (
    "date",
    "host",
    "versions",
    "what",
    "cycles",
    "seed",
    "acknowledged",
    "writes",
    "refused",
    "replayed",
    "seconds",
    "violations",
)


def round_of(name: str, campaign: Callable[..., Awaitable[Outcome]], directory: Path | None, seed: int, *more: int) -> Outcome:
    """Run one campaign in a directory of its own, which is removed if all is well."""
    folder = Path(tempfile.mkdtemp(prefix=f"crash-{name}-", dir=directory))
    outcome = conduct(campaign, folder, seed, *more)
    print(f"{name} seed {seed} {more}: {outcome}", flush=True)
    if outcome.problems:
        print(f"kept: {folder}", flush=True)
    else:
        shutil.rmtree(folder)
    return outcome


def row(what: str, cycles: int, seed: int, outcome: Outcome, seconds: float) -> str:
    counts = outcome.counts
    acknowledged = sum(counts[name] for name in ("started", "events", "cancelled", "terminated", "deleted"))
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, orchestra {version('orchestra-runtime')}"
    cells: tuple[Any, ...] = (
        f"{datetime.now(UTC):%Y-%m-%d}",
        f"{platform.system()} {platform.machine()}",
        versions,
        what,
        f"{cycles:,}",
        seed,
        f"{acknowledged:,}",
        f"{counts['writes']:,}",
        f"{counts['refused']:,}",
        f"{counts['replayed']:,}",
        f"{seconds:,.0f}",
        len(outcome.problems),
    )
    return f"| {' | '.join(map(str, cells))} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=0, help="kill -9 of a worker")
    parser.add_argument("--pauses", type=int, default=0, help="SIGSTOP of a worker beyond its lease, and SIGCONT")
    parser.add_argument("--versions", type=int, default=0, help="rounds of two programs with different versions on one file")
    parser.add_argument("--sharing", type=int, default=0, help="rounds of two, three and four workers on one file")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the stores are made; the system's default otherwise"
    )
    options = parser.parse_args()
    seed = SystemRandom().randrange(1_000_000) if options.seed is None else options.seed

    rows: list[str] = []
    failed = False

    def run(
        what: str, cycles: int, per_round: int, campaign: Callable[..., Awaitable[Outcome]], *more: tuple[int, ...]
    ) -> None:
        nonlocal failed
        total, began, left = Outcome(), time.monotonic(), cycles
        seeds = Random(seed)
        its_seed = seed  # of the first round, so that a round can be run again by itself
        while left > 0:
            now = min(per_round, left)
            for arguments in more or ((now,),):
                total.add(round_of(what.replace(" ", "-"), campaign, options.directory, its_seed, *arguments))
            left -= now
            its_seed = seeds.randrange(1_000_000)
        if cycles:
            rows.append(row(what, cycles, seed, total, time.monotonic() - began))
        failed = failed or bool(total.problems)

    run("kill -9", options.cycles, CYCLES_PER_ROUND, kill_campaign)
    run("SIGSTOP", options.pauses, PAUSES_PER_ROUND, pause_campaign)
    run("two versions", options.versions, 1, versions_campaign, ())
    run("shared file", options.sharing, 1, sharing_campaign, (2,), (3,), (4,))
    if not rows:
        parser.error("nothing to do; say --cycles 1000, for example")
    print(f"\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    print("\n".join(rows))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
