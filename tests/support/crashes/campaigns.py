"""Campaigns: so many cycles of something bad, then peace, then the verdict."""

from __future__ import annotations

import signal
import time
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median

import anyio
import anyio.abc

from orchestra import Client
from orchestra.errors import StoreBusy
from orchestra.providers.sqlite.filelock import FileLock
from tests.support.crashes.device import SYNC, WRITE, Fault
from tests.support.crashes.processes import PATIENCE, Worker, Workforce, read_lines, until
from tests.support.crashes.stores import Store, folder_of, provider_of, rows_of
from tests.support.crashes.traffic import Promises, Traffic
from tests.support.crashes.verdict import counts_of_runs, judge, own_open
from tests.support.crashes.worker import OWN_START

LEASE = 0.9
"""Seconds; of the workers that are stopped."""

BUSY = 0.3
"""Seconds for which a write waits for others where one is stopped while it writes."""

MARGIN = 2.0
"""Seconds by which a busy machine may be late with anything."""


@dataclass
class Outcome:
    """What a campaign did, and what was wrong afterwards."""

    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    measures: dict[str, list[float]] = field(default_factory=dict)
    """What was measured, never judged, by what it is: all values."""

    def add(self, other: Outcome) -> None:
        self.problems += other.problems
        self.counts += other.counts
        for name, values in other.measures.items():
            self.measure(name, *values)

    def measure(self, name: str, *values: float) -> None:
        self.measures.setdefault(name, []).extend(values)

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {number:,}" for name, number in self.counts.items())
        measures = [f"{name}: {text}" for name, text in summaries(self.measures).items()]
        return "\n".join(
            [f"{counts}, violations {len(self.problems)}", *measures, *self.problems[:50]]
        )


def summaries(measures: dict[str, list[float]]) -> dict[str, str]:
    """Return what was measured in a few numbers each."""
    return {
        name: f"median {median(values):.3g}, largest {max(values):.3g} of {len(values)}"
        for name, values in measures.items()
    }


def conduct(
    campaign: Callable[..., Awaitable[Outcome]], folder: Path, seed: int, *more: int | str
) -> Outcome:
    """Run a campaign. That it breaks off is a problem like any other."""
    try:
        return anyio.run(campaign, folder, seed, *more)
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        return Outcome([f"the campaign broke off: {text[-4000:]}"])


@asynccontextmanager
async def client_of(store: Store) -> AsyncGenerator[Client]:
    async with Client(provider_of(store)) as client:
        yield client


async def finish(workforce: Workforce, traffic: Traffic, outcome: Outcome) -> None:
    """Let everything end, send the workers home, and judge."""
    directory = traffic.client._provider.directory
    if workforce.has_intake:
        for worker in workforce.living:
            worker.signal(signal.SIGUSR2)
            await until(
                lambda worker=worker: worker.has_ended_intake, f"{worker.name} takes in no more"
            )

    def all_over() -> bool:
        return not traffic.open_instances() and not own_open(directory, workforce.all)

    try:
        await until(all_over, "everything ends", PATIENCE)
    except TimeoutError:
        for instance_id in [*traffic.open_instances(), *own_open(directory, workforce.all)][:20]:
            record = directory.get(instance_id)
            outcome.problems.append(f"I11: {instance_id!r} has not ended: {record and record.row}")
    await await_takeover(workforce, outcome)
    for worker in workforce.living:
        if not await worker.go_home():
            outcome.problems.append(
                f"worker {worker.name} did not stop in order: {worker.errors[-2000:]}"
            )


async def await_takeover(workforce: Workforce, outcome: Outcome) -> None:
    """Let the living bury the dead, and release what these owned, before they go home.

    All that was acknowledged may have ended before the lease of the worker that was killed last
    runs out: it owns then what it has started itself and told nobody of. Only who lives on can find
    out that it is dead.
    """
    living = {worker.pid for worker in workforce.living}
    if not living:
        return

    def remains() -> list[str]:
        nodes = dict(rows_of(workforce.store, "SELECT node_id, pid FROM node WHERE NOT dead"))
        alive = {node_id for node_id, pid in nodes.items() if pid in living}
        owners = {
            owner
            for (owner,) in rows_of(
                workforce.store, "SELECT owner FROM instance WHERE owner IS NOT NULL"
            )
        }
        return sorted((nodes.keys() | owners) - alive)

    try:
        await until(lambda: not remains(), "the dead are buried", PATIENCE)
    except TimeoutError:
        outcome.problems += [
            f"rule 11: {node_id} is dead and not buried, or owns something" for node_id in remains()
        ]


