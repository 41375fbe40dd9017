"""Measures what it costs to wait: the processor time of a node that has nothing to do, with one
parked instance and with many; and how soon a node starts while many instances are held.

    python ops/bench/waiting.py [--parked 1000000] [--held 50000] [--seconds 20] [--store postgres]

The parked instances are copies, made by the store, of one that was really parked and waits for an
event. Some are then held with SQL, as a bad deploy would hold them. On PostgreSQL the time of the
server's processes counts as well.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import anyio
import psycopg

from orchestra import OrchestrationContext, OrchestrationRegistry, Runtime, SqliteProvider
from orchestra.providers.postgres import PostgresProvider
from orchestra.store.port import Provider
from orchestra.testing.postgres import postgres_server

TABLES = ("instance", "instance_detail", "execution", "event")
SCHEMA = "orchestra"
SETTLE = 15.0
"""Seconds after the start before the time counts: longer than a lease."""
HOLD = '{"kind":3,"detail":"held by a bench","since":1,"by":"bench","tried":["other code"]}'

Execute = Callable[[str], object]


async def wait(ctx: OrchestrationContext, _: int) -> None:
    await ctx.wait_for_event("never")


REGISTRY = OrchestrationRegistry.builder().register("wait", wait).build()


async def park(provider: Provider) -> None:
    """Park the instance that all others are copies of."""
    async with Runtime(provider, REGISTRY, max_owned=1, grace=timedelta(seconds=1)) as runtime:
        await runtime.client.start("wait", 1, instance_id="template")
        while (await runtime.client.get_instance_info("template")).waiting_on is None:  # noqa: ASYNC110 - no event tells it
            await anyio.sleep(0.05)


def copy(execute: Execute, columns: dict[str, list[str]], numbers: str) -> None:
    """Copy all rows of the template."""
    for table, names in columns.items():
        values = ["'i-' || g.n" if name == "instance_id" else f"t.{name}" for name in names]
        execute(
            f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} "
            f"FROM {table} t, {numbers} WHERE t.instance_id = 'template'"
        )


def fill_sqlite(path: Path, parked: int) -> Execute:
    """Copy the template in a file; return what runs further statements on it."""

    def execute(statement: str) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)

    with closing(sqlite3.connect(path)) as connection:
        columns = {
            table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            for table in TABLES
        }
    numbers = f"(WITH RECURSIVE g (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < {parked}) SELECT n FROM g) g"
    copy(execute, columns, numbers)
    return execute


def fill_postgres(dsn: str, parked: int) -> Execute:
    """Copy the template on a server; return what runs further statements on it."""

    def execute(statement: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"SET search_path TO {SCHEMA}".encode())
            connection.execute(statement.encode())

    with psycopg.connect(dsn) as connection:
        named = (
            "SELECT column_name FROM information_schema.columns WHERE table_schema = %s "
            "AND table_name = %s AND is_generated = 'NEVER' ORDER BY ordinal_position"
        )
        columns = {
            table: [row[0] for row in connection.execute(named, (SCHEMA, table))]
            for table in TABLES
        }
    copy(execute, columns, f"generate_series(1, {parked}) AS g (n)")
    execute("VACUUM ANALYZE")
    return execute


def postmaster_of(dsn: str) -> int:
    """Return the first process of a server on this machine."""
    with psycopg.connect(dsn) as connection:
        return int(stat(connection.info.backend_pid)[1])


def stat(pid: int) -> list[str]:
    """Return what Linux says of a process, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def server_seconds(postmaster: int | None) -> float:
    """Return the processor time of a server's living processes; 0 without a server."""
    ticks = 0
    for entry in Path("/proc").iterdir() if postmaster is not None else ():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended
                values = stat(int(entry.name))
                if postmaster in (int(entry.name), int(values[1])):
                    ticks += int(values[11]) + int(values[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def idle(what: str, provider: Provider, seconds: float, postmaster: int | None) -> None:
    """Start a node, and measure while it waits."""
    begun = time.perf_counter()
    async with Runtime(provider, REGISTRY):
        started = time.perf_counter() - begun
        await anyio.sleep(SETTLE)
        own, server = time.process_time(), server_seconds(postmaster)
        await anyio.sleep(seconds)
        own = time.process_time() - own
        server = server_seconds(postmaster) - server
    print(
        f"| {what:<40} | {started:6.2f} s | {own * 1e3:8.0f} ms | {server * 1e3:8.0f} ms |",
        flush=True,
    )


async def measure(
    make: Callable[[], Provider],
    fill: Callable[[int], Execute],
    arguments: argparse.Namespace,
    postmaster: int | None = None,
) -> None:
    """Measure with one, with many, and with many held."""
    served, seconds = postmaster is not None, arguments.seconds
    store = "PostgreSQL" if served else "SQLite"
    await park(make())
    await idle(f"{store}, 1 parked", make(), seconds, postmaster)
    execute = fill(arguments.parked)
    await idle(f"{store}, {arguments.parked:,} parked", make(), seconds, postmaster)
    hold = f"CAST('{HOLD}' AS BLOB)" if not served else f"convert_to('{HOLD}', 'UTF8')"
    some = f"(SELECT instance_id FROM instance LIMIT {arguments.held})"
    execute(f"UPDATE instance_detail SET hold = {hold} WHERE instance_id IN {some}")
    execute(f"UPDATE instance SET held = {'true' if served else '1'} WHERE instance_id IN {some}")
    await idle(f"{store}, {arguments.held:,} of them held", make(), seconds, postmaster)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parked", type=int, default=1_000_000)
    parser.add_argument("--held", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--directory", type=Path, default=None)
    arguments = parser.parse_args()
    print("| | starts in | node | server |\n|---|---:|---:|---:|")
    if arguments.store == "postgres":
        with postgres_server() as server:
            anyio.run(
                lambda: measure(
                    lambda: PostgresProvider(server.dsn),
                    lambda parked: fill_postgres(server.dsn, parked),
                    arguments,
                    postmaster_of(server.dsn),
                )
            )
        return
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        path = Path(folder) / "store.db"
        anyio.run(
            lambda: measure(
                lambda: SqliteProvider(path),
                lambda parked: fill_sqlite(path, parked),
                arguments,
            )
        )


if __name__ == "__main__":
    main()
