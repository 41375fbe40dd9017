"""One running attempt of an activity."""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio

from orchestra.activities import Activity, ActivityContext
from orchestra.codec import PLAIN, Payload
from orchestra.engine.messages import ActivityFailure, RunActivity
from orchestra.errors import ErrorInfo
from orchestra.replay import Identity
from orchestra.runtime.alarms import Alarm
from orchestra.runtime.driving import Driver
from orchestra.runtime.journals import Journal
from orchestra.runtime.publishing import Publisher
from orchestra.telemetry import Attempt

__all__ = ["Run", "Runner", "activity_context_of", "time_out_failure"]


class Runner(Protocol):
    """What an attempt needs of its runner. It calls the first two in any thread."""

    def take_heartbeat(self, run: Run, payload: Any) -> None:
        """Receive a heartbeat of an attempt."""
        ...

    def is_overdue(self, run: Run) -> bool:
        """Return whether an attempt's time is up."""
        ...

    def name_blocking(self, run: Run, seconds: float) -> None:
        """Log a warning about an attempt that blocked the event loop."""
        ...

    def publish(self, run: Run, stream: str, value: Any) -> Awaitable[None]:
        """Publish a value of an attempt."""
        ...

    def step(self, run: Run, name: str, function: Callable[[], Any]) -> Any:
        """Run a step of an attempt, or return what it has returned before."""
        ...


@dataclass(slots=True, eq=False)
class Run:
    """One running attempt. Times are monotonic seconds."""

    runner: Runner
    request: RunActivity
    activity: Activity[..., Any]
    in_task: bool
    """Whether a task runs it; otherwise a thread does."""
    scope: anyio.CancelScope = field(init=False)
    """The scope that cancels its task, if it has one."""
    calm: anyio.CancelScope = field(init=False)
    """A scope within ``scope``. When shielded, the task is not cancelled at each of its awaits."""
    driver: Driver | None = None
    awaitable: Awaitable[Any] | None = None
    """The awaitable that a ``def`` returned."""
    aborted: bool = False
    """Whether its result is not needed, so nothing is reported."""
    asked_at: float | None = None
    """When it was asked to end, if its caller waits for the end."""
    over_since: float | None = None
    """When it was cancelled: its time was up, or its result is not needed."""
    reason: str = ""
    verdict: ActivityFailure | None = None
    """The end that is reported, whatever the attempt does afterwards."""
    is_left: bool = False
    """Whether its thread was abandoned."""
    is_done: bool = False
    """Whether its thread has come back."""
    knows_it_is_late: bool = False
    """Whether it learned that its time is up before the event loop did. Its return value is then no
    result.
    """
    is_given_up: bool = False
    """Whether its end was reported before it ended."""
    named: bool = False
    """Whether a warning about it was logged."""
    started: float = 0.0
    beaten: float = 0.0
    heartbeat: Payload | None = None
    reported: float = -math.inf
    beat_waits: bool = False
    alarm: Alarm | None = None
    observed: Attempt | None = None
    publisher: Publisher | None = None
    """Its items on their way to the store, once it has published any."""
    journal: Journal | None = None
    """The results of its steps, once it has asked for one."""
    end: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_over(self) -> bool:
        """Whether its time is up, or its result is not needed."""
        return self.over_since is not None

    @property
    def identity(self) -> Identity:
        """The execution that it belongs to."""
        key, request = self.request.key, self.request
        return Identity(
            key.instance_id, key.incarnation, key.execution, request.orchestration, request.version
        )

    @property
    def subject(self) -> str:
        """The name of its arguments and result, for errors."""
        request = self.request
        return (
            f"activity {request.name!r} of {request.key.instance_id!r} ({request.orchestration} "
            f"{request.version})"
        )

    @property
    def deadline(self) -> float:
        """When its time is up. Heartbeats move it, in any thread."""
        request, deadline = self.request, math.inf
        if request.timeout is not None:
            deadline = self.started + request.timeout / 1e6
        if request.heartbeat_timeout is not None:
            deadline = min(
                deadline, max(self.started, self.beaten) + request.heartbeat_timeout / 1e6
            )
        return deadline

    def next_look(self, now: float, interval: float, persistence: float, patience: float) -> float:
        """Return its next deadline."""
        moment = math.inf
        if self.over_since is None:
            moment = min(self.deadline, self.reported + interval if self.beat_waits else math.inf)
        since = self.over_since if self.asked_at is None else self.asked_at
        if since is None:
            return moment
        if not self.named:
            moment = min(moment, since + patience)
        if self.over_since is not None and not self.is_given_up:
            moment = min(moment, self.over_since + patience)
        if self.in_task and not self.calm.shield:
            # Until it has learned of it. An attempt in a shield of its own learns of it late.
            moment = min(moment, now + (patience if self.named else persistence))
        return moment

    def time_out(self, now: float) -> ActivityFailure:
        """Return the end that is reported of an attempt whose time is up."""
        return time_out_failure(self.request, now - self.started)

    def end_once(self) -> bool:
        """Return whether it ends now, for the first time: in its thread, or because the event loop
        abandoned it.
        """
        return self.end.acquire(blocking=False)

    def beat(self, payload: Any) -> None:
        """Send a heartbeat, in any thread."""
        self.runner.take_heartbeat(self, payload)

    def publish(self, stream: str, value: Any) -> Awaitable[None]:
        """Publish a value, in any thread."""
        return self.runner.publish(self, stream, value)

    def step(self, name: str, function: Callable[[], Any]) -> Any:
        """Run a step, in any thread."""
        return self.runner.step(self, name, function)

    def blocked(self, seconds: float) -> None:
        """Report that it blocked the event loop."""
        self.runner.name_blocking(self, seconds)

    def is_cancelled(self) -> bool:
        """Return whether its result is not needed. Called in any thread, so it must not touch the
        event loop's scope.
        """
        if not self.is_over and self.runner.is_overdue(self):
            self.knows_it_is_late = True
        return self.is_over or self.knows_it_is_late or self.asked_at is not None


def time_out_failure(request: RunActivity, seconds: float) -> ActivityFailure:
    """Return the end of an attempt whose time was up after so many seconds."""
    if request.timeout is not None and seconds >= request.timeout / 1e6:
        message = f"activity {request.name!r} did not end within {request.timeout / 1e6:g} s"
    else:
        message = (
            f"activity {request.name!r} sent no heartbeat for "
            f"{(request.heartbeat_timeout or 0) / 1e6:g} s"
        )
    return ActivityFailure(
        ErrorInfo("TimeoutError", message), ("TimeoutError", "OSError", "Exception")
    )


def activity_context_of(run: Run) -> ActivityContext:
    """Return the activity's context."""
    request = run.request
    return ActivityContext(
        activity=request.name,
        attempt=request.attempt,
        instance_id=request.key.instance_id,
        execution_id=request.key.execution,
        orchestration=request.orchestration,
        version=request.version,
        idempotency_key=str(request.key),
        last_heartbeat=None
        if request.last_heartbeat is None
        else PLAIN.decode(request.last_heartbeat, subject="last heartbeat"),
        running=run,
    )
