"""What a tick decides (protocol rule 35).

A tick evaluates the slots in (max(cursor, now - window), now], whatever happened before: a
suspended machine, a restart, another node and a clock that jumped are one case. A clock that goes
back evaluates nothing again. The store calls :func:`tick` in the transaction that holds the lock of
the schedule's row, and writes all of the :class:`Tick`, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from orchestra.errors import InvalidSchedule
from orchestra.schedules.local_clock import TICK
from orchestra.schedules.schedule import Event, Overlap, Schedule
from orchestra.schedules.slots import last_slots
from orchestra.schedules.states import (
    Outcome,
    ScheduleCounters,
    SchedulePause,
    ScheduleState,
    SlotOutcome,
    Waiting,
)

__all__ = [
    "BACKFILL_LIMIT",
    "BUFFER_LIMIT",
    "BUFFER_POLL",
    "CATCH_UP_LIMIT",
    "COUNT_LIMIT",
    "ON_TIME",
    "WATCHED_LIMIT",
    "EndedRun",
    "Facts",
    "OpenRun",
    "RunDue",
    "Tick",
    "backfill",
    "backfill_slots",
    "first_state",
    "paused",
    "resume",
    "tick",
    "trigger",
    "updated",
]

CATCH_UP_LIMIT: Final = 100
"""The most slots that one tick lets run."""
BUFFER_LIMIT: Final = 1_000
"""The most slots that wait for the end of a run."""
BACKFILL_LIMIT: Final = 1_000
"""The most slots of one backfill."""
WATCHED_LIMIT: Final = 100
COUNT_LIMIT: Final = 2_000
"""So many missed slots are counted one by one; more of them are only known to be more."""
ON_TIME: Final = timedelta(minutes=1)
"""A slot that runs at most so long after it was due is not late."""
BUFFER_POLL: Final = timedelta(seconds=5)
"""How often a schedule with waiting slots looks at first whether its run has ended: the end of an
instance writes nothing about its schedule. Later it looks after a fiftieth of the time for which
the slot has waited, and at least every five minutes.
"""
_BUFFER_SHARE: Final = 0.02
_LONGEST_BUFFER_POLL: Final = timedelta(minutes=5)
_LOOK_AHEAD: Final = 8
"""With jitter, the next slot is not always the first one that is due."""


# --- what a tick is told ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenRun:
    """An open instance of the schedule, whatever its lap. ``held`` says why it is held, if it is;
    ``is_ending``: a cancel or terminate is on its way to it.
    """

    instance_id: str
    held: str | None = None
    is_ending: bool = False

    def __str__(self) -> str:
        if self.held is not None:
            return f"{self.instance_id} is held ({self.held})"
        return f"{self.instance_id} {'is ending' if self.is_ending else 'still runs'}"


@dataclass(frozen=True, slots=True)
class EndedRun:
    """An instance of the schedule that has ended."""

    instance_id: str
    status: Literal["completed", "failed", "cancelled", "terminated"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the store knows under the lock of the schedule's row.

    ``running``: all open instances of the schedule. ``ended``: those of ``state.watched`` that have
    ended; more do no harm. ``unread``: the id of the schedule's tick that the instance of an
    :class:`Event` has not read yet.
    """

    running: Sequence[OpenRun] = ()
    ended: Sequence[EndedRun] = ()
    unread: str | None = None


# --- what a tick decides ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunDue:
    """A run to start, or an event to send. ``run`` is the id of the instance, or of the message.
    ``due`` is when a run begins: a start whose due time is still to come is a delayed one.
    """

    slot: datetime
    run: str
    due: datetime


