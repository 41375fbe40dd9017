"""A store in plain dictionaries: the shortest statement of what a provider does.

It is slow, keeps nothing, and serves as the reference that real providers are compared with, and as a store for tests of
the engine. All values are immutable; a commit that fails puts the old dictionaries back.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import chain, islice, zip_longest
from typing import Final

from orchestra.clock import Clock, SystemClock, micros
from orchestra.codec import Payload
from orchestra.errors import NodeBuried, StoreError
from orchestra.events import EventRecord
from orchestra.providers.interfaces import Provider
from orchestra.providers.rows import (
    ActivityRow,
    Append,
    Appended,
    AppendRefused,
    Cancel,
    CancelMark,
    Catalogue,
    Change,
    Claim,
    Claimed,
    Commit,
    ExecutionDelta,
    ExecutionRow,
    Granted,
    HeldRow,
    InstanceQuery,
    InstanceRecord,
    InstanceRow,
    Kind,
    MessageRow,
    News,
    NodeRecord,
    NodeRow,
    Outcome,
    Pin,
    PolicyRow,
    Recover,
    Recovered,
    Refusal,
    Refused,
    Release,
    Snapshot,
    Start,
    Started,
    StartExists,
    Status,
    Write,
)

__all__ = ["ManualClock", "ModelProvider", "ModelWorld"]

_CRASHES_BEFORE_DELAY: Final = 3
_LONGEST_DELAY: Final = 300_000_000


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: int = 1_700_000_000_000_000) -> None:
        self._start = now
        self._now = now

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return (self._now - self._start) / 1_000_000

    def advance(self, duration: timedelta) -> None:
        """Move on, or back, as a machine's wall clock may."""
        self._now += micros(duration)


@dataclass(frozen=True, slots=True)
class _Instance:
    """All that belongs to one instance."""

    row: InstanceRow
    request_id: str
    created_at: int
    updated_at: int
    created_by: str
    labels: Mapping[str, str]
    executions: Mapping[int, ExecutionRow]
    status: Status = Status.OPEN
    held: bool = False
    summary: bytes = b""
    custom_status: Payload | None = None
    cancel_sequence: int = 0
    events: Mapping[int, tuple[EventRecord, ...]] = field(default_factory=dict[int, tuple[EventRecord, ...]])
    messages: tuple[MessageRow, ...] = ()
    tombstones: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    activities: Mapping[tuple[int, int], ActivityRow] = field(default_factory=dict[tuple[int, int], ActivityRow])
    unread_at_end: Mapping[str, int] = field(default_factory=dict[str, int])

    def is_claimable(self) -> bool:
        return self.row.owner is None and not self.held and self.status is Status.OPEN and self.row.wake_at is not None

    def snapshot(self) -> Snapshot:
        number = self.row.execution
        activities = tuple(self.activities[key] for key in sorted(self.activities) if key[0] == number)
        return Snapshot(self.row, self.executions[number], self.messages, activities)

    def record(self) -> InstanceRecord:
        return InstanceRecord(
            row=self.row,
            held=self.held,
            status=self.status,
            execution=self.executions[self.row.execution],
            summary=self.summary,
            custom_status=self.custom_status,
            created_at=self.created_at,
            updated_at=self.updated_at,
            created_by=self.created_by,
            unread_messages=len(self.messages),
            unread_at_end=self.unread_at_end,
            labels=self.labels,
            activities=tuple(self.activities[key] for key in sorted(self.activities)),
        )


