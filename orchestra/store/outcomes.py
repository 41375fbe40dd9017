"""The answers of a store to the changes of a group."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestra.frozen import frozen
from orchestra.store.inbox_limits import Full
from orchestra.store.instances import CancelMark
from orchestra.store.messages import MessageRow
from orchestra.store.requests import RequestAnswer
from orchestra.store.schedules import SlotRow
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
    "RefusedSend",
    "Reported",
    "ScheduleWritten",
    "StartExists",
    "Started",
]


class Refusal(StrEnum):
    """Why a message or a cancel was refused."""

    NOT_FOUND = "not found"
    CLOSED = "closed"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Started:
    """The instance was made, or begun again. ``appended`` are the events of its start."""

    appended: tuple[Appended, ...] = ()
    restarted: bool = False


@dataclass(frozen=True, slots=True)
class StartExists:
    """The id is taken. ``same``: by this very request, so the start had succeeded before.

    If the start asked for it, ``is_open`` says whether the instance has not ended. ``appended`` are
    the events of the start that a running instance has got; ``full`` is why it has got none.
    ``other`` is its orchestration, if that is another one: then nothing was done.
    """

    same: bool
    is_open: bool | None = None
    appended: tuple[Appended, ...] = ()
    full: Full | None = None
    other: str | None = None


@frozen
class Appended:
    """A message, a mark or an activity's end was stored under ``sequence``, or had been
    (``fresh=False``).
    """

    sequence: int
    owner: str | None
    fresh: bool
    message: MessageRow | None = None
    cancel: CancelMark | None = None
    activity: ActivityRow | None = None
    answer: RequestAnswer | None = None
    """The answer to a request that was asked again."""


@dataclass(frozen=True, slots=True)
class AppendRefused:
    """Nothing was stored. ``full`` is the bound that a full inbox has met."""

    reason: Refusal
    full: Full | None = None


@dataclass(frozen=True, slots=True)
class RefusedSend:
    """What an instance has sent and its target has refused: an event of this ``name``, or a cancel
    (``None``).
    """

    target: str
    name: str | None
    reason: str


@frozen
class Granted:
    """A write was applied; the row's revision is one higher. ``inbox_seq`` shows arrivals
    meanwhile.

    ``arrivals`` are the messages and marks that the write left with instances, by their ids, and
    the activity ends that its ``stops`` left with its own. ``taken`` are the ids of detached starts
    that were left out because another instance has the id.
    ``refused`` are sends that were refused after their execution had closed, so that it gets no
    receipt.
    """

    inbox_seq: int
    arrivals: tuple[tuple[str, Appended], ...] = ()
    taken: tuple[str, ...] = ()
    refused: tuple[RefusedSend, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The fence did not hold: another node owns the row. Nothing was written (I6)."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The claimed instances and activities; the claiming node owns them. ``more``: a limit was
    reached.
    """

    snapshots: tuple[Snapshot, ...]
    more: bool
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True, slots=True)
class Recovered:
    """The instance, if the asking node still owns it, otherwise ``None``."""

    snapshot: Snapshot | None


@dataclass(frozen=True, slots=True)
class Reported:
    """A report was stored. ``arrival``: the arrival at the instance; ``None`` for a heartbeat.

    ``stopping``: the attempt has the stop mark.
    """

    arrival: Appended | None = None
    stopping: bool = False


@frozen
class ScheduleWritten:
    """A schedule was written, or deleted; its revision is one higher. ``slots`` are those of the
    write, with what became of them. ``arrivals`` are the events and marks that it left with
    instances, by their ids.
    """

    slots: tuple[SlotRow, ...] = ()
    arrivals: tuple[tuple[str, Appended], ...] = ()


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
    | ScheduleWritten
)


@dataclass(frozen=True, slots=True)
class Commit:
    """A committed group: the store's time, and an outcome for each change, in order."""

    now: int
    outcomes: tuple[Outcome, ...]
