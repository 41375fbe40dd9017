"""Campaigns in which the n-th call of a kind that a worker makes on its store kills it, or fails.

There are two ways: ``device`` stands between SQLite and the files inside the process, ``strace``
between the process and the kernel. How often each kind of call is made in a life is seen in a dry
run; where a fault strikes is drawn from that.
"""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import anyio

from orchestra import SqliteProvider
from tests.support.crashes import device, tracer
from tests.support.crashes.campaigns import Outcome, client_of, finish, verdict
from tests.support.crashes.device import DEVICE_CALLS, LOCK_FILE_CALLS, SYNC, WRITE, Fault
from tests.support.crashes.processes import Worker, Workforce, until
from tests.support.crashes.traffic import Promises, Traffic
from tests.support.crashes.verdict import own_open

MISSING = {"device": device.missing, "strace": tracer.missing}
"""The ways, each with a function that says why it cannot be gone here (``None``: it can)."""

LIFE = 0.5
"""Seconds that a worker lives in a dry run, and after which a fault that has not struck is waited
for no longer.
"""

LONE_LIFE = 0.15
"""The same for one that begins and ends in order."""

LIVES = 6
"""How many lone workers work on one store before it is judged."""

MOST_FAILING_CALLS = 25
"""In an outage that the pauses between tries are made for. A node that spins makes thousands."""

_WEIGHTS = {WRITE: 8, SYNC: 6, "pwrite64": 8, "fdatasync": 6}
"""How likely a kind of call is chosen; 1 where it does not say."""


class Faults:
    """Draws faults, and starts workers that meet them."""

    def __init__(self, way: str, random: Random, workforce: Workforce, folder: Path) -> None:
        reason = MISSING[way]()
        if reason is not None:
            raise RuntimeError(reason)
        self._traced = way == "strace"
        self._random = random
        self._workforce = workforce
        self._folder = folder
        self._tracers: dict[str, tracer.Tracer] = {}

    def draw_death(self, seen: Counter[str]) -> Fault:
        """Return one that kills, at a call of those that a life makes, more likely an early one."""
        kinds = tracer.SYSTEM_CALLS if self._traced else (*DEVICE_CALLS, *LOCK_FILE_CALLS)
        kind = self._choose([kind for kind in kinds if seen[kind]])
        nth = 1 + int(seen[kind] * self._random.random() ** 1.5)
        torn = kind == WRITE and self._random.random() < 0.3
        return Fault(kind, nth, "torn" if torn else "kill")

    def draw_failure(self, seen: Counter[str]) -> Fault:
        """Return one that makes calls fail, and then no more."""
        if self._traced:
            kind = self._choose([kind for kind in tracer.FAILING_CALLS if seen[kind]])
            action = self._random.choice(tracer.FAILING_CALLS[kind])
        else:
            kind = self._choose([kind for kind in DEVICE_CALLS if seen[kind]])
            action = self._random.choice(("io", "full")) if kind == WRITE else "io"
        nth = 1 + int(min(seen[kind], 60) * self._random.random())
        if not self._traced and self._random.random() < 0.5:
            return Fault(kind, nth, action, 0, self._random.uniform(0.1, 0.6))
        return Fault(kind, nth, action, self._random.choice((1, 1, 2, 3, 4)))

    def _choose(self, kinds: list[str]) -> str:
        return self._random.choices(kinds, [_WEIGHTS.get(kind, 1) for kind in kinds])[0]

    async def begin(self, fault: Fault | None, *, later: bool = False) -> Worker:
        """Return a worker that has just been started, and that will meet the fault. ``later``: once
        its runtime runs.
        """
        arguments = ["--later"] if later else []
        if self._traced:
            arguments += ["--traced"]
        else:
            arguments += ["--count"] if fault is None else ["--fault", str(fault)]
        worker = await self._workforce.begin(*arguments)
        if self._traced:
            if later:
                await worker.ready()
            log = self._folder / f"strace-{worker.name}"
            self._tracers[worker.name] = tracer.Tracer(self._workforce.store, worker, fault, log)
            await self._tracers[worker.name].attach()
        return worker

    def calls(self, worker: Worker) -> Counter[str]:
        """Return how often a worker that has gone made each kind of call."""
        if self._traced:
            return self._tracers.pop(worker.name).finish()
        said = worker.said("calls")
        return Counter(said[0] if said else {})

    def has_struck(self, worker: Worker, fault: Fault) -> bool:
        """Return whether a failure has come, and is over."""
        if self._traced:
            return self._tracers[worker.name].injected >= fault.calls
        return worker.has_come_to("mended")

    def failing_calls(self, worker: Worker) -> int:
        said = worker.said("mended")
        return said[0] if said else 0


