"""What people see of a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from orchestra.schedules.schedule import Schedule
from orchestra.schedules.states import ScheduleCounters, SchedulePause, ScheduleState, SlotOutcome
from orchestra.schedules.ticks import ON_TIME, OpenRun

__all__ = ["ScheduleInfo", "Verdict", "describe", "verdict"]

Verdict = Literal["healthy", "late", "failing", "skipping", "paused", "never_ran"]
"""How a schedule does, in a word: the first of these that holds.

``paused``: it is paused. ``late``: a tick is more than a minute overdue. ``failing``: the last run
that ended has failed, or could not be started. ``skipping``: the last slot did not run because of
another run. ``never_ran``: no slot ran yet. ``healthy``: none of these.
"""


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """A schedule, and how it does.

    ``next_slots`` are the next ones in UTC, none while it is paused; ``next_at`` is when it acts
    next, with jitter. ``last_slots`` are the newest outcomes, the newest first. ``running`` are its
    open runs; a held one says why. ``waiting`` are slots that wait for their end. ``revision``
    counts the changes of the stored schedule, without its ticks. ``declared`` is whether the code
    of a living node declares it, as far as is known; ``None``: code never did. ``changed_at`` is
    when anything of it was written last, ticks included; ``changed_by`` is who changed it last.
    """

    schedule: Schedule
    verdict: Verdict
    next_slots: tuple[datetime, ...]
    next_at: datetime | None
    last_slots: tuple[SlotOutcome, ...]
    counters: ScheduleCounters
    running: tuple[OpenRun, ...]
    waiting: tuple[datetime, ...]
    pause: SchedulePause | None
    revision: int
    declared: bool | None = None
    created_at: datetime | None = None
    changed_at: datetime | None = None
    changed_by: str = ""

    @property
    def id(self) -> str:
        return self.schedule.id


def verdict(state: ScheduleState, now: datetime) -> Verdict:
    """Return how a schedule does."""
    pause = state.pause
    if pause is not None and (pause.until is None or now < pause.until):
        return "paused"
    if state.next_at is not None and now - state.next_at > ON_TIME:
        return "late"
    if state.failures:
        return "failing"
    if state.overlaps:
        return "skipping"
    return "healthy" if state.counters.fired else "never_ran"


def describe(
    schedule: Schedule,
    state: ScheduleState,
    running: Sequence[OpenRun],
    outcomes: Sequence[SlotOutcome],
    now: datetime,
    *,
    revision: int,
    slots: int = 5,
) -> ScheduleInfo:
    """Return what people see of a schedule. ``outcomes`` are stored ones, the newest first."""
    said = verdict(state, now)
    return ScheduleInfo(
        schedule,
        said,
        () if said == "paused" else schedule.preview(max(state.cursor, now), slots),
        state.next_at,
        tuple(outcomes),
        state.counters,
        tuple(running),
        tuple(one.slot for one in state.buffered),
        state.pause,
        revision,
    )
