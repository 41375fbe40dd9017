"""Times each list, count and page of the web application on a store that has grown large.

    python ops/bench/screens.py [--postgres] [--instances 1000000] [--laps 1000000] [--repeat 5] [--json FILE]
    python ops/bench/screens.py --dsn DSN  # on a server of your own, whose store stays for the next time

A runtime makes one instance of each kind: two versions, a long loop, held ones, ended ones. Their
rows are then copied with SQL, so that the store has a loop of so many laps, all retained, and so many
instances. Each request goes through the application in this process, without a network. The slowest
answer counts against the aim.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import anyio
import httpx
import psycopg

from orchestra import (
    Failure,
    InstanceInfo,
    OrchestrationContext,
    OrchestrationRegistry,
    Runtime,
    SqliteProvider,
)
from orchestra.providers.postgres import PostgresProvider
from orchestra.store.port import Provider
from orchestra.testing.postgres import postgres_server
from orchestra.web import create_app

AIM = 0.3
"""Seconds."""
API = "/api/v1"

SEEDS = {
    "waits": 40,
    "newer": 30,
    "timer": 5,
    "held": 3,
    "broken": 2,
    "done": 12,
    "failed": 8,
}
"""How many of a hundred instances are a copy of each seed."""
RARE = 20
"""How many are of a rare name: the oldest ones, so that a list of the newest finds them last."""


async def waits(ctx: OrchestrationContext, laps: int) -> None:
    """A loop that an event wakes."""
    await ctx.wait_for_event("go")
    ctx.continue_as_new(laps + 1)


async def times(ctx: OrchestrationContext, _laps: int) -> None:
    """A loop that waits for years."""
    await ctx.schedule_timer(timedelta(days=10_000))


async def done(_ctx: OrchestrationContext, value: int) -> int:
    """An instance that ends."""
    return value


async def fails(_ctx: OrchestrationContext, _value: int) -> None:
    """An instance that fails."""
    raise Failure("no luck")


async def breaks(_ctx: OrchestrationContext, _value: int) -> None:
    """An instance that its own fault holds."""
    raise ValueError("no luck")


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("waits", waits)
    .register("waits", waits, version="2.0.0")
    .register("times", times)
    .register("done", done)
    .register("rare", done)
    .register("fails", fails)
    .register("breaks", breaks)
    .build()
)


async def plant(provider: Provider) -> None:
    """Make the seeds."""
    async with Runtime(provider, REGISTRY) as runtime:
        client = runtime.client

        async def begin(name: str, instance_id: str, **options: Any) -> None:
            handle = await client.start(
                name, 1, instance_id=instance_id, labels={"plan": instance_id}, **options
            )
            async for info in handle.watch():
                if _is_at_rest(info):
                    break

        await begin("waits", "waits", version="1.0.0")
        await begin("waits", "newer")
        await begin("times", "timer")
        await begin("waits", "held")
        await client.hold("held", reason="the feed is down")
        await begin("breaks", "broken")
        await begin("done", "done")
        await begin("rare", "rare")
        await begin("fails", "failed")
        await begin("waits", "loop")
        for lap in (2, 3):
            await client.raise_event("loop", "go")
            async for info in client.watch("loop"):
                if info.execution_id == lap and _is_at_rest(info):
                    break
        for number in range(300):
            await client.set_labels(
                "loop", {"number": str(number)}, reason="an audit of some length"
            )


def _is_at_rest(info: InstanceInfo) -> bool:
    return bool(info.status.is_final or info.hold or info.waiting_on)


def grow(path: Path, instances: int, laps: int) -> None:
    """Copy the seeds' rows."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous=OFF", "cache_size=-400000", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TEMP TABLE copy (id TEXT, seed TEXT, n INTEGER)")
    share = [seed for seed, count in SEEDS.items() for _ in range(count)]
    connection.executemany(
        "INSERT INTO copy VALUES (?, ?, ?)",
        (
            (f"i-{n:07}", "rare" if n > instances - RARE else share[n * 37 % 100], n)
            for n in range(instances)
        ),
    )
    connection.execute("BEGIN")
    for table, own in COPIED.items():
        connection.execute(_copying(table, own, _columns(connection, table)))
    for statement in _long_loop(_columns(connection, "execution")):
        connection.execute(statement, {"laps": laps})
    connection.execute("COMMIT")
    connection.execute("DROP TABLE copy")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def grow_postgres(dsn: str, instances: int, laps: int) -> None:
    """Do the same on a server, and gather its statistics."""
    share = [seed for seed, count in SEEDS.items() for _ in range(count)]
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SET search_path TO orchestra")
        cursor.execute("CREATE TEMP TABLE copy (id text, seed text, n bigint)")
        cursor.execute(
            "INSERT INTO copy SELECT 'i-' || lpad(n::text, 7, '0'), "
            "CASE WHEN n > %s THEN 'rare' ELSE (%s::text[])[1 + n * 37 %% 100] END, n "
            "FROM generate_series(0, %s) n",
            (instances - RARE, share, instances - 1),
        )
        cursor.execute("ANALYZE copy")
        for table, own in COPIED.items():
            columns = _postgres_columns(cursor, table)
            cursor.execute(_copying(table, own, columns))
        for statement in _long_loop(_postgres_columns(cursor, "execution")):
            cursor.execute(statement.replace(":laps", str(laps)).encode())
        connection.commit()
        connection.autocommit = True
        cursor.execute("VACUUM ANALYZE")


