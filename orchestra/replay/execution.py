"""One execution: the live coroutine, and how what has happened drives it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from orchestra.activities import Activity
from orchestra.clock import to_micros
from orchestra.codec import Payload
from orchestra.context import BoundaryRequest, Limits, OrchestrationContext
from orchestra.error_info import error_info
from orchestra.errors import (
    Cancelled,
    Deadlock,
    Evicted,
    ExecutionLimitExceeded,
    NondeterminismError,
)
from orchestra.events import (
    EVENTS,
    ActivityScheduled,
    BoundaryRequested,
    CancelRequested,
    ChildAwaited,
    CommandEvent,
    ContinuedAsNew,
    Event,
    EventForms,
    EventKind,
    EventRecord,
    EventWriter,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionTerminated,
    InputEvent,
    TerminalEvent,
)
from orchestra.foreign import parked_at
from orchestra.levels import BASE_LEVEL
from orchestra.registry import OrchestrationDefinition
from orchestra.replay.commands import NONE_REGISTERED, Answer, Commands, has_not_begun
from orchestra.replay.endings import ending_of
from orchestra.replay.failing import is_declared
from orchestra.replay.gathered import Gathered
from orchestra.replay.inbox import Inbox
from orchestra.replay.inputs import deliver, next_input
from orchestra.replay.journal import Drift, Journal, describe, read_history
from orchestra.replay.mail import Mail
from orchestra.replay.timers import ExecutionTime
from orchestra.replay.turns import Identity, Input, SetAside, Turn, TurnHeld
from orchestra.retry import type_name
from orchestra.scheduler import Scheduler, Task
from orchestra.store.kinds import HoldKind
from orchestra.store.messages import MessageRow, QueueName
from orchestra.telemetry import log_instance

__all__ = ["Execution"]

_MOST_LINES: Final = 10
_MOST_DEADLOCKS: Final = 10


class Execution:
    """Runs one execution of one orchestration. It is synchronous; the caller has the clock and the
    store.

    Use :meth:`start` for a new execution, or :meth:`replay` for one with a history; then
    :meth:`turn` for each step. An execution that has raised from a step is of no further use.

    Args:
        registered: the activities of this node: what a plain name stands for in new calls.
        forms: what the library reads of histories.
        writer: how new events are stored, in the format of the execution.
    """

    __slots__ = (
        "__weakref__",
        "_cancel_delivered",
        "_definition",
        "_forms",
        "commands",
        "ending",
        "execution_id",
        "fingerprint",
        "identity",
        "journal",
        "level",
        "scheduler",
        "time",
    )

    def __init__(
        self,
        definition: OrchestrationDefinition,
        identity: Identity,
        limits: Limits,
        registered: Mapping[str, Activity[..., Any]] = NONE_REGISTERED,
        forms: EventForms = EVENTS,
        writer: EventWriter | None = None,
    ) -> None:
        self._definition = definition
        self._forms = forms
        self.commands: Commands = Commands(
            definition, identity, limits, registered, writer or forms.writer()
        )
        """What its code asks for."""
        self.identity: Identity = identity
        self.execution_id: int = identity.execution
        self.fingerprint: str = definition.fingerprint
        """The fingerprint of the code that runs. Other code may have begun the execution."""
        self.scheduler: Scheduler = self.commands.scheduler
        self.journal: Journal = self.commands.journal
        self.time: ExecutionTime = self.commands.time
        self._cancel_delivered = False
        self.ending: TerminalEvent | None = None
        self.level: int = BASE_LEVEL
        """The level that a library must read to go on with it. Events of a newer kind raise it."""

    # --- steps ---

    def start(
        self,
        state: Payload,
        now: int,
        *,
        written_by: str | None = None,
        path: tuple[str, ...] = (),
    ) -> None:
        """Record the first event and run the code until it waits. The events come with the next
        :meth:`turn`.

        Raises:
            DecodeError: the state does not fit the annotation. Nothing was run.
            TurnHeld: the code has raised an error that is no declared failure.
        """
        commands, identity = self.commands, self.identity
        commands.time.now = now
        started = ExecutionStarted(
            1,
            now,
            identity.instance_id,
            identity.incarnation,
            identity.execution,
            identity.name,
            identity.version,
            commands.seed,
            commands.limits.suggest_events,
            commands.limits.suggest_bytes,
            state,
            is_exact=True,
            written_by=written_by if path else None,
            migrations=path,
        )
        self.journal.append(started)
        self._begin(started)

    def replay(self, records: Sequence[EventRecord]) -> None:
        """Repeat a stored history. Afterwards the execution stands where it stood.

        :attr:`drifts` tells where the code gives other values than the history, which counts.

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
        self.commands.open_turn = None

    def turn(
        self,
        now: int,
        inputs: Iterable[Input] = (),
        inbox: Inbox | Iterable[MessageRow] = (),
        cancel: str | None = None,
        has_begun: Callable[[int], bool] = has_not_begun,
        request: BoundaryRequest | None = None,
        may_hold: Callable[[], bool] | None = None,
    ) -> Turn:
        """Take in what has happened until ``now``, and run the code until it waits.

        Args:
            now: the store's time. Timers that are due by then fire.
            inputs: ends of activities, in the order of arrival.
            inbox: unread messages in the order of arrival, ends of children among them. The turn
                removes what it delivers.
            cancel: the reason of a cancel mark. It is delivered once per execution, before all
                else.
            has_begun: whether an activity runs or is handed out, so that the code waits for its end
                if it is cancelled.
            request: that the execution reaches its boundary. It is delivered once, after a cancel
                and before all else.
            may_hold: whether a message that does not decode is delivered, and its error holds the
                execution if the code lets it pass. By default such messages are set aside.

        Raises:
            TurnHeld: the code has raised an error that is no declared failure, or the execution is
                over its limits. None of the inputs counts as taken in.
        """
        commands = self.commands
        time = commands.time
        if time.ahead or now < time.now:
            time.go_on(now)
        else:
            time.now = now
        commands.has_begun = has_begun
        if cancel is not None and not self._cancel_delivered and self.ending is None:
            self._feed(CancelRequested(self.journal.next_id, time.now, cancel))
        if request is not None and commands.boundary_request is None and self.ending is None:
            self._ask_for_boundary(request)
        ends = deque(inputs)
        unread = inbox if isinstance(inbox, Inbox) else Inbox(inbox)
        mail = Mail(unread, commands.waits, commands.received_requests)
        to_read: tuple[QueueName, ...] = ()
        while self.ending is None and not self._over_limit:
            if (mail.open or commands.waits.opened) and (to_read := mail.to_read()):
                break  # one of them may have come before all that is in memory
            event = next_input(commands, ends, mail, may_hold)
            if event is None:
                break
            if not isinstance(event, SetAside):
                self._feed(event)
        commands.has_begun = has_not_begun
        if self.ending is None and self._over_limit:
            self._end_over_limit()
        events, gathered = self.journal.take_fresh(), commands.open_turn or Gathered()
        commands.open_turn = None
        self.level = max(self.level, self._forms.level(events))
        turn = gathered.turn(events, self.ending, commands.pending)
        return (
            turn
            if not to_read or self.ending is not None
            else replace(turn, to_read=to_read, left=tuple(ends))
        )

    def evict(self) -> None:
        """Drop the coroutine. It decides nothing from now on, and ends whatever the code does."""
        seal = self.commands.seal
        seal.closed = True
        self.scheduler.close()
        if seal.caught is not None and self._definition.is_news(seal.caught):
            log_instance(
                logging.WARNING,
                self.identity,
                "went on at %s when it was closed, although everything was refused to it, and "
                "was ended by force. Its handler catches more than errors: catch Exception, or "
                "raise again what is none",
                seal.caught,
            )

    # --- what the engine asks ---

    @property
    def drifts(self) -> Sequence[Drift]:
        """Where the code gave other values than the history that it has repeated."""
        return self.journal.drifts

    @property
    def activities(self) -> dict[int, ActivityScheduled]:
        """The activities that have not ended, by event id."""
        return {
            number: command.event
            for number, command in self.commands.pending.items()
            if isinstance(command.event, ActivityScheduled)
        }

    @property
    def ending_activities(self) -> frozenset[int]:
        """The cancelled activities whose ends the code waits for."""
        pending = self.commands.pending
        return frozenset(number for number, command in pending.items() if command.ending)

    @property
    def pending(self) -> Iterable[CommandEvent]:
        """What the code waits for, in the order in which it asked."""
        return (command.event for command in self.commands.pending.values())

    @property
    def unsure_ends(self) -> Collection[ChildAwaited]:
        """The waits for children of earlier laps whose ends such a lap may have received."""
        background = self.commands.background
        return () if background is None else background.unsure.values()

    def forget_unsure_ends(self) -> None:
        """Take in that all these children were looked up."""
        assert self.commands.background is not None
        self.commands.background.unsure.clear()

    def find_end(self, link: str, end: MessageRow | None) -> None:
        """Have the next turn give an end to its waits that no message tells; ``None``: it is not
        stored any more.
        """
        assert self.commands.background is not None
        self.commands.background.find(link, end)

    # --- inputs ---

    def _feed(self, event: InputEvent) -> None:
        self.journal.append(event)
        self._run(event)

    def _ask_for_boundary(self, request: BoundaryRequest) -> None:
        # A store with older nodes takes no request: it is delivered once they are gone.
        if EventKind.BOUNDARY_REQUESTED in self.journal.writer.kinds:
            number, now = self.journal.next_id, self.time.now
            at, by, reason = to_micros(request.at), request.by, request.reason
            self._feed(BoundaryRequested(number, now, at, by, reason))

    def _cancel(self, event: CancelRequested) -> None:
        self._cancel_delivered = True
        root = self.commands.root
        assert root is not None
        cancelled = Cancelled(event.reason)
        cancelled.waits = True
        root.throw(cancelled)

    # --- repeating history ---

    def _repeat(self, event: Event) -> None:
        commands = self.commands
        match event:
            case ExecutionStarted():
                commands.time.now = event.at
                commands.seed = event.seed
                commands.limits = replace(
                    commands.limits,
                    suggest_events=event.suggest_events,
                    suggest_bytes=event.suggest_bytes,
                )
                self._begin(event)
            case InputEvent():
                commands.time.now = event.at
                self._run(event)
            case TerminalEvent():
                self._repeat_ending(event)
            case _:
                raise self._disagreement(event, "the code does not ask for it")

    def _repeat_ending(self, event: TerminalEvent) -> None:
        # An operator's end, or a limit, comes over the code from outside: the code need not have
        # ended.
        forced = isinstance(event, (ExecutionTerminated, ExecutionRewound)) or (
            isinstance(event, ExecutionFailed)
            and event.error.type == type_name(ExecutionLimitExceeded)
        )
        if not forced:
            raise self._disagreement(event, "the code has not ended")
        self.ending = event
        self.evict()

    def _disagreement(self, event: Event, what: str) -> NondeterminismError:
        root = self.commands.root
        waits = None if root is None else parked_at(root.coroutine)
        return NondeterminismError(
            f"event {event.id} of history is {describe(event)}, but {what}; it waits at {waits}",
            event_id=event.id,
            line=waits,
        )

    # --- running ---

    def _begin(self, started: ExecutionStarted) -> None:
        commands, identity = self.commands, self.identity
        subject = (
            f"state of {identity.instance_id!r} ({identity.name} {identity.version}, execution "
            f"{identity.execution})"
        )
        state = self._definition.state.decode(started.input, subject=subject)
        commands.is_exact = started.is_exact
        commands.root = self.scheduler.spawn(
            self._definition.begin(OrchestrationContext(commands), state)
        )
        self._run(None)

    def _run(self, event: InputEvent | None) -> None:
        """Apply an input, if there is one, and run the code until it waits."""
        commands = self.commands
        try:
            if isinstance(event, CancelRequested):
                self._cancel(event)
            elif isinstance(event, BoundaryRequested):
                commands.deliver_request(event)
            elif event is not None:
                assert isinstance(event, Answer)
                deliver(commands, event)
            self.scheduler.run()
            # Each deadlock raises in what the code does about the one before.
            for _ in range(_MOST_DEADLOCKS):
                if self._waits or not self._is_stuck():
                    break
                self.scheduler.run()
        except Evicted:
            # A command that no line of user code asked for (a cancel gives up what is awaited) met
            # another history.
            if commands.fault is None:
                raise
        if commands.fault is not None:
            fault = commands.fault
            self.evict()
            raise fault
        if commands.seal.closed and self.ending is None:
            # The engine has abandoned the thread that runs this code.
            raise Evicted("this execution was dropped while its code ran")
        root = commands.root
        if root is not None and root._done and self.ending is None:
            self._end(root)

    def _end(self, root: Task[Any]) -> None:
        """Take in that the code has ended."""
        commands = self.commands
        try:
            ending = ending_of(root, self._definition, commands, cancelled=self._cancel_delivered)
            self.ending = self.journal.command(ending, commands.line)
            if (
                commands.unawaited
                and not self.journal.replaying
                and isinstance(ending, (ExecutionCompleted, ContinuedAsNew))
            ):
                commands.log_unawaited()
        finally:
            # Its error's traceback refers to this execution, by its frames or their callers.
            # Without the cycle memory goes at once. The ending, or the hold, has what is kept of
            # the error.
            if root.error is not None:
                root.error.__traceback__ = None
            commands.root = None
            self.evict()

    @property
    def _waits(self) -> bool:
        """Whether its code waits for something that can happen."""
        commands = self.commands
        return bool(commands.pending) or commands.boundary_awaited_since is not None

    def _is_stuck(self) -> bool:
        """Raise an error in the code if its branches wait for each other alone. Return whether they
        do.
        """
        root = self.commands.root
        if root is None or root.done or self.commands.seal.closed:
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

    # --- ends ---

    @property
    def _over_limit(self) -> bool:
        limits = self.commands.limits
        return self.journal.count > limits.max_events or self.journal.size > limits.max_bytes

    def _end_over_limit(self) -> None:
        commands, identity = self.commands, self.identity
        count, size, limits = self.journal.count, self.journal.size, commands.limits
        error = ExecutionLimitExceeded(
            f"execution {identity.execution} of {identity.instance_id!r} ({identity.name} "
            f"{identity.version}) has {count:,} events and {size:,} bytes; the limits are "
            f"{limits.max_events:,} and {limits.max_bytes:,}. Call "
            "ctx.continue_as_new when ctx.continue_as_new_suggested is true"
        )
        info = error_info(error)
        self.evict()
        if not is_declared(error, self._definition.failures):
            raise TurnHeld(HoldKind.LIMIT, f"{type(error).__name__}: {error}", info)
        self.ending = ExecutionFailed(self.journal.next_id, commands.time.now, info)
        self.journal.append(self.ending)
