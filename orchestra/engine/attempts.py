"""The activities of an execution that have no result yet, and their tries.

Everything here costs in proportion to what changes, never to how many are pending: a fan-out of ten
thousand is ordinary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from orchestra.clock import from_micros, micros
from orchestra.codec import Payload, pack_value, unpack
from orchestra.engine.messages import ActivityEnded, ActivityFailure
from orchestra.engine.tasks import CRASHED, failure_to_bytes, how_it_ended
from orchestra.error_info import brief_attempts
from orchestra.errors import Attempt, ErrorInfo
from orchestra.events import ActivityScheduled, attempts_from_wire, attempts_to_wire
from orchestra.replay import ActivityDied, ActivityDone, Input
from orchestra.replay.execution import ACTIVITY_CANCELLED
from orchestra.store.routes import Route
from orchestra.store.tasks import ActivityRow
from orchestra.summary import Tried

__all__ = ["Attempts", "FailedAttempt", "PendingActivity", "early_row", "kept_end"]

_UNTRIED_DELAY: Final = 15_000_000
_READER_DELAY: Final = 5_000_000
"""After how long it is looked again whether a node has come whose code can read an activity's
arguments.
"""

_KEPT_ATTEMPTS: Final = 20


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A try that has failed, for the log. ``due`` is when the next one begins; ``reason`` why there
    is none.
    """

    activity: str
    attempt: int
    error: ErrorInfo
    due: int | None
    reason: str | None


