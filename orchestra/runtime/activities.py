"""Runs activities: bounded, with timeouts, heartbeats and cancellation, in tasks (``async def``) or
threads (``def``).
"""

from __future__ import annotations

import inspect
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.abc

from orchestra.activities import AMBIENT, Activity
from orchestra.clock import Clock
from orchestra.codec import DEFAULT_PAYLOAD_LIMIT, Payload, encode
from orchestra.engine.messages import (
    STOPPED,
    ActivityEnded,
    ActivityFailure,
    ActivityKey,
    Heartbeat,
    ItemsStored,
    RunActivity,
    ToEngine,
)
from orchestra.error_info import class_names, error_info, is_non_retryable
from orchestra.errors import ErrorInfo, InvalidArgument, LevelTooLow
from orchestra.ids import check_stream
from orchestra.runtime.alarms import Alarms
from orchestra.runtime.arguments import ArgumentsUnread, read_arguments
from orchestra.runtime.attempts import Run, activity_context_of
from orchestra.runtime.driving import Driver, LetGo
from orchestra.runtime.journals import Journal, read_journal
from orchestra.runtime.publishing import DONE, Publisher
from orchestra.runtime.threads import Pool, Threads, thread_context
from orchestra.store.port import Directory
from orchestra.store.streams import STREAM_LEVEL
from orchestra.telemetry import Recorder, log_instance
from orchestra.telemetry.quota import Quota

__all__ = ["ActivityRunner", "Beaten", "Cut", "Finished", "failure_of"]

_PERSISTENCE: Final = 0.1
"""Seconds for which each await of a cancelled task raises again. After that only its driver can end
it, so no core burns.
"""

_PATIENCE: Final = 1.0
"""Seconds that a cancelled activity has to end. Then the runner abandons it, and logs its name."""

_TELLINGS: Final = 100
"""How many cancellations by a scope of its own a task may catch after that, before its driver
releases it.
"""

_LEAVING: Final = 0.5
"""Seconds that cancelled activities have to end when the runtime stops, after its grace."""

_STUBBORN_LINES: Final = 20
"""Lines a minute about attempts of one activity that do not end."""


@dataclass(frozen=True, slots=True)
class Beaten:
    """An attempt has sent a heartbeat that is stored later."""

    run: Run


@dataclass(frozen=True, slots=True)
class Cut:
    """An attempt was cancelled, but not by the runner: by itself, or because the program ends."""

    run: Run


@dataclass(frozen=True, slots=True)
class Finished:
    """The thread of an attempt is free again."""

    run: Run


