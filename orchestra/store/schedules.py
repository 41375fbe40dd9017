"""The rows of schedules, and the change that writes one (protocol rules 35 and 41).

A store knows when a schedule is due next, which instances it follows, and what became of its slots.
Definition and state are opaque to it: :mod:`orchestra.schedules` reads and decides them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from orchestra.codec import Packed, Payload, UserText
from orchestra.frozen import frozen
from orchestra.levels import Unknown
from orchestra.store.kinds import Status

__all__ = [
    "BACKFILLED",
    "FAILED",
    "KEPT_SLOTS",
    "MOST_FOLLOWED",
    "TRIGGERED",
    "DueSchedule",
    "EndedRun",
    "FollowedRun",
    "ScheduleFence",
    "ScheduleRecord",
    "ScheduleRow",
    "SlotKey",
    "SlotRow",
    "message_id_of",
]

KEPT_SLOTS: Final = 100
"""How many of the last slots of a schedule are kept, besides those whose instances it follows."""

MOST_FOLLOWED: Final = 1_000
"""How many instances a schedule follows at most; the oldest are followed no longer."""

_NONE: Final = UserText("")
FAILED: Final = "failed"
"""The outcome of a slot whose start or event a store refuses. The others are words of the pure
layer.
"""

BACKFILLED: Final = "backfill"
"""The cause of a slot that runs again, or late, as a caller asked. It shares ids with the slot."""
TRIGGERED: Final = "trigger"
"""The cause of a slot that a caller made, at the time of the call. The other causes share slots."""


@frozen
class ScheduleRow:
    """One schedule. Instants are microseconds.

    ``revision`` is its fence: each granted write adds one. ``value`` is what its action starts or
    sends. ``incarnation`` is a random id of its
    creation. ``next_at`` is when it must be looked at next; ``None``: never. ``level`` is the level
    that a library must read to tick it. ``declared`` is the revision under which code declares it;
    ``None``: code does not, and ``declared_at`` is when a node with that code last began.
    ``edition`` counts what people and declarations have changed, without ticks. ``request_id`` is
    the last operator's request.
    """

    schedule_id: str
    incarnation: str
    revision: int
    definition: Packed
    state: Packed
    value: Payload
    next_at: int | None
    paused: bool
    level: int
    declared: int | None
    declared_at: int | None
    edition: int
    created_at: int
    updated_at: int
    changed_by: str
    request_id: str


@frozen
class SlotKey:
    """One slot of a schedule. ``cause`` tells its own slots from those that callers ask for."""

    slot: int
    cause: str


@frozen
class SlotRow:
    """What became of a slot. ``reason`` says why. ``instance_id`` is what it has started, or sent
    an event to. ``at`` is when that was decided. ``follows``: the schedule wants to know how its
    instance ends, or whether its event is read; ``ended`` is the answer. One row may stand for
    several slots in a row with one outcome: for ``slot_count`` of them since ``first_slot``, or for
    ``more``. ``late``: it has fired late.
    """

    slot: int
    cause: str
    outcome: str
    reason: UserText = _NONE
    instance_id: str | None = None
    at: int = 0
    follows: bool = False
    first_slot: int | None = None
    slot_count: int = 1
    more: bool = False
    late: bool = False
    ended: str | None = None

    @property
    def key(self) -> SlotKey:
        """Its key among the slots of its schedule."""
        return SlotKey(self.slot, self.cause)


@frozen
class EndedRun:
    """A slot that is followed no longer, and how its instance has ended."""

    key: SlotKey
    ended: str


@frozen
class FollowedRun:
    """A slot that a schedule follows, with its instance as it is now.

    ``status`` is ``None`` if the instance is gone, or is no longer the one that the slot started.
    ``unread`` says whether the event of the slot waits in the inbox.
    """

    slot: SlotRow
    incarnation: str | None = None
    status: Status | Unknown | None = None
    held: bool = False
    unread: bool = False
    ending: bool = False
    """Whether it has a cancel mark."""


@frozen
class DueSchedule:
    """A schedule with the runs that it follows, in the order of their slots."""

    row: ScheduleRow
    runs: tuple[FollowedRun, ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    """What a dashboard shows of a schedule; ``slots`` are the newest ones first."""

    row: ScheduleRow
    runs: tuple[FollowedRun, ...] = ()
    slots: tuple[SlotRow, ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduleFence:
    """What a group reads of a schedule under its lock. ``revision`` is 0 if there is none."""

    incarnation: str
    revision: int


def message_id_of(schedule_id: str, key: SlotKey) -> str:
    """Return the id of the event that a slot sends: the same for each try (I14)."""
    tail = "/trigger" if key.cause == TRIGGERED else ""
    return f"schedule:{schedule_id}/{key.slot}{tail}"
