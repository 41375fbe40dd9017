"""Campaigns on a PostgreSQL server: workers are killed and stopped, connections and the server
itself go away.
"""

from __future__ import annotations

import signal
import time
from bisect import bisect_left
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import anyio
import anyio.to_thread
import psycopg

from orchestra.clock import new_id
from orchestra.testing.postgres import PostgresServer
from tests.support.crashes.campaigns import (
    MARGIN,
    Outcome,
    client_of,
    finish,
    node_of,
    note_writes_of_buried,
    owned,
    verdict,
)
from tests.support.crashes.deploys import roll
from tests.support.crashes.processes import Worker, Workforce, read_lines, until
from tests.support.crashes.proxy import WAYS, proxied
from tests.support.crashes.stores import Served
from tests.support.crashes.traffic import Promises, Traffic
from tests.support.crashes.worker import STOP_INSIDE

LEASE = 2.0
LOCK = 0.4
STATEMENT = 0.8
"""Seconds; of workers that are stopped, or whose connections fall silent."""

SERVED_OPTIONS = {"lease": LEASE, "busy": LOCK, "statement": STATEMENT}
SERVED_STOPS = ("inside a transaction", "with a write in hand", "anywhere")
"""Where a worker is stopped."""

WORKERS = 3

MOST_COMPLAINTS = 6
"""Lines that a worker may log in an outage, however long that is."""

_WINDOW = 500_000
_BEFORE = 2_000_000
_ENOUGH = 0.8


@contextmanager
def served(folder: Path, server: PostgresServer) -> Generator[Served]:
    """Give a store of its own on a server. It is dropped, unless the campaign breaks off."""
    store = Served(folder, server.dsn, f"crash_{new_id()}")
    yield store
    with psycopg.connect(store.dsn, autocommit=True) as connection:
        connection.execute(f'DROP SCHEMA "{store.schema}" CASCADE'.encode())


@asynccontextmanager
async def under_load(
    store: Served, workforce: Workforce, random: Random, outcome: Outcome
) -> AsyncGenerator[list[Worker]]:
    """Give workers with a client that goes on sending, until the body is left; let everything end
    then, and judge.
    """
    async with client_of(store) as client:
        traffic = Traffic(client, Random(random.random()))
        workers = [await workforce.begin() for _ in range(WORKERS)]
        for worker in workers:
            await worker.ready()
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: traffic.work(listeners=4, at_once=16))
            await until(lambda: all(worker.granted > 10 for worker in workers), "everybody works")
            yield workers
            traffic.stopping = True
        await finish(workforce, traffic, outcome)
    verdict(store, workforce, traffic.promises, outcome, code="old")


# --- kill -9 ----------------------------------------------------------------------------------


async def served_kill_campaign(
    folder: Path, seed: int, cycles: int, server: PostgresServer, quiet: float = 2.5
) -> Outcome:
    """Kill one of three workers, again and again. Every other time the next kill waits until this
    one's work goes on, and some ``quiet`` seconds more: recovery is measured against the two
    seconds before a kill.
    """
    random = Random(seed)
    outcome = Outcome()
    calm: list[int] = []
    with served(folder, server) as store, Workforce(store, intake=True) as workforce:
        async with under_load(store, workforce, random, outcome) as workers:
            for cycle in range(cycles):
                await anyio.sleep(random.random() ** 2 * 0.8)
                victim = workers.pop(random.randrange(WORKERS))
                node_id = node_of(store, victim)
                killed = time.time_ns() // 1000
                await victim.kill()
                successor = await workforce.begin()
                workers.append(successor)
                await successor.ready()
                outcome.counts["kills"] += 1
                if cycle % 2 == 0 and node_id is not None:
                    await until(
                        lambda node_id=node_id: not owned(store, node_id),
                        f"{victim.name} is taken over",
                    )
                    outcome.measure(
                        "seconds until all that the dead one owned was taken over", _since(killed)
                    )
                    await anyio.sleep(quiet)
                    calm.append(killed)
        _measure_recovery(workforce, calm, outcome)
    return outcome


async def served_last_kill_campaign(
    folder: Path, seed: int, cycles: int, server: PostgresServer
) -> Outcome:
    """Kill one of two workers when there is nothing left to do, and send the other one home at
    once.
    """
    outcome = Outcome()
    with served(folder, server) as store, Workforce(store, lease=LEASE) as workforce:
        async with client_of(store) as client:
            for _ in range(cycles):
                victim, survivor = await workforce.begin(), await workforce.begin()
                await victim.ready()
                await survivor.ready()
                await victim.kill()
                outcome.counts["kills"] += 1
                await finish(workforce, Traffic(client, Random(seed)), outcome)
        (folder / "ledger").touch()
        verdict(store, workforce, Promises(), outcome, code="old")
    return outcome