COPIED: Final[dict[str, dict[str, str]]] = {
    "instance": {"created_at": "created_at - n * 1000", "updated_at": "updated_at - n * 900"},
    "instance_detail": {"request_id": "request_id || n"},
    "label": {},
    "execution": {"created_at": "created_at - n * 1000"},
    "event": {},
}
"""The tables whose rows are copied, and what a copy has of its own."""


def _copying(table: str, own: dict[str, str], columns: Sequence[str]) -> Any:
    chosen = ", ".join(
        {"instance_id": "c.id", **own}.get(column, f"s.{column}") for column in columns
    )
    few = " WHERE c.n % 100 = 0" if table == "event" else ""  # their number is that of a lap
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM copy c "
        f"CROSS JOIN {table} s{few}{' AND' if few else ' WHERE'} s.instance_id = c.seed"
    )


def _long_loop(columns: Sequence[str]) -> Iterator[str]:
    """Yield what makes the loop long: the current lap becomes the last one; laps 1 and 2 stay, and
    lap 2 fills what is between.
    """
    chosen = ", ".join(
        {
            "execution": "n",
            "created_at": "created_at - (:laps - n) * 1000000",
            "opened_at": "opened_at - (:laps - n) * 1000000",
            "closed_at": "closed_at - (:laps - n) * 1000000",
        }.get(column, column)
        for column in columns
    )
    yield "UPDATE execution SET execution = :laps WHERE instance_id = 'loop' AND execution = 3"
    yield "UPDATE event SET execution = :laps WHERE instance_id = 'loop' AND execution = 3"
    yield "UPDATE instance SET execution = :laps WHERE instance_id = 'loop'"
    yield (
        "WITH RECURSIVE lap (n) AS (SELECT CAST(3 AS bigint) UNION ALL SELECT n + 1 FROM lap WHERE n + 1 < :laps) "
        f"INSERT INTO execution ({', '.join(columns)}) SELECT {chosen} FROM lap "
        "CROSS JOIN execution WHERE instance_id = 'loop' AND execution = 2"
    )


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def _postgres_columns(cursor: psycopg.Cursor[Any], table: str) -> list[str]:
    cursor.execute(
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_schema = 'orchestra' AND table_name = %s AND is_generated = 'NEVER' "
        "ORDER BY ordinal_position",
        (table,),
    )
    return [row[0] for row in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Request:
    """Something that a screen asks for."""

    method: str
    path: str
    body: Any = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}" + (
            "" if self.body is None else f" {json.dumps(self.body)}"
        )


def requests(laps: int, instances: int) -> Iterator[Request]:
    """Yield what is measured."""
    middle = f"i-{instances // 2:07}"
    for body in (
        {},
        {"order_by": "oldest"},
        {"order_by": "id"},
        {"order_by": "latest_change"},
        {"order_by": "earliest_change"},
        {"limit": 1000},
        {"order_by": "latest_change", "selection": {"name": "waits"}},
        *(
            {"selection": selection}
            for selection in (
                {"name": "waits"},
                {"name": "waits", "version": "1.0.0"},
                {"name": "fails"},
                {"status": "failed"},
                {"status": ["running", "pending", "held"]},
                {"status": "terminated"},
                {"status": "pending"},
                {"name": "done", "status": "failed"},
                {"name": "rare"},
                {"name": "nobody"},
                {"held": True},
                {"held": "error"},
                {"held": "operator"},
                {"held": False},
                {"drifting": True},
                {"target_version": "2.0.0"},
                {"overdue": True},
                {"pinned": True},
                {"labels": {"plan": "held"}},
                {"labels": {"plan": "nobody"}},
                {"id_prefix": middle[:6]},
                {"id_prefix": "nobody"},
                {"waiting_on": {"kind": "event", "name": "go"}},
                {"parent": "loop"},
                {"created_after": "2020-01-01T00:00:00Z"},
            )
        ),
    ):
        yield Request("POST", f"{API}/instances/search", body)
    for body in (
        {},
        {"group_by": ["name", "version"]},
        {"selection": {"name": "waits"}},
        {"group_by": ["status"]},
        {"group_by": ["held"]},
        {"selection": {"status": "failed"}, "at_most": 10_000},
        {"selection": {"held": True}, "at_most": 10_000},
        {"selection": {"drifting": True}, "at_most": 10_000},
        {"selection": {"labels": {"plan": "held"}}, "at_most": 10_000},
    ):
        yield Request("POST", f"{API}/instances/count", body)
    for path in (
        "/instances/loop?include=input,state,output,history",
        "/instances/loop/executions",
        f"/instances/loop/executions?after={laps // 2}&limit=1000",
        f"/instances/loop/executions?after={laps - 200}&limit=200",
        "/instances/loop/history",
        "/instances/loop/messages",
        "/instances/loop/streams",
        f"/instances/{middle}",
        "/summary",
        "/versions",
        "/versions?name=waits",
        "/policies/waits",
        "/policies/waits/history",
        "/schedules",
        "/nodes",
        "/operations",
        "/operations?subject=loop",
    ):
        yield Request("GET", API + path)
    yield Request("POST", f"{API}/bulk", {"act": "hold", "selection": {"held": "error"}})
    for page in ("/", "/instances", "/versions", "/nodes", "/schedules"):
        yield Request("GET", page)
    for query in (
        "status=failed",
        "held=any",
        "name=waits&version=1.0.0",
        "drifting=1",
        "label=plan%3Dheld",
    ):
        yield Request("GET", f"/instances?{query}")
    for one in ("loop", middle):
        yield Request("GET", f"/instances/{one}")


