"""Activities: ordinary functions with side effects, and their context.

An activity runs at least once; its result is applied exactly once. Use
:attr:`ActivityContext.idempotency_key` if the outside world must not notice a second run.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum, auto
from typing import Any, Final, Generic, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from typing_extensions import TypeForm

from orchestra.codec import (
    ArgumentsReader,
    Decoder,
    Payload,
    arguments_decoder,
    decoder,
    encode,
    encode_arguments,
    raw,
    repacked,
)
from orchestra.errors import (
    ActivityContextMissing,
    DecodeError,
    EncodeError,
    InvalidArgument,
    InvalidFunction,
    OrchestrationError,
)
from orchestra.frames import place
from orchestra.ids import RESERVED_ACTIVITIES, check_name, check_text
from orchestra.options import POSITIVE, check_duration, check_kind
from orchestra.retry import RetryPolicy
from orchestra.signatures import (
    annotation_decoder,
    awaits,
    called,
    names_around,
    plain_function,
    typed_signature,
    wrapped_by,
)

__all__ = [
    "Activity",
    "ActivityContext",
    "PlainFunction",
    "activity",
    "activity_context",
    "as_activity",
]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


OnCancelled = Literal["wait", "abandon"]
"""What the caller of a cancelled activity does: wait for its end, or go on at once."""

_ON_CANCEL: Final = (None, "wait", "abandon")
_DEFAULT_RETRY: Final = RetryPolicy()
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Signature:
    """The wire form of an activity's arguments."""

    parameters: inspect.Signature
    annotations: dict[str, Any]
    result: Decoder[Any]
    arity: range
    """The numbers of positional arguments that suffice alone; empty if there are others."""
    readers: dict[int, ArgumentsReader] = field(default_factory=dict[int, ArgumentsReader])
    writers: dict[int, tuple[Decoder[Any], ...]] = field(
        default_factory=dict[int, tuple[Decoder[Any], ...]]
    )

    @staticmethod
    def of(
        signature: inspect.Signature, annotations: dict[str, Any], result: Decoder[Any]
    ) -> Signature:
        """Return the wire form for a function's arguments. Its annotations are types by now."""
        parameters = signature.parameters.values()
        required = sum(parameter.default is inspect.Parameter.empty for parameter in parameters)
        simple = all(parameter.kind in _POSITIONAL for parameter in parameters)
        arity = range(required, len(parameters) + 1) if simple else range(0)
        return Signature(signature, annotations, result, arity)

    def encode(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        subject: str,
        limit: int,
        exact: bool = True,
    ) -> Payload:
        """Return the arguments' wire form: an array, or ``{"args": [...], "kwargs": {...}}`` if
        there are keywords.

        ``exact``: each is written by its annotation; otherwise as older libraries did.

        Raises:
            TypeError: they do not fit the function.
            EncodeError: one of them would come back as another value.
        """
        if kwargs or len(args) not in self.arity:
            try:
                bound = self.parameters.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{subject}: {error}") from None
            args, kwargs = bound.args, bound.kwargs
        positional = list(zip(self._decoders(len(args)), args, strict=True))
        keywords = (
            {name: (decoder(self._keyword(name)), value) for name, value in kwargs.items()}
            if kwargs
            else {}
        )
        try:
            return encode_arguments(positional, keywords, subject=subject, limit=limit)
        except EncodeError:
            if exact:
                raise
            return encode(
                {"args": args, "kwargs": kwargs} if kwargs else args, subject=subject, limit=limit
            )

    def decode(self, payload: Payload, *, subject: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments, each read by its annotation."""
        if len(self.arity) == 1 and payload.data.startswith(b"["):
            try:
                return self._reader(self.arity[0])(payload, subject=subject), {}
            except DecodeError:  # the check below names the fault, such as a wrong number
                pass
        values = raw(payload, subject=subject)
        if isinstance(values, list):
            return self._reader(len(cast("list[Any]", values)))(payload, subject=subject), {}
        kwargs = {
            name: decoder(self._keyword(name)).decode(repacked(value), subject=f"{subject}, {name}")
            for name, value in values["kwargs"].items()
        }
        return self._reader(len(values["args"]))(repacked(values["args"]), subject=subject), kwargs

    def _decoders(self, count: int) -> tuple[Decoder[Any], ...]:
        found = self.writers.get(count)
        if found is None:
            found = self.writers[count] = tuple(
                decoder(annotation) for annotation in self._positional(count)
            )
        return found

    def _reader(self, count: int) -> ArgumentsReader:
        reader = self.readers.get(count)
        if reader is None:
            reader = self.readers[count] = arguments_decoder(self._positional(count))
        return reader

    def _keyword(self, name: str) -> Any:
        if name not in self.parameters.parameters:
            kinds = self.parameters.parameters.values()
            name = next(
                (rest.name for rest in kinds if rest.kind is inspect.Parameter.VAR_KEYWORD), name
            )
        return self.annotations.get(name, Any)

    def _positional(self, count: int) -> list[Any]:
        annotations: list[Any] = []
        for parameter in self.parameters.parameters.values():
            annotation = self.annotations.get(parameter.name, Any)
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                annotations.extend([annotation] * (count - len(annotations)))
            elif parameter.kind in _POSITIONAL:
                annotations.append(annotation)
        return annotations[:count]


class _Same(Enum):
    """Marks an option that is not given, where ``None`` is a value."""

    SAME = auto()

    def __repr__(self) -> str:
        return "<as it is>"


_SAME: Final = _Same.SAME


@dataclass(frozen=True, slots=True)
class Activity(Generic[P, R_co]):
    """An activity: a function, its name, and its options. Call it to run the plain function (in
    unit tests).
    """

    name: str
    function: Callable[P, Any] | None
    retry: RetryPolicy
    timeout: timedelta | None
    heartbeat_timeout: timedelta | None
    signature: Signature | None
    result: Decoder[Any]
    queue: str | None = None
    on_cancel: OnCancelled | None = None
    journal: bool = False
    is_async: bool = field(init=False, repr=False, compare=False)
    """Whether the function is ``async def``, or wraps one (``functools.wraps``); others run in a
    thread.
    """

    def __post_init__(self) -> None:
        check_name(self.name, "an activity's name")
        if self.name.startswith(RESERVED_ACTIVITIES):
            raise InvalidArgument(
                f"an activity's name must not begin with {RESERVED_ACTIVITIES!r}, as {self.name!r} "
                "does: the library's own activities do; give it another name"
            )
        check_text(self.queue, f"the queue of activity {self.name!r}")
        if self.on_cancel not in _ON_CANCEL:
            raise InvalidFunction(
                f"on_cancel of activity {self.name!r} is {self.on_cancel!r}; give 'wait', "
                "'abandon' or None"
            )
        check_kind(
            self.retry, f"retry of activity {self.name!r}", RetryPolicy, error=InvalidFunction
        )
        for option, value in (
            ("timeout", self.timeout),
            ("heartbeat_timeout", self.heartbeat_timeout),
        ):
            if value is not None:
                what = f"{option} of activity {self.name!r}"
                check_duration(value, what, least=POSITIVE, optional=True, error=InvalidFunction)
        object.__setattr__(self, "is_async", awaits(self.function))  # frozen; asked for at each try

    def __hash__(self) -> int:
        return hash(self.name)  # not all of its options can be hashed

    def __repr__(self) -> str:
        return f"<activity {self.name!r}>"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the plain function.

        Raises:
            InvalidFunction: it is a reference by name.
            OrchestrationError: orchestration code calls it, and would repeat its work at each
                replay.
        """
        if ORCHESTRATING.get():
            raise OrchestrationError(
                f"activity {self.name!r} is called directly in an orchestration, at "
                f"{place(sys._getframe(1))}; write `await ctx.schedule_activity({self.name}, "
                "...)`, so that it runs once and its result is recorded"
            )
        if self.function is None:
            raise InvalidFunction(
                f"activity {self.name!r} is a reference by name; its function lives elsewhere"
            )
        return self.function(*args, **kwargs)

    def options(
        self,
        *,
        retry: RetryPolicy | _Same | None = _SAME,
        timeout: timedelta | _Same | None = _SAME,
        heartbeat_timeout: timedelta | _Same | None = _SAME,
        queue: str | _Same | None = _SAME,
        on_cancel: OnCancelled | _Same | None = _SAME,
    ) -> Activity[P, R_co]:
        """Return the same activity with other options, for one call:
        ``schedule_activity(probe.options(...), url)``.

        Options that are not given stay. ``None`` means what it means for ``@activity``: no timeout,
        the default retry policy, the instance's queue.

        Raises:
            InvalidFunction: ``retry`` is no policy, or a duration is no positive timedelta.
            InvalidArgument: the queue is not text of 1 to 1,024 characters.
        """
        return replace(
            self,
            retry=self.retry if retry is _SAME else _DEFAULT_RETRY if retry is None else retry,
            timeout=self.timeout if timeout is _SAME else timeout,
            heartbeat_timeout=self.heartbeat_timeout
            if heartbeat_timeout is _SAME
            else heartbeat_timeout,
            queue=self.queue if queue is _SAME else queue,
            on_cancel=self.on_cancel if on_cancel is _SAME else on_cancel,
        )

    @overload
    @staticmethod
    def named(
        name: str,
        returns: type[T],
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        heartbeat_timeout: timedelta | None = None,
        queue: str | None = None,
        on_cancel: OnCancelled | None = None,
    ) -> Activity[..., T]: ...
    @overload
    @staticmethod
    def named(
        name: str,
        returns: TypeForm[T],
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        heartbeat_timeout: timedelta | None = None,
        queue: str | None = None,
    ) -> Activity[..., T]: ...
    @overload
    @staticmethod
    def named(
        name: str,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        heartbeat_timeout: timedelta | None = None,
        queue: str | None = None,
        on_cancel: OnCancelled | None = None,
    ) -> Activity[..., Any]: ...
    @staticmethod
    def named(
        name: str,
        returns: Any = Any,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        heartbeat_timeout: timedelta | None = None,
        queue: str | None = None,
        on_cancel: OnCancelled | None = None,
    ) -> Activity[..., Any]:
        """Return a reference to an activity of other nodes, with its options and its result type.

        Options that are not given are the defaults, whatever the activity was registered with.

        Raises:
            InvalidArgument: the name or the queue is not text of 1 to 1,024 characters.
            InvalidFunction: ``retry`` is no policy, or a duration is no positive timedelta.
            UnresolvableAnnotation: ``returns`` names no type that can be read.
        """
        retry = _DEFAULT_RETRY if retry is None else retry
        return Activity(
            name, None, retry, timeout, heartbeat_timeout, None, decoder(returns), queue, on_cancel
        )


class PlainFunction(Protocol[P, R_co]):
    """A function or bound method, for type checkers; not an :class:`Activity`, and no other
    callable object.

    If an activity matched too, mypy would find a call of ``Activity[..., T]`` ambiguous, and infer
    ``Any``.
    """

    @property
    def __name__(self) -> str: ...

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call it."""
        ...


class _Decorator(Protocol):
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Activity[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Activity[P, R]: ...


@overload
def activity(function: Callable[P, Awaitable[R]], /) -> Activity[P, R]: ...
@overload
def activity(function: Callable[P, R], /) -> Activity[P, R]: ...
@overload
def activity(
    *,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: timedelta | None = None,
    heartbeat_timeout: timedelta | None = None,
    queue: str | None = None,
    on_cancel: OnCancelled | None = None,
    journal: bool = False,
) -> _Decorator: ...
def activity(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: timedelta | None = None,
    heartbeat_timeout: timedelta | None = None,
    queue: str | None = None,
    on_cancel: OnCancelled | None = None,
    journal: bool = False,
) -> Any:
    """Make a function an activity. Usable bare or with options, on ``def`` (run in a thread) and
    ``async def``.

    Write it above other decorators. They should use ``functools.wraps``: arguments are then read by
    the annotations of the function inside, without those that the decorator supplies. A ``def``
    around an ``async def`` is called on the event loop.

    Args:
        name: the stable name in histories; the function's own by default.
        retry: how failed attempts are repeated; three attempts by default.
        timeout: how long one attempt may take; exceeding it counts as a failed attempt.
        heartbeat_timeout: how long one attempt may go without :meth:`ActivityContext.heartbeat`.
        queue: only nodes that serve this queue run it (``Runtime(queues=...)``). By default the
            instance's node runs it, if it has the activity and a free place; otherwise any node
            that has it and serves the instance's queue.
        on_cancel: what its caller does when the call is cancelled. ``"wait"``: the activity is
            asked to end. ``Cancelled`` is raised, or the race goes on, once it has ended; so a
            compensation begins after it. ``"abandon"``: it is asked to end, and the caller goes on
            at once. By default a cancel of the instance waits; the loser of a race, and branches
            that fall with a failed one, are abandoned. A timeout, the loss of its node, and
            ``terminate`` end the wait too. The caller also waits for an activity on another node:
            that node learns of it at its next look at the store (``Runtime(poll=...)``) or
            heartbeat. An activity that no node has taken ends at once.
        journal: whether it has steps whose results are stored (:meth:`ActivityContext.step`), so
            that the next attempt goes on after the last one.

    Raises:
        InvalidFunction: it is no function, or a method without its object; ``retry`` is no policy;
            or a duration is no positive timedelta.
        InvalidArgument: the name or the queue is not text of 1 to 1,024 characters.
        UnresolvableAnnotation: an annotation names no type that can be found.
    """

    def decorate(target: Callable[..., Any]) -> Activity[..., Any]:
        return _make(
            target,
            name,
            _DEFAULT_RETRY if retry is None else retry,
            timeout,
            heartbeat_timeout,
            queue,
            on_cancel,
            journal=journal,
        )

    return decorate if function is None else decorate(function)


def as_activity(
    candidate: Callable[..., Any] | Activity[..., Any],
    registered: Mapping[str, Activity[..., Any]] | None = None,
) -> Activity[..., Any]:
    """Return an activity unchanged, and a plain function as an activity with default options.

    Args:
        registered: activities by name. If the function is one of them, its annotations are not read
            again; they may name classes of a function that does not run now.

    Raises:
        InvalidFunction: it cannot be an activity.
        UnresolvableAnnotation: an annotation names no type that can be found or read.
    """
    if isinstance(candidate, Activity):
        return candidate  # pyright: ignore[reportUnknownVariableType] - a cast() would be a call
    name = str(getattr(candidate, "__name__", ""))
    known = registered.get(name) if registered else None
    if known is not None and known.function == candidate:
        return Activity(name, candidate, _DEFAULT_RETRY, None, None, known.signature, known.result)
    return _make(candidate, None, _DEFAULT_RETRY, None, None)


def _make(
    function: Callable[..., Any],
    name: str | None,
    retry: RetryPolicy,
    timeout: timedelta | None,
    heartbeat_timeout: timedelta | None,
    queue: str | None = None,
    on_cancel: OnCancelled | None = None,
    *,
    journal: bool = False,
) -> Activity[..., Any]:
    function = plain_function(function, "an activity")
    if any(isinstance(wrapped, Activity) for wrapped in wrapped_by(function)):
        raise InvalidFunction(
            f"{called(function)!r} cannot be an activity: it is one already, inside a "
            "decorator; write `@activity` above the other decorators"
        )
    if _needs_an_object(function):
        raise InvalidFunction(
            f"{called(function)!r} cannot be an activity: it is a method, and history keeps no "
            "object to call it on. Leave it plain and give the bound one, `service.method`, to "
            "Runtime(activities=...) and to schedule_activity"
        )
    if name is None and function.__name__ == "<lambda>":
        raise InvalidFunction(
            "a lambda cannot be an activity: it has no name for history; write a `def`, or "
            "@activity(name=...)"
        )
    parameters, annotations = typed_signature(function, names_around(function))
    result = annotation_decoder(
        annotations.pop("return", Any), f"the result of {called(function)!r}"
    )
    for parameter, annotation in annotations.items():
        annotation_decoder(
            annotation,
            f"{parameter!r} of {called(function)!r}",
            decorated=hasattr(function, "__wrapped__"),
        )
    signature = Signature.of(parameters, annotations, result)
    return Activity(
        function.__name__ if name is None else name,
        function,
        retry,
        timeout,
        heartbeat_timeout,
        signature,
        result,
        queue,
        on_cancel,
        journal,
    )


def _needs_an_object(function: Callable[..., Any]) -> bool:
    """Return whether this is a method of a class that is not bound to an object."""
    owner = function.__qualname__.rpartition(".")[0]
    if inspect.ismethod(function) or not owner or owner.endswith("<locals>"):
        return False
    return next(iter(inspect.signature(function).parameters), "") in {"self", "cls"}


# --- the ambient context ----------------------------------------------------------------------


class RunningTry(Protocol):
    """The running attempt, as the activity sees it. Callable in any thread."""

    def beat(self, payload: Any) -> None:
        """Send a heartbeat."""
        ...

    def is_cancelled(self) -> bool:
        """Return whether its result is not needed."""
        ...

    def publish(self, stream: str, value: Any) -> Awaitable[None]:
        """Publish a value; see :meth:`ActivityContext.publish`."""
        ...

    def step(self, name: str, function: Callable[[], Any]) -> Any:
        """Run a step, or return what it has returned; see :meth:`ActivityContext.step`."""
        ...


@dataclass(frozen=True, slots=True)
class ActivityContext:
    """The context of a running activity. ``attempt`` counts from 1; ``last_heartbeat`` is the
    previous attempt's payload.
    """

    activity: str
    attempt: int
    instance_id: str
    execution_id: int
    orchestration: str
    version: str
    idempotency_key: str
    """The same for every attempt of this activity, and for no other activity:
    ``instance/incarnation/execution/activity``.
    """
    last_heartbeat: Any
    running: RunningTry = field(repr=False)

    def heartbeat(self, payload: Any = None) -> None:
        """Send a sign of life. If this attempt fails, the next one gets the payload."""
        self.running.beat(payload)

    def publish(self, stream: str, value: Any) -> Awaitable[None]:
        """Publish a value to a stream of the instance: ``await`` it in an ``async`` activity. A
        ``def`` activity only calls it.

        Items are stored in batches, in order, as soon as the node's engine is free; each carries
        its attempt. They stand before the activity's end does: a reader that sees the result can
        read them all. The call waits while a thousand items, or a megabyte, are on their way. What
        an attempt has published stays if the attempt fails; the next one publishes anew, under its
        own number.

        Raises:
            StaleAttempt: this attempt is no longer current: it was given up, or its node has lost
                the instance. Nothing was published, and its result will not count either.
            LevelTooLow: a node with a library that knows no streams lives. The next attempt may
                come later.
            InvalidArgument: the name is not text of 1 to 1,024 characters.
            EncodeError, PayloadTooLarge: the value cannot be stored.
        """
        return self.running.publish(stream, value)

    @overload
    def step(self, name: str, function: Callable[[], Awaitable[T]], /) -> Awaitable[T]: ...
    @overload
    def step(self, name: str, function: Callable[[], T], /) -> T: ...
    def step(self, name: str, function: Callable[[], Any], /) -> Any:
        """Run a step of an activity with ``@activity(journal=True)``, and store its result; a later
        attempt, also on another node, gets the result without running it again.

        In an ``async`` activity the function is ``async`` as well: ``await context.step("page-1",
        fetch)``. In a ``def`` activity it is a plain one, and the call returns its result. The
        result is stored when this returns. A crash before that runs the step once more. Results are
        read by the annotation of the function, or as plain JSON, also in the attempt that ran it.
        They are deleted with the activity's end. Each step of an activity has a name of its own.

        Raises:
            InvalidArgument: the name is not text of 1 to 1,024 characters, or another step of this
                attempt has it; or the activity has no journal.
            StaleAttempt, LevelTooLow, EncodeError, PayloadTooLarge: as :meth:`publish` does.
            DecodeError: a stored result does not fit the annotation.
        """
        return self.running.step(name, function)

    @property
    def cancelled(self) -> bool:
        """Whether the activity should end. An ``async`` one is cancelled at its await; a ``def``
        one asks here.
        """
        return self.running.is_cancelled()


ORCHESTRATING: ContextVar[bool] = ContextVar("orchestra_orchestrating", default=False)
"""Whether the running code is an orchestration's."""

AMBIENT: ContextVar[ActivityContext | None] = ContextVar("orchestra_activity", default=None)


def activity_context() -> ActivityContext:
    """Return the context of the running activity.

    Raises:
        ActivityContextMissing: no activity runs here.
    """
    context = AMBIENT.get()
    if context is None:
        raise ActivityContextMissing(
            "activity_context() can be called only inside an activity that the runtime runs"
        )
    return context
