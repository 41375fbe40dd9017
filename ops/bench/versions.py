"""Times a version report and a count over parked instances, on a temporary PostgreSQL server.

    python ops/bench/versions.py [--parked 1000000] [--repeat N]

The instances are put into the tables directly, as parked ones of four versions. The report must not
grow with them: it reads the numbers that the store keeps. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import statistics
import time
from datetime import timedelta

import anyio
import psycopg

from orchestra import Client, OrchestrationContext, OrchestrationRegistry, Runtime
from orchestra.providers.postgres import PostgresProvider
from orchestra.testing.postgres import postgres_server

VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "2.0.0")

PARK = """
    WITH kinds AS (
        SELECT array_agg(kind_id ORDER BY version) AS ids, array_agg(version ORDER BY version) AS versions
        FROM kind WHERE name = 'watch' AND NOT floating),
    made AS (
        INSERT INTO instance (
            instance_id, incarnation, kind, revision, owner, wake_at, status, held, inbox_seq, seen_seq, execution,
            opened, takeovers, history_events, history_bytes, created_at, updated_at, summary)
        SELECT 'parked-' || n, 'a', ids[1 + n %% 4], 1, NULL, 10::bigint ^ 17, 0, false, 0, 0, 1, true, 0, 1, 1, n, n, ''
        FROM kinds, generate_series(1, %(parked)s) n)
    INSERT INTO execution (
        instance_id, execution, name, version, version_key, resolved_how, resolved_by, policy_revision, state,
        state_encoding, created_at, fingerprint, opened_at, event_count, byte_count)
    SELECT 'parked-' || n, 1, 'watch', versions[1 + n %% 4], '', 'policy', 'n', 1, '1', 1, n, 'f', n, 1, 1
    FROM kinds, generate_series(1, %(parked)s) n"""


async def watch(ctx: OrchestrationContext, number: int) -> None:
    """A loop that waits for a year."""
    await ctx.schedule_timer(timedelta(days=365))
    ctx.continue_as_new(number + 1)


async def measure(dsn: str, parked: int, repeat: int) -> None:
    """Time the report with a few instances, and with many more."""
    builder = OrchestrationRegistry.builder()
    for version in VERSIONS:
        builder.register("watch", watch, version=version)
    async with Runtime(PostgresProvider(dsn), builder.build()) as runtime:
        for version in VERSIONS:
            await runtime.client.start("watch", 1, version=version)
        async with Client(PostgresProvider(dsn)) as client:
            await show(client, 0, repeat)
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("SET search_path TO orchestra")
                begun = time.perf_counter()
                connection.execute(PARK, {"parked": parked})
                connection.execute("VACUUM ANALYZE instance, execution")
                print(f"(made {parked:,} in {time.perf_counter() - begun:.0f} s)")
            await show(client, parked, repeat)


async def show(client: Client, parked: int, repeat: int) -> None:
    """Print the median of some reports."""
    times: list[float] = []
    live = 0
    for _ in range(repeat):
        begun = time.perf_counter()
        live = sum(version.live for version in await client.version_report())
        times.append(time.perf_counter() - begun)
    print(
        f"{parked:>10,} parked: {statistics.median(times) * 1000:6.1f} ms a report; live {live:,}"
    )


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parked", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=20)
    options = parser.parse_args()
    with postgres_server() as server:
        anyio.run(measure, server.dsn, options.parked, options.repeat)


if __name__ == "__main__":
    main()
