"""The engine's view of the store, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from orchestra.clock import Clock
from orchestra.events import EventRecord
from orchestra.levels import Levels
from orchestra.providers.memory.database import Database, require
from orchestra.providers.memory.group import apply
from orchestra.providers.memory.inbox import page_of, read_unread
from orchestra.providers.memory.schedules import find_due
from orchestra.store.catalogue import Catalogue, NodeRecord, NodeRow, Renewal
from orchestra.store.changes import Change
from orchestra.store.executions import MARKED_AT_ONCE
from orchestra.store.facts import ActivityId
from orchestra.store.hot_row import HotRow
from orchestra.store.instances import (
    BEFORE_ALL_HELD,
    CRASHES_BEFORE_DELAY,
    HELD_PER_PAGE,
    LONGEST_DELAY,
    HeldPage,
    HeldRow,
    hold_in_force,
)
from orchestra.store.kinds import Dialect
from orchestra.store.messages import InboxPage, QueueName, Unread
from orchestra.store.outcomes import Commit
from orchestra.store.routes import Kind, Route
from orchestra.store.schedules import DueSchedule
from orchestra.store.snapshots import News
from orchestra.store.tables import ACTIVITY, ACTIVITY_FENCE, Columns
from orchestra.store.tasks import LOST, Task

__all__ = ["MemoryStore"]

_END = Columns((*ACTIVITY.only("owner", "failure"), *ACTIVITY_FENCE))


class MemoryStore:
    """Implements :class:`~orchestra.store.port.Store`; the promises are written there."""

    def __init__(
        self, database: Database, clock: Clock, tombstone_window: int, dialect: Dialect
    ) -> None:
        self._database = database
        self._dialect = dialect
        self._clock = clock
        self._tombstone_window = tombstone_window
        self._joined: dict[str, NodeRecord] = {}
        self._seen = (0, 0)
        self._stirred = 0
        self._ring: Callable[[], None] | None = None

    def close(self) -> None:
        """Let the nodes that joined here look dead, as the end of their process does."""
        self._database.running.difference_update(self._joined)
        self._joined.clear()

    def commit(self, changes: Sequence[Change]) -> Commit:
        with self._database.transaction(self, self._clock) as now:
            commit = Commit(
                now, apply(self._database, changes, now, self._tombstone_window, self._dialect)
            )
        self._database.stream_hints.committed(changes)
        return commit

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        with self._database.guard:
            return self._database.history(instance_id, execution)

    def news(self, node_id: str, page: InboxPage = InboxPage()) -> list[News]:  # noqa: B008 - it is immutable
        with self._database.guard:
            rows = [
                self._database.hot_row(instance_id) for instance_id in self._database.owned(node_id)
            ]
            return [
                self._news_of(row, page)
                for row in rows
                if row is not None and row.inbox_seq > row.seen_seq
            ]

    def _news_of(self, row: HotRow, page: InboxPage) -> News:
        new = self._database.messages_of(row.instance_id, self._dialect, after=row.seen_seq)
        activities = self._database.activities_of(row.instance_id)
        ended = tuple(one for one in activities if one.has_ended and one.execution == row.execution)
        unread = page_of(new, row.inbox_seq, page)
        head = (row.instance_id, row.incarnation, row.inbox_seq, row.cancel)
        return News(*head, unread.messages, ended, unread.whole_to)

    def unread(
        self,
        instance_id: str,
        after: Mapping[QueueName, int],
        up_to: int,
        page: InboxPage = InboxPage(),  # noqa: B008 - it is immutable
    ) -> dict[QueueName, Unread]:
        with self._database.guard:
            return read_unread(self._database, self._dialect, instance_id, after, up_to, page)

    def next_wake(self, kinds: Sequence[Kind], routes: Sequence[Route] = ()) -> int | None:
        with self._database.guard:
            queues = (
                [self._database.ready(kind) for kind in kinds],
                [self._database.waiting(route) for route in routes],
            )
            firsts = [queue.first() for some in queues for queue in some]
        return min((first[0][0] for first in firsts if first is not None), default=None)

    def next_tick(self, after: int = -1) -> int | None:
        with self._database.guard:
            first = self._database.due_schedules.after(after)
        return None if first is None else first[0]

    def due_schedules(
        self, now: int, limit: int, after: tuple[int, str] | None = None
    ) -> list[DueSchedule]:
        with self._database.guard:
            return find_due(self._database, self._dialect, now, limit, after)

    def changed(self) -> bool:
        seen = self._stirred, self._database.writes.total() - self._database.writes[id(self)]
        changed, self._seen = seen != self._seen, seen
        return changed

    def on_change(self, ring: Callable[[], None] | None) -> None:
        self._ring = ring

    def stir(self) -> None:
        self._stirred += 1
        if (ring := self._ring) is not None:
            ring()

    def catalogue(self) -> Catalogue:
        with self._database.guard:
            return self._database.catalogue(self._clock, self._dialect)

    # --- nodes ----------------------------------------------------------------------------

    def join(self, node: NodeRecord) -> int:
        with self._database.transaction(self, self._clock) as now:
            require(node.node_id not in self._database.nodes, "a node joined twice")
            self._dialect.library.require(
                self._dialect.heard(self._database.levels), "the store in memory"
            )
            self._database.set(
                self._database.nodes, node.node_id, NodeRow(node, now, now, 0, dead=False)
            )
            self._database.see_code(node, now)
        self._database.running.add(node.node_id)
        self._joined[node.node_id] = node
        return now

    def renew(self, node_id: str, load: int = 0) -> Renewal:
        with self._database.transaction(self, self._clock) as now:
            node = self._database.living(node_id)
            renewed = replace(node, renewals=node.renewals + 1, renewed_at=now, load=load)
            self._database.set(self._database.nodes, node_id, renewed)
        return Renewal(now, self._dialect.heard(self._database.levels))

    def raise_level(self, levels: Levels) -> Levels:
        with self._database.transaction(self, self._clock):
            standing, nodes = self._database.levels, self._database.nodes.values()
            if levels.write > standing.write and all(
                node.dead or node.record.reads >= levels.write for node in nodes
            ):
                self._database.raise_levels(
                    Levels(levels.write, max(levels.lowest_reader, standing.lowest_reader))
                )
        return self._dialect.heard(self._database.levels)

    def leave(self, node_id: str) -> None:
        with self._database.transaction(self, self._clock) as now:
            for row in self._rows(self._database.owned(node_id)):
                row.disown(0)
                self._database.store_row(row)
            for task in self._database.taken(node_id):
                if task.stopping:
                    self._lose(task, now)
                else:
                    self._give_back(task, None)
            node = self._database.nodes.get(node_id)
            if node is not None and not node.dead:
                self._database.see_code(node.record, now)
            self._database.set(self._database.nodes, node_id, None)
        self._database.running.discard(node_id)
        self._joined.pop(node_id, None)

    def vanished(self) -> list[str]:
        places = {(node.host, node.boot_id) for node in self._joined.values()}
        with self._database.guard:
            nodes = [node for _, node in sorted(self._database.nodes.items()) if not node.dead]
        gone = [node.record for node in nodes if node.record.node_id not in self._database.running]
        return [record.node_id for record in gone if (record.host, record.boot_id) in places]

    def bury(self, node_id: str, renewals: int) -> bool:
        with self._database.transaction(self, self._clock) as now:
            node = self._database.nodes.get(node_id)
            if node is None or node.dead or node.renewals != renewals:
                return False
            self._database.see_code(node.record, now)
            self._database.set(self._database.nodes, node_id, replace(node, dead=True))
        return True

    def sweep(self, limit: int = 256) -> int:
        with self._database.transaction(self, self._clock) as now:
            dead = [owner for owner in self._database.owners() if not self._lives(owner)]
            ghosts = [instance_id for owner in dead for instance_id in self._database.owned(owner)][
                :limit
            ]
            for row in self._rows(ghosts):
                row.take_over(now)
                self._database.store_row(row)
            takers = [taker for taker in self._database.takers() if not self._lives(taker)]
            lost = [task for taker in takers for task in self._database.taken(taker)][:limit]
            living = {node_id for node_id, node in self._database.nodes.items() if not node.dead}
            lost += self._database.abandoned(living, limit)
            for task in lost:
                self._lose(task, now)
        return len(ghosts) + len(lost)

    def _lives(self, node_id: str) -> bool:
        node = self._database.nodes.get(node_id)
        return node is not None and not node.dead

    def _rows(self, instance_ids: Sequence[str]) -> list[HotRow]:
        rows = [self._database.hot_row(instance_id) for instance_id in instance_ids]
        return [row for row in rows if row is not None]

    def _lose(self, task: Task, now: int) -> None:
        self._give_back(task, LOST)
        row = self._database.hot_row(task.instance_id)
        if row is not None and row.is_open:
            row.ring(now, ready=now)
            self._database.store_row(row)

    def _give_back(self, task: Task, failure: bytes | None) -> None:
        key = ActivityId(task.instance_id, task.execution, task.event_id)
        self._database.activities.change(key, _END, (None, failure, task.revision + 1))

    # --- maintenance ----------------------------------------------------------------------

    def expire(self, limit: int = 64) -> int:
        with self._database.guard:
            if not self._database.expired(self._database.time(self._clock), 1):
                return 0
        with self._database.transaction(self, self._clock) as now:
            gone = self._database.expired(now, limit)
            for instance_id in gone:
                if not self._marks_more(instance_id):
                    self._database.delete(instance_id)
        return len(gone)

    def _marks_more(self, instance_id: str) -> bool:
        """Let the family of an instance go that goes with its lap. Return whether there may be
        more.
        """
        row = self._database.hot_row(instance_id)
        if row is None or not self._database.goes_with_lap(instance_id):
            return False
        return self._database.let_family_go(instance_id, row.incarnation) == MARKED_AT_ONCE

    def rouse(
        self, since: int, until: int, instance_ids: Sequence[str] = (), limit: int = 256
    ) -> int:
        with self._database.transaction(self, self._clock) as now:
            parked = [
                row
                for row in self._database.hot_rows()
                if row.is_claimable and (row.wake_at or 0) > now
            ]
            ahead = [
                row
                for row in parked
                if row.instance_id in instance_ids
                or row.updated_at > now
                or since <= row.updated_at < until
            ][:limit]
            for row in ahead:
                crashing = row.takeovers >= CRASHES_BEFORE_DELAY
                row.rouse(min(row.wake_at or 0, now + LONGEST_DELAY) if crashing else 0, now)
                self._database.store_row(row)
        return len(ahead)

    def owned(self, node_id: str) -> list[str]:
        with self._database.guard:
            return self._database.owned(node_id)

    def taken(self, node_id: str) -> list[Task]:
        with self._database.guard:
            return self._database.taken(node_id)

    def held(
        self,
        names: Sequence[str],
        after: tuple[int, str] | None = None,
        limit: int = HELD_PER_PAGE,
    ) -> HeldPage:
        with self._database.guard:
            held = {
                (self._database.created_at(row.instance_id), row.instance_id): row
                for row in self._database.hot_rows()
                if row.held
            }
            page = sorted(place for place in held if place > (after or BEFORE_ALL_HELD))[:limit]
            instances = [
                self._database.instance(held[place], self._dialect)
                for place in page
                if self._database.kind(held[place].kind).name in names
            ]
        rows = tuple(
            HeldRow(one.instance_id, one.incarnation, one.revision, one.kind, hold)
            for one in instances
            if (hold := hold_in_force(one.hold, one.operator_hold, paused=one.paused)) is not None
        )
        return HeldPage(rows, page[-1] if len(page) == limit else None)

    def overdue(self, names: Sequence[str], at: int) -> dict[str, int]:
        with self._database.guard:
            found = Counter(
                self._database.kind(row.kind).name
                for row in self._database.hot_rows()
                if row.is_open and row.boundary_due is not None and row.boundary_due <= at
            )
        return {name: count for name, count in found.items() if name in names}
