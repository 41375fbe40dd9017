"""What a schedule remembers between its ticks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from orchestra.schedules.schedule import run_id

__all__ = [
    "Outcome",
    "ScheduleCounters",
    "SchedulePause",
    "ScheduleState",
    "SlotOutcome",
    "Waiting",
]

Outcome = Literal["fired", "skipped_overlap", "missed_window", "dropped_buffer", "failed", "paused"]
"""What became of a slot. ``failed``: its start, or its event, was refused."""

Cause = Literal["slot", "backfill", "trigger"]


@dataclass(frozen=True, slots=True)
class SchedulePause:
    """Why and since when a schedule is paused, and by whom. ``until``: when it resumes by
    itself; the slots until then have the outcome ``paused``.
    """

    reason: str
    by: str
    at: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ScheduleCounters:
    """How many slots had each outcome; ``late`` of the fired ones ran more than a minute late."""

    fired: int = 0
    skipped: int = 0
    missed: int = 0
    dropped: int = 0
    failed: int = 0
    paused: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A slot that waits for the end of a run; ``cause`` is how it came to run."""

    slot: datetime
    cause: Cause = "slot"

    def run_id(self, schedule_id: str) -> str:
        return run_id(schedule_id, self.slot, is_trigger=self.cause == "trigger")


@dataclass(frozen=True, slots=True)
class SlotOutcome:
    """What became of a slot, or of several in a row.

    ``slot`` is the newest of them and ``first`` the oldest, ``count`` how many they are. If
    ``is_all`` is false, they are more than that. ``run`` is the instance that was started, or the
    message that was sent.
    """

    slot: datetime
    outcome: Outcome
    reason: str = ""
    run: str | None = None
    is_late: bool = False
    cause: Cause = "slot"
    first: datetime | None = None
    count: int = 1
    is_all: bool = True


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """What a schedule remembers.

    Args:
        cursor: slots up to it were evaluated. It never goes back.
        next_at: when the next tick is due. ``None``: never, unless something changes.
        pause: if it is paused.
        buffered: slots that wait for the end of a run, the oldest first.
        watched: runs whose end is not counted yet, the oldest first; at most the 100 newest.
        failures: runs that failed, or could not be started, in a row.
        overlaps: slots in a row that did not run because of another run.
        last_fired: the newest slot that ran.
        counters: how many slots had each outcome.
    """

    cursor: datetime
    next_at: datetime | None = None
    pause: SchedulePause | None = None
    buffered: tuple[Waiting, ...] = ()
    watched: tuple[str, ...] = ()
    failures: int = 0
    overlaps: int = 0
    last_fired: datetime | None = None
    counters: ScheduleCounters = ScheduleCounters()
