"""Campaigns in which operators act on instances while workers are killed and stopped, and while the
operators themselves die: anywhere, and right before and after their own commits. And the verdict on
it (scenarios 65, 67 and 68).
"""

from __future__ import annotations

import signal
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import anyio

from orchestra import Client
from orchestra.events import BoundaryRequested, from_record
from orchestra.ids import digest
from orchestra.store.audit import OperationQuery, OperationRow
from orchestra.store.kinds import ExecutionEnd
from orchestra.store.port import Directory
from orchestra.testing.postgres import PostgresServer
from tests.support.crashes.campaigns import (
    LEASE,
    Outcome,
    client_of,
    finish,
    pause,
    verdict,
)
from tests.support.crashes.operators import (
    CREWS,
    Act,
    Look,
    Standing,
    acts_in,
    journal_of,
    read_journal,
)
from tests.support.crashes.processes import Worker, Workforce, read_lines, until
from tests.support.crashes.servers import SERVED_OPTIONS, SERVED_STOPS, pause_served, served
from tests.support.crashes.stores import Store, folder_of, provider_of
from tests.support.crashes.traffic import Promise, Traffic
from tests.support.crashes.verdict import log_problems

WAYS = ("after", "before", "anywhere")
"""Where an operator dies, in turn: right after or before one of its own commits, or anywhere."""

FURTHEST = 40
"""The most writes that an operator makes before it dies at one."""

MANY = 1_000_000

Stop = Callable[[Worker, Worker, int], Awaitable[None]]
"""Stops a worker until another one has taken over, in a cycle."""


async def operators_campaign(folder: Path, seed: int, cycles: int) -> Outcome:
    """Act on instances of a SQLite file as operators do, and die of it."""
    store = folder / "store.db"
    outcome = Outcome()

    async def stop(victim: Worker, other: Worker, cycle: int) -> None:
        await pause(store, victim, other, outcome, in_hand=cycle % 2 == 0)

    return await _operate(store, seed, cycles, outcome, stop, lease=LEASE)


