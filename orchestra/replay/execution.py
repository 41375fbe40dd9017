"""One execution: the live coroutine, what it waits for, and how an input becomes events."""

from __future__ import annotations

import heapq
import logging
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random
from types import MappingProxyType
from typing import Any, Final

from orchestra.activities import Activity
from orchestra.codec import Decoder, Payload
from orchestra.context import Limits, OrchestrationContext
from orchestra.error_info import encoded_details, error_info
from orchestra.errors import (
    ActivityFailed,
    Cancelled,
    ChildFailed,
    ContinueAsNew,
    ContinueAsNewSwallowed,
    Deadlock,
    ErrorInfo,
    Evicted,
    ExecutionLimitExceeded,
    Failure,
    NondeterminismError,
    OrchestraError,
    OrchestrationError,
    PayloadError,
)
from orchestra.events import (
    EVENTS,
    ActivityCompleted,
    ActivityFailedEvent,
    ActivityScheduled,
    CancelRequested,
    ChildCompleted,
    ChildFailedEvent,
    ChildStarted,
    CommandCancelled,
    CommandEvent,
    ContinuedAsNew,
    DetachedStarted,
    Event,
    EventAwaited,
    EventForms,
    EventReceived,
    EventRecord,
    EventWriter,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    ExecutionTerminated,
    InputEvent,
    OnCancel,
    OnParentClose,
    TerminalEvent,
    TimerCreated,
    TimerFired,
    error_from_bytes,
)
from orchestra.foreign import parked_at
from orchestra.frames import is_user, place, place_in
from orchestra.futures import DurableFuture, Seal, Unawaited
from orchestra.ids import child_id
from orchestra.levels import BASE_LEVEL
from orchestra.registry import OrchestrationDefinition, OrchestrationFunction
from orchestra.replay.failing import held_by, is_declared, place_of
from orchestra.replay.inbox import Inbox
from orchestra.replay.journal import Drift, Journal, describe, read_history
from orchestra.replay.mail import Mail, Waits
from orchestra.replay.turns import (
    ActivityDied,
    ActivityDone,
    Identity,
    Input,
    LogEntry,
    Turn,
    TurnHeld,
)
from orchestra.retry import RetryPolicy, type_name
from orchestra.scheduler import Scheduler, Task
from orchestra.store.kinds import HoldKind, MessageKind, Status
from orchestra.store.messages import MessageRow
from orchestra.telemetry import log_instance

__all__ = ["Execution"]

_MOST_LINES: Final = 10
_MOST_DEADLOCKS: Final = 10
_PUT_BACKS: Final = 8
_PUT_BACK: Final = 1_000_000
"""How many microseconds the time given to a turn may lie behind the execution's: nodes know the
store's time to a reply.
"""


def _never(_number: int) -> bool:
    return False


_NONE_REGISTERED: Final[Mapping[str, Activity[..., Any]]] = MappingProxyType({})


@dataclass(slots=True)
class _Pending:
    """An activity, timer, wait or child that has no result yet."""

    event: CommandEvent
    future: DurableFuture[Any]
    task: Task[Any] | None
    """The branch that asked for it."""
    ending: bool = False
    """Whether it is an activity that was cancelled, and whose end is waited for."""


class _Gathered:
    """What the turn that runs has come to so far. Made in a turn and gone with it: a parked
    execution keeps none of it.
    """

    __slots__ = (
        "cancelled",
        "completed",
        "consumed",
        "custom_status",
        "fired",
        "logs",
        "recalled",
        "received",
        "scheduled",
        "started",
        "stopping",
        "unreadable",
    )

    # Written out: each turn makes one, and factories of a dataclass would be a call for each field.
    def __init__(self) -> None:
        self.logs: list[LogEntry] = []
        self.custom_status: Payload | None = None
        self.scheduled: list[ActivityScheduled] = []
        self.cancelled: list[int] = []
        self.completed: list[int] = []
        self.consumed: list[int] = []
        self.fired: list[int] = []
        self.started: list[ChildStarted | DetachedStarted] = []
        self.recalled: list[ChildStarted] = []
        self.received: list[MessageRow] = []
        self.unreadable: dict[BaseException, MessageRow] = {}
        self.stopping: list[int] = []