@dataclass(slots=True)
class PendingActivity:
    """A pending activity: its current try, what went before, and when it may begin (``None``: at
    once).

    A try runs here, or it is handed out by a ``route``, or it waits.
    """

    event: ActivityScheduled
    attempt: int = 1
    started_at: int = 0
    failed: tuple[Attempt, ...] = ()
    due: int | None = None
    running: bool = False
    route: Route | None = None
    heartbeat: Payload | None = None
    owner: str | None = None
    """The node that goes on running it, where it was handed out while it ran."""
    stored: bool = False
    revision: int = 0
    """The fence of its row, where one is stored and the try is not handed out."""
    last_error: str | None = None
    stopping: bool = False
    """Whether it is cancelled, and its end is waited for: no other try begins, and no result
    counts.
    """
    marked: bool = False
    """Whether its row has the stop mark."""
    counted: int = 0
    """How many of the row's take-overs have been counted as attempts."""
    unread: tuple[str, ...] = ()
    """The fingerprints of code that could not read the arguments."""

    @staticmethod
    def remembered(event: ActivityScheduled, row: ActivityRow | None) -> PendingActivity:
        """Return a pending activity as a claim finds it."""
        if row is None:
            return PendingActivity(event, started_at=event.at)
        known = unpack(row.attempts)
        failed = attempts_from_wire(known["tries"])
        return PendingActivity(
            event,
            row.attempt,
            row.started_at,
            failed,
            row.due,
            route=None if row.has_ended else row.route,
            heartbeat=row.heartbeat,
            stored=True,
            revision=row.revision,
            last_error=known.get("unread_error") or (str(failed[-1].error) if failed else None),
            counted=known["counted"],
            marked=row.stopping,
            unread=tuple(known.get("unread", ())),
        )

    def row(self, execution: int) -> ActivityRow:
        """Return what the store is to remember."""
        known = {"tries": attempts_to_wire(self.failed), "counted": self.counted}
        if self.unread:
            known |= {"unread": list(self.unread), "unread_error": self.last_error}
        attempts = pack_value(known)
        return ActivityRow(
            execution,
            self.event.id,
            self.attempt,
            self.due,
            self.started_at,
            attempts,
            self.heartbeat,
            self.route,
            self.owner,
            stopping=self.marked,
        )

    def ended_row(self, execution: int, end: Input, place: int) -> ActivityRow:
        """Return what the store keeps of an end that a turn has taken in and not recorded (rule
        39).

        ``place`` is its place among the ends of the turn.
        """
        died = end if isinstance(end, ActivityDied) else None
        attempts = pack_value(
            {
                "tries": attempts_to_wire(self.failed if died is None else died.attempts),
                "counted": self.counted,
                "end": [end.at, place, None if died is None else died.reason],
            }
        )
        row = ActivityRow(
            execution, self.event.id, self.attempt, None, self.started_at, attempts, self.heartbeat
        )
        if isinstance(end, ActivityDied):
            return replace(
                row, failure=failure_to_bytes(ActivityFailure(end.cause, (), non_retryable=True))
            )
        return replace(row, attempt=end.attempt, result=end.result)

    def catch_up(self, now: int) -> bool:
        """Let the next try wait no longer than its policy says: its time may have been reckoned on
        a clock that ran ahead.

        Return whether it was; the store is to be told then.
        """
        self.started_at = min(self.started_at, now)
        if self.due is None or self.due <= now + _UNTRIED_DELAY:
            return False
        latest = now + max(
            micros(self.event.retry.delay(max(1, self.attempt - 1), 0.0)), _UNTRIED_DELAY
        )
        moved, self.due = self.due > latest, min(self.due, latest)
        return moved

    def crash(self, takeovers: int, now: int) -> ActivityDied | None:
        """Count attempts that were lost with their node (protocol rule 14). Return the end, if that
        was the last one.
        """
        if self.route is not None:
            return None  # it runs elsewhere, and did not die with the owner
        lost, self.counted = takeovers - self.counted, takeovers
        if self.due is not None and self.due > now:
            return None  # it was waiting for its next try, not running
        for _ in range(lost):
            died = self._count(CRASHED, now, final=None)
            if died is not None:
                return died
        self.due = None
        if lost and self._is_too_late(now):
            return self._died(now, "deadline reached")
        return None

    def fail(self, failure: ActivityFailure, now: int, instance_id: str) -> ActivityDied | None:
        """Take note of a failed try. Return the end where there is no next one; else ``due`` says
        when that begins.
        """
        self.running, self.route, self.owner = False, None, None
        if self.stopping:
            return self.stopped(now, failure.error)
        if failure.untried:
            # Nothing was tried, so nothing is counted: a deploy must not fail an instance.
            self.due, self.last_error = now + _UNTRIED_DELAY, str(failure.error)
            if failure.unread is not None:
                self.unread, self.due = (*self.unread, failure.unread), now  # at once, elsewhere
            return self.died_unread(now)
        policy = self.event.retry
        listed = set(policy.non_retryable_names()) & set(failure.type_names)
        died = self._count(
            failure.error, now, final="not retryable" if failure.non_retryable or listed else None
        )
        if died is not None:
            return died
        # Seeded, so that the engine needs no source of randomness, and different for each try.
        spread = Random(f"{instance_id}/{self.event.id}/{self.attempt}").random()  # noqa: S311
        self.due = now + micros(policy.delay(self.attempt - 1, spread))
        return self._died(now, "deadline reached") if self._is_too_late(self.due) else None

    def died_unread(self, now: int) -> ActivityDied | None:
        """Return the end of an activity that no node could run, if its policy's deadline has passed
        over that.
        """
        if not self._is_too_late(now):
            return None
        error = ErrorInfo("orchestra.ArgumentsUnread", self.last_error or "no node could run it")
        return ActivityDied(self.event.id, now, error, self.failed, "deadline reached")

    def stopped(self, now: int, error: ErrorInfo = ACTIVITY_CANCELLED) -> ActivityDied:
        """Return the end of a cancelled activity whose end was waited for."""
        return ActivityDied(self.event.id, now, error, self.failed, "cancelled")

    def _is_too_late(self, begin: int) -> bool:
        """Return whether a next try would begin behind the policy's deadline."""
        deadline = self.event.retry.deadline
        return deadline is not None and begin > self.started_at + micros(deadline)

    def _count(self, error: ErrorInfo, now: int, final: str | None) -> ActivityDied | None:
        self.failed = brief_attempts(
            (*self.failed, Attempt(self.attempt, from_micros(now), error))[-_KEPT_ATTEMPTS:]
        )
        self.last_error = str(error)
        limit = self.event.retry.max_attempts
        if final is None and limit is not None and self.attempt >= limit:
            final = "attempts exhausted"
        if final is not None:
            return self._died(now, final)
        self.attempt += 1
        return None

    def _died(self, now: int, reason: str) -> ActivityDied:
        return ActivityDied(self.event.id, now, self.failed[-1].error, self.failed, reason)