def verdict(
    store: Store, workforce: Workforce, promises: Promises, outcome: Outcome, *, code: str
) -> Outcome:
    """Judge once everybody has closed the store."""
    problems, report = judge(store, promises, workforce.all, code)
    outcome.problems += problems
    runs, repeated = counts_of_runs(folder_of(store) / "ledger")
    outcome.counts.update(promises.counts)
    outcome.counts.update(
        {
            "activities": runs,
            "run again": repeated,
            "executions": report.executions,
            "replayed": report.replayed,
            "client retries": promises.repeats,
        }
    )
    writes = Counter(line[4] for worker in workforce.all for line in read_lines(worker.writes))
    outcome.counts.update({"writes": writes[True], "refused": writes[False]})
    return outcome


# --- kill -9 ----------------------------------------------------------------------------------


async def kill_campaign(folder: Path, seed: int, cycles: int) -> Outcome:
    """Kill the worker that runs, again and again, at random moments, while a client goes on
    sending.
    """
    random = Random(seed)
    store = folder / "store.db"
    outcome = Outcome()
    with Workforce(store, intake=True) as workforce:
        async with client_of(store) as client:
            traffic = Traffic(client, Random(random.random()))
            first = await workforce.begin()
            await first.ready()
            async with anyio.create_task_group() as group:
                group.start_soon(traffic.work)
                await kill_and_replace(workforce, random, cycles, first, outcome)
                traffic.stopping = True
            await finish(workforce, traffic, outcome)
        return verdict(store, workforce, traffic.promises, outcome, code="old")


async def kill_and_replace(
    workforce: Workforce, random: Random, cycles: int, worker: Worker, outcome: Outcome
) -> None:
    done = 0
    while done < cycles:
        await anyio.sleep(random.random() ** 2 * 0.6)
        way = random.choices(("alone", "beside another", "while it starts"), (5, 3, 2))[0]
        outcome.counts[f"kills {way}"] += 1
        done += 1
        if way == "beside another":  # which takes over while it runs
            successor = await workforce.begin()
            await successor.ready()
            await anyio.sleep(random.random() * 0.2)
            await worker.kill()
        else:
            await worker.kill()
            successor = await workforce.begin()
            if way == "while it starts":
                await anyio.sleep(random.random() * 0.06)
                await successor.kill()
                successor = await workforce.begin()
            await successor.ready()
        worker = successor


# --- SIGSTOP ----------------------------------------------------------------------------------


async def pause_campaign(folder: Path, seed: int, cycles: int, at_once: int = 1) -> Outcome:
    """Stop one of two workers until the other one has taken over, and let it go on then: whatever
    it writes is refused.

    Most of a cycle is waiting for a lease to run out, so that ``at_once`` stores are worked on at
    the same time.
    """
    total = Outcome()
    seeds = Random(seed)
    async with anyio.create_task_group() as group:
        for lane in range(at_once):
            its_cycles = (cycles + lane) // at_once
            directory = folder / str(lane)
            directory.mkdir()
            group.start_soon(_pause_again_and_again, directory, seeds.random(), its_cycles, total)
    return total


async def _pause_again_and_again(folder: Path, seed: float, cycles: int, total: Outcome) -> None:
    random = Random(seed)
    store = folder / "store.db"
    outcome = Outcome()
    with Workforce(store, lease=LEASE, intake=True) as workforce:
        async with client_of(store) as client:
            traffic = Traffic(client, Random(random.random()))
            workers = [await workforce.begin(), await workforce.begin()]
            for worker in workers:
                await worker.ready()
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: traffic.work(listeners=4, at_once=12))
                for cycle in range(cycles):
                    await anyio.sleep(0.2 + random.random() * 0.4)
                    random.shuffle(workers)
                    # Every other time it stops by itself with a write in its hands, which then
                    # comes too late for certain.
                    await pause(store, workers[0], workers[1], outcome, in_hand=cycle % 2 == 0)
                traffic.stopping = True
            await finish(workforce, traffic, outcome)
        total.add(verdict(store, workforce, traffic.promises, outcome, code="old"))