class Execution:
    """Runs one execution of one orchestration. Purely synchronous; the caller owns clock and store.

    Use :meth:`start` for a new execution, or :meth:`replay` for one with a history; then
    :meth:`turn` for each step. An execution that has raised from a step is of no further use.
    ``registered`` are the activities that this node has: what a plain name stands for in new calls.
    ``forms`` are what the library reads of histories, and ``writer`` is how new events are stored:
    in the format of the execution.
    """

    # With slots, for a class with more than thirty attributes has a dictionary for each of its
    # objects.
    __slots__ = (
        "__weakref__",
        "_ahead",
        "_boundary",
        "_cancel_delivered",
        "_counts",
        "_definition",
        "_fault",
        "_forms",
        "_gathered",
        "_has_begun",
        "_now",
        "_pending",
        "_random",
        "_root",
        "_seal",
        "_seed",
        "_timers",
        "_unawaited",
        "_until",
        "_waits",
        "ending",
        "execution_id",
        "fingerprint",
        "has_children",
        "identity",
        "instance_id",
        "is_exact",
        "journal",
        "level",
        "limits",
        "name",
        "put_backs",
        "registered",
        "scheduler",
        "version",
    )

    def __init__(
        self,
        definition: OrchestrationDefinition,
        identity: Identity,
        limits: Limits,
        registered: Mapping[str, Activity[..., Any]] = _NONE_REGISTERED,
        forms: EventForms = EVENTS,
        writer: EventWriter | None = None,
    ) -> None:
        self._definition = definition
        self.identity: Identity = identity
        self.limits: Limits = limits
        self.registered: Mapping[str, Activity[..., Any]] = registered
        self.instance_id: str = identity.instance_id
        self.execution_id: int = identity.execution
        self.name: str = identity.name
        self.version: str = identity.version
        self.fingerprint: str = definition.fingerprint
        """The fingerprint of the code that runs, which need not be that of the code that began the
        execution.
        """
        self._seal = Seal()
        self.scheduler: Scheduler = Scheduler(self._seal)
        self._forms = forms
        self.journal: Journal = Journal(writer or forms.writer())
        self._now = 0
        self._has_begun = _never
        self._seed = identity.seed
        self._random: Random | None = None
        self._root: Task[Any] | None = None
        self._pending: dict[int, _Pending] = {}
        self._counts: dict[int, int] = {}
        self._waits = Waits()
        self._unawaited: Unawaited = {}
        self._timers: list[tuple[int, int]] = []
        """When timers fire, on the time of the execution, and their event ids: a heap."""
        self._until: dict[int, None] = {}
        """Those that were set to an instant: they fire by the store's time, whatever that of the
        execution.
        """
        self._ahead = 0
        self.put_backs: tuple[tuple[int, int], ...] = ()
        """By how much the store's clock was put back since it began, and from when on, on its own
        time, it was wrong.
        """
        self._boundary: tuple[Payload, str | None] | None = None
        self._cancel_delivered = False
        self._fault: OrchestraError | None = None
        self.ending: TerminalEvent | None = None
        self.is_exact: bool = True
        """Whether values that would not come back as what they are have been refused since it
        began.
        """
        self.level: int = BASE_LEVEL
        """What a library must read to go on with it: higher than the base where events of a newer
        kind are in its history.
        """
        self.has_children: bool = False
        """Whether it has ever asked for a child."""
        self._gathered: _Gathered | None = None

    # --- steps ---

    def start(self, state: Payload, now: int) -> None:
        """Record the first event and run the code until it waits. The events come with the next
        :meth:`turn`.

        Raises:
            DecodeError: the state does not fit the annotation. Nothing was run.
            TurnHeld: the code has raised what is no declared failure.
        """
        self._now = now
        identity = self.identity
        started = ExecutionStarted(
            1,
            now,
            identity.instance_id,
            identity.incarnation,
            identity.execution,
            identity.name,
            identity.version,
            self._seed,
            self.limits.suggest_events,
            self.limits.suggest_bytes,
            state,
            is_exact=True,
        )
        self.journal.append(started)
        self._begin(started)

    def replay(self, records: Sequence[EventRecord]) -> None:
        """Repeat a stored history. Afterwards the execution stands where it stood.

        Values that the code would give otherwise now are in :attr:`drifts`; those of history count.

        Raises:
            HistoryCorrupt: no execution can have written this history.
            NondeterminismError: the code does not ask for what history says.
            NewerLibraryNeeded: a newer library has written it.
            DecodeError: the state does not fit the annotation.
        """
        events = read_history(self.identity, records, self._forms)
        self.level = self._forms.level(records)
        self.journal.load(events, records)
        while (event := self.journal.next_recorded()) is not None:
            self._repeat(event)
        self.journal.replaying = False
        self._gathered = None

    def turn(
        self,
        now: int,
        inputs: Iterable[Input] = (),
        inbox: Inbox | Iterable[MessageRow] = (),
        cancel: str | None = None,
        has_begun: Callable[[int], bool] = _never,
    ) -> Turn:
        """Take in what has happened until ``now`` and run the code until it waits.

        Args:
            now: the store's time; timers that are due by then fire.
            inputs: ends of activities, in the order of arrival.
            inbox: unread messages in the order of arrival, ends of children among them. What is
                delivered is taken out of it.
            cancel: the reason of a cancel mark that is to be delivered, once per execution, before
                all else.
            has_begun: whether an activity runs or is handed out, so that its end is waited for
                where it is cancelled.

        Raises:
            TurnHeld: the code has raised what is no declared failure, or the execution is over its
                limits. None of the inputs counts as taken in.
        """
        if self._ahead or now < self._now:
            self._set_back(now)
        else:
            self._now = now
        self._has_begun = has_begun
        if cancel is not None and not self._cancel_delivered and self.ending is None:
            self._feed(CancelRequested(self.journal.next_id, self._now, cancel))
        ends = deque(inputs)
        mail = Mail(inbox if isinstance(inbox, Inbox) else Inbox(inbox), self._waits)
        to_read: tuple[str, ...] = ()
        while self.ending is None and not self._over_limit:
            if (mail.open or self._waits.opened) and (to_read := mail.wanted()):
                break  # one of them may have come before all that is in memory
            event = self._next_input(ends, mail)
            if event is None:
                break
            self._feed(event)
        self._has_begun = _never
        if self.ending is None and self._over_limit:
            self._end_over_limit()
        turn = self._take_turn()
        return (
            turn
            if not to_read or self.ending is not None
            else replace(turn, to_read=to_read, left=tuple(ends))
        )

    @property
    def ahead(self) -> int:
        """By how many microseconds its time leads the store's, whose clock was put back since it
        began (rule 25).
        """
        return self._ahead

    def put_back(self, by: int, since: int) -> None:
        """Take note that the store's clock was put back: the time of the execution goes on as if it
        had not been.

        Timers that were set before ``since``, on the execution's time, were set by the clock as it
        is now; they fire as much later on the execution's time, as do those that were set to an
        instant.
        """
        self.put_backs = (*self.put_backs, (by, since))[-_PUT_BACKS:]
        self._ahead += by
        for number, (at, source) in enumerate(self._timers):
            entry = self._pending.get(source)
            if source in self._until or (entry is not None and entry.event.at < since):
                self._timers[number] = at + by, source
        heapq.heapify(self._timers)

    def _set_back(self, now: int) -> None:
        """Set the time of the execution where the store's clock shows another one."""
        moment = now + self._ahead
        if moment < self._now - _PUT_BACK:
            self.put_back(
                self._now - moment, moment
            )  # the least that it can be; what was set in its future was set by it
        self._now = max(self._now, now + self._ahead)

    def evict(self) -> None:
        """Drop the coroutine. Nothing is decided by it any more. It ends, whatever the code does
        about it.
        """
        self._seal.closed = True
        self.scheduler.close()
        caught = self._seal.caught
        if caught is not None and self._definition.is_news(caught):
            log_instance(
                logging.WARNING,
                self.identity,
                "went on at %s when it was closed, although everything was refused to it, and "
                "was ended by force. Its handler catches more than errors: catch Exception, or "
                "raise again what is none",
                caught,
            )

    # --- what the engine asks ---

    @property
    def drifts(self) -> Sequence[Drift]:
        """Where the values of the code were others than those of the history that was repeated."""
        return self.journal.drifts

    @property
    def activities(self) -> dict[int, ActivityScheduled]:
        """The activities that have not ended, by event id."""
        return {
            number: entry.event
            for number, entry in self._pending.items()
            if isinstance(entry.event, ActivityScheduled)
        }

    @property
    def ending_activities(self) -> frozenset[int]:
        """Those of them that are cancelled, and whose ends are waited for."""
        return frozenset(number for number, entry in self._pending.items() if entry.ending)

    @property
    def pending(self) -> Iterable[CommandEvent]:
        """What the code waits for, in the order in which it asked."""
        return (entry.event for entry in self._pending.values())

    @property
    def awaited(self) -> Collection[str]:
        """The names of events that the code waits for."""
        return self._waits.names

    @property
    def pending_counts(self) -> Mapping[int, int]:
        """How many commands of each kind have no result yet."""
        return self._counts

    @property
    def next_timer(self) -> int | None:
        """When the earliest pending timer is due, on the store's clock."""
        due = self._next_timer
        return None if due is None else due - self._ahead

    @property
    def _next_timer(self) -> int | None:
        while self._timers and self._timers[0][1] not in self._pending:
            self._until.pop(heapq.heappop(self._timers)[1], None)
        return self._timers[0][0] if self._timers else None

    # --- inputs ---

    def _next_input(self, ends: deque[Input], mail: Mail) -> InputEvent | None:
        """Return what happened first: an activity or a child ended, a timer fell due, or a message
        came that is waited for.
        """
        timer = self._next_timer if self._timers else None
        number = self.journal.next_id
        while ends and ends[0].source not in self._pending:
            ends.popleft()  # late: it was cancelled, or has ended already (I5)
        if (
            timer is None and not mail
        ):  # nearly always: nothing but an activity has ended, or nothing more has happened
            return _end_event(ends.popleft(), number, self._now) if ends else None
        while (report := mail.report) is not None and report.source not in self._pending:
            self._consume(report, mail)  # late as well; its row must go all the same (I9)
        message = mail.first()
        times = (
            ends[0].at if ends else None,
            timer - self._ahead if timer is not None and timer <= self._now else None,
            message.sent_at if message else None,
        )
        present = [moment for moment in times if moment is not None]
        if not present:
            return None
        match times.index(min(present)):
            case 0:
                return _end_event(ends.popleft(), number, self._now)
            case 1:
                due, source = heapq.heappop(self._timers)
                self._until.pop(source, None)
                self._turn.fired.append(due - self._ahead)
                return TimerFired(number, self._now, source)
            case _:
                assert message is not None
                self._consume(message, mail)
                if message.kind is not MessageKind.EVENT:
                    return _report_event(message, number, self._now)
                source = self._waits.first(message.name)
                return EventReceived(
                    number, self._now, source, message.name, message.sequence, message.payload
                )

    def _consume(self, message: MessageRow, mail: Mail) -> None:
        mail.take(message)
        self._turn.consumed.append(message.sequence)
        self._turn.received.append(message)

    def _feed(self, event: InputEvent) -> None:
        self.journal.append(event)
        self._run(event)

    def _repeat(self, event: Event) -> None:
        match event:
            case ExecutionStarted():
                self._now = event.at
                self._seed = event.seed
                self.limits = replace(
                    self.limits,
                    suggest_events=event.suggest_events,
                    suggest_bytes=event.suggest_bytes,
                )
                self._begin(event)
            case InputEvent():
                self._now = event.at
                self._run(event)
            case TerminalEvent():
                self._repeat_ending(event)
            case _:
                waits = parked_at(self._root.coroutine) if self._root is not None else None
                raise NondeterminismError(
                    (
                        f"event {event.id} of history is {describe(event)}, but the code does not "
                        f"ask for it; it waits at {waits}"
                    ),
                    event_id=event.id,
                    line=waits,
                )

    def _repeat_ending(self, event: TerminalEvent) -> None:
        # An operator's end, or a limit, comes over the code from outside: the code need not have
        # ended.
        forced = isinstance(event, ExecutionTerminated) or (
            isinstance(event, ExecutionFailed)
            and event.error.type == type_name(ExecutionLimitExceeded)
        )
        if not forced:
            waits = parked_at(self._root.coroutine) if self._root is not None else None
            raise NondeterminismError(
                (
                    f"event {event.id} of history is {describe(event)}, but the code has not "
                    f"ended; it waits at {waits}"
                ),
                event_id=event.id,
                line=waits,
            )
        self.ending = event
        self.evict()

    def _begin(self, started: ExecutionStarted) -> None:
        subject = (
            f"state of {self.instance_id!r} ({self.name} {self.version}, execution "
            f"{self.execution_id})"
        )
        state = self._definition.state.decode(started.input, subject=subject)
        self.is_exact = started.is_exact
        self._root = self.scheduler.spawn(self._definition.begin(OrchestrationContext(self), state))
        self._run(None)

    def _apply(self, event: InputEvent) -> None:
        if isinstance(event, CancelRequested):
            self._cancel_delivered = True
            assert self._root is not None
            cancelled = Cancelled(event.reason)
            cancelled.waits = True
            self._root.throw(cancelled)
            return
        assert isinstance(event, _Answer)
        entry = self._take(event)
        future = entry.future
        if entry.ending:
            future.fail_cancelled()  # whatever it answers: nobody asks for it any more
            return
        match event:
            case ActivityCompleted():
                future.deliver(event.result)
            case ActivityFailedEvent():
                future.fail(
                    ActivityFailed(
                        future.subject, event.cause, event.attempts, event.reason, event.tries
                    )
                )
            case TimerFired():
                future.settle(None)
            case EventReceived():
                error = future.deliver(event.payload)
                if error is not None and not self.journal.replaying:
                    # Its sender stands in no history, so it is told where it holds the instance and
                    # not by the error.
                    self._turn.unreadable[error] = self._turn.received[-1]
            case ChildCompleted():
                future.deliver(event.result)
            case ChildFailedEvent():
                assert isinstance(entry.event, ChildStarted)
                future.fail(
                    ChildFailed(entry.event.name, entry.event.child_id, event.status, event.cause)
                )

    def _take(self, event: _Answer) -> _Pending:
        entry = self._pending.get(event.source)
        if entry is None or not _answers(event, entry.event):
            raise NondeterminismError(
                f"event {event.id} of history is {describe(event)} of event {event.source}, "
                "which is not pending: there was no such command, or it has ended before",
                event_id=event.id,
            )
        self._forget(event.source)
        return entry

    def _forget(self, source: int) -> None:
        entry = self._pending.pop(source)
        event = entry.event
        if entry.task is not None:
            entry.task.owned.pop(source, None)
        self._counts[event.kind] -= 1
        if isinstance(event, EventAwaited):
            self._waits.close(event.name, source)
        elif isinstance(event, ActivityScheduled):
            self._turn.completed.append(source)

    # --- running ---

    def _run(self, event: InputEvent | None) -> None:
        """Apply an input, if there is one, and run the code until it waits."""
        try:
            if event is not None:
                self._apply(event)
            self.scheduler.run()
            for _ in range(
                _MOST_DEADLOCKS
            ):  # each raises in what the code does about the one before
                if self._pending or not self._is_stuck():
                    break
                self.scheduler.run()
        except Evicted:
            # A command that no line of user code asked for (a cancel gives up what is awaited) met
            # another history.
            if self._fault is None:
                raise
        if self._fault is not None:
            fault = self._fault
            self.evict()
            raise fault
        if self._seal.closed and self.ending is None:
            raise Evicted(
                "this execution was dropped while its code ran"
            )  # in a thread that was left behind
        root = self._root
        if root is not None and root._done and self.ending is None:
            try:
                ending = self._ending_of(root)
                self.ending = self.journal.command(ending, self._line)
                if (
                    self._unawaited
                    and not self.journal.replaying
                    and isinstance(ending, (ExecutionCompleted, ContinuedAsNew))
                ):
                    self._tell_unawaited()
            finally:
                # Its error's traceback refers to this execution, by its frames or by who has called
                # them: without the cycle memory goes at once. What is to be kept of the error
                # stands in the ending, or in the hold.
                if root.error is not None:
                    root.error.__traceback__ = None
                self._root = None
                self.evict()

    def _is_stuck(self) -> bool:
        """Raise an error in the code if its branches wait for each other, and for nothing else.
        Return whether they do.
        """
        root = self._root
        if root is None or root.done or self._seal.closed:
            return False
        waiting = islice(reversed(self.scheduler.tasks), _MOST_LINES)
        lines = ", ".join(dict.fromkeys(parked_at(task.coroutine) or "" for task in waiting))
        root.throw(
            Deadlock(
                "all branches of this execution wait for each other, and for nothing that could "
                f"happen: at {lines}"
            )
        )
        return True

    def _ending_of(self, root: Task[Any]) -> TerminalEvent:
        number, at = self.journal.next_id, self._now
        error = root.error
        if (
            isinstance(error, Cancelled) and self._cancel_delivered
        ):  # also where it came while a boundary unwound
            return ExecutionCancelled(number, at, error.reason)
        if self._boundary is not None and not isinstance(error, ContinueAsNew):
            how = f"raised {error!r}" if error is not None else "returned"
            error = ContinueAsNewSwallowed(
                f"{self.name!r} {self.version} called continue_as_new and then {how}; let "
                "ContinueAsNew pass through"
            )
        match error:
            case None:
                try:
                    subject = f"output of orchestration {self.name!r}"
                    limit = self.limits.max_payload
                    output = self._definition.result.encode_output(
                        root.result(), subject=subject, limit=limit, exact=self.is_exact
                    )
                except PayloadError as fault:
                    return self._failure(fault)
                return ExecutionCompleted(number, at, output)
            case ContinueAsNew() if self._boundary is not None:
                state, version = self._boundary
                return ContinuedAsNew(number, at, version, state)
            case _:
                return self._failure(error)

    def _failure(self, error: BaseException) -> ExecutionFailed:
        """Return the end by an error.

        Raises:
            TurnHeld: it is no declared failure. A history that ended by it all the same is repeated
                as it is.
        """
        if isinstance(error, Failure) and not self.journal.replaying:
            try:
                encoded_details(error)
            except PayloadError as fault:
                error = fault.with_traceback(error.__traceback__)
        info = error_info(error)
        if not self.journal.replaying and not is_declared(error, self._definition.failures):
            raise held_by(error, info, self._line(), self.version, self._turn.unreadable) from None
        return ExecutionFailed(self.journal.next_id, self._now, info)

    @property
    def _over_limit(self) -> bool:
        return (
            self.journal.count > self.limits.max_events or self.journal.size > self.limits.max_bytes
        )

    def _end_over_limit(self) -> None:
        count, size = self.journal.count, self.journal.size
        error = ExecutionLimitExceeded(
            f"execution {self.execution_id} of {self.instance_id!r} ({self.name} "
            f"{self.version}) has {count:,} events and {size:,} bytes; the limits are "
            f"{self.limits.max_events:,} and {self.limits.max_bytes:,}. Call "
            "ctx.continue_as_new when ctx.continue_as_new_suggested is true"
        )
        info = error_info(error)
        self.evict()
        if not is_declared(error, self._definition.failures):
            raise TurnHeld(HoldKind.LIMIT, f"{type(error).__name__}: {error}", info)
        self.ending = ExecutionFailed(self.journal.next_id, self._now, info)
        self.journal.append(self.ending)

    @property
    def _turn(self) -> _Gathered:
        if self._gathered is None:
            self._gathered = _Gathered()
        return self._gathered

    def _take_turn(self) -> Turn:
        events, gathered = self.journal.take_fresh(), self._gathered or _Gathered()
        self._gathered = None
        self.level = max(self.level, self._forms.level(events))
        ended, pending = self.ending is not None, self._pending
        scheduled, started, cancelled, recalled = (
            gathered.scheduled,
            gathered.started,
            gathered.cancelled,
            gathered.recalled,
        )
        if cancelled or recalled:  # what was asked for and given up in one turn was never begun
            new = {event.id for event in (*scheduled, *started)}
            cancelled = [number for number in cancelled if number not in new]
            recalled = [event for event in recalled if event.id not in new]
        if started:
            # What was asked for in the turn that ends the execution happens as well (scenario 12).
            started = [
                event
                for event in started
                if isinstance(event, DetachedStarted) or event.id in pending
            ]
        return Turn(
            events=events,
            scheduled=()
            if ended or not scheduled
            else tuple([event for event in scheduled if event.id in pending]),
            cancelled=tuple(cancelled),
            completed=tuple(gathered.completed),
            consumed=tuple(gathered.consumed),
            logs=tuple(gathered.logs),
            custom_status=gathered.custom_status,
            ending=self.ending,
            fired=tuple(gathered.fired),
            started=tuple(started),
            recalled=tuple(recalled),
            received=tuple(gathered.received),
            stopping=()
            if ended or not gathered.stopping
            else tuple([number for number in gathered.stopping if number in pending]),
        )

    # --- the machine that the context stands on ---

    @property
    def now(self) -> int:
        return self._now

    @property
    def history_events(self) -> int:
        return self.journal.count

    @property
    def history_bytes(self) -> int:
        return self.journal.size

    @property
    def is_replaying(self) -> bool:
        return self.journal.replaying

    @property
    def random(self) -> Random:
        if self._random is None:
            self._random = Random(self._seed)  # noqa: S311 - deterministic on purpose
        return self._random

    def check(self) -> None:
        """Raise where the context must not be used now."""
        self._seal.check()
        if self.scheduler.current is None:
            raise OrchestrationError(
                f"the context of {self.instance_id!r} is used outside its orchestration's code; "
                "pass values to activities, not ctx"
            )

    def schedule_activity(
        self,
        name: str,
        arguments: Payload,
        retry: RetryPolicy,
        timeout: int | None,
        heartbeat_timeout: int | None,
        result: Decoder[Any],
        queue: str | None = None,
        on_cancel: OnCancel = OnCancel.AS_FITS,
    ) -> DurableFuture[Any]:
        number = self.journal.next_id
        event = self._command(
            ActivityScheduled(
                number,
                self._now,
                name,
                arguments,
                retry,
                timeout,
                heartbeat_timeout,
                queue,
                on_cancel,
            )
        )
        if not self.journal.replaying:
            self._turn.scheduled.append(event)
        return self._open(event, name, result, f"result of activity {name!r} in {self.name!r}")

    def schedule_timer(self, due: int, *, is_instant: bool = False) -> DurableFuture[None]:
        event = self._command(TimerCreated(self.journal.next_id, self._now, due))
        at = event.due
        if is_instant:
            self._until[event.id] = None
            at += self._ahead
        heapq.heappush(self._timers, (at, event.id))
        return self._open(event, "timer", None, "")

    def wait_for_event(self, name: str, payload: Decoder[Any]) -> DurableFuture[Any]:
        event = self._command(EventAwaited(self.journal.next_id, self._now, name))
        self._waits.open(name, event.id)
        return self._open(
            event, f"event {name!r}", payload, f"event {name!r} for {self.instance_id!r}"
        )

    def orchestration(self, function: OrchestrationFunction) -> tuple[str, Decoder[Any]]:
        return self._definition.called(function)

    def state_of(self, name: str, version: str | None) -> Decoder[Any]:
        if name == self.name and version == self.version:
            return self._definition.state
        return self._definition.state_of(name, version)

    def start_child(
        self,
        name: str,
        version: str | None,
        instance_id: str | None,
        on_parent_close: OnParentClose,
        payload: Payload,
        result: Decoder[Any],
        queue: str | None = None,
    ) -> DurableFuture[Any]:
        number = self.journal.next_id
        chosen = instance_id or self._child_id(number)
        event = self._command(
            ChildStarted(number, self._now, name, version, chosen, on_parent_close, payload, queue)
        )
        self.has_children = True
        if not self.journal.replaying:
            self._turn.started.append(event)
        return self._open(
            event, f"child {name!r}", result, f"result of child {event.child_id!r} in {self.name!r}"
        )

    def start_detached(
        self,
        name: str,
        version: str | None,
        instance_id: str | None,
        payload: Payload,
        queue: str | None = None,
    ) -> str:
        number = self.journal.next_id
        chosen = instance_id or self._child_id(number)
        event = self._command(
            DetachedStarted(number, self._now, name, version, chosen, payload, queue)
        )
        if not self.journal.replaying:
            self._turn.started.append(event)
        return event.child_id

    def _child_id(self, event_id: int) -> str:
        return child_id(self.instance_id, self.identity.incarnation, self.execution_id, event_id)

    def ask_to_end(self, future: DurableFuture[Any], *, waits: bool) -> bool:
        """Ask an activity to end, and have its caller wait for that. Return whether it is to be
        waited for.

        What was recorded with the call decides, and whether it runs or is handed out. It is
        recorded that it is given up at once; that its end is waited for is not: the code asks again
        on replay.
        """
        entry = self._pending[future.event_id]
        event = entry.event
        if not isinstance(event, ActivityScheduled) or event.on_cancel is OnCancel.ABANDON:
            return False
        if event.on_cancel is OnCancel.AS_FITS and not waits:
            return False
        if (
            self.journal.gives_up(event.id)
            if self.journal.replaying
            else not self._has_begun(event.id)
        ):
            return False
        entry.ending = True
        if not self.journal.replaying:
            self._turn.stopping.append(event.id)
        return True

    def cancel_command(self, future: DurableFuture[Any]) -> None:
        self._command(CommandCancelled(self.journal.next_id, self._now, future.event_id))
        entry = self._pending[future.event_id]
        self._forget(future.event_id)
        if self.journal.replaying:
            return
        if isinstance(entry.event, ActivityScheduled):
            self._turn.cancelled.append(future.event_id)
        elif isinstance(entry.event, ChildStarted):
            self._turn.recalled.append(entry.event)

    def request_boundary(self, state: Payload, version: str | None) -> None:
        self._boundary = (state, version)

    def set_custom_status(self, value: Payload) -> None:
        if not self.journal.replaying:
            self._turn.custom_status = value

    def trace(self, level: int, message: str, fields: dict[str, Any]) -> None:
        if self._seal.closed:
            return
        self.check()
        if not self.journal.replaying:
            self._turn.logs.append(LogEntry(level, message, fields))

    def _command(self, event: Any) -> Any:
        try:
            return self.journal.command(event, self._line)
        except NondeterminismError as fault:
            # User code may catch every Exception: the fault is kept, and the code is unwound past
            # its handlers.
            self._fault = fault
            self._seal.closed = True
            raise Evicted("code and history disagree") from fault

    def _line(self) -> str:
        """Return the line of user code that asks; where none does, the line where the root waits or
        ended.
        """
        frame = sys._getframe(1) if self.scheduler.current is not None else None
        while frame is not None and frame.f_code is not Task[Any].step.__code__:
            if is_user(frame):
                return place(frame)
            frame = frame.f_back
        assert self._root is not None
        if not self._root.done:
            return parked_at(self._root.coroutine) or "orchestration code"
        raised_at = place_of(self._root.error)
        if raised_at is not None:
            return raised_at
        code = self._definition.function.__code__
        return f"{code.co_filename}:{code.co_firstlineno} in {code.co_qualname}, which has returned"

    def _open(
        self, event: CommandEvent, name: str, decoder: Decoder[Any] | None, result: str
    ) -> DurableFuture[Any]:
        future: DurableFuture[Any] = DurableFuture(
            self._seal, self, event.id, name, decoder, result
        )
        task = self.scheduler.current
        self._pending[event.id] = _Pending(event, future, task)
        kind = int(event.kind)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if task is not None:
            task.owned[event.id] = future
        frame = sys._getframe(
            3
        )  # who has called the context; the line itself is looked up where it is told
        self._unawaited[event.id] = frame.f_code, frame.f_lasti, event
        future._unawaited = self._unawaited
        return future

    def _tell_unawaited(self) -> None:
        """Name what the code has asked for and never awaited, each line once."""
        for code, instruction, event in islice(self._unawaited.values(), _MOST_LINES):
            where = place_in(code, instruction)
            if self._definition.is_news(f"not awaited: {where}"):
                message = (
                    f"{describe(event)}, asked for at {where}, was never awaited: its result "
                    "and its error are lost, and it is given up where it has not ended. Await "
                    "it, give it to ctx.gather, or cancel() it; what is to live on is a "
                    "ctx.start_detached"
                )
                self._turn.logs.append(LogEntry(logging.WARNING, message, {}))


