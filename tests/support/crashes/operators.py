"""A process that does to instances what operators do, and may die at any moment.

Each crew of instances has a journal, a file of lines: what was asked (before it is done), what was
acknowledged, and how a held instance stands. The operator that comes next reads it, asks again for
what was not acknowledged, with the same request id, and goes on from there.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.to_thread

from orchestra import Bulk, Client, Selection, StoreError
from orchestra.errors import (
    AlreadyCompleted,
    InstanceNotHeld,
    OutcomeUnknown,
    UnknownOrchestration,
)
from orchestra.store.port import Provider
from tests.support.crashes.processes import read_lines
from tests.support.crashes.program import NAMES, Station
from tests.support.crashes.worker import Lines, provider_for

STATIONS, BULK_STATIONS, ERRANDS = 4, 3, 3
"""How many instances are operated by themselves, in bulk, and begun again and again."""

CREWS = {
    **{f"station-{number}": (f"station-{number}-0",) for number in range(STATIONS)},
    "crew": tuple(f"crew-{number}" for number in range(BULK_STATIONS)),
    **{f"errand-{number}": (f"errand-{number}-0",) for number in range(ERRANDS)},
}
"""The instances of each journal. Several are operated in bulk."""

VERSIONS = ("1.0.0", "1.1.0")
BACK = 5
"""How many laps a rewind goes back at most."""

LOG = logging.getLogger(__name__)

PAUSE = 0.06
"""The longest pause between two acts, in seconds."""


@dataclass(frozen=True)
class Act:
    """What was asked. ``name`` is its request id, and its author in the audit."""

    number: int
    name: str
    kind: str
    details: dict[str, Any]
    asked_at: int
    """Microseconds, as all times here."""
    done_at: int | None = None
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """How an instance stood: its execution, and how many events that had."""

    member: str
    at: int
    execution: int
    events: int
    owner: str | None


def journal_of(folder: Path, crew: str) -> Path:
    return folder / f"acts-{crew}"


def read_journal(folder: Path, crew: str) -> list[Act | Look]:
    """Return what was asked for a crew, with what was acknowledged, and the looks at it, in
    order.
    """
    found: list[Act | Look] = []
    for at, word, *values in read_lines(journal_of(folder, crew)):
        if word == "ask":
            number, kind, details = values
            found.append(Act(number, f"{crew}.{number}", kind, details, at))
        elif word == "done":
            number, result = values
            place = next(
                place
                for place, entry in enumerate(found)
                if isinstance(entry, Act) and entry.number == number
            )
            asked = found[place]
            assert isinstance(asked, Act)
            found[place] = replace(asked, done_at=at, result=result)
        else:
            found.append(Look(values[0], at, *values[1:]))
    return found


def acts_in(journal: Iterable[Act | Look]) -> list[Act]:
    return [entry for entry in journal if isinstance(entry, Act)]


class Standing:
    """How a crew stands after acts, each of them acknowledged."""

    def __init__(self) -> None:
        self.sent = dict.fromkeys(NAMES, 0)
        self.held = False
        self.pinned = False
        self.phase = "none"
        """``none``: not begun. ``waiting``: it runs. ``going``: it runs to its end. ``cancelled``:
        it was asked to stop. ``ended``: it has ended so. ``completed``.
        """
        self.value = 0
        self.word: int | None = None

    def add(self, act: Act) -> None:
        details = act.details
        match act.kind:
            case "start":
                self.phase = "waiting"
            case "begin":
                self.value, self.word = details["value"], details["word"]
                self.phase = "waiting" if self.word is None else "going"
            case "go":
                self.word, self.phase = details["word"], "going"
            case "send" | "give":
                for name, value in details["events"]:
                    self.sent[name] = value + 1
            case "hold":
                self.held = True
            case "release":
                self.held = False
            case "pin":
                self.pinned = True
            case "unpin":
                self.pinned = False
            case "cancel":
                self.phase = "cancelled"
            case "rewind":
                self.pinned = self.pinned or details["pin"]
                if self.phase in ("cancelled", "ended"):
                    self.phase = "waiting"
                elif self.phase == "completed":
                    self.phase = "going"
            case "end":
                self.phase = "going"
            case "over":
                self.phase = "completed" if self.phase == "going" else "ended"
            case _:
                pass


class Death:
    """Kills this process before or after the n-th of its writes: the reply to it never comes."""

    def __init__(self, provider: Provider, when: str) -> None:
        self._when, _, nth = when.partition(":")
        self._nth = int(nth)
        self._numbers = count(1)
        store, admin = provider.store, provider.admin
        store.commit = self._deadly(store.commit)
        admin.set_pin = self._deadly(admin.set_pin)
        admin.nudge = self._deadly(admin.nudge)

    def _deadly(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def write_and_die(*arguments: Any, **options: Any) -> Any:
            is_last = next(self._numbers) == self._nth
            if is_last and self._when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            outcome = write(*arguments, **options)
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)
            return outcome

        return write_and_die


class Operator:
    """Operates one crew."""

    def __init__(
        self, client: Client, folder: Path, crew: str, members: Sequence[str], random: Random
    ) -> None:
        self.client = client
        self.crew = crew
        self.members = members
        self.random = random
        self.standing = Standing()
        self.stopping = False
        self._lines = Lines(journal_of(folder, crew))
        self._acts = acts_in(read_journal(folder, crew))
        self._repeated = False
        """Whether the act under way was asked for before: an earlier try may have done it."""

    @property
    def is_bulk(self) -> bool:
        return len(self.members) > 1

    @property
    def selection(self) -> Selection:
        return Selection(name="station", id_prefix=f"{self.crew}-")

    async def run(self) -> None:
        """Go on where the one before broke off, until all is over."""
        for act in self._acts:
            if act.done_at is None:
                await self._perform(act, repeated=True)
            else:
                self.standing.add(act)
        while True:
            choice = await self.choose()
            if choice is None:
                return
            await self.do(*choice)
            await anyio.sleep(self.random.random() ** 2 * PAUSE)

    async def choose(self) -> tuple[str, dict[str, Any]] | None:
        raise NotImplementedError

    async def do(self, kind: str, details: dict[str, Any]) -> None:
        number = len(self._acts) + 1
        act = Act(number, f"{self.crew}.{number}", kind, details, _now())
        self._acts.append(act)
        if self.standing.held and kind in ("release", "rewind"):
            await self._look()
        self._lines.write(_now(), "ask", number, kind, details)
        await self._perform(act, repeated=False)

    async def _perform(self, act: Act, *, repeated: bool) -> None:
        self._repeated = repeated
        result: dict[str, Any] = {}
        if (
            act.kind in ("hold", "release", "pin", "unpin", "nudge", "cancel", "rewind")
            and self.is_bulk
        ):
            await self._insist(lambda: self._in_bulk(act))
        else:
            for member in self.members:
                result[member] = await self._insist(lambda member=member: self.ask(act, member))
        self._lines.write(_now(), "done", act.number, result)
        self.standing.add(replace(act, result=result))
        if self.standing.held and act.kind in ("hold", "rewind"):
            await self._look()

    async def _look(self) -> None:
        directory = self.client._provider.directory
        for member in self.members:
            record = await self._insist(
                lambda member=member: anyio.to_thread.run_sync(directory.get, member)
            )
            assert record is not None
            row = record.row
            self._lines.write(_now(), "look", member, row.execution, row.history_events, row.owner)

    async def _insist(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask until the store has answered."""
        while True:
            try:
                return await ask()
            except StoreError as error:
                if not (error.retryable or isinstance(error, OutcomeUnknown)):
                    raise
            except UnknownOrchestration:
                pass  # all workers are dead at the moment
            except (InstanceNotHeld, AlreadyCompleted):
                if not self._repeated:
                    raise
                return None  # an earlier try has done it
            self._repeated = True
            await anyio.sleep(0.01)

    async def _in_bulk(self, act: Act) -> None:
        report = await self.client.bulk(
            Bulk(act.kind),
            self.selection,
            dry_run=False,
            reason="a crash test",
            by=act.name,
            version=act.details["version"] if act.kind == "pin" else None,
            request_id=act.name,
        )
        for failure in report.failures:
            raise failure.error
        if report.matched != len(self.members):
            raise AssertionError(f"{act.name} matched {report.matched} of {len(self.members)}")

    async def ask(self, act: Act, member: str) -> Any:
        client, details, by = self.client, act.details, act.name
        match act.kind:
            case "start":
                state = Station(dict.fromkeys(NAMES, 0))
                await client.start("station", state, instance_id=member, request_id=by)
            case "begin":
                word = details["word"]
                await client.start(
                    "once",
                    details["value"],
                    instance_id=member,
                    request_id=by,
                    if_running=details["if_running"],
                    if_ended="restart",
                    events=() if word is None else [("go", word)],
                )
            case "go":
                await client.start(
                    "once",
                    0,
                    instance_id=member,
                    request_id=by,
                    if_running="return",
                    events=[("go", details["word"])],
                )
            case "send":
                for number, (name, value) in enumerate(details["events"]):
                    await client.raise_event(
                        member, name, value, message_id=f"{by}/{member}/{number}"
                    )
            case "give":
                state = Station(dict.fromkeys(NAMES, 0))
                await client.start(
                    "station",
                    state,
                    instance_id=member,
                    request_id=by,
                    if_running="return",
                    events=[tuple(event) for event in details["events"]],
                )
            case "end":
                await client.raise_event(
                    member, "end", self.standing.sent, message_id=f"{by}/{member}"
                )
            case "hold":
                await client.hold(member, reason="a crash test", by=by)
            case "release":
                await client.release(member, by=by)
            case "pin":
                await client.pin(member, details["version"], reason="a crash test", by=by)
            case "unpin":
                await client.unpin(member, reason="a crash test", by=by)
            case "nudge":
                return await client.nudge(
                    member, execution_id=details["execution"], reason="a crash test", by=by
                )
            case "cancel":
                await client.cancel(member, "a crash test", by=by)
            case "rewind":
                done = await client.rewind(
                    member,
                    details["to"],
                    details["version"],
                    pin=details["pin"],
                    children=details["children"],
                    reason="a crash test",
                    by=by,
                    request_id=by,
                )
                return [done.execution_id, done.version, len(done.executions_without_history)]
            case "over":
                return await self._ended(member)
            case _:
                raise AssertionError(act.kind)
        return None

    async def _ended(self, member: str) -> str:
        while True:
            info = await self.client.get_instance_info(member)
            if info.status in ("completed", "cancelled"):
                return info.status
            await anyio.sleep(0.02)

    async def current(self) -> int:
        info = await self._insist(lambda: self.client.get_instance_info(self.members[0]))
        return info.execution_id


