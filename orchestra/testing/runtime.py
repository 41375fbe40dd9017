"""A runtime for tests: the same engine, registry, activities and client, on virtual time."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import anyio
import anyio.lowlevel

from orchestra.activities import Activity, as_activity
from orchestra.client import Client, Handle
from orchestra.client.exports import export_of
from orchestra.client.performing import perform
from orchestra.clock import micros, new_id, to_micros
from orchestra.codec import encode
from orchestra.context import Limits
from orchestra.engine.engine import EngineOptions
from orchestra.engine.messages import (
    AbortActivity,
    InstanceEnded,
    PolicyChanged,
    Reply,
    RunActivity,
    StopActivity,
    Submit,
    ToEngine,
    ToShell,
    WriteLogs,
)
from orchestra.errors import InvalidArgument, OrchestraError, RuntimeClosed
from orchestra.operations.retarget import follow_policy
from orchestra.options import check_duration
from orchestra.providers.memory import Database, MemoryProvider
from orchestra.registry import OrchestrationRegistry
from orchestra.retention import Retention
from orchestra.runtime.nodes import Node, NodeSettings, activities_by_name, write_logs
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
from orchestra.testing.waiting import NothingHappens, VirtualWatch, waits_of

__all__ = ["TestRuntime"]

T = TypeVar("T")

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_FOR_EVER: Final = 10**17
"""A lease in microseconds, longer than any test: virtual time needs no heartbeats of nodes."""


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
        queues: the queues that are served.
        limits: how large one execution may grow.
        retention: which laps and ended instances are kept.
        patience: how long a real activity may wait, in real time, before the test fails.
        cold: drop every execution from memory between two turns, so that each turn replays its
            history.
        provider: the store to work on, with ``clock`` as its clock: a copy of a real one, say. By
            default a new store in memory.

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
        queues: Sequence[str] = (DEFAULT_QUEUE,),
        limits: Limits | None = None,
        retention: Retention | None = None,
        patience: timedelta = timedelta(seconds=5),
        cold: bool = False,
        provider: Callable[[ManualClock], Provider] | None = None,
    ) -> None:
        check_duration(patience, "patience")
        if not isinstance(start, datetime) or start.tzinfo is None:
            raise InvalidArgument(
                f"start is {start!r}; give an aware datetime: datetime(2026, 3, 1, tzinfo=UTC)"
            )
        self._clock = ManualClock(to_micros(start))
        self.database: Database = Database()
        plan = plan_of_this_test()
        self._settings = NodeSettings(
            registry=registry,
            activities=activities_by_name(activities),
            queues=queues,
            limits=limits or Limits(),
            retention=retention or Retention(),
            options=EngineOptions(cached=0 if cold or plan.cold else 4_096, keep_owned=0),
            lease=_FOR_EVER,
            poll=math.inf,
        )
        self._patience = patience
        self._commits = Commits(plan)
        self._plan = plan
        self._fakes: dict[str, Fake] = {}
        self._child_fakes: dict[str, Fake] = {}
        self._problems: list[AssertionError] = []
        self._received: list[ToEngine] = []
        self._pending: list[_Pending] = []
        self._ended: set[str] = set()
        self._policies: list[str] = []
        self._turn: anyio.Lock
        self._is_open = False
        self._registry = registry
        self._node: Node
        self._performers: Performers
        self.provider: Provider = (
            MemoryProvider(self.database, clock=self._clock)
            if provider is None
            else provider(self._clock)
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
        """
        if self._is_open:
            raise RuntimeClosed("this test runtime is entered already")
        self._turn = anyio.Lock()
        self.provider.open()
        self._is_open = True
        self._begin()
        await anyio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Drop everything.

        Raises:
            AssertionError: a fake was called too often, and no call has said so yet.
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
        self._settings = settings = replace(settings, registry=registry, activities=known)
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
        )
        self._node.prepare_store()
        self._node.cycle.begin()
        self.client.use(registry)

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
            self._plan.histories.append(export_of(directory, record))
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
        name, is_child = self._target(target)
        fake = Fake(name, outcomes)
        if is_child:
            self._child_fakes[name] = fake
        else:
            self._fakes[name] = fake
        if self._is_open and (is_child or name not in self._settings.activities):
            self._restart()
        return fake

    def _target(self, target: object) -> tuple[str, bool]:
        if isinstance(target, str):
            return target, target in self._registry.names
        for name in self._registry.names:
            for version in self._registry.versions(name):
                if self._registry.get(name, version).function is target:
                    return name, True
        if callable(target):
            return as_activity(target).name, False
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
        await self._settle()

    async def run_until(
        self,
        until: Handle[Any] | str | Callable[[], Any],
        *,
        execution: int | None = None,
        within: timedelta = timedelta(days=36_500),
    ) -> None:
        """Let time go by until an instance has ended, or has begun its lap ``execution``, or until
        a function returns something true.

        Args:
            until: a handle, an instance's id, or a function, ``async`` or not.
            within: how much time may go by.

        Raises:
            NothingHappens: it does not come to that; the message says what the instance waits for.
        """
        condition, instance_id = self._condition(until, execution)
        target = self._clock.now() + micros(within)
        await self._settle()
        while not await condition():
            due = self._next_due()
            if due is None or due > target:
                what = "ended" if execution is None else f"begun its lap {execution}"
                if instance_id is None:
                    raise NothingHappens(f"{until!r} has not become true, and nothing is due")
                raise NothingHappens(
                    f"instance {instance_id!r} has not {what}"
                    + ("" if due is None else f" within {within}")
                    + f": {await waits_of(self.client, instance_id)}"
                )
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
        self, registry: OrchestrationRegistry, activities: Sequence[object] | None = None
    ) -> None:
        """Deploy: the process ends in order, and another one begins with this registry. The old
        code is gone.

        Args:
            activities: those of the new process; by default the same.
        """
        self._registry = registry
        if activities is not None:
            self._settings = replace(self._settings, activities=activities_by_name(activities))
        self._restart()
        await self._settle()

    async def crash(self) -> None:
        """Kill the process: its memory is lost, with what no commit has recorded. The store stays,
        and a new process goes on.
        """
        self._end()
        self._begin()
        await self._settle()

    def _restart(self) -> None:
        self._node.engine.stop_claiming()
        self._node.engine.release_all()
        self._pump()
        self._handle(self._node.cycle.end())
        self._end()
        self._begin()

    # --- the wheel ---

    def _pump(self) -> None:
        """Have the engine do all that it can do now. Nothing is awaited."""
        cycle = self._node.cycle
        while True:
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
        # Clients of other processes live on. They ask again, under the ids that they have used.
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
                case InstanceEnded():
                    pass
                case WriteLogs():
                    write_logs(message)
                case PolicyChanged(name=name):
                    self._policies.append(name)

    async def _settle(self) -> None:
        """Run until nothing can run at this time."""
        self._require_open()
        async with self._turn:
            while True:
                self._pump()
                self._raise_problem()
                if self._policies:
                    name = self._policies.pop(0)
                    await perform(
                        follow_policy(name, self._node.engine.node.node_id), self, self.provider
                    )
                elif self._performers.has_work:
                    await self._performers.perform(self._pump)
                else:
                    return

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
        self._require_open()
        await anyio.lowlevel.checkpoint()
        pending = _Pending(change)
        self._pending.append(pending)
        try:
            self._received.append(Submit(change, pending))
            self._pump()
        finally:
            self._pending.remove(pending)
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
        """Have the engine read what was written past it."""
        self._node.cycle.poll_now()

    def watch(self, instance_id: str, seconds: float) -> VirtualWatch:
        """Watch for an instance's end; time goes by while it is waited for."""
        self._require_open()
        return VirtualWatch(self, instance_id, seconds)

    async def move_towards_end(self, instance_id: str, deadline: float) -> bool:
        """Let time go by until an instance may have ended. Return whether the deadline, in
        monotonic seconds, was reached before.

        Raises:
            NothingHappens: there is no deadline, and it will never end.
        """
        await self._settle()
        while (record := self.provider.directory.get(instance_id)) is not None:
            if record.status is not Status.OPEN:
                break
            if record.held and deadline == math.inf:
                return True  # the caller is told what holds it
            due = self._next_due()
            if due is None and deadline == math.inf:
                raise NothingHappens(
                    f"instance {instance_id!r} does not end: "
                    f"{await waits_of(self.client, instance_id)}"
                )
            left = max(0.0, deadline - self._clock.monotonic()) * 1e6
            limit = self._clock.now() + round(min(left, _FOR_EVER))
            self._move(limit if due is None else min(due, limit))
            await self._settle()
            if due is None or due > limit:
                return True
        return False

    def _require_open(self) -> None:
        if not self._is_open:
            raise RuntimeClosed(
                "the test runtime is not entered; use it inside `async with TestRuntime(...)`"
            )
