"""The store of the model: commits, news, wake-ups and nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from orchestra.clock import Clock
from orchestra.errors import NodeBuried
from orchestra.events import EventRecord
from orchestra.levels import Levels
from orchestra.store.catalogue import Catalogue, NodeRecord, NodeRow, Renewal
from orchestra.store.changes import Change
from orchestra.store.hints import StreamHints
from orchestra.store.instances import (
    CRASHES_BEFORE_DELAY,
    HELD_PER_PAGE,
    LONGEST_DELAY,
    HeldPage,
    HeldRow,
    Hold,
    InstanceRow,
)
from orchestra.store.kinds import Dialect, HoldKind
from orchestra.store.messages import InboxPage, QueueName, Unread
from orchestra.store.outcomes import Commit
from orchestra.store.routes import Kind, Route
from orchestra.store.schedules import DueSchedule
from orchestra.store.snapshots import News
from orchestra.store.tasks import Task
from tests.support.model import schedules
from tests.support.model.ages import read_hold, read_message
from tests.support.model.group import Group, Limits, goes, require
from tests.support.model.tasks import lose, release, taken_by, waiting
from tests.support.model.world import ModelWorld, page_of


class ModelStore:
    """Implements :class:`~orchestra.store.port.Store`."""

    def __init__(
        self,
        world: ModelWorld,
        clock: Clock,
        limits: Limits,
        dialect: Dialect,
        hints: StreamHints,
    ) -> None:
        self._world = world
        self._hints = hints
        self._dialect = dialect
        self._clock = clock
        self._limits = limits
        self._joined: dict[str, NodeRecord] = {}
        self._seen = (0, 0)
        self._stirred = 0
        self._ring: Callable[[], None] | None = None

    def close(self) -> None:
        """Let the nodes that were joined here look dead, as those of a process that has ended."""
        self._world.running.difference_update(self._joined)
        self._joined.clear()

    def commit(self, changes: Sequence[Change]) -> Commit:
        with self._world.transaction(self, self._clock) as now:
            group = Group(self._world, now, self._limits, self._dialect)
            commit = Commit(now, group.apply(changes))
        self._hints.committed(changes)
        return commit

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        instance = self._world.instances.get(instance_id)
        return (
            []
            if instance is None
            else sorted(instance.events.get(execution, ()), key=lambda event: event.id)
        )

    def news(self, node_id: str, page: InboxPage = InboxPage()) -> list[News]:  # noqa: B008 - it is immutable
        found: list[News] = []
        for instance_id, instance in sorted(self._world.instances.items()):
            row = instance.row
            if row.owner != node_id or row.inbox_seq <= row.seen_seq:
                continue
            new = [message for message in instance.messages if message.sequence > row.seen_seq]
            unread, whole_to = page_of(new, row.inbox_seq, page)
            messages = tuple(read_message(message, self._dialect) for message in unread)
            ended = tuple(
                activity
                for activity in instance.snapshot(self._dialect).activities
                if activity.has_ended
            )
            found.append(
                News(
                    instance_id,
                    row.incarnation,
                    row.inbox_seq,
                    row.cancel,
                    messages,
                    ended,
                    whole_to,
                )
            )
        return found

    def unread(
        self,
        instance_id: str,
        after: Mapping[QueueName, int],
        up_to: int,
        page: InboxPage = InboxPage(),  # noqa: B008 - it is immutable
    ) -> dict[QueueName, Unread]:
        instance = self._world.instances.get(instance_id)
        events = (
            []
            if instance is None
            else [read_message(message, self._dialect) for message in instance.sent]
        )
        share = page.share(len(after))
        return {
            name: Unread(
                *page_of(
                    [
                        read_message(message, self._dialect)
                        for message in events
                        if message.queue == name and number < message.sequence <= up_to
                    ],
                    up_to,
                    share,
                    at_least=1,
                )
            )
            for name, number in after.items()
        }

    def next_wake(self, kinds: Sequence[Kind], routes: Sequence[Route] = ()) -> int | None:
        rows = [
            instance.row for instance in self._world.instances.values() if instance.is_claimable()
        ]
        due = [row.wake_at for row in rows if row.wake_at is not None and row.kind in kinds]
        return min(
            [
                *due,
                *(
                    activity.started_at
                    for route in routes
                    for _, activity in waiting(self._world, route)
                ),
            ],
            default=None,
        )

    def next_tick(self, after: int = -1) -> int | None:
        rows = self._world.schedules.values()
        found = [row.next_at for row in rows if row.next_at is not None and row.next_at > after]
        return min(found, default=None)

    def due_schedules(
        self, now: int, limit: int, after: tuple[int, str] | None = None
    ) -> list[DueSchedule]:
        return schedules.due(self._world, self._dialect, now, limit, after)

    def changed(self) -> bool:
        seen = self._stirred, self._world.writes.total() - self._world.writes[id(self)]
        changed, self._seen = seen != self._seen, seen
        return changed

    def on_change(self, ring: Callable[[], None] | None) -> None:
        self._ring = ring

    def stir(self) -> None:
        self._stirred += 1
        if self._ring is not None:
            self._ring()

    def catalogue(self) -> Catalogue:
        return self._world.catalogue(self._clock, self._dialect)

    def join(self, node: NodeRecord) -> int:
        with self._world.transaction(self, self._clock) as now:
            require(node.node_id not in self._world.nodes, "a node joined twice")
            self._dialect.library.require(
                self._dialect.heard(self._world.levels), "the model store"
            )
            self._world.nodes[node.node_id] = NodeRow(node, now, now, 0, dead=False)
            self._world.see(node, now)
            self._world.running.add(node.node_id)
            self._joined[node.node_id] = node
            return now

    def renew(self, node_id: str, load: int = 0) -> Renewal:
        with self._world.transaction(self, self._clock) as now:
            node = self._world.nodes.get(node_id)
            if node is None or node.dead:
                raise NodeBuried(f"node {node_id} was declared dead, or has left")
            self._world.nodes[node_id] = replace(
                node, renewals=node.renewals + 1, renewed_at=now, load=load
            )
            return Renewal(now, self._dialect.heard(self._world.levels))

    def raise_level(self, levels: Levels) -> Levels:
        with self._world.transaction(self, self._clock):
            older = [
                node
                for node in self._world.nodes.values()
                if not node.dead and node.record.reads < levels.write
            ]
            if levels.write > self._world.levels.write and not older:
                lowest = max(levels.lowest_reader, self._world.levels.lowest_reader)
                self._world.levels = Levels(levels.write, lowest)
            return self._dialect.heard(self._world.levels)

    def leave(self, node_id: str) -> None:
        with self._world.transaction(self, self._clock) as now:
            for instance_id in self.owned(node_id):
                instance = self._world.instances[instance_id]
                row = replace(
                    instance.row, owner=None, wake_at=0, revision=instance.row.revision + 1
                )
                self._world.instances[instance_id] = replace(instance, row=row)
            release(self._world, now, node_id)
            node = self._world.nodes.pop(node_id, None)
            if node is not None and not node.dead:
                self._world.see(node.record, now)
            self._world.running.discard(node_id)
            self._joined.pop(node_id, None)

    def vanished(self) -> list[str]:
        places = {(node.host, node.boot_id) for node in self._joined.values()}
        return [
            node_id
            for node_id, node in sorted(self._world.nodes.items())
            if not node.dead
            and node_id not in self._world.running
            and (node.record.host, node.record.boot_id) in places
        ]

    def bury(self, node_id: str, renewals: int) -> bool:
        with self._world.transaction(self, self._clock) as now:
            node = self._world.nodes.get(node_id)
            if node is None or node.dead or node.renewals != renewals:
                return False
            self._world.see(node.record, now)
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
                delay = min(2**takeovers * 1_000_000, LONGEST_DELAY)
                row = replace(
                    instance.row,
                    owner=None,
                    revision=instance.row.revision + 1,
                    takeovers=takeovers,
                    wake_at=0 if takeovers < CRASHES_BEFORE_DELAY else now + delay,
                )
                self._world.instances[row.instance_id] = replace(instance, row=row)
            return len(ghosts) + lose(self._world, now, living, limit)

    def expire(self, limit: int = 64) -> int:
        def expired(now: int) -> list[str]:
            ends = {
                instance_id: instance.expires_at
                for instance_id, instance in self._world.instances.items()
            }
            due = sorted(
                (at, instance_id)
                for instance_id, at in ends.items()
                if at is not None and at <= now
            )
            return [instance_id for _, instance_id in due]

        if not expired(self._world.time(self._clock)):
            return 0  # who finds nothing writes nothing
        with self._world.transaction(self, self._clock) as now:
            gone = expired(now)[:limit]
            for instance_id in gone:
                if not self._leaves_more(instance_id):
                    del self._world.instances[instance_id]
            return len(gone)

    def _leaves_more(self, instance_id: str) -> bool:
        """Let the ended children of what goes with its lap go as well. Return whether there are too
        many.
        """
        instances = self._world.instances
        parent = instances[instance_id]
        if parent.expires_at != 1:
            return False
        ended = sorted(
            key
            for key, child in instances.items()
            if (link := child.row.parent) is not None
            and (link.instance_id, link.incarnation) == (instance_id, parent.row.incarnation)
            and goes(child)
        )
        for key in ended[:1_000]:
            instances[key] = replace(instances[key], expires_at=1)
        return len(ended) >= 1_000

    def rouse(
        self, since: int, until: int, instance_ids: Sequence[str] = (), limit: int = 256
    ) -> int:
        with self._world.transaction(self, self._clock) as now:
            roused = 0
            for instance_id, instance in sorted(self._world.instances.items()):
                row = instance.row
                written = instance.updated_at
                ahead = instance_id in instance_ids or written > now or since <= written < until
                if (
                    not (instance.is_claimable() and (row.wake_at or 0) > now and ahead)
                    or roused == limit
                ):
                    continue
                roused += 1
                wake_at = (
                    min(row.wake_at or 0, now + LONGEST_DELAY)
                    if row.takeovers >= CRASHES_BEFORE_DELAY
                    else 0
                )
                self._world.instances[instance_id] = replace(
                    instance, row=replace(row, wake_at=wake_at), updated_at=now
                )
            return roused

    def owned(self, node_id: str) -> list[str]:
        return sorted(
            key for key, instance in self._world.instances.items() if instance.row.owner == node_id
        )

    def taken(self, node_id: str) -> list[Task]:
        return taken_by(self._world, node_id)

    def held(
        self,
        names: Sequence[str],
        after: tuple[int, str] | None = None,
        limit: int = HELD_PER_PAGE,
    ) -> HeldPage:
        waiting = sorted(
            (instance.created_at, instance_id)
            for instance_id, instance in self._world.instances.items()
            if instance.held
        )
        page = [place for place in waiting if after is None or place > after][:limit]
        rows = [self._world.instances[instance_id].row for _, instance_id in page]
        found = tuple(
            HeldRow(row.instance_id, row.incarnation, row.revision, row.kind, hold)
            for row in rows
            if row.kind.name in names and (hold := _in_force(row, self._dialect)) is not None
        )
        return HeldPage(found, page[-1] if len(page) == limit else None)

    def overdue(self, names: Sequence[str], at: int) -> dict[str, int]:
        found = Counter[str]()
        for instance in self._world.instances.values():
            due = instance.row.boundary_due
            if due is not None and due <= at and instance.row.kind.name in names:
                found[instance.row.kind.name] += 1
        return dict(found)


def _in_force(row: InstanceRow, dialect: Dialect) -> Hold | None:
    standing = row.operator_hold
    if row.paused and standing is not None:
        return Hold(HoldKind.OPERATOR, standing.reason, standing.since, standing.by)
    return read_hold(row.hold, dialect)
