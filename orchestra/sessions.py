"""Sessions: activities of an execution that run on one node, one after the other or at once.

Two activities of the library itself make one. The first waits for a node that takes the session,
and returns the node's id. The second stands for the open session on that node, until the block is
left: its end says that the node was lost. The user's activities go to the queue of that node.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from enum import Enum, auto
from types import TracebackType
from typing import Any, Final, ParamSpec, Protocol, Self, TypeVar, overload

from orchestra.activities import Activity, PlainFunction
from orchestra.clock import micros
from orchestra.codec import Decoder, Payload, decoder, encode, raw
from orchestra.errors import InvalidArgument, OrchestrationError, SessionLost, SessionTimeout
from orchestra.events import ActivityScheduled, OnCancel
from orchestra.futures import DurableFuture, TimedWait
from orchestra.ids import RESERVED_ACTIVITIES
from orchestra.retry import RetryPolicy
from orchestra.scheduler import Scheduler
from orchestra.store.routes import Route, node_queue, session_route

__all__ = ["ENTER", "OPEN", "Session", "activities_of", "entered_by", "route_of", "session_queue"]

P = ParamSpec("P")
R = TypeVar("R")

ENTER: Final = f"{RESERVED_ACTIVITIES}enter"
"""The activity that waits for a node. Its arguments are the names of the session's activities."""

OPEN: Final = f"{RESERVED_ACTIVITIES}open"
"""The activity that stands for an open session on its node. Its argument is the number of the event
that entered it.
"""

_PERSISTENT: Final = RetryPolicy(max_attempts=None)
_MOST_BYTES: Final = 1_000
"""How many bytes the names of a session's activities may have. They stand in an index."""


class _State(Enum):
    NEW = auto()
    ENTERING = auto()
    OPEN = auto()
    CLOSED = auto()


class Machine(Protocol):
    """What a session asks of its execution."""

    scheduler: Scheduler
    lost_nodes: frozenset[str]
    """The nodes of which the code has learned that sessions there are lost."""

    @property
    def now(self) -> int: ...
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


