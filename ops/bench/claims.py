"""Measures the cost of a node's claim on PostgreSQL while more and more instances are parked in the
same schema.

    python ops/bench/claims.py [--parked 0 100000 1000000] [--rounds N] [--directory DIR]

The parked instances are copies, made by the server, of one that was really parked: its rows in all
tables, under ids in random order. Half of them wait for an event, half for a timer far ahead; all
are of the kind that is claimed. Filling runs without durability (``synchronous_commit=off``); the
measured calls have it. Nothing is vacuumed or analysed by hand.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from orchestra.providers.postgres import PostgresProvider
from orchestra.store.changes import Claim
from orchestra.store.executions import ExecutionDelta, Opening
from orchestra.store.outcomes import Claimed
from orchestra.store.snapshots import Snapshot
from orchestra.testing.postgres import postgres_server
from tests.support.contract.shorthand import (
    KIND,
    OTHER_KIND,
    POLICY,
    a_node,
    a_park,
    a_start,
    a_state,
    a_write,
    an_event,
    begin,
    expect,
    one,
)

SCHEMA: Final = "claims"
NODE: Final = "n1"
BATCH: Final = 16
FAR: Final = 10**17
TABLES: Final = ("instance", "instance_detail", "execution", "event")


@dataclass
class Times:
    """Seconds of each round."""

    claim: list[float] = field(default_factory=list)
    nothing: list[float] = field(default_factory=list)
    wake: list[float] = field(default_factory=list)
    owned: list[float] = field(default_factory=list)
    park: list[float] = field(default_factory=list)


def park_template(provider: PostgresProvider) -> None:
    """Start an instance, open it, record two events, and park it: what every copy is made of."""
    row = begin(provider, "template", NODE)
    opening = ExecutionDelta(
        1, opened=Opening(1, "1.0.0", "f1", 1, POLICY), events=(an_event(1), an_event(2))
    )
    one(provider, a_write(row, a_state(row, owner=None, wake_at=FAR), executions=(opening,)))


def fill(dsn: str, first: int, beyond: int) -> None:
    """Add copies of the template with these numbers."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit TO off")
        for table in TABLES:
            copy_rows(connection, table, first, beyond)


def copy_rows(connection: psycopg.Connection[Any], table: str, first: int, beyond: int) -> None:
    """Copy the template's rows of a table, each column as it stands but for the id and the due
    time.
    """
    rows = connection.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND "
        "table_name = %s AND is_generated = 'NEVER' ORDER BY ordinal_position",
        (SCHEMA, table),
    ).fetchall()
    columns = [sql.Identifier(row[0]) for row in rows]
    own = {
        "instance_id": sql.SQL("md5(g.number::text)"),
        "wake_at": sql.SQL("CASE WHEN g.number % 2 = 0 THEN t.wake_at + g.number END"),
    }
    values = [own.get(row[0], sql.SQL("t.{}").format(sql.Identifier(row[0]))) for row in rows]
    statement = sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT {values} FROM {table} t, "
        "generate_series({first}, {last}) AS g (number) WHERE t.instance_id = 'template'"
    ).format(
        table=sql.Identifier(SCHEMA, table),
        columns=sql.SQL(", ").join(columns),
        values=sql.SQL(", ").join(values),
        first=sql.Literal(first),
        last=sql.Literal(beyond - 1),
    )
    connection.execute(statement)


def timed(seconds: list[float], call: Callable[[], Any]) -> Any:
    """Call a function, and note how long it took."""
    begun = time.perf_counter()
    result = call()
    seconds.append(time.perf_counter() - begun)
    return result


def measure(provider: PostgresProvider, level: int, rounds: int) -> Times:
    """Claim due instances, find nothing, ask for the next wake, and park again, a number of
    rounds.
    """
    times = Times()
    for number in range(-3, rounds):
        round_times = times if number >= 0 else Times()  # the first ones make connections and plans
        provider.store.commit([a_start(f"due-{level}-{number}-{place}") for place in range(BATCH)])
        claimed = timed(round_times.claim, lambda: claim(provider))
        assert len(claimed) == BATCH
        timed(round_times.owned, lambda: provider.directory.count_owned([NODE]))
        assert timed(round_times.nothing, lambda: claim(provider)) == ()
        timed(round_times.wake, lambda: provider.store.next_wake((KIND, OTHER_KIND)))
        parked = [a_park(snapshot.row, FAR) for snapshot in claimed]
        timed(round_times.park, lambda parked=parked: provider.store.commit(parked))
    return times


def claim(provider: PostgresProvider) -> tuple[Snapshot, ...]:
    """Claim a batch, as a group of one change."""
    return expect(one(provider, Claim(NODE, (KIND, OTHER_KIND), BATCH)), Claimed).snapshots


def shown(seconds: list[float]) -> str:
    """Return the quickest, which other work on the machine hardly touches, and the median, in
    milliseconds.
    """
    return f"{min(seconds) * 1000:.2f} / {statistics.median(seconds) * 1000:.2f}"


def main() -> None:
    """Fill and measure, level by level, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parked",
        type=int,
        nargs="+",
        default=[0, 1_000, 10_000],
        help="how many are parked, ascending",
    )
    parser.add_argument("--rounds", type=int, default=100, help="rounds at each level")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where the server keeps its data",
    )
    options = parser.parse_args()
    measured = f"claim of {BATCH} | claim of none | next wake | count of owned | park of {BATCH}"
    print(f"| parked | filled in, s | schema, MiB | {measured} |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    with (
        postgres_server(options.directory) as server,
        closing(PostgresProvider(server.dsn, SCHEMA)) as provider,
    ):
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA))
            )
        provider.open()
        provider.store.join(a_node(NODE))
        park_template(provider)
        filled = 0
        for level in sorted(options.parked):
            begun = time.perf_counter()
            fill(server.dsn, filled, level)
            filled = max(filled, level)
            seconds = time.perf_counter() - begun
            times = measure(provider, level, options.rounds)
            with psycopg.connect(server.dsn) as connection:
                (size,) = connection.execute(
                    "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN "
                    "pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND "
                    "c.relkind = 'r'",
                    (SCHEMA,),
                ).fetchone()
            columns = [
                shown(part)
                for part in (times.claim, times.nothing, times.wake, times.owned, times.park)
            ]
            print(
                f"| {level:,} | {seconds:.0f} | {int(size) // 2**20:,} | {' | '.join(columns)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
