"""The pending activities of an execution, and their attempts.

The cost is in proportion to what changes, and never to how many activities are pending: a fan-out
of ten thousand is ordinary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from orchestra.clock import from_micros, micros
from orchestra.codec import (
    EMPTY,
    Payload,
    pack_value,
    require_opened,
    require_opened_facts,
    unpack,
)
from orchestra.engine.messages import ActivityEnded, ActivityFailure
from orchestra.error_info import brief_attempts
from orchestra.errors import Attempt, ErrorInfo
from orchestra.events import ActivityScheduled, attempts_from_wire, attempts_to_wire
from orchestra.replay import ACTIVITY_CANCELLED, SESSION_LOST, ActivityDied, ActivityDone, Input
from orchestra.sessions import ENTER, route_of
from orchestra.store.routes import Route, node_of
from orchestra.store.tasks import LOST, ActivityRow
from orchestra.summary import Tried

__all__ = [
    "Attempts",
    "FailedAttempt",
    "PendingActivity",
    "early_end_row",
    "how_it_ended",
    "kept_end",
    "require_opened_row",
]

_UNTRIED_DELAY: Final = 15_000_000
_READER_DELAY: Final = 5_000_000
"""How long an activity waits before the node looks again for code that reads its arguments."""

_FULL_DELAY: Final = 1_000_000
"""How long a session waits that a node has handed back for want of room."""

_KEPT_ATTEMPTS: Final = 20

_FEW: Final = 32
"""With how many running activities an instance still gives up its place first. Each one costs a
row, and a claim at its end.
"""

_NODE_LOST: Final = ErrorInfo("orchestra.NodeLost", "the node that ran it was lost")


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A failed attempt, for the log. ``due`` is when the next one begins; ``reason`` says why there
    is none.
    """

    activity: str
    attempt: int
    error: ErrorInfo
    due: int | None
    reason: str | None


@dataclass(slots=True)
class PendingActivity:
    """An activity without a result: its current attempt, and the failed ones before it.

    The current attempt runs here, or is handed out by a ``route``, or waits until ``due`` (``None``
    means: begin at once).
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
    """The node that still runs the attempt, if it was handed out while it ran."""
    stored: bool = False
    revision: int = 0
    """The fence of its row, if a row is stored and the attempt is not handed out."""
    last_error: str | None = None
    stopping: bool = False
    """Whether it is cancelled and still runs. No other attempt begins, and no result counts."""
    marked: bool = False
    """Whether its row has the stop mark."""
    counted: int = 0
    """How many of the row's take-overs are counted as attempts."""
    unread: tuple[str, ...] = ()
    """The fingerprints of code that cannot read the arguments."""

    @staticmethod
    def restored(event: ActivityScheduled, row: ActivityRow | None) -> PendingActivity:
        """Return a pending activity as a claim finds it in the store."""
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
        """Return the row that the store keeps of it."""
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
        """Return the row of an end that a turn has taken in and not recorded (rule 39).

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
                row, failure=ActivityFailure(end.cause, (), non_retryable=True).to_bytes()
            )
        return replace(row, attempt=end.attempt, result=end.result)

    def catch_up(self, now: int) -> bool:
        """Shorten the wait for the next attempt to what its policy allows.

        Its due time may come from a clock that ran ahead. Return whether the store must be told.
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
        """Count the attempts that were lost with their nodes (rule 14).

        Return the activity's end if that was the last attempt.
        """
        if self.route is not None:
            return None  # it runs elsewhere, and did not die with the owner
        lost, self.counted = takeovers - self.counted, takeovers
        if self.node is not None:
            return None  # no other node tries it: if its node lives, no attempt is lost
        if self.due is not None and self.due > now:
            return None  # it waited for its next attempt and did not run
        for _ in range(lost):
            died = self._count(_NODE_LOST, now, final=None)
            if died is not None:
                return died
        self.due = None
        if lost and self._is_too_late(now):
            return self._died(now, "deadline reached")
        return None

    def fail(self, failure: ActivityFailure, now: int, instance_id: str) -> ActivityDied | None:
        """Take in a failed attempt.

        Return the activity's end if no attempt follows. Otherwise ``due`` says when it begins.
        """
        self.running, self.route, self.owner = False, None, None
        if self.stopping:
            return self.stopped(now, failure.error)
        if self.node is not None and failure.error.type == _NODE_LOST.type:
            return self.lost(now)
        if failure.untried:
            # The activity was not called, so no attempt is counted: a deploy must not fail an
            # instance.
            delay = _FULL_DELAY if self.event.name == ENTER else _UNTRIED_DELAY
            self.due, self.last_error = now + delay, str(failure.error)
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
        # Seeded, so that the engine needs no source of randomness. The seed differs per attempt.
        spread = Random(f"{instance_id}/{self.event.id}/{self.attempt}").random()  # noqa: S311
        self.due = now + micros(policy.delay(self.attempt - 1, spread))
        return self._died(now, "deadline reached") if self._is_too_late(self.due) else None

    def died_unread(self, now: int) -> ActivityDied | None:
        """Return the end of an activity that no node could run before its policy's deadline."""
        if not self._is_too_late(now):
            return None
        error = ErrorInfo("orchestra.ArgumentsUnread", self.last_error or "no node could run it")
        return ActivityDied(self.event.id, now, error, self.failed, "deadline reached")

    def stopped(self, now: int, error: ErrorInfo = ACTIVITY_CANCELLED) -> ActivityDied:
        """Return the end of a cancelled activity."""
        return ActivityDied(self.event.id, now, error, self.failed, "cancelled")

    @property
    def node(self) -> str | None:
        """The node of its session; ``None``: it is in no session."""
        return node_of(self.event.queue)

    def lost(self, now: int) -> ActivityDied:
        """Return the end of an activity whose session has lost its node."""
        error = ErrorInfo(SESSION_LOST, f"node {self.node} has died, or has left")
        return ActivityDied(self.event.id, now, error, self.failed, "session lost")

    def _is_too_late(self, begin: int) -> bool:
        """Return whether an attempt that begins then would miss the policy's deadline."""
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


