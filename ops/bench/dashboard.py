"""Measures the dashboard: what open pages cost a quiet runtime, and how soon pages open on large stores.

    python ops/bench/dashboard.py [--pages 20] [--seconds 20] [--parked 1000000] [--laps 1000000]

The first figure is the processor time of a process with a runtime on a SQLite file and the dashboard,
with ``--pages`` open event streams of different pages, less that without them. The second ones are the
median times of pages over ``--parked`` instances and over a loop of ``--laps`` laps, which are put into
the tables directly. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import resource
import socket
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import anyio
import httpx
import uvicorn

from orchestra import OrchestrationContext, OrchestrationRegistry, Runtime, SqliteProvider
from orchestra.web import create_app

VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "2.0.0")
TOPICS = ("overview", "held", "nodes", "audit", "versions", "list:status=live", "schedules")
LOOP = "loop"
SEPARATE = 10**15

INSTANCE = """
    INSERT INTO instance (
        instance_id, incarnation, kind, revision, wake_at, status, held, inbox_seq, seen_seq, execution, opened,
        takeovers, history_events, history_bytes, created_at, updated_at, summary, boundary_due)
    VALUES (?, 'a', ?, 1, 100000000000000000, 0, 0, 0, 0, ?, 1, 0, 1, 1, ?, ?, x'', ?)"""
DETAIL = "INSERT INTO instance_detail (instance_id, request_id, created_by) VALUES (?, '', 'n')"
EXECUTION = """
    INSERT INTO execution (
        instance_id, execution, name, version, version_key, resolved_how, resolved_by, policy_revision, state,
        state_encoding, created_at, fingerprint, opened_at, closed_at, end_kind, event_count, byte_count)
    VALUES (?, ?, 'watch', ?, '', 'policy', 'n', 1, x'31', 1, ?, 'f', ?, ?, ?, 1, 1)"""


async def watch(ctx: OrchestrationContext, number: int) -> None:
    """A loop that waits for a year."""
    await ctx.schedule_timer(timedelta(days=365))
    ctx.continue_as_new(number + 1)


def registry() -> OrchestrationRegistry:
    """Return four versions of the loop."""
    builder = OrchestrationRegistry.builder()
    for version in VERSIONS:
        builder.register("watch", watch, version=version)
    builder.set_boundary("watch", due=timedelta(days=400))
    return builder.build()


def park(path: Path, parked: int, laps: int) -> None:
    """Put parked instances, and a loop of many laps, into the tables."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    kinds = dict(
        connection.execute(
            "SELECT version, kind_id FROM kind WHERE name = 'watch' AND NOT floating"
        )
    )
    base = 1_767_225_600_000_000

    def names() -> Iterator[tuple[str, str, int]]:
        for number in range(parked):
            yield f"parked-{number:07}", VERSIONS[number % 4], base + number
        yield LOOP, VERSIONS[3], base + parked

    connection.execute("BEGIN")
    connection.executemany(
        INSTANCE,
        (
            (name, kinds[version], laps if name == LOOP else 1, at, at, at + SEPARATE)
            for name, version, at in names()
        ),
    )
    connection.executemany(DETAIL, ((name,) for name, _, _ in names()))
    connection.executemany(
        EXECUTION,
        ((name, 1, version, at, at, None, None) for name, version, at in names() if name != LOOP),
    )
    connection.executemany(
        EXECUTION,
        (
            (LOOP, lap, VERSIONS[lap * 4 // (laps + 1)], base + lap, base + lap, base + lap + 1, 4)
            for lap in range(1, laps)
        ),
    )
    connection.execute(EXECUTION, (LOOP, laps, VERSIONS[3], base + laps, base + laps, None, None))
    connection.execute("COMMIT")
    connection.execute("ANALYZE")
    connection.close()


async def time_pages(runtime: Runtime, repeat: int) -> None:
    """Print the median time of each page."""
    transport = httpx.ASGITransport(create_app(runtime.client), client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        for path in (
            "/", "/instances", "/instances?name=watch&version=2.0.0", "/instances?held=any",
            f"/instances/{LOOP}", f"/instances/{LOOP}?lap=500", "/held", "/boundaries", "/versions",
            "/schedules", "/nodes", "/audit",
        ):  # fmt: skip
            times: list[float] = []
            for _ in range(repeat):
                begun = time.perf_counter()
                answer = await http.get(path)
                times.append(time.perf_counter() - begun)
                assert answer.status_code == 200, answer.text
            print(
                f"{path:40} {statistics.median(times) * 1000:7.1f} ms  {len(answer.content):>8,} bytes"
            )


def used() -> float:
    """Return the processor seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def time_quiet(runtime: Runtime, pages: int, seconds: float) -> None:
    """Print what open event streams cost while nothing happens."""
    for number in range(pages):
        await runtime.client.start("watch", number, instance_id=f"w-{number}")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(create_app(runtime.client), log_level="error"))
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listener])
            await anyio.sleep(2)
            begun = used()
            await anyio.sleep(seconds)
            alone = used() - begun
            connections = await anyio.to_thread.run_sync(_follow, port, pages)
            await anyio.sleep(2)
            begun = used()
            await anyio.sleep(seconds)
            watched = used() - begun
            for connection in connections:
                connection.close()
            server.should_exit = True
    cost = (watched - alone) / seconds * 100
    print(
        f"{pages} pages, {seconds:.0f} s: {watched / seconds * 100:.2f} % of a core with them, "
        f"{alone / seconds * 100:.2f} % without; they cost {cost:.2f} %"
    )


def _follow(port: int, pages: int) -> list[socket.socket]:
    """Open event streams: half of them of instances, the others of all other pages."""
    connections: list[socket.socket] = []
    for number in range(pages):
        topic = f"instance:w-{number}" if number % 2 else TOPICS[number // 2 % len(TOPICS)]
        connection = socket.create_connection(("127.0.0.1", port))
        asked = f"GET /changes?topic={quote(topic)} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
        connection.sendall(asked.encode())
        assert b"200 OK" in connection.recv(4096)
        threading.Thread(target=_drain, args=(connection,), daemon=True).start()
        connections.append(connection)
    return connections


def _drain(connection: socket.socket) -> None:
    try:
        while connection.recv(4096):
            pass
    except OSError:
        pass


async def measure(options: argparse.Namespace) -> None:
    """Measure on two new files."""
    with tempfile.TemporaryDirectory() as folder:
        async with Runtime(SqliteProvider(Path(folder) / "quiet.db"), registry()) as runtime:
            await time_quiet(runtime, options.pages, options.seconds)
        path = Path(folder) / "large.db"
        async with Runtime(SqliteProvider(path), registry()) as runtime:
            for version in VERSIONS:
                await runtime.client.start("watch", 1, version=version)
            held = await runtime.client.start("watch", 1)
            await held.hold(reason="for the page of held instances")
        begun = time.perf_counter()
        park(path, options.parked, options.laps)
        print(
            f"({options.parked:,} parked, {options.laps:,} laps: made in {time.perf_counter() - begun:.0f} s)"
        )
        async with Runtime(SqliteProvider(path), registry()) as runtime:
            await time_pages(runtime, options.repeat)


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--parked", type=int, default=1_000_000)
    parser.add_argument("--laps", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=5)
    anyio.run(measure, parser.parse_args())


if __name__ == "__main__":
    main()
