"""What a system does in this bench, whatever it calls it."""

from __future__ import annotations

import asyncio
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

Kind = Literal["hello", "fan", "loop", "sequence", "timer", "park", "chain"]
"""``hello``: one activity, returns its value. ``fan``: so many activities at once, returns how many
ended. ``loop``: so many laps of one activity. ``sequence``: so many activities, one after the other.
``timer``: an activity that reads the clock, a timer, and another such activity; returns both times.
``park``: an activity, then it waits for an event that never comes. ``chain``: activities of half a
second, one after the other, without end."""

TIMER: Final = 2.0
"""Seconds that ``timer`` waits."""
STEP: Final = 0.5
"""Seconds that an activity of ``chain`` takes."""
CHAIN: Final = 100_000
"""Steps of a chain: it is killed long before."""
LEASE: Final = 10
"""Seconds after which others take over the work of a process that died, where a system has such a
time. It is orchestra's default."""


class Marks:
    """What activities leave outside of any store: arrivals, counted in this process, and a ledger of
    the steps of chains, a line each, written at once, so that a kill loses none.
    """

    def __init__(self, ledger: Path | None = None) -> None:
        self.arrived = 0
        self._file = (
            None if ledger is None else os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        )

    def arrive(self) -> int:
        """Count one more; ``park`` and the last lap of an imitated ``loop`` do."""
        self.arrived += 1
        return self.arrived

    def note(self, name: str) -> str:
        """Write down that this process begins a step of a chain now."""
        if self._file is not None:
            os.write(self._file, f"{os.getpid()} {time.time()} {name}\n".encode())
        return name

    async def until(self, count: int) -> None:
        """Wait until so many have arrived."""
        while self.arrived < count:  # noqa: ASYNC110 - activities arrive in other threads
            await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Place:
    """Where a contestant works.

    Args:
        store: a path, a connection string, or what :mod:`stores` makes of a server.
        durability: ``full`` or ``relaxed``, for those that offer both.
        node: which of them this is.
        chains: this try runs so many activities of half a second at once.
        idle: this try measures what waiting costs, so that polling is as the system has it by default.
    """

    store: str
    durability: str = "full"
    node: int = 0
    chains: int = 0
    idle: bool = False


class Contestant(ABC):
    """A system, in a process that works with it."""

    def __init__(self, place: Place, marks: Marks) -> None:
        self.place = place
        self.marks = marks

    @abstractmethod
    async def open(self, *, work: bool = True) -> None:
        """Open the store, and begin to work, or be a client only.

        Work that a former process left is taken up.
        """

    @abstractmethod
    async def close(self) -> None:
        """Stop, in order."""

    @abstractmethod
    async def call(self, kind: Kind, value: Any) -> Any:
        """Start an instance, and return its result."""

    async def call_all(self, kind: Kind, values: Sequence[Any]) -> list[Any]:
        """Start instances at once, and return their results."""
        return await asyncio.gather(*(self.call(kind, value) for value in values))

    @abstractmethod
    async def begin_all(self, kind: Kind, values: Sequence[Any]) -> None:
        """Start instances, and wait for no result."""

    async def multiply(self, count: int) -> None:
        """Make so many copies of one parked instance."""
        raise NotImplementedError(f"{count} copies: built for orchestra's tables only")