@dataclass(frozen=True, slots=True)
class Tick:
    """What a tick decides. It is written wholly, in one transaction.

    ``state`` has the new cursor and ``next_at``. Cancels and terminates name open instances.
    """

    state: ScheduleState
    starts: tuple[RunDue, ...] = ()
    events: tuple[RunDue, ...] = ()
    cancels: tuple[str, ...] = ()
    terminates: tuple[str, ...] = ()
    outcomes: tuple[SlotOutcome, ...] = ()

    def refused(self, run: str, reason: str, *, is_failure: bool = True) -> Tick:
        """Return the tick in which a start or event was refused: its slot has failed.

        ``is_failure``: it counts as a failed run. It should not where the slot ran before.
        """
        state = self.state
        outcomes: list[SlotOutcome] = []
        for outcome in self.outcomes:
            if outcome.run != run or outcome.outcome != "fired":
                outcomes.append(outcome)
                continue
            outcomes.append(replace(outcome, outcome="failed", reason=reason, is_late=False))
            counters = state.counters
            state = replace(
                state,
                watched=tuple(one for one in state.watched if one != run),
                failures=state.failures + is_failure,
                counters=replace(
                    counters,
                    fired=counters.fired - 1,
                    late=counters.late - outcome.is_late,
                    failed=counters.failed + 1,
                ),
            )
        return replace(
            self,
            state=state,
            starts=tuple(one for one in self.starts if one.run != run),
            events=tuple(one for one in self.events if one.run != run),
            outcomes=tuple(outcomes),
        )


def first_state(schedule: Schedule, now: datetime) -> ScheduleState:
    """Return the state of a schedule that is created now. It has no slots before now."""
    return _with_wake(schedule, ScheduleState(now), now)


def updated(
    schedule: Schedule, state: ScheduleState, now: datetime, *, before: Schedule | None = None
) -> ScheduleState:
    """Return the state under a changed schedule.

    A new spec has no slots before now. ``before`` is the schedule as it was: if both have the same
    slots, those that were missed are still caught up.
    """
    has_same_slots = before is not None and _when(before) == _when(schedule)
    if state.pause is None and not has_same_slots:
        state = replace(state, cursor=max(state.cursor, now))
    return _with_wake(schedule, state, now)


def _when(schedule: Schedule) -> tuple[object, ...]:
    return schedule.spec, schedule.start_at, schedule.end_at


def paused(schedule: Schedule, state: ScheduleState, pause: SchedulePause) -> ScheduleState:
    """Return the state of a schedule that is paused. Its slots are evaluated when it resumes."""
    return _with_wake(schedule, replace(state, pause=pause), pause.at)


def resume(schedule: Schedule, state: ScheduleState, now: datetime, *, catch_up: bool) -> Tick:
    """Resume a schedule. With ``catch_up``, the next tick catches up the slots of the pause as the
    schedule says; without it, their outcome is ``paused``.
    """
    decision = _Decision(schedule, state, Facts(), now)
    decision.resume(now, catch_up=catch_up)
    return decision.tick()


def tick(schedule: Schedule, state: ScheduleState, facts: Facts, now: datetime) -> Tick:
    """Decide a tick: which slots run, which do not, and why."""
    decision = _Decision(schedule, state, facts, now)
    if state.pause is not None and state.pause.until is not None and state.pause.until <= now:
        decision.resume(state.pause.until, catch_up=False)
    decision.count_ends()
    decision.pause_after_failures()
    if decision.pause is None:
        slots = decision.evaluate()
        # A new slot that ends other runs must end none that begins in the same tick.
        if not slots or schedule.overlap not in _ENDING:
            decision.release_buffered()
        decision.apply(slots, schedule.overlap)
    return decision.tick()


def trigger(
    schedule: Schedule,
    state: ScheduleState,
    facts: Facts,
    now: datetime,
    *,
    overlap: Overlap | None = None,
) -> Tick:
    """Run the schedule's action now, also if it is paused. No slot is evaluated."""
    decision = _Decision(schedule, state, facts, now)
    decision.count_ends()
    decision.apply([Waiting(now, "trigger")], overlap or schedule.overlap)
    return decision.tick()


