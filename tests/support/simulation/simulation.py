"""Several engines over one store, in a random order of everything that can happen to them, on
virtual time.

Nodes step, commit and apply in between each other; replies are lost, commits come late, the store
is busy, full or away; nodes crash, stop, freeze beyond their lease and go on with what they
remember, and come back with other code; clients send, cancel, terminate, delete and start anew;
operators set policies, pin, hold, release, rewind and nudge. A witness checks each commit. Then the faults stop, and every instance
must end (I11).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from orchestra.clock import Clock, micros
from orchestra.engine.messages import ActivityKey, RunActivity
from orchestra.errors import (
    LibraryTooOld,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from orchestra.levels import Levels
from orchestra.resolution import policy_of
from orchestra.store.changes import Append, Change, ScheduleWrite, Start, Write
from orchestra.store.instances import CRASHES_BEFORE_DELAY
from orchestra.store.kinds import THIS_LIBRARY, Library, Status
from orchestra.store.outcomes import Commit, Outcome
from orchestra.store.port import Directory, Provider
from orchestra.store.routes import DEFAULT_QUEUE
from orchestra.testing.checker import check_store
from orchestra.versions import Latest, UnknownPolicy
from tests.support.ages import NEXT_LIBRARY, STERN_LIBRARY
from tests.support.simulation.ages import ERAS, Era, is_known
from tests.support.simulation.clients import Clients
from tests.support.simulation.clocks import MachineClock, VirtualTime
from tests.support.simulation.nodes import Link, NodeDied, SimulatedNode
from tests.support.simulation.plan import Plan
from tests.support.simulation.programs import (
    ACTIVITIES,
    FAR,
    FINAL_STAGE,
    KILLER,
    PROGRAMS,
    TRANSFER,
    UNDO,
    registry_of,
)
from tests.support.simulation.schedules import Schedulers
from tests.support.simulation.witness import Witness

__all__ = ["Connect", "Result", "Simulation", "simulate"]


class Connect(Protocol):
    """Returns one more unopened connection to one and the same store, as a process of its own would
    have it.
    """

    def __call__(self, clock: Clock, library: Library = THIS_LIBRARY) -> Provider: ...


_WEIGHT_OF_AGES: Final = 2.5

_WITH_SCHEDULES: Final = 0.4
_WEIGHT_OF_SCHEDULES: Final = 4.0
_PLACES: Final = 1_000
_STERN: Final = 0.25
"""How often the next library rules out older ones."""
_LATE: Final = 3_000_000
"""Virtual microseconds after which what is due should have been taken, with nothing going wrong."""
_HOUR: Final = 3_600_000_000
_DEPTH: Final = 2
_CYCLES: Final = 4_000
_PATIENCE: Final = 3_600_000_000
"""Virtual microseconds after which what has not ended never will: longer than what a program waits,
retries and crashes.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What a seed did. ``digest`` is the same whenever it is run on the same code."""

    seed: int
    counts: Mapping[str, int]
    digest: str


def simulate(
    connect: Connect, seed: int, *, faults: bool = True, alike: bool = False, ages: bool = False
) -> Result:
    """Run one seed over a new, empty store.

    Args:
        connect: makes a connection to that store, on the clock that it is given. Every node, and
            the clients, get their own.
        seed: decides everything. The same seed repeats exactly.
        faults: whether anything goes wrong at all.
        alike: whether the seed does the same on every kind of store: without hints, which each kind
            gives in its own way, and without what can happen only between the round trips of a call
            to a server.
        ages: whether nodes have this library or an artificial next one: the library is upgraded and
            rolled back meanwhile.

    Raises:
        AssertionError: an invariant does not hold; the message begins with its number.
    """
    simulation = Simulation(connect, seed, faults=faults, alike=alike, ages=ages)
    try:
        simulation.run()
    except _Loud as loud:
        raise loud.error from None
    finally:
        simulation.close()
    return Result(seed, dict(sorted(simulation.witness.counts.items())), simulation.witness.digest)


class _Loud(BaseException):
    """Carries a failure past an engine, which rightly survives every exception of the store below
    it.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@contextmanager
