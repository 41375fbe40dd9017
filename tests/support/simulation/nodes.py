"""One node of a simulated world: an engine, its way to the store, and its activities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from random import Random
from typing import Final, Protocol, TypeVar, runtime_checkable

from orchestra.clock import Clock
from orchestra.codec import Payload, encode
from orchestra.context import Limits
from orchestra.engine.blocked_turns import LateResult, TurnAbandoned
from orchestra.engine.cycle import Cycle
from orchestra.engine.engine import Engine, EngineOptions
from orchestra.engine.messages import (
    AbortActivity,
    ActivityEnded,
    ActivityFailure,
    ActivityKey,
    Heartbeat,
    PublishItems,
    Reply,
    RunActivity,
    StopActivity,
    Submit,
    ToEngine,
    ToShell,
)
from orchestra.errors import (
    ErrorInfo,
    LibraryTooOld,
    OutcomeUnknown,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from orchestra.events import EventRecord
from orchestra.levels import Levels
from orchestra.registry import OrchestrationRegistry
from orchestra.retention import Retention
from orchestra.runtime.nodes import Node, NodeSettings, node_record
from orchestra.store.catalogue import Catalogue, NodeRecord, Renewal
from orchestra.store.changes import Change, ClientChange
from orchestra.store.instances import HeldPage
from orchestra.store.messages import InboxPage, Unread
from orchestra.store.outcomes import Commit
from orchestra.store.port import Provider
from orchestra.store.routes import Kind, Route
from orchestra.store.schedules import DueSchedule
from orchestra.store.snapshots import News
from orchestra.store.streams import journal_of
from orchestra.store.tasks import Task
from orchestra.telemetry import Recorder
from tests.support.simulation.programs import IN_CODE

__all__ = ["Link", "NodeDied", "SimulatedNode", "Surroundings"]

T = TypeVar("T")

_LIMITS = Limits()

_HELD_PER_PAGE: Final = 2
"""So few that a node reads several pages."""

_NUMBERS: Final = count(1)
"""The numbers of items: a later run of an attempt has higher ones."""


class NodeDied(BaseException):
    """The process is gone in the middle of a call; nothing behind the call happens. Nobody below
    the simulation catches it.
    """


class Surroundings(Protocol):
    """What a link asks of the world that it is in."""

    random: Random

    @property
    def hears_hints(self) -> bool: ...
    @property
    def hears_deaths(self) -> bool: ...
    def fate_of_commit(self) -> str | None: ...
    def fate_of_call(self) -> str | None: ...
    def fate_of_trip(self, *, is_read: bool) -> str | None: ...
    @property
    def has_trips(self) -> bool: ...
    def outage(self) -> StoreError | None: ...
    def refuses(self, change: Change) -> bool: ...
    def late(self, changes: Sequence[Change]) -> None: ...
    def meanwhile(self, link: Link) -> None: ...
    def committed(self, changes: Sequence[Change], commit: Commit) -> None: ...
    def ownership_changed(self, *, swept: bool = False) -> None: ...
    def level_raised(self, levels: Levels) -> None: ...
    def expired(self, count: int) -> None: ...
    def in_code(self, node: SimulatedNode) -> None: ...
    def begins(self, run: RunActivity) -> None: ...
    def new_id(self, prefix: str) -> str: ...


@runtime_checkable
class Wired(Protocol):
    """A provider whose calls are made of round trips to a server, between which others go on and
    connections break.
    """

    def attach(self, link: Link) -> None:
        """Ask :meth:`Link.trip` before each round trip."""
        ...


class Link:
    """A process's connection to the store: what is lost on it, refused by it, or meets others on
    its way.

    It stands between an engine and a store. Others go on before and after each commit and before
    reads, as they do in the time that these take.
    """

    def __init__(self, provider: Provider, world: Surroundings) -> None:
        self._store = provider.store
        self._world = world
        self.alive = True
        self.busy = False
        """Whether its process is in the middle of something, which nobody can make it do a second
        time meanwhile.
        """
        self.calls: int = 0
        self._reads = False

    def trip(self) -> str | None:
        """Let others go on before a round trip of the call that is under way.

        Return what becomes of the connection: lost ``before`` the trip, with its answer
        (``after``), or with its answer if the transaction is still open then (``within``).

        Raises:
            NodeDied: the process is gone.
        """
        if not self._world.has_trips:
            return None
        self._meanwhile()
        return self._world.fate_of_trip(is_read=self._reads)

    def commit(self, changes: Sequence[Change]) -> Commit:
        self._reach()
        fate = self._world.fate_of_commit()
        match fate:
            case "lost before":
                raise OutcomeUnknown("the connection broke before the commit")
            case "late":
                self._world.late(changes)
                raise OutcomeUnknown("the connection broke, and the commit is under way")
            case "busy":
                raise StoreBusy("busy")
            case "away":
                raise StoreUnavailable("away")
            case "full":
                raise StoreFull("full")
            case "read-only":
                raise StoreReadOnly("read-only")
            case "odd" if len(changes) > 1:
                raise StoreError("something in this group does not fit")
            case _:
                pass
        if any(map(self._world.refuses, changes)):
            raise StoreError("a value does not fit")
        commit = self._store.commit(changes)
        self._world.committed(changes, commit)
        self._meanwhile()
        if fate == "lost after":
            raise OutcomeUnknown("the connection broke after the commit")
        return commit

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        return self._read(lambda: self._store.history(instance_id, execution))

    def news(self, node_id: str, page: InboxPage = InboxPage()) -> list[News]:  # noqa: B008 - it is immutable
        return self._read(lambda: self._store.news(node_id, page))

    def unread(
        self,
        instance_id: str,
        after: Mapping[str, int],
        up_to: int,
        page: InboxPage = InboxPage(),  # noqa: B008 - it is immutable
    ) -> dict[str, Unread]:
        return self._read(lambda: self._store.unread(instance_id, after, up_to, page))

    def next_wake(self, kinds: Sequence[Kind], routes: Sequence[Route] = ()) -> int | None:
        return self._read(lambda: self._store.next_wake(kinds, routes))

    def next_tick(self, after: int = -1) -> int | None:
        return self._read(lambda: self._store.next_tick(after))

    def due_schedules(
        self, now: int, limit: int, after: tuple[int, str] | None = None
    ) -> Sequence[DueSchedule]:
        return self._read(lambda: self._store.due_schedules(now, limit, after))

    def changed(self) -> bool:
        return self._read(self._store.changed) and self._world.hears_hints

    def on_change(self, ring: Callable[[], None] | None) -> None:
        self._store.on_change(ring)

    def stir(self) -> None:
        self._store.stir()

    def expire(self, limit: int = 64) -> int:
        def expire() -> int:
            count = self._store.expire(limit)
            self._world.expired(count)
            return count

        return self._do(expire)

    def catalogue(self) -> Catalogue:
        return self._read(self._store.catalogue)

    def vanished(self) -> list[str]:
        vanished = self._read(self._store.vanished)
        return vanished if self._world.hears_deaths else []

    def rouse(
        self, since: int, until: int, instance_ids: Sequence[str] = (), limit: int = 256
    ) -> int:
        return self._do(lambda: self._store.rouse(since, until, instance_ids, limit))

    def owned(self, node_id: str) -> list[str]:
        return self._read(lambda: self._store.owned(node_id))

    def taken(self, node_id: str) -> list[Task]:
        return self._read(lambda: self._store.taken(node_id))

    def held(
        self,
        names: Sequence[str],
        after: tuple[int, str] | None = None,
        limit: int = _HELD_PER_PAGE,
    ) -> HeldPage:
        return self._read(lambda: self._store.held(names, after, limit))

    def join(self, node: NodeRecord) -> int:
        return self._do(lambda: self._store.join(node))

    def renew(self, node_id: str, load: int = 0) -> Renewal:
        return self._do(lambda: self._store.renew(node_id, load))

    def raise_level(self, levels: Levels) -> Levels:
        def raise_level() -> Levels:
            before = self._store.catalogue().levels
            standing = self._store.raise_level(levels)
            if standing != before:
                self._world.level_raised(standing)
            return standing

        return self._do(raise_level)

    def leave(self, node_id: str) -> None:
        def leave() -> None:
            try:
                self._store.leave(node_id)
            finally:  # without an answer it may be committed as well
                self._world.ownership_changed()

        self._do(leave)

    def bury(self, node_id: str, renewals: int) -> bool:
        return self._do(lambda: self._store.bury(node_id, renewals))

    def sweep(self, limit: int = 256) -> int:
        def sweep() -> int:
            swept = 1
            try:
                swept = self._store.sweep(limit)
            finally:  # a part of it may be committed where another part has failed
                if swept:
                    self._world.ownership_changed(swept=True)
            return swept

        return self._do(sweep)

    def _reach(self, *, reads: bool = False) -> None:
        outage = self._world.outage()
        if outage is not None:
            raise outage
        self._meanwhile()
        self.calls += 1
        self._reads = reads

    def _meanwhile(self) -> None:
        self._world.meanwhile(self)
        if not self.alive:
            raise NodeDied

    def _read(self, read: Callable[[], T]) -> T:
        self._reach(reads=True)
        if self._world.fate_of_call() is not None:
            raise StoreBusy("busy")
        return read()

    def _do(self, write: Callable[[], T]) -> T:
        self._reach()
        fate = self._world.fate_of_call()
        if fate == "before":
            raise StoreBusy("busy")
        done = write()
        self._meanwhile()
        if fate == "after":
            raise OutcomeUnknown("the connection broke")
        return done


class SimulatedNode:
    """One engine, driven by hand. Its activities run until the simulation ends them."""

    def __init__(
        self,
        world: Surroundings,
        provider: Provider,
        clock: Clock,
        registry: OrchestrationRegistry,
        *,
        stage: int,
        host: str,
        lease: float,
        poll: float,
        options: EngineOptions,
        retention: Retention,
        activities: Sequence[str],
        queues: Sequence[str],
        slots: int,
    ) -> None:
        self.provider = provider
        self.clock = clock
        self.stage = stage
        self.link: Link = Link(provider, world)
        if isinstance(provider, Wired):
            provider.attach(self.link)
        self.activities: frozenset[str] = frozenset(activities)
        self.paused_until = 0
        self.running: dict[ActivityKey, RunActivity] = {}
        self.asked: set[ActivityKey] = set()
        """Those that were asked to end."""
        self.began_as: dict[ActivityKey, str] = {}
        """Under which of its ids this node has begun them."""
        self.leaving = False
        self.replies: list[Reply] = []
        self.late_results: list[LateResult] = []
        """Results of abandoned turns that the engine does not know of yet."""
        self._world = world
        self._received: list[ToEngine] = []
        settings = NodeSettings(
            registry,
            queues=queues,
            limits=_LIMITS,
            retention=retention,
            options=options,
            slots=slots,
            lease=round(lease * 1e6),
            poll=poll,
        )
        record = replace(
            node_record(world.new_id("node"), provider, settings),
            host=host,
            boot_id="boot",
            pid=1,
            activities=tuple(activities),
        )
        node = Node(
            provider,
            record.node_id,
            settings,
            clock,
            Recorder(),
            store=self.link,
            record=record,
            make_id=lambda: world.new_id("reborn"),
        )
        self.engine: Engine = node.engine
        self.cycle: Cycle = node.cycle

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self.link.alive

    @property
    def is_due(self) -> bool:
        """Whether it has something to do now."""
        return bool(self._received) or self.cycle.idle_seconds() <= 0

    def turn(self) -> None:
        """Do one cycle with what has come in.

        Raises:
            NodeDied: the node has died on the way.
        """
        self.cycle.listen()
        received, self._received = self._received, []
        token = IN_CODE.set(lambda: self._world.in_code(self))
        try:
            self._take(self.cycle.run(received))
        except LibraryTooOld:
            self.leave()
            raise NodeDied from None
        except TurnAbandoned as abandoned:
            if abandoned.late is not None and self.alive:
                self.late_results.append(abandoned.late)
            elif abandoned.late is not None:
                abandoned.late.discard()
            if not self.alive:
                raise NodeDied from None
        finally:
            IN_CODE.reset(token)

    def return_turn(self, number: int) -> None:
        """Hand the result of an abandoned turn to the engine."""
        self.engine.add_late_result(self.late_results.pop(number))

    def leave(self) -> None:
        """Leave the store in order."""
        self._take(self.cycle.end())
        self.die()

    def die(self) -> None:
        """Be gone: the connection breaks, locks become free, memory is lost."""
        self.link.alive = False
        self._received.clear()
        self.running.clear()
        self.engine.close()
        for late in self.late_results:
            late.discard()
        self.late_results.clear()
        self.provider.close()

    def submit(self, change: ClientChange) -> str:
        """Hand in a client's change; its reply comes under the token that is returned."""
        token = self._world.new_id("token")
        self._received.append(Submit(change, token))
        return token

    def _take(self, messages: Sequence[ToShell]) -> None:
        for message in messages:
            match message:
                case RunActivity():
                    self._run(message)
                case AbortActivity(key=key):
                    self.running.pop(key, None)
                case StopActivity(key=key) if key in self.running:
                    self.asked.add(key)
                case Reply():
                    self.replies.append(message)
                case _:
                    pass

    def _run(self, run: RunActivity) -> None:
        assert run.key not in self.running, f"{run.key} runs twice on one node"
        assert run.name in self.activities, f"{run.key} runs where nobody has {run.name!r}"
        assert run.session in {None, self.engine.node.node_id}, (
            f"{run.key} belongs to a session on {run.session}"
        )
        self.asked.discard(run.key)
        self.running[run.key] = run
        self.began_as[run.key] = self.engine.node.node_id
        self._world.begins(run)

    def finish(self, run: RunActivity, value: int) -> Payload:
        """End an activity with a result, which is returned as it travels."""
        result = encode(value, subject="result")
        self.publish(run, value)
        del self.running[run.key]
        self._received.append(ActivityEnded(run.key, run.attempt, result))
        return result

    def fail(self, run: RunActivity, *, heartbeat: int | None) -> None:
        """End an activity with a failure."""
        del self.running[run.key]
        failure = ActivityFailure(
            ErrorInfo("RuntimeError", "it broke"), ("RuntimeError", "Exception", "BaseException")
        )
        beat = None if heartbeat is None else encode(heartbeat, subject="heartbeat")
        self._received.append(ActivityEnded(run.key, run.attempt, failure, beat))

    def publish(self, run: RunActivity, value: int) -> None:
        """Have an activity publish a value or two, as often as not, and store a step."""
        if value % 2:
            names = ["tokens"] * (value % 3)
            has_step = value % 5 > 2
            if has_step:
                names.append(journal_of(run.key.execution, run.key.event_id))
            items = tuple((name, encode(name, subject="item"), next(_NUMBERS)) for name in names)
            if items:
                self._received.append(
                    PublishItems(run.key, run.attempt, run.orchestration, items, has_step)
                )

    def beat(self, run: RunActivity, value: int) -> None:
        """Have an activity send a heartbeat."""
        self.publish(run, value)
        self._received.append(Heartbeat(run.key, run.attempt, encode(value, subject="heartbeat")))
