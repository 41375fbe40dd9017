"""The runtime itself: one node of a store, embedded in the program that enters it."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import anyio
import anyio.abc
import anyio.to_thread
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from orchestra.client import Client
from orchestra.client.arguments import check_provider, check_registry
from orchestra.client.hinted import ChangeWatch, HintedWatch, ReaderWatch
from orchestra.client.intake import Intake
from orchestra.client.performing import perform
from orchestra.client.port import End
from orchestra.clock import Clock, SystemClock, micros, new_id
from orchestra.context import Limits
from orchestra.engine.engine import EngineOptions
from orchestra.engine.messages import (
    AbortActivity,
    InstanceEnded,
    ItemsStored,
    PolicyChanged,
    Reply,
    RequestsAnswered,
    RunActivity,
    SessionsOpen,
    StopActivity,
    Submit,
    ToEngine,
    WriteLogs,
)
from orchestra.errors import (
    InvalidArgument,
    LevelTooLow,
    OrchestraError,
    RuntimeClosed,
    StoreError,
)
from orchestra.ids import check_name
from orchestra.loops import EventLoop, Gate, current_loop
from orchestra.operations.retarget import follow_policy
from orchestra.options import check_count, check_duration, check_kind
from orchestra.payloads import Pipeline, with_payloads
from orchestra.registry import OrchestrationRegistry
from orchestra.retention import Retention
from orchestra.runtime.activities import ActivityRunner, Beaten, Cut, Finished
from orchestra.runtime.bridge import Bridge
from orchestra.runtime.ends import Ends, Watch
from orchestra.runtime.nodes import Node, NodeSettings, activities_by_name, write_logs
from orchestra.runtime.outside import Outside, OutsideWatch
from orchestra.runtime.owner import Owner
from orchestra.runtime.readers import ReadDone, Readers
from orchestra.runtime.schedules import checked_schedules
from orchestra.runtime.start_checks import PREFLIGHTS, PreflightMode
from orchestra.runtime.watchdog import Watchdog
from orchestra.runtime.worker import Begun, Ended, EngineThread
from orchestra.schedules import Schedule
from orchestra.store.changes import ClientChange, size_of
from orchestra.store.inbox_limits import InboxLimits
from orchestra.store.outcomes import Outcome, Started
from orchestra.store.port import Provider
from orchestra.store.routes import DEFAULT_QUEUE
from orchestra.telemetry import engine_logger, recorder_for

__all__ = ["Runtime"]

T = TypeVar("T")

_RELEASE_SECONDS: Final = 5.0
_SHORTEST: Final = timedelta(milliseconds=1)


class _AnsweredElsewhere:
    """Another process may have answered requests that callers here wait for."""


_ANSWERED_ELSEWHERE: Final = _AnsweredElsewhere()


class _Pending:
    """A client's change that the engine has not answered yet."""

    __slots__ = ("change", "done", "outcome", "size")

    def __init__(self, change: ClientChange, done: Gate) -> None:
        self.change = change
        self.size = size_of(change)
        self.done = done
        self.outcome: Outcome | OrchestraError | None = None

    def answer(self, outcome: Outcome | OrchestraError) -> None:
        self.outcome = outcome
        if not self.done.done():
            self.done.set_result(None)