class Session:
    """Ties the activities that are scheduled through it to one node, while its block runs::

        async with ctx.session(download, transcode) as session:
            path = await session.schedule_activity(download, url)
            await session.schedule_activity(transcode, path)

    Entering waits until a node takes the session: one that has all the activities, serves the
    queue, has room, and is not stopping. Attempts that fail are repeated on that node. If it dies
    or leaves, the activities that have not ended raise ``SessionLost``, and none runs elsewhere. So
    does each later call.

    It ends with its block. It belongs to one execution, so it cannot stand in a state. Make it with
    ``ctx.session``.
    """

    __slots__ = ("_machine", "_names", "_node", "_open", "_prepare", "_queue", "_state", "_timeout")

    def __init__(
        self,
        machine: Machine,
        names: Sequence[str],
        queue: str | None,
        timeout: timedelta | None,
        prepare: Callable[
            [Any, tuple[Any, ...], dict[str, Any]], tuple[Activity[..., Any], Payload, OnCancel]
        ],
    ) -> None:
        self._machine = machine
        self._names = tuple(dict.fromkeys(names))
        self._queue = queue
        self._timeout = timeout
        self._prepare = prepare
        self._state = _State.NEW
        self._node = ""
        self._open: DurableFuture[Any] | None = None
        if not names:
            raise InvalidArgument(
                "a session needs the activities that are scheduled through it, so that a node with "
                "all of them takes it: ctx.session(download, transcode)"
            )
        if any(separator in name for name in self._names for separator in "\x1d\x1e\x1f"):
            raise InvalidArgument("an activity of a session has a control character in its name")
        if len("".join(self._names).encode()) > _MOST_BYTES:
            raise InvalidArgument(
                f"the names of a session's activities have more than {_MOST_BYTES:,} bytes "
                "together; give it fewer activities, or shorter names"
            )

    def __repr__(self) -> str:
        return f"<session of {', '.join(self._names)}, {self._state.name.lower()}>"

    @property
    def node_id(self) -> str:
        """The node that has taken it. The same on replay.

        Raises:
            OrchestrationError: it was not entered.
        """
        if not self._node:
            raise OrchestrationError("no node has taken this session yet; enter it: `async with`")
        return self._node

    async def __aenter__(self) -> Self:
        """Wait until a node has taken it.

        Raises:
            OrchestrationError: it was entered before.
            SessionTimeout: no node has taken it in time. It is a ``TimeoutError``.
        """
        machine = self._machine
        machine.check()
        if self._state is not _State.NEW:
            raise OrchestrationError("a session can be entered once; make a new one: ctx.session")
        self._state = _State.ENTERING
        arguments = encode(self._names, subject="the activities of a session")
        entering = machine.schedule_activity(
            ENTER, arguments, _PERSISTENT, None, None, decoder(str), self._queue, OnCancel.ABANDON
        )
        wait: DurableFuture[Any] = entering
        branch = machine.scheduler.current
        if self._timeout is not None:
            timer = machine.schedule_timer(machine.now + micros(self._timeout))
            wait = TimedWait(entering, timer, SessionTimeout(self._names, self._timeout))
            if branch is not None:
                branch.owned[entering.event_id] = branch.owned[timer.event_id] = wait
        self._node = await wait
        self._open = opened = machine.schedule_activity(
            OPEN,
            encode((entering.event_id,), subject="a session"),
            _PERSISTENT,
            None,
            None,
            decoder(Any),
            node_queue(self._node),
            OnCancel.ABANDON,
        )
        _ = opened.done  # no code awaits it
        if branch is not None:
            # A cancelled branch gives up what it owns; it leaves the block first.
            branch.owned.pop(opened.event_id, None)
        self._state = _State.OPEN
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """End it. What was scheduled through it and has not ended goes on."""
        self._state = _State.CLOSED
        if self._open is not None and not self._machine.scheduler.seal.closed:
            self._open.cancel()

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
        """Run an activity on the session's node, as ``ctx.schedule_activity`` does on any.

        Its own ``queue`` does not matter: the session has a node.

        Raises:
            InvalidArgument: the session was made without this activity.
            OrchestrationError: the session's block was left, or not entered.
            SessionLost: (now or at the await) the node has died, or has left.
            EncodeError, PayloadTooLarge, TypeError, InvalidFunction, ActivityFailed, DecodeError:
                as for ``ctx.schedule_activity``.
        """
        machine = self._machine
        machine.check()
        if self._state is not _State.OPEN:
            raise OrchestrationError(
                f"{self!r} takes no activity; schedule it inside the block: `async with "
                "ctx.session(...) as session:`"
            )
        called, payload, on_cancel = self._prepare(activity, args, kwargs)
        if called.name not in self._names:
            raise InvalidArgument(
                f"the session was made for {', '.join(map(repr, self._names))}, and its node may "
                f"lack activity {called.name!r}; name it too: ctx.session(..., {called.name})"
            )
        if self._node in machine.lost_nodes:
            raise SessionLost(called.name, self._node)
        return machine.schedule_activity(
            called.name,
            payload,
            called.retry,
            None if called.timeout is None else micros(called.timeout),
            None if called.heartbeat_timeout is None else micros(called.heartbeat_timeout),
            called.result,
            node_queue(self._node),
            on_cancel,
        )


def session_queue(queue: str | None, activities: Sequence[Activity[..., Any]]) -> str | None:
    """Return the queue that the node of a session must serve; ``None``: that of the instance.

    Raises:
        InvalidArgument: the activities name several, and the session none.
    """
    queues = {activity.queue for activity in activities if activity.queue is not None}
    if queue is None and len(queues) > 1:
        raise InvalidArgument(
            f"the activities of a session name the queues {', '.join(map(repr, sorted(queues)))}; "
            "say which one its node serves: ctx.session(..., queue=...)"
        )
    return queue if queue is not None else next(iter(queues), None)


# --- for the engine ---------------------------------------------------------------------------


def route_of(event: ActivityScheduled, queue: str, event_format: int) -> Route:
    """Return the route of an activity: the nodes that may run it.

    Args:
        event: what scheduled it.
        queue: the instance's queue, for activities that name none.
        event_format: the format of the execution.
    """
    queue = event.queue or queue
    if event.name == ENTER:
        return session_route(queue, activities_of(event.arguments)).of_format(event_format)
    return Route(queue, event.name).of_format(event_format)


def activities_of(arguments: Payload) -> list[str]:
    """Return the activities of a session, from the arguments of :data:`ENTER`."""
    return [str(name) for name in raw(arguments, subject="the activities of a session")]


def entered_by(arguments: Payload) -> int:
    """Return the event that entered a session, from the arguments of :data:`OPEN`."""
    return int(raw(arguments, subject="a session")[0])
