"""What a client in the driver's own process sends while the workers die, and what it was
promised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, TypeVar

import anyio
import anyio.abc

from orchestra import AlreadyCompleted, Client, InstanceNotFound, StoreError, WaitTimeout
from orchestra.clock import new_id
from orchestra.errors import LevelTooLow, OutcomeUnknown, UnknownOrchestration
from tests.support.crashes.program import (
    NAMES,
    Climb,
    Fan,
    Heard,
    Laps,
    Parent,
    Radio,
    Tally,
    digest_of_laps,
)
from tests.support.crashes.stores import open_ids

T = TypeVar("T")


@dataclass
class Promise:
    """How an instance must end: its status, and its output as plain JSON, where that is known."""

    status: str
    check: Callable[[Any], str | None] = lambda _output: None


@dataclass
class Promises:
    """Everything that was acknowledged."""

    ends: dict[str, Promise] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    """How often the store had to be asked again."""


def _check_laps(total: int) -> Callable[[Any], str | None]:
    def check(output: Any) -> str | None:
        if output["wrong"] or output["done"] != total or output["digest"] != digest_of_laps(total):
            return f"{total} laps ended as {output}"
        return None

    return check


def _check_heard(sent: dict[str, int]) -> Callable[[Any], str | None]:
    def check(output: Any) -> str | None:
        return (
            f"{sent} were sent, heard was {output}"
            if output["wrong"] or output["heard"] != sent
            else None
        )

    return check


def _check_tally(asked: Counter[str]) -> Callable[[Any], str | None]:
    def check(output: Any) -> str | None:
        problems = [*output["wrong"], *(one for one in asked if one.startswith("it"))]
        if problems or output["answered"] != asked["answered"]:
            return f"{asked} were asked, it ended as {output}: {problems}"
        return None

    return check


def _check_fan(rounds: int) -> Callable[[Any], str | None]:
    def check(output: Any) -> str | None:
        return (
            f"{rounds} rounds ended as {output}"
            if output["wrong"] or output["done"] != rounds
            else None
        )

    return check


def _check_radio(total: int) -> Callable[[Any], str | None]:
    """What it has published is held against its histories."""
    return lambda output: None if output["done"] == total else f"{total} laps ended as {output}"


def _check_climb(total: int, first: str, word: str | None) -> Callable[[Any], str | None]:
    """All laps, each once; versions never go down, but for the word of the code itself."""

    def check(output: Any) -> str | None:
        versions = output["versions"]
        expected = [word] * total if word else sorted(versions)
        if len(versions) != total or versions != expected or versions[0] < first:
            return f"{total} laps from {first} (word {word}) ran on {versions}"
        return None

    return check


class Traffic:
    """Starts instances, sends events, cancels, terminates, deletes; remembers what was
    acknowledged. Seeded.
    """

    def __init__(self, client: Client, random: Random, *, may_be_alone: bool = False) -> None:
        self.client = client
        self._may_be_alone = may_be_alone
        """Whether all workers may have gone home at times, so that nobody knows any
        orchestration.
        """
        self.promises = Promises()
        self.kinds: list[Callable[[], Awaitable[str]]] = [
            self.start_laps,
            self.start_laps,
            self.start_fan,
            self.start_parent,
            self.start_radio,
        ]
        """What runs by itself until it ends, as often as it stands here. ``program`` has the code,
        a ``Promise`` the end.
        """
        self._random = random
        self._numbers = Counter[str]()
        self.stopping = False

    async def insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until the store has answered."""
        while True:
            try:
                return await ask()
            except StoreError as error:
                if not (error.retryable or isinstance(error, OutcomeUnknown)):
                    raise
            except UnknownOrchestration:
                if not self._may_be_alone:
                    raise
            self.promises.repeats += 1
            await anyio.sleep(0.01)

    def open_instances(self) -> list[str]:
        """Return promised instances that have not ended yet, as the store has them now."""
        open_ones = open_ids(self.client._provider.directory)
        return [instance_id for instance_id in self.promises.ends if instance_id in open_ones]

    # --- starting ---

    async def start(
        self, name: str, state: Any, promise: Promise, *, version: str | None = None
    ) -> str:
        self._numbers[name] += 1
        instance_id = f"{name}-{self._numbers[name]}"
        request_id = new_id()
        for _ in range(
            self._random.choice((1, 1, 2))
        ):  # the same request again makes no second instance (I1)
            await self.insist(
                lambda: self.client.start(
                    name, state, instance_id=instance_id, request_id=request_id, version=version
                )
            )
        self.promises.ends[instance_id] = promise
        self.promises.counts["started"] += 1
        return instance_id

    async def start_laps(self, total: int | None = None) -> str:
        laps = total or self._random.randint(3, 25)
        return await self.start("laps", Laps(laps), Promise("COMPLETED", _check_laps(laps)))

    async def start_fan(self) -> str:
        rounds = self._random.randint(1, 4)
        return await self.start("fan", Fan(rounds), Promise("COMPLETED", _check_fan(rounds)))

    async def start_parent(self) -> str:
        rounds = self._random.randint(1, 3)
        return await self.start("parent", Parent(rounds), Promise("COMPLETED", _check_fan(rounds)))

    async def start_radio(self) -> str:
        laps = self._random.randint(2, 10)
        return await self.start("radio", Radio(laps), Promise("COMPLETED", _check_radio(laps)))

    async def start_climb(
        self, total: int, *, word: str | None = None, first: str = "1.0.0"
    ) -> str:
        promise = Promise("COMPLETED", _check_climb(total, first, word))
        return await self.start("climb", Climb(total, word), promise, version=first)

    # --- what goes on ---

    async def work(self, *, listeners: int = 6, askers: int = 3, at_once: int = 16) -> None:
        """Send until ``stopping``, then tell the listeners that that was all."""
        async with anyio.create_task_group() as group:
            for number in range(listeners):
                group.start_soon(self._talk, None if number % 2 else self._random.randint(10, 60))
            group.start_soon(self.keep_busy, at_once)
            group.start_soon(self._end_some)
            for _ in range(askers):
                group.start_soon(self._ask)

    async def keep_busy(self, at_once: int) -> None:
        """Start what ends by itself until ``stopping``, so that so many run at a time."""
        while not self.stopping:
            try:
                busy = len([one for one in self.open_instances() if not one.startswith("listen")])
            except StoreError:
                busy = at_once  # it may be away
            if busy < at_once:
                await self._random.choice(self.kinds)()
            else:
                await anyio.sleep(0.05)

    async def _talk(self, timer_ms: int | None) -> None:
        sent = dict.fromkeys(NAMES, 0)
        state = Heard(timer_ms, dict(sent))
        promise = Promise("COMPLETED", _check_heard(sent))
        instance_id = await self.start("listen", state, promise)
        while not self.stopping:
            name = self._random.choice(NAMES)
            await self._send(instance_id, name, sent[name])
            sent[name] += 1
            await anyio.sleep(self._random.random() * 0.03)
        await self._send(instance_id, "end", sent)

    async def _ask(self) -> None:
        """Send requests, one after the other, and hold each answer against the one that the same
        request gets again.
        """
        asked = Counter[str]()
        instance_id = await self.start("tally", Tally(), Promise("COMPLETED", _check_tally(asked)))
        while not self.stopping:
            number = asked["answered"]
            request_id = new_id()
            for _ in range(self._random.choice((1, 1, 2))):
                answer = await self._answer(instance_id, number, request_id)
                if answer != number + 1:
                    asked[f"it answered {number} with {answer}"] += 1
            asked["answered"] += 1
            self.promises.counts["requests"] += 1
            await anyio.sleep(self._random.random() * 0.03)
        await self._answer(instance_id, -1, new_id())

    async def _answer(self, instance_id: str, number: int, request_id: str) -> int:
        """Ask until there is an answer."""
        while True:
            try:
                return await self.insist(
                    lambda: self.client.request(
                        instance_id,
                        "ask",
                        number,
                        returns=int,
                        timeout=timedelta(seconds=1),
                        request_id=request_id,
                    )
                )
            except (WaitTimeout, LevelTooLow):
                self.promises.repeats += 1
                await anyio.sleep(0.01)

    async def _send(self, instance_id: str, name: str, payload: Any) -> None:
        message_id = new_id()
        for _ in range(self._random.choice((1, 1, 1, 2))):  # the same message again has no effect
            await self.insist(
                lambda: self.client.raise_event(instance_id, name, payload, message_id=message_id)
            )
        self.promises.counts["events"] += 1

    async def _end_some(self) -> None:
        while not self.stopping:
            way = self._random.choice((self._cancel_one, self._terminate_one, self._delete_one))
            await way()
            await anyio.sleep(self._random.random() * 0.1)

    async def _cancel_one(self) -> None:
        instance_id = await self.start("hang", 0, Promise("CANCELLED"))
        await anyio.sleep(self._random.random() * 0.2)
        await self.insist(lambda: self.client.cancel(instance_id, "enough"))
        self.promises.counts["cancelled"] += 1

    async def _terminate_one(self) -> str:
        instance_id = await self.start("hang", 0, Promise("TERMINATED"))
        await anyio.sleep(self._random.random() * 0.2)
        repeats = self.promises.repeats
        try:
            await self.insist(lambda: self.client.terminate(instance_id, "enough"))
        except AlreadyCompleted:
            if self.promises.repeats == repeats:  # else a try whose reply was lost has done it
                raise
        self.promises.counts["terminated"] += 1
        return instance_id

    async def _delete_one(self) -> None:
        instance_id = await self._terminate_one()
        del self.promises.ends[instance_id]
        repeats = self.promises.repeats
        try:
            await self.insist(lambda: self.client.delete(instance_id))
        except InstanceNotFound:
            if self.promises.repeats == repeats:
                raise
        self.promises.deleted.add(instance_id)
        self.promises.counts["deleted"] += 1