def kept_end(row: ActivityRow) -> tuple[int, int, Input] | None:
    """Return the end that :meth:`Try.ended_row` has kept: when it came, its place among others, and
    itself.

    ``None``: the row tells of a single try, which may be followed by another one.
    """
    known = unpack(row.attempts)
    if "end" not in known:
        return None
    at, place, reason = known["end"]
    how = how_it_ended(row)
    if isinstance(how, ActivityFailure):
        return (
            at,
            place,
            ActivityDied(row.event_id, at, how.error, attempts_from_wire(known["tries"]), reason),
        )
    return at, place, ActivityDone(row.event_id, at, row.attempt, how)


def early_row(
    message: ActivityEnded, row: ActivityRow | None, takeovers: int, now: int
) -> ActivityRow:
    """Return what the store keeps of a try that has ended while its instance was not loaded: how it
    ended, to be counted then.

    ``row`` is what the store remembers of the activity.
    """
    if row is None:
        attempts = pack_value({"tries": [], "counted": takeovers})
        row = ActivityRow(
            message.key.execution, message.key.event_id, message.attempt, None, now, attempts
        )
    row = replace(
        row,
        attempt=message.attempt,
        due=None,
        heartbeat=message.heartbeat or row.heartbeat,
        route=None,
        owner=None,
    )
    if isinstance(message.result, ActivityFailure):
        return replace(row, failure=failure_to_bytes(message.result))
    return replace(row, result=message.result)


