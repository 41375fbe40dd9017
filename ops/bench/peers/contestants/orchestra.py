"""orchestra, from this checkout."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import anyio
import psycopg

from ops.bench.peers.interface import CHAIN, LEASE, STEP, TIMER, Contestant, Kind, Marks, Place
from orchestra import (
    Client,
    Limits,
    OrchestrationContext,
    OrchestrationRegistry,
    Runtime,
    SqliteProvider,
    activity,
)
from orchestra.providers.postgres import PostgresProvider
from orchestra.store.port import Provider

PATIENCE = timedelta(minutes=10)
TEMPLATE = "template"


@dataclass(frozen=True)
class Lap:
    """The state of ``loop``."""

    laps: int
    number: int = 0


@activity
async def echo(value: int) -> int:
    return value


@activity
async def stamp() -> float:
    return time.time()


async def hello(ctx: OrchestrationContext, value: int) -> int:
    return await ctx.schedule_activity(echo, value)


async def fan(ctx: OrchestrationContext, count: int) -> int:
    return len(await ctx.gather(*(ctx.schedule_activity(echo, number) for number in range(count))))


async def loop(ctx: OrchestrationContext, state: Lap) -> int:
    done = await ctx.schedule_activity(echo, state.number + 1)
    if done == state.laps:
        return done
    ctx.continue_as_new(Lap(state.laps, done))


async def sequence(ctx: OrchestrationContext, steps: int) -> int:
    for step in range(steps):
        await ctx.schedule_activity(echo, step)
    return steps


async def timer(ctx: OrchestrationContext, _number: int) -> tuple[float, float]:
    before = await ctx.schedule_activity(stamp)
    await ctx.schedule_timer(timedelta(seconds=TIMER))
    return before, await ctx.schedule_activity(stamp)


async def park(ctx: OrchestrationContext, _number: int) -> None:
    await ctx.schedule_activity("arrive")
    await ctx.wait_for_event("go")


async def chain(ctx: OrchestrationContext, name: str) -> None:
    for _ in range(CHAIN):
        await ctx.schedule_activity("note", name)


def build() -> OrchestrationRegistry:
    """Return the registry."""
    builder = OrchestrationRegistry.builder()
    for function in (hello, fan, loop, sequence, timer, park, chain):
        builder.register(function.__name__, function)
    return builder.build()


class Orchestra(Contestant):
    """A runtime with its client; or a client alone."""

    def __init__(self, place: Place, marks: Marks) -> None:
        super().__init__(place, marks)
        self._stack = AsyncExitStack()
        self.client: Client

    def provider(self) -> Provider:
        """Return the store."""
        durability = "relaxed" if self.place.durability == "relaxed" else "full"
        if self.place.store.endswith(".db"):
            return SqliteProvider(self.place.store, durability=durability)
        return PostgresProvider(self.place.store, durability=durability)

    async def open(self, *, work: bool = True) -> None:
        if not work:
            self.client = await self._stack.enter_async_context(Client(self.provider()))
            return

        @activity
        async def arrive() -> int:
            return self.marks.arrive()

        @activity
        async def note(name: str) -> str:
            self.marks.note(name)
            await anyio.sleep(STEP)
            return name

        runtime = Runtime(
            self.provider(),
            build(),
            [echo, stamp, arrive, note],
            limits=Limits(max_events=1_000_000),
            max_concurrent_activities=max(256, self.place.chains),
            lease=timedelta(seconds=LEASE),
        )
        self.client = (await self._stack.enter_async_context(runtime)).client

    async def close(self) -> None:
        await self._stack.aclose()

    async def call(self, kind: Kind, value: Any) -> Any:
        handle = await self.client.start(kind, Lap(value) if kind == "loop" else value)
        return await handle.result(timeout=PATIENCE)

    async def begin_all(self, kind: Kind, values: Sequence[Any]) -> None:
        async with anyio.create_task_group() as group:
            for value in values:
                group.start_soon(self.client.start, kind, value)

    async def multiply(self, count: int) -> None:
        """Park one, and copy its rows with SQL, without waiting for the disk."""
        await self.client.start("park", 0, instance_id=TEMPLATE)
        async for info in self.client.watch(TEMPLATE):
            if info.waiting_on:
                break
        await self.close()
        copy = _copy_sqlite if self.place.store.endswith(".db") else _copy_postgres
        await anyio.to_thread.run_sync(copy, self.place.store, count)
        self._stack = AsyncExitStack()
        await self.open()


def _copy_sqlite(path: str, count: int) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous=OFF", "cache_size=-400000", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    columns = {
        table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        for table in ("instance", "instance_detail", "execution", "event")
    }
    connection.execute("BEGIN")
    for table, names in columns.items():
        own = {
            "instance_id": "printf('parked-%07d', n)",
            "request_id": "s.request_id || n",
        }
        values = ", ".join(own.get(name, f"s.{name}") for name in names)
        connection.execute(
            "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number "
            f"WHERE n < {count}) INSERT INTO {table} ({', '.join(names)}) "
            f"SELECT {values} FROM number CROSS JOIN {table} s "
            f"WHERE s.instance_id = '{TEMPLATE}'"
        )
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _copy_postgres(dsn: str, count: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit TO off")
        schema = connection.execute(
            "SELECT table_schema FROM information_schema.tables "
            "WHERE table_name = 'instance_detail'"
        ).fetchone()
        assert schema is not None
        for table in ("instance", "instance_detail", "execution", "event"):
            names = [
                row[0]
                for row in connection.execute(
                    "SELECT column_name FROM information_schema.columns WHERE table_schema = %s "
                    "AND table_name = %s AND is_generated = 'NEVER' ORDER BY ordinal_position",
                    (schema[0], table),
                )
            ]
            own = {"instance_id": "md5(g.n::text)", "request_id": "t.request_id || g.n"}
            values = ", ".join(own.get(name, f"t.{name}") for name in names)
            statement = (
                f"INSERT INTO {schema[0]}.{table} ({', '.join(names)}) SELECT {values} "
                f"FROM {schema[0]}.{table} t, generate_series(1, {count}) AS g (n) "
                f"WHERE t.instance_id = '{TEMPLATE}'"
            )
            connection.execute(statement.encode())
