"""The engine's view of the store, on PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from orchestra.errors import StoreError
from orchestra.events import EventRecord
from orchestra.levels import Levels
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Texts
from orchestra.providers.postgres.calls import Calls, Transaction
from orchestra.providers.postgres.catalogue import read_catalogue
from orchestra.providers.postgres.deletion import delete_expired
from orchestra.providers.postgres.failures import is_mismatch
from orchestra.providers.postgres.group import Committed, Group
from orchestra.providers.postgres.inbox import read_page, read_unread
from orchestra.providers.postgres.kinds import Kinds, kind_arrays, read_kind, route_arrays
from orchestra.providers.postgres.nodes import Nodes
from orchestra.providers.postgres.pulse import Pulse
from orchestra.providers.postgres.schedules import find_due
from orchestra.providers.postgres.settings import Settings
from orchestra.store.catalogue import Catalogue, NodeRecord, Renewal
from orchestra.store.changes import Change
from orchestra.store.decoding import (
    read_activity,
    read_cancel,
    read_event,
    read_held_page,
    read_task,
)
from orchestra.store.hints import StreamHints, published_by
from orchestra.store.instances import BEFORE_ALL_HELD, HELD_PER_PAGE, HeldPage
from orchestra.store.kinds import Dialect
from orchestra.store.messages import InboxPage, QueueName, Unread
from orchestra.store.outcomes import Commit
from orchestra.store.routes import Kind, Route
from orchestra.store.schedules import DueSchedule
from orchestra.store.snapshots import News
from orchestra.store.tasks import ActivityRow, Task

__all__ = ["PostgresStore"]


class PostgresStore:
    """Implements :class:`~orchestra.store.port.Store`; the promises are written there."""

    def __init__(
        self,
        calls: Calls,
        kinds: Kinds,
        nodes: Nodes,
        pulse: Pulse,
        settings: Settings,
        hints: StreamHints,
    ) -> None:
        self._hints = hints
        self._calls = calls
        self._kinds = kinds
        self._nodes = nodes
        self._pulse = pulse
        self._settings = settings

    def commit(self, changes: Sequence[Change]) -> Commit:
        self._nodes.require_memory()
        group = Group(changes, self._kinds, self._settings, self._nodes.joined)
        committed = self._commit(group)
        if committed.wakes_others:
            self._pulse.notify()
        published, _ = published_by(changes)
        if published:
            self._pulse.notify_readers()
        self._hints.committed(changes)
        return Commit(committed.now, committed.finish())

    def _commit(self, group: Group) -> Committed:
        if group.is_plain:
            try:
                return self._calls.transaction(group.commit_plain)
            except StoreError as error:
                # A write must be refused. The longer way finds which, and grants the others.
                if not is_mismatch(error):
                    raise
        return self._calls.transaction(group.commit)

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        return [
            read_event(row) for row in self._calls.read(sql.READ_HISTORY, instance_id, execution)
        ]

    def news(self, node_id: str, page: InboxPage = InboxPage()) -> list[News]:  # noqa: B008 - it is immutable
        rows = self._calls.read(sql.READ_NEWS, node_id, page.messages + 1, page.bytes)
        # Afterwards: notifications until then belong to this call. If they belong to the next one
        # too, it does no harm.
        ended = self._calls.read(sql.READ_ENDED, node_id) if rows else []
        activities: dict[str, list[ActivityRow]] = defaultdict(list)
        for instance_id, *columns in ended:
            activities[instance_id].append(read_activity(tuple(columns)))
        return [
            _read_news(list(of_one), tuple(activities[instance_id]), page, self._settings.dialect)
            for instance_id, of_one in groupby(rows, key=lambda row: row[0])
        ]

    def unread(
        self,
        instance_id: str,
        after: Mapping[QueueName, int],
        up_to: int,
        page: InboxPage = InboxPage(),  # noqa: B008 - it is immutable
    ) -> dict[QueueName, Unread]:
        return read_unread(self._calls, self._settings.dialect, instance_id, after, up_to, page)

    def next_wake(self, kinds: Sequence[Kind], routes: Sequence[Route] = ()) -> int | None:
        return self._calls.read(
            sql.NEXT_WAKE, *kind_arrays(list(dict.fromkeys(kinds))), *route_arrays(routes)
        )[0][0]

    def next_tick(self, after: int = -1) -> int | None:
        return self._calls.read(sql.NEXT_TICK, after)[0][0]

    def due_schedules(
        self, now: int, limit: int, after: tuple[int, str] | None = None
    ) -> list[DueSchedule]:
        return find_due(self._calls, self._settings.dialect, now, limit, after)

    def changed(self) -> bool:
        return self._pulse.changed()

    def on_change(self, ring: Callable[[], None] | None) -> None:
        self._pulse.ring = ring

    def stir(self) -> None:
        self._pulse.stir()

    def catalogue(self) -> Catalogue:
        # each poll asks for it, so that a node without writes learns it too
        self._nodes.require_memory()
        return read_catalogue(self._calls, self._settings.dialect)

    def join(self, node: NodeRecord) -> int:
        return self._nodes.join(node)

    def renew(self, node_id: str, load: int = 0) -> Renewal:
        return self._nodes.renew(node_id, load)

    def raise_level(self, levels: Levels) -> Levels:
        return self._nodes.raise_level(levels)

    def leave(self, node_id: str) -> None:
        self._nodes.leave(node_id)

    def vanished(self) -> list[str]:
        return self._nodes.vanished()

    def bury(self, node_id: str, renewals: int) -> bool:
        return self._nodes.bury(node_id, renewals)

    def sweep(self, limit: int = 256) -> int:
        return self._nodes.sweep(limit)

    def expire(self, limit: int = 64) -> int:
        return delete_expired(self._calls, limit)

    def rouse(
        self, since: int, until: int, instance_ids: Sequence[str] = (), limit: int = 256
    ) -> int:
        def rouse(transaction: Transaction) -> int:
            transaction.begin()
            script = transaction.script()
            roused = script.add(
                sql.ROUSE, Texts(instance_ids), transaction.now, since, until, limit
            )
            transaction.commit(script)
            return roused.count

        return self._calls.transaction(rouse)

    def owned(self, node_id: str) -> list[str]:
        return [row[0] for row in self._calls.read(sql.LIST_OWNED, node_id)]

    def taken(self, node_id: str) -> list[Task]:
        return [read_task(row) for row in self._calls.read(sql.LIST_TASKS, node_id)]

    def held(
        self,
        names: Sequence[str],
        after: tuple[int, str] | None = None,
        limit: int = HELD_PER_PAGE,
    ) -> HeldPage:
        begin = after or BEFORE_ALL_HELD
        rows = self._calls.read(sql.LIST_HELD, *begin, limit, Texts(dict.fromkeys(names)))
        return read_held_page(rows, limit, self._settings.dialect, read_kind)

    def overdue(self, names: Sequence[str], at: int) -> dict[str, int]:
        found = self._calls.read(sql.COUNT_OVERDUE, at)
        return {name: count for name, count in found if name in names}


def _read_news(
    rows: list[tuple[Any, ...]],
    activities: tuple[ActivityRow, ...],
    page: InboxPage,
    dialect: Dialect,
) -> News:
    (
        instance_id,
        incarnation,
        inbox_seq,
        cancel_at,
        cancel_reason,
        cancel_by,
        cancel_terminate,
        *_,
    ) = rows[0]
    # A cancel mark takes a number, but is no message: the outer join then adds nothing.
    unread = read_page([row[7:] for row in rows if row[7] is not None], inbox_seq, page, dialect)
    return News(
        instance_id,
        incarnation,
        inbox_seq,
        read_cancel(cancel_at, cancel_reason, cancel_by, cancel_terminate),
        unread.messages,
        activities,
        unread.whole_to,
    )
