"""Processes that tick schedules are killed at work: each slot starts one instance (scenario 72)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import anyio
import pytest

from orchestra import At, Client, OrchestrationRegistry, Runtime, Schedule, SqliteProvider, Start
from orchestra.clock import new_id
from orchestra.providers.memory import MemoryProvider
from orchestra.providers.postgres import PostgresProvider
from orchestra.store.outcomes import Started
from orchestra.testing.checker import check_store
from tests.support.contract.schedules import a_run, a_schedule_write, a_slot
from tests.support.contract.shorthand import a_start

SLOTS = 60
STEP = timedelta(milliseconds=100)

PROGRAM = """
import sys
import anyio
from orchestra import OrchestrationRegistry, Runtime
from tests.crash.test_schedules import REGISTRY, provider_of

async def main():
    async with Runtime(provider_of(sys.argv[1], sys.argv[2]), REGISTRY):
        print("up", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


async def quick(ctx, state: int) -> int:
    return state


REGISTRY = OrchestrationRegistry.builder().register("quick", quick).build()


def provider_of(place: str, schema: str):
    if "=" in place or "://" in place:
        return PostgresProvider(place, schema)
    return SqliteProvider(place)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    if request.param == "sqlite":
        return str(tmp_path / "store.db"), ""
    return request.getfixturevalue("dsn"), f"test_{new_id()}"


@pytest.mark.campaign
@pytest.mark.slow
def test_nodes_that_are_killed_in_mid_tick_leave_each_slot_with_one_instance(place):
    random = Random(7)
    begin = datetime.now(UTC) + timedelta(seconds=3)
    spec = At(*(begin + number * STEP for number in range(SLOTS)))
    schedule = Schedule("s", spec, Start("quick", 1), overlap="allow_all", catch_up="all")
    anyio.run(_create, place, schedule)
    until = time.monotonic() + 3 + SLOTS * STEP.total_seconds()
    nodes = [_node(place), _node(place)]
    kills = 0
    while time.monotonic() < until:
        time.sleep(random.uniform(0.3, 0.9))
        victim = random.randrange(2)
        os.kill(nodes[victim].pid, signal.SIGKILL)
        nodes[victim].wait()
        nodes[victim] = _node(place)
        kills += 1
    for node in nodes:
        node.kill()
        node.wait()
    assert kills >= 5
    anyio.run(_settle, place)
    check_store(provider_of(*place), REGISTRY).raise_if_violated()


def _node(place) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *place], env=environment, text=True)


async def _create(place, schedule: Schedule) -> None:
    async with Runtime(provider_of(*place), REGISTRY) as runtime:
        await runtime.client.schedules.create(schedule)


async def _settle(place) -> None:
    """Let one node finish what the others have left, and look at what became of each slot."""
    async with Runtime(provider_of(*place), REGISTRY) as runtime:
        with anyio.fail_after(60):
            while (await runtime.client.schedules.get("s")).counters.fired < SLOTS:
                await anyio.sleep(0.1)
            while (await runtime.client.count_instances(status="completed")).total < SLOTS:
                await anyio.sleep(0.1)
    async with Client(provider_of(*place)) as client:
        info = await client.schedules.get("s")
        assert (info.counters.fired, info.counters.missed) == (SLOTS, 0)
        assert (await client.count_instances(schedule="s")).total == SLOTS


def test_the_checker_finds_a_slot_with_two_instances_or_two_outcomes():
    provider = MemoryProvider()
    provider.open()
    commit = provider.store.commit
    commit([a_schedule_write(0), a_schedule_write(1, acts=(a_run(10),))])
    assert check_store(provider, quiescent=False).violations == ()
    twin = replace(a_start("s-10-again", request_id="r2"), schedule=("s", 10))
    assert commit([twin]).outcomes == (Started(),)
    span = a_slot(30, outcome="missed_window", first_slot=5, slot_count=3)
    commit([a_schedule_write(2, slots=(span,))])
    problems = [str(one) for one in check_store(provider, quiescent=False).violations]
    assert sorted(one.split(": ")[-1] for one in problems) == [
        "slot 10 has started 2 instances",
        "slot 5 has two outcomes",
    ]
    assert all(one.startswith("I14") for one in problems)
