"""One try of an activity that is under way."""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio

from orchestra.activities import Activity, ActivityContext
from orchestra.codec import Payload, plain
from orchestra.engine.messages import ActivityFailure, RunActivity
from orchestra.errors import ErrorInfo
from orchestra.replay import Identity
from orchestra.runtime.alarms import Alarm
from orchestra.runtime.driving import Driver
from orchestra.telemetry import Attempt

__all__ = ["Run", "Runner", "activity_context_of"]


class Runner(Protocol):
    """What a try needs of the runner that has begun it. The first two are called in any thread."""

    def take_heartbeat(self, run: Run, payload: Any) -> None:
        """Take a heartbeat of a try."""
        ...

    def is_overdue(self, run: Run) -> bool:
        """Return whether a try's time is up."""
        ...

    def name_blocking(self, run: Run, seconds: float) -> None:
        """Name a try in the log that has kept the event loop from running."""
        ...


@dataclass(slots=True, eq=False)
class Run:
    """One try that is under way. Moments are monotonic seconds."""

    runner: Runner
    request: RunActivity
    activity: Activity[..., Any]
    in_task: bool
    """Whether a task runs it; else a thread."""
    scope: anyio.CancelScope = field(init=False)
    """What cancels its task, if it has one."""
    calm: anyio.CancelScope = field(init=False)
    """Lies within ``scope``; shielded, it keeps a task from being cancelled at each of its
    awaits.
    """
    driver: Driver | None = None
    awaitable: Awaitable[Any] | None = None
    """What a ``def`` has returned that is to be awaited."""
    aborted: bool = False
    """Whether it is not wanted any more, so that nothing is reported."""
    asked_at: float | None = None
    """When it was asked to end, where its end is waited for."""
    over_since: float | None = None
    """When it was cancelled: its time was up, or it is not wanted any more."""
    reason: str = ""
    verdict: ActivityFailure | None = None
    """What is reported of a try that is over, whatever it does then."""
    is_left: bool = False
    """Whether its thread was left to itself."""
    is_done: bool = False
    """Whether its thread has come back."""
    knows_it_is_late: bool = False
    """Whether it was told that its time is up, before the event loop has seen that: what it returns
    then is no result.
    """
    is_given_up: bool = False
    """Whether its end was reported without it."""
    named: bool = False
    """Whether the log was told that it does not end."""
    started: float = 0.0
    beaten: float = 0.0
    heartbeat: Payload | None = None
    reported: float = -math.inf
    beat_waits: bool = False
    alarm: Alarm | None = None
    observed: Attempt | None = None
    end: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_over(self) -> bool:
        """Whether its time is up, or it is not wanted any more."""
        return self.over_since is not None

    @property
    def identity(self) -> Identity:
        """Which execution it belongs to."""
        key, request = self.request.key, self.request
        return Identity(
            key.instance_id, key.incarnation, key.execution, request.orchestration, request.version
        )

    @property
    def subject(self) -> str:
        """Whose arguments and result these are, for errors."""
        request = self.request
        return (
            f"activity {request.name!r} of {request.key.instance_id!r} ({request.orchestration} "
            f"{request.version})"
        )

    @property
    def deadline(self) -> float:
        """When its time is up: moved by heartbeats, in any thread."""
        request, deadline = self.request, math.inf
        if request.timeout is not None:
            deadline = self.started + request.timeout / 1e6
        if request.heartbeat_timeout is not None:
            deadline = min(
                deadline, max(self.started, self.beaten) + request.heartbeat_timeout / 1e6
            )
        return deadline

    def next_look(self, now: float, interval: float, persistence: float, patience: float) -> float:
        """Return when something is to be done about it at the latest."""
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
            # Until it has been told. One that waits in a shield of its own hears of it late.
            moment = min(moment, now + (patience if self.named else persistence))
        return moment

    def time_out(self, now: float) -> ActivityFailure:
        """Return what is reported of a try whose time is up."""
        request = self.request
        if request.timeout is not None and now - self.started >= request.timeout / 1e6:
            message = f"activity {request.name!r} did not end within {request.timeout / 1e6:g} s"
        else:
            message = (
                f"activity {request.name!r} sent no heartbeat for "
                f"{(request.heartbeat_timeout or 0) / 1e6:g} s"
            )
        return ActivityFailure(
            ErrorInfo("TimeoutError", message), ("TimeoutError", "OSError", "Exception")
        )

    def settle(self) -> bool:
        """Return whether it ends now, and has not ended before: in its thread, or for the event
        loop that gave it up.
        """
        return self.end.acquire(blocking=False)

    def beat(self, payload: Any) -> None:
        """Take a heartbeat, in any thread."""
        self.runner.take_heartbeat(self, payload)

    def blocked(self, seconds: float) -> None:
        """Say that it has kept the event loop from running."""
        self.runner.name_blocking(self, seconds)

    def is_cancelled(self) -> bool:
        """Return whether nobody wants it any more. In any thread, so it must not touch the scope of
        the event loop.
        """
        if not self.is_over and self.runner.is_overdue(self):
            self.knows_it_is_late = True
        return self.is_over or self.knows_it_is_late or self.asked_at is not None


def activity_context_of(run: Run) -> ActivityContext:
    """Return what the activity sees of its try."""
    request = run.request
    return ActivityContext(
        activity=request.name,
        attempt=request.attempt,
        instance_id=request.key.instance_id,
        execution_id=request.key.execution,
        orchestration=request.orchestration,
        version=request.version,
        idempotency_key=str(request.key),
        last_heartbeat=None if request.last_heartbeat is None else plain(request.last_heartbeat),
        running=run,
    )
