"""The context of orchestration code."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import (
    Any,
    Final,
    Literal,
    NoReturn,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from typing_extensions import TypeForm

from orchestra.activities import Activity, PlainFunction, as_activity
from orchestra.children import ChildHandle
from orchestra.clock import from_micros, micros, to_micros
from orchestra.codec import DEFAULT_PAYLOAD_LIMIT, Decoder, Payload, decoder, encode
from orchestra.combinators import RaceResult, TaskGroup, WaitResult, discard, gather, race, wait
from orchestra.errors import ContinueAsNew, DecodeError, EncodeError, EventTimeout, InvalidArgument
from orchestra.events import OnCancel, OnParentClose
from orchestra.futures import DurableFuture, Future, TimedWait
from orchestra.ids import check_label_changes, check_labels, check_name, check_stream, check_text
from orchestra.options import check_count, check_duration
from orchestra.requests import Request
from orchestra.retry import RetryPolicy
from orchestra.scheduler import Scheduler
from orchestra.schedules import Cron, Daily, Every, Monthly, Spec, Weekly, next_slot
from orchestra.sessions import Session, session_queue
from orchestra.signatures import plain_function
from orchestra.synchronization import Condition, Lock, Semaphore
from orchestra.versions import parse_version

__all__ = [
    "BoundaryRequest",
    "ChildHandle",
    "Condition",
    "Limits",
    "Lock",
    "Machine",
    "OrchestrationContext",
    "RaceResult",
    "ReturnWhen",
    "Semaphore",
    "Session",
    "TaskGroup",
    "WaitResult",
]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")

ReturnWhen = Literal["all_completed", "first_completed", "ALL_COMPLETED", "FIRST_COMPLETED"]
"""What ends a :meth:`OrchestrationContext.wait`. The upper case is that of ``asyncio.wait``."""

ParentClose = Literal["abandon", "cancel", "terminate"]
"""What happens to an open child when the execution that started it closes, in any way."""


IfEndedAgain = Literal["restart", "restart_if_failed"]
"""What a start does if the instance with its id has ended: begin it again, always or unless it has
completed.
"""


class DetachedOptions(TypedDict, total=False):
    """The keyword arguments of :meth:`OrchestrationContext.start_detached` and
    :meth:`OrchestrationContext.start_background_child`.
    """

    instance_id: str | None
    version: str | None
    queue: str | None
    labels: Mapping[str, str] | None
    if_ended: IfEndedAgain | None


class ChildOptions(DetachedOptions, total=False):
    """The keyword arguments of :meth:`OrchestrationContext.start_child`."""

    on_parent_close: ParentClose


_PARENT_CLOSE: Final[Mapping[str, OnParentClose]] = {
    kind.name.lower(): kind for kind in OnParentClose if kind is not OnParentClose.KEEP
}
_ON_CANCEL: Final[Mapping[str | None, OnCancel]] = {
    None: OnCancel.AS_FITS,
    "wait": OnCancel.WAIT,
    "abandon": OnCancel.ABANDON,
}
_LONGEST_PATCH: Final = 200
_LATEST: Final = to_micros(datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Limits:
    """How large one execution may grow.

    From ``suggest_events`` events or ``suggest_bytes`` bytes on, ``ctx.continue_as_new_suggested``
    is true. Over ``max_events`` or ``max_bytes`` the instance is held (``limit``) until a runtime
    allows more. ``max_payload`` bounds each single value.

    Raises:
        InvalidArgument: one of them is no whole number, or less than 1.
    """

    suggest_events: int = 4_000
    suggest_bytes: int = 8 * 1024 * 1024
    max_events: int = 50_000
    max_bytes: int = 64 * 1024 * 1024
    max_payload: int = DEFAULT_PAYLOAD_LIMIT

    def __post_init__(self) -> None:
        check_count(self.suggest_events, "Limits.suggest_events")
        check_count(self.suggest_bytes, "Limits.suggest_bytes")
        check_count(self.max_events, "Limits.max_events")
        check_count(self.max_bytes, "Limits.max_bytes")
        check_count(self.max_payload, "Limits.max_payload")


@dataclass(frozen=True, slots=True)
class BoundaryRequest:
    """A request to an execution that it reaches its boundary soon: a nudge, or a boundary that was
    due.

    ``at`` is when it was made, on the store's clock, and ``by`` who has made it.
    """

    at: datetime
    by: str
    reason: str


class Machine(Protocol):
    """The execution behind a context."""

    limits: Limits
    scheduler: Scheduler
    instance_id: str
    execution_id: int
    name: str
    version: str
    registered: Mapping[str, Activity[..., Any]]
    """The activities that this node has, by name."""
    is_exact: bool
    """Whether inexact values are refused. They are not if an older library began the execution."""
    lost_nodes: frozenset[str]
    """The nodes of which the code has learned that sessions there are lost."""

    @property
    def now(self) -> int: ...
    @property
    def history_events(self) -> int: ...
    @property
    def history_bytes(self) -> int: ...
    @property
    def is_replaying(self) -> bool: ...
    @property
    def random(self) -> Random: ...
    @property
    def boundary_request(self) -> BoundaryRequest | None: ...

    def check(self) -> None: ...
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
    ) -> DurableFuture[Any]: ...
    def schedule_timer(self, due: int, *, is_instant: bool = False) -> DurableFuture[None]: ...
    def wait_for_event(self, name: str, payload: Decoder[Any]) -> DurableFuture[Any]: ...
    def wait_for_request(
        self, name: str, value: Decoder[Any], returns: Decoder[Any]
    ) -> DurableFuture[Any]: ...
    def wait_for_boundary_request(self) -> Future[BoundaryRequest]: ...
    def patched(self, patch: str) -> bool: ...
    def send_event(self, target: str, name: str, payload: Payload) -> DurableFuture[None]: ...
    def send_cancel(self, target: str, reason: str) -> DurableFuture[None]: ...
    def orchestration(
        self, function: Callable[[Any, Any], Awaitable[Any]]
    ) -> tuple[str, Decoder[Any]]: ...
    def state_of(self, name: str, version: str | None) -> Decoder[Any]: ...
    def start_child(
        self,
        name: str,
        version: str | None,
        instance_id: str | None,
        on_parent_close: OnParentClose,
        payload: Payload,
        result: Decoder[Any],
        queue: str | None = None,
        labels: Mapping[str, str] = ...,
        if_ended: str | None = None,
    ) -> DurableFuture[Any]: ...
    def start_background_child(
        self,
        name: str,
        version: str | None,
        instance_id: str | None,
        payload: Payload,
        result: Decoder[Any],
        queue: str | None = None,
        labels: Mapping[str, str] = ...,
        if_ended: str | None = None,
    ) -> ChildHandle[Any]: ...
    def wait_for_child(self, handle: ChildHandle[Any]) -> DurableFuture[Any]: ...
    def start_detached(
        self,
        name: str,
        version: str | None,
        instance_id: str | None,
        payload: Payload,
        queue: str | None = None,
        labels: Mapping[str, str] = ...,
        if_ended: str | None = None,
    ) -> str: ...
    def request_boundary(self, state: Payload, version: str | None) -> None: ...
    def set_custom_status(self, value: Payload) -> None: ...
    def set_labels(self, changes: Mapping[str, str | None]) -> None: ...
    def publish(self, stream: str, value: Payload) -> None: ...
    def trace(self, level: int, message: str, fields: dict[str, Any]) -> None: ...


class OrchestrationContext:
    """The only way from orchestration code to the world. Valid inside its own orchestration.

    Every ``schedule_*`` and ``wait_*`` call is recorded at once and returns a durable future;
    awaiting it is separate. Calls and their order must depend on nothing but the input, earlier
    results, and this context.
    """

    __slots__ = ("_machine",)

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    # --- facts ---

    @property
    def instance_id(self) -> str:
        """The id of the instance; it never changes."""
        return self._machine.instance_id

    @property
    def execution_id(self) -> int:
        """The number of this lap, from 1."""
        return self._machine.execution_id

    @property
    def name(self) -> str:
        """The stable name of the orchestration."""
        return self._machine.name

    @property
    def version(self) -> str:
        """The version that runs. It changes only at ``continue_as_new``."""
        return self._machine.version

    @property
    def is_replaying(self) -> bool:
        """True exactly while the code repeats what it did before."""
        return self._machine.is_replaying

    @property
    def history_length(self) -> int:
        """How many events this execution has."""
        return self._machine.history_events

    @property
    def continue_as_new_suggested(self) -> bool:
        """Whether this execution is so large that a boundary is advisable. A newer version is never
        a reason.
        """
        limits = self._machine.limits
        return (
            self._machine.history_events >= limits.suggest_events
            or self._machine.history_bytes >= limits.suggest_bytes
        )

    @property
    def boundary_requested(self) -> bool:
        """Whether this execution is asked to reach its boundary soon: by ``client.nudge``, or
        because its boundary was due. It stays true until the boundary; the next execution is asked
        anew.
        """
        return self._machine.boundary_request is not None

    # --- deterministic and free ---

    def now(self) -> datetime:
        """Return the time of the event that woke the code: aware, UTC, never going back, the same
        on replay.
        """
        return from_micros(self._machine.now)

    def uuid4(self) -> uuid.UUID:
        """Return a random UUID that is the same on replay."""
        self._machine.check()
        return uuid.UUID(int=self._machine.random.getrandbits(128), version=4)

    def random(self) -> float:
        """Return a random number in [0, 1) that is the same on replay."""
        self._machine.check()
        return self._machine.random.random()

    @overload
    def next_time(self, spec: Cron | Daily | Every | Monthly | Weekly) -> datetime: ...
    @overload
    def next_time(self, spec: Spec) -> datetime | None: ...
    def next_time(self, spec: Spec) -> datetime | None:
        """Return the spec's next slot after :meth:`now`: aware, UTC.

        ``None``: there is none. Only an ``At``, or a spec with exclusions, can end.

        It records nothing, so that a loop can be its own schedule: ``await
        ctx.schedule_timer(ctx.next_time(Cron("0 9 * * *", "Europe/Berlin")))``. A timer keeps the
        due time that it was scheduled with.

        The slot of a spec with a zone depends on the rules of that zone, which the node's zone
        database has. If nodes may have databases of different ages, do not decide by the slot which
        call comes next; only use it as a value.

        Raises:
            InvalidArgument: the argument is no spec.
        """
        if not isinstance(spec, Spec):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(
                f"ctx.next_time takes a spec, not {spec!r}; write Cron('0 9 * * *')"
            )
        return next_slot(spec, self.now())

    # --- commands ---

    @overload
    def schedule_activity(
        self, activity: Activity[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> DurableFuture[R]: ...
    @overload
    def schedule_activity(
        self, activity: str, /, *args: Any, **kwargs: Any
    ) -> DurableFuture[Any]: ...
    @overload
    def schedule_activity(
        self, activity: PlainFunction[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> DurableFuture[R]: ...
    @overload
    def schedule_activity(
        self, activity: PlainFunction[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> DurableFuture[R]: ...
    def schedule_activity(self, activity: Any, /, *args: Any, **kwargs: Any) -> DurableFuture[Any]:
        """Run an activity: at least once, its result applied exactly once.

        Args:
            activity: an ``@activity``, a plain function, or a name. ``activity.options(...)``
                changes options for one call. A name takes the retry policy, timeouts and queue
                under which the calling node has registered it (``Runtime(activities=...)``), or the
                defaults. They are recorded with the call; no later registration changes them. Its
                result is plain JSON. ``Activity.named(name, ...)`` states options and result type
                itself, independent of registrations.

        Raises:
            EncodeError, PayloadTooLarge: an argument cannot travel.
            TypeError: the arguments do not fit the function.
            InvalidFunction: it cannot be an activity.
            InvalidArgument: the name cannot be one.
            ActivityFailed: (at the await) it has failed for good.
            DecodeError: (at the await) its result does not fit the annotation.
        """
        self._machine.check()
        called, payload, on_cancel = self._prepare(activity, args, kwargs)
        return self._machine.schedule_activity(
            called.name,
            payload,
            called.retry,
            None if called.timeout is None else micros(called.timeout),
            None if called.heartbeat_timeout is None else micros(called.heartbeat_timeout),
            called.result,
            called.queue,
            on_cancel,
        )

    def _prepare(
        self, activity: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Activity[..., Any], Payload, OnCancel]:
        """Return an activity, its arguments as they travel, and what a cancel of the call does."""
        called = (
            self._named(activity)
            if isinstance(activity, str)
            else as_activity(activity, self._machine.registered)
        )
        subject = f"arguments of activity {called.name!r} in {self._machine.name!r}"
        limit = self._machine.limits.max_payload
        if called.signature is None:
            payload = encode(
                {"args": args, "kwargs": kwargs} if kwargs else args, subject=subject, limit=limit
            )
        else:
            payload = called.signature.encode(
                args, kwargs, subject=subject, limit=limit, exact=self._machine.is_exact
            )
        return called, payload, _ON_CANCEL[called.on_cancel]

    def session(
        self,
        *activities: Activity[..., Any] | PlainFunction[..., Any] | str,
        queue: str | None = None,
        timeout: timedelta | None = None,
    ) -> Session:
        """Return a session of these activities: ``async with ctx.session(download, transcode) as
        session:`` ties what is scheduled through it to one node. See :class:`~orchestra.Session`.

        Args:
            activities: those that are scheduled through it. Only a node that has all of them takes
                it.
            queue: its node serves this queue; by default the one that the activities name, or the
                instance's.
            timeout: how long entering waits for a node. It is a timer of this execution. By default
                it waits without end.

        Raises:
            InvalidArgument: no activity is given, their queues differ and ``queue`` is not given,
                or an argument cannot be one.
            InvalidFunction: a function cannot be an activity.
        """
        self._machine.check()
        check_text(queue, "a queue")
        if timeout is not None:
            self._due_in(timeout, "the timeout of a session")
        called = [
            self._named(activity)
            if isinstance(activity, str)
            else as_activity(activity, self._machine.registered)
            for activity in activities
        ]
        names = [each.name for each in called]
        return Session(self._machine, names, session_queue(queue, called), timeout, self._prepare)

    def _named(self, name: str) -> Activity[..., Any]:
        """Return the activity for a plain name: the options that this node has registered, without
        the function.

        Options are recorded and never compared. Arguments are compared, so their form must not
        depend on whether the replaying node has the function: the signature is not used.
        """
        known = self._machine.registered.get(name)
        if known is None:
            return Activity.named(name)
        return Activity.named(
            name,
            retry=known.retry,
            timeout=known.timeout,
            heartbeat_timeout=known.heartbeat_timeout,
            queue=known.queue,
            on_cancel=known.on_cancel,
        )

    def schedule_timer(self, when: timedelta | datetime) -> DurableFuture[None]:
        """Fire after a duration, or at an aware datetime: never early on the store's clock, across
        restarts.

        If that clock is corrected meanwhile, a duration keeps its length, and a datetime means the
        corrected clock.

        Raises:
            TypeError: it is neither a timedelta nor a datetime.
            ValueError: the datetime is naive, or the timer is due after the year 9999.
        """
        self._machine.check()
        if not isinstance(when, (timedelta, datetime)):
            raise TypeError(
                f"a timer takes a timedelta or an aware datetime, not {when!r}; write "
                "timedelta(seconds=...)"
            )
        due = to_micros(when) if isinstance(when, datetime) else self._machine.now + micros(when)
        if due > _LATEST:
            raise ValueError(f"a timer of {when!r} is due after the year 9999")
        return self._machine.schedule_timer(due, is_instant=isinstance(when, datetime))

    @overload
    def wait_for_event(
        self, name: str, *, timeout: timedelta | None = None
    ) -> DurableFuture[Any]: ...
    @overload
    def wait_for_event(
        self, name: str, type: type[T], *, timeout: timedelta | None = None
    ) -> DurableFuture[T]: ...
    @overload
    def wait_for_event(
        self, name: str, type: TypeForm[T], *, timeout: timedelta | None = None
    ) -> DurableFuture[T]: ...
    def wait_for_event(
        self,
        name: str,
        type: Any = Any,  # noqa: A002
        *,
        timeout: timedelta | None = None,
    ) -> DurableFuture[Any]:
        """Wait for the next event of this name. Each is delivered once, in order of arrival;
        earlier ones count too.

        Args:
            type: the type of the payload; plain JSON by default.
            timeout: after this time the wait ends, and takes no later event. It is a timer of this
                execution.

        Raises:
            InvalidArgument: ``name`` is not text of 1 to 1,024 characters, so no client could send
                such an event. Or ``timeout`` is no timedelta, or a negative one.
            DecodeError: (at the await) the payload does not fit ``type``.
            EventTimeout: (at the await) no event came in time. It is a ``TimeoutError``.
        """
        self._machine.check()
        check_name(name, "an event's name")
        if timeout is None:
            return self._machine.wait_for_event(name, decoder(type))
        due = self._due_in(timeout, f"the timeout of event {name!r}")
        wait = self._machine.wait_for_event(name, decoder(type))
        return self._timed(wait, due, EventTimeout(name, timeout))

    def _timed(
        self, wait: DurableFuture[Any], due: int, timed_out: EventTimeout
    ) -> DurableFuture[Any]:
        """Return a wait that ends when it is due."""
        timer = self._machine.schedule_timer(due)
        timed: DurableFuture[Any] = TimedWait(wait, timer, timed_out)
        branch = self._machine.scheduler.current
        if branch is not None:
            # Whether the branch waits for the future it sees decides about both.
            branch.owned[wait.event_id] = branch.owned[timer.event_id] = timed
        return timed

    @overload
    def wait_for_request(
        self, name: str, *, timeout: timedelta | None = None
    ) -> DurableFuture[Request[Any, Any]]: ...
    @overload
    def wait_for_request(
        self, name: str, type: type[T], *, timeout: timedelta | None = None
    ) -> DurableFuture[Request[T, Any]]: ...
    @overload
    def wait_for_request(
        self, name: str, type: type[T], *, returns: type[R], timeout: timedelta | None = None
    ) -> DurableFuture[Request[T, R]]: ...
    @overload
    def wait_for_request(
        self,
        name: str,
        type: TypeForm[T],
        *,
        returns: TypeForm[R],
        timeout: timedelta | None = None,
    ) -> DurableFuture[Request[T, R]]: ...
    def wait_for_request(
        self,
        name: str,
        type: Any = Any,  # noqa: A002
        *,
        returns: Any = Any,
        timeout: timedelta | None = None,
    ) -> DurableFuture[Any]:
        """Wait for the next request of this name, which a client sends with ``client.request``.

        The request has its ``value``, and is answered with ``reply`` or ``reject``, now or later in
        this lap: the answer is stored in the write of that turn. A request that this lap has
        received and not answered is received again in the next lap. Requests of one name come in
        the order of arrival, each once in a lap. A request that does not fit ``type`` is rejected
        without the code; its sender gets the reason.

        Args:
            type: the type of the request's value; plain JSON by default.
            returns: the type of the answer; plain JSON by default.
            timeout: after this time the wait ends, and takes no later request. It is a timer of
                this execution.

        Raises:
            InvalidArgument: ``name`` is not text of 1 to 1,024 characters. Or ``timeout`` is no
                timedelta, or a negative one.
            EventTimeout: (at the await) no request came in time. It is a ``TimeoutError``.
        """
        self._machine.check()
        check_name(name, "a request's name")
        if timeout is None:
            return self._machine.wait_for_request(name, decoder(type), decoder(returns))
        due = self._due_in(timeout, f"the timeout of request {name!r}")
        wait = self._machine.wait_for_request(name, decoder(type), decoder(returns))
        return self._timed(wait, due, EventTimeout(name, timeout, "request"))

    def raise_event(self, instance_id: str, name: str, payload: Any = None) -> DurableFuture[None]:
        """Send an event to another instance, or to this one: exactly once, with what the code has
        decided until it waits.

        It need not be awaited. Awaiting it tells that the inbox of the instance has the event, or
        raises why not; a refusal that no code awaits is logged. Events for one instance arrive in
        the order of the calls. What was sent is never taken back: neither by ``cancel()`` of the
        future, nor by the end of this execution.

        Raises:
            InvalidArgument: the id or the name is not text of 1 to 1,024 characters.
            EncodeError, PayloadTooLarge: the payload cannot travel.
            InstanceNotFound: (at the await) there is no instance with this id.
            InstanceCompleted: (at the await) it has ended.
            InboxFull: (at the await) its inbox is full, or has as much of this name as it may.
        """
        self._machine.check()
        check_name(instance_id, "an instance id")
        check_name(name, "an event's name")
        subject, limit = f"event {name!r} for {instance_id!r}", self._machine.limits.max_payload
        return self._machine.send_event(
            instance_id, name, encode(payload, subject=subject, limit=limit)
        )

    def cancel(self, instance_id: str, reason: str = "") -> DurableFuture[None]:
        """Ask another instance to stop, or this one, as :meth:`Client.cancel
        <orchestra.Client.cancel>` does. It is sent as :meth:`raise_event` sends, and need not be
        awaited either.

        Raises:
            InvalidArgument: the id is not text of 1 to 1,024 characters, or the reason not text of
                at most 1,024.
            InstanceNotFound: (at the await) there is no instance with this id.
            AlreadyCompleted: (at the await) it has ended.
        """
        self._machine.check()
        check_name(instance_id, "an instance id")
        check_name(reason or " ", "a reason")
        return self._machine.send_cancel(instance_id, reason)

    def wait_for_boundary_request(self) -> Future[BoundaryRequest]:
        """Wait until this execution is asked to reach its boundary; see
        :attr:`boundary_requested`. If it was asked already, the future is done.

        Race it against what the code waits for, such as a timer of a year. The wait itself is not
        recorded, so code may begin to use it while executions are open; the request is recorded.
        """
        self._machine.check()
        return self._machine.wait_for_boundary_request()

    def patched(self, patch: str) -> bool:
        """Return whether this execution takes the new way at a change of its code.

        True where the execution comes here first with the new code; a mark is recorded. False where
        it repeats a history without the mark: the old code was here before. The answer for one id
        is the same throughout an execution. While a node lives whose library cannot read the mark,
        it is False.

        Use one id for one change, also if that is made in several places. It is safe to remove a
        call once no open execution lacks the mark: a mark that code no longer asks for repeats.

        Args:
            patch: the id of the change: up to 200 characters, without spaces.

        Raises:
            InvalidArgument: it is no such text.
        """
        self._machine.check()
        check_name(patch, "the id of a patch")
        if len(patch) > _LONGEST_PATCH or len(patch.split()) != 1 or patch != patch.strip():
            raise InvalidArgument(
                f"the id of a patch is {patch!r}; give text of at most {_LONGEST_PATCH} characters "
                "without spaces"
            )
        return self._machine.patched(patch)

    def _due_in(self, timeout: object, what: str) -> int:
        """Return the due time of a timeout.

        Raises:
            InvalidArgument: it is no duration.
        """
        check_duration(timeout, what, least=timedelta(0))
        due = self._machine.now + micros(cast("timedelta", timeout))
        if due > _LATEST:
            raise InvalidArgument(f"{what} is {timeout!r}, which ends after the year 9999")
        return due

    @overload
    def start_child(
        self,
        orchestration: str,
        input: Any = None,
        *,
        returns: type[T],
        **options: Unpack[ChildOptions],
    ) -> DurableFuture[T]: ...
    @overload
    def start_child(
        self,
        orchestration: str,
        input: Any = None,
        *,
        returns: TypeForm[T],
        **options: Unpack[ChildOptions],
    ) -> DurableFuture[T]: ...
    @overload
    def start_child(
        self, orchestration: str, input: Any = None, **options: Unpack[ChildOptions]
    ) -> DurableFuture[Any]: ...
    @overload
    def start_child(
        self,
        orchestration: Callable[[OrchestrationContext, S], Awaitable[R]],
        input: S,
        **options: Unpack[ChildOptions],
    ) -> DurableFuture[R]: ...
    @overload
    def start_child(
        self,
        orchestration: Callable[[OrchestrationContext, None], Awaitable[R]],
        **options: Unpack[ChildOptions],
    ) -> DurableFuture[R]: ...
    def start_child(
        self,
        orchestration: str | Callable[[Any, Any], Awaitable[Any]],
        input: Any = None,  # noqa: A002 - the term of the client's start
        *,
        returns: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        queue: str | None = None,
        on_parent_close: ParentClose = "abandon",
        labels: Mapping[str, str] | None = None,
        if_ended: IfEndedAgain | None = None,
    ) -> DurableFuture[Any]:
        """Start an instance as this one's child, once, and wait for its end, over all its laps.

        It is an instance like any other, with an id, laps, a version and children. Giving up the
        future cancels the child and drops its end: the loser of a race, a cancelled branch, a
        cancel while it is awaited. Use :meth:`start_detached` for an instance that must outlive
        this. A boundary gives up nothing: only the execution that started the child gets its end,
        and ``on_parent_close`` decides what the child does afterwards. Use
        :meth:`start_background_child` for a child whose end a later lap awaits.

        Args:
            orchestration: a registered function, or the name of an orchestration.
            input: its first state.
            returns: for a name, the type of the result; plain JSON by default. A function's own
                annotation counts.
            instance_id: its id; by default a fresh one in each execution.
            version: exactly this one, deployed yet or not; by default what the name's policy gives.
            queue: only nodes that serve this queue run it; none need serve it yet. By default this
                instance's.
            on_parent_close: what it does when this execution closes before it, in any way.
            labels: small facts to list it by.
            if_ended: what to do if an instance with the id has ended: begin it again. By default
                that is done only for a former child of this instance, so that each lap may use the
                same id.

        Raises:
            UnknownOrchestration: the function is not registered in this registry.
            InvalidFunction: it is registered under several names.
            InvalidArgument: the id, the name, the queue, a label or ``on_parent_close`` cannot be
                one.
            InvalidVersion: ``version`` is not semver.
            EncodeError, PayloadTooLarge: the input cannot travel.
            ChildFailed: (at the await) it did not complete, another instance has its id, or no
                living node has the name.
            DecodeError: (at the await) its result does not fit.
        """
        close = _PARENT_CLOSE.get(on_parent_close)
        if close is None:
            raise InvalidArgument(
                f"on_parent_close is {on_parent_close!r}; give one of {', '.join(_PARENT_CLOSE)}"
            )
        name, payload, result = self._started(orchestration, input, instance_id, version, queue)
        if result is None or returns is not None:
            result = decoder(Any if returns is None else returns)
        check_labels(labels)
        _check_if_ended(if_ended)
        return self._machine.start_child(
            name, version, instance_id, close, payload, result, queue, dict(labels or {}), if_ended
        )

    @overload
    def start_background_child(
        self,
        orchestration: str,
        input: Any = None,
        *,
        returns: type[T],
        **options: Unpack[DetachedOptions],
    ) -> ChildHandle[T]: ...
    @overload
    def start_background_child(
        self,
        orchestration: str,
        input: Any = None,
        *,
        returns: TypeForm[T],
        **options: Unpack[DetachedOptions],
    ) -> ChildHandle[T]: ...
    @overload
    def start_background_child(
        self, orchestration: str, input: Any = None, **options: Unpack[DetachedOptions]
    ) -> ChildHandle[Any]: ...
    @overload
    def start_background_child(
        self,
        orchestration: Callable[[OrchestrationContext, S], Awaitable[R]],
        input: S,
        **options: Unpack[DetachedOptions],
    ) -> ChildHandle[R]: ...
    @overload
    def start_background_child(
        self,
        orchestration: Callable[[OrchestrationContext, None], Awaitable[R]],
        **options: Unpack[DetachedOptions],
    ) -> ChildHandle[R]: ...
    def start_background_child(
        self,
        orchestration: str | Callable[[Any, Any], Awaitable[Any]],
        input: Any = None,  # noqa: A002 - the term of the client's start
        *,
        returns: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        queue: str | None = None,
        labels: Mapping[str, str] | None = None,
        if_ended: IfEndedAgain | None = None,
    ) -> ChildHandle[Any]:
        """Start a child that goes on over boundaries of this instance, and return its handle at
        once.

        The handle may stand in the state. :meth:`wait_for_child` in this lap or in any later one
        gives the child's end, which waits in the inbox until then; it does not count against the
        inbox's limits. Await each handle at some time, or use :meth:`start_detached`: an end that
        no code awaits stays there until this instance ends.

        Nothing but the child's own end, or a cancel of it, stops it: neither giving up a wait, nor
        a boundary, nor the end of this instance. To stop it, call
        ``ctx.cancel(handle.instance_id)``.

        A start that is refused is told by :meth:`wait_for_child`, as ``ChildFailed``. The arguments
        are those of :meth:`start_child`.

        Raises:
            UnknownOrchestration, InvalidFunction, InvalidArgument, InvalidVersion, EncodeError,
                PayloadTooLarge: as for :meth:`start_child`.
        """
        name, payload, result = self._started(orchestration, input, instance_id, version, queue)
        if result is None or returns is not None:
            result = decoder(Any if returns is None else returns)
        check_labels(labels)
        _check_if_ended(if_ended)
        return self._machine.start_background_child(
            name, version, instance_id, payload, result, queue, dict(labels or {}), if_ended
        )

    def wait_for_child(
        self, handle: ChildHandle[R], *, timeout: timedelta | None = None
    ) -> DurableFuture[R]:
        """Wait for the end of a background child, which this lap or an earlier one has started.

        The result is read by the annotation of the handle: that of the child's function in the lap
        that starts it, ``ChildHandle[int]`` in the state afterwards. The end may be awaited again,
        also by later laps as long as the child is stored; so keep the result and drop the handle.
        Giving up the wait leaves the child alone, and another wait may take its end.

        Args:
            handle: what :meth:`start_background_child` has returned.
            timeout: after this time the wait ends. It is a timer of this execution.

        Raises:
            InvalidArgument: it is no handle, or ``timeout`` is no timedelta, or a negative one.
            ChildFailed: (at the await) the child did not complete, or could not be started.
            DecodeError: (at the await) its result does not fit.
            ChildEndForgotten: (at the await) an earlier lap has received the end, and the child has
                been deleted since.
            StaleChildHandle: (at the await) another instance has started the child, or an earlier
                life of this one.
            EventTimeout: (at the await) it has not ended in time. It is a ``TimeoutError``.
        """
        self._machine.check()
        if not isinstance(handle, ChildHandle):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(
                f"ctx.wait_for_child takes a handle, not {handle!r}; "
                "ctx.start_background_child returns one"
            )
        if timeout is None:
            return self._machine.wait_for_child(handle)
        due = self._due_in(timeout, f"the timeout of child {handle.instance_id!r}")
        wait = self._machine.wait_for_child(handle)
        timed_out = EventTimeout(handle.instance_id, timeout, "end of child")
        return self._timed(wait, due, timed_out)

    @overload
    def start_detached(
        self, orchestration: str, input: Any = None, **options: Unpack[DetachedOptions]
    ) -> str: ...
    @overload
    def start_detached(
        self,
        orchestration: Callable[[OrchestrationContext, S], Awaitable[Any]],
        input: S,
        **options: Unpack[DetachedOptions],
    ) -> str: ...
    @overload
    def start_detached(
        self,
        orchestration: Callable[[OrchestrationContext, None], Awaitable[Any]],
        **options: Unpack[DetachedOptions],
    ) -> str: ...
    def start_detached(
        self,
        orchestration: str | Callable[[Any, Any], Awaitable[Any]],
        input: Any = None,  # noqa: A002 - the term of the client's start
        *,
        instance_id: str | None = None,
        version: str | None = None,
        queue: str | None = None,
        labels: Mapping[str, str] | None = None,
        if_ended: IfEndedAgain | None = None,
    ) -> str:
        """Start an independent instance, and return its id at once. Its end does not come back
        here.

        If the id is taken, that instance is left alone and a warning is logged. So the call means
        "make sure that it runs", with ``if_ended="restart"`` also if it has ended. A name that no
        living node has is started, and held until it is deployed. ``queue`` is this instance's by
        default; ``labels`` are small facts to list it by.

        Raises:
            UnknownOrchestration, InvalidFunction, InvalidArgument, InvalidVersion, EncodeError,
                PayloadTooLarge: as for :meth:`start_child`.
        """
        name, payload, _ = self._started(orchestration, input, instance_id, version, queue)
        check_labels(labels)
        _check_if_ended(if_ended)
        return self._machine.start_detached(
            name, version, instance_id, payload, queue, dict(labels or {}), if_ended
        )

    def _started(
        self,
        orchestration: str | Callable[[Any, Any], Awaitable[Any]],
        state: Any,
        instance_id: str | None,
        version: str | None,
        queue: str | None,
    ) -> tuple[str, Payload, Decoder[Any] | None]:
        """Check the arguments of a start. Return the name, the input, and the decoder of a
        function's result.
        """
        self._machine.check()
        if isinstance(orchestration, str):
            name, result = orchestration, None
            check_name(name, "an orchestration's name")
        else:
            if inspect.iscoroutine(orchestration):
                plain_function(orchestration, "what is started")
            name, result = self._machine.orchestration(orchestration)
        check_text(instance_id, "an instance id")
        check_text(queue, "a queue")
        if version is not None:
            parse_version(version)
        subject = f"input of child {name!r} in {self._machine.name!r}"
        limit = self._machine.limits.max_payload
        return (
            name,
            self._input(self._machine.state_of(name, version), state, subject, limit),
            result,
        )

    def _input(self, decoder: Decoder[Any], state: Any, subject: str, limit: int) -> Payload:
        """Encode the input of a start: a value, or the plain JSON of one."""
        if not self._machine.is_exact:
            return decoder.encode(state, subject=subject, limit=limit, exact=False)
        try:
            return decoder.encode_input(state, subject=subject, limit=limit)
        except DecodeError as error:
            raise EncodeError(str(error), subject=subject, field=error.field) from error

    def continue_as_new(self, state: Any = None, version: str | None = None) -> NoReturn:
        """End this execution and begin the next one with ``state`` as its input. Never returns.

        The policy chooses the next version, unless ``version`` names it: up, down, or not deployed
        yet. The state is written by the annotation of this function's input, or of ``version``'s
        input if that is registered here.

        Raises:
            EncodeError, PayloadTooLarge: the state does not fit its annotation, or cannot be
                stored. The execution goes on.
            InvalidVersion: ``version`` is not semver.
        """
        self._machine.check()
        if version is not None:
            parse_version(version)
        payload = self._machine.state_of(
            self._machine.name, version or self._machine.version
        ).encode(
            state,
            subject=f"state of orchestration {self._machine.name!r}",
            limit=self._machine.limits.max_payload,
            exact=self._machine.is_exact,
        )
        self._machine.request_boundary(payload, version)
        raise ContinueAsNew

    # --- several at once ---

    @overload
    async def gather(self, a: Awaitable[T1], /) -> tuple[T1]: ...
    @overload
    async def gather(self, a: Awaitable[T1], b: Awaitable[T2], /) -> tuple[T1, T2]: ...
    @overload
    async def gather(
        self, a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], /
    ) -> tuple[T1, T2, T3]: ...
    @overload
    async def gather(
        self, a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], d: Awaitable[T4], /
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def gather(
        self,
        a: Awaitable[T1],
        b: Awaitable[T2],
        c: Awaitable[T3],
        d: Awaitable[T4],
        e: Awaitable[T5],
        /,
    ) -> tuple[T1, T2, T3, T4, T5]: ...
    @overload
    async def gather(
        self,
        a: Awaitable[T1],
        b: Awaitable[T2],
        c: Awaitable[T3],
        d: Awaitable[T4],
        e: Awaitable[T5],
        f: Awaitable[T6],
        /,
    ) -> tuple[T1, T2, T3, T4, T5, T6]: ...
    @overload
    async def gather(self, *awaitables: Awaitable[T]) -> tuple[T, ...]: ...
    @overload
    async def gather(
        self, a: Awaitable[T1], /, *, return_exceptions: Literal[True]
    ) -> tuple[T1 | Exception]: ...
    @overload
    async def gather(
        self, a: Awaitable[T1], b: Awaitable[T2], /, *, return_exceptions: Literal[True]
    ) -> tuple[T1 | Exception, T2 | Exception]: ...
    @overload
    async def gather(
        self,
        a: Awaitable[T1],
        b: Awaitable[T2],
        c: Awaitable[T3],
        /,
        *,
        return_exceptions: Literal[True],
    ) -> tuple[T1 | Exception, T2 | Exception, T3 | Exception]: ...
    @overload
    async def gather(
        self, *awaitables: Awaitable[T], return_exceptions: Literal[False]
    ) -> tuple[T, ...]: ...
    @overload
    async def gather(
        self, *awaitables: Awaitable[T], return_exceptions: bool
    ) -> tuple[T | Exception, ...]: ...
    async def gather(
        self, *awaitables: Awaitable[Any], return_exceptions: bool = False
    ) -> tuple[Any, ...]:
        """Wait for all of them; return their results in the order given.

        The first error, in the order of history, cancels the others; it is raised when they have
        ended.

        Args:
            return_exceptions: return errors among the results, in their places, and cancel nothing.
                A boundary and a cancel are no errors, and still end the wait.
        """
        self._check_with(awaitables)
        return tuple(
            await gather(self._machine.scheduler, awaitables, return_exceptions=return_exceptions)
        )

    @overload
    async def race(self, a: Awaitable[T1], /) -> RaceResult[T1]: ...
    @overload
    async def race(self, a: Awaitable[T1], b: Awaitable[T2], /) -> RaceResult[T1 | T2]: ...
    @overload
    async def race(
        self, a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], /
    ) -> RaceResult[T1 | T2 | T3]: ...
    @overload
    async def race(
        self, a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], d: Awaitable[T4], /
    ) -> RaceResult[T1 | T2 | T3 | T4]: ...
    @overload
    async def race(
        self,
        a: Awaitable[T1],
        b: Awaitable[T2],
        c: Awaitable[T3],
        d: Awaitable[T4],
        e: Awaitable[T5],
        /,
    ) -> RaceResult[T1 | T2 | T3 | T4 | T5]: ...
    @overload
    async def race(
        self,
        a: Awaitable[T1],
        b: Awaitable[T2],
        c: Awaitable[T3],
        d: Awaitable[T4],
        e: Awaitable[T5],
        f: Awaitable[T6],
        /,
    ) -> RaceResult[T1 | T2 | T3 | T4 | T5 | T6]: ...
    @overload
    async def race(self, *awaitables: Awaitable[T]) -> RaceResult[T]: ...
    async def race(self, *awaitables: Awaitable[Any]) -> RaceResult[Any]:
        """Wait for the first of them to end, in the order of history; return its position and
        value.

        The others are cancelled and leave nothing behind: their timers and waits are gone, late
        results are dropped.
        """
        self._check_with(awaitables)
        return await race(self._machine.scheduler, awaitables)

    @overload
    async def wait(
        self,
        a: Future[T1],
        b: Future[T2],
        /,
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109
        return_when: ReturnWhen = "all_completed",
    ) -> WaitResult[T1 | T2]: ...
    @overload
    async def wait(
        self,
        a: Future[T1],
        b: Future[T2],
        c: Future[T3],
        /,
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109
        return_when: ReturnWhen = "all_completed",
    ) -> WaitResult[T1 | T2 | T3]: ...
    @overload
    async def wait(
        self,
        a: Future[T1],
        b: Future[T2],
        c: Future[T3],
        d: Future[T4],
        /,
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109
        return_when: ReturnWhen = "all_completed",
    ) -> WaitResult[T1 | T2 | T3 | T4]: ...
    @overload
    async def wait(
        self,
        *futures: Future[T],
        timeout: timedelta | None = None,  # noqa: ASYNC109
        return_when: ReturnWhen = "all_completed",
    ) -> WaitResult[T]: ...
    async def wait(
        self,
        *futures: Future[Any],
        timeout: timedelta | None = None,  # noqa: ASYNC109 - a durable one
        return_when: ReturnWhen = "all_completed",
    ) -> WaitResult[Any]:
        """Wait until all futures are done, or the first, or the time is up. Return the done and the
        pending ones.

        Nothing is cancelled, and no error is raised: it is a race whose losers live on. Await the
        done ones for their results, and wait again for the others. Futures come from
        ``ctx.schedule_*``, ``ctx.wait_*``, ``ctx.start_child``, and from ``group.create_task`` for
        a coroutine.

        Args:
            timeout: after this time it returns in any case. It is a timer of this execution.
            return_when: ``"all_completed"`` (an error completes a future, too) or
                ``"first_completed"``.

        Raises:
            TypeError: one of them is no future of this execution, or none is given.
            InvalidArgument: ``timeout`` or ``return_when`` cannot be one.
        """
        self._check_with(futures)
        scheduler = self._machine.scheduler
        for future in futures:
            if not isinstance(future, Future) or future.seal is not scheduler.seal:
                discard(futures)
                raise TypeError(
                    f"ctx.wait takes futures of this execution, not {future!r}; give a "
                    "coroutine to `group.create_task(...)` of a task group, which returns one"
                )
        if not futures:
            raise TypeError("ctx.wait needs at least one future")
        mode = return_when.lower() if isinstance(return_when, str) else return_when
        if mode not in {"all_completed", "first_completed"}:
            raise InvalidArgument(
                f"return_when is {return_when!r}; give 'all_completed' or 'first_completed'"
            )
        timer = None
        if timeout is not None:
            timer = partial(
                self._machine.schedule_timer, self._due_in(timeout, "the timeout of ctx.wait")
            )
        return await wait(
            scheduler, tuple(dict.fromkeys(futures)), everyone=mode == "all_completed", timer=timer
        )

    def lock(self) -> Lock:
        """Return a lock for branches of this execution. Make it once, and pass it to the branches
        that share it.
        """
        self._machine.check()
        return Lock(self._machine.scheduler)

    def semaphore(self, value: int) -> Semaphore:
        """Return a semaphore that ``value`` branches of this execution can hold at a time, for
        example to bound a fan-out.

        Raises:
            InvalidArgument: ``value`` is no whole number of at least 1.
        """
        self._machine.check()
        return Semaphore(self._machine.scheduler, value)

    def condition(self, lock: Lock | None = None) -> Condition:
        """Return a condition, by which branches of this execution notify each other of a change.

        Args:
            lock: the lock that its users hold; by default a new one.
        """
        self._machine.check()
        return Condition(self._machine.scheduler, lock)

    def task_group(self) -> TaskGroup:
        """Return a structured group of branches: ``async with ctx.task_group() as group:
        group.create_task(...)``.
        """
        self._machine.check()
        return TaskGroup(self._machine.scheduler)

    def _check_with(self, awaitables: tuple[Awaitable[Any], ...]) -> None:
        try:
            self._machine.check()
        except BaseException:
            discard(awaitables)
            raise

    # --- what people see ---

    def set_custom_status(self, value: Any) -> None:
        """Show a value in the instance's info. It stays over boundaries until it is set again.

        Raises:
            EncodeError, PayloadTooLarge: it cannot travel.
        """
        self._machine.check()
        subject, limit = (
            f"custom status of {self._machine.name!r}",
            self._machine.limits.max_payload,
        )
        self._machine.set_custom_status(
            encode(value, subject=subject, limit=limit, names_types=False)
        )

    def set_labels(self, labels: Mapping[str, str | None]) -> None:
        """Set labels of the instance, and remove those that are ``None``; the others stay.

        They are stored in the write of the turn, once, and never set again on replay. They stay
        over boundaries, until code or an operator changes them. ``list_instances(labels=...)``
        finds instances by them.

        Raises:
            InvalidArgument: they are no mapping; a key is not text of 1 to 1,024 characters; a
                value is neither ``None`` nor text of at most 1,024; or this lap sets more than 64
                different ones.
        """
        self._machine.check()
        self._machine.set_labels(check_label_changes(labels))

    def publish(self, stream: str, value: Any) -> None:
        """Publish a value to a stream of the instance: exactly once, in the write of the turn.

        Nothing is published again on replay, and nothing by a turn that ends in a hold.
        ``client.read_stream`` reads it, by its offset: 1, 2, 3, ... A stream lives as long as its
        instance, over boundaries and restarts. ``Retention(streams=...)`` says how much of it is
        kept. While a node with a library that knows no streams lives, the instance waits.

        Raises:
            InvalidArgument: the name is not text of 1 to 1,024 characters.
            EncodeError, PayloadTooLarge: the value cannot be stored.
        """
        self._machine.check()
        check_stream(stream)
        subject, limit = f"item of stream {stream!r}", self._machine.limits.max_payload
        self._machine.publish(stream, encode(value, subject=subject, limit=limit))

    def trace_debug(self, message: str, /, **fields: Any) -> None:
        """Log a message, tagged with name, version, instance and execution. Silent on replay;
        written after the commit.
        """
        self._machine.trace(10, message, fields)

    def trace_info(self, message: str, /, **fields: Any) -> None:
        """Log like :meth:`trace_debug`, at level INFO."""
        self._machine.trace(20, message, fields)

    def trace_warning(self, message: str, /, **fields: Any) -> None:
        """Log like :meth:`trace_debug`, at level WARNING."""
        self._machine.trace(30, message, fields)

    def trace_error(self, message: str, /, **fields: Any) -> None:
        """Log like :meth:`trace_debug`, at level ERROR."""
        self._machine.trace(40, message, fields)


def _check_if_ended(choice: str | None) -> None:
    if choice not in (None, "restart", "restart_if_failed"):
        raise InvalidArgument(
            f"if_ended is {choice!r}; give 'restart' or 'restart_if_failed', or leave it out"
        )