_Answer = (
    ActivityCompleted
    | ActivityFailedEvent
    | TimerFired
    | EventReceived
    | ChildCompleted
    | ChildFailedEvent
)


def _answers(event: InputEvent, command: CommandEvent) -> bool:
    """Return whether an input is an answer to this command."""
    match event, command:
        case (ActivityCompleted() | ActivityFailedEvent(), ActivityScheduled()) | (
            TimerFired(),
            TimerCreated(),
        ):
            return True
        case (ChildCompleted() | ChildFailedEvent(), ChildStarted()):
            return True
        case EventReceived(), EventAwaited():
            return event.name == command.name
        case _:
            return False


def _end_event(end: Input, number: int, now: int) -> InputEvent:
    match end:
        case ActivityDone():
            return ActivityCompleted(number, now, end.source, end.attempt, end.result)
        case ActivityDied():
            tries = end.attempts[-1].number if end.attempts else 0
            return ActivityFailedEvent(
                number, now, end.source, end.cause, end.attempts, end.reason, tries
            )


def _report_event(report: MessageRow, number: int, now: int) -> InputEvent:
    if report.kind is MessageKind.CHILD_COMPLETED:
        return ChildCompleted(number, now, report.source, report.payload)
    assert isinstance(report.kind, MessageKind), (
        report.kind
    )  # what is not known here is no message of a turn
    status = Status(report.kind.value).name.lower()
    cause = (
        error_from_bytes(report.payload.data)
        if report.payload.data
        else ErrorInfo(f"orchestra.{status}", "")
    )
    return ChildFailedEvent(number, now, report.source, status, cause)