def backfill_slots(
    schedule: Schedule, start: datetime, end: datetime, now: datetime
) -> tuple[datetime, ...]:
    """Return the slots that a backfill of an interval (both ends within) would run. They may lie
    before ``start_at``, but not in the future.

    Raises:
        InvalidSchedule: they are more than 1,000, or the schedule sends events.
    """
    if isinstance(schedule.action, Event):
        raise InvalidSchedule(
            f"schedule {schedule.id!r} sends events, of which at most one is unread; a backfill "
            "starts runs"
        )
    found = last_slots(schedule.spec, start - TICK, min(end, now), BACKFILL_LIMIT + 1)
    if len(found) > BACKFILL_LIMIT:
        raise InvalidSchedule(
            f"schedule {schedule.id!r} has more than {BACKFILL_LIMIT} slots from {start} to {end}; "
            "backfill a shorter interval"
        )
    return tuple(found)


def backfill(
    schedule: Schedule,
    state: ScheduleState,
    facts: Facts,
    slots: Iterable[datetime],
    now: datetime,
    *,
    overlap: Overlap = "buffer_all",
) -> Tick:
    """Run past slots again, also if the schedule is paused. The cursor stays.

    A slot whose instance still exists is refused by the store: it ran.
    """
    decision = _Decision(schedule, state, facts, now)
    decision.count_ends()
    decision.apply([Waiting(slot, "backfill") for slot in slots], overlap)
    return decision.tick()


def _with_wake(schedule: Schedule, state: ScheduleState, now: datetime) -> ScheduleState:
    return replace(state, next_at=_wake(schedule, state, now))


def _wake(schedule: Schedule, state: ScheduleState, now: datetime) -> datetime | None:
    """Return when the next tick is due."""
    if state.pause is not None:
        return state.pause.until
    # Each slot may be due before the one before it, by less than the jitter.
    ahead = schedule.preview(state.cursor, _LOOK_AHEAD if schedule.jitter else 1)
    found = [schedule.due(slot) for slot in ahead]
    if state.buffered:
        found.append(now + _patience(now - state.buffered[0].slot))
    return min(found, default=None)


_ENDING: Final = frozenset({"cancel_other", "terminate_other"})
"""What ends the runs that are in the way."""


def _patience(waited: timedelta) -> timedelta:
    """Return when to look at the run again that slots wait for: less often, the longer it takes."""
    return min(max(BUFFER_POLL, waited * _BUFFER_SHARE), _LONGEST_BUFFER_POLL)


_COUNTED: Final[dict[Outcome, str]] = {
    "fired": "fired",
    "skipped_overlap": "skipped",
    "missed_window": "missed",
    "dropped_buffer": "dropped",
    "failed": "failed",
    "paused": "paused",
}