class Attempts:
    """The pending activities by event id. Knows which of them wait, and which the store does not
    know as they are.
    """

    __slots__ = (
        "_all",
        "_changed",
        "_crashed",
        "_narrowed",
        "_out",
        "_unlogged",
        "_unmarked",
        "_waiting",
    )

    def __init__(self) -> None:
        self._all: dict[int, PendingActivity] = {}
        self._out: dict[int, None] = {}
        self._narrowed: dict[int, None] = {}
        """What is handed out to the code of one fingerprint alone."""
        self._unmarked: dict[int, None] = {}
        """What is handed out and is to end, and has no stop mark in the store."""
        self._waiting: dict[int, None] = {}
        self._changed: dict[int, None] = {}
        self._crashed: dict[int, None] = {}
        self._unlogged: list[FailedAttempt] = []

    def __len__(self) -> int:
        """How many activities are pending."""
        return len(self._all)

    def get(self, number: int) -> PendingActivity | None:
        """Return a pending activity."""
        return self._all.get(number)

    def add(self, activity: PendingActivity) -> None:
        """Take up an activity; it runs already, here or elsewhere, or waits to begin."""
        self._all[activity.event.id] = activity
        if activity.route is not None:
            self._out[activity.event.id] = None
            if activity.stopping:
                self._ask_for_mark(activity)
            elif activity.route.fingerprint is not None:
                self._narrowed[activity.event.id] = None
        elif not activity.running:
            self._waiting[activity.event.id] = None
        if activity.counted:
            self._crashed[activity.event.id] = None

    def crash(self, number: int, takeovers: int, now: int) -> ActivityDied | None:
        """Count what was lost with earlier owners; see :meth:`Try.crash`."""
        if number in self._out:
            return None  # and its row belongs to the node that has it
        self._changed[number] = self._crashed[number] = None
        activity = self._all[number]
        attempt = activity.attempt
        died = activity.crash(takeovers, now)
        if died is not None or activity.attempt != attempt:
            self._unlogged.append(
                FailedAttempt(
                    activity.event.name, attempt, CRASHED, activity.due, died and died.reason
                )
            )
        return self._unless_died(number, died)

    def fail(
        self, number: int, failure: ActivityFailure, now: int, instance_id: str
    ) -> ActivityDied | None:
        """Take note of a failed try; see :meth:`Try.fail`."""
        self._is_back(number)
        self._changed[number] = None
        activity = self._all[number]
        attempt = activity.attempt
        died = activity.fail(failure, now, instance_id)
        if not activity.stopping:
            self._unlogged.append(
                FailedAttempt(
                    activity.event.name, attempt, failure.error, activity.due, died and died.reason
                )
            )
        return self._unless_died(number, died)

    def stop(self, number: int) -> bool:
        """Take note that an activity is cancelled, and its end waited for. Return whether it runs
        here.
        """
        activity = self._all[number]
        activity.stopping = True
        if number in self._out:
            self._ask_for_mark(activity)
        return activity.running

    def _ask_for_mark(self, activity: PendingActivity) -> None:
        """Let a try that is handed out end where it is, and nowhere else."""
        activity.due = None
        self._narrowed.pop(activity.event.id, None)
        if not activity.marked:
            self._unmarked[activity.event.id] = None

    def take_unmarked(self) -> list[int]:
        """Return those whose rows are to get the stop mark with the next write."""
        if not self._unmarked:
            return []
        unmarked, self._unmarked = list(self._unmarked), {}
        for number in unmarked:
            self._all[number].marked = True
        return unmarked

    def lose(self, number: int, now: int) -> ActivityDied:
        """Return the end of a cancelled activity that runs nowhere any more."""
        self._waiting.pop(number, None)
        return self._all[number].stopped(now)

    def has_begun(self, number: int) -> bool:
        """Return whether an activity runs on this node, or is handed out."""
        activity = self._all.get(number)
        return activity is not None and (activity.running or activity.route is not None)

    def take_unlogged(self) -> list[FailedAttempt]:
        """Return the tries that have failed since this was last asked for, for the log."""
        if not self._unlogged:
            return []
        untold, self._unlogged = self._unlogged, []
        return untold

    def _unless_died(self, number: int, died: ActivityDied | None) -> ActivityDied | None:
        if died is None:
            self._waiting[number] = None
        else:
            self._waiting.pop(number, None)  # not to be begun again before its end is applied
        return died

    def end(self, number: int) -> None:
        """Take note that a try has returned; its result is still to be applied."""
        self._is_back(number)
        activity = self._all[number]
        activity.running, activity.route, activity.owner = False, None, None

    def _is_back(self, number: int) -> None:
        self._out.pop(number, None)
        self._narrowed.pop(number, None)
        self._unmarked.pop(number, None)

    def hand_out(self, number: int, route: Route) -> None:
        """Take note that a try that was to begin is handed out instead: whoever serves the route
        runs it.
        """
        activity = self._all[number]
        activity.running, activity.route, activity.owner = False, route, None
        self._out[number] = self._changed[number] = None

    def hand_over(self, queue: str, node: str, event_format: int) -> None:
        """Take note that what runs on this node goes on, and that its end comes by way of the store
        from now on.

        Args:
            queue: that of the instance, for activities that name none.
            event_format: that of its execution.
        """
        for number in self.running:
            activity = self._all[number]
            self.hand_out(
                number,
                Route(activity.event.queue or queue, activity.event.name).of_format(event_format),
            )
            activity.owner, activity.marked = node, activity.stopping

    def wait_for_reader(self, number: int, now: int) -> ActivityDied | None:
        """Let a try wait until there is code that can read its arguments. Return its end if it is
        too late for that.
        """
        activity = self._all[number]
        activity.running = False
        died = activity.died_unread(now)
        if died is None:
            activity.due = now + _READER_DELAY
            self._waiting[number] = None
        return died

    def narrow(self, number: int, route: Route, now: int) -> None:
        """Take note that a try is handed out to those alone whose code may be able to read its
        arguments.
        """
        self.hand_out(number, route)
        self._all[number].due = now + _READER_DELAY
        self._narrowed[number] = None

    def narrowed_due(self, now: int) -> Iterator[PendingActivity]:
        """Yield what was handed out to some alone, and is to be looked at again, for they may be
        gone. Look later once more.
        """
        for number in self._narrowed:
            activity = self._all[number]
            if activity.due is None or activity.due <= now:
                activity.due = now + _READER_DELAY
                yield activity

    def call_back(self, number: int) -> None:
        """Take note that a try which was handed out may begin elsewhere: nobody has it, and nobody
        will.
        """
        activity = self._all[number]
        activity.route = activity.due = None
        del self._out[number], self._narrowed[number]
        self._waiting[number] = self._changed[number] = None

    def beat(self, number: int, payload: Payload) -> None:
        """Take note of a heartbeat."""
        self._all[number].heartbeat = payload
        self._changed[number] = None

    def settle(self, number: int) -> PendingActivity | None:
        """Forget an activity that is not pending any more, and return it."""
        self._waiting.pop(number, None)
        self._is_back(number)
        self._changed.pop(number, None)
        self._crashed.pop(number, None)
        return self._all.pop(number, None)

    def begin_due(self, now: int) -> Iterator[PendingActivity]:
        """Begin the tries that may begin, and return them."""
        for number in list(self._waiting):
            activity = self._all[number]
            if activity.due is None or activity.due <= now:
                del self._waiting[number]
                activity.running, activity.due = True, None
                yield activity

    def catch_up(self, now: int) -> None:
        """Let no next try wait longer than its policy says; see :meth:`Try.catch_up`."""
        for number, activity in self._all.items():
            if activity.catch_up(now):
                self._changed[number] = None

    def clear(self) -> None:
        """Forget everything."""
        self._all.clear()
        self._out.clear()
        self._narrowed.clear()
        self._unmarked.clear()
        self._waiting.clear()
        self._changed.clear()
        self._crashed.clear()

    @property
    def running(self) -> list[int]:
        """The event ids of activities that run now."""
        return [number for number, activity in self._all.items() if activity.running]

    @property
    def stopping(self) -> list[int]:
        """Those that run here, are cancelled, and whose end is waited for."""
        return [
            number
            for number, activity in self._all.items()
            if activity.stopping and activity.running
        ]

    @property
    def handed_out(self) -> list[int]:
        """The event ids of activities that run by way of the store, or wait there for a node."""
        return list(self._out)

    @property
    def running_count(self) -> int:
        """How many run here. To be asked after a turn, when every result has been applied."""
        return len(self._all) - len(self._waiting) - len(self._out)

    @property
    def any_running(self) -> bool:
        """Whether one runs here. To be asked after a turn, when every result has been applied."""
        return self.running_count > 0

    @property
    def any_unfinished(self) -> bool:
        """Whether one runs, or could begin at once."""
        return self.any_running or any(self._all[number].due is None for number in self._waiting)

    @property
    def any_changed(self) -> bool:
        """Whether the store does not know one as it is."""
        return bool(self._changed or self._unmarked)

    @property
    def next_due(self) -> int | None:
        """When the earliest waiting try may begin."""
        if not self._waiting and not self._narrowed:
            return None
        due = (self._all[number].due for number in (*self._waiting, *self._narrowed))
        return min((instant for instant in due if instant is not None), default=None)

    def shown(self, number: int) -> Tried | None:
        """Return what is shown of an activity, unless it is in a plain first try."""
        activity = self._all.get(number)
        if activity is None or (activity.attempt == 1 and activity.last_error is None):
            return None
        return Tried(activity.attempt, activity.due, activity.last_error)

    def forget_crashes(self) -> None:
        """Begin to count take-overs anew: a turn was made, so whatever crashed before it has been
        overcome (rule 14).
        """
        for number in self._crashed:
            self._all[number].counted = 0
            if number not in self._out:  # else its row belongs to the node that has it
                self._changed[number] = None
        self._crashed.clear()

    def take_changed(self) -> list[PendingActivity]:
        """Return those that the store is to remember as they are now."""
        if not self._changed:
            return []
        changed, self._changed = self._changed, {}
        entries = [self._all[number] for number in changed]
        for activity in entries:
            activity.revision = activity.revision + 1 if activity.stored else 0
            activity.stored = True
        return entries