def _since(moment: int) -> float:
    return (time.time_ns() // 1000 - moment) / 1e6


def _measure_recovery(workforce: Workforce, kills: list[int], outcome: Outcome) -> None:
    """Measure from each kill to the first half second in which 0.8 of the writes of the two seconds
    before are made again.
    """
    moments = sorted(
        line[5] for worker in workforce.all for line in read_lines(worker.writes) if line[4]
    )

    def count(start: int, length: int) -> int:
        return bisect_left(moments, start + length) - bisect_left(moments, start)

    for killed in kills:
        wanted = count(killed - _BEFORE, _BEFORE) * _WINDOW / _BEFORE * _ENOUGH
        recovered = next(
            (
                at
                for at in range(killed, killed + 10_000_000, 20_000)
                if count(at, _WINDOW) >= wanted
            ),
            None,
        )
        if recovered is not None:
            outcome.measure("seconds until throughput had recovered", (recovered - killed) / 1e6)
        else:
            outcome.counts["throughput not recovered in 10 s"] += 1


# --- SIGSTOP ----------------------------------------------------------------------------------


async def served_pause_campaign(
    folder: Path, seed: int, cycles: int, server: PostgresServer
) -> Outcome:
    """Stop one of three workers beyond its lease: anywhere, with a write in its hands, or in a
    transaction that holds locks.

    The others wait for such locks no longer than the server lets a transaction idle. What the
    stopped one writes when it goes on is refused.
    """
    random = Random(seed)
    outcome = Outcome()
    options = {**SERVED_OPTIONS, "intake": True}
    with served(folder, server) as store, Workforce(store, **options) as workforce:
        async with under_load(store, workforce, random, outcome) as workers:
            for cycle in range(cycles):
                await anyio.sleep(0.2 + random.random() * 0.3)
                random.shuffle(workers)
                how = SERVED_STOPS[cycle % len(SERVED_STOPS)]
                await pause_served(store, workers[0], workers[1:], outcome, how)
    return outcome


async def pause_served(
    store: Served, victim: Worker, others: list[Worker], outcome: Outcome, how: str
) -> None:
    """Stop a worker, as ``SERVED_STOPS`` says, until the others have taken over and gone on."""
    await until(lambda: node_of(store, victim), f"worker {victim.name} is a node")
    node_id = node_of(store, victim)
    number = {
        "inside a transaction": STOP_INSIDE,
        "with a write in hand": signal.SIGUSR1,
        "anywhere": signal.SIGSTOP,
    }[how]
    victim.signal(number)
    await until(lambda: victim.is_stopped, f"worker {victim.name} stops {how}")
    stopped = time.time_ns() // 1000
    written = sum(1 for _ in read_lines(victim.writes))
    try:
        await until(
            lambda: node_of(store, victim) is None and not owned(store, node_id),
            f"{victim.name} is taken over",
        )
        before = [other.granted for other in others]
        await until(
            lambda: all(other.granted > count for other, count in zip(others, before, strict=True)),
            "the others go on",
        )
    finally:
        since = time.time_ns() // 1000
        victim.signal(signal.SIGCONT)
    await until(lambda: node_of(store, victim), f"worker {victim.name} is a node again")
    outcome.counts[f"stopped {how}"] += 1
    note_writes_of_buried(victim, written, node_id, since, outcome)
    for other in others:
        moments = [
            line[5] for line in read_lines(other.writes) if line[4] and stopped <= line[5] <= since
        ]
        gaps = [
            after - before
            for before, after in zip([stopped, *moments], [*moments, since], strict=True)
        ]
        longest = max(gaps) / 1e6
        outcome.measure(f"longest seconds without a write of another one, stopped {how}", longest)
        if longest > STATEMENT + LOCK + MARGIN:
            outcome.problems.append(
                f"worker {other.name} wrote nothing for {longest:.1f} s while {victim.name} was "
                f"stopped {how}"
            )


# --- connections ------------------------------------------------------------------------------


async def served_termination_campaign(
    folder: Path, seed: int, cycles: int, server: PostgresServer
) -> Outcome:
    """Terminate any connection of workers and clients, at any moment, now and then all at once."""
    random = Random(seed)
    outcome = Outcome()
    with served(folder, server) as store, Workforce(store, intake=True) as workforce:
        async with under_load(store, workforce, random, outcome):
            with psycopg.connect(store.dsn, autocommit=True) as connection:
                done = 0
                while done < cycles:
                    await anyio.sleep(random.random() ** 2 * 0.3)
                    asked = (
                        "SELECT pid, state FROM pg_stat_activity WHERE application_name = "
                        "'orchestra'"
                    )
                    found = connection.execute(asked).fetchall()
                    chosen = (
                        found
                        if random.random() < 0.05
                        else random.sample(found, min(1, len(found)))
                    )
                    for pid, state in chosen[: cycles - done]:
                        ended = connection.execute(
                            "SELECT pg_terminate_backend(%s)", (pid,)
                        ).fetchone()
                        if ended and ended[0]:
                            done += 1
                            outcome.counts[f"terminated {state or 'beginning'}"] += 1
        outcome.counts.update(
            f"told {name}" for worker in workforce.all for name in worker.refusals
        )
    return outcome


async def served_proxy_campaign(
    folder: Path, seed: int, cycles: int, server: PostgresServer
) -> Outcome:
    """Lose a COMMIT or its answer, or let the way fall silent there: one effect, and everybody goes
    on within a bound.
    """
    random = Random(seed)
    outcome = Outcome()
    options = {"busy": LOCK, "statement": STATEMENT, "intake": True}
    with served(folder, server) as store, proxied(store.dsn) as proxy:
        store = replace(store, workers_dsn=proxy.dsn)
        with Workforce(store, **options) as workforce:
            async with under_load(store, workforce, random, outcome) as workers:
                for cycle in range(cycles):
                    await anyio.sleep(0.1 + random.random() * 0.3)
                    way = WAYS[cycle % len(WAYS)]
                    struck = proxy.struck
                    proxy.arm(way)
                    await until(lambda struck=struck: proxy.struck > struck, f"{way}")
                    outcome.counts[way] += 1
                    began = time.monotonic()
                    before = {worker: worker.granted for worker in workers}
                    await until(
                        lambda before=before: all(
                            one.granted > count for one, count in before.items()
                        ),
                        "all go on",
                    )
                    outcome.measure(f"seconds until all went on, {way}", time.monotonic() - began)
            outcome.counts.update(
                f"told {name}" for worker in workforce.all for name in worker.refusals
            )
    return outcome


# --- the server -------------------------------------------------------------------------------


async def served_restart_campaign(
    folder: Path,
    seed: int,
    cycles: int,
    server: PostgresServer,
    longest: float = 3.0,
    shortest: float = 0.0,
) -> Outcome:
    """Restart the server at once, as a crash does or in order; every other time it is away for a
    while before it comes back.
    """
    random = Random(seed)
    outcome = Outcome()
    with served(folder, server) as store, Workforce(store, intake=True) as workforce:
        async with under_load(store, workforce, random, outcome) as workers:
            for cycle in range(cycles):
                await anyio.sleep(0.3 + random.random())
                crash = cycle % 3 != 2
                away = random.uniform(shortest, longest) if cycle % 2 or shortest else 0.0
                await _restart(server, workers, outcome, crash=crash, away=away)
        outcome.counts.update(
            f"told {name}" for worker in workforce.all for name in worker.refusals
        )
    return outcome


async def _restart(
    server: PostgresServer, workers: list[Worker], outcome: Outcome, *, crash: bool, away: float
) -> None:
    complaints = {worker: len(worker.complaints) for worker in workers}
    used = {worker: worker.processor_seconds for worker in workers}
    await anyio.to_thread.run_sync(lambda: server.stop(crash=crash))
    await anyio.sleep(away)
    for worker, before in used.items():
        if away >= 2 and worker.processor_seconds - before > away / 2:
            outcome.problems.append(f"worker {worker.name} spins while the server is away")
    await anyio.to_thread.run_sync(server.start)
    began = time.monotonic()
    before = {worker: worker.granted for worker in workers}
    await until(
        lambda: all(worker.granted > count for worker, count in before.items()),
        "all go on after a restart",
    )
    outcome.measure("seconds until all went on after the server's return", time.monotonic() - began)
    outcome.counts["immediate" if crash else "fast"] += 1
    outcome.counts["seconds away"] += round(away)
    for worker, count in complaints.items():
        said = worker.complaints[count:]
        outcome.measure("lines logged by a worker in an outage", len(said))
        if len(said) > MOST_COMPLAINTS:
            outcome.problems.append(f"worker {worker.name} floods its log: {said[:20]}")


# --- a rolling deploy -------------------------------------------------------------------------


async def served_rolling_campaign(
    folder: Path, seed: int, cycles: int, server: PostgresServer
) -> Outcome:
    """The campaign of ``deploys``, on a server."""
    with served(folder, server) as store:
        return await roll(store, seed, cycles)