class StationOperator(Operator):
    """Sends numbered events, holds and releases, pins, nudges, cancels, rewinds."""

    async def choose(self) -> tuple[str, dict[str, Any]] | None:
        standing, random = self.standing, self.random
        if standing.phase == "none":
            return "start", {}
        if standing.phase == "cancelled":
            return await self._rewind() if random.random() < 0.7 else ("over", {})
        if standing.phase == "ended":
            return await self._rewind()
        if standing.phase == "going":
            return "over", {}
        if standing.phase == "completed":
            rewinds = sum(act.kind == "rewind" for act in self._acts if act.number > self._end())
            return await self._rewind() if rewinds == 0 else None
        if self.stopping:
            if standing.held:
                return "release", {}
            done = {act.kind for act in self._acts}
            for kind in ("hold", "nudge", "send", "give", "pin"):
                if kind not in done:
                    return await self._details(kind)
            return ("unpin", {}) if standing.pinned else ("end", {})
        kinds = {"send": 4, "give": 3, "rewind": 1 if standing.held else 2}
        if standing.held:
            kinds |= {"release": 4}
        else:
            kinds |= {"hold": 2, "nudge": 2, "pin": 1, "unpin": 1, "cancel": 1}
        kind = random.choices(list(kinds), list(kinds.values()))[0]
        if kind == "cancel" and not await self._has_read_all():
            kind = "send"
        return await self._details(kind)

    async def _details(self, kind: str) -> tuple[str, dict[str, Any]]:
        """Return an act of a kind."""
        random = self.random
        match kind:
            case "send" | "give":
                sent = dict(self.standing.sent)
                events: list[tuple[str, int]] = []
                for _ in range(random.randint(1, 3)):
                    name = random.choice(NAMES)
                    events.append((name, sent[name]))
                    sent[name] += 1
                return kind, {"events": events}
            case "pin":
                return kind, {"version": random.choice(VERSIONS)}
            case "nudge":
                return kind, {"execution": await self.current()}
            case "rewind":
                return await self._rewind()
            case _:
                return kind, {}

    def _end(self) -> int:
        return next(act.number for act in self._acts if act.kind == "end")

    async def _rewind(self) -> tuple[str, dict[str, Any]]:
        random, current = self.random, await self.current()
        return "rewind", {
            "to": random.randint(max(1, current - BACK), current),
            "version": random.choice((None, *VERSIONS)),
            # Nothing unpins what has ended. In bulk, a rewind always pins.
            "pin": self.is_bulk or (not self.stopping and random.random() < 0.5),
            "children": random.choice(("abandon", "cancel")),
        }

    async def _has_read_all(self) -> bool:
        """Wait a little until nothing is unread: what is unread at the end of a life goes with
        it.
        """
        for _ in range(30):
            unread = [
                await self._insist(lambda member=member: self.client.list_messages(member))
                for member in self.members
            ]
            if not any(unread):
                return True
            await anyio.sleep(0.01)
        return False


