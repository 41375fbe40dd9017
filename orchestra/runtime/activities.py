"""Runs activities: bounded, with timeouts, heartbeats and cancellation, in tasks (``async def``) or threads (``def``)."""

from __future__ import annotations

import inspect
import math
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread

from orchestra.activities import AMBIENT, Activity, ActivityContext
from orchestra.clock import Clock
from orchestra.codec import DEFAULT_PAYLOAD_LIMIT, Payload, encode, plain
from orchestra.engine.items import ActivityEnded, ActivityFailure, ActivityKey, Heartbeat, Item, RunActivity
from orchestra.error_info import class_names, error_info, is_non_retryable
from orchestra.errors import ErrorInfo
from orchestra.replay import Identity
from orchestra.telemetry import Attempt, Recorder

__all__ = ["ActivityRunner", "Beaten", "Cut"]


def _shielded() -> anyio.CancelScope:
    # A host that is cancelled stops in order: what runs gets its grace, and is cancelled by the runner alone.
    return anyio.CancelScope(shield=True)


@dataclass(slots=True, eq=False)
class _Run:
    """One try that is under way. Moments are monotonic seconds."""

    runner: ActivityRunner
    effect: RunActivity
    scope: anyio.CancelScope = field(default_factory=_shielded)
    aborted: bool = False
    expired: bool = False
    started: float = 0.0
    beaten: float = 0.0
    deadline: float = math.inf
    heartbeat: Payload | None = None
    reported: float = 0.0
    observed: Attempt | None = None
    end: threading.Lock = field(default_factory=threading.Lock)

    def settle(self) -> bool:
        """Return whether it ends now, and has not ended before: in its thread, or for the event loop that gave it up."""
        return self.end.acquire(blocking=False)

    def beat(self, payload: Any) -> None:
        """Take a heartbeat, in any thread."""
        self.runner.take_heartbeat(self, payload)

    def is_cancelled(self) -> bool:
        """Return whether nobody wants it any more. In any thread, so it must not touch the scope of the event loop."""
        return self.aborted or self.expired or self.runner.is_overdue(self)


@dataclass(frozen=True, slots=True)
class Beaten:
    """A try has sent a heartbeat; the event loop is to put its deadline off."""

    run: _Run


@dataclass(frozen=True, slots=True)
class Cut:
    """A try was cancelled, and not by the runner: by itself, or by whoever takes the whole program down."""

    run: _Run