@dataclass(slots=True)
class ModelWorld:
    """What a file or a server is to a real provider: several providers may share one."""

    instances: dict[str, _Instance] = field(default_factory=dict[str, _Instance])
    nodes: dict[str, NodeRow] = field(default_factory=dict[str, NodeRow])
    policies: dict[str, PolicyRow] = field(default_factory=dict[str, PolicyRow])
    kinds: dict[Kind, None] = field(default_factory=dict[Kind, None])
    running: set[str] = field(default_factory=set[str])
    writes: Counter[int] = field(default_factory=Counter[int])
    now: int = 0
    guard: threading.RLock = field(default_factory=threading.RLock)

    @contextmanager
    def transaction(self, writer: object, clock: Clock) -> Generator[int]:
        """Run the body, all or nothing, at the instant that is given to it."""
        with self.guard:
            before = (dict(self.instances), dict(self.nodes), dict(self.policies), dict(self.kinds))
            self.now = max(self.now, clock.now())
            try:
                yield self.now
            except BaseException:
                self.instances, self.nodes, self.policies, self.kinds = before
                raise
            self.writes[id(writer)] += 1

    def catalogue(self) -> Catalogue:
        with self.guard:
            nodes = tuple(self.nodes[node_id] for node_id in sorted(self.nodes) if not self.nodes[node_id].dead)
            return Catalogue(self.now, nodes, dict(self.policies), tuple(self.kinds))


@dataclass(frozen=True, slots=True)
class _Limits:
    tombstone_window: int
    histories: int
    executions: int


