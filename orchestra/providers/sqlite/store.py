"""The engine's view of the store, on SQLite."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestra.events import EventRecord
from orchestra.levels import Levels
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.catalogue import read_catalogue
from orchestra.providers.sqlite.deletion import delete_expired
from orchestra.providers.sqlite.group import Group
from orchestra.providers.sqlite.inbox import read_first, read_names
from orchestra.providers.sqlite.kinds import read_kind
from orchestra.providers.sqlite.nodes import Nodes
from orchestra.providers.sqlite.schedules import find_due
from orchestra.providers.sqlite.settings import Settings
from orchestra.providers.sqlite.tasks import next_task, taken_by
from orchestra.providers.sqlite.writer import Transaction, Writer
from orchestra.store.catalogue import Catalogue, NodeRecord, Renewal
from orchestra.store.changes import Change
from orchestra.store.decoding import (
    in_order,
    read_activity,
    read_cancel,
    read_event,
    read_held_page,
    read_message,
)
from orchestra.store.hints import StreamHints
from orchestra.store.instances import BEFORE_ALL_HELD, HELD_PER_PAGE, LONGEST_DELAY, HeldPage
from orchestra.store.messages import InboxPage, QueueName, Unread
from orchestra.store.outcomes import Commit
from orchestra.store.routes import Kind, Route
from orchestra.store.schedules import DueSchedule
from orchestra.store.snapshots import News
from orchestra.store.tasks import ActivityRow, Task

__all__ = ["SqliteStore"]


class SqliteStore:
    """Implements :class:`~orchestra.store.port.Store`; the promises are written there."""

    def __init__(
        self, writer: Writer, nodes: Nodes, settings: Settings, hints: StreamHints
    ) -> None:
        self._hints = hints
        self._writer = writer
        self._nodes = nodes
        self._settings = settings
        self._seen = (0, 0)
        self._stirred = 0
        self._ring: Callable[[], None] | None = None

    def commit(self, changes: Sequence[Change]) -> Commit:
        with self._writer.transaction() as transaction:
            outcomes = Group(transaction, self._settings).apply(changes)
        self._hints.committed(changes)
        return Commit(transaction.now, outcomes)

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        with self._writer.reading() as reading:
            rows = reading.connection.execute(sql.READ_HISTORY, (instance_id, execution)).fetchall()
        return [read_event(row) for row in rows]

    def news(self, node_id: str, page: InboxPage = InboxPage()) -> list[News]:  # noqa: B008 - it is immutable
        with self._writer.reading() as reading:
            connection = reading.connection
            rows = connection.execute(sql.READ_NEWS, (node_id,)).fetchall()
            ended = connection.execute(sql.READ_ENDED, (node_id,)).fetchall() if rows else []
            activities: dict[str, list[ActivityRow]] = defaultdict(list)
            for instance_id, *columns in ended:
                activities[instance_id].append(read_activity(tuple(columns)))
            return [_read_news(reading, row, tuple(activities[row[0]]), page) for row in rows]

    def unread(
        self,
        instance_id: str,
        after: Mapping[QueueName, int],
        up_to: int,
        page: InboxPage = InboxPage(),  # noqa: B008 - it is immutable
    ) -> dict[QueueName, Unread]:
        with self._writer.reading() as reading:
            return read_names(reading, instance_id, after, up_to, page)

    def next_wake(self, kinds: Sequence[Kind], routes: Sequence[Route] = ()) -> int | None:
        earliest: list[int] = []
        with self._writer.reading() as reading:
            for kind in kinds:
                number = reading.kinds.find(reading.connection, kind)
                row = (
                    None
                    if number is None
                    else reading.connection.execute(sql.NEXT_WAKE, (number,)).fetchone()
                )
                if row is not None:
                    earliest.append(row[0])
            waiting = next_task(reading.connection, routes)
        return min(earliest if waiting is None else [*earliest, waiting], default=None)

    def next_tick(self, after: int = -1) -> int | None:
        with self._writer.reading() as reading:
            return reading.connection.execute(sql.NEXT_TICK, (after,)).fetchone()[0]

    def due_schedules(
        self, now: int, limit: int, after: tuple[int, str] | None = None
    ) -> list[DueSchedule]:
        with self._writer.reading() as reading:
            return find_due(reading.connection, reading.dialect, now, limit, after)

    def changed(self) -> bool:
        # SQLite reports other connections only; writers on this one call `stir`.
        seen = self._stirred, self._writer.changes_of_others()
        changed, self._seen = seen != self._seen, seen
        return changed

    def on_change(self, ring: Callable[[], None] | None) -> None:
        self._ring = ring

    def stir(self) -> None:
        self._stirred += 1
        if (ring := self._ring) is not None:
            ring()

    def catalogue(self) -> Catalogue:
        with self._writer.reading() as reading:
            return read_catalogue(reading.connection, reading.now, reading.dialect)

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
        return delete_expired(self._writer, limit)

    def rouse(
        self, since: int, until: int, instance_ids: Sequence[str] = (), limit: int = 256
    ) -> int:
        with self._writer.reading() as reading:
            now = reading.now
            found = reading.connection.execute(
                sql.FIND_AHEAD, (now, now, since, until, limit)
            ).fetchall()
        named = [*instance_ids, *(row[0] for row in found)][:limit]
        if not named:
            return 0
        with self._writer.transaction() as transaction:
            now = transaction.now
            values = [(now + LONGEST_DELAY, now, instance_id, now) for instance_id in named]
            return sum(transaction.connection.execute(sql.ROUSE, one).rowcount for one in values)

    def owned(self, node_id: str) -> list[str]:
        with self._writer.reading() as reading:
            return [row[0] for row in reading.connection.execute(sql.LIST_OWNED, (node_id,))]

    def taken(self, node_id: str) -> list[Task]:
        with self._writer.reading() as reading:
            return taken_by(reading.connection, node_id)

    def held(
        self,
        names: Sequence[str],
        after: tuple[int, str] | None = None,
        limit: int = HELD_PER_PAGE,
    ) -> HeldPage:
        values = (*(after or BEFORE_ALL_HELD), limit, json.dumps(list(names)))
        with self._writer.reading() as reading:
            rows = reading.connection.execute(sql.LIST_HELD, values).fetchall()
        return read_held_page(rows, limit, self._settings.dialect, read_kind)

    def overdue(self, names: Sequence[str], at: int) -> dict[str, int]:
        with self._writer.reading() as reading:
            found = reading.connection.execute(sql.COUNT_OVERDUE, (at,)).fetchall()
        return {name: count for name, count in found if name in names}


def _read_news(
    reading: Transaction, row: tuple[Any, ...], activities: tuple[ActivityRow, ...], page: InboxPage
) -> News:
    (
        instance_id,
        incarnation,
        inbox_seq,
        cancel_at,
        cancel_reason,
        cancel_by,
        cancel_terminate,
        seen_seq,
    ) = row
    # Arrivals since the row was read belong to the next call.
    first = read_first(reading, instance_id, seen_seq, inbox_seq, page)
    rows = reading.connection.execute(sql.READ_NEW_REPORTS, (instance_id, seen_seq, inbox_seq))
    reports = [read_message(one, reading.dialect) for one in rows]
    return News(
        instance_id,
        incarnation,
        inbox_seq,
        read_cancel(cancel_at, cancel_reason, cancel_by, cancel_terminate),
        in_order(reports, first.messages),
        activities,
        first.whole_to,
    )
