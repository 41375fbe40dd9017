"""Measures orchestra beside other systems of durable execution, in one run on one machine.

    python ops/bench/peers/run.py [--rounds 3] [--only NAME ...] [--quick] [--json FILE]

Each try is a fresh process on a fresh store. For each workload, and in each round, the contestants
take turns. The command installs the peers by itself, with pip and npm, outside of the checkout. It prints the
table, and writes the results, the table and the picture if it is told where. See README.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ops.bench.peers.catalogue import (
    BRIEF,
    ENTRIES,
    FULL,
    QUICK,
    WORKLOADS,
    Entry,
    Sizes,
    Workload,
    why_not,
)
from ops.bench.peers.environment import PINS, SERVER, Environment, prepare
from ops.bench.peers.machine import Watch, describe, loop_ms, syncs
from ops.bench.peers.picture import picture
from ops.bench.peers.results import Results, Try
from ops.bench.peers.stores import Stores
from ops.bench.peers.table import table
from ops.bench.peers.trials import Failed, Trial

TRIES = 3
"""How often a disturbed try is made again."""
WAIT = 300.0
"""Seconds that a try waits for a quiet machine."""


def chosen(only: list[str]) -> tuple[list[Entry], list[Workload]]:
    """Return which contestants and workloads some names mean: keys, systems (``dbos``), or both.

    Raises:
        SystemExit: a name means nothing.
    """
    entries = [one for one in ENTRIES if {one.key, one.system[0]} & set(only)]
    workloads = [one for one in WORKLOADS if one.key in {name.upper() for name in only}]
    known = {one.key for one in ENTRIES} | {one.system[0] for one in ENTRIES}
    unknown = [
        name
        for name in only
        if name not in known and name.upper() not in {one.key for one in WORKLOADS}
    ]
    if unknown:
        names = sorted(known) + [one.key for one in WORKLOADS]
        raise SystemExit(f"--only: {', '.join(unknown)} is none of {', '.join(names)}")
    return entries or list(ENTRIES), workloads or list(WORKLOADS)


def plan(
    entries: list[Entry], workloads: list[Workload], rounds: int
) -> Iterator[tuple[int, Entry, Workload]]:
    """Yield the tries: for each workload, and in each round, the contestants one after the other."""
    for workload in workloads:
        for number in range(1, rounds + 1):
            if workload.once and number > 1:
                continue
            for entry in entries:
                if not why_not(entry, workload):
                    yield number, entry, workload


def undisturbed(
    trial: Trial, number: int, directory: Path, quiet: float | None
) -> tuple[Try, bool]:
    """Run a try while other programs use fewer processors than ``quiet``; again, if they did not keep
    so. Return it, and whether it is to be kept.
    """
    for _ in range(TRIES):
        if quiet is not None and not _wait_until_quiet(quiet):
            break
        one = attempt(trial, number, directory)
        if quiet is None or one.others < quiet:
            return one, True
    return Try(trial.entry.key, trial.workload.key, number), False


def _wait_until_quiet(quiet: float) -> bool:
    begun = time.monotonic()
    while time.monotonic() - begun < WAIT:
        watch = Watch()
        time.sleep(1)
        if watch.others() < quiet:
            return True
    return False


def attempt(trial: Trial, number: int, directory: Path) -> Try:
    """Measure the machine, then run a try; an error is a result too."""
    load = os.getloadavg()[0]
    loop, disk = loop_ms(), syncs(directory)
    figures: dict[str, float] = {}
    error = ""
    watch = Watch()
    try:
        figures = trial.figures()
    except Failed as failure:
        error = str(failure)
    except Exception as failure:  # noqa: BLE001 - the next contestant goes on
        error = f"{type(failure).__name__}: {failure}"[:300]
    return Try(
        trial.entry.key,
        trial.workload.key,
        number,
        loop,
        disk,
        round(load, 2),
        round(watch.others(), 2),
        figures,
        error,
    )


def versions() -> dict[str, str]:
    """Return what is pinned, and what stands here."""
    pinned = {name: pins[0].partition("==")[2] for name, pins in PINS.items()}
    pinned["restate-sdk"] += f", {SERVER.rpartition('@')[2]}"
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {**pinned, "orchestra": head or importlib.metadata.version("orchestra-runtime")}


def main() -> None:
    """Run the rounds, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="the table shows medians")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="contestants, systems, workloads"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it work at all?")
    parser.add_argument("--brief", action="store_true", help="smaller sizes")
    parser.add_argument(
        "--quiet",
        type=float,
        metavar="N",
        help="wait until other programs use fewer than N processors, and repeat disturbed tries",
    )
    parser.add_argument("--size", action="append", default=[], metavar="NAME=N")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--environment", type=Path, help="where the peers are, or are installed")
    parser.add_argument("--json", type=Path, help="where the results are written, after each try")
    parser.add_argument("--picture", type=Path, help="where the picture is written")
    parser.add_argument("--keep", action="store_true", help="keep FILE's other tries")
    parser.add_argument("--show", action="store_true", help="only show what FILE has")
    options = parser.parse_args()
    if options.show:
        results = Results.from_json(json.loads(options.json.read_text(encoding="utf-8")))
    else:
        results = measured(options)
    print(table(results))
    if options.picture:
        options.picture.write_text(picture(results), encoding="utf-8")


def measured(options: argparse.Namespace) -> Results:
    """Run the tries; write what there is after each."""
    entries, workloads = chosen(options.only)
    sizes = QUICK if options.quick else BRIEF if options.brief else FULL
    changes = {
        name: type(getattr(sizes, name))(float(value))
        for name, value in (one.split("=") for one in options.size)
    }
    sizes = Sizes(**{**asdict(sizes), **changes})
    packages = sorted({one.package for one in entries if one.package})
    environment = prepare(options.environment, packages)
    tries: list[Try] = []
    if options.keep and options.json and options.json.exists():
        before = Results.from_json(json.loads(options.json.read_text(encoding="utf-8")))
        again = {(one.key, two.key) for one in entries for two in workloads}
        tries = [one for one in before.tries if (one.entry, one.workload) not in again]

    def results() -> Results:
        return Results(
            describe(options.directory),
            versions(),
            asdict(sizes),
            sizes == FULL,
            tuple(tries),
            environment.missing,
        )

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no process outlives this one
    stores = Stores(options.directory, environment.server)
    try:
        there = [one for one in entries if one.package not in environment.missing]
        for number, entry, workload in plan(there, workloads, options.rounds):
            python = interpreter(entry, environment)
            trial = Trial(entry, workload, sizes, stores, python)
            one, kept = undisturbed(trial, number, options.directory, options.quiet)
            if not kept:
                print(f"{number} {workload.key} {entry.key}: disturbed", file=sys.stderr)
                continue
            tries.append(one)
            shown = one.error or ", ".join(
                f"{key} {value:.4g}" for key, value in one.figures.items()
            )
            print(f"{number} {workload.key} {entry.key}: {shown}", file=sys.stderr, flush=True)
            if options.json:
                text = json.dumps(results().as_json(), indent=1, ensure_ascii=False)
                options.json.write_text(text + "\n", encoding="utf-8")
    finally:
        stores.close()
    return results()


def interpreter(entry: Entry, environment: Environment) -> Path:
    """Return which Python has a system."""
    return environment.python if entry.package else Path(sys.executable)


if __name__ == "__main__":
    main()