class _Group:
    """One commit in progress."""

    def __init__(self, world: ModelWorld, now: int, limits: _Limits) -> None:
        self._instances = world.instances
        self._kinds = world.kinds
        self._now = now
        self._limits = limits

    def apply(self, changes: Sequence[Change]) -> tuple[Outcome, ...]:
        outcomes: dict[int, Outcome] = {}
        for position in sorted(range(len(changes)), key=lambda position: (_phase(changes[position]), position)):
            outcomes[position] = self._apply_one(changes[position])
        return tuple(outcomes[position] for position in range(len(changes)))

    def _apply_one(self, change: Change) -> Outcome:
        match change:
            case Write():
                return self._write(change)
            case Recover():
                return self._recover(change)
            case Start():
                return self._start(change)
            case Append():
                return self._append(change)
            case Cancel():
                return self._cancel(change)
            case Release():
                return self._release(change)
            case Claim():
                return self._claim(change)

    def _write(self, write: Write) -> Granted | Refused:
        self._kinds.setdefault(write.state.kind)
        instance = self._instances.get(write.instance_id)
        if instance is None or instance.status is not Status.OPEN:
            return Refused()
        row, state = instance.row, write.state
        if (row.incarnation, row.revision) != (write.incarnation, write.revision) or write.owner not in (None, row.owner):
            return Refused()
        for delta in write.executions:
            instance = self._apply_delta(instance, delta)
        instance = self._consume(instance, write.consumed)
        is_open = state.status is Status.OPEN
        is_ready = row.inbox_seq > state.seen_seq
        row = replace(
            row,
            revision=row.revision + 1,
            kind=state.kind,
            owner=state.owner if is_open else None,
            wake_at=None if not is_open else 0 if is_ready else state.wake_at,
            seen_seq=state.seen_seq,
            execution=state.execution,
            opened=state.opened,
            takeovers=state.takeovers,
            history_events=state.history_events,
            history_bytes=state.history_bytes,
            hold=write.hold or row.hold,
        )
        activities = dict(instance.activities)
        for event_id in write.settled:
            activities.pop((state.execution, event_id), None)
        for activity in write.activities:
            activities[activity.execution, activity.event_id] = activity
        instance = replace(
            instance,
            row=row,
            status=state.status,
            held=is_open and write.hold is not None,
            summary=state.summary,
            custom_status=write.custom_status or instance.custom_status,
            activities=activities if is_open else instance.activities,
            updated_at=self._now,
        )
        if not is_open:
            unread = Counter(message.name for message in instance.messages)
            instance = replace(instance, messages=(), unread_at_end=dict(unread))
        self._instances[write.instance_id] = instance
        return Granted(row.inbox_seq)

    def _apply_delta(self, instance: _Instance, delta: ExecutionDelta) -> _Instance:
        number = delta.number
        executions, events, activities = dict(instance.executions), dict(instance.events), instance.activities
        if delta.create is not None:
            _require(number not in executions, "an execution was made twice")
            executions[number] = delta.create
            self._retain(executions, events, number)
        _require(number in executions, "an execution is not there")
        if delta.opened is not None:
            _require(executions[number].opened_at is None, "an execution was opened twice")
            at, version, fingerprint, event_format, resolution = delta.opened
            executions[number] = replace(
                executions[number],
                opened_at=at,
                version=version,
                fingerprint=fingerprint,
                format=event_format,
                resolution=resolution,
            )
        if delta.events:
            history = (*events.get(number, ()), *delta.events)
            _require(len({event.id for event in history}) == len(history), "an event was written twice")
            events[number] = history
        if delta.closed is not None:
            _require(executions[number].closed_at is None, "an execution was closed twice")
            at, end, output, error = delta.closed
            executions[number] = replace(
                executions[number],
                closed_at=at,
                end=end,
                output=output,
                error=error,
                events=delta.event_count,
                bytes=delta.byte_count,
            )
            activities = {}
        return replace(instance, executions=executions, events=events, activities=activities)

    def _retain(self, executions: dict[int, ExecutionRow], events: dict[int, tuple[EventRecord, ...]], number: int) -> None:
        for kept, items in ((self._limits.histories, events), (self._limits.executions, executions)):
            if number > kept and number % kept == 0:
                for old in [old for old in items if old <= number - kept]:
                    del items[old]

    def _consume(self, instance: _Instance, consumed: Sequence[int]) -> _Instance:
        removed = [message for message in instance.messages if message.sequence in consumed]
        _require(len(removed) == len(consumed), "a message was consumed that is not there")
        buried = {message.message_id: (message.sequence, self._now) for message in removed}
        rest = tuple(message for message in instance.messages if message.sequence not in consumed)
        return replace(instance, messages=rest, tombstones={**instance.tombstones, **buried})

    def _recover(self, recover: Recover) -> Recovered:
        instance = self._instances.get(recover.instance_id)
        if instance is None or instance.row.owner != recover.node:
            return Recovered(None)
        instance = replace(instance, row=replace(instance.row, revision=instance.row.revision + 1))
        self._instances[recover.instance_id] = instance
        return Recovered(instance.snapshot())

    def _start(self, start: Start) -> Started | StartExists:
        self._kinds.setdefault(start.kind)
        standing = self._instances.get(start.instance_id)
        if standing is not None:
            return StartExists(same=standing.request_id == start.request_id)
        row = InstanceRow(
            instance_id=start.instance_id,
            incarnation=start.incarnation,
            kind=start.kind,
            revision=1,
            owner=None,
            wake_at=start.wake_at,
            inbox_seq=0,
            seen_seq=0,
            execution=start.execution.number,
            opened=start.execution.opened_at is not None,
            takeovers=0,
            history_events=0,
            history_bytes=0,
        )
        self._instances[start.instance_id] = _Instance(
            row=row,
            request_id=start.request_id,
            created_at=self._now,
            updated_at=self._now,
            created_by=start.created_by,
            labels=dict(start.labels),
            executions={start.execution.number: start.execution},
        )
        return Started()

    def _append(self, append: Append) -> Appended | AppendRefused:
        instance = self._instances.get(append.instance_id)
        if instance is None:
            return AppendRefused(Refusal.NOT_FOUND)
        for message in instance.messages:
            if message.message_id == append.message_id:
                return Appended(message.sequence, instance.row.owner, fresh=False, message=message)
        sequence, removed_at = instance.tombstones.get(append.message_id, (0, 0))
        if sequence and removed_at > self._now - self._limits.tombstone_window:
            return Appended(sequence, instance.row.owner, fresh=False)
        if instance.status is not Status.OPEN:
            return AppendRefused(Refusal.CLOSED)
        if len(instance.messages) >= append.limit:
            return AppendRefused(Refusal.FULL)
        row = self._ring(instance.row)
        message = MessageRow(row.inbox_seq, append.message_id, append.name, append.payload, self._now)
        self._instances[append.instance_id] = replace(
            instance, row=row, messages=(*instance.messages, message), updated_at=self._now
        )
        return Appended(message.sequence, row.owner, fresh=True, message=message)

    def _cancel(self, cancel: Cancel) -> Appended | AppendRefused:
        instance = self._instances.get(cancel.instance_id)
        if instance is None:
            return AppendRefused(Refusal.NOT_FOUND)
        if instance.status is not Status.OPEN:
            return AppendRefused(Refusal.CLOSED)
        if instance.row.cancel is not None:
            return Appended(instance.cancel_sequence, instance.row.owner, fresh=False, cancel=instance.row.cancel)
        mark = CancelMark(self._now, cancel.reason, cancel.by)
        row = replace(self._ring(instance.row), cancel=mark)
        self._instances[cancel.instance_id] = replace(instance, row=row, cancel_sequence=row.inbox_seq, updated_at=self._now)
        return Appended(row.inbox_seq, row.owner, fresh=True, cancel=mark)

    def _ring(self, row: InstanceRow) -> InstanceRow:
        wake_at = 0
        if row.takeovers >= _CRASHES_BEFORE_DELAY and row.owner is None and row.wake_at is not None and row.wake_at > self._now:
            wake_at = min(row.wake_at, self._now + _LONGEST_DELAY)
        return replace(row, inbox_seq=row.inbox_seq + 1, wake_at=wake_at)

    def _release(self, release: Release) -> Granted | Refused:
        instance = self._instances.get(release.instance_id)
        if instance is None or not instance.held:
            return Refused()
        row = instance.row
        if (row.incarnation, row.revision) != (release.incarnation, release.revision):
            return Refused()
        row = replace(row, revision=row.revision + 1, wake_at=0)
        self._instances[release.instance_id] = replace(instance, row=row, held=False, updated_at=self._now)
        return Granted(row.inbox_seq)

    def _claim(self, claim: Claim) -> Claimed:
        ready = [self._ready(kind) for kind in dict.fromkeys(claim.kinds)]
        in_turn = (instance for instance in chain.from_iterable(zip_longest(*ready)) if instance is not None)
        claimed: list[Snapshot] = []
        for instance in islice(in_turn, claim.limit):
            row = replace(instance.row, owner=claim.node, revision=instance.row.revision + 1)
            taken = replace(instance, row=row)
            self._instances[row.instance_id] = taken
            claimed.append(taken.snapshot())
        return Claimed(tuple(claimed), more=len(claimed) == claim.limit)

    def _ready(self, kind: Kind) -> list[_Instance]:
        due = [
            (instance.row.wake_at or 0, instance.row.instance_id, instance)
            for instance in self._instances.values()
            if instance.row.kind == kind and instance.is_claimable() and (instance.row.wake_at or 0) <= self._now
        ]
        return [instance for _, _, instance in sorted(due, key=lambda item: item[:2])]


