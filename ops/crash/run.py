"""Kills, stops and starves workers for as long as you like, and checks that nothing was lost or
done twice.

    python ops/crash/run.py --cycles 1000 --seed 7 --json ops/results
    python ops/crash/run.py --postgres --cycles 100 --restarts 10 --json ops/results

The work is divided into rounds. Each has a fresh store, a seed derived from the given one, and a
verdict. After violations the round's directory stays, and the script prints its path and the
command that repeats it. The seed repeats the plan (what is sent; how, when or at which call a
worker is killed), not the machine's timing.

With ``--json`` each campaign writes its result there, in one file a kind; `ops/RELIABILITY.md`
shows them.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import psycopg

from orchestra.testing.postgres import PostgresServer, postgres_server
from tests.support.crashes.campaigns import (
    Outcome,
    conduct,
    kill_campaign,
    pause_campaign,
    sharing_campaign,
    stuck_campaign,
    summaries,
    versions_campaign,
)
from tests.support.crashes.deploys import rolling_campaign
from tests.support.crashes.injections import (
    MISSING,
    failing_campaign,
    injection_campaign,
    lone_campaign,
)
from tests.support.crashes.operating import operators_campaign, served_operators_campaign
from tests.support.crashes.servers import (
    served_kill_campaign,
    served_pause_campaign,
    served_proxy_campaign,
    served_restart_campaign,
    served_rolling_campaign,
    served_termination_campaign,
)
from tests.support.crashes.talking import served_talking_campaign, talking_campaign


@dataclass(frozen=True)
class Campaign:
    """A campaign for an option of the command line: rounds of at most ``per_round`` cycles, divided
    among ``variants``.
    """

    option: str
    name: str
    what: str
    per_round: int
    run: Callable[..., Awaitable[Outcome]]
    variants: tuple[tuple[Any, ...], ...] = ((),)
    takes_cycles: bool = True


@dataclass
class Result:
    """The result of a campaign."""

    campaign: Campaign
    command: str
    started: datetime
    seeds: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    cycles: int = 0
    seconds: float = 0.0
    measures: dict[str, list[float]] = field(default_factory=dict)
    postgresql: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "campaign": self.campaign.name,
            "what": self.campaign.what,
            "command": self.command,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(self.seconds),
            "cycles": self.cycles,
            "seeds": self.seeds,
            "counts": dict(sorted(self.counts.items())),
            **({"measures": summaries(self.measures)} if self.measures else {}),
            "failures": self.failures,
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            **({"postgresql": self.postgresql} if self.postgresql else {}),
            "system": f"{platform.system()} {platform.machine()}",
        }


def campaigns(ways: tuple[str, ...]) -> list[Campaign]:
    by_way = tuple((way,) for way in ways)
    return [
        Campaign("cycles", "kill", "kill -9 of a worker at a random moment", 100, kill_campaign),
        Campaign(
            "injections",
            "injection",
            "kill at a chosen call on the store's files",
            100,
            injection_campaign,
            by_way,
        ),
        Campaign(
            "lone",
            "injection",
            "the same, alone, from making the store to closing it",
            100,
            lone_campaign,
            by_way,
        ),
        Campaign(
            "failures", "failing device", "calls fail for a while", 50, failing_campaign, by_way
        ),
        Campaign(
            "pauses",
            "stopped",
            "SIGSTOP beyond the lease, and SIGCONT",
            20,
            pause_campaign,
            ((4,),),
        ),
        Campaign(
            "stuck",
            "stopped",
            "SIGSTOP inside the write lock, beyond the lease",
            20,
            stuck_campaign,
        ),
        Campaign(
            "versions",
            "versions",
            "two programs with different versions on one file",
            1,
            versions_campaign,
            takes_cycles=False,
        ),
        Campaign(
            "rolling",
            "versions",
            "a rolling deploy over three processes, and back",
            5,
            rolling_campaign,
        ),
        Campaign(
            "sharing",
            "sharing",
            "two, three, four workers on one file",
            1,
            sharing_campaign,
            ((2,), (3,), (4,)),
            takes_cycles=False,
        ),
        Campaign(
            "operators",
            "operators",
            "operators act, and die as the workers do",
            30,
            operators_campaign,
        ),
        Campaign(
            "talking",
            "streams and journals",
            "kill -9 of a worker in the middle of its items and steps",
            50,
            talking_campaign,
        ),
    ]


def postgres_campaigns(server: PostgresServer | None) -> list[Campaign]:
    on_it = ((server,),)
    return [
        Campaign(
            "cycles",
            "kill on PostgreSQL",
            "kill -9 of one of three workers",
            25,
            served_kill_campaign,
            on_it,
        ),
        Campaign(
            "pauses",
            "stopped on PostgreSQL",
            "SIGSTOP beyond the lease, SIGCONT",
            30,
            served_pause_campaign,
            on_it,
        ),
        Campaign(
            "terminations",
            "connections",
            "any connection is terminated",
            100,
            served_termination_campaign,
            on_it,
        ),
        Campaign(
            "proxy",
            "connections",
            "a COMMIT or its answer is lost, or never comes",
            60,
            served_proxy_campaign,
            on_it,
        ),
        Campaign(
            "restarts",
            "the server",
            "it is restarted under load",
            10,
            served_restart_campaign,
            on_it,
        ),
        Campaign(
            "away",
            "the server",
            "it is away for a minute",
            2,
            served_restart_campaign,
            ((server, 60.0, 60.0),),
        ),
        Campaign(
            "rolling",
            "versions on PostgreSQL",
            "a rolling deploy over three nodes, and back",
            5,
            served_rolling_campaign,
            on_it,
        ),
        Campaign(
            "operators",
            "operators on PostgreSQL",
            "operators act, and die as the workers do",
            30,
            served_operators_campaign,
            on_it,
        ),
        Campaign(
            "talking",
            "streams and journals on PostgreSQL",
            "kill -9 of a worker in the middle of its items and steps",
            50,
            served_talking_campaign,
            on_it,
        ),
    ]


def conduct_campaign(
    campaign: Campaign,
    cycles: int,
    seed: int,
    directory: Path | None,
    server: PostgresServer | None,
) -> Result:
    command = (
        f"python ops/crash/run.py {'--postgres ' if server else ''}--{campaign.option} {cycles} "
        f"--seed {seed}"
    )
    result = Result(campaign, command, datetime.now(UTC), cycles=cycles)
    if server is not None:
        with psycopg.connect(server.dsn) as connection:
            version = connection.info.server_version
            result.postgresql = f"{version // 10000}.{version % 10000}"
    began = time.monotonic()
    seeds, its_seed, left = (
        Random(seed),
        seed,
        cycles,
    )  # the first round has the seed itself: it can be run again alone
    while left > 0:
        now = min(campaign.per_round, left)
        for number, variant in enumerate(campaign.variants):
            # The cycles of a round are divided among its variants.
            share = (now + number) // len(campaign.variants) if campaign.takes_cycles else now
            arguments = (share, *variant) if campaign.takes_cycles else variant
            if share:
                _conduct_round(campaign, arguments, now, its_seed, directory, result)
        left -= now
        result.seeds.append(its_seed)
        its_seed = seeds.randrange(1_000_000)
    result.seconds = time.monotonic() - began
    return result


def _conduct_round(
    campaign: Campaign,
    arguments: tuple[Any, ...],
    cycles: int,
    seed: int,
    directory: Path | None,
    result: Result,
) -> None:
    """Run a round in its own directory, which is removed if all is well."""
    folder = Path(tempfile.mkdtemp(prefix=f"crash-{campaign.option}-", dir=directory))
    outcome = conduct(campaign.run, folder, seed, *arguments)
    shown = tuple(argument for argument in arguments if not isinstance(argument, PostgresServer))
    print(f"{campaign.option} seed {seed} {shown}: {outcome}", flush=True)
    result.counts += outcome.counts
    for name, values in outcome.measures.items():
        result.measures.setdefault(name, []).extend(values)
    if not outcome.problems:
        shutil.rmtree(folder)
        return
    again = (
        f"python ops/crash/run.py {'--postgres ' if result.postgresql else ''}--{campaign.option} "
        f"{cycles} --seed {seed}"
    )
    print(f"kept: {folder}\nagain: {again}", flush=True)
    # No paths of this machine in what is kept.
    result.failures += [
        re.sub(r"(/[\w.~+-]+)+/", "", f"{again}: {problem}") for problem in outcome.problems[:50]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    on_files, on_servers = campaigns(tuple(MISSING)), postgres_campaigns(None)
    for option in dict.fromkeys(campaign.option for campaign in [*on_files, *on_servers]):
        texts = [one.what for one in on_files if one.option == option]
        texts += [f"on PostgreSQL: {one.what}" for one in on_servers if one.option == option]
        parser.add_argument(f"--{option}", type=int, default=0, metavar="N", help="; ".join(texts))
    parser.add_argument(
        "--postgres", action="store_true", help="on a PostgreSQL server, by default one of its own"
    )
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--directory",
        type=Path,
        default=None,
        help="where the stores are made (default: the system's)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=None,
        metavar="PATH",
        help="where results go: a folder, or a file that ends in .json",
    )
    options = parser.parse_args()
    seed = SystemRandom().randrange(1_000_000) if options.seed is None else options.seed

    if options.postgres:
        with postgres_server() as server:
            if not server.is_own and (options.restarts or options.away):
                parser.error("somebody else's server is not restarted")
            return conduct_all(parser, options, postgres_campaigns(server), seed, server)
    ways = tuple(way for way, missing in MISSING.items() if missing() is None)
    for way, missing in MISSING.items():
        if (reason := missing()) is not None:
            print(f"not by {way}: {reason}", flush=True)
    if not ways and (options.injections or options.lone or options.failures):
        parser.error("no way to inject a fault on this machine")
    return conduct_all(parser, options, campaigns(ways), seed, None)


def conduct_all(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    there_are: list[Campaign],
    seed: int,
    server: PostgresServer | None,
) -> int:
    chosen = [(campaign, getattr(options, campaign.option)) for campaign in there_are]
    if not any(cycles for _, cycles in chosen):
        parser.error("nothing to do; say --cycles 1000, for example")
    if (
        options.json is not None
        and options.json.suffix == ".json"
        and sum(cycles > 0 for _, cycles in chosen) > 1
    ):
        parser.error("several campaigns do not go into one file; name a folder")

    failed = False
    for campaign, cycles in chosen:
        if cycles <= 0:
            continue
        result = conduct_campaign(campaign, cycles, seed, options.directory, server)
        failed = failed or bool(result.failures)
        print(
            (
                f"{campaign.what}: {cycles:,} cycles, {result.seconds:,.0f} s, "
                f"{len(result.failures)} violations"
            ),
            flush=True,
        )
        if options.json is not None:
            file = options.json
            if file.suffix != ".json":
                file = file / f"{'postgres-' if server else ''}{campaign.option}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(result.as_json(), indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