class _Decision:
    """A tick while it is decided."""

    __slots__ = (
        "buffered",
        "cancels",
        "counts",
        "cursor",
        "events",
        "facts",
        "failures",
        "last_fired",
        "now",
        "outcomes",
        "overlaps",
        "pause",
        "running",
        "schedule",
        "starts",
        "terminates",
        "unread",
        "watched",
    )

    def __init__(
        self, schedule: Schedule, state: ScheduleState, facts: Facts, now: datetime
    ) -> None:
        self.schedule = schedule
        self.facts = facts
        self.now = now
        self.cursor = state.cursor
        self.pause = state.pause
        self.buffered = list(state.buffered)
        self.watched = list(state.watched)
        self.failures = state.failures
        self.overlaps = state.overlaps
        self.last_fired = state.last_fired
        self.counts = {
            name: getattr(state.counters, name) for name in ScheduleCounters.__dataclass_fields__
        }
        self.running = list(facts.running)
        self.unread = facts.unread
        self.starts: list[RunDue] = []
        self.events: list[RunDue] = []
        self.cancels: list[str] = []
        self.terminates: list[str] = []
        self.outcomes: list[SlotOutcome] = []

    def tick(self) -> Tick:
        state = ScheduleState(
            self.cursor,
            None,
            self.pause,
            tuple(self.buffered),
            tuple(self.watched[-WATCHED_LIMIT:]),
            self.failures,
            self.overlaps,
            self.last_fired,
            ScheduleCounters(**self.counts),
        )
        return Tick(
            _with_wake(self.schedule, state, self.now),
            tuple(self.starts),
            tuple(self.events),
            tuple(self.cancels),
            tuple(self.terminates),
            tuple(self.outcomes),
        )

    # --- what happened since the last tick ---

    def count_ends(self) -> None:
        """Count the ends of watched runs, each once, in the order in which they were started."""
        ends = {run.instance_id: run.status for run in self.facts.ended}
        is_open = {run.instance_id for run in self.facts.running}
        for run in self.watched:
            match ends.get(run):
                case "failed":
                    self.failures += 1
                case "completed":
                    self.failures = 0
                case _:
                    pass
        # A run that is neither open nor ended was deleted.
        self.watched = [run for run in self.watched if run in is_open and run not in ends]

    def pause_after_failures(self) -> None:
        most = self.schedule.pause_after_failures
        if self.pause is None and most is not None and self.failures >= most:
            reason = f"{self.failures} runs failed in a row"
            self.pause = SchedulePause(reason, "orchestra", self.now)

    def resume(self, at: datetime, *, catch_up: bool) -> None:
        if self.pause is None:
            return
        reason = f"paused by {self.pause.by}: {self.pause.reason}"
        self.pause = None
        self.failures = 0
        if not catch_up:
            self._pass_over(at, "paused", reason)

    # --- slots ---

    def evaluate(self) -> list[Waiting]:
        """Move the cursor to now; return the slots that are to run, if no other run is in the
        way.
        """
        schedule, now = self.schedule, self.now
        if now <= self.cursor:
            return []  # the clock went back
        if now - self.cursor > schedule.catch_up_window:
            self._pass_over(
                now - schedule.catch_up_window,
                "missed_window",
                f"older than the catch-up window, {schedule.catch_up_window}",
            )
        found = schedule.last_slots(self.cursor, now, CATCH_UP_LIMIT)
        if len(found) == CATCH_UP_LIMIT:
            self._pass_over(found[0] - TICK, "missed_window", self._missed())
        self.cursor = now
        kept = found
        if schedule.catch_up != "all":
            # Slots whose jitter is not over were not missed; of the others the newest one counts.
            past = [slot for slot in found if schedule.due(slot) <= now]
            newest = past[-1:]
            if schedule.catch_up == "none":
                newest = [slot for slot in newest if now - schedule.due(slot) <= ON_TIME]
            missed = past[: len(past) - len(newest)]
            self._outcome_of(missed, "missed_window", self._missed())
            kept = [slot for slot in found if slot not in set(missed)]
        return [Waiting(slot) for slot in kept]

    def _missed(self) -> str:
        match self.schedule.catch_up:
            case "all":
                return f"more than {CATCH_UP_LIMIT} slots were missed; the newest are caught up"
            case "latest":
                return "only the newest missed slot is caught up"
            case "none":
                return "missed slots are not caught up"

    def _pass_over(self, until: datetime, outcome: Outcome, reason: str) -> None:
        """Move the cursor over slots that do not run."""
        if until <= self.cursor:
            return
        schedule = self.schedule
        count, is_all = schedule.count_slots(self.cursor, until, COUNT_LIMIT)
        if count:
            first = next(schedule.slots(self.cursor, until))
            last = schedule.last_slots(self.cursor, until, 1)[-1]
            self._add(SlotOutcome(last, outcome, reason, first=first, count=count, is_all=is_all))
        self.cursor = until

    # --- overlap ---

    def release_buffered(self) -> None:
        """Let a waiting slot run whose run has ended."""
        while self.buffered and (not self.running or self.schedule.overlap == "allow_all"):
            self._fire(self.buffered.pop(0), is_late=False)  # it waited as it was told to

    def apply(self, slots: Sequence[Waiting], overlap: Overlap) -> None:
        """Let slots run, the oldest first, as far as other runs allow."""
        if overlap in _ENDING and slots:
            self._drop_buffered(slots[-1])
            # Those of one tick would only end each other.
            reason = f"replaced by the slot {slots[-1].slot.isoformat()}"
            self._outcome_of([one.slot for one in slots[:-1]], "dropped_buffer", reason)
            slots = slots[-1:]
        for one in slots:
            if isinstance(self.schedule.action, Event):
                self._send(one)
            elif overlap == "allow_all" or not (self.running or self.buffered):
                self._fire(one, self._is_late(one))
            else:
                self._overlap(one, overlap)

    def _send(self, one: Waiting) -> None:
        if self.unread is None:
            self._fire(one, self._is_late(one))
        else:
            self._skip(one, f"{self.unread} is still unread")

    def _overlap(self, one: Waiting, overlap: Overlap) -> None:
        match overlap:
            case "skip":
                self._skip(one, self._in_the_way())
            case "buffer_one":
                self._replace_buffered(one)
            case "buffer_all":
                self.overlaps += 1
                self.buffered.append(one)
                if len(self.buffered) > BUFFER_LIMIT:
                    self._drop(self.buffered.pop(0), f"more than {BUFFER_LIMIT} slots wait")
            case "cancel_other":
                self.cancels += [run.instance_id for run in self.running if not run.is_ending]
                self.running = [replace(run, is_ending=True) for run in self.running]
                self._replace_buffered(one)
            case "terminate_other":
                self.terminates += [run.instance_id for run in self.running]
                self.running.clear()
                self._fire(one, self._is_late(one))
            case "allow_all":
                raise AssertionError("nothing is in the way")

    def _in_the_way(self) -> str:
        if not self.running:
            return f"{len(self.buffered)} slots wait to run"
        # A held run is named first: it needs someone to look at it.
        ordered = sorted(self.running, key=lambda run: run.held is None)
        more = f", and {len(ordered) - 1} more" if len(ordered) > 1 else ""
        return f"{ordered[0]}{more}"

    def _replace_buffered(self, one: Waiting) -> None:
        self.overlaps += 1
        self._drop_buffered(one)
        self.buffered.append(one)

    def _drop_buffered(self, one: Waiting) -> None:
        """Drop the waiting slot that a newer one replaces; a backfill and a trigger stay."""
        for waiting in [other for other in self.buffered if other.cause == "slot"]:
            self.buffered.remove(waiting)
            self._drop(waiting, f"replaced by the slot {one.slot.isoformat()}")

    # --- outcomes ---

    def _due(self, one: Waiting) -> datetime:
        return self.schedule.due(one.slot) if one.cause == "slot" else self.now

    def _is_late(self, one: Waiting) -> bool:
        return self.now - self._due(one) > ON_TIME

    def _fire(self, one: Waiting, is_late: bool) -> None:  # noqa: FBT001
        run, due = one.run_id(self.schedule.id), self._due(one)
        if isinstance(self.schedule.action, Event):
            self.events.append(RunDue(one.slot, run, due))
            self.unread = run
        else:
            self.starts.append(RunDue(one.slot, run, due))
            self.running.append(OpenRun(run))
            self.watched.append(run)
        self.overlaps = 0
        self.last_fired = max(one.slot, self.last_fired or one.slot)
        self._add(SlotOutcome(one.slot, "fired", "", run, is_late, one.cause))

    def _skip(self, one: Waiting, reason: str) -> None:
        self.overlaps += 1
        self._add(SlotOutcome(one.slot, "skipped_overlap", reason, cause=one.cause))

    def _drop(self, one: Waiting, reason: str) -> None:
        self._add(SlotOutcome(one.slot, "dropped_buffer", reason, cause=one.cause))

    def _outcome_of(self, slots: Sequence[datetime], outcome: Outcome, reason: str) -> None:
        if slots:
            self._add(SlotOutcome(slots[-1], outcome, reason, first=slots[0], count=len(slots)))

    def _add(self, outcome: SlotOutcome) -> None:
        self.outcomes.append(outcome)
        self.counts[_COUNTED[outcome.outcome]] += outcome.count
        self.counts["late"] += outcome.is_late