class ActivityRunner:
    """Runs at most ``limit`` tries at once; the others wait in the order in which they came.

    Args:
        report: where ends and heartbeats go.
        post: hands something to the event loop, from any thread; it comes back to :meth:`beaten` or :meth:`cut`.
        threads: how many ``def`` activities run at once. One that was given up does not count, although its thread may go on.
        heartbeat_interval: seconds between heartbeats that are stored; the last one always is, if the try fails.
    """

    def __init__(
        self,
        activities: Mapping[str, Activity[..., Any]],
        report: Callable[[Item], None],
        post: Callable[[Beaten | Cut], None],
        clock: Clock,
        *,
        limit: int,
        threads: int,
        payload_limit: int = DEFAULT_PAYLOAD_LIMIT,
        heartbeat_interval: float = 1.0,
        recorder: Recorder | None = None,
    ) -> None:
        self._activities = activities
        self._report = report
        self._post = post
        self._clock = clock
        self._limit = limit
        self._threads = anyio.CapacityLimiter(threads)
        self._unlimited = anyio.CapacityLimiter(math.inf)
        self._payload_limit = payload_limit
        self._heartbeat_interval = heartbeat_interval
        self._recorder = recorder or Recorder()
        self._runs: dict[ActivityKey, _Run] = {}
        self._waiting: OrderedDict[ActivityKey, RunActivity] = OrderedDict()
        self._group: anyio.abc.TaskGroup | None = None
        self._stopping = False
        self._idle = anyio.Event()

    def start(self, group: anyio.abc.TaskGroup) -> None:
        """Run tries as tasks of this group from now on."""
        self._group = group

    def begin(self, effect: RunActivity) -> None:
        """Begin a try, or let it wait for a free place."""
        if self._stopping:
            return  # it was never begun; its instance is released, and it begins elsewhere
        if len(self._runs) >= self._limit:
            self._waiting[effect.key] = effect
        else:
            self._spawn(effect)

    def abort(self, key: ActivityKey) -> None:
        """Give up a try: cancel it, and report nothing."""
        self._waiting.pop(key, None)
        run = self._runs.get(key)
        if run is not None:
            run.aborted = True
            run.scope.cancel()

    async def drain(self, seconds: float) -> None:
        """Begin nothing any more, and wait for what runs, for at most ``seconds``."""
        self._stopping = True
        self._waiting.clear()
        if self._runs:
            self._idle = anyio.Event()
            with anyio.move_on_after(seconds):
                await self._idle.wait()

    def abort_all(self) -> None:
        """Give up everything."""
        self._stopping = True
        self._waiting.clear()
        for key in list(self._runs):
            self.abort(key)

    def _spawn(self, effect: RunActivity) -> None:
        assert self._group is not None
        run = _Run(self, effect)
        self._runs[effect.key] = run
        self._group.start_soon(self._run, run)

    async def _run(self, run: _Run) -> None:
        """Run one try, report how it ended, and let those that wait have its place."""
        # One coroutine for all of it: many wait here at a time, and each frame is one more that the collector walks through.
        effect = run.effect
        activity = self._activities[effect.name]  # the engine begins here only what this node has
        subject = f"activity {effect.name!r} of {effect.key.instance_id!r} ({effect.orchestration} {effect.version})"
        result: Payload | ActivityFailure | None = None
        try:
            with run.scope:
                if not run.aborted:  # else it was given up before it began
                    assert activity.signature is not None
                    args, kwargs = activity.signature.decode(effect.arguments, subject=f"arguments of {subject}")
                    AMBIENT.set(_context(run))
                    if activity.is_async:
                        self._begin_time(run)
                        value = activity(*args, **kwargs)
                        if inspect.isawaitable(value):  # else a decorator has answered in its place
                            value = await value
                        result = encode(value, subject=f"result of {subject}", limit=self._payload_limit)
                        self._observe_end(run, "completed")
                    else:
                        async with self._threads:
                            self._begin_time(run)  # waiting for a thread is not the activity's time
                            awaitable = await anyio.to_thread.run_sync(
                                lambda: self._run_in_thread(run, activity, args, kwargs, subject),
                                abandon_on_cancel=True,
                                limiter=self._unlimited,
                            )
                        if awaitable is not None:  # from a `def` that does not say what it wraps
                            result = encode(await awaitable[0], subject=f"result of {subject}", limit=self._payload_limit)
                            self._observe_end(run, "completed")
            if result is None and run.settle():
                result = None if run.aborted else self._timeout(run)
                self._observe_end(run, "aborted" if result is None else "timed_out")
        except anyio.get_cancelled_exc_class():
            # Not by the runner: its own cancels end in the scope. With no word of it the activity would be pending for ever.
            if run.settle():
                self._observe_end(run, "cancelled")
                self._post(Cut(run))
        except BaseException as error:
            # Whatever user code raises is the attempt's failure: sys.exit() in a thread must not end the program. Ctrl-C must,
            # and comes to the event loop's thread only.
            self._observe_end(run, "failed", error)
            if activity.is_async and isinstance(error, (KeyboardInterrupt, GeneratorExit)):
                raise
            result = _failure(error)
        finally:
            if self._runs.get(effect.key) is run:
                del self._runs[effect.key]
            if not self._runs:
                self._idle.set()
        if result is not None:
            self._report_end(run, result)
        while self._waiting and len(self._runs) < self._limit:
            self._spawn(self._waiting.popitem(last=False)[1])

    def _run_in_thread(
        self, run: _Run, activity: Activity[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], subject: str
    ) -> tuple[Awaitable[Any]] | None:
        """Run a try, and report how it ended: from here, for the event loop would only be one more to wake up on the way.

        Where the function returns something to be awaited, it has not ended. Return that (in a tuple: trio takes a function
        that returns a coroutine for an async one).
        """
        try:
            value = activity(*args, **kwargs)
            if inspect.isawaitable(value):
                return (value,)
            result = encode(value, subject=f"result of {subject}", limit=self._payload_limit)
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a thread must not end the program
            if run.settle():  # else it was given up meanwhile
                self._observe_end(run, "failed", error)
                self._report_end(run, _failure(error))
        else:
            if run.settle():
                self._observe_end(run, "completed")
                self._report_end(run, result)
        return None

    def _report_end(self, run: _Run, result: Payload | ActivityFailure) -> None:
        if not run.aborted:
            self._report(ActivityEnded(run.effect.key, run.effect.attempt, result, run.heartbeat))

    def _observe(self, run: _Run) -> None:
        """Begin the record of a try, in the task and just before the thread that runs it."""
        effect = run.effect
        key = effect.key
        subject = Identity(key.instance_id, key.incarnation, key.execution, effect.orchestration, effect.version)
        run.observed = self._recorder.begin_attempt(subject, effect.name, effect.attempt, effect.traceparent)

    def _observe_end(self, run: _Run, outcome: str, error: BaseException | None = None) -> None:
        """End the record of a try: also where nobody takes its result any more, for it has run."""
        if not self._recorder.recording:
            return
        if run.observed is None and error is not None:
            self._observe(run)  # it failed before it began: its arguments cannot be read
        observed, run.observed = run.observed, None
        if observed is not None:
            observed.end(outcome, error)

    # --- deadlines ---

    def _begin_time(self, run: _Run) -> None:
        run.started = self._clock.monotonic()
        if self._recorder.recording:
            self._observe(run)
        self._set_deadline(run)

    def beaten(self, run: _Run) -> None:
        """Put the deadline of a try off. To be called on the event loop."""
        if self._runs.get(run.effect.key) is run:
            self._set_deadline(run)

    def cut(self, run: _Run) -> None:
        """Report a try that was cut off. To be called on the event loop, after whoever takes the program down has said so.

        A try that ended in a cancellation of its own has failed. One that ended with the program counts as none.
        """
        effect = run.effect
        if not run.aborted:
            error = ErrorInfo("CancelledError", f"activity {effect.name!r} was cancelled, and not by the runtime")
            self._report_end(run, ActivityFailure(error, ("CancelledError",), untried=self._stopping))

    def is_overdue(self, run: _Run) -> bool:
        """Return whether a try's time is up. To be called in any thread."""
        return self._clock.monotonic() >= run.deadline

    def take_heartbeat(self, run: _Run, payload: Any) -> None:
        """Take a heartbeat, in any thread."""
        run.heartbeat = encode(payload, subject=f"heartbeat of activity {run.effect.name!r}", limit=self._payload_limit)
        moment = self._clock.monotonic()
        run.beaten = moment
        if run.effect.heartbeat_timeout is not None:
            self._post(Beaten(run))
        if moment - run.reported >= self._heartbeat_interval:
            run.reported = moment
            self._report(Heartbeat(run.effect.key, run.effect.attempt, run.heartbeat))

    def _set_deadline(self, run: _Run) -> None:
        deadlines: list[float] = []
        if run.effect.timeout is not None:
            deadlines.append(run.started + run.effect.timeout / 1e6)
        if run.effect.heartbeat_timeout is not None:
            deadlines.append(max(run.started, run.beaten) + run.effect.heartbeat_timeout / 1e6)
        if deadlines:
            run.deadline = min(deadlines)
            run.scope.deadline = anyio.current_time() + run.deadline - self._clock.monotonic()

    def _timeout(self, run: _Run) -> ActivityFailure | None:
        if not run.scope.cancelled_caught:
            return None
        run.expired = True
        effect = run.effect
        since_start = self._clock.monotonic() - run.started
        if effect.timeout is not None and since_start >= effect.timeout / 1e6:
            message = f"activity {effect.name!r} did not end within {effect.timeout / 1e6:g} s"
        else:
            message = f"activity {effect.name!r} sent no heartbeat for {(effect.heartbeat_timeout or 0) / 1e6:g} s"
        return ActivityFailure(ErrorInfo("TimeoutError", message), ("TimeoutError", "OSError", "Exception"))


def _context(run: _Run) -> ActivityContext:
    effect = run.effect
    return ActivityContext(
        activity=effect.name,
        attempt=effect.attempt,
        instance_id=effect.key.instance_id,
        execution_id=effect.key.execution,
        orchestration=effect.orchestration,
        version=effect.version,
        idempotency_key=str(effect.key),
        last_heartbeat=plain(effect.last_heartbeat),
        running=run,
    )


def _failure(error: BaseException) -> ActivityFailure:
    return ActivityFailure(error_info(error), class_names(error), non_retryable=is_non_retryable(error))
