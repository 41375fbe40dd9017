"""Measures what schedules cost while they wait, and how fast many slots of one second start.

    python ops/bench/schedules.py [--waiting N] [--slots N] [--seconds S] [--store sqlite|postgres]

First a runtime idles on an empty store, then on one with N schedules that wait: the processor time
of both is compared, and the reads and writes of the second are counted. Then N schedules have their
slot in the same second: the time from the slot to the last start is measured, as each instance's
row tells it. All with full durability.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from orchestra import (
    At,
    Every,
    OrchestrationContext,
    OrchestrationRegistry,
    Runtime,
    Schedule,
    SqliteProvider,
    Start,
)
from orchestra.providers.postgres import PostgresProvider
from orchestra.store.port import Provider
from orchestra.testing.postgres import postgres_server

FAR = datetime(2100, 1, 1, tzinfo=UTC)


async def nothing(_: OrchestrationContext, state: int) -> int:
    return state


REGISTRY = OrchestrationRegistry.builder().register("nothing", nothing).build()


class Counting:
    """A store whose calls are counted."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls[name] += 1
            return method(*arguments, **named)

        return call


@contextmanager
def places(only: str | None, directory: Path) -> Iterator[list[tuple[str, str]]]:
    if only == "sqlite":
        yield [("SQLite", str(directory / "schedules.db"))]
        return
    with postgres_server() as server:
        found = [("PostgreSQL", server.dsn)]
        yield found if only else [("SQLite", str(directory / "schedules.db")), *found]


def store(place: str, schema: str) -> Provider:
    if "=" in place or "://" in place:
        return PostgresProvider(place, schema)
    return SqliteProvider(f"{place}.{schema}")


async def create(client: Any, schedules: list[Schedule]) -> float:
    begun = time.monotonic()
    async with anyio.create_task_group() as group:
        limiter = anyio.CapacityLimiter(64)

        async def one(schedule: Schedule) -> None:
            async with limiter:
                await client.schedules.create(schedule)

        for schedule in schedules:
            group.start_soon(one, schedule)
    return time.monotonic() - begun


async def idle(place: str, number: int, seconds: float) -> tuple[float, Counter[str]]:
    """Return the processor seconds that a second of waiting costs, and the calls of the store."""
    provider = store(place, f"waiting{number}")
    counting = Counting(provider.store)
    provider.store = counting
    async with Runtime(provider, REGISTRY) as runtime:
        waits = [
            Schedule(f"s{one}", Every(timedelta(hours=1)), Start("nothing", one), start_at=FAR)
            for one in range(number)
        ]
        await create(runtime.client, waits)
        await anyio.sleep(2)
        counting.calls.clear()
        begun = time.process_time()
        await anyio.sleep(seconds)
        return (time.process_time() - begun) / seconds, Counter(counting.calls)


async def burst(place: str, number: int) -> tuple[float, float, float]:
    """Return the seconds of creation, and those from the slot to the last start and end."""
    async with Runtime(store(place, "burst"), REGISTRY) as runtime:
        client = runtime.client
        far = [Schedule(f"s{one}", At(FAR), Start("nothing", one)) for one in range(number)]
        created = await create(client, far)
        at = datetime.now(UTC) + timedelta(seconds=2 + 2 * created)
        await create_updates(client, number, at)
        late = (datetime.now(UTC) - at).total_seconds()
        assert late < 0, f"the updates took {late:.1f} s too long"
        with anyio.fail_after(120):
            while (await client.count_instances(status="completed")).total < number:  # noqa: ASYNC110
                await anyio.sleep(0.1)
        begun: list[datetime] = []
        ended: list[datetime] = []
        page = None
        while True:
            found = await client.list_instances(limit=1000, page=page)
            for info in found.items:
                begun.append(info.created_at)
                assert info.completed_at is not None
                ended.append(info.completed_at)
            page = found.next_page
            if page is None:
                break
        assert len(begun) == number
        return created, (max(begun) - at).total_seconds(), (max(ended) - at).total_seconds()


async def create_updates(client: Any, number: int, at: datetime) -> None:
    async with anyio.create_task_group() as group:
        for one in range(number):
            schedule = Schedule(f"s{one}", At(at), Start("nothing", one))
            group.start_soon(client.schedules.update, schedule)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--store", choices=("sqlite", "postgres"))
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        places(arguments.store, Path(directory)) as found,
    ):
        for name, place in found:
            empty, _ = anyio.run(idle, place, 0, arguments.seconds)
            waiting, calls = anyio.run(idle, place, arguments.waiting, arguments.seconds)
            print(
                f"{name}: idle {1000 * empty:.1f} ms/s of processor; with {arguments.waiting:,} "
                f"schedules waiting {1000 * waiting:.1f} ms/s; "
                f"calls in {arguments.seconds:g} s: {dict(calls)}",
                flush=True,
            )
            created, started, ended = anyio.run(burst, place, arguments.slots)
            print(
                f"{name}: {arguments.slots:,} schedules made in {created:.2f} s; all slots of one "
                f"second started after {started:.2f} s, all runs ended after {ended:.2f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