def _phase(change: Change) -> int:
    match change:
        case Write() | Recover():
            return 0
        case Claim():
            return 2
        case _:
            return 1


def _require(condition: bool, failure: str) -> None:  # noqa: FBT001
    if not condition:
        raise StoreError(f"a write does not fit what is stored: {failure}")


class ModelStore:
    """Implements :class:`~orchestra.providers.interfaces.Store`."""

    def __init__(self, world: ModelWorld, clock: Clock, limits: _Limits) -> None:
        self._world = world
        self._clock = clock
        self._limits = limits
        self._joined: dict[str, NodeRecord] = {}
        self._foreign_writes = 0

    def close(self) -> None:
        """Let the nodes that were joined here look dead, as those of a process that has ended."""
        self._world.running.difference_update(self._joined)
        self._joined.clear()

    def commit(self, changes: Sequence[Change]) -> Commit:
        with self._world.transaction(self, self._clock) as now:
            return Commit(now, _Group(self._world, now, self._limits).apply(changes))

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        instance = self._world.instances.get(instance_id)
        return [] if instance is None else sorted(instance.events.get(execution, ()), key=lambda event: event.id)

    def news(self, node_id: str) -> list[News]:
        return [
            News(
                instance_id,
                instance.row.incarnation,
                instance.row.inbox_seq,
                instance.row.cancel,
                tuple(message for message in instance.messages if message.sequence > instance.row.seen_seq),
            )
            for instance_id, instance in sorted(self._world.instances.items())
            if instance.row.owner == node_id and instance.row.inbox_seq > instance.row.seen_seq
        ]

    def next_wake(self, kinds: Sequence[Kind]) -> int | None:
        rows = [instance.row for instance in self._world.instances.values() if instance.is_claimable()]
        return min((row.wake_at for row in rows if row.wake_at is not None and row.kind in kinds), default=None)

    def changed(self) -> bool:
        foreign = self._world.writes.total() - self._world.writes[id(self)]
        changed, self._foreign_writes = foreign != self._foreign_writes, foreign
        return changed

    def catalogue(self) -> Catalogue:
        return self._world.catalogue()

    def join(self, node: NodeRecord) -> int:
        with self._world.transaction(self, self._clock) as now:
            _require(node.node_id not in self._world.nodes, "a node joined twice")
            self._world.nodes[node.node_id] = NodeRow(node, now, now, 0, dead=False)
            self._world.running.add(node.node_id)
            self._joined[node.node_id] = node
            return now

    def renew(self, node_id: str) -> int:
        with self._world.transaction(self, self._clock) as now:
            node = self._world.nodes.get(node_id)
            if node is None or node.dead:
                raise NodeBuried(f"node {node_id} was declared dead, or has left")
            self._world.nodes[node_id] = replace(node, renewals=node.renewals + 1, renewed_at=now)
            return now

    def leave(self, node_id: str) -> None:
        with self._world.transaction(self, self._clock):
            for instance_id in self.owned(node_id):
                instance = self._world.instances[instance_id]
                row = replace(instance.row, owner=None, wake_at=0, revision=instance.row.revision + 1)
                self._world.instances[instance_id] = replace(instance, row=row)
            self._world.nodes.pop(node_id, None)
            self._world.running.discard(node_id)
            self._joined.pop(node_id, None)

    def vanished(self) -> list[str]:
        places = {(node.host, node.boot_id) for node in self._joined.values()}
        return [
            node_id
            for node_id, node in sorted(self._world.nodes.items())
            if not node.dead and node_id not in self._world.running and (node.record.host, node.record.boot_id) in places
        ]

    def bury(self, node_id: str, renewals: int) -> bool:
        with self._world.transaction(self, self._clock):
            node = self._world.nodes.get(node_id)
            if node is None or node.dead or node.renewals != renewals:
                return False
            self._world.nodes[node_id] = replace(node, dead=True)
            return True

    def sweep(self, limit: int = 256) -> int:
        with self._world.transaction(self, self._clock) as now:
            living = {node_id for node_id, node in self._world.nodes.items() if not node.dead}
            ghosts = [
                instance
                for instance in self._world.instances.values()
                if instance.row.owner is not None and instance.row.owner not in living
            ][:limit]
            for instance in ghosts:
                takeovers = instance.row.takeovers + 1
                delay = min(2**takeovers * 1_000_000, _LONGEST_DELAY)
                row = replace(
                    instance.row,
                    owner=None,
                    revision=instance.row.revision + 1,
                    takeovers=takeovers,
                    wake_at=0 if takeovers < _CRASHES_BEFORE_DELAY else now + delay,
                )
                self._world.instances[row.instance_id] = replace(instance, row=row)
            return len(ghosts)

    def owned(self, node_id: str) -> list[str]:
        return sorted(key for key, instance in self._world.instances.items() if instance.row.owner == node_id)

    def held(self, names: Sequence[str]) -> list[HeldRow]:
        return [
            HeldRow(row.instance_id, row.incarnation, row.revision, row.kind, row.hold)
            for _, instance in sorted(self._world.instances.items())
            if instance.held and (row := instance.row).hold is not None and row.kind.name in names
        ]