def require_opened_row(row: ActivityRow) -> None:
    """Check that no value of a stored activity is sealed.

    Raises:
        PayloadUnreadable: one is, and this node cannot open it.
    """
    subject = f"activity {row.event_id}"
    for payload in (row.result, row.heartbeat):
        if payload is not None:
            require_opened(payload, subject)
    require_opened_facts(row.attempts, subject)
    if row.failure is not None:
        require_opened_facts(row.failure, subject)


def how_it_ended(row: ActivityRow) -> Payload | ActivityFailure:
    """Return the end of an attempt that its row keeps."""
    if row.result is not None:
        return row.result
    assert row.failure is not None
    if row.failure == LOST:
        return ActivityFailure(_NODE_LOST, (_NODE_LOST.type,))
    return ActivityFailure.from_bytes(row.failure)


def kept_end(row: ActivityRow) -> tuple[int, int, Input] | None:
    """Return an end that :meth:`PendingActivity.ended_row` has kept: when it came, its place among
    others, and itself.

    ``None``: the row keeps the end of an attempt, which another attempt may follow.
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


def early_end_row(
    ended: ActivityEnded, row: ActivityRow | None, takeovers: int, now: int
) -> ActivityRow:
    """Return the row of an attempt that has ended before its instance was loaded. The next turn
    counts it.

    ``row`` is what the store keeps of the activity.
    """
    if row is None:
        attempts = pack_value({"tries": [], "counted": takeovers})
        row = ActivityRow(
            ended.key.execution, ended.key.event_id, ended.attempt, None, now, attempts
        )
    row = replace(
        row,
        attempt=ended.attempt,
        due=None,
        heartbeat=ended.heartbeat or row.heartbeat,
        route=None,
        owner=None,
    )
    if isinstance(ended.result, ActivityFailure):
        return replace(row, failure=ended.result.to_bytes())
    return replace(row, result=ended.result)


class Attempts:
    """The pending activities by event id.

    It knows which of them wait for their next attempt, which are handed out, and which the store
    does not know as they are.
    """

    __slots__ = (
        "_all",
        "_changed",
        "_crashed",
        "_out",
        "_unlogged",
        "_unmarked",
        "_waiting",
        "narrowed",
    )

    def __init__(self) -> None:
        self._all: dict[int, PendingActivity] = {}
        self._out: dict[int, None] = {}
        """Activities that are handed out."""
        self.narrowed: dict[int, None] = {}
        """Activities that are handed out to the code of one fingerprint alone."""
        self._unmarked: dict[int, None] = {}
        """Cancelled activities that are handed out and have no stop mark in the store."""
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
        """Add an activity. It runs already, here or elsewhere, or waits to begin."""
        self._all[activity.event.id] = activity
        if activity.route is not None:
            self._out[activity.event.id] = None
            if activity.stopping:
                self._ask_for_mark(activity)
            elif activity.route.fingerprint is not None:
                self.narrowed[activity.event.id] = None
        elif not activity.running:
            self._waiting[activity.event.id] = None
        if activity.counted:
            self._crashed[activity.event.id] = None

    # --- ends of attempts ---

    def crash(self, number: int, takeovers: int, now: int) -> ActivityDied | None:
        """Count the attempts lost with earlier owners; see :meth:`PendingActivity.crash`."""
        if number in self._out:
            return None  # its row belongs to the node that has it
        self._changed[number] = self._crashed[number] = None
        activity = self._all[number]
        attempt = activity.attempt
        died = activity.crash(takeovers, now)
        if died is not None or activity.attempt != attempt:
            self._note_failure(activity, attempt, _NODE_LOST, died)
        return self._unless_died(number, died)

    def fail(
        self, number: int, failure: ActivityFailure, now: int, instance_id: str
    ) -> ActivityDied | None:
        """Take in a failed attempt; see :meth:`PendingActivity.fail`."""
        self._is_back(number)
        self._changed[number] = None
        activity = self._all[number]
        attempt = activity.attempt
        died = activity.fail(failure, now, instance_id)
        if not activity.stopping:
            self._note_failure(activity, attempt, failure.error, died)
        return self._unless_died(number, died)

    def end(self, number: int) -> None:
        """Take in that an attempt has returned. Its result is still to be applied."""
        self._is_back(number)
        activity = self._all[number]
        activity.running, activity.route, activity.owner = False, None, None

    def lose(self, number: int, now: int) -> ActivityDied:
        """Return the end of a cancelled activity that runs nowhere."""
        self._waiting.pop(number, None)
        return self._all[number].stopped(now)

    def complete(self, number: int) -> PendingActivity | None:
        """Remove an activity that is not pending any longer, and return it."""
        self._waiting.pop(number, None)
        self._is_back(number)
        self._changed.pop(number, None)
        self._crashed.pop(number, None)
        return self._all.pop(number, None)

    def take_unlogged(self) -> list[FailedAttempt]:
        """Return the attempts that have failed since the last call, for the log."""
        if not self._unlogged:
            return []
        unlogged, self._unlogged = self._unlogged, []
        return unlogged

    def _note_failure(
        self, activity: PendingActivity, attempt: int, error: ErrorInfo, died: ActivityDied | None
    ) -> None:
        reason = died and died.reason
        self._unlogged.append(
            FailedAttempt(activity.event.name, attempt, error, activity.due, reason)
        )

    def _unless_died(self, number: int, died: ActivityDied | None) -> ActivityDied | None:
        if died is None:
            self._waiting[number] = None
        else:
            self._waiting.pop(number, None)  # no attempt may begin before the end is applied
        return died

    def _is_back(self, number: int) -> None:
        self._out.pop(number, None)
        self.narrowed.pop(number, None)
        self._unmarked.pop(number, None)

    # --- cancelled activities ---

    def stop(self, number: int) -> bool:
        """Take in that an activity is cancelled and its end is waited for. Return whether it runs
        here.
        """
        activity = self._all[number]
        activity.stopping = True
        if number in self._out:
            self._ask_for_mark(activity)
        return activity.running

    def _ask_for_mark(self, activity: PendingActivity) -> None:
        """Make a handed-out attempt end where it is, and nowhere else."""
        activity.due = None
        self.narrowed.pop(activity.event.id, None)
        if not activity.marked:
            self._unmarked[activity.event.id] = None

    def take_unmarked(self) -> list[int]:
        """Return the activities whose rows get the stop mark with the next write."""
        if not self._unmarked:
            return []
        unmarked, self._unmarked = list(self._unmarked), {}
        for number in unmarked:
            self._all[number].marked = True
        return unmarked

    def has_begun(self, number: int) -> bool:
        """Return whether an activity runs on this node, or is handed out."""
        activity = self._all.get(number)
        return activity is not None and (activity.running or activity.route is not None)

    # --- beginnings of attempts ---

    def begin_due(self, now: int) -> Iterator[PendingActivity]:
        """Begin the attempts that are due, and yield them."""
        for number in list(self._waiting):
            activity = self._all[number]
            if activity.due is None or activity.due <= now:
                del self._waiting[number]
                activity.running, activity.due = True, None
                yield activity

    def hand_out(self, number: int, route: Route) -> None:
        """Hand out an attempt that was due: a node that serves the route runs it."""
        activity = self._all[number]
        activity.running, activity.route, activity.owner = False, route, None
        self._out[number] = self._changed[number] = None

    def hand_over(self, queue: str, node: str, event_format: int) -> None:
        """Hand out what runs on this node, and let it run on. Its ends come through the store from
        now on.

        Args:
            queue: the instance's queue, for activities that name none.
            node: this node's id.
            event_format: the format of the execution.
        """
        for number in self.running:
            activity = self._all[number]
            self.hand_out(number, route_of(activity.event, queue, event_format))
            activity.owner, activity.marked = node, activity.stopping

    def wait_for_reader(self, number: int, now: int) -> ActivityDied | None:
        """Let an attempt wait for code that can read its arguments. Return the activity's end if it
        is too late for that.
        """
        activity = self._all[number]
        activity.running = False
        died = activity.died_unread(now)
        if died is None:
            activity.due = now + _READER_DELAY
            self._waiting[number] = None
        return died

    def lose_session(self, number: int, now: int) -> ActivityDied:
        """Return the end of an activity that was due, and whose session has lost its node."""
        activity = self._all[number]
        activity.running = False
        return activity.lost(now)

    def put_off(self, number: int, due: int) -> None:
        """Let an attempt that was due wait until then."""
        activity = self._all[number]
        activity.running, activity.due = False, due
        self._waiting[number] = None

    def narrow(self, number: int, route: Route, now: int) -> None:
        """Hand out an attempt to the one code that may read its arguments."""
        self.hand_out(number, route)
        self._all[number].due = now + _READER_DELAY
        self.narrowed[number] = None

    def narrowed_due(self, now: int) -> Iterator[PendingActivity]:
        """Yield the narrowed attempts that are due for a check: the nodes with that code may be
        gone.
        """
        for number in self.narrowed:
            activity = self._all[number]
            if activity.due is None or activity.due <= now:
                activity.due = now + _READER_DELAY
                yield activity

    def call_back(self, number: int) -> None:
        """Take back an attempt that was handed out and that no node can take."""
        activity = self._all[number]
        activity.route = activity.due = None
        del self._out[number], self.narrowed[number]
        self._waiting[number] = self._changed[number] = None

    # --- other changes ---

    def beat(self, number: int, payload: Payload) -> None:
        """Take in a heartbeat."""
        self._all[number].heartbeat = payload
        self._changed[number] = None

    def keep_steps(self, number: int, execution: int) -> ActivityRow:
        """Take in that steps of an activity are stored, and its row with them if it has none.
        Return that row.
        """
        activity = self._all[number]
        activity.heartbeat = activity.heartbeat or EMPTY
        activity.stored = True
        return activity.row(execution)

    def catch_up(self, now: int) -> None:
        """Shorten waits to what policies allow; see :meth:`PendingActivity.catch_up`."""
        for number, activity in self._all.items():
            if activity.catch_up(now):
                self._changed[number] = None

    def forget_crashes(self) -> None:
        """Begin to count take-overs anew.

        A turn was made, so what crashed before it has been overcome (rule 14).
        """
        for number in self._crashed:
            self._all[number].counted = 0
            if number not in self._out:  # else its row belongs to the node that has it
                self._changed[number] = None
        self._crashed.clear()

    def take_changed(self) -> list[PendingActivity]:
        """Return the activities whose rows the next write must store."""
        if not self._changed:
            return []
        changed, self._changed = self._changed, {}
        activities = [self._all[number] for number in changed]
        for activity in activities:
            activity.revision = activity.revision + 1 if activity.stored else 0
            activity.stored = True
        return activities

    def clear(self) -> None:
        """Forget all activities."""
        self._all.clear()
        self._out.clear()
        self.narrowed.clear()
        self._unmarked.clear()
        self._waiting.clear()
        self._changed.clear()
        self._crashed.clear()

    # --- what is known ---

    @property
    def running(self) -> list[int]:
        """The event ids of activities that run here."""
        return [number for number, activity in self._all.items() if activity.running]

    @property
    def stopping(self) -> list[int]:
        """The event ids of cancelled activities that still run here."""
        return [
            number
            for number, activity in self._all.items()
            if activity.stopping and activity.running
        ]

    @property
    def handed_out(self) -> list[int]:
        """The event ids of activities that are handed out."""
        return list(self._out)

    @property
    def running_count(self) -> int:
        """How many activities run here. Valid after a turn, when all results have been applied."""
        return len(self._all) - len(self._waiting) - len(self._out)

    @property
    def any_running(self) -> bool:
        """Whether an activity runs here. Valid after a turn, as :attr:`running_count` is."""
        return self.running_count > 0

    @property
    def few_running(self) -> bool:
        """Whether so few run that the instance gives up its place before others."""
        return self.running_count <= _FEW

    @property
    def any_unfinished(self) -> bool:
        """Whether an activity runs, or could begin at once."""
        return self.any_running or any(self._all[number].due is None for number in self._waiting)

    @property
    def any_changed(self) -> bool:
        """Whether the store does not know an activity as it is."""
        return bool(self._changed or self._unmarked)

    @property
    def next_due(self) -> int | None:
        """When the earliest waiting attempt may begin."""
        if not self._waiting and not self.narrowed:
            return None
        due = (self._all[number].due for number in (*self._waiting, *self.narrowed))
        return min((instant for instant in due if instant is not None), default=None)

    def shown(self, number: int) -> Tried | None:
        """Return what an instance's info shows of an activity; ``None`` for a plain first
        attempt.
        """
        activity = self._all.get(number)
        if activity is None or (activity.attempt == 1 and activity.last_error is None):
            return None
        return Tried(activity.attempt, activity.due, activity.last_error)
