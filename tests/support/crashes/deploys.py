"""A rolling deploy over three nodes, in both directions, with old and new code side by side
(scenario 9).
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import anyio

from tests.support.crashes.campaigns import Outcome, client_of, finish, verdict
from tests.support.crashes.processes import PATIENCE, Worker, Workforce, until
from tests.support.crashes.stores import Store
from tests.support.crashes.traffic import Traffic

NODES = 3

LAPS = 150
"""Of what is on its way when the deploy is rolled back."""


async def rolling_campaign(folder: Path, seed: int, cycles: int) -> Outcome:
    """Roll a new version with a new activity out over three nodes, and back; then a node that knows
    it comes.
    """
    return await roll(folder / "store.db", seed, cycles)


async def roll(store: Store, seed: int, cycles: int) -> Outcome:
    """The same, on any store."""
    random = Random(seed)
    outcome = Outcome()
    with Workforce(store) as workforce:
        async with client_of(store) as client:
            traffic = Traffic(client, Random(random.random()))
            deploy = _Deploy(workforce, traffic, random, outcome)
            await deploy.begin()
            async with anyio.create_task_group() as group:
                group.start_soon(deploy.keep_starting)
                for _ in range(cycles):
                    await deploy.roll("new")
                    await deploy.roll("old")
                    await deploy.come_back()
                    outcome.counts["rolling deploys"] += 1
                traffic.stopping = True
            await deploy.end()
            await finish(workforce, traffic, outcome)
            for worker in deploy.incapable:
                if ("climb", "1.1.0") in worker.claimed:
                    outcome.problems.append(f"worker {worker.name} has claimed what it cannot run")
        return verdict(store, workforce, traffic.promises, outcome, code="new")


class _Deploy:
    """Three places for nodes; who stands in each of them is replaced."""

    def __init__(
        self, workforce: Workforce, traffic: Traffic, random: Random, outcome: Outcome
    ) -> None:
        self._workforce = workforce
        self._traffic = traffic
        self._random = random
        self._outcome = outcome
        self._nodes: list[Worker] = []
        self.incapable: list[Worker] = []
        self._starting = True

    async def begin(self) -> None:
        self._nodes = [await self._begin("old") for _ in range(NODES)]

    async def _begin(self, code: str) -> Worker:
        worker = await self._workforce.begin("--code", code)
        await worker.ready()
        if code == "old":
            self.incapable.append(worker)
        return worker

    async def end(self) -> None:
        """Leave a node that can run everything: what takes the new version at its last moment would
        wait for one, rightly.
        """
        self._nodes.append(await self._begin("new"))

    async def keep_starting(self) -> None:
        """Go on starting loops, some of which stay on the version that they name."""
        while not self._traffic.stopping:
            if self._starting and len(self._traffic.open_instances()) < 24:
                word = self._random.choice((None, None, "1.0.0"))
                await self._traffic.start_climb(self._random.randint(5, 40), word=word)
            await anyio.sleep(0.02)

    async def roll(self, code: str) -> None:
        """Replace one node after the other: the new one before or after the old one goes, which is
        killed at times.
        """
        for place in range(NODES):
            old, first = self._nodes[place], self._random.random() < 0.5
            if first:
                self._nodes[place] = await self._begin(code)
            if self._random.random() < 0.3:
                await old.kill()
                self._outcome.counts["killed in a deploy"] += 1
            elif not await old.go_home():
                self._outcome.problems.append(
                    f"worker {old.name} did not stop in order: {old.errors[-2000:]}"
                )
            if not first:
                self._nodes[place] = await self._begin(code)
            if code == "new" and place < NODES - 1:
                # Beside nodes that cannot run it. The one that can is up: nobody else is waited
                # for.
                began = time.monotonic()
                instance_id = await self._traffic.start_climb(10, first="1.1.0")
                await until(
                    lambda instance_id=instance_id: not self._is_open(instance_id),
                    "the capable ones go on",
                )
                self._outcome.measure(
                    "seconds of ten laps on few capable nodes", time.monotonic() - began
                )
        if code == "new":
            # These are on their way when the deploy is rolled back.
            for _ in range(4):
                await self._traffic.start_climb(LAPS, first="1.1.0")

    async def come_back(self) -> None:
        """Nobody can run what had got the new version: it waits, and goes on with the first node
        that can.
        """
        waiting = [one for one in self._traffic.open_instances() if self._version(one) == "1.1.0"]
        self._outcome.counts["waited for a capable node"] += len(waiting)
        newest = await self._begin("new")
        began = time.monotonic()
        if waiting:
            await until(lambda: newest.granted, "the first capable node goes on")
            self._outcome.measure("seconds until a capable node went on", time.monotonic() - began)
        # What takes the new version now must end, too: the next deploy begins with nodes that know
        # the old one only.
        self._starting = False
        await until(lambda: not self._traffic.open_instances(), "everything ends", 2 * PATIENCE)
        if not await newest.go_home():
            self._outcome.problems.append(
                f"worker {newest.name} did not stop in order: {newest.errors[-2000:]}"
            )
        self._starting = True

    def _is_open(self, instance_id: str) -> bool:
        return instance_id in self._traffic.open_instances()

    def _version(self, instance_id: str) -> str | None:
        record = self._traffic.client._provider.directory.get(instance_id)
        return record and record.execution.version
