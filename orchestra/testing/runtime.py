"""A runtime for tests: the same engine, registry, activities and client, on virtual time."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import anyio
import anyio.lowlevel

from orchestra.activities import Activity, as_activity
from orchestra.client import Client, Handle
from orchestra.client.exports import export_of, read_export
from orchestra.client.performing import perform
from orchestra.clock import micros, new_id, to_micros
from orchestra.codec import encode
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
    ToShell,
    WriteLogs,
)
from orchestra.errors import InvalidArgument, OrchestraError, RuntimeClosed
from orchestra.operations.retarget import follow_policy
from orchestra.options import check_duration
from orchestra.payloads import Pipeline, with_payloads
from orchestra.providers.memory import Database, MemoryProvider
from orchestra.registry import OrchestrationRegistry
from orchestra.retention import Retention
from orchestra.runtime.nodes import Node, NodeSettings, activities_by_name, write_logs
from orchestra.runtime.schedules import checked_schedules
from orchestra.schedules import Schedule
from orchestra.store.changes import ClientChange
from orchestra.store.kinds import HoldKind, Status
from orchestra.store.outcomes import Outcome
from orchestra.store.port import Provider
from orchestra.store.queries import InstanceQuery
from orchestra.store.routes import DEFAULT_QUEUE
from orchestra.telemetry import Recorder
from orchestra.testing.clock import ManualClock
from orchestra.testing.commits import Commits, ProcessDied, plan_of_this_test
from orchestra.testing.fakes import Fake, reference, with_children
from orchestra.testing.performers import Performers
from orchestra.testing.seeding import seed
from orchestra.testing.waiting import (
    NothingHappens,
    VirtualChangeWatch,
    VirtualStreamWatch,
    VirtualWatch,
    waits_of,
)

__all__ = ["TestRuntime"]

T = TypeVar("T")

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_FOR_EVER: Final = 10**17
"""A lease in microseconds, longer than any test: virtual time needs no heartbeats of nodes."""

_MOST_TURNS: Final = 50_000
"""How many turns of one instance may follow each other while hardly any virtual time goes by."""

_MOST_ROUNDS: Final = 200_000
"""How many rounds of the engine may, whatever they are about."""

_MOST_STEPS: Final = 50_000
"""How often time may move in a wait that has no bound of its own."""

_A_MOMENT: Final = 3
"""How often other tasks of the test run before time moves where a task waits for an end."""

_A_WHILE: Final = 50
"""How often they run before a wait fails because nothing is due."""

_CENTURY: Final = timedelta(days=36_500)


class _Pending:
    """A client's change that was not answered yet."""

    __slots__ = ("change", "outcome")

    def __init__(self, change: ClientChange) -> None:
        self.change = change
        self.outcome: Outcome | OrchestraError | None = None