class ErrandOperator(Operator):
    """Begins an instance again and again, ends it in each way, and takes it back."""

    async def choose(self) -> tuple[str, dict[str, Any]] | None:
        random, phase = self.random, self.standing.phase
        match phase:
            case "none":
                return self._begin("error")
            case "completed" | "ended":
                if self.stopping:
                    return None if phase == "completed" else await self._rewind()
                return self._begin("error") if random.random() < 0.7 else await self._rewind()
            case "waiting":
                chance = 0.0 if self.stopping else random.random()
                if chance > 0.85:
                    return "cancel", {}
                if chance > 0.7:
                    return self._begin("terminate")
                if chance > 0.55:
                    return await self._rewind()
                return "go", {"word": random.randint(0, 999)}
            case "going":
                return ("over", {}) if random.random() < 0.9 else await self._rewind()
            case _:
                return "over", {}

    def _begin(self, if_running: str) -> tuple[str, dict[str, Any]]:
        word = self.random.randint(0, 999) if self.random.random() < 0.6 else None
        value = self.random.randint(0, 999)
        return "begin", {"value": value, "word": word, "if_running": if_running}

    async def _rewind(self) -> tuple[str, dict[str, Any]]:
        return "rewind", {
            "to": await self.current(),
            "version": None,
            "pin": False,
            "children": "abandon",
        }


