"""What orchestration code asks for: new commands become events, repeated ones are compared."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from random import Random
from types import MappingProxyType
from typing import Any, Final

from orchestra.activities import Activity
from orchestra.children import ChildHandle, result_of
from orchestra.clock import from_micros
from orchestra.codec import Decoder, Payload
from orchestra.context import BoundaryRequest, Limits
from orchestra.errors import (
    Evicted,
    InvalidArgument,
    LevelTooLow,
    NondeterminismError,
    OrchestraError,
    OrchestrationError,
)
from orchestra.events import (
    ActivityCompleted,
    ActivityFailedEvent,
    ActivityScheduled,
    BoundaryRequested,
    CancelSent,
    ChildAwaited,
    ChildCompleted,
    ChildEnded,
    ChildFailedEvent,
    ChildStarted,
    CommandCancelled,
    CommandEvent,
    DetachedStarted,
    EventAwaited,
    EventKind,
    EventReceived,
    EventSent,
    EventWriter,
    InputEvent,
    OnCancel,
    OnParentClose,
    Patched,
    RequestAwaited,
    RequestReceived,
    SendDelivered,
    SendRefused,
    TimerCreated,
    TimerFired,
)
from orchestra.foreign import parked_at
from orchestra.frames import is_user, place, place_in
from orchestra.futures import DurableFuture, Future, Seal, Unawaited
from orchestra.ids import MOST_LABELS, child_id
from orchestra.registry import OrchestrationDefinition, OrchestrationFunction
from orchestra.replay.background import BackgroundChildren, handle_for
from orchestra.replay.boundary import Boundary
from orchestra.replay.failing import place_of
from orchestra.replay.gathered import Gathered
from orchestra.replay.journal import Journal, describe
from orchestra.replay.mail import Waits
from orchestra.replay.requests import Requests
from orchestra.replay.sends import send_cancel, send_event
from orchestra.replay.timers import ExecutionTime
from orchestra.replay.turns import Identity, LogEntry
from orchestra.retry import RetryPolicy
from orchestra.scheduler import Scheduler, Task
from orchestra.store.messages import QueueName, RequestName

__all__ = ["NONE_REGISTERED", "Answer", "Commands", "PendingCommand", "has_not_begun"]

_MOST_LINES: Final = 10

_NO_REQUESTS: Final[Mapping[int, QueueName]] = MappingProxyType({})

_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})

_NONE: Final = frozenset[str]()
"""One for all executions: each empty set would be an object of its own."""

NONE_REGISTERED: Final[Mapping[str, Activity[..., Any]]] = MappingProxyType({})


def has_not_begun(_number: int) -> bool:
    """Say of every activity that it neither runs nor is handed out."""
    return False


Answer = (
    ActivityCompleted
    | ActivityFailedEvent
    | TimerFired
    | EventReceived
    | ChildCompleted
    | ChildFailedEvent
    | RequestReceived
    | SendDelivered
    | SendRefused
    | ChildEnded
)
"""An event that completes a command."""


def _answers(event: InputEvent, command: CommandEvent) -> bool:
    """Return whether an event completes this command."""
    match event, command:
        case (ActivityCompleted() | ActivityFailedEvent(), ActivityScheduled()) | (
            TimerFired(),
            TimerCreated(),
        ):
            return True
        case (ChildCompleted() | ChildFailedEvent(), ChildStarted()):
            return True
        case (SendDelivered() | SendRefused(), EventSent() | CancelSent()):
            return True
        case (EventReceived(), EventAwaited()) | (RequestReceived(), RequestAwaited()):
            return event.name == command.name
        case ChildEnded(), ChildAwaited():
            return event.link == command.link
        case _:
            return False


@dataclass(slots=True)
class PendingCommand:
    """An activity, timer, wait, child or send without a result."""

    event: CommandEvent
    future: DurableFuture[Any]
    task: Task[Any] | None
    """The branch that asked for it."""
    ending: bool = False
    """Whether it is a cancelled activity whose end the code waits for."""


class Commands:
    """Takes the commands of one execution's code. It is the context's
    :class:`~orchestra.context.Machine`, and its futures' way to cancel.

    Args:
        registered: the activities of this node: what a plain name stands for in new calls.
        writer: how new events are stored, in the format of the execution.
    """

    # With slots, for a class with so many attributes has a dictionary for each of its objects.
    __slots__ = (
        "_boundary",
        "_definition",
        "_patches",
        "_random",
        "background",
        "boundary",
        "children",
        "counts",
        "decoded",
        "execution_id",
        "fault",
        "has_begun",
        "identity",
        "instance_id",
        "is_exact",
        "journal",
        "labelled",
        "limits",
        "lost_nodes",
        "name",
        "open_turn",
        "pending",
        "registered",
        "requests",
        "root",
        "scheduler",
        "seal",
        "seed",
        "time",
        "unawaited",
        "version",
        "waits",
    )

    def __init__(
        self,
        definition: OrchestrationDefinition,
        identity: Identity,
        limits: Limits,
        registered: Mapping[str, Activity[..., Any]],
        writer: EventWriter,
    ) -> None:
        self._definition = definition
        self.identity: Identity = identity
        self.limits: Limits = limits
        self.registered: Mapping[str, Activity[..., Any]] = registered
        self.instance_id: str = identity.instance_id
        self.execution_id: int = identity.execution
        self.name: str = identity.name
        self.version: str = identity.version
        self.seal: Seal = Seal()
        self.scheduler: Scheduler = Scheduler(self.seal)
        self.journal: Journal = Journal(writer)
        self.root: Task[Any] | None = None
        """The branch that runs the orchestration function."""
        self.pending: dict[int, PendingCommand] = {}
        """The commands without a result, by event id."""
        self.counts: dict[int, int] = {}
        """How many of them there are of each kind."""
        self.waits: Waits = Waits()
        self.decoded: tuple[Payload, Any] | None = None
        """The payload of the event that comes next, and its value."""
        self.unawaited: Unawaited = {}
        self.time: ExecutionTime = ExecutionTime(self.pending)
        self.has_begun: Callable[[int], bool] = has_not_begun
        """Whether an activity runs or is handed out."""
        self.seed: str = identity.seed
        self._random: Random | None = None
        self.labelled: frozenset[str] = _NONE
        """The keys of the labels that the code has set so far."""
        self.boundary: tuple[Payload, str | None] | None = None
        """The state and version that ``continue_as_new`` was called with."""
        self.fault: OrchestraError | None = None
        """Where the code does not ask for what history says."""
        self.is_exact: bool = True
        """Whether inexact values are refused. They are not if an older library began the
        execution.
        """
        self.children: int = 0
        """How many children it has asked for."""
        self.lost_nodes: frozenset[str] = _NONE
        """The nodes of which the code has learned that sessions there are lost."""
        self.open_turn: Gathered | None = None
        self.requests: Requests | None = None
        """The requests that its code awaits, and has in hand; ``None``: it has never asked."""
        self.background: BackgroundChildren | None = None
        """The background children that its code awaits; ``None``: it has never asked."""
        self._boundary: Boundary | None = None
        """The request to reach its boundary, and what waits for it; ``None``: neither is there."""
        self._patches: dict[str, bool] | None = None
        """The answers that the code got about its patches."""

    @property
    def gathered(self) -> Gathered:
        """What the turn that runs has decided so far."""
        if self.open_turn is None:
            self.open_turn = Gathered()
        return self.open_turn

    # --- what the context asks ---

    @property
    def now(self) -> int:
        """The time of the execution."""
        return self.time.now

    @property
    def history_events(self) -> int:
        """How many events its history has."""
        return self.journal.count

    @property
    def history_bytes(self) -> int:
        """How many bytes its history has."""
        return self.journal.size

    @property
    def is_replaying(self) -> bool:
        """Whether it repeats its history."""
        return self.journal.replaying

    @property
    def random(self) -> Random:
        """Its own deterministic source of randomness."""
        if self._random is None:
            self._random = Random(self.seed)  # noqa: S311 - deterministic on purpose
        return self._random

    @property
    def boundary_request(self) -> BoundaryRequest | None:
        """The request that it reaches its boundary, once that has come."""
        return None if self._boundary is None else self._boundary.request

    @property
    def received_requests(self) -> Mapping[int, QueueName]:
        """The requests that its code has received, by their numbers."""
        return _NO_REQUESTS if self.requests is None else self.requests.received

    @property
    def in_hand(self) -> Mapping[int, QueueName]:
        """Those of them that it has not answered."""
        return _NO_REQUESTS if self.requests is None else self.requests.in_hand

    @property
    def boundary_awaited_since(self) -> int | None:
        """Since when its code waits for such a request; ``None``: it does not."""
        return None if self._boundary is None else self._boundary.awaited_since

    def check(self) -> None:
        """Raise where the context must not be used now."""
        self.seal.check()
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
        """Schedule an activity."""
        event = self.record(
            ActivityScheduled(
                self.journal.next_id,
                self.time.now,
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
            self.gathered.scheduled.append(event)
        return self._open(event, name, result, f"result of activity {name!r} in {self.name!r}")

    def schedule_timer(self, due: int, *, is_instant: bool = False) -> DurableFuture[None]:
        """Set a timer, for a duration or until an instant."""
        event = self.record(TimerCreated(self.journal.next_id, self.time.now, due))
        self.time.add(event.due, event.id, is_instant=is_instant)
        return self._open(event, "timer", None, "")

    def wait_for_event(self, name: str, payload: Decoder[Any]) -> DurableFuture[Any]:
        """Wait for the next event of a name."""
        event = self.record(EventAwaited(self.journal.next_id, self.time.now, name))
        self.waits.open(name, event.id)
        return self._open(
            event, f"event {name!r}", payload, f"event {name!r} for {self.instance_id!r}"
        )

    def wait_for_request(
        self, name: str, value: Decoder[Any], returns: Decoder[Any]
    ) -> DurableFuture[Any]:
        """Wait for the next request of a name."""
        self.require_kind(EventKind.REQUEST_AWAITED, f"a wait for request {name!r}")
        event = self.record(RequestAwaited(self.journal.next_id, self.time.now, name))
        self.waits.open(RequestName(name), event.id)
        if self.requests is None:
            self.requests = Requests(self)
        self.requests.expect(event.id, returns)
        return self._open(
            event, f"request {name!r}", value, f"request {name!r} for {self.instance_id!r}"
        )

    def wait_for_boundary_request(self) -> Future[BoundaryRequest]:
        """Wait for the request that it reaches its boundary. History has no event of the wait."""
        return self._bound().wait(self.seal, self.time.now)

    def deliver_request(self, event: BoundaryRequested) -> None:
        """Take in the request that it reaches its boundary."""
        self._bound().deliver(
            BoundaryRequest(from_micros(event.requested_at), event.by, event.reason)
        )

    def _bound(self) -> Boundary:
        if self._boundary is None:
            self._boundary = Boundary()
        return self._boundary

    def patched(self, patch: str) -> bool:
        """Return whether the code takes the new way at a patch, and record that it has come there
        first.
        """
        if self._patches is None:
            self._patches = {}
        answer = self._patches.get(patch)
        if answer is None:
            journal = self.journal
            # A store with older nodes takes no marks: it goes the old way, now as on its replay.
            answer = (
                journal.has_mark(patch)
                if journal.replaying
                else EventKind.PATCHED in journal.writer.kinds
            )
            if answer and not journal.replaying:
                journal.append(Patched(journal.next_id, self.time.now, patch))
                self.gathered.extras.patches.append(patch)
            self._patches[patch] = answer
        return answer

    def orchestration(self, function: OrchestrationFunction) -> tuple[str, Decoder[Any]]:
        """Return the name and the result's decoder of a registered orchestration."""
        return self._definition.called(function)

    def state_of(self, name: str, version: str | None) -> Decoder[Any]:
        """Return the decoder of a version's state."""
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
        labels: Mapping[str, str] = _NO_LABELS,
        if_ended: str | None = None,
    ) -> DurableFuture[Any]:
        """Start a child."""
        event = self._start_child(
            name, version, instance_id, on_parent_close, payload, queue, labels, if_ended
        )
        return self._open(
            event, f"child {name!r}", result, f"result of child {event.child_id!r} in {self.name!r}"
        )

    def _start_child(
        self,
        name: str,
        version: str | None,
        instance_id: str | None,
        on_parent_close: OnParentClose,
        payload: Payload,
        queue: str | None,
        labels: Mapping[str, str],
        if_ended: str | None,
    ) -> ChildStarted:
        number = self.journal.next_id
        chosen = instance_id or self._child_id(number)
        event = self.record(
            ChildStarted(
                number,
                self.time.now,
                name,
                version,
                chosen,
                on_parent_close,
                payload,
                queue,
                labels,
                if_ended,
            )
        )
        self.children += 1
        if not self.journal.replaying:
            self.gathered.extras.started.append(event)
        return event

    def start_background_child(
        self,
        name: str,
        version: str | None,
        instance_id: str | None,
        payload: Payload,
        result: Decoder[Any],
        queue: str | None = None,
        labels: Mapping[str, str] = _NO_LABELS,
        if_ended: str | None = None,
    ) -> ChildHandle[Any]:
        """Start a child whose end goes to the instance. Return its handle."""
        self.require_kind(EventKind.CHILD_AWAITED, f"background child {name!r}")
        event = self._start_child(
            name, version, instance_id, OnParentClose.KEEP, payload, queue, labels, if_ended
        )
        return handle_for(event, self.identity, result)

    def wait_for_child(self, handle: ChildHandle[Any]) -> DurableFuture[Any]:
        """Wait for the end of a background child."""
        if self.background is None:
            self.background = BackgroundChildren(self)
        event = self.background.wait(handle)
        subject = f"result of child {event.child_id!r} in {self.name!r}"
        return self._open(event, f"child {event.name!r}", result_of(handle), subject)

    def start_detached(
        self,
        name: str,
        version: str | None,
        instance_id: str | None,
        payload: Payload,
        queue: str | None = None,
        labels: Mapping[str, str] = _NO_LABELS,
        if_ended: str | None = None,
    ) -> str:
        """Start an instance that is no child. Return its id."""
        number = self.journal.next_id
        chosen = instance_id or self._child_id(number)
        event = self.record(
            DetachedStarted(
                number, self.time.now, name, version, chosen, payload, queue, labels, if_ended
            )
        )
        if not self.journal.replaying:
            self.gathered.extras.started.append(event)
        return event.child_id

    def send_event(self, target: str, name: str, payload: Payload) -> DurableFuture[None]:
        """Send an event to an instance."""
        return send_event(self, target, name, payload)

    def send_cancel(self, target: str, reason: str) -> DurableFuture[None]:
        """Ask an instance to stop."""
        return send_cancel(self, target, reason)

    def _child_id(self, event_id: int) -> str:
        return child_id(self.instance_id, self.identity.incarnation, self.execution_id, event_id)

    def request_boundary(self, state: Payload, version: str | None) -> None:
        """Take in a call of ``continue_as_new``."""
        self.boundary = (state, version)

    def set_custom_status(self, value: Payload) -> None:
        """Set the custom status."""
        if not self.journal.replaying:
            self.gathered.extras.custom_status = value

    def set_labels(self, changes: Mapping[str, str | None]) -> None:
        """Set labels, and remove those that are ``None``.

        The keys of all calls count, also of those that are repeated: replay raises where the first
        run did.
        """
        keys = self.labelled.union(changes)
        if len(keys) > MOST_LABELS:
            raise InvalidArgument(
                f"this lap has set {len(keys)} different labels; {MOST_LABELS} may be"
            )
        self.labelled = keys
        if not self.journal.replaying:
            self.gathered.extras.labels.update(changes)

    def publish(self, stream: str, value: Payload) -> None:
        """Publish a value, unless the code repeats its history."""
        if not self.journal.replaying:
            self.gathered.extras.published.append((stream, value))

    def trace(self, level: int, message: str, fields: dict[str, Any]) -> None:
        """Add a log entry, unless the code repeats its history."""
        if self.seal.closed:
            return
        self.check()
        if not self.journal.replaying:
            self.gathered.extras.logs.append(LogEntry(level, message, fields))

    # --- what its futures ask ---

    def ask_to_end(self, future: DurableFuture[Any], *, waits: bool) -> bool:
        """Ask an activity to end. Return whether the caller waits for its end.

        That depends on what was recorded with the call, and on whether the activity runs or is
        handed out. An activity that is given up at once is recorded as cancelled. One whose end is
        waited for is not recorded: the code asks again on replay.
        """
        command = self.pending[future.event_id]
        event = command.event
        if not isinstance(event, ActivityScheduled) or event.on_cancel is OnCancel.ABANDON:
            return False
        if event.on_cancel is OnCancel.AS_FITS and not waits:
            return False
        if (
            self.journal.gives_up(event.id)
            if self.journal.replaying
            else not self.has_begun(event.id)
        ):
            return False
        command.ending = True
        if not self.journal.replaying:
            self.gathered.extras.stopping.append(event.id)
        return True

    def cancel_command(self, future: DurableFuture[Any]) -> None:
        """Give up a command."""
        self.record(CommandCancelled(self.journal.next_id, self.time.now, future.event_id))
        event = self.pending[future.event_id].event
        self._complete(future.event_id)
        if self.requests is not None:
            self.requests.give_up(future.event_id)
        if self.journal.replaying:
            return
        if isinstance(event, ActivityScheduled):
            self.gathered.extras.cancelled.append(future.event_id)
        elif isinstance(event, ChildStarted):
            self.gathered.extras.recalled.append(event)

    # --- commands and their answers ---

    def require_kind(self, kind: EventKind, what: str) -> None:
        """Unwind the code if the store's write level does not allow an event yet. The turn is made
        again once the level has risen.
        """
        if not self.journal.replaying and kind not in self.journal.writer.kinds:
            self.fault = LevelTooLow(
                f"{what} in {self.instance_id!r} waits until the store's write level has risen: a "
                "living node has a library that cannot read it"
            )
            self.seal.closed = True
            raise Evicted("the store's write level is too low for this code") from self.fault

    def record(self, event: Any) -> Any:
        """Record what the code asks for. Return the event that counts."""
        try:
            return self.journal.command(event, self.line)
        except NondeterminismError as fault:
            # User code may catch every Exception. So the fault is kept, and the code is unwound
            # past its handlers.
            self.fault = fault
            self.seal.closed = True
            raise Evicted("code and history disagree") from fault

    def _open(
        self, event: CommandEvent, name: str, decoder: Decoder[Any] | None, result: str
    ) -> DurableFuture[Any]:
        future: DurableFuture[Any] = DurableFuture(self.seal, self, event.id, name, decoder, result)
        task = self.scheduler.current
        self.pend(event, future, task)
        if task is not None:
            task.owned[event.id] = future
        # The caller of the context. Its line is looked up only if it is shown.
        frame = sys._getframe(3)
        self.unawaited[event.id] = frame.f_code, frame.f_lasti, event
        future._unawaited = self.unawaited
        return future

    def pend(
        self, event: CommandEvent, future: DurableFuture[Any], task: Task[Any] | None = None
    ) -> None:
        """Wait for the result of a command. With a ``task`` it goes with that branch."""
        self.pending[event.id] = PendingCommand(event, future, task)
        kind = int(event.kind)
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def take(self, event: Answer) -> PendingCommand:
        """Return the command that an event completes.

        Raises:
            NondeterminismError: there is none.
        """
        command = self.pending.get(event.source)
        if command is None or not _answers(event, command.event):
            raise NondeterminismError(
                f"event {event.id} of history is {describe(event)} of event {event.source}, "
                "which is not pending: there was no such command, or it has ended before",
                event_id=event.id,
            )
        self._complete(event.source)
        return command

    def _complete(self, source: int) -> None:
        command = self.pending.pop(source)
        event = command.event
        if command.task is not None:
            command.task.owned.pop(source, None)
        self.counts[event.kind] -= 1
        if isinstance(event, EventAwaited):
            self.waits.close(event.name, source)
        elif isinstance(event, RequestAwaited):
            self.waits.close(RequestName(event.name), source)
        elif isinstance(event, ChildAwaited):
            assert self.background is not None
            self.background.close(event)
        elif isinstance(event, ActivityScheduled):
            self.gathered.completed.append(source)

    # --- lines of code ---

    def line(self) -> str:
        """Return the line of user code that asks, or else where the root waits or has ended."""
        frame = sys._getframe(1) if self.scheduler.current is not None else None
        while frame is not None and frame.f_code is not Task[Any].step.__code__:
            if is_user(frame):
                return place(frame)
            frame = frame.f_back
        assert self.root is not None
        if not self.root.done:
            return parked_at(self.root.coroutine) or "orchestration code"
        raised_at = place_of(self.root.error)
        if raised_at is not None:
            return raised_at
        code = self._definition.function.__code__
        return f"{code.co_filename}:{code.co_firstlineno} in {code.co_qualname}, which has returned"

    def log_unawaited(self) -> None:
        """Log each line of code whose command was never awaited, once."""
        for code, instruction, event in islice(self.unawaited.values(), _MOST_LINES):
            where = place_in(code, instruction)
            if self._definition.is_news(f"not awaited: {where}"):
                message = (
                    f"{describe(event)}, asked for at {where}, was never awaited: its result "
                    "and its error are lost, and it is given up where it has not ended. Await "
                    "it, give it to ctx.gather, or cancel() it; what is to live on is a "
                    "ctx.start_detached"
                )
                self.gathered.extras.logs.append(LogEntry(logging.WARNING, message, {}))