async def _is_gone(worker: Worker, seconds: float) -> bool:
    try:
        await until(lambda: not worker.is_alive, "it dies", seconds)
    except TimeoutError:
        return False
    return True


@asynccontextmanager
async def _under_traffic(
    workforce: Workforce, random: Random, outcome: Outcome, store: Path
) -> AsyncGenerator[None]:
    async with client_of(store) as client:
        traffic = Traffic(client, Random(random.random()), may_be_alone=True)
        first = await workforce.begin()
        await first.ready()
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: traffic.work(listeners=4, at_once=10))
            await anyio.sleep(0.1)
            await first.kill()
            yield
            traffic.stopping = True
            last = await workforce.begin()
            await last.ready()
        await finish(workforce, traffic, outcome)
    verdict(store, workforce, traffic.promises, outcome, code="old")


# --- death at a call --------------------------------------------------------------------------


async def injection_campaign(folder: Path, seed: int, cycles: int, way: str = "device") -> Outcome:
    """Kill the worker at a chosen call, again and again, while loops and events go on and a client
    goes on sending.
    """
    random = Random(seed)
    store = folder / "store.db"
    outcome = Outcome()
    with Workforce(store, intake=True) as workforce:
        faults = Faults(way, random, workforce, folder)
        async with _under_traffic(workforce, random, outcome, store):
            dry = await faults.begin(None)
            await dry.ready()
            await anyio.sleep(LIFE)
            await dry.go_home()
            seen = faults.calls(dry)
            struck = lives = 0
            while struck < cycles and lives < 3 * cycles:
                lives += 1
                fault = faults.draw_death(seen)
                worker = await faults.begin(fault)
                struck += await _meets(worker, fault, outcome, 2 * LIFE)
                faults.calls(worker)
            if struck < cycles:
                outcome.problems.append(
                    f"only {struck} of {cycles} faults have struck in {lives} lives"
                )
    return outcome


async def _meets(worker: Worker, fault: Fault, outcome: Outcome, seconds: float) -> bool:
    """Wait for a worker's death, at the latest at its end. Return whether it was the fault's."""
    gone = await _is_gone(worker, seconds)
    if not gone:
        with contextlib.suppress(ProcessLookupError):  # it may die at this very moment
            worker.signal(signal.SIGTERM)
        await until(lambda: not worker.is_alive, f"worker {worker.name} stops")
        gone = not worker.has_come_to("ended")
    if gone:
        outcome.counts[
            f"killed at {fault.kind}" + (" (half)" if fault.action == "torn" else "")
        ] += 1
    else:
        outcome.counts["lives without its fault"] += 1
    return gone


async def lone_campaign(folder: Path, seed: int, cycles: int, way: str = "device") -> Outcome:
    """Kill a lone worker anywhere between making its store and closing it. Nobody else keeps the
    file open.
    """
    random = Random(seed)
    total = Outcome()
    with Workforce(folder / "dry" / "store.db", intake=True) as workforce:
        faults = Faults(way, random, workforce, folder)
        seen = [await _live_alone(workforce, faults, folder / "dry") for _ in range(2)]
        struck = number = 0
        while struck < cycles and number < cycles:
            number += 1
            store = folder / str(number) / "store.db"
            store.parent.mkdir()
            workforce.move_to(store)
            outcome = Outcome()
            for life in range(min(LIVES, cycles - struck)):
                fault = faults.draw_death(seen[min(life, 1)])
                worker = await faults.begin(fault)
                await until(
                    lambda worker=worker: worker.has_come_to("ready") or not worker.is_alive,
                    "it begins",
                )
                struck += await _meets(worker, fault, outcome, LONE_LIFE)
                faults.calls(worker)
            await _end_alone(store, workforce, outcome)
            outcome.problems = [f"store {number}: {problem}" for problem in outcome.problems]
            total.add(outcome)
        if struck < cycles:
            total.problems.append(
                f"only {struck} of {cycles} faults have struck on {number} stores"
            )
    return total


