"""What a store answers to each change of a group."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestra.frozen import frozen
from orchestra.store.inbox_limits import Full
from orchestra.store.instances import CancelMark
from orchestra.store.messages import MessageRow
from orchestra.store.snapshots import Snapshot
from orchestra.store.tasks import ActivityRow, Task

__all__ = [
    "AppendRefused",
    "Appended",
    "Claimed",
    "Commit",
    "Granted",
    "Outcome",
    "Recovered",
    "Refusal",
    "Refused",
    "Reported",
    "StartExists",
    "Started",
]


class Refusal(StrEnum):
    """Why a message or a cancel was not taken."""

    NOT_FOUND = "not found"
    CLOSED = "closed"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Started:
    """The instance is there."""


@dataclass(frozen=True, slots=True)
class StartExists:
    """The id is taken. ``same``: by this very request, so that the start has succeeded before."""

    same: bool


@frozen
class Appended:
    """A message, a mark or the end of an activity was stored under ``sequence`` (or was there
    already: ``fresh=False``).
    """

    sequence: int
    owner: str | None
    fresh: bool
    message: MessageRow | None = None
    cancel: CancelMark | None = None
    activity: ActivityRow | None = None


@dataclass(frozen=True, slots=True)
class AppendRefused:
    """Nothing was stored. ``full`` says of a full inbox which bound it has met."""

    reason: Refusal
    full: Full | None = None


@frozen
class Granted:
    """A write was applied; the row's revision is now one higher. ``inbox_seq`` shows what has
    arrived meanwhile.

    ``arrivals`` are the messages and marks that the write has left with instances, by their ids,
    and the ends of activities that its ``stops`` have left with its own; ``taken`` the ids of those
    of its starts that nobody waits for and that were left alone, because somebody else has the id.
    """

    inbox_seq: int
    arrivals: tuple[tuple[str, Appended], ...] = ()
    taken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The fence did not hold: the row belongs to somebody else. Nothing was written (I6)."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What was taken; it belongs to the claiming node now. ``more``: a limit was reached."""

    snapshots: tuple[Snapshot, ...]
    more: bool
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True, slots=True)
class Recovered:
    """The instance as it stands, still owned by the asking node, or ``None`` where it is not."""

    snapshot: Snapshot | None


@dataclass(frozen=True, slots=True)
class Reported:
    """A report was taken. ``arrival``: what it has left with the instance; ``None`` for a
    heartbeat.

    ``stopping``: the try has the stop mark.
    """

    arrival: Appended | None = None
    stopping: bool = False


Outcome = (
    Started
    | StartExists
    | Appended
    | AppendRefused
    | Granted
    | Refused
    | Claimed
    | Recovered
    | Reported
)


@dataclass(frozen=True, slots=True)
class Commit:
    """A committed group: the store's time, and an outcome for each change, in order."""

    now: int
    outcomes: tuple[Outcome, ...]