class TestRuntime:
    """Runs orchestrations and activities on virtual time, in the caller's task::

        async with TestRuntime(registry, activities=[probe]) as env:
            env.fake(probe, [503, 200])
            handle = await env.client.start("watch", Watch("http://..."))
            await env.advance(timedelta(days=30))
            assert (await handle.info()).execution_id == 31

    It is the engine, the registry, the client and the store's protocol of production, over a store
    in memory. No thread, no file and no real time is needed. Time moves only when nothing can run:
    in :meth:`advance` and :meth:`run_until`, and where a call of the client waits for an end.
    Orchestration code runs as soon as something is committed for it; activities run when the test
    awaits :meth:`advance`, a ``run_until`` or an end. Everything happens in the order of its time.

    It works on asyncio and trio, under any test runner. ``def`` activities run where they are
    called, and not on a thread.

    Args:
        registry: the orchestrations.
        activities: functions or ``@activity`` objects. One that a fake stands in for need not be
            here.
        start: the time at which the test begins; by default the year 2026.
        queues: the queues that are served; by default the queue "default", and those of the
            activities. The queue of a faked activity is served in any case.
        limits: how large one execution may grow.
        retention: which laps and ended instances are kept.
        patience: how long a real activity may wait, in real time, before the test fails.
        cold: drop every execution from memory between two turns, so that each turn replays its
            history.
        schedules: what the code declares, as for :class:`~orchestra.Runtime`.
        provider: the store to work on, with ``clock`` as its clock: a copy of a real one, say. By
            default a new store in memory.
        payloads: what is done to values before they are stored, as for :class:`~orchestra.Runtime`.

    Raises:
        InvalidArgument: an option has another type.
        RegistrationError: two different activities have one name.
    """

    __test__ = False  # it is no test, whatever pytest thinks of its name

    def __init__(
        self,
        registry: OrchestrationRegistry,
        activities: Sequence[object] = (),
        *,
        start: datetime = _START,
        queues: Sequence[str] | None = None,
        limits: Limits | None = None,
        retention: Retention | None = None,
        patience: timedelta = timedelta(seconds=5),
        cold: bool = False,
        schedules: Sequence[Schedule] = (),
        provider: Callable[[ManualClock], Provider] | None = None,
        payloads: Pipeline | None = None,
    ) -> None:
        check_duration(patience, "patience")
        if not isinstance(start, datetime) or start.tzinfo is None:
            raise InvalidArgument(
                f"start is {start!r}; give an aware datetime: datetime(2026, 3, 1, tzinfo=UTC)"
            )
        self._schedules = checked_schedules(schedules)
        self._clock = ManualClock(to_micros(start))
        self.database: Database = Database()
        plan = plan_of_this_test()
        self._settings = NodeSettings(
            registry=registry,
            activities=activities_by_name(activities),
            queues=queues or (),
            limits=limits or Limits(),
            retention=retention or Retention(),
            options=EngineOptions(cached=0 if cold or plan.cold else 4_096, keep_owned=0),
            lease=_FOR_EVER,
            poll=math.inf,
        )
        self._queues = queues
        self._patience = patience
        self._commits = Commits(plan)
        self._plan = plan
        self._fakes: dict[str, Fake] = {}
        self._fake_queues: set[str] = set()
        self._child_fakes: dict[str, Fake] = {}
        self._problems: list[BaseException] = []
        self._received: list[ToEngine] = []
        self._pending: list[_Pending] = []
        self._policies: list[PolicyChanged] = []
        self._turn: anyio.Lock
        self._is_open = False
        self._was_open = False
        self._rounds = 0
        self._since = 0.0
        self._acts = 0
        self._movers = 0
        self._registry = registry
        self._node: Node
        self._performers: Performers
        self.provider: Provider = with_payloads(
            MemoryProvider(self.database, clock=self._clock)
            if provider is None
            else provider(self._clock),
            payloads,
        )
        """The store, with the virtual clock as its clock."""
        self.client: Client = Client.attached(
            self.provider,
            self,
            registry,
            "test",
            clock=self._clock,
            inbox_limit=10_000,
            inbox_bytes=256 * 1024 * 1024,
            payload_limit=self._settings.limits.max_payload,
        )
        """The client of the test. It stays the same over crashes and upgrades."""

    # --- life ---

    async def __aenter__(self) -> Self:
        """Begin with an empty store.

        Raises:
            RuntimeClosed: it was entered before.
            InvalidArgument: the provider does not go by the virtual clock.
        """
        if self._is_open:
            raise RuntimeClosed("this test runtime is entered already")
        if self._was_open:
            raise RuntimeClosed("this test runtime was left; make a new one")
        self._turn = anyio.Lock()
        self.provider.open()
        try:
            self._require_virtual_clock()
        except InvalidArgument:
            self.provider.close()
            raise
        self._is_open = self._was_open = True
        self._begin()
        await self._declare()
        await anyio.lowlevel.checkpoint()
        return self

    async def _declare(self) -> None:
        """Make or update the schedules that the code declares, as each begin of a runtime does."""
        if self._schedules:
            await self.client.schedules.declare(self._schedules)

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Drop everything.

        Raises:
            AssertionError: a fake was called too often, or does not fit, and no call has said so
                yet.
        """
        if not self._is_open:
            return
        self._is_open = False
        if self._plan.cold:
            self._keep_histories()
        self._performers.die()
        self._node.engine.close()
        self.provider.close()
        if error_type is None:
            self._raise_problem()
        await anyio.lowlevel.checkpoint()

    def _begin(self) -> None:
        """Begin a new life of the process: under a new node id, as every start has one."""
        settings = self._settings
        known = dict(settings.activities)
        for name in self._fakes:
            if name not in known:
                known[name] = reference(name)
        registry = with_children(self._registry, self._child_fakes, self._problems)
        queues = {*self._queue_names(known.values()), *self._fake_queues}
        self._settings = settings = replace(
            settings, registry=registry, activities=known, queues=sorted(queues)
        )
        self._node = Node(
            self.provider,
            new_id(),
            settings,
            self._clock,
            Recorder(),
            store=self._commits.of(self.provider.store),
        )
        self._performers = Performers(
            known,
            self._fakes,
            self._received.append,
            self._clock,
            self._problems,
            patience=self._patience,
            payload_limit=settings.limits.max_payload,
            level=lambda: self._node.engine.catalogue.levels.write,
            directory=self.provider.directory,
        )
        self._node.prepare_store()
        self._node.cycle.begin()
        self.client.use(registry)

    def _require_virtual_clock(self) -> None:
        if self.provider.directory.catalogue().now != self._clock.now():
            raise InvalidArgument(
                "the provider of the test runtime does not go by the clock that its function is "
                "given; hand it on: lambda clock: SqliteProvider(path, clock=clock)"
            )

    def _queue_names(self, activities: Iterable[Activity[..., Any]]) -> Iterable[str]:
        if self._queues is not None:
            return self._queues
        return [DEFAULT_QUEUE, *(each.queue for each in activities if each.queue is not None)]

    def _end(self) -> None:
        """End a life of the process as a kill does: its memory is lost, the store stays."""
        self._performers.die()
        self._node.engine.close()
        self._received.clear()
        self.provider.close()
        self.provider.open()

    def _keep_histories(self) -> None:
        """Keep the histories of all instances, but of those that a fake stood in for."""
        directory = self.provider.directory
        for record in directory.list(InstanceQuery(limit=10_000)):
            if record.row.kind.name in self._child_fakes:
                continue
            exported = export_of(directory, record)
            if read_export(exported):  # else it has not run
                self._plan.histories.append(exported)
            hold = record.row.hold
            if hold is not None and hold.kind is HoldKind.NONDETERMINISM:
                self._plan.held.append(f"{record.row.instance_id!r}: {hold.detail}")

    # --- what a test does ---

    @property
    def is_open(self) -> bool:
        """Whether it was entered and not left."""
        return self._is_open

    def has_fake(self, name: str) -> bool:
        """Return whether a fake stands in for an activity or a child of this name."""
        return name in self._fakes or name in self._child_fakes

    @property
    def now(self) -> datetime:
        """The virtual time."""
        return self._clock.moment

    def monotonic(self) -> float:
        """The virtual time in seconds since the test has begun."""
        return self._clock.monotonic()

    def fake(
        self,
        target: Callable[..., Any] | Activity[..., Any] | str,
        outcomes: Callable[..., Any] | Sequence[Any],
    ) -> Fake:
        """Let a fake stand in for an activity or for a child orchestration.

        Args:
            target: the activity or the orchestration: its function, or its name.
            outcomes: a function with the parameters of the target, or a list of outcomes in order:
                values to return, exceptions to raise, :func:`~orchestra.testing.after` for what
                takes virtual time, and :data:`~orchestra.testing.NEVER`. One call more than there
                are outcomes fails the test.

        Returns:
            the fake; its ``calls`` are what it was called with.

        Raises:
            InvalidArgument: the target is neither, or the outcomes are neither.
        """
        name, is_child, queue = self._target(target)
        fake = Fake(name, outcomes)
        if is_child and fake.is_async:
            raise InvalidArgument(
                f"the fake of child {name!r} is async; a child's fake is a plain function, or a "
                "list of outcomes"
            )
        if is_child:
            self._child_fakes[name] = fake
        else:
            self._fakes[name] = fake
        is_new_queue = queue is not None and queue not in self._settings.queues
        if queue is not None:
            self._fake_queues.add(queue)
        if self._is_open and (is_child or is_new_queue or name not in self._settings.activities):
            self._restart()
        return fake

    def _target(self, target: object) -> tuple[str, bool, str | None]:
        """Return the name of what is faked, whether it is a child, and the queue of an activity."""
        if isinstance(target, str):
            known = self._settings.activities.get(target)
            queue = None if known is None else known.queue
            return target, target in self._registry.names, queue
        for name in self._registry.names:
            for version in self._registry.versions(name):
                # Methods are other objects each time, and equal.
                if self._registry.get(name, version).function == target:
                    return name, True, None
        if callable(target):
            faked = as_activity(target)
            return faked.name, False, faked.queue
        raise InvalidArgument(
            f"{target!r} cannot be faked; give an activity or an orchestration: its function, or "
            "its name"
        )

    async def advance(self, duration: timedelta) -> None:
        """Let so much time go by: run what can run now, and then what becomes due, in its order.

        Raises:
            AssertionError: an activity does not end, or a fake was called too often.
            InvalidArgument: the duration is no timedelta, or negative.
        """
        check_duration(duration, "duration")
        self._begin_call()
        with self._moving():
            target = self._clock.now() + micros(duration)
            await self._settle()
            while (due := self._next_due()) is not None and due <= target:
                self._move(due)
                await self._settle()
            self._move(target)
            self._node.cycle.poll_now()
            await self._settle()

    async def run_until_idle(self) -> None:
        """Run what can run now. Time does not move.

        Raises:
            AssertionError: an activity does not end, or a fake was called too often.
        """
        self._begin_call()
        await self._settle()
        self._acts += 1

    async def run_until(
        self,
        until: Handle[Any] | str | Callable[[], Any],
        *,
        execution: int | None = None,
        within: timedelta | None = None,
    ) -> None:
        """Let time go by until an instance has ended, or has begun its lap ``execution``, or until
        a function returns something true.

        Args:
            until: a handle, an instance's id, or a function, ``async`` or not.
            within: how much time may go by; by default a century, in which time moves at most
                50,000 times.

        Raises:
            NothingHappens: it does not come to that; the message says what the instance waits for.
            InvalidArgument: ``within`` is no timedelta, or negative.
        """
        if within is not None:
            check_duration(within, "within")
        self._begin_call()
        condition, instance_id = self._condition(until, execution)
        target = self._clock.now() + micros(within or _CENTURY)
        steps = _MOST_STEPS if within is None and execution is None else math.inf
        with self._moving():
            await self._settle()
            while not await condition():
                due = self._next_due()
                if due is None and await self._others_act(_A_WHILE):
                    continue
                if due is None or due > target or steps <= 0:
                    why = "" if due is None else f" within {within or _CENTURY}"
                    if steps <= 0:
                        why = f" after {_MOST_STEPS:,} steps of time; `within` lets it take longer"
                    what = "ended" if execution is None else f"begun its lap {execution}"
                    if instance_id is None:
                        raise NothingHappens(
                            f"{until!r} has not become true{why or ', and nothing is due'}"
                        )
                    raise NothingHappens(
                        f"instance {instance_id!r} has not {what}{why}: "
                        f"{await self._waits_of(instance_id)}"
                    )
                steps -= 1
                self._move(due)
                await self._settle()

    def _condition(
        self, until: Handle[Any] | str | Callable[[], Any], execution: int | None
    ) -> tuple[Callable[[], Any], str | None]:
        if callable(until) and not isinstance(until, Handle):

            async def is_true() -> bool:
                found = until()
                return bool(await found if inspect.isawaitable(found) else found)

            return is_true, None
        instance_id = until if isinstance(until, str) else until.instance_id

        async def has_come() -> bool:
            record = self.provider.directory.get(instance_id)
            if record is None:
                await self.client.get_instance_info(instance_id)  # which raises
            assert record is not None
            if execution is None or record.status is not Status.OPEN:
                return record.status is not Status.OPEN
            begun = record.row.execution - (0 if record.row.opened else 1)
            return begun >= execution

        return has_come, instance_id

    async def seed(
        self,
        name: str,
        version: str,
        state: Any,
        instance_id: str | None = None,
        *,
        queue: str = DEFAULT_QUEUE,
    ) -> Handle[Any]:
        """Make an instance whose state was written by a version, as its earlier laps would have
        left it; the version need not be registered. It goes on as the policy says.

        Raises:
            InstanceExists: the id is taken.
            UnknownOrchestration: no version of the name is registered.
        """
        payload = encode(state, subject=f"state of {name!r}")
        change = seed(
            self.provider.directory.catalogue(),
            self._registry,
            name,
            version,
            payload,
            instance_id=instance_id or new_id(),
            queue=queue,
        )
        await self.submit(change)
        return self.client.handle(change.instance_id)

    async def upgrade(
        self,
        registry: OrchestrationRegistry,
        activities: Sequence[object] | None = None,
        *,
        schedules: Sequence[Schedule] | None = None,
    ) -> None:
        """Deploy: the process ends in order, and another one begins with this registry. The old
        code is gone.

        Args:
            activities: those of the new process; by default the same.
            schedules: what the new code declares; by default the same.
        """
        self._begin_call()
        self._registry = registry
        if activities is not None:
            self._settings = replace(self._settings, activities=activities_by_name(activities))
        if schedules is not None:
            self._schedules = checked_schedules(schedules)
        self._restart()
        await self._declare()
        await self._settle()
        self._acts += 1

    async def crash(self) -> None:
        """Kill the process: its memory is lost, with what no commit has recorded. The store stays,
        and a new process goes on.
        """
        self._begin_call()
        self._end()
        self._begin()
        await self._declare()
        await self._settle()
        self._acts += 1

    async def away(self, duration: timedelta) -> None:
        """Let so much time go by while no process runs: the present one ends in order, and another
        one begins afterwards. What came due meanwhile is late, as after a downtime.

        Raises:
            InvalidArgument: the duration is no timedelta, or negative.
        """
        check_duration(duration, "duration")
        self._begin_call()
        self._leave()
        self._clock.advance(duration)
        self._begin()
        await self._declare()
        await self._settle()
        self._acts += 1

    def _restart(self) -> None:
        self._leave()
        self._begin()

    def _leave(self) -> None:
        """End the process in order."""
        self._node.engine.stop_claiming()
        self._node.engine.release_all()
        self._pump()
        self._handle(self._node.cycle.end())
        self._end()

    # --- the wheel ---

    def _pump(self) -> None:
        """Have the engine do all that it can do now. Nothing is awaited."""
        cycle = self._node.cycle
        while True:
            self._count_round()
            received, self._received[:] = list(self._received), []
            try:
                messages = cycle.run(received)
            except ProcessDied as death:
                self._die(death)
                cycle = self._node.cycle
                continue
            self._performers.recorded()
            self._handle(messages)
            if not self._received and cycle.idle_seconds() > 0:
                return

    def _die(self, death: ProcessDied) -> None:
        if death.is_recorded:
            self._performers.recorded()
        self._end()
        self._begin()
        # Clients of other processes live on. They know what became of a commit of theirs, and ask
        # for the others again.
        for pending in self._pending:
            if pending.outcome is None:
                pending.outcome = death.outcome_of(pending.change)
        self._received.extend(
            Submit(pending.change, pending) for pending in self._pending if pending.outcome is None
        )

    def _handle(self, messages: Sequence[ToShell]) -> None:
        for message in messages:
            match message:
                case RunActivity() | AbortActivity() | StopActivity():
                    self._performers.hear(message)
                case Reply(token=token, outcome=outcome):
                    token.outcome = outcome
                case InstanceEnded() | RequestsAnswered() | SessionsOpen():
                    pass
                case WriteLogs():
                    write_logs(message)
                case PolicyChanged():
                    self._policies.append(message)
                case ItemsStored():
                    self._performers.stored(message)

    async def _settle(self) -> None:
        """Run until nothing can run at this time."""
        self._require_open()
        async with self._turn:
            while True:
                self._pump()
                self._raise_problem()
                if self._policies:
                    changed = self._policies.pop(0)
                    operation = follow_policy(
                        changed.name,
                        self._node.engine.node.node_id,
                        only_pinned=changed.only_pinned,
                    )
                    await perform(operation, self, self.provider)
                elif self._performers.answer_fakes():
                    continue
                elif self._performers.has_work:
                    await self._performers.perform(self._pump)
                else:
                    return

    def _begin_call(self) -> None:
        """Note that the test has called: it is not the runtime that spins."""
        self._require_open()
        self._acts += 1
        self._count_anew()

    def _count_anew(self) -> None:
        self._rounds, self._since = 0, self._clock.monotonic()
        self._commits.turns.clear()

    def _count_round(self) -> None:
        """Count what is done without time going by.

        Raises:
            NothingHappens: it is too much; the message names the instance.
        """
        self._rounds += 1
        turns = self._commits.turns
        if turns.most <= _MOST_TURNS and self._rounds <= _MOST_ROUNDS:
            return
        if self._clock.monotonic() - self._since < 1.0:
            raise NothingHappens(
                f"instance {turns.busiest!r} runs without end: {turns.most:,} turns at "
                f"{self.now.isoformat()}, and virtual time does not go by; a loop needs a timer or "
                "an event to wait for"
            )
        self._count_anew()

    @contextmanager
    def _moving(self) -> Generator[None, None, None]:
        """Let no other task move the time, but one that has been told to."""
        self._movers += 1
        try:
            yield
        finally:
            self._movers -= 1
            self._acts += 1

    async def _others_act(self, passes: int, movers: int = 1) -> bool:
        """Let the other tasks of the test run. Return whether one has done something, or moves the
        time itself.
        """
        seen = self._acts
        for _ in range(passes):
            await anyio.lowlevel.checkpoint()
            if self._acts != seen or self._movers > movers:
                return True
        return False

    async def _waits_of(self, instance_id: str) -> str:
        settings = self._settings
        return await waits_of(self.client, instance_id, settings.activities, settings.queues)

    def _raise_problem(self) -> None:
        if self._problems:
            raise self._problems.pop(0)

    def _next_due(self) -> int | None:
        """Return when something happens next; ``None``: nothing will."""
        now = self._clock.monotonic()
        wait = min(self._node.cycle.idle_seconds(), self._performers.alarms.next_moment - now)
        if wait * 1e6 > _FOR_EVER // 10:
            return None
        return self._clock.now() + max(1, math.ceil(wait * 1e6))

    def _move(self, instant: int) -> None:
        self._clock.advance(timedelta(microseconds=max(0, instant - self._clock.now())))
        self._performers.alarms.call_due()

    # --- the client's port ---

    async def submit(self, change: ClientChange) -> Outcome:
        """Commit a client's change, and run what follows from it up to the next activity."""
        self._begin_call()
        await anyio.lowlevel.checkpoint()
        pending = _Pending(change)
        self._pending.append(pending)
        try:
            self._received.append(Submit(change, pending))
            self._pump()
        finally:
            self._pending.remove(pending)
            self._acts += 1
        assert pending.outcome is not None
        if isinstance(pending.outcome, OrchestraError):
            raise pending.outcome
        return pending.outcome

    async def call(self, function: Callable[[], T]) -> T:
        """Read the store."""
        self._require_open()
        await anyio.lowlevel.checkpoint()
        return function()

    def written_past(self) -> None:
        """Have the engine read what was written past it, and run what follows from it."""
        self.provider.stream_hints.changed()
        self._node.cycle.poll_now()
        self._pump()
        self._acts += 1

    def watch(
        self, instance_id: str, seconds: float, request_id: str | None = None
    ) -> VirtualWatch:
        """Watch for an instance's end, or its answer to a request; time goes by while it is waited
        for.
        """
        self._require_open()
        return VirtualWatch(self, instance_id, seconds, request_id)

    def watch_changes(self, instance_id: str | None) -> VirtualStreamWatch:
        """Watch for changes; time goes by while they are waited for."""
        self._require_open()
        return VirtualChangeWatch(self, self.provider.stream_hints, instance_id)

    def watch_stream(self, instance_id: str) -> VirtualStreamWatch:
        """Watch for what an instance publishes; time goes by while it is waited for."""
        self._require_open()
        return VirtualStreamWatch(self, self.provider.stream_hints, instance_id)

    async def move_until(self, told: Callable[[], bool], instance_id: str | None) -> None:
        """Let time go by until an instance has published something, has changed or has ended.

        Raises:
            NothingHappens: it never will.
        """
        self._begin_call()
        await self._settle()
        steps = 0
        while not told():
            if await self._others_act(_A_MOMENT, movers=0):
                continue
            due = self._next_due()
            if due is None and await self._others_act(_A_WHILE, movers=0):
                continue
            if due is None or steps == _MOST_STEPS:
                why = "" if due is None else f" after {steps:,} steps of time"
                if instance_id is None:
                    raise NothingHappens(f"no instance changes any more{why}")
                raise NothingHappens(
                    f"instance {instance_id!r} publishes nothing more, and does not change"
                    f"{why}: {await self._waits_of(instance_id)}; read_stream(follow=False) ends "
                    "with the last item"
                )
            steps += 1
            self._move(due)
            await self._settle()

    async def move_towards_end(
        self, instance_id: str, deadline: float, request_id: str | None = None
    ) -> bool:
        """Let time go by until an instance may have ended, or answered a request. Return whether
        the deadline, in monotonic seconds, was reached before.

        Raises:
            NothingHappens: there is no deadline, and it will never come to that.
        """
        self._begin_call()
        await self._settle()
        steps = 0
        while (record := self.provider.directory.get(instance_id)) is not None:
            if record.status is not Status.OPEN or self._is_answered(instance_id, request_id):
                break
            if await self._others_act(_A_MOMENT, movers=0):
                continue
            if record.held and deadline == math.inf:
                return True  # the caller is told what holds it
            due = self._next_due()
            if due is None and await self._others_act(_A_WHILE, movers=0):
                continue
            if deadline == math.inf and (due is None or steps == _MOST_STEPS):
                why = (
                    ""
                    if due is None
                    else f" after {steps:,} steps of time; a `timeout` lets it take longer"
                )
                what = "end" if request_id is None else f"answer request {request_id!r}"
                raise NothingHappens(
                    f"instance {instance_id!r} does not {what}{why}: "
                    f"{await self._waits_of(instance_id)}"
                )
            steps += 1
            left = max(0.0, deadline - self._clock.monotonic()) * 1e6
            limit = self._clock.now() + round(min(left, _FOR_EVER))
            self._move(limit if due is None else min(due, limit))
            await self._settle()
            if due is None or due > limit:
                return True
        return False

    def _is_answered(self, instance_id: str, request_id: str | None) -> bool:
        if request_id is None:
            return False
        state = self.provider.directory.request(instance_id, request_id)
        return state is None or state.row.answer is not None or not state.is_going

    def _require_open(self) -> None:
        if not self._is_open:
            raise RuntimeClosed(
                "the test runtime is not entered; use it inside `async with TestRuntime(...)`"
            )