async def _live_alone(workforce: Workforce, faults: Faults, folder: Path) -> Counter[str]:
    """Return the calls of a whole life from beginning to end."""
    folder.mkdir(exist_ok=True)
    worker = await faults.begin(None)
    await worker.ready()
    await anyio.sleep(LONE_LIFE)
    await worker.go_home()
    return faults.calls(worker)


async def _end_alone(store: Path, workforce: Workforce, outcome: Outcome) -> None:
    last = await workforce.begin()
    await last.ready()
    last.signal(signal.SIGUSR2)
    await until(lambda: last.has_ended_intake, f"{last.name} takes in no more")
    provider = SqliteProvider(store)
    provider.open()
    try:
        await until(lambda: not own_open(provider.directory, workforce.all), "everything ends")
    except TimeoutError:
        outcome.problems.append(
            f"I11: {own_open(provider.directory, workforce.all)[:20]} have not ended"
        )
    finally:
        provider.close()
    if not await last.go_home():
        outcome.problems.append(f"worker {last.name} did not stop in order: {last.errors[-2000:]}")
    verdict(store, workforce, Promises(), outcome, code="old")


# --- failure of a call ------------------------------------------------------------------------


async def failing_campaign(folder: Path, seed: int, cycles: int, way: str = "device") -> Outcome:
    """Let calls fail for a while under a worker that has to outlive it: scenario 42, in the middle
    of anything.
    """
    random = Random(seed)
    store = folder / "store.db"
    outcome = Outcome()
    with Workforce(store, intake=True) as workforce:
        faults = Faults(way, random, workforce, folder)
        async with _under_traffic(workforce, random, outcome, store):
            dry = await faults.begin(None)
            await dry.ready()
            await anyio.sleep(LIFE)
            await dry.go_home()
            seen = faults.calls(dry)
            struck = lives = 0
            # Many faults are over before a client's call: it goes on until somebody was told of one.
            while (struck < cycles or not _is_told(workforce)) and lives < 3 * cycles:
                lives += 1
                fault = faults.draw_failure(seen)
                worker = await faults.begin(fault, later=True)
                await worker.ready()
                struck += await _outlives(worker, fault, faults, outcome)
                if lives % 2:
                    await worker.kill()
                elif not await worker.go_home():
                    outcome.problems.append(
                        f"worker {worker.name} did not stop in order: {worker.errors[-2000:]}"
                    )
                faults.calls(worker)
            if struck < cycles:
                outcome.problems.append(
                    f"only {struck} of {cycles} faults have struck in {lives} lives"
                )
        for worker in workforce.all:
            outcome.counts.update(f"told {name}" for name in worker.refusals)
    return outcome


def _is_told(workforce: Workforce) -> bool:
    """Return whether a client was told that the store fails."""
    return any(name.startswith("Store") for worker in workforce.all for name in worker.refusals)


async def _outlives(worker: Worker, fault: Fault, faults: Faults, outcome: Outcome) -> bool:
    try:
        await until(
            lambda: faults.has_struck(worker, fault) or not worker.is_alive,
            "the fault strikes",
            4 * LIFE,
        )
    except TimeoutError:
        # It may have begun. Failures are counted by calls, and between tries there are pauses.
        if not worker.refusals:
            outcome.counts["lives without its fault"] += 1
            return False
        await until(
            lambda: faults.has_struck(worker, fault) or not worker.is_alive, f"{fault} is over"
        )
    if not worker.is_alive:
        outcome.problems.append(
            f"worker {worker.name} did not outlive {fault}: {worker.errors[-2000:]}"
        )
        return True
    before = worker.granted
    await until(lambda: worker.granted > before, f"worker {worker.name} goes on after {fault}")
    failing = faults.failing_calls(worker)
    if failing > MOST_FAILING_CALLS:
        outcome.problems.append(f"worker {worker.name} made {failing} calls in vain during {fault}")
    outcome.counts[f"{fault.action} at {fault.kind}"] += 1
    outcome.counts["calls in vain"] += failing
    return True