async def pause(
    store: Path, victim: Worker, other: Worker, outcome: Outcome, *, in_hand: bool
) -> None:
    """Stop a worker until the other one has taken over and gone on; let it go on then."""
    node_id = None
    while node_id is None:
        await until(lambda: node_of(store, victim), f"worker {victim.name} is a node")
        await _stop(store, victim, outcome, in_hand=in_hand)
        node_id = node_of(store, victim)
        if (
            node_id is None
            # on a machine that is busy its lease has run out before: that was no stop of a living node
        ):
            outcome.counts["buried before it was stopped"] += 1
            victim.signal(signal.SIGCONT)
    written = sum(1 for _ in read_lines(victim.writes))
    try:
        await until(
            lambda: not node_of(store, victim) and not owned(store, node_id),
            f"{victim.name} is taken over",
        )
        before = other.granted
        await until(lambda: other.granted > before + 3, f"{other.name} goes on")
    finally:
        since = time.time_ns() // 1000
        victim.signal(signal.SIGCONT)
    await until(lambda: node_of(store, victim), f"worker {victim.name} is a node again")
    outcome.counts["stopped with a write in hand" if in_hand else "stopped anywhere"] += 1
    refused = note_writes_of_buried(victim, written, node_id, since, outcome)
    if in_hand and not refused:
        outcome.problems.append(
            f"worker {victim.name} was stopped with a write in its hands, but none was refused"
        )


def note_writes_of_buried(
    victim: Worker, written: int, node_id: str, since: int, outcome: Outcome
) -> int:
    """Return how many writes of a buried node were refused; each one that was granted is a
    problem, unless the node has started the instance itself after it was buried.
    """
    refused = 0
    its_own: set[tuple[str, int]] = set()
    for instance_id, incarnation, revision, owner, granted, now in list(read_lines(victim.writes))[
        written:
    ]:
        if owner != node_id:
            continue
        refused += not granted
        if not granted or now < since:
            continue
        if revision == OWN_START:
            its_own.add((instance_id, incarnation))
        elif (instance_id, incarnation) not in its_own:
            outcome.problems.append(
                f"I6: {node_id} was buried and wrote revision {revision} of {instance_id!r}"
            )
    return refused


async def _stop(store: Path, victim: Worker, outcome: Outcome, *, in_hand: bool) -> None:
    """Stop a worker where it does not hold the write lock; with a write in its hands if that is
    wanted.
    """
    if in_hand:
        victim.signal(signal.SIGUSR1)
        await until(lambda: victim.is_stopped, f"worker {victim.name} has a write to make")
        return
    while True:
        victim.signal(signal.SIGSTOP)
        await until(lambda: victim.is_stopped, f"worker {victim.name} stops")
        if not await anyio.to_thread.run_sync(_holds_lock, store, victim):
            return
        victim.signal(signal.SIGCONT)  # nobody could take over; another moment
        outcome.counts["stopped in a commit"] += 1
        await anyio.sleep(0.003)


async def stuck_campaign(folder: Path, seed: int, cycles: int) -> Outcome:
    """Stop a worker inside its write transaction, beyond its lease: the others wait no longer than
    they are told to.

    Nobody can take over, since nobody can write; so the stopped one is still the owner when it goes
    on, and finishes its write.
    """
    random = Random(seed)
    store = folder / "store.db"
    outcome = Outcome()
    with Workforce(store, lease=LEASE, intake=True, busy=BUSY) as workforce:
        async with client_of(store) as client:
            traffic = Traffic(client, Random(random.random()), may_be_alone=True)
            other = await workforce.begin()
            await other.ready()
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: traffic.work(listeners=4, at_once=12))
                for _ in range(cycles):
                    kind = random.choice((WRITE, SYNC))
                    victim = await workforce.begin(
                        "--fault", str(Fault(kind, random.randint(1, 40), "stop")), "--later"
                    )
                    await victim.ready()
                    await _stick(store, victim, other, random, outcome)
                    await victim.kill()
                traffic.stopping = True
            await finish(workforce, traffic, outcome)
        return verdict(store, workforce, traffic.promises, outcome, code="old")


async def _stick(
    store: Path, victim: Worker, other: Worker, random: Random, outcome: Outcome
) -> None:
    await until(lambda: victim.is_stopped, f"worker {victim.name} stops in a write")
    node_id = node_of(store, victim)
    try:
        refused = len(other.refusals)
        provider = provider_of(store, busy=BUSY)
        began = time.monotonic()
        try:
            await anyio.to_thread.run_sync(provider.open)
            provider.close()
            outcome.problems.append(
                f"worker {victim.name} is stopped in a write, and somebody else has written"
            )
        except StoreBusy:
            outcome.counts["told StoreBusy"] += 1
        waited = time.monotonic() - began
        if waited > BUSY + MARGIN:
            outcome.problems.append(
                f"who met the lock was told after {waited:.1f} s, not {BUSY:g} s"
            )
        await until(lambda: len(other.refusals) > refused, f"{other.name} is told")
        await anyio.sleep(random.uniform(0.5, 2) * LEASE)
    finally:
        victim.signal(signal.SIGCONT)
    before = victim.granted, other.granted
    await until(lambda: victim.granted > before[0], f"{victim.name} goes on")
    await until(lambda: other.granted > before[1], f"{other.name} goes on")
    if node_of(store, victim) != node_id:
        outcome.counts["buried after it had gone on"] += 1
    outcome.counts["stopped inside a write"] += 1