@dataclass(frozen=True, slots=True)
class Figure:
    """How long an answer takes, in seconds; ``first``: of the first time; ``least``: what the others
    on a shared machine have disturbed the least.
    """

    request: str
    status: int
    size: int
    first: float
    median: float
    least: float
    processor: float
    """The processor time of one, which does not depend on what else the machine does."""


async def measure(provider: Provider, options: argparse.Namespace) -> list[Figure]:
    """Time each request."""
    figures: list[Figure] = []
    # A node lives, as it does where screens are looked at: else each instance would be held.
    async with Runtime(provider, REGISTRY) as runtime:
        app = create_app(runtime.client, registry=REGISTRY)
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", timeout=600
        ) as http:
            for request in requests(options.laps, options.instances):
                if options.only not in str(request):
                    continue
                took: list[float] = []
                used = time.process_time()
                for _ in range(options.repeat):
                    begun = time.perf_counter()
                    answer = await http.request(request.method, request.path, json=request.body)
                    took.append(time.perf_counter() - begun)
                    if (
                        len(took) > 1 and took[-1] > 10 * AIM
                    ):  # the first one may read from the disk
                        break
                figure = Figure(
                    str(request),
                    answer.status_code,
                    len(answer.content),
                    took[0],
                    statistics.median(took),
                    min(took),
                    (time.process_time() - used) / len(took),
                )
                figures.append(figure)
                late = "  OVER" if figure.median > AIM else ""
                print(
                    f"{figure.median * 1000:>8.1f} ms  first {figure.first * 1000:>8.1f} ms  "
                    f"least {figure.least * 1000:>8.1f} ms  "
                    f"processor {figure.processor * 1000:>8.1f} ms  "
                    f"{figure.status}  {figure.size:>9,} B  {figure.request}{late}",
                    flush=True,
                )
    return figures


def run(options: argparse.Namespace, path: Path) -> None:
    """Make the store and measure."""

    def opened() -> Provider:
        return SqliteProvider(path, durability="relaxed")

    begun = time.perf_counter()
    if not path.exists():
        anyio.run(plant, opened())
        grow(path, options.instances, options.laps)
    built = time.perf_counter() - begun
    print(f"{path}: {path.stat().st_size / 2**20:,.0f} MiB, made in {built:.0f} s", flush=True)
    report(options, anyio.run(measure, opened(), options))


def run_postgres(options: argparse.Namespace, dsn: str) -> None:
    """Do the same on a server, whose store is made unless it is there."""
    begun = time.perf_counter()
    if not _is_made(dsn):
        anyio.run(plant, PostgresProvider(dsn))
        grow_postgres(dsn, options.instances, options.laps)
    print(f"made in {time.perf_counter() - begun:.0f} s", flush=True)
    provider = PostgresProvider(dsn)
    report(options, anyio.run(measure, provider, options))


def _is_made(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT to_regclass('orchestra.instance')").fetchone()
        return row is not None and row[0] is not None


def report(options: argparse.Namespace, figures: list[Figure]) -> None:
    """Say what is over the aim, and write the figures."""
    over = [figure for figure in figures if figure.median > AIM]
    print(f"{len(figures)} requests, {len(over)} over {AIM * 1000:.0f} ms")
    if options.json is not None:
        result = {
            "instances": options.instances,
            "laps": options.laps,
            "aim_seconds": AIM,
            "load": os.getloadavg(),
            "requests": [asdict(figure) for figure in figures],
        }
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--laps", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", help="Write the figures to this file.")
    parser.add_argument("--store", type=Path, help="Keep the store here, or measure the one there.")
    parser.add_argument("--postgres", action="store_true", help="On a PostgreSQL server.")
    parser.add_argument("--dsn", help="On this server; its store is kept.")
    parser.add_argument("--only", default="", help="Only requests that contain this text.")
    options = parser.parse_args()
    if options.dsn:
        run_postgres(options, options.dsn)
        return
    if options.postgres:
        with postgres_server() as server:
            run_postgres(options, server.dsn)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(options, options.store or Path(folder) / "large.db")


if __name__ == "__main__":
    main()
