"""A campaign of instances that publish from their turns and their activities, and keep journals,
while workers are killed (scenario 76).
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import anyio

from orchestra.testing.postgres import PostgresServer
from tests.support.crashes.campaigns import (
    Outcome,
    client_of,
    finish,
    kill_and_replace,
    verdict,
)
from tests.support.crashes.processes import Workforce
from tests.support.crashes.servers import served
from tests.support.crashes.stores import Store, rows_of
from tests.support.crashes.traffic import Traffic

AT_ONCE = 6

COUNTS = {
    "items": "SELECT count(*) FROM stream_item",
    "items of attempts that were repeated": """
        SELECT count(*) FROM stream_item i WHERE EXISTS (
            SELECT 1 FROM stream_item l WHERE l.instance_id = i.instance_id AND l.stream = i.stream
            AND l.execution = i.execution AND l.event_id = i.event_id AND l.attempt > i.attempt)""",
}


async def talking_campaign(folder: Path, seed: int, cycles: int) -> Outcome:
    """Kill the worker that runs, again and again, in the middle of its items and steps."""
    return await _talk(folder / "store.db", seed, cycles)


async def served_talking_campaign(
    folder: Path, seed: int, cycles: int, server: PostgresServer
) -> Outcome:
    """The same on a server."""
    with served(folder, server) as store:
        return await _talk(store, seed, cycles)


async def _talk(store: Store, seed: int, cycles: int) -> Outcome:
    random = Random(seed)
    outcome = Outcome()
    with Workforce(store) as workforce:
        async with client_of(store) as client:
            traffic = Traffic(client, Random(random.random()), may_be_alone=True)
            first = await workforce.begin()
            await first.ready()
            async with anyio.create_task_group() as group:
                group.start_soon(_keep_talking, traffic)
                await kill_and_replace(workforce, random, cycles, first, outcome)
                traffic.stopping = True
            await finish(workforce, traffic, outcome)
        verdict(store, workforce, traffic.promises, outcome, code="old")
    for what, count in COUNTS.items():
        outcome.counts[what] += rows_of(store, count)[0][0]
    return outcome


async def _keep_talking(traffic: Traffic) -> None:
    while not traffic.stopping:
        if len(traffic.open_instances()) < AT_ONCE:
            await traffic.start_radio()
        else:
            await anyio.sleep(0.02)
