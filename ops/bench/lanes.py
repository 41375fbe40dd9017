"""Measures whether a second connection for groups would pay on PostgreSQL.

    python ops/bench/lanes.py [--seconds S] [--rounds N] [--directory DIR]

A lane is a connection on its own thread, in one process, that commits one group after the other.
Each group is one step of a number of instances, an event and the row, as the engine writes them,
with full durability. One lane and two alternate, so that both meet the same machine. With two, each
has its own instances.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Final

from orchestra.providers.postgres import PostgresProvider
from orchestra.store.changes import Write
from orchestra.store.executions import ExecutionDelta, Opening
from orchestra.store.instances import InstanceRow
from orchestra.store.outcomes import Granted
from orchestra.testing.postgres import postgres_server
from tests.support.contract.shorthand import (
    POLICY,
    a_node,
    a_start,
    a_state,
    a_write,
    an_event,
    claim,
)

SIZES: Final = (1, 8, 64, 256)


class Lane:
    """One connection, and the instances that it steps."""

    def __init__(self, dsn: str, name: str, size: int) -> None:
        self.provider = PostgresProvider(dsn, "lanes", notify=False)
        self.provider.open()
        self.provider.store.join(a_node(name))
        self.provider.store.commit([a_start(f"{name}-{number}") for number in range(size)])
        snapshots = claim(self.provider, name, size)
        opened = Opening(1, "1.0.0", "f1", 1, POLICY)
        self.events = 1
        writes = [
            a_write(one.row, executions=(ExecutionDelta(1, opened=opened, events=(an_event(1),)),))
            for one in snapshots
        ]
        self.rows = [replace(one.row, opened=True) for one in snapshots]
        self._commit(writes)

    def _commit(self, writes: Sequence[Write]) -> None:
        outcomes = self.provider.store.commit(writes).outcomes
        assert all(isinstance(outcome, Granted) for outcome in outcomes)
        self.rows: list[InstanceRow] = [
            replace(row, revision=row.revision + 1) for row in self.rows
        ]

    def run(self, seconds: float, done: list[int]) -> None:
        """Commit groups for so long; note how many steps that were."""
        steps, until = 0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            self.events += 1
            delta = ExecutionDelta(1, events=(an_event(self.events),))
            self._commit([a_write(row, a_state(row), executions=(delta,)) for row in self.rows])
            steps += len(self.rows)
        done.append(steps)

    def close(self) -> None:
        """Close the connection."""
        self.provider.close()


def rate(lanes: Sequence[Lane], seconds: float) -> float:
    """Return the steps a second of these lanes together."""
    done: list[int] = []
    threads = [threading.Thread(target=lane.run, args=(seconds, done)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="for each lane or pair of lanes, each time"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--directory", type=Path, help="where the server's files go")
    options = parser.parse_args()
    print("| steps in a group | one lane | two lanes | ratio |\n|---:|---:|---:|---:|")
    with postgres_server(options.directory) as server:
        for size in SIZES:
            with ExitStack() as stack:
                first, second = (
                    stack.enter_context(closing(Lane(server.dsn, f"n{size}-{one}", size)))
                    for one in (1, 2)
                )
                pairs = [
                    (rate([first], options.seconds), rate([first, second], options.seconds))
                    for _ in range(options.rounds)
                ]
            alone, both = (
                statistics.median(one for one, _ in pairs),
                statistics.median(two for _, two in pairs),
            )
            ratio = statistics.median(two / one for one, two in pairs)
            print(f"| {size} | {alone:,.0f}/s | {both:,.0f}/s | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