class ModelDirectory:
    """Implements :class:`~orchestra.providers.interfaces.Directory`."""

    def __init__(self, world: ModelWorld, store: ModelStore) -> None:
        self._world = world
        self._store = store

    def get(self, instance_id: str) -> InstanceRecord | None:
        instance = self._world.instances.get(instance_id)
        return None if instance is None else instance.record()

    def list(self, query: InstanceQuery) -> list[InstanceRecord]:
        records = [replace(instance.record(), activities=()) for instance in list(self._world.instances.values())]
        matching = [record for record in records if _matches(record, query)]
        matching.sort(key=lambda record: (record.created_at, record.row.instance_id), reverse=True)
        return matching[: query.limit]

    def executions(self, instance_id: str, after: int = 0, limit: int = 1000) -> list[ExecutionRow]:
        instance = self._world.instances.get(instance_id)
        if instance is None:
            return []
        return [instance.executions[number] for number in sorted(instance.executions) if number > after][:limit]

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        return self._store.history(instance_id, execution)

    def catalogue(self) -> Catalogue:
        return self._world.catalogue()


def _matches(record: InstanceRecord, query: InstanceQuery) -> bool:
    row = record.row
    is_open = record.status is Status.OPEN
    stands_still = is_open and (record.held or row.takeovers >= _CRASHES_BEFORE_DELAY or row.kind in query.unserved)
    return (
        (query.name is None or row.kind.name == query.name)
        and (query.version is None or row.kind.version == query.version)
        and (query.statuses is None or record.status in query.statuses)
        and (query.held is None or query.held == stands_still)
        and (query.id_prefix is None or row.instance_id.startswith(query.id_prefix))
        and (query.created_from is None or record.created_at >= query.created_from)
        and (query.created_until is None or record.created_at < query.created_until)
        and all(record.labels.get(key) == value for key, value in query.labels.items())
        and (query.after is None or (record.created_at, row.instance_id) < query.after)
    )