async def served_operators_campaign(
    folder: Path, seed: int, cycles: int, server: PostgresServer
) -> Outcome:
    """The same on a PostgreSQL server."""
    outcome = Outcome()

    async def stop(victim: Worker, other: Worker, cycle: int) -> None:
        how = SERVED_STOPS[cycle // 3 % len(SERVED_STOPS)]
        await pause_served(store, victim, [other], outcome, how)

    with served(folder, server) as store:
        return await _operate(store, seed, cycles, outcome, stop, **SERVED_OPTIONS)


async def _operate(
    store: Store, seed: int, cycles: int, outcome: Outcome, stop: Stop, **options: Any
) -> Outcome:
    """In each cycle an operator dies, and one of two workers is killed, or stopped beyond its
    lease.
    """
    random = Random(seed)
    with Workforce(store, code="new", **options) as workforce:
        async with client_of(store) as client:
            traffic = Traffic(client, Random(random.random()))
            workers = [await workforce.begin(), await workforce.begin()]
            for worker in workers:
                await worker.ready()
            async with anyio.create_task_group() as working:
                # A worker stops at its next write, and operators that have died give it none.
                working.start_soon(traffic.keep_busy, 2)
                for cycle in range(cycles):
                    async with anyio.create_task_group() as group:
                        group.start_soon(
                            _lose_an_operator, workforce, random, WAYS[cycle % len(WAYS)], outcome
                        )
                        await anyio.sleep(0.1 + random.random() * 0.4)
                        random.shuffle(workers)
                        if cycle % 3 == 1:
                            await stop(workers[0], workers[1], cycle)
                        else:
                            await workers[0].kill()
                            await anyio.sleep(random.random() * 0.3)
                            workers[0] = await workforce.begin()
                            await workers[0].ready()
                            outcome.counts["workers killed"] += 1
                traffic.stopping = True
            last = await workforce.begin_operator("--seed", str(random.random()))
            await last.ready()
            last.signal(signal.SIGUSR2)
            await _ends(last, client, store)
            crews = [_Crew(folder_of(store), crew, members) for crew, members in CREWS.items()]
            for crew in crews:
                traffic.promises.ends.update(crew.promises())
            await finish(workforce, traffic, outcome)
        verdict(store, workforce, traffic.promises, outcome, code="new")
        outcome.problems += log_problems(workforce.operators)
        _judge(store, crews, workforce.all, outcome)
    return outcome


async def _lose_an_operator(
    workforce: Workforce, random: Random, way: str, outcome: Outcome
) -> None:
    """Let an operator act until it dies."""
    arguments = ["--seed", str(random.random())]
    if way != "anywhere":
        arguments += ["--die", f"{way}:{random.randint(1, FURTHEST)}"]
    operator = await workforce.begin_operator(*arguments)
    if way == "anywhere":
        await operator.ready()
        await anyio.sleep(random.random() * 1.5)
        await operator.kill()
        outcome.counts["operators killed anywhere"] += 1
        return
    await until(lambda: not operator.is_alive, f"an operator dies {way} a commit")
    outcome.counts[f"operators killed {way} a commit"] += 1


async def _ends(last: Worker, client: Client, store: Store) -> None:
    """Wait until the last operator has ended. However many acts it still has to do, each is done
    within our patience.
    """
    folder = folder_of(store)
    while not last.has_come_to("ended"):
        lines = _lines_in(folder)
        try:
            await until(
                lambda lines=lines: (
                    last.has_come_to("ended") or not last.is_alive or _lines_in(folder) > lines
                ),
                "the last operator goes on",
            )
        except TimeoutError as error:
            standing = [line async for line in _standing(client, folder)]
            raise TimeoutError("\n".join([str(error), *standing])) from error
        if not last.is_alive and not last.has_come_to("ended"):
            raise RuntimeError(f"the last operator broke off: {last.errors[-4000:]}")


def _lines_in(folder: Path) -> int:
    """Return how many lines all journals have."""
    return sum(
        journal.read_bytes().count(b"\n")
        for journal in map(partial(journal_of, folder), CREWS)
        if journal.exists()
    )


async def _standing(client: Client, folder: Path) -> AsyncGenerator[str]:
    """Yield the last act of each crew, and how its instances stand."""
    for crew, members in CREWS.items():
        yield f"{crew}: {acts_in(read_journal(folder, crew))[-1:]}"
        for member in members:
            yield f"  {member}: {await client.get_instance_info(member)}"


# --- the verdict ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Crew:
    """The instances of a journal, and what it says."""

    folder: Path
    name: str
    members: tuple[str, ...]

    @property
    def is_bulk(self) -> bool:
        return len(self.members) > 1

    @property
    def journal(self) -> list[Act | Look]:
        return read_journal(self.folder, self.name)

    @property
    def acts(self) -> list[Act]:
        return acts_in(self.journal)

    def promises(self) -> dict[str, Promise]:
        standing = Standing()
        for act in self.acts:
            standing.add(act)

        def check(output: Any) -> str | None:
            if standing.word is not None:
                expected = standing.value + standing.word
                return None if output == expected else f"it ended as {output}, not {expected}"
            is_right = not output["wrong"] and output["heard"] == standing.sent
            return None if is_right else f"{standing.sent} were sent, heard was {output}"

        return {member: Promise("COMPLETED", check) for member in self.members}

    def request_id(self, act: Act, member: str) -> str:
        """Return the id by which the store knows what an act has begun."""
        if act.kind == "rewind" and self.is_bulk:
            return digest(f"rewind/{act.name}/{member}")
        return act.name


def _judge(
    store: Store, crews: Sequence[_Crew], workers: Sequence[Worker], outcome: Outcome
) -> None:
    written: dict[str, list[int]] = {}
    for worker in workers:
        for instance_id, _incarnation, _revision, _owner, granted, now in read_lines(worker.writes):
            if granted:
                written.setdefault(instance_id, []).append(now)
    provider = provider_of(store)
    provider.open()
    try:
        for crew in crews:
            journal, acts = crew.journal, crew.acts
            outcome.counts.update(f"act {act.kind}" for act in acts)
            outcome.problems += (
                f"{act.name} ({act.kind}) was never acknowledged" for act in acts if not act.done_at
            )
            for member in crew.members:
                found = _Member(
                    provider.directory, crew, member, journal, sorted(written.get(member, ()))
                )
                outcome.problems += (f"{member!r}: {problem}" for problem in found.problems())
    finally:
        provider.close()


class _Member:
    """One instance, as the store has it in the end."""

    def __init__(
        self,
        directory: Directory,
        crew: _Crew,
        member: str,
        journal: Sequence[Act | Look],
        written: Sequence[int],
    ) -> None:
        self._directory = directory
        self._crew = crew
        self._member = member
        self._journal = journal
        self._acts = acts_in(journal)
        self._written = written
        self._rows = {row.number: row for row in directory.executions(member, 0, MANY)}
        entries = directory.operations(OperationQuery(subject=member, limit=MANY))
        self._entries: dict[str, list[OperationRow]] = {}
        for entry in entries:
            self._entries.setdefault(entry.by, []).append(entry)

    def problems(self) -> Iterator[str]:
        yield from self._executions()
        yield from self._audit()
        yield from self._rewinds()
        yield from self._holds()
        yield from self._pins()
        yield from self._nudges()
        record = self._directory.get(self._member)
        if record is not None and (record.held or record.row.paused):
            yield "it is held at the end"

    def _executions(self) -> Iterator[str]:
        """Each request has begun one execution, and nothing else has but boundaries."""
        asked = {
            self._crew.request_id(act, self._member): act
            for act in self._acts
            if act.kind in ("start", "begin", "rewind")
        }
        begun = Counter(row.request_id for row in self._rows.values() if row.request_id)
        for request_id, act in asked.items():
            if begun[request_id] != 1:
                yield f"I1: {act.name} ({act.kind}) has begun {begun[request_id]} executions"
        for request_id in begun.keys() - asked.keys():
            yield f"I1: nobody asked for {request_id}, which has begun an execution"
        for row in self._rows.values():
            if row.end is not ExecutionEnd.REWOUND:
                continue
            following = self._rows.get(row.number + 1)
            act = asked.get((following and following.request_id) or "")
            if act is None or act.kind != "rewind":
                yield f"execution {row.number} was rewound, and no rewind has begun {following}"

    def _audit(self) -> Iterator[str]:
        """Each act was done once, however often it was asked for."""
        for act in self._acts:
            if act.kind not in ("hold", "release", "rewind", "cancel", "nudge", "pin", "unpin"):
                continue
            count = sum(entry.action == act.kind for entry in self._entries.get(act.name, ()))
            # A pin may be what it is already, or be set again. A nudge may come too late, or be the
            # second one of its execution; a job that is repeated finds another execution perhaps.
            again = act.kind in ("pin", "unpin") or (act.kind == "nudge" and self._crew.is_bulk)
            least = 0 if again or act.kind == "nudge" else 1
            if count < least or (count > 1 and not again):
                yield f"{act.name} ({act.kind}) stands {count} times in the audit"
            if act.kind == "nudge" and act.result.get(self._member) and count != 1:
                yield f"{act.name} has nudged, and stands {count} times in the audit"

    def _rewinds(self) -> Iterator[str]:
        """A rewind has begun the execution that it named, and lost no event."""
        for act in self._acts:
            if act.kind != "rewind":
                continue
            for entry in self._entries.get(act.name, ()):
                to, number = entry.detail["to"], entry.detail["execution"]
                row, former = self._rows.get(number), self._rows.get(to)
                if row is None or former is None or row.state != former.state:
                    yield f"{act.name} went back to {former}, and began {row}"
                    continue
                result = act.result.get(self._member)
                if result is None:
                    continue
                done = to, number, entry.detail["version"]
                if done != (act.details["to"], *result[:2]):
                    yield f"{act.name} was acknowledged as {result}, and did {entry.detail}"
                if result[2]:
                    yield f"{act.name} has lost the events of {result[2]} executions"

    def _holds(self) -> Iterator[str]:
        """While it was held, nobody wrote it, and it stood still."""
        held_since: int | None = None
        for act in self._acts:
            if act.kind == "hold":
                held_since = act.done_at
            elif act.kind == "release" and held_since is not None:
                place = bisect_left(self._written, held_since)
                if place < len(self._written) and self._written[place] < act.asked_at:
                    yield f"it was held until {act.name}, and an owner wrote it meanwhile"
                held_since = None
        last: Look | None = None
        for entry in self._journal:
            if isinstance(entry, Look):
                if entry.member != self._member:
                    continue
                if last is not None:
                    yield from self._moved(last, entry)
                last = entry
            elif entry.kind in ("hold", "release", "rewind"):
                last = None

    def _moved(self, before: Look, after: Look) -> Iterator[str]:
        if (before.execution, before.events, None) != (after.execution, after.events, after.owner):
            yield f"it was held, and went on from {before} to {after}"

    def _pins(self) -> Iterator[str]:
        """What began while it was pinned runs the version of the pin."""
        pinned: tuple[str, int, Act] | None = None
        for act in self._acts:
            if act.kind not in ("pin", "unpin", "rewind"):
                continue
            if pinned is not None:
                yield from self._other_versions(*pinned, until=act.asked_at)
            pinned = None
            if act.kind == "pin" and act.done_at is not None:
                pinned = act.details["version"], act.done_at, act
            elif act.kind == "rewind" and act.details["pin"] and act.done_at is not None:
                for entry in self._entries.get(act.name, ()):
                    pinned = entry.detail["version"], act.done_at, act

    def _other_versions(self, version: str, since: int, act: Act, *, until: int) -> Iterator[str]:
        for row in self._rows.values():
            if since < row.created_at < until and row.version != version:
                yield f"{act.name} has pinned it to {version}, and execution {row} began later"

    def _nudges(self) -> Iterator[str]:
        """Only the execution that a nudge named has heard it, once."""
        nudged = {
            entry.detail["execution"]
            for entries in self._entries.values()
            for entry in entries
            if entry.action == "nudge"
        }
        for number in self._rows:
            heard = sum(
                isinstance(event, BoundaryRequested)
                for event in map(from_record, self._directory.history(self._member, number))
            )
            if heard > (number in nudged):
                yield f"execution {number} has heard {heard} nudges, and {nudged} were nudged"