def _aloud() -> Generator[None]:
    try:
        yield
    except Exception as error:
        raise _Loud(error) from error


class Simulation:
    """One seed's world."""

    def __init__(
        self,
        connect: Connect,
        seed: int,
        *,
        faults: bool = True,
        alike: bool = False,
        ages: bool = False,
    ) -> None:
        self.random: Random = Random(seed)
        self.plan: Plan = Plan.draw(self.random, faults=faults)
        self._faults = faults
        self._alike = alike
        self.time: VirtualTime = VirtualTime()
        self._connect = connect
        self._providers: list[Provider] = []
        self._has_ages = ages
        self._eras: list[Era] = list(ERAS) if ages else ["old"]
        self._newest: Library = THIS_LIBRARY
        if ages:
            self._connected(THIS_LIBRARY)  # the store is made by the older library, and upgraded
            self._newest = STERN_LIBRARY if self.random.random() < _STERN else NEXT_LIBRARY
        self._first = len(self._providers)
        provider = self._connected()
        self.directory: Directory = provider.directory
        self._store = provider.store
        self.witness: Witness = Witness(
            provider.directory, self.plan.retention, self._newest, self._library_of
        )
        finished = self.plan.retention.finished
        expiry = None if finished is None else micros(finished)
        provider.admin.set_expiry(dict.fromkeys(self.plan.programs, expiry))
        self.counts: Counter[str] = self.witness.counts
        self.clients: Clients = Clients(self, self._connected(), self.plan, self.witness)
        drawn = Random(f"schedules of {seed}")
        self._has_schedules = drawn.random() < _WITH_SCHEDULES
        self._schedulers = Schedulers(
            self._connected() if self._has_schedules else provider,
            drawn,
            self.plan,
            self.witness.schedules,
            self._schedule,
            self.new_id,
        )
        self.nodes: list[SimulatedNode] = []
        self._outage: StoreError | None = None
        self._late: list[tuple[Change, ...]] = []
        self._ids: Counter[str] = Counter()
        self._depth = 0
        self._deadly: set[tuple[ActivityKey, int]] = set()
        self._calm = False
        self._is_resting = False
        self._broken: BaseException | None = None
        """What went wrong while orchestration code ran, which it must not swallow."""
        self._stage = 0
        self._acts: dict[str, Callable[[], None]] = {
            "turn": self._turn_any,
            "activity": self._activity,
            "client": lambda: self.clients.act(self._reachable),
            "time": self._time,
            "crash": self._crash,
            "stop": self._stop,
            "pause": self._pause,
            "outage": self._break_or_mend,
            "deploy": self._deploy,
            "operator": lambda: self.clients.operate(self._reachable),
            "poison": self._poison,
            "return": self._return,
            "age": self._age,
            "schedule": self._act_on_schedules,
        }

    def close(self) -> None:
        """Let go of the store."""
        for node in self._alive:
            node.engine.close()
        for provider in self._providers:
            provider.close()

    def _connected(self, library: Library | None = None) -> Provider:
        provider = self._connect(
            MachineClock(self.time), self._newest if library is None else library
        )
        provider.open()
        self._providers.append(
            provider
        )  # kept to the end: what is freed may be taken for what comes after it
        return provider

    # --- the course of things ---

    def run(self) -> None:
        """Do what the seed says, and judge."""
        for _ in range(self.plan.nodes):
            self._boot()
        odds = {**self.plan.weights, **({"age": _WEIGHT_OF_AGES} if self._has_ages else {})}
        if self._has_schedules:
            odds["schedule"] = _WEIGHT_OF_SCHEDULES
        names, weights = list(odds), list(odds.values())
        for name in self.random.choices(names, weights, k=self.plan.acts):
            self._acts[name]()
            self._apply_late()
            if not self._alive:
                self._boot()
        self._calm_down()
        if self._has_ages:
            self._roll_back()
        if self.plan.rest:
            self._rest()
        self._finish()
        self._judge()

    @property
    def _alive(self) -> list[SimulatedNode]:
        return [node for node in self.nodes if node.alive]

    @property
    def _reachable(self) -> list[SimulatedNode]:
        """Nodes whose process runs and is in the middle of nothing."""
        return [
            node
            for node in self._alive
            if not node.link.busy and node.paused_until <= self.time.now
        ]

    def _boot(self, stage: int | None = None) -> SimulatedNode | None:
        random, plan = self.random, self.plan
        chosen = random.randint(0, self._stage) if stage is None else stage
        names, activities, queues, places = plan.programs, ACTIVITIES, (DEFAULT_QUEUE, FAR), _PLACES
        if plan.partial_nodes and stage is None and len(self._alive) > 1:
            names = names[random.choice((0, 0, 1)) :: random.choice((1, 2))]
            activities = random.choice((ACTIVITIES, ACTIVITIES[:1]))
        if plan.apart:
            places = random.choice((_PLACES, 3, 1))
            if stage is None:
                activities = tuple(name for name in activities if random.random() < 0.6)
                queues = random.choice((queues, (DEFAULT_QUEUE,), (FAR,)))
        for definition in registry_of(chosen, names).capabilities():
            self.witness.versions.joined(definition.name, definition.version)
        off = random.choice((-7 * _HOUR, 0, 5 * _HOUR)) if plan.skewed else 0
        try:
            provider = self._connected(self._library_of_era())
        except LibraryTooOld:
            self.counts["refused as too old"] += 1
            return None
        node = SimulatedNode(
            self,
            provider,
            MachineClock(self.time, off=off, origin=random.random() * 1e6),
            registry_of(chosen, names),
            stage=chosen,
            host="host" if plan.same_host else self.new_id("host"),
            lease=plan.lease,
            poll=plan.poll,
            options=plan.engine,
            retention=plan.retention,
            activities=activities,
            queues=queues,
            slots=places,
        )
        self.counts["nodes"] += 1
        try:
            with _Busy(node.link):
                node.cycle.begin()
        except (StoreError, NodeDied):  # a service that cannot start is started again later
            node.die()
            return None
        self.nodes.append(node)
        return node

    def _turn(self, node: SimulatedNode) -> None:
        try:
            with _Busy(node.link):
                node.turn()
        except NodeDied:
            self._complain()
            return
        self._complain()
        self.clients.hear(node)

    def _complain(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _turn_any(self) -> None:
        nodes = self._reachable
        if nodes:
            self._turn(self.random.choice(nodes))

    # --- what happens ---

    def _act_on_schedules(self) -> None:
        instances = self.witness.instances.values()
        self._schedulers.act(
            [(one.instance_id, one.name) for one in instances if one.status is Status.OPEN]
        )

    def _schedule(self, write: ScheduleWrite) -> Outcome:
        return self.clients.commit(write)

    def _activity(self) -> None:
        nodes = [node for node in self._reachable if node.running]
        if nodes:
            node = self.random.choice(nodes)
            self._go_on(node, self.random.choice(list(node.running)))

    def _go_on(self, node: SimulatedNode, key: ActivityKey) -> None:
        random = self.random
        run = node.running[key]
        action = random.random()
        if run.name == KILLER.name and self.plan.kills and action < 0.8 and not self._is_resting:
            self.counts["killed by an activity"] += 1
            attempt = (run.key, run.attempt)
            is_excused = run.key[:2] in self.witness.taken
            assert is_excused or attempt not in self._deadly, (
                f"rule 14: attempt {run.attempt} of {run.key} kills a second time"
            )
            self._deadly.add(attempt)
            self._kill(node)
        elif key in node.asked and action < 0.5:
            node.fail(run, heartbeat=None)  # it does as it is told
        elif self._calm or action < 0.75:
            self.witness.returned[run.key].append(node.finish(run, random.randint(0, 100)))
        elif action < 0.92:
            node.fail(run, heartbeat=random.choice([None, 7]))
        else:
            node.beat(run, random.randint(0, 100))

    def begins(self, run: RunActivity) -> None:
        """Check that a compensation begins when what it undoes has ended, on every node that lives
        (scenario 59).
        """
        if run.name != UNDO.name:
            return
        if run.key[:2] in self.witness.taken:
            return  # an operator has taken it from a node, which ends what it runs once it knows
        self.counts["compensations"] += 1
        living = {row.record.node_id for row in self.directory.catalogue().nodes}
        for other in self._alive:
            for key, running in other.running.items():
                if (
                    running.name == TRANSFER.name
                    and key[:3] == run.key[:3]
                    and other.began_as[key] in living
                ):
                    assert other.leaving, (
                        f"59: {run.key} begins, and {key} runs on {other.began_as[key]}"
                    )

    def _time(self) -> None:
        self.time.skip(self.random.choice([0, 0.001, 0.05, 0.5, 0.5, 1.1, 3, 11]))

    def _kill(self, node: SimulatedNode) -> None:
        self.counts["crashes"] += 1
        node.die()

    def _crash(self) -> None:
        """A process dies, wherever it stands, and most often another one comes."""
        nodes = self._alive
        if nodes:
            self._kill(self.random.choice(nodes))
            if self.random.random() < 0.8:
                self._boot()

    def _stop(self) -> None:
        nodes = self._reachable
        if nodes:
            self._stop_in_order(self.random.choice(nodes))
            self._boot()

    def _stop_in_order(self, node: SimulatedNode) -> None:
        """Stop as the runtime does: a store that is away for too long is left without a word."""
        self.counts["stops"] += 1
        node.leaving = True
        try:
            with _Busy(node.link):
                node.engine.stop_claiming()
                node.engine.release_all()
                until = node.clock.monotonic() + 5.0
                while node.engine.owned or node.engine.has_work:
                    wait = node.cycle.idle_seconds()
                    if node.clock.monotonic() + wait > until:
                        break
                    self.time.skip(wait + 1e-6)
                    node.turn()
                    self._complain()
                    self.clients.hear(node)
                node.leave()
        except NodeDied:
            self._complain()
            return
        self.clients.hear(node)

    def _pause(self) -> None:
        """A process is stopped for a while, and goes on with what it remembers."""
        nodes = self._reachable
        if nodes:
            self.counts["pauses"] += 1
            seconds = self.random.choice((1, 5, 15, 40))
            self.random.choice(nodes).paused_until = self.time.now + seconds * 1_000_000

    def _break_or_mend(self) -> None:
        if self._outage is not None:
            self._outage = None
            return
        self.counts["outages"] += 1
        error = self.random.choice((StoreUnavailable, StoreFull, StoreReadOnly, StoreBusy))
        self._outage = error("the store is away for a while")

    def _deploy(self) -> None:
        """From now on there is newer code; nodes with older code go on beside it, and may still be
        started.
        """
        if self._stage < FINAL_STAGE:
            self._stage += 1
            self.counts["deploys"] += 1
        self._boot(self._stage)

    # --- libraries of two ages ---

    def _library_of(self, node_id: str) -> Library | None:
        """Return which library a node has."""
        for node in self.nodes:
            if node_id in (node.engine.node.node_id, node.cycle._membership.node.node_id):
                return node.provider.library
        return None

    def _library_of_era(self) -> Library:
        era = self._eras[0]
        if era == "mixed":
            return self.random.choice((THIS_LIBRARY, self._newest))
        return THIS_LIBRARY if era == "old" else self._newest

    def _age(self) -> None:
        """The library is upgraded or rolled back, everywhere or on some nodes; what does not fit
        the era goes.
        """
        if len(self._eras) > 1:
            del self._eras[0]
        self.counts[f"eras: {self._eras[0]}"] += 1
        wanted = {"old": (THIS_LIBRARY,), "new": (self._newest,)}.get(
            self._eras[0], (THIS_LIBRARY, self._newest)
        )
        for node in self._reachable:
            if node.provider.library in wanted:
                continue
            if self._faults and self.random.random() < 0.3:
                self._kill(node)
            else:
                self._stop_in_order(node)
            self._boot()

    def _roll_back(self) -> None:
        """Roll the library back everywhere, in peace: the old one goes on with all that it knows,
        and leaves the rest alone.
        """
        for node in self._alive:
            self._stop_in_order(node)
        self._eras = ["old", "mixed", "new"]
        if self._boot(FINAL_STAGE) is None:
            assert self.directory.catalogue().levels.lowest_reader > THIS_LIBRARY.level, (
                "an old node cannot start"
            )
        else:
            self._live_on_as_before()
            self._live_together()
        self._eras = ["new"]
        assert self._boot(FINAL_STAGE) is not None, "a node of the newer library cannot start"

    def _live_on_as_before(self) -> None:
        older = self._providers[0].directory  # as an old node reads it
        open_ids = [
            instance.instance_id
            for instance in self.witness.instances.values()
            if instance.status is Status.OPEN
        ]
        before = {
            key: record
            for key in open_ids
            if (record := older.get(key)) is not None and not is_known(record)
        }
        self._is_resting = True
        until = self.time.now + round(3 * self.plan.lease * 1e6) + 5_000_000
        while self.time.now < until:
            self._pass()
        self.counts["left alone by old nodes"] += len(before)
        for key, was in before.items():
            now = older.get(key)
            same = now is not None and (now.row.history_events, now.execution) == (
                was.row.history_events,
                was.execution,
            )
            same = same and now is not None and now.held == was.held
            assert same, (
                f"rule 37: old nodes have gone on with {key}, which they do not know: {was}, {now}"
            )
        for key in open_ids:
            record = older.get(key)
            if (
                record is None
                or record.held
                or not is_known(record)
                or record.status is not Status.OPEN
            ):
                continue
            row = record.row
            policy, _ = policy_of(self._providers[0].directory.catalogue(), row.kind.name)
            if row.kind.floating and isinstance(policy, UnknownPolicy):
                continue
            late = (
                row.owner is None
                and row.wake_at is not None
                and row.wake_at <= self.time.now - _LATE
            )
            assert not late or row.takeovers >= CRASHES_BEFORE_DELAY, (
                f"I12: old nodes do not go on with {row}"
            )
            self.counts["known to old nodes"] += 1
        self._is_resting = False

    def _live_together(self) -> None:
        """Let the newer library come beside the older one: what is opened then can be gone on with
        by both.
        """
        self._eras = ["new"]
        assert self._boot(FINAL_STAGE) is not None, "a node of the newer library cannot start"
        self._is_resting = True
        until = self.time.now + 5_000_000  # all nodes have read the catalogue by then
        while self.time.now < until:
            self._pass()
        self.witness.ages.common_format = max(THIS_LIBRARY.formats)
        until = self.time.now + 10_000_000
        while self.time.now < until:
            self._pass()
        self.witness.ages.common_format = None
        self._is_resting = False
        for node in self._alive:
            self._stop_in_order(node)

    def _poison(self) -> None:
        """The store will not take the writes of some instance, for a reason that does not pass by
        itself.
        """
        open_ids = [
            instance.instance_id
            for instance in self.witness.instances.values()
            if instance.status is Status.OPEN
        ]
        if open_ids:
            self.counts["poisoned"] += 1
            self.witness.poisoned.add(self.random.choice(open_ids))

    def _return(self) -> None:
        """The code of an abandoned turn has returned, and its thread tells the engine."""
        nodes = [node for node in self._reachable if node.late_results]
        if nodes:
            node = self.random.choice(nodes)
            self.counts["returned"] += 1
            node.return_turn(self.random.randrange(len(node.late_results)))

    # --- what links ask ---

    def new_id(self, prefix: str) -> str:
        """Return an id that was not there before, the same in each run of the seed."""
        self._ids[prefix] += 1
        return f"{prefix}-{self._ids[prefix]}"

    def fate_of_commit(self) -> str | None:
        """Draw what becomes of a commit."""
        if self._calm or self.random.random() >= self.plan.fault_rate:
            return None
        fate = self.random.choice(self.plan.commit_faults)
        self.counts[f"commit {fate}"] += 1
        return fate

    def fate_of_call(self) -> str | None:
        """Draw what becomes of another call."""
        if self._calm or self.random.random() >= self.plan.call_fault_rate:
            return None
        fate = self.random.choice(("before", "after"))
        self.counts[f"call lost {fate}"] += 1
        return fate

    def fate_of_trip(self, *, is_read: bool) -> str | None:
        """Draw what becomes of the connection in one round trip of a call; ``None`` where nobody is
        to be in its way.
        """
        if self._calm or self.random.random() >= self.plan.call_fault_rate:
            return None
        fate = self.random.choice(("before", "after" if is_read else "within"))
        self.counts[f"trip lost {fate}"] += 1
        return fate

    @property
    def has_trips(self) -> bool:
        """Return whether anything may happen between the round trips of one call."""
        return not self._alike and not self._calm

    def outage(self) -> StoreError | None:
        """Return what everybody's calls raise now."""
        return self._outage

    @property
    def hears_hints(self) -> bool:
        """Return whether the store's hints reach anybody. Nothing depends on them."""
        return not self._alike and not self.plan.deaf

    @property
    def hears_deaths(self) -> bool:
        """Return whether anybody hears of a death before the lease has run out."""
        return not self._alike

    def refuses(self, change: Change) -> bool:
        """Return whether the store will never take this."""
        return self._is_too_late(change) or (
            isinstance(change, Write)
            and change.hold is None
            and change.instance_id in self.witness.poisoned
            and not self._calm
        )

    def _is_too_late(self, change: Change) -> bool:
        """Return whether nobody asks for this any more: what it starts has ended, and its time has
        run out since.
        """
        return (
            isinstance(change, Start)
            and (change.instance_id, change.incarnation) in self.witness.expired
        )

    def late(self, changes: Sequence[Change]) -> None:
        """Keep a group that is under way."""
        self._late.append(tuple(changes))
        for change in changes:
            if isinstance(change, Append):
                self.clients.doubtful.add(change.message_id)
            elif isinstance(change, Start):
                self.clients.doubtful.add(change.instance_id)

    def _apply_late(self) -> None:
        """Let delayed groups arrive, in any order."""
        while self._late and (self._calm or self.random.random() < 0.1):
            delayed = self._late.pop(self.random.randrange(len(self._late)))
            changes = [change for change in delayed if not self._is_too_late(change)]
            self.directory.catalogue()  # who made the group knew at which level the store is written
            try:
                commit = self._store.commit(changes)
            except StoreBusy:  # somebody is in the middle of a transaction
                self._late.append(delayed)
                return
            self.counts["late groups applied"] += 1
            self.committed(changes, commit)
            still = {
                change.instance_id
                for group in self._late
                for change in group
                if isinstance(change, Start)
            }
            arrived = {change.instance_id for change in delayed if isinstance(change, Start)}
            self.clients.doubtful -= arrived - still

    def committed(self, changes: Sequence[Change], commit: Commit) -> None:
        """Check what was committed."""
        with _aloud():
            self.witness.committed(changes, commit)

    def level_raised(self, levels: Levels) -> None:
        """Check that the level of the store has risen for all."""
        with _aloud():
            living = self.directory.catalogue().nodes
            reads = min((row.record.reads for row in living), default=levels.write)
            assert reads >= levels.write, (
                f"rule 37: the level has risen to {levels}, and a living node reads {reads}"
            )
            self.counts["levels raised"] += 1

    def ownership_changed(self, *, swept: bool = False) -> None:
        """Check what a sweep or a farewell has done."""
        with _aloud():
            self.witness.ownership_changed(swept=swept)

    def expired(self, count: int) -> None:
        """Check what was deleted because its time has run out."""
        with _aloud():
            self.witness.has_expired(count)

    def in_code(self, node: SimulatedNode) -> None:
        """Let the code of a step not return, now and then: the engine goes on without it, on
        another thread.
        """
        if (
            self._calm
            or self._broken is not None
            or self.random.random() >= self.plan.blocked_turns
        ):
            return
        running = node.engine.running_code
        if running is None:
            return  # it is abandoned already
        assert node.engine.abandon(running)
        self.counts["left behind"] += 1
        node.link.busy = False
        self._depth += 1
        try:
            for _ in range(self.random.choice((0, 1, 3)) if self._depth <= _DEPTH else 0):
                self._act_beside()
                if node in self._reachable:
                    self._turn(node)
        except BaseException as error:
            self._broken = error
        finally:
            self._depth -= 1
            node.link.busy = True

    def meanwhile(self, link: Link) -> None:
        """Let others go on while a call is under way; now and then for longer than a lease."""
        if self._calm or self._depth >= _DEPTH or self.random.random() >= self.plan.interleaving:
            return
        self._depth += 1
        was_busy, link.busy = link.busy, True
        try:
            with _aloud():
                if self.random.random() < self.plan.freezing:
                    self.counts["frozen in a call"] += 1
                    self._freeze()
                else:
                    self._act_beside()
        finally:
            self._depth -= 1
            link.busy = was_busy

    def _act_beside(self) -> None:
        action = self.random.random()
        if action < 0.25:
            self.clients.act(self._reachable)
        elif action < 0.35 and "operator" in self.plan.weights:
            self.clients.operate(self._reachable)
        elif action < 0.9:
            self._turn_any()
        elif action < 0.95:
            self._apply_late()
        elif "crash" in self.plan.weights:
            self._crash()

    def _freeze(self) -> None:
        for _ in range(6):
            self.time.skip(self.plan.lease / 4)
            for _ in range(2):
                self._turn_any()
                self._activity()

    # --- peace ---

    def _calm_down(self) -> None:
        """Stop the faults: the store is there, what was under way arrives, and the final code is
        everywhere.
        """
        self._calm = True
        self._outage = None
        self._apply_late()
        self._stage = FINAL_STAGE
        for node in self._alive:
            node.paused_until = 0
            while node.late_results and self.random.random() < 0.7:
                node.return_turn(0)
        self._let_them_find_out()
        for node in self._alive:
            if self._faults and self.random.random() < 0.5:
                self._kill(node)
            else:
                self._stop_in_order(node)
        self._eras = ["new"] if self._has_ages else ["old"]
        self.clients.abandoned()
        for name in self.plan.programs:
            if PROGRAMS[name].versioned:
                self.clients.set_policy(name, Latest())
        self.clients.unpin()
        for _ in range(self.random.choice((1, 2))):
            assert self._boot(FINAL_STAGE) is not None, (
                "a node cannot start although nothing is wrong"
            )

    def _let_them_find_out(self) -> None:
        """Whoever was buried learns of it (rule 11), ghosts are swept (rule 12), the forgotten is
        adopted (rule 13).
        """
        self._is_resting = True
        until = self.time.now + round(2.5 * self.plan.lease * 1e6) + 5_000_000
        while self._alive and self.time.now < until:
            self._pass()
        self._is_resting = False
        living = {row.record.node_id for row in self.directory.catalogue().nodes}
        owned = Counter(instance.owner for instance in self.witness.instances.values())
        for node in self._alive:
            node_id = node.engine.node.node_id
            assert node_id in living, f"rule 12: {node_id} goes on as a ghost"
            blocked = {late.turn.instance.instance_id for late in node.late_results}
            at_least = sum(
                instance.owner == node_id and instance.instance_id not in blocked
                for instance in self.witness.instances.values()
            )
            known = at_least <= node.engine.owned <= owned[node_id]
            assert known, (
                f"rule 13: {node_id} knows of {node.engine.owned} of {owned[node_id]}, {blocked} "
                "being blocked"
            )
            engine_runs = node.engine.running
            assert blocked or engine_runs == len(node.running), (
                f"I5: {engine_runs} activities should run, and {node.running} do"
            )
        ghosts = owned.keys() - living - {None}
        assert not ghosts or not self._alive, f"rule 12: {ghosts} are dead, and own something"

    def _settle(self) -> None:
        """Let all nodes work until none has anything to do now."""
        for _ in range(_CYCLES):
            due = [node for node in self._alive if node.is_due]
            if not due:
                return
            for node in due:
                self._turn(node)
        raise AssertionError("I11: the nodes do not come to rest")

    def _pass(self) -> None:
        """Let time pass until a node has something to do, and nodes do it; activities end."""
        for node in self._alive:
            for key in list(node.running):
                if key in node.running:
                    self._go_on(node, key)
                    if not node.alive:
                        self._boot(FINAL_STAGE)
                        break
        self._settle()
        self.time.skip(min(node.cycle.idle_seconds() for node in self._alive) + 1e-6)
        self._settle()

    def _rest(self) -> None:
        """Let all come to rest in the middle of its life: nobody owns anything, and who is open
        names what it waits for.
        """
        self._is_resting = True
        until = (
            self.time.now + round(2 * self.plan.lease * 1e6) + 5_000_000
        )  # what the dead owned is swept by then
        while self.time.now < until:
            self._pass()
        for node in self._alive:
            self._stop_in_order(node)
        self._is_resting = False
        self.counts["rests"] += 1
        check_store(self._providers[self._first]).raise_if_violated()
        self._boot(FINAL_STAGE)

    def _finish(self) -> None:
        self.counts["slots"] += self.witness.schedules.check(self._newest)
        self._schedulers.end_queues()
        until, next_release = self.time.now + _PATIENCE, self.time.now
        while self.time.now < until:
            self._pass()
            may_release = self.time.now >= next_release
            if may_release:
                next_release = self.time.now + 10_000_000
            open_lives = [
                instance
                for instance in self.witness.instances.values()
                if instance.status is Status.OPEN
            ]
            if not open_lives and self._store.next_tick() is None:
                break
            for instance in open_lives:
                helped = PROGRAMS[instance.name].helped
                if helped == "cancel":
                    if not instance.cancelled:
                        self.clients.cancel(instance.instance_id, ())
                elif helped is not None and all(
                    message.name != helped for message in instance.inbox.values()
                ):
                    self.clients.send(instance.instance_id, helped, ())
                if instance.paused:
                    self.clients.operators.release(instance.instance_id)
                elif (
                    may_release and instance.held and instance.instance_id in self.witness.poisoned
                ):
                    # Nothing but what the store refused needs an operator: all else goes on with
                    # the code that is there now.
                    self.clients.release(instance.instance_id, ())
        stuck = [
            (record.row, record.held)
            for instance in self.witness.instances.values()
            if instance.status is Status.OPEN
            and (record := self.directory.get(instance.instance_id)) is not None
        ]
        assert not stuck, f"I11: {stuck}"
        self._settle()

    def _judge(self) -> None:
        for node in self._alive:
            assert node.engine.owned == 0, "I9: a node owns what has ended"
            assert node.engine.running == len(node.running) == 0, "activities run for nobody"
            assert node.engine.unrecorded == 0, "a report of an activity is kept for ever"
            self._stop_in_order(node)
        self.clients.check()
        self.counts["slots"] += self.witness.schedules.check(self._newest)
        for instance in self.witness.instances.values():
            record = self.directory.get(instance.instance_id)
            assert record is not None, f"I1: {instance.instance_id} is lost"
            self.clients.check_end(record)
        report = check_store(self._providers[self._first], registry_of(FINAL_STAGE))
        report.raise_if_violated()
        assert report.drift == (), f"I10: code that has not changed gives other values: {report}"
        self.counts["histories replayed"] += report.replayed
        self.counts["virtual seconds"] += (self.time.now - self.time.begin) // 1_000_000


class _Busy:
    """Marks a process as being in the middle of something."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __enter__(self) -> None:
        self._link.busy = True

    def __exit__(self, *_: object) -> None:
        self._link.busy = False
