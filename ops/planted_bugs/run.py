"""Plants each bug that the protocol knows into a copy of the package, and shows that the suites
notice.

    python ops/planted_bugs/run.py --json planted-bugs.json

Every suite that is named for a bug must notice it; first all of them must pass without any bug. The
exit code is 1 if a bug survives one of them. `--only tombstone` plants those whose name holds a
word.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops.planted_bugs.bugs import BUGS, ELSEWHERE, Bug, Simulated, Tests, plant

ROOT = Path(__file__).parents[2]
COPIED = ("orchestra", "tests", "ops", "pyproject.toml")
CLEAN_SEEDS = 40
PATIENCE = 1800
"""Seconds after which a suite is ended. It has then said nothing."""


@dataclass(frozen=True)
class Verdict:
    """What a suite said: who noticed, if anybody did. ``broken``: it could not be run at all."""

    suite: str
    caught_by: str | None
    broken: str | None = None


def copy_of_the_package(directory: Path) -> Path:
    for name in COPIED:
        source, target = ROOT / name, directory / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    return directory


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(directory)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # each suite would compile the package anew
    command = [sys.executable, *arguments]
    try:
        return subprocess.run(
            command,
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, f"it did not end in {PATIENCE} s")


def ask(suite: Tests | Simulated, directory: Path, *, seeds: int | None = None) -> Verdict:
    """Run a suite in a copy."""
    if isinstance(suite, Tests):
        name = shlex.join(["pytest", *suite.arguments])
        done = run(
            directory, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *suite.arguments
        )
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    else:
        count = seeds or suite.seeds
        name = f"simulation on {suite.store}, {count} seeds"
        arguments = ("--store", suite.store, "--seeds", str(count), "--fail-fast")
        done = run(directory, "ops/simulation/run.py", *arguments)
        found = re.search(r"^failed: .* --from (\d+ .*)", done.stdout, re.MULTILINE)
    if done.returncode == 0:
        return Verdict(name, None)
    if done.returncode == 1 and found is not None:
        seed = "" if isinstance(suite, Tests) else "seed "
        return Verdict(name, seed + " ".join(found[1].split())[:200])
    return Verdict(name, None, broken=done.stdout[-2000:])


def try_bug(bug: Bug) -> list[Verdict]:
    with tempfile.TemporaryDirectory(prefix="orchestra-bug-") as directory:
        root = copy_of_the_package(Path(directory))
        plant(bug, root)
        verdicts = [ask(suite, root) for suite in bug.suites]
    return [
        seen_by_the_bug_alone(suite, verdict)
        for suite, verdict in zip(bug.suites, verdicts, strict=True)
    ]


def seen_by_the_bug_alone(suite: Tests | Simulated, verdict: Verdict) -> Verdict:
    """A seed that nobody has run without the bug may fail without it."""
    found = re.match(r"seed (\d+) ", verdict.caught_by or "")
    if isinstance(suite, Tests) or found is None or int(found[1]) < CLEAN_SEEDS:
        return verdict
    with tempfile.TemporaryDirectory(prefix="orchestra-no-bug-") as directory:
        root = copy_of_the_package(Path(directory))
        arguments = ("--store", suite.store, "--from", found[1], "--seeds", "1")
        done = run(root, "ops/simulation/run.py", *arguments)
    if done.returncode == 0:
        return verdict
    return Verdict(verdict.suite, None, broken=f"seed {found[1]} fails without the bug as well")


def try_none(bugs: list[Bug], pool: ThreadPoolExecutor) -> Iterator[Verdict]:
    """Without a bug every suite must pass, or noticing one would mean nothing."""
    with tempfile.TemporaryDirectory(prefix="orchestra-no-bug-") as directory:
        root = copy_of_the_package(Path(directory))
        suites = dict.fromkeys(suite for bug in bugs for suite in bug.suites)
        yield from pool.map(lambda suite: ask(suite, root, seeds=CLEAN_SEEDS), suites)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="bugs whose name holds this")
    parser.add_argument("--jobs", type=int, default=1, help="suites at once")
    parser.add_argument(
        "--json", type=Path, default=None, help="where the result is written for a report"
    )
    options = parser.parse_args(arguments)
    bugs = [bug for bug in BUGS if options.only in bug.name]
    if not bugs:
        parser.error(f"no bug is called {options.only!r}")
    started, began = datetime.now(UTC), time.monotonic()
    failures: list[dict[str, Any]] = []

    survived: set[str] = set()
    noticed: list[dict[str, str]] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for verdict in try_none(bugs, pool):
            said = verdict.caught_by or verdict.broken
            how = "passes" if said is None else "FAILS"
            print(f"{how} without a bug: {verdict.suite}", flush=True)
            if said is not None:
                failures.append({"bug": None, "suite": verdict.suite, "error": said})
        for bug, verdicts in zip(bugs, pool.map(try_bug, bugs), strict=True):
            print(f"\n{bug.name}\n    rule {bug.rule}", flush=True)
            for verdict in verdicts:
                print(f"    {verdict.suite}\n        {verdict.caught_by or 'SURVIVED'}", flush=True)
                noticed.append(
                    {
                        "bug": bug.name,
                        "rule": bug.rule,
                        "suite": verdict.suite,
                        "by": verdict.caught_by or "",
                    }
                )
                if verdict.caught_by is None:
                    survived.add(bug.name)
                    failures.append(
                        {
                            "bug": bug.name,
                            "suite": verdict.suite,
                            "error": verdict.broken or "it was not noticed",
                        }
                    )
                    print(verdict.broken or "", flush=True)
    for name, why in ELSEWHERE.items():
        print(f"\n{name}\n    not planted: {why}")
    seconds = round(time.monotonic() - began)
    counts = {
        "bugs": len(bugs),
        "suites": sum(len(bug.suites) for bug in bugs),
        "caught by every suite": len(bugs) - len(survived),
        "survived a suite": len(survived),
        "not planted": len(ELSEWHERE),
        "seconds": seconds,
    }
    print("\n" + ", ".join(f"{name}: {number}" for name, number in counts.items()))
    if options.json is not None:
        result = {
            "campaign": "planted-bugs",
            "command": shlex.join(
                [
                    "python",
                    "ops/planted_bugs/run.py",
                    *(sys.argv[1:] if arguments is None else arguments),
                ]
            ),
            "started": started.isoformat(timespec="seconds"),
            "seeds": None,
            "seconds": seconds,
            "counts": counts,
            "noticed": noticed,
            "failures": failures,
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