def _now() -> int:
    return time.time_ns() // 1000


async def main(options: argparse.Namespace) -> None:
    folder = options.store.parent
    status = Lines(folder / f"status-{options.name}")
    provider = provider_for(options)
    if options.die:
        Death(provider, options.die)
    async with Client(provider) as client:
        operators = [
            (ErrandOperator if crew.startswith("errand") else StationOperator)(
                client, folder, crew, members, Random(f"{options.seed} {crew} {options.name}")
            )
            for crew, members in CREWS.items()
        ]

        def stop(_signal: int, _frame: object) -> None:
            for operator in operators:
                operator.stopping = True

        signal.signal(signal.SIGUSR2, stop)
        status.write("ready")
        async with anyio.create_task_group() as group:
            for operator in operators:
                group.start_soon(_run, operator)
    status.write("ended")


async def _run(operator: Operator) -> None:
    try:
        await operator.run()
    except Exception:
        LOG.exception("the operator of %s broke off", operator.crew)
        raise


def operate(arguments: list[str]) -> None:
    """Be an operator."""
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--dsn", default="")
    parser.add_argument("--schema", default="orchestra")
    parser.add_argument("--busy", type=float, default=5)
    parser.add_argument("--statement", type=float, default=10)
    parser.add_argument("--seed", default="")
    parser.add_argument(
        "--die", default="", help="before:N or after:N: be killed there, at the n-th write"
    )
    options = parser.parse_args(arguments)
    errors = os.open(
        options.store.parent / f"errors-{options.name}",
        os.O_WRONLY | os.O_CREAT | os.O_APPEND,
        0o666,
    )
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    anyio.run(main, options)