class Runtime:
    """Runs orchestrations and activities while it is entered::

        async with Runtime(SqliteProvider("app.db"), registry, activities=[probe]) as runtime:
            await runtime.client.start("watch", Watch("http://..."), instance_id="watch-1")

    Leaving it stops in order: it takes no new work, gives running activities ``grace``, and
    releases its instances.

    It may be entered in one task and left in another. Its client may be used from any event loop
    and thread of the process; activities run in the event loop in which the runtime was entered.
    If the runtime itself fails, it cancels the task that entered it. Each call of its client raises
    ``RuntimeClosed``, and leaving raises the failure.

    It commits its clients' changes in groups. While 10,000 changes, or 16 MiB, are uncommitted, a
    caller with one more waits in the client, first come, first served. A call that is cancelled in
    this wait has changed nothing.

    Args:
        provider: the store.
        registry: the orchestrations of this node.
        activities: functions or ``@activity`` objects.
        queues: the queues it serves, for orchestrations and activities alike.
        limits: how large one execution may grow.
        retention: which laps and ended instances are kept, for names without a retention in the
            registry.
        max_concurrent_activities: activities that run at once; others go to free nodes that have
            them, or wait.
        max_activity_threads: of these, how many ``def`` activities. A node takes from the queue
            only what it can begin now.
        max_owned: instances that this node works on at once. While more are due, instances that
            only wait for a timer or for their activities give up their place. Each goes on in its
            turn.
        max_sessions: activity sessions that are open on this node at once. One that was entered and
            has not opened within a minute, because its instance is held, say, does not count.
        warm_executions: coroutines of parked instances that are kept in memory.
        lease: how long this node may be silent before other nodes take over.
        grace: how long running activities, and the activity sessions on this node, may take to end
            when the runtime stops.
        poll: how often the node looks at the store without a hint.
        inbox_limit: unread messages that an instance may have; then senders are refused. One name
            may take nine tenths.
        inbox_bytes: bytes of the payloads of its unread messages; likewise.
        blocked_after: how long a turn of orchestration code may block. The node then logs its line,
            and continues with the other instances.
        preflight: what becomes of open instances that need a version which neither a living node
            nor this registry has, and of versions whose code is other than what open executions
            began with. ``"warn"``: a log line each. ``"refuse"``: entering the runtime raises
            ``StartRefused`` where instances would be stranded. ``"off"``: nothing is looked at.
        strict: whether entering the runtime raises ``CodeChanged`` if open executions, or living
            nodes, have other code for a version of the registry. Another minor version of Python
            makes other code of the same function.
        schedules: what this code declares. They are made as the runtime is entered, and updated if
            their ``revision`` is higher than that of the stored ones. A pause stays.
        payloads: what is done to all values of users before they are stored: compression,
            encryption, external storage. Its clients take part in it. By default nothing is.
        tracer_provider: where spans go; by default OpenTelemetry's global one, as it is when the
            runtime is entered.
        meter_provider: where metrics go; likewise.

    Raises:
        RegistrationError: two different activities have one name.
        InvalidFunction: an activity is not a function that can be one.
        InvalidArgument: the provider is not a provider (a path, say), or the registry not a
            registry (a builder that was not built); no queue is named, or one has no name; or an
            option has another type, or is too small or too large.
    """

    def __init__(
        self,
        provider: Provider,
        registry: OrchestrationRegistry,
        activities: Sequence[
            object
        ] = (),  # what mypy makes of a list of activities with different parameters
        *,
        queues: Sequence[str] = (DEFAULT_QUEUE,),
        limits: Limits | None = None,
        retention: Retention | None = None,
        max_concurrent_activities: int = 256,
        max_activity_threads: int = 32,
        max_owned: int = 4096,
        max_sessions: int = 1000,
        warm_executions: int = 4096,
        lease: timedelta = timedelta(seconds=10),
        grace: timedelta = timedelta(seconds=10),
        poll: timedelta = timedelta(seconds=1),
        inbox_limit: int = 10_000,
        inbox_bytes: int = 256 * 1024 * 1024,
        blocked_after: timedelta = timedelta(seconds=1),
        preflight: PreflightMode = "warn",
        strict: bool = False,
        schedules: Sequence[Schedule] = (),
        payloads: Pipeline | None = None,
        clock: Clock | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        check_provider(provider)
        check_registry(registry)
        check_count(max_concurrent_activities, "max_concurrent_activities")
        check_count(max_activity_threads, "max_activity_threads")
        check_count(max_owned, "max_owned")
        check_count(max_sessions, "max_sessions", least=0)
        check_count(warm_executions, "warm_executions", least=0)
        check_count(inbox_limit, "inbox_limit")
        check_count(inbox_bytes, "inbox_bytes")
        check_duration(lease, "lease", least=_SHORTEST)
        check_duration(grace, "grace")
        check_duration(poll, "poll", least=_SHORTEST)
        check_duration(blocked_after, "blocked_after", least=_SHORTEST)
        if preflight not in PREFLIGHTS:
            raise InvalidArgument(
                f'preflight is one of "warn", "refuse" and "off", not {preflight!r}'
            )
        if not isinstance(strict, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - users
            raise InvalidArgument(f"strict is true or false, not {strict!r}")
        check_kind(limits, "limits", Limits, optional=True)
        check_kind(retention, "retention", Retention, optional=True)
        provider = with_payloads(provider, payloads)
        self._provider = provider
        self._schedules = checked_schedules(schedules)
        self._activities = activities_by_name(activities)
        self._limits = limits or Limits()
        self._max_concurrent = max_concurrent_activities
        self._max_threads = max_activity_threads
        self._settings = NodeSettings(
            registry=registry,
            activities=self._activities,
            queues=_checked(queues),
            limits=self._limits,
            retention=retention or Retention(),
            options=EngineOptions(
                max_owned=max_owned,
                sessions=max_sessions,
                cached=warm_executions,
                threads=max_activity_threads,
                blocked_after=micros(blocked_after),
                inbox_limits=InboxLimits(inbox_limit, inbox_bytes),
            ),
            slots=max_concurrent_activities,
            lease=micros(lease),
            poll=poll.total_seconds(),
            preflight=preflight,
            strict=strict,
        )
        self._grace = grace
        self._blocked_after = blocked_after
        self._clock = clock or SystemClock()
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self._pending: set[_Pending] = set()
        self._intake = Intake()
        self._state = "new"
        self._is_abandoned = False
        self._process = os.getpid()
        self._readers: Readers
        self._ends: Ends
        self._has_ended = False
        self._is_released = False
        self._releasing = threading.Lock()
        self._first_effects: list[Any] = []
        self._owner: Owner | None = None
        self._loop: EventLoop
        self._bridge: Bridge[Any]
        self._outside: Outside
        self._thread: EngineThread
        self._runner: ActivityRunner
        self._group: anyio.abc.TaskGroup
        self._watchdog: Watchdog
        self.node_id: str = new_id()
        self.client: Client = Client.attached(
            provider,
            self,
            registry,
            self.node_id,
            inbox_limit=inbox_limit,
            inbox_bytes=inbox_bytes,
            payload_limit=self._limits.max_payload,
        )

    # --- life ---

    async def __aenter__(self) -> Self:
        """Open the store, join it, and begin.

        The runtime may be left in another task, event loop or thread than it was entered in.
        Activities run in the event loop in which it was entered.

        Raises:
            StoreError: the store cannot be used.
            StartRefused: it would strand instances (``preflight="refuse"``), or run them on other
                code (``strict=True``: ``CodeChanged``).
            ProviderInUse: another runtime runs on this provider object.
            RuntimeClosed: this runtime has been entered before.
        """
        if self._state != "new":
            raise RuntimeClosed("a runtime can be entered once; make a new one")
        self._state = "starting"
        self._process = os.getpid()
        try:
            await _in_thread(self._provider.open)
            try:
                self._provider.reserve(self.node_id)
                await self._begin()
            except BaseException:
                self._vacate()
                with anyio.CancelScope(shield=True):
                    await _in_thread(self._provider.close)
                raise
            self._owner = Owner(self._live, self._abandon)
            await self._owner.start()
        except BaseException:
            self._state = "stopped"
            raise
        self._state = "running"
        await self._declare()
        return self

    async def _declare(self) -> None:
        """Make or update the schedules that the code declares."""
        if not self._schedules:
            return
        try:
            try:
                await self.client.schedules.declare(self._schedules)
            except LevelTooLow as error:
                engine_logger.warning("%s; the declared schedules are made then", error)
                self._group.start_soon(self._declare_later)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.__aexit__(None, None, None)
            raise

    async def _declare_later(self) -> None:
        """Declare them once all living nodes know schedules."""
        while self._state == "running":
            await anyio.sleep(self._settings.poll)
            try:
                await self.client.schedules.declare(self._schedules)
            except (LevelTooLow, StoreError):
                continue
            except RuntimeClosed:
                pass
            return

    async def _begin(self) -> None:
        # Resolve the recorder once, so that a runtime without telemetry pays nothing per record.
        recorder = recorder_for(self._tracer_provider, self._meter_provider, self._clock)
        self.client.record_with(recorder)
        node = Node(self._provider, self.node_id, self._settings, self._clock, recorder)
        await _in_thread(node.prepare_store)
        engine, cycle = node.engine, node.cycle
        self._loop = current_loop()
        self._bridge = Bridge()
        self._outside = Outside(self._bridge, self._loop)
        self._thread = EngineThread(
            cycle, engine, self._outside, self._clock, host=self._loop, orphaned=self._orphaned
        )
        self._readers = Readers(self._bridge)
        self._runner = ActivityRunner(
            self._activities,
            self._report,
            lambda news: self._bridge.push([news]),
            self._clock,
            limit=self._max_concurrent,
            threads=self._max_threads,
            payload_limit=self._limits.max_payload,
            recorder=recorder,
            level=lambda: engine.catalogue.levels.write,
            directory=self._provider.directory,
            call=self._readers.call,
        )
        self._ends = Ends(
            self._readers,
            self._provider.directory,
            self._loop,
            self._provider.stream_hints,
            lambda: self._bridge.push([_ANSWERED_ELSEWHERE]),
        )
        self._watchdog = Watchdog(
            engine, self._thread, self._clock, self._blocked_after.total_seconds()
        )
        self._outside.serve(lambda: self._intake, self._thread, self._readers)
        self._thread.start()
        try:
            begun, *self._first_effects = await self._bridge.receive()
            assert isinstance(begun, Begun)
            if begun.error is not None:
                raise begun.error
        except BaseException:
            # Also if the host has been cancelled meanwhile: the thread may have joined the store by
            # now.
            self._thread.stop(at_once=True)
            with anyio.CancelScope(shield=True):
                self._is_abandoned = not await _in_thread(self._thread.join, _RELEASE_SECONDS)
            self._bridge.close()
            raise

    async def _live(self) -> None:
        """Own the runtime's tasks, from its beginning to its end."""
        owner = self._owner
        assert owner is not None
        shell, watch = anyio.CancelScope(shield=True), anyio.CancelScope()
        self._group = group = anyio.create_task_group()
        await group.__aenter__()
        try:
            try:
                self._runner.start(group)
                self._handle(self._first_effects)
                group.start_soon(self._guarded, self._shell, shell)
                group.start_soon(self._guarded, self._watchdog.watch, watch)
                group.start_soon(self._guarded, self._ends.run, anyio.CancelScope())
                owner.begin()
                await owner.asked_to_leave()
            finally:
                self._state = "stopping"
                if not self._loop.is_closed:
                    with owner.patience:
                        if not self._has_ended:
                            await self._stop()
        except GeneratorExit:
            # its loop is closed, and no wait can end: the engine's thread releases the rest
            raise
        except BaseException as error:  # noqa: BLE001 - the group adds what its tasks raise
            self._stop_at_once(shell, watch)
            await self._leave(group, error)
        else:
            self._stop_at_once(shell, watch)
            await self._leave(group, None)

    def _stop_at_once(self, *scopes: anyio.CancelScope) -> None:
        # No shield stops a second cancel by the event loop itself. It may cut the grace, but leaves
        # nothing running.
        self._state = "stopped"
        self._dismiss_clients()
        self._runner.abort_all()
        self._thread.stop(at_once=True)
        for scope in scopes:
            scope.cancel()

    async def _leave(self, group: anyio.abc.TaskGroup, error: BaseException | None) -> None:
        try:
            try:
                await self._runner.close()
            except BaseException as late:  # noqa: BLE001 - a second cancel by the event loop; the group is left all the same
                error = error or late
            if error is None:
                await group.__aexit__(None, None, None)
            elif not await group.__aexit__(type(error), error, error.__traceback__):
                raise error
        finally:
            with anyio.CancelScope(shield=True):
                await _in_thread(self._release)
                self._bridge.close()

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Stop in order, also when the block was cancelled. In any task, event loop and thread.

        If the event loop in which it was entered cannot run meanwhile, activities are cut off at
        once.

        Raises:
            RuntimeClosed: it has not been entered.
            BaseException: the failure of the runtime.
        """
        if self._owner is None:
            if self._state == "new":
                raise RuntimeClosed("the runtime has not been entered")
            return  # it could not be
        if self._process != os.getpid():
            self._state = "stopped"  # a forked child has a copy, and nothing of what runs
            return
        await self._owner.leave(self._grace.total_seconds() + 4 * _RELEASE_SECONDS)

    async def _abandon(self) -> None:
        """End without the event loop in which it was entered."""
        self._state = "stopped"
        self._thread.stop(at_once=True)
        self._dismiss_outside()
        await _in_thread(self._release)

    def _orphaned(self) -> None:
        """End the rest, on the engine's thread: the event loop was closed before the runtime was
        left.
        """
        self._state = "stopped"
        self._dismiss_outside()
        self._release(is_engine=True)
        self._bridge.close()

    def _release(self, *, is_engine: bool = False) -> None:
        """End the threads and close the store, once. From any thread."""
        if not self._releasing.acquire(blocking=not is_engine):
            return  # the other thread waits for this one
        try:
            if self._is_released:
                return
            self._is_released = True
            if not is_engine and not self._thread.join(_RELEASE_SECONDS):
                obstacle = self._obstacle("the store does not answer")
                engine_logger.warning("%s; the engine's thread is abandoned", obstacle)
                self._is_abandoned = True
            else:
                self._thread.interrupt_abandoned()
            self._readers.stop(at_home=False)
            self._readers.join()
            self._runner.release_threads()
            self._vacate()
            self._provider.close()
        finally:
            self._releasing.release()

    def _vacate(self) -> None:
        """Free the provider for the next runtime, unless a thread of this one may still use it."""
        if not self._is_abandoned:
            self._provider.vacate(self.node_id)

    async def _stop(self) -> None:
        self._thread.stop_claiming()
        await self._runner.drain(self._grace.total_seconds())
        self._thread.stop()
        # Wait for the thread itself, not for its message: the event loop may have cancelled the
        # shell.
        if not await _in_thread(self._thread.join, _RELEASE_SECONDS):
            obstacle = self._obstacle("the store takes no writes")
            engine_logger.warning(
                "%s; what this node owns is taken over when its lease has run out", obstacle
            )
        elif not self._has_ended:
            self._handle(self._bridge.take())

    def _obstacle(self, otherwise: str) -> str:
        """Return what the engine's thread waits for: blocked code, or something else."""
        stuck = self._watchdog.stuck()
        return otherwise if stuck is None else f"{stuck} does not return"

    def _dismiss_clients(self) -> None:
        """Answer all calls that still wait for this runtime."""
        for pending in self._pending:
            if pending.outcome is None:
                pending.answer(
                    RuntimeClosed(
                        "the runtime stopped before the change was acknowledged; it may or may "
                        "not be stored. Look with get_instance_info, or ask again with the "
                        "same id"
                    )
                )
        self._dismiss_outside()
        self._readers.stop()
        self._ends.stop()

    def _dismiss_outside(self) -> None:
        self._intake.close()
        self._outside.close()

    # --- the shell ---

    async def _shell(self) -> None:
        while not self._has_ended:
            self._handle(await self._bridge.receive())

    async def _guarded(self, part: Callable[[], Awaitable[None]], scope: anyio.CancelScope) -> None:
        """Run a part of the shell. If it fails, the runtime stops in order, and its host gets the
        error.
        """
        assert self._owner is not None
        with scope:
            try:
                await part()
            except Exception as error:  # noqa: BLE001 - leaving the runtime raises it
                self._owner.fail(error)

    async def _follow_policy(self, name: str, only_pinned: bool) -> None:  # noqa: FBT001 - it is started in a group
        """Let held instances follow a new policy, or leave an expired pin. Boundaries may have used
        the old policy after the operator's call.
        """
        try:
            operation = follow_policy(name, self.node_id, only_pinned=only_pinned)
            followed = await perform(operation, self, self._provider)
        except RuntimeClosed:
            return  # the other nodes see it as well
        except OrchestraError as error:
            engine_logger.warning(
                "what is held of %r does not follow its new version policy; set it once more: %s",
                name,
                error,
            )
            return
        if followed:
            engine_logger.info("%d held executions of %r follow its version policy", followed, name)

    def _handle(self, messages: Sequence[Any]) -> None:
        for message in messages:
            match message:
                case RunActivity():
                    self._runner.begin(message)
                case ReadDone():
                    message.read.done.set()
                case Beaten() | Cut() | Finished():
                    self._runner.hear(message)
                case Reply(token=token, outcome=outcome):
                    if isinstance(outcome, Started):
                        self._ends.note_start(token.change.instance_id)
                    token.answer(outcome)
                    self._intake.leave(token.size)
                case ItemsStored():
                    self._runner.stored(message)
                case AbortActivity(key=key):
                    self._runner.abort(key)
                case StopActivity(key=key):
                    self._runner.stop(key)
                case SessionsOpen(count=count):
                    self._runner.count_sessions(count)
                case InstanceEnded(instance_id=instance_id):
                    self._ends.note_end(
                        instance_id, End(message.status, message.output, message.error)
                    )
                case RequestsAnswered(instance_id=instance_id, answers=answers):
                    self._ends.note_answers(instance_id, answers)
                case WriteLogs():
                    write_logs(message)
                case PolicyChanged(name=name, only_pinned=only_pinned):
                    self._group.start_soon(self._follow_policy, name, only_pinned)
                case _AnsweredElsewhere():
                    self._ends.look_for_answers()
                case Ended(error=error):
                    self._has_ended = True
                    self._dismiss_clients()
                    if error is not None:
                        raise error
                case _:  # pragma: no cover
                    raise AssertionError(f"unknown message {message}")

    def _report(self, message: ToEngine) -> None:
        try:  # noqa: SIM105 - suppress() is three calls more, for each activity
            self._thread.put(message)
        except RuntimeClosed:  # its instance has been released and goes on elsewhere
            pass

    # --- the client's port ---

    async def submit(self, change: ClientChange) -> Outcome:
        """Commit a client's change together with the engine's own, once there is room for it.

        The change keeps its room until the engine has answered, even if the caller was cancelled:
        callers that give up and retry must not pile up changes while the store is slow.
        """
        self._require_running()
        if not self._loop.is_current:
            return await self._outside.submit(change)
        pending = _Pending(change, self._loop.gate())
        if not self._intake.enter(pending.size):
            await self._intake.wait(pending.size)
            self._require_running()
        self._pending.add(pending)
        try:
            self._thread.put(Submit(change, pending))
            await pending.done
        finally:
            self._pending.discard(pending)
        assert pending.outcome is not None
        if isinstance(pending.outcome, OrchestraError):
            raise pending.outcome
        return pending.outcome

    async def call(self, function: Callable[[], T]) -> T:
        """Run a blocking read in a worker thread."""
        self._require_running()
        if not self._loop.is_current:
            return await self._outside.call(function)
        return await self._readers.call(function)

    def written_past(self) -> None:
        """Have the engine read what was written past it, before it handles its next message."""
        self._thread.look()
        self._provider.stream_hints.changed()

    def _require_running(self) -> None:
        if self._process != os.getpid():
            raise RuntimeClosed(
                "this process was forked from the one that runs the runtime; make a new runtime "
                "in it"
            )
        if self._owner is not None and self._owner.failure is not None:
            raise RuntimeClosed(
                f"the runtime has failed: {self._owner.failure!r}; make a new one"
            ) from self._owner.failure
        if self._state not in {"running", "stopping"}:
            raise RuntimeClosed(
                f"the runtime is {self._state}; enter it with `async with runtime:` and use it "
                "inside"
            )
        if self._has_ended:
            raise RuntimeClosed("the runtime has stopped")

    def watch(
        self, instance_id: str, seconds: float, request_id: str | None = None
    ) -> Watch | OutsideWatch:
        """Watch for an instance's end, or its answer to a request, here or on any other node."""
        self._require_running()
        if not self._loop.is_current:
            return self._outside.watch(instance_id, seconds, request_id)
        return self._ends.watch(instance_id, seconds, request_id)

    def watch_changes(
        self,
        instance_id: str | None,  # noqa: ARG002 - hints tell no ids
    ) -> HintedWatch:
        """Watch for changes, here or on any other node."""
        self._require_running()
        return ChangeWatch(self._provider.stream_hints)

    def watch_stream(self, instance_id: str) -> HintedWatch:
        """Watch for what an instance publishes, here or on any other node."""
        self._require_running()
        return ReaderWatch(self._provider.stream_hints, instance_id)


async def _in_thread(function: Callable[..., T], *args: Any) -> T:
    """Run a blocking call to its end. It uses an own limiter: the host may have used up the default
    one.
    """
    return await anyio.to_thread.run_sync(function, *args, limiter=anyio.CapacityLimiter(1))


def _checked(queues: Sequence[str]) -> tuple[str, ...]:
    """Return the queues that a node serves, each once."""
    if isinstance(queues, str) or not isinstance(queues, Collection) or not queues:
        raise InvalidArgument(
            f"queues is {queues!r}; give a sequence of names, such as ({DEFAULT_QUEUE!r}, 'gpu')"
        )
    for queue in queues:
        check_name(queue, "a queue")
    return tuple(dict.fromkeys(queues))