class ModelAdmin:
    """Implements :class:`~orchestra.providers.interfaces.Admin`."""

    def __init__(self, world: ModelWorld, store: ModelStore, clock: Clock) -> None:
        self._world = world
        self._store = store
        self._clock = clock

    def set_policy(self, name: str, value: str, *, by: str, reason: str, only_first: bool = False) -> bool:
        with self._world.transaction(self._store, self._clock) as now:
            standing = self._world.policies.get(name)
            if standing is not None and only_first:
                return False
            revision = 1 if standing is None else standing.revision + 1
            self._world.policies[name] = PolicyRow(name, revision, value, by, reason, now)
            return True

    def set_pin(self, instance_id: str, pin: Pin | None) -> bool:
        with self._world.transaction(self._store, self._clock) as now:
            instance = self._world.instances.get(instance_id)
            if instance is None or instance.status is not Status.OPEN:
                return False
            row = instance.row
            wake_at = row.wake_at if row.owner is None else 0
            row = replace(row, pin=pin, revision=row.revision + 1, owner=None, wake_at=wake_at)
            self._world.instances[instance_id] = replace(instance, row=row, updated_at=now)
            return True

    def delete(self, instance_id: str, incarnation: str) -> bool:
        with self._world.transaction(self._store, self._clock):
            instance = self._world.instances.get(instance_id)
            if instance is None or instance.status is Status.OPEN or instance.row.incarnation != incarnation:
                return False
            del self._world.instances[instance_id]
            return True


class ModelProvider(Provider):
    """A provider that keeps everything in a :class:`ModelWorld`; several may share one, as processes share a file."""

    def __init__(
        self,
        world: ModelWorld | None = None,
        *,
        clock: Clock | None = None,
        tombstones: timedelta = timedelta(hours=1),
        histories: int = 10,
        executions: int = 1000,
    ) -> None:
        self.world = world = world or ModelWorld()
        clock = clock or SystemClock()
        self._store = ModelStore(world, clock, _Limits(micros(tombstones), histories, executions))
        self._openings = 0
        self.store = self._store
        self.directory = ModelDirectory(world, self._store)
        self.admin = ModelAdmin(world, self._store, clock)

    @property
    def description(self) -> str:
        """What it is and where."""
        return "model store in memory"

    def open(self) -> None:
        """Do nothing but count."""
        self._openings += 1

    def close(self) -> None:
        """Let the nodes that were joined through this provider look dead, once it is closed as often as opened."""
        self._openings = max(self._openings - 1, 0)
        if self._openings == 0:
            self._store.close()