def _holds_lock(store: Path, worker: Worker) -> bool:
    """Return whether a stopped worker keeps everybody else from writing."""
    lock = FileLock(store.with_name(store.name + ".lock"))
    try:
        lock.acquire(0.5)
    except StoreBusy:
        return True
    else:
        lock.release()
        return False
    finally:
        lock.close()


def node_of(store: Store, worker: Worker) -> object:
    """Return the id under which a worker lives; ``None`` if it is known as no living node."""
    found = rows_of(store, "SELECT node_id FROM node WHERE pid = ? AND NOT dead", worker.pid)
    return found[0][0] if found else None


def owned(store: Store, node_id: object) -> bool:
    """Return whether a node owns anything."""
    return bool(rows_of(store, "SELECT 1 FROM instance WHERE owner = ? LIMIT 1", node_id))


# --- together ---------------------------------------------------------------------------------


async def versions_campaign(folder: Path, seed: int, climbers: int = 6, laps: int = 20) -> Outcome:
    """A worker with 1.0.0 and one with 1.0.0 and 1.1.0 on one file; the newer one is killed and
    comes back.
    """
    random = Random(seed)
    store = folder / "store.db"
    outcome = Outcome()
    with Workforce(store) as workforce:
        async with client_of(store) as client:
            traffic = Traffic(client, Random(random.random()))

            async def start(count: int, laps: int, **options: str) -> None:
                async with anyio.create_task_group() as group:
                    for _ in range(count):
                        group.start_soon(lambda: traffic.start_climb(laps, **options))

            old = await workforce.begin("--code", "old")
            await old.ready()
            await start(climbers, laps)
            await start(climbers, laps, word="1.0.0")
            newer = await workforce.begin("--code", "new")
            await newer.ready()
            await start(climbers, laps)
            await start(climbers, laps, word="1.0.0")
            await start(2, 5 * laps, first="1.1.0")
            await until(lambda: newer.granted, "the newer one does something")
            await anyio.sleep(random.random() * 0.05)
            await newer.kill()
            # Nobody who was on 1.1.0 goes back; who was not goes on.
            await start(climbers, laps)
            await anyio.sleep(random.random() * 0.3)
            newest = await workforce.begin("--code", "new")
            await newest.ready()
            await start(climbers, laps)
            # Who gets the 1.0.0 that both can run is chance while both live; left alone, the newer
            # one takes it.
            if not await old.go_home():
                outcome.problems.append(
                    f"worker {old.name} did not stop in order: {old.errors[-2000:]}"
                )
            await start(climbers, laps, word="1.0.0")
            await finish(workforce, traffic, outcome)
            for worker in (old, newer, newest):
                granted = worker.granted
                outcome.counts[f"writes of {worker.name}"] = granted
                if not granted:
                    outcome.problems.append(f"worker {worker.name} was starved")
            # Nobody waits because somebody who cannot run it has fetched it.
            if ("climb", "1.1.0") in old.claimed:
                outcome.problems.append("a worker has claimed what it cannot run")
            if not {("climb", "1.0.0"), ("climb", "1.1.0")} <= newer.claimed | newest.claimed:
                outcome.problems.append(
                    "the newer ones have claimed nothing of the one version or of the other"
                )
        return verdict(store, workforce, traffic.promises, outcome, code="new")


async def sharing_campaign(
    folder: Path, seed: int, workers: int, instances: int = 24, laps: int = 8
) -> Outcome:
    """Several workers on one file share the work; nobody goes without."""
    store = folder / "store.db"
    outcome = Outcome()
    share = -(-instances // workers)
    with Workforce(store, max_owned=share) as workforce:
        async with client_of(store) as client:
            traffic = Traffic(client, Random(seed))
            crew = [await workforce.begin() for _ in range(workers)]
            for worker in crew:
                await worker.ready()
            async with anyio.create_task_group() as group:
                for _ in range(instances):
                    group.start_soon(traffic.start_laps, laps)
            await finish(workforce, traffic, outcome)
            for worker in crew:
                granted = worker.granted
                outcome.counts[f"writes of {worker.name}"] = granted
                if not granted:
                    outcome.problems.append(f"worker {worker.name} was starved")
        return verdict(store, workforce, traffic.promises, outcome, code="old")