class ActivityRunner:
    """Runs at most ``limit`` attempts at once; the others wait, first come, first served.

    An attempt is over when its time is up or its result is not needed. If it does not end within a
    second, the runner abandons it: it reports the end, gives the place to the next attempt, and
    logs a warning. Threads cannot be ended. Up to ``threads`` abandoned threads cost no place;
    further ones count as running, so their number is bounded.

    Args:
        report: receives ends and heartbeats.
        post: passes an entry to the event loop, from any thread; :meth:`hear` receives it there.
        threads: how many ``def`` activities run at once.
        heartbeat_interval: seconds between stored heartbeats; the last one is always stored.
        pool: the threads of ``def`` activities, where they are not its own.
        alarms: its alarms, where they do not go by the clock's own time.
        level: returns the level at which the store is written.
        directory: what journals are read from.
        call: runs a blocking read beside the event loop.
    """

    def __init__(
        self,
        activities: Mapping[str, Activity[..., Any]],
        report: Callable[[ToEngine], None],
        post: Callable[[Beaten | Cut | Finished], None],
        clock: Clock,
        *,
        limit: int,
        threads: int,
        payload_limit: int = DEFAULT_PAYLOAD_LIMIT,
        heartbeat_interval: float = 1.0,
        recorder: Recorder | None = None,
        pool: Pool | None = None,
        alarms: Alarms | None = None,
        level: Callable[[], int] = lambda: STREAM_LEVEL,
        directory: Directory | None = None,
        call: Callable[[Callable[[], Any]], Awaitable[Any]] | None = None,
    ) -> None:
        self._activities = activities
        self._report = report
        self._post = post
        self._clock = clock
        self._limit = limit
        self._thread_limit = threads
        self._threads: Pool = pool or Threads()
        self._alarms = alarms or Alarms(clock)
        self._payload_limit = payload_limit
        self._heartbeat_interval = heartbeat_interval
        self._recorder = recorder or Recorder()
        self._level = level
        self._directory = directory
        self._call = call
        self._publishing = threading.Lock()
        """Held while an attempt gets its publisher: its threads may publish at once."""
        self._publishers: dict[tuple[ActivityKey, int], Publisher] = {}
        self._home = 0
        """The thread of the event loop."""
        self._runs: dict[ActivityKey, Run] = {}
        self._waiting: OrderedDict[ActivityKey, RunActivity] = OrderedDict()
        self._without_thread: OrderedDict[ActivityKey, Run] = OrderedDict()
        self._in_threads: dict[Run, None] = {}
        """Attempts that occupy a thread, abandoned ones included."""
        self._tasks: dict[Run, None] = {}
        """Attempts that occupy a task, likewise."""
        self._left = 0
        """How many of the threads were abandoned."""
        self._quota = Quota(_STUBBORN_LINES)
        self._group: anyio.abc.TaskGroup | None = None
        self._make_scope: type[anyio.CancelScope]
        self._cancelled: type[BaseException]
        self._stopping = False
        self._has_stopped = False
        self._sessions = 0
        """How many sessions are open on this node."""
        self._idle = anyio.Event()

    def start(self, group: anyio.abc.TaskGroup) -> None:
        """Run attempts as tasks of this group from now on."""
        self._group = group
        self._home = threading.get_ident()
        # The backend's own classes, asked for once: each task has two scopes, and anyio takes eight
        # calls to make one, not two.
        self._make_scope = type(anyio.CancelScope())
        self._cancelled = anyio.get_cancelled_exc_class()
        group.start_soon(self._alarms.run)

    @property
    def is_idle(self) -> bool:
        """Whether no attempt runs or waits for a place."""
        return not self._runs and not self._waiting

    @property
    def running(self) -> tuple[RunActivity, ...]:
        """The attempts that have begun and not ended."""
        return tuple(run.request for run in self._runs.values())

    # --- requests of the engine ---

    def begin(self, request: RunActivity) -> None:
        """Begin an attempt, or let it wait for a free place. A runner that stops begins only what
        belongs to a session of this node.
        """
        if self._stopping and (self._has_stopped or request.session is None):
            return  # it has not begun; its instance is released, and another node begins it
        if self._has_place:
            self._begin(request)
        else:
            self._waiting[request.key] = request

    def abort(self, key: ActivityKey) -> None:
        """Cancel an attempt, and report nothing."""
        self._waiting.pop(key, None)
        run = self._runs.get(key)
        if run is not None:
            run.aborted = True
            self._close_publisher(run)
            self._end(run, "its result is not needed", None)

    def stop(self, key: ActivityKey) -> None:
        """Ask an attempt to end. Its end is reported when it has ended, or when its time is up."""
        request = self._waiting.pop(key, None)
        if request is not None:
            self._report(ActivityEnded(key, request.attempt, STOPPED))
            return
        run = self._runs.get(key)
        if run is None or run.is_over or run.asked_at is not None:
            return  # its end is on its way
        run.asked_at, run.reason = (
            self._clock.monotonic(),
            "its caller is cancelled, and waits for its end",
        )
        if run.in_task:
            if run.driver is not None:
                run.driver.is_told = False
            run.scope.cancel()
        elif self._without_thread.pop(key, None) is run:
            self._report_end(run, STOPPED)
            self._ended(run)
            return
        self._arm(run)

    async def drain(self, seconds: float) -> None:
        """Begin nothing more, and wait at most ``seconds`` for running attempts, and for the
        sessions on this node. Their attempts still begin.
        """
        self._stopping = True
        for key in [key for key, one in self._waiting.items() if one.session is None]:
            del self._waiting[key]
        with anyio.move_on_after(seconds):
            while self._runs or self._sessions:
                self._idle = anyio.Event()
                await self._idle.wait()

    def count_sessions(self, count: int) -> None:
        """Take in how many sessions are open on this node."""
        self._sessions = count
        if not count:
            self._idle.set()

    def abort_all(self) -> None:
        """Cancel every attempt, and begin none from now on."""
        self._stopping = self._has_stopped = True
        self._waiting.clear()
        for key in list(self._runs):
            self.abort(key)

    async def close(self) -> None:
        """Cancel every attempt, and end every task: a driver releases those that do not end by
        themselves.
        """
        self.abort_all()
        try:
            with anyio.CancelScope(shield=True):
                await self._until_ended(_LEAVING)
                for run in list(self._tasks):
                    self._let_go(run)
                await self._until_ended(_LEAVING)
        finally:  # the event loop itself may be cancelling everything
            for run in list(self._tasks):
                self._let_go(run)
            for run in [run for run in self._in_threads if not run.is_done]:
                self._name_at_the_end(run, "its thread is abandoned")
            self._alarms.stop()
            self._threads.stop()

    def release_threads(self) -> None:
        """End the idle threads. From any thread."""
        self._threads.stop()

    async def _until_ended(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            while self._tasks:
                self._idle = anyio.Event()
                await self._idle.wait()

    def _let_go(self, run: Run) -> None:
        if run.driver is not None and not run.driver.gone:
            run.named = True
            self._name_at_the_end(run, "it is abandoned where it waits")
            run.driver.let_go()

    # --- reports of attempts ---

    def hear(self, news: Beaten | Cut | Finished) -> None:
        """Handle an entry from a thread, or from a task that was cut off. Call it on the event
        loop.
        """
        match news:
            case Beaten(run=run):
                if self._runs.get(run.request.key) is run:
                    self._arm(run)
            case Cut(run=run):
                self._cut(run)
            case Finished(run=run):
                self._in_threads.pop(run, None)
                self._left -= run.is_left
                if run.awaitable is None:
                    self._ended(run)
                else:
                    self._go_on_in_task(run, run.awaitable)

    def _go_on_in_task(self, run: Run, awaitable: Awaitable[Any]) -> None:
        """Await the result of a ``def`` that wraps an ``async def`` without saying so."""
        if run.is_over or self._group is None:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            self._ended(run)
            return
        run.in_task = True
        self._begin_task(run, self._group)

    def _cut(self, run: Run) -> None:
        """Report an attempt that was cut off, once it is known whether the program ends. An attempt
        that cancelled itself has failed. One that ended with the program does not count.
        """
        request = run.request
        if not run.aborted:
            error = ErrorInfo(
                "CancelledError", f"activity {request.name!r} was cancelled, and not by the runtime"
            )
            self._report_end(
                run, ActivityFailure(error, ("CancelledError",), untried=self._stopping)
            )

    def take_heartbeat(self, run: Run, payload: Any) -> None:
        """Receive a heartbeat, in any thread. The last one of an interval is stored, at the
        interval's end.
        """
        subject = f"heartbeat of activity {run.request.name!r}"
        run.heartbeat = encode(
            payload, subject=subject, limit=self._payload_limit, names_types=False
        )
        run.beaten = moment = self._clock.monotonic()
        if moment - run.reported >= self._heartbeat_interval:
            self._store_heartbeat(run, moment)
        elif not run.beat_waits:
            run.beat_waits = True
            self._post(Beaten(run))  # once an interval: the event loop has other things to do

    def _store_heartbeat(self, run: Run, moment: float) -> None:
        run.reported, run.beat_waits = moment, False
        if run.heartbeat is not None and not run.is_over:
            self._report(Heartbeat(run.request.key, run.request.attempt, run.heartbeat))

    # --- streams ---

    def publish(self, run: Run, stream: str, value: Any) -> Awaitable[None]:
        """Publish a value of an attempt. Call it in any thread; outside of the event loop it waits
        for room itself.
        """
        publisher = run.publisher
        subject = None if publisher is None else publisher.subject_of(stream)
        if publisher is None or subject is None:
            check_stream(stream)
            self._require_level(run)
            subject = f"item of stream {stream!r}"
            payload = encode(value, subject=subject, limit=self._payload_limit)
            publisher = publisher or self._make_publisher(run)
            publisher.knows(stream, subject)
        else:  # what costs here, costs by the item
            payload = encode(value, subject=subject, limit=self._payload_limit)
        is_home = threading.get_ident() == self._home
        if is_home and run.in_task:
            return publisher.publish(stream, payload)
        publisher.publish_here(stream, payload, waits=not is_home)
        return DONE

    def _require_level(self, run: Run) -> None:
        if self._level() < STREAM_LEVEL:
            raise LevelTooLow(
                f"activity {run.request.name!r} publishes, and a node with an older library lives, "
                "which knows no streams; the level of the store rises by itself once it has gone"
            )

    def step(self, run: Run, name: str, function: Callable[[], Any]) -> Any:
        """Run a step of an attempt, or return what it has returned before. Call it in any thread.

        On the event loop, an ``async`` activity gets an awaitable.
        """
        if not run.activity.journal:
            raise InvalidArgument(
                f"activity {run.request.name!r} has no journal; write @activity(journal=True)"
            )
        self._require_level(run)
        is_home = threading.get_ident() == self._home
        if is_home and run.in_task:
            return self._step(run, name, function)
        journal = run.journal
        if journal is None:
            journal = self._begin_journal(run, self._read_journal(run))
        known = journal.ask(name)
        if known is None:
            known, item = journal.encode(name, function(), function)
            publisher = run.publisher or self._make_publisher(run)
            publisher.store_here(journal.stream, item, waits=not is_home)
        return journal.decode(name, known, function)

    async def _step(self, run: Run, name: str, function: Callable[[], Awaitable[Any]]) -> Any:
        journal = run.journal
        if journal is None:
            read = self._call
            steps = (
                self._read_journal(run)
                if read is None
                else await read(lambda: self._read_journal(run))
            )
            journal = self._begin_journal(run, steps)
        known = journal.ask(name)
        if known is None:
            known, item = journal.encode(name, await function(), function)
            publisher = run.publisher or self._make_publisher(run)
            await publisher.store(journal.stream, item)
        return journal.decode(name, known, function)

    def _read_journal(self, run: Run) -> dict[str, Payload]:
        assert self._directory is not None
        return read_journal(self._directory, run.request.key)

    def _begin_journal(self, run: Run, steps: dict[str, Payload]) -> Journal:
        with self._publishing:
            if run.journal is None:
                run.journal = Journal(run.request.key, steps, self._payload_limit)
            return run.journal

    def _make_publisher(self, run: Run) -> Publisher:
        with self._publishing:
            if run.publisher is None:
                run.publisher = publisher = Publisher(run.request, self._report, self._clock.now())
                if run.aborted or run.end.locked():  # its end was reported
                    publisher.close()
                else:
                    self._publishers[run.request.key, run.request.attempt] = publisher
            return run.publisher

    def stored(self, message: ItemsStored) -> None:
        """Take in that items of an attempt are stored, or why not. Call it on the event loop."""
        publisher = self._publishers.get((message.key, message.attempt))
        if publisher is not None:
            publisher.stored(message)

    def _close_publisher(self, run: Run) -> None:
        with self._publishing:
            publisher = run.publisher
            self._publishers.pop((run.request.key, run.request.attempt), None)
        if publisher is not None:
            publisher.close()

    # --- deadlines of attempts ---

    def is_overdue(self, run: Run) -> bool:
        """Return whether an attempt's time is up. Call it in any thread."""
        return self._clock.monotonic() >= run.deadline

    # --- running an attempt ---

    def _begin(self, request: RunActivity) -> None:
        assert self._group is not None
        activity = self._activities[request.name]  # the engine begins here only what this node has
        run = Run(self, request, activity, activity.is_async)
        self._runs[request.key] = run
        if run.in_task:
            self._begin_task(run, self._group)
        elif self._has_thread:
            self._begin_thread(run)
        else:
            self._without_thread[request.key] = run

    @property
    def _has_place(self) -> bool:
        # An attempt that waits for a thread takes no place: it would keep attempts without threads
        # from beginning.
        return len(self._runs) - len(self._without_thread) < self._limit

    @property
    def _has_thread(self) -> bool:
        most = self._thread_limit
        running = len(self._in_threads) - self._left
        return running + max(0, self._left - most) < most

    def _begin_task(self, run: Run, group: anyio.abc.TaskGroup) -> None:
        # Shielded: a cancelled host stops in order. Running attempts get their grace, and only the
        # runner cancels them.
        run.scope, run.calm = self._make_scope(shield=True), self._make_scope()
        self._tasks[run] = None
        group.start_soon(self._run_in_task, run)

    def _begin_thread(self, run: Run) -> None:
        self._in_threads[run] = None
        self._begin_time(run)  # waiting for a thread is not the activity's time
        context = thread_context()
        self._threads.run(
            f"activity {run.request.name}", lambda: context.run(self._run_in_thread, run)
        )

    async def _run_in_task(self, run: Run) -> None:
        """Run one attempt, report its end, and give its place to waiting ones."""
        # One coroutine for all of it: many wait here at a time, and the collector visits each
        # frame.
        result: Payload | ActivityFailure | None = None
        try:
            with run.scope, run.calm:
                if run.over_since is None:  # else it was given up before it began
                    subject = run.subject
                    AMBIENT.set(activity_context_of(run))
                    value: Any = run.awaitable
                    if value is None:
                        args, kwargs = read_arguments(run.activity, run.request, subject)
                        self._begin_time(run)
                        if self._recorder.recording:
                            self._observe(run)
                        value = run.activity(*args, **kwargs)
                    if inspect.isawaitable(value):  # else a decorator has answered in its place
                        run.driver = Driver(
                            value,
                            self._clock,
                            run.calm,
                            self._cancelled,
                            patience=_PATIENCE,
                            owner=run,
                        )
                        value = await run.driver
                    result = self._encoded(run, value, subject)
                    if self._recorder.recording:
                        self._observe_end(run, "completed")
        except self._cancelled:
            # The runner did not cancel it: its cancels end in the scope. Unreported, the activity
            # would be pending for ever.
            if run.end_once():
                self._observe_end(run, "cancelled")
                self._post(Cut(run))
        except BaseException as error:
            # Any exception of user code fails the attempt. sys.exit() must not end the program;
            # Ctrl-C must.
            if not isinstance(error, LetGo) and (run.driver is None or not run.driver.gone):
                self._observe_end(run, "failed", error)
                if isinstance(error, KeyboardInterrupt) or (
                    run.driver is not None and run.driver.closing
                ):
                    raise
                result = failure_of(error)
            elif not run.named:
                self._name(run, self._clock.monotonic() - (run.over_since or 0.0))
        finally:
            self._tasks.pop(run, None)
            self._ended(run)
        if run.end_once():
            if run.over_since is not None:
                self._observe_end(run, "aborted" if run.aborted else "timed_out")
                result = run.verdict  # its answer to a cancellation does not count
            elif run.asked_at is not None:
                self._observe_end(run, "aborted")
                result = result if isinstance(result, ActivityFailure) else STOPPED
            elif run.knows_it_is_late:
                result = self._time_out(run)
            if result is not None:
                self._report_end(run, result)

    def _run_in_thread(self, run: Run) -> None:
        """Run an attempt, and report its end from this thread: that saves waking the event loop."""
        try:
            subject = run.subject
            args, kwargs = read_arguments(run.activity, run.request, subject)
            AMBIENT.set(activity_context_of(run))
            self._observe(run)
            value = run.activity(*args, **kwargs)
            if inspect.isawaitable(value):
                run.awaitable = value  # it has not ended
                result = None
            else:
                result = self._encoded(run, value, subject)
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a thread must not end the program
            if run.end_once():  # else it was given up meanwhile
                self._observe_end(run, "failed", error)
                self._report_end(run, failure_of(error))
        else:
            if result is not None and run.end_once():
                self._observe_end(run, "timed_out" if run.knows_it_is_late else "completed")
                self._report_end(run, self._time_out(run) if run.knows_it_is_late else result)
        run.is_done = True
        self._post(Finished(run))

    def _encoded(self, run: Run, value: Any, subject: str) -> Payload:
        return run.activity.result.encode(
            value, subject=f"result of {subject}", limit=self._payload_limit
        )

    def _report_end(self, run: Run, result: Payload | ActivityFailure) -> None:
        if run.publisher is not None:
            # First: the items of an attempt stand before its end does.
            run.publisher.finish()
            self._publishers.pop((run.request.key, run.request.attempt), None)
        if not run.aborted:
            self._report(ActivityEnded(run.request.key, run.request.attempt, result, run.heartbeat))

    def _ended(self, run: Run) -> None:
        """Free the place of an attempt, and begin waiting ones."""
        if run.alarm is not None:
            self._alarms.stop_alarm(run.alarm)
            run.alarm = None
        if run.named and (run.driver is None or not run.driver.gone):
            log_instance(
                logging.INFO,
                run.identity,
                "activity %r, attempt %d, which was abandoned, has ended after all",
                run.request.name,
                run.request.attempt,
            )
        self._leave_place(run)

    def _leave_place(self, run: Run) -> None:
        if self._runs.get(run.request.key) is run:
            del self._runs[run.request.key]
        if not self._runs or not self._tasks:
            self._idle.set()
        while self._without_thread and self._has_thread and self._has_place:
            self._begin_thread(self._without_thread.popitem(last=False)[1])
        while self._waiting and self._has_place:
            self._begin(self._waiting.popitem(last=False)[1])

    # --- deadlines ---

    def _begin_time(self, run: Run) -> None:
        run.started = self._clock.monotonic()
        if run.request.timeout is not None or run.request.heartbeat_timeout is not None:
            self._arm(run)

    def _arm(self, run: Run) -> None:
        """Set the alarm for the attempt's next deadline."""
        moment = run.next_look(
            self._clock.monotonic(), self._heartbeat_interval, _PERSISTENCE, _PATIENCE
        )
        if run.alarm is not None:
            if run.alarm.moment <= moment:
                return  # its check comes earlier, and sets the alarm again
            self._alarms.stop_alarm(run.alarm)
            run.alarm = None
        if moment < math.inf:
            run.alarm = self._alarms.at(moment, lambda: self._look(run))

    def _look(self, run: Run) -> None:
        run.alarm = None
        now = self._clock.monotonic()
        if run.beat_waits and now >= run.reported + self._heartbeat_interval:
            self._store_heartbeat(run, now)
        if not run.is_over and now >= run.deadline:
            self._end(run, "its time is up", self._time_out(run))
        if run.over_since is not None or run.asked_at is not None:
            self._insist(run, now)
        self._arm(run)

    def _time_out(self, run: Run) -> ActivityFailure:
        return run.time_out(self._clock.monotonic())

    def _end(self, run: Run, reason: str, verdict: ActivityFailure | None) -> None:
        """Cancel an attempt; ``verdict`` is reported as its end."""
        if run.over_since is not None:
            return
        run.over_since, run.reason, run.verdict = self._clock.monotonic(), reason, verdict
        if run.in_task:
            if run.driver is not None:
                run.driver.is_told = False  # it may have cancelled something itself
            run.scope.cancel()
            self._arm(run)
            return
        if self._without_thread.pop(run.request.key, None) is run:
            self._ended(run)  # it was never begun
            return
        # A thread cannot be cancelled. The activity's context asks it to end, and it goes on by
        # itself.
        if self._leave(run):
            self._arm(run)

    def _insist(self, run: Run, now: float) -> None:
        """Handle an attempt that was cancelled and has not ended yet."""
        told_at = run.over_since if run.asked_at is None else run.asked_at
        assert told_at is not None
        since = now - told_at
        if (
            run.in_task
            and since >= _PERSISTENCE
            and run.driver is not None
            and run.driver.is_told
            and not run.calm.shield
        ):
            run.calm.shield = True  # it catches each cancellation: stop raising them
            run.driver.bear(_TELLINGS)
        if run.over_since is not None and now - run.over_since >= _PATIENCE and run.in_task:
            self._leave(run)
        if since >= _PATIENCE and not run.named:
            self._name(run, since)

    def _leave(self, run: Run) -> bool:
        """Abandon an attempt: report its end, and free its place. Return whether it was still
        running.
        """
        if not run.end_once():
            return False
        run.is_given_up = True
        if not run.in_task:
            run.is_left = True
            self._left += 1
        self._observe_end(run, "aborted" if run.aborted else "timed_out")
        if run.verdict is not None:
            self._report_end(run, run.verdict)
        self._leave_place(run)
        return True

    def _name(self, run: Run, since: float) -> None:
        """Log a warning about an attempt that does not end."""
        run.named = True
        suppressed = self._quota.take(run.request.name, round(self._clock.monotonic() * 1e6))
        if suppressed is None:
            return
        if run.driver is not None and run.driver.gone:
            where = (
                "it catches that again and again; it is abandoned where it waits: let "
                "`CancelledError` pass"
            )
        elif run.in_task:
            where = (
                "its task goes on in the background: let `CancelledError` pass, and bound what "
                "is shielded"
            )
        else:
            where = (
                "its thread goes on in the background: let it ask "
                f"`activity_context().cancelled`, and bound what it waits for. {self._left} "
                f"threads are lost like this; those over {self._thread_limit} take the places "
                "of others"
            )
        more = f" ({suppressed:,} more like it were not logged)" if suppressed else ""
        log_instance(
            logging.WARNING,
            run.identity,
            "activity %r, attempt %d, does not end: it was cancelled %.1f s ago (%s), and %s%s",
            run.request.name,
            run.request.attempt,
            since,
            run.reason,
            where,
            more,
        )

    def _name_at_the_end(self, run: Run, what: str) -> None:
        log_instance(
            logging.WARNING,
            run.identity,
            "activity %r, attempt %d, has not ended when the runtime stopped; %s",
            run.request.name,
            run.request.attempt,
            what,
        )

    def name_blocking(self, run: Run, seconds: float) -> None:
        """Log a warning about an attempt that blocked the event loop."""
        suppressed = self._quota.take(
            f"blocks {run.request.name}", round(self._clock.monotonic() * 1e6)
        )
        if suppressed is not None:
            log_instance(
                logging.WARNING,
                run.identity,
                "activity %r, attempt %d, has blocked the event loop for %.1f s: await, or "
                "make it a plain `def`, which has a thread",
                run.request.name,
                run.request.attempt,
                seconds,
            )

    # --- telemetry ---

    def _observe(self, run: Run) -> None:
        """Begin the record of an attempt, in the task or thread that runs it."""
        if self._recorder.recording:
            request = run.request
            run.observed = self._recorder.begin_attempt(
                run.identity,
                request.name,
                request.attempt,
                request.traceparent,
                request.session,
            )

    def _observe_end(self, run: Run, outcome: str, error: BaseException | None = None) -> None:
        """End the record of an attempt, even if its result is not needed: it has run."""
        if not self._recorder.recording:
            return
        if run.observed is None and error is not None:
            self._observe(run)  # it failed before it began: its arguments cannot be read
        observed, run.observed = run.observed, None
        if observed is not None:
            observed.end(outcome, error)


def failure_of(error: BaseException) -> ActivityFailure:
    """Return the end of an attempt that has raised."""
    if isinstance(error, ArgumentsUnread):
        return error.failure
    return ActivityFailure(
        error_info(error), class_names(error), non_retryable=is_non_retryable(error)
    )
