"""Tables in memory, which several providers may share, as other providers share a file or a
server.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Container, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from orchestra.clock import Clock, followed
from orchestra.codec import Packed, pack, unpack
from orchestra.errors import NodeBuried, StoreError
from orchestra.events import EventRecord
from orchestra.levels import Levels, Stored
from orchestra.providers.memory.tables import Queue, Row, Table, Undo
from orchestra.store import tables
from orchestra.store.audit import KEPT_OPERATIONS, OperationRow, Record
from orchestra.store.catalogue import Catalogue, NodeRecord, NodeRow, PolicyRow
from orchestra.store.census import SeenCode
from orchestra.store.changes import Start
from orchestra.store.decoding import (
    hold_from_bytes,
    nudge_from_bytes,
    operator_hold_from_bytes,
    pin_from_bytes,
    read_activity,
    read_aside,
    read_event,
    read_execution,
    read_message,
    read_payload,
    read_request,
    read_task,
)
from orchestra.store.executions import (
    FAMILY_SCANNED,
    GOES_WITH_LAP,
    MARKED_AT_ONCE,
    ExecutionRow,
)
from orchestra.store.facts import ActivityId, InboxName
from orchestra.store.hints import StreamHints
from orchestra.store.hot_row import HotRow
from orchestra.store.inbox_limits import Waiting
from orchestra.store.instances import InstanceRow, ParentLink
from orchestra.store.kinds import Dialect, MessageKind
from orchestra.store.messages import KEPT_ASIDE, NAMES_SHOWN, MessageRow
from orchestra.store.queries import InstanceRecord
from orchestra.store.requests import RequestRow
from orchestra.store.routes import Kind, Route
from orchestra.store.streams import journal_of
from orchestra.store.tables import Column, Columns
from orchestra.store.tasks import ActivityRow, Task

__all__ = ["Database", "require"]

K = TypeVar("K")
V = TypeVar("V")

_HOT_WIDTH: Final = len(tables.HOT_ROW)
_INSTANCE: Final = Columns(
    (
        *tables.HOT_ROW,
        Column("summary", "blob"),
        Column("created_at", "number"),
        Column("expires_at", "number"),
    )
)
_WRITTEN: Final = Columns((*tables.WRITTEN_ROW, *tables.CANCEL_MARK, *_INSTANCE.only("summary")))
_DETAIL: Final = Columns(
    (
        *tables.DETAIL,
        Column("custom_status", "blob"),
        Column("custom_status_encoding", "number"),
        Column("hold", "blob"),
        Column("pin", "blob"),
        Column("operator_hold", "blob"),
        Column("nudge", "blob"),
        Column("unread_at_end", "blob"),
    )
)
_DETAIL_NAMES: Final = _DETAIL.names
_RENEWED: Final = _INSTANCE.only("incarnation", "not_before", "created_at", "expires_at")
_TOMBSTONE: Final = Columns(
    (*tables.MESSAGE.only("instance_id", "message_id", "sequence"), Column("removed_at", "number"))
)
_REQUEST: Final = Columns((*tables.REQUEST, *tables.ANSWER))
_SENT: Final = (MessageKind.EVENT, MessageKind.REQUEST)
_ACTIVITY: Final = Columns((*tables.ACTIVITY, *tables.ACTIVITY_FENCE))
_BEYOND: Final = 1 << 63
"""Greater than every number of a row."""
_VERSION_KEY: Final = tables.EXECUTION.names.index("version_key")
_CHILD: Final = tables.DETAIL.only("parent_id", "parent_execution", "instance_id")


class Database:
    """The tables of a store, and their indexes. One transaction is open at a time."""

    def __init__(self) -> None:
        self._undo = Undo()
        self.guard: AbstractContextManager[bool] = threading.RLock()
        self.instances: Table = Table(_INSTANCE, 1, self._undo, self._instance_changed)
        self.details: Table = Table(_DETAIL, 1, self._undo)
        self.labels: Table = Table(tables.LABEL, 2, self._undo)
        self.executions: Table = Table(tables.EXECUTION, 2, self._undo)
        self.events: Table = Table(tables.EVENT, 3, self._undo)
        self.messages: Table = Table(tables.MESSAGE, 2, self._undo, self._message_changed)
        self.aside: Table = Table(tables.SET_ASIDE, 2, self._undo)
        self.requests: Table = Table(_REQUEST, 2, self._undo, self._request_changed)
        self.tombstones: Table = Table(_TOMBSTONE, 2, self._undo, self._tombstone_changed)
        self.activities: Table = Table(_ACTIVITY, 3, self._undo, self._activity_changed)
        self.children: Table = Table(_CHILD, 3, self._undo)
        self.schedules: Table = Table(tables.SCHEDULE, 1, self._undo, self._schedule_changed)
        self.slots: Table = Table(tables.SCHEDULE_SLOT, 3, self._undo)
        self.streams: Table = Table(tables.STREAM, 2, self._undo)
        self.stream_items: Table = Table(tables.STREAM_ITEM, 3, self._undo)
        self.stream_hints: StreamHints = StreamHints()
        self.nodes: dict[str, NodeRow] = {}
        self.policies: dict[str, PolicyRow] = {}
        self.former_policies: dict[str, tuple[PolicyRow, ...]] = {}
        """By name, the oldest first."""
        self.expiries: dict[str, int] = {}
        self.seen: dict[tuple[str, str, str], SeenCode] = {}
        """Code that nodes had, by name, version and fingerprint."""
        self._levels: dict[str, Levels] = {}
        self.operations: list[OperationRow] = []
        """The audit, the oldest first."""
        self._recorded = 0
        self.running: set[str] = set()
        """Nodes whose process lives; other stores know this by locks."""
        self.writes: Counter[int] = Counter()
        """How often each writer has committed."""
        self._kinds: dict[Kind, int] = {}
        self._owned: dict[str, set[str]] = defaultdict(set)
        self._tally: Counter[tuple[int, Stored, bool]] = Counter()
        self._ready: dict[int, Queue[str]] = {}
        self._expiring: Queue[str] = Queue(self._expires_at)
        self._waiting: dict[Route, Queue[ActivityId]] = {}
        self._taken: dict[str, set[ActivityId]] = defaultdict(set)
        self._message_ids: dict[tuple[str, str, Stored], int] = {}
        self._tombstones: Queue[tuple[str, str]] = Queue(self._removed_at)
        self._requests: Queue[tuple[str, str]] = Queue(self._answered_at)
        self._whole: dict[str, Waiting] = defaultdict(Waiting)
        self._named: dict[InboxName, Waiting] = defaultdict(Waiting)
        self.due_schedules: Queue[str] = Queue(self._schedule_due_at)
        """The schedules by the time at which they are due next."""
        self._last = 0

    @contextmanager
    def transaction(self, writer: object, clock: Clock) -> Generator[int]:
        """Run the body at an instant. All its changes stand, or none."""
        with self.guard:
            self._last = now = self.time(clock)
            try:
                yield now
            except BaseException:
                self._undo.run()
                raise
            self._undo.forget()
            self.writes[id(writer)] += 1

    def time(self, clock: Clock) -> int:
        """Return the store's time (protocol rule 25)."""
        return followed(self._last, clock.now())

    def leave_records(self, now: int, records: Sequence[Record]) -> None:
        """Leave entries in the audit, within a transaction."""
        if len(self.operations) > 2 * KEPT_OPERATIONS:
            del self.operations[:KEPT_OPERATIONS]
        before = len(self.operations)
        for one in records:
            self._recorded += 1
            self.operations.append(
                OperationRow(
                    now,
                    one.by,
                    one.action,
                    one.subject,
                    one.detail,
                    f"{self._recorded:012}",
                    one.reason,
                )
            )
        if len(records):
            self._undo.add(lambda: self.operations.__delitem__(slice(before, None)))

    def set(self, mapping: dict[K, V], key: K, value: V | None) -> None:
        """Change a mapping of this database within a transaction; ``None`` removes the key."""
        before = mapping.get(key)
        self._undo.add(lambda: _assign(mapping, key, before))
        _assign(mapping, key, value)

    @property
    def levels(self) -> Levels:
        """The levels of the store."""
        return self._levels.get("levels", Levels())

    def raise_levels(self, levels: Levels) -> None:
        """Set the levels within a transaction."""
        self.set(self._levels, "levels", levels)

    # --- kinds ----------------------------------------------------------------------------

    def number(self, kind: Kind) -> int:
        """Return the number of a kind, and assign one if it has none."""
        number = self._kinds.get(kind)
        if number is None:
            number = len(self._kinds) + 1
            self.set(self._kinds, kind, number)
        return number

    def kind(self, number: int) -> Kind:
        """Return the kind that has this number."""
        return self.kinds[number - 1]

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """All kinds, in the order of their numbers."""
        return tuple(self._kinds)

    # --- instances ------------------------------------------------------------------------

    def hot_row(self, instance_id: str) -> HotRow | None:
        """Return the hot row of an instance."""
        row = self.instances.get(instance_id)
        return None if row is None else HotRow(*row[:_HOT_WIDTH])

    def hot_rows(self) -> Iterator[HotRow]:
        """Return all hot rows, by id."""
        return (HotRow(*row[:_HOT_WIDTH]) for row in self.instances)

    def tally(self) -> list[tuple[Kind, Stored, bool, int]]:
        """Return how many instances there are of each kind, status and hold."""
        return [
            (self.kind(kind), status, held, number)
            for (kind, status, held), number in self._tally.items()
            if number
        ]

    def see_code(self, node: NodeRecord, now: int) -> None:
        """Note that a node has its code now."""
        found = {(has.name, has.version): has.fingerprint for has in node.capabilities}
        for version, fingerprint in found.items():
            key = (*version, fingerprint)
            first = self.seen.get(key) or SeenCode(*key, now, node.node_id, now, node.node_id)
            seen = replace(first, last_seen=max(now, first.last_seen), last_node=node.node_id)
            self.set(self.seen, key, seen)

    def store_row(self, row: HotRow) -> None:
        """Write a changed hot row. The stored revision must be the one that was read (I6)."""
        stored = self.instances.get(row.instance_id)
        if stored is None or self.instances.value(stored, "revision") != row.read_revision:
            raise StoreError(f"instance {row.instance_id!r} was changed past its lock")
        summary = self.instances.value(stored, "summary") if row.summary is None else row.summary
        self.instances.change(
            (row.instance_id,), _WRITTEN, (*row.written_values, *row.mark_values, summary)
        )

    def instance(self, row: HotRow, dialect: Dialect) -> InstanceRow:
        """Return an instance as its owner knows it."""
        detail = self.details.get(row.instance_id)
        require(detail is not None, "an instance has no detail")
        values = dict(zip(_DETAIL_NAMES, detail or (), strict=True))
        parent_id = values["parent_id"]
        link = (
            parent_id,
            values["parent_incarnation"],
            values["parent_execution"],
            values["parent_event"],
        )
        return replace(
            row.instance(self.kind(row.kind)),
            pin=None if values["pin"] is None else pin_from_bytes(values["pin"]),
            hold=None if values["hold"] is None else hold_from_bytes(values["hold"], dialect),
            traceparent=values["traceparent"],
            parent=None if parent_id is None else ParentLink(*link),
            root_id=values["root_id"],
            operator_hold=None
            if values["operator_hold"] is None
            else operator_hold_from_bytes(values["operator_hold"]),
            nudge=None if values["nudge"] is None else nudge_from_bytes(values["nudge"]),
        )

    def record(self, instance_id: str, dialect: Dialect) -> InstanceRecord | None:
        """Return all that a dashboard shows of an instance."""
        row, stored, detail = (
            self.hot_row(instance_id),
            self.instances.get(instance_id),
            self.details.get(instance_id),
        )
        if row is None or stored is None or detail is None:
            return None
        values = dict(zip(_DETAIL_NAMES, detail, strict=True))
        summary, created_at, expires_at = stored[_HOT_WIDTH:]
        messages = self.messages_of(instance_id, dialect)
        aside = self.aside_of(instance_id)
        names = Counter(message.name for message in aside)
        names.update(message.name for message in messages if message.is_sent)
        most = sorted(names.items(), key=lambda named: (-named[1], named[0]))[:NAMES_SHOWN]
        unread_at_end = values["unread_at_end"]
        return InstanceRecord(
            row=self.instance(row, dialect),
            held=row.held,
            status=dialect.library.statuses.read(row.status),
            execution=self.execution(instance_id, row.execution, dialect),
            summary=summary,
            custom_status=read_payload(values["custom_status"], values["custom_status_encoding"]),
            created_at=created_at,
            updated_at=row.updated_at,
            created_by=values["created_by"],
            unread_messages=sum(message.is_sent for message in messages),
            unread_at_end={} if unread_at_end is None else unpack(unread_at_end),
            labels={key: value for _, key, value in self.labels.of(instance_id)},
            activities=tuple(self.activities_of(instance_id)),
            expires_at=expires_at,
            reports=tuple(sorted(message.source for message in messages if message.queue is None)),
            set_aside=len(aside),
            unread_by_name=dict(most),
            schedule=None
            if values["schedule_id"] is None
            else (values["schedule_id"], values["schedule_tick"]),
        )

    def summary(self, instance_id: str) -> Packed:
        """Return the stored summary of an instance."""
        row = self.instances.get(instance_id)
        return Packed(b"") if row is None else self.instances.value(row, "summary")

    def created_at(self, instance_id: str) -> int:
        """Return when an instance was created, or begun again."""
        return self.instances.value(self.instances.get(instance_id) or (), "created_at")

    def add_instance(self, row: HotRow, detail: Row, now: int) -> None:
        """Add a new instance."""
        hot = tuple(getattr(row, name) for name in tables.HOT_ROW.names)
        self.instances.put((*hot, b"", now, None))
        self.details.put((*detail, *(None,) * (len(_DETAIL) - len(detail))))
        self._add_child(row.instance_id)

    def renew_instance(self, start: Start, detail: Row, now: int) -> None:
        """Give an ended instance that begins again its new cold row, and the columns that no write
        changes.
        """
        instance_id = start.instance_id
        self.instances.change(
            (instance_id,),
            _RENEWED,
            (start.incarnation, start.not_before, now, None),
        )
        self._remove_child(instance_id)
        self.details.put((*detail, *(None,) * (len(_DETAIL) - len(detail))))
        self._add_child(instance_id)

    def detail(self, instance_id: str, name: str) -> Any:
        """Return a column of a cold row; ``None`` where there is no row."""
        row = self.details.get(instance_id)
        return None if row is None else self.details.value(row, name)

    def change_detail(self, instance_id: str, **values: Any) -> None:
        """Change columns of a cold row."""
        self.details.change((instance_id,), _DETAIL.only(*values), tuple(values.values()))

    def set_expires_at(self, instance_id: str, expires_at: int) -> None:
        """Set the expiry of an ended instance."""
        self.instances.change((instance_id,), _INSTANCE.only("expires_at"), (expires_at,))

    def let_children_go(self, instance_id: str, since: int, most: int) -> None:
        """Let ended children of laps without a row expire at once, those of this life."""
        row, oldest = self.hot_row(instance_id), self.executions.oldest(instance_id)
        if row is None or oldest is None:
            return
        keys = self.children.between((instance_id, since), (instance_id, oldest[1]))
        own = [key[2] for key in keys if self._parent_life(key[2]) == row.incarnation]
        ended = [child for child in own[:FAMILY_SCANNED] if self._may_go(child)]
        for child in ended[:most]:
            self.set_expires_at(child, GOES_WITH_LAP)

    def let_family_go(self, instance_id: str, incarnation: str) -> int:
        """Let the ended children of an instance expire at once, at most 1,000. Return how many."""
        ended = sorted(
            child
            for _, _, child in self.children.of(instance_id)
            if self._parent_life(child) == incarnation and self._may_go(child)
        )
        for child in ended[:MARKED_AT_ONCE]:
            self.set_expires_at(child, GOES_WITH_LAP)
        return len(ended[:MARKED_AT_ONCE])

    def goes_with_lap(self, instance_id: str) -> bool:
        """Return whether an instance expires because its parent's lap was deleted."""
        return self._expires_at(instance_id) == GOES_WITH_LAP

    def _parent_life(self, child: str) -> str | None:
        detail = self.details.get(child)
        return None if detail is None else self.details.value(detail, "parent_incarnation")

    def _may_go(self, child: str) -> bool:
        """Return whether a child has ended, and does not go with its lap already."""
        row, expires_at = self.hot_row(child), self._expires_at(child)
        return (
            row is not None
            and not row.is_open
            and (expires_at is None or expires_at > GOES_WITH_LAP)
        )

    def end_inbox(self, instance_id: str) -> None:
        """Empty the inbox of an ended instance. Keep the number of unread events and requests of
        each name.
        """
        removed = self.messages.remove_all(instance_id)
        unread = Counter(self.messages.value(row, "name") for row in removed if self.is_sent(row))
        aside = self.aside.remove_all(instance_id)
        unread.update(self.aside.value(row, "name") for row in aside)
        if unread:
            self.change_detail(instance_id, unread_at_end=pack(dict(unread)))

    def set_aside(self, instance_id: str, sequence: int, reason: str, now: int) -> None:
        """Keep an unread event apart, with the reason. The oldest ones go if they are too many."""
        row = self.messages.get(instance_id, sequence)
        if row is None or not self.is_event(row):
            return
        names = tables.SET_ASIDE.without("reason", "set_aside_at").names
        self.aside.put((*(self.messages.value(row, name) for name in names), reason, now))
        size = 0
        for place, kept in enumerate(reversed(self.aside.of(instance_id)), 1):
            size += len(self.aside.value(kept, "payload"))
            if place > KEPT_ASIDE.messages or (place > 1 and size > KEPT_ASIDE.bytes):
                self.aside.remove(*kept[:2])

    def aside_of(self, instance_id: str, after: int = 0) -> list[MessageRow]:
        """Return the messages that were set aside and have come after a number, in the order of
        their arrival.
        """
        rows = self.aside.between((instance_id, after + 1), (instance_id, _BEYOND))
        return [read_aside(row[1:]) for row in rows]

    def is_event(self, row: Row) -> bool:
        """Return whether a message is an event that was sent."""
        return self.messages.value(row, "kind") == MessageKind.EVENT

    def is_sent(self, row: Row) -> bool:
        """Return whether a message is an event or a request: it counts against the inbox."""
        return self.messages.value(row, "kind") in _SENT

    def delete(self, instance_id: str) -> None:
        """Delete an instance and all its rows (I9)."""
        self._remove_child(instance_id)
        for table in (
            self.labels,
            self.executions,
            self.events,
            self.messages,
            self.tombstones,
            self.activities,
            self.aside,
            self.requests,
            self.streams,
            self.stream_items,
        ):
            table.remove_all(instance_id)
        self.details.remove(instance_id)
        self.instances.remove(instance_id)

    def _add_child(self, instance_id: str) -> None:
        if (link := self._link_of(instance_id)) is not None:
            self.children.put(link)

    def _remove_child(self, instance_id: str) -> None:
        if (link := self._link_of(instance_id)) is not None:
            self.children.remove(*link)

    def _link_of(self, instance_id: str) -> tuple[str, int, str] | None:
        """Return the key of a child in the index of children."""
        detail = self.details.get(instance_id)
        if detail is None or self.details.value(detail, "parent_id") is None:
            return None
        parent, execution = (
            self.details.value(detail, name) for name in ("parent_id", "parent_execution")
        )
        return parent, execution, instance_id

    def _schedule_changed(self, before: Row | None, after: Row | None) -> None:
        row = after or before
        if row is not None:
            self.due_schedules.put(row[0])

    def _schedule_due_at(self, schedule_id: str) -> int | None:
        row = self.schedules.get(schedule_id)
        return None if row is None else self.schedules.value(row, "next_at")

    # --- rows of an instance ------------------------------------------------------

    def execution(self, instance_id: str, number: int, dialect: Dialect) -> ExecutionRow:
        """Return one execution."""
        row = self.executions.get(instance_id, number)
        require(row is not None, "an execution is not there")
        return _read_execution(row or (), dialect)

    def executions_of(
        self, instance_id: str, dialect: Dialect, after: int = 0, limit: int | None = None
    ) -> list[ExecutionRow]:
        """Return the executions of an instance that come after a number, at most so many, in
        order.
        """
        rows = self.executions.between((instance_id, after + 1), (instance_id, _BEYOND))
        return [_read_execution(row, dialect) for row in rows[:limit]]

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        """Return the events of an execution in order."""
        rows = self.events.between((instance_id, execution), (instance_id, execution + 1))
        return [read_event(row[2:]) for row in rows]

    def messages_of(self, instance_id: str, dialect: Dialect, after: int = 0) -> list[MessageRow]:
        """Return the unread messages of an instance that have come after a number, in the order of
        their arrival.
        """
        rows = self.messages.between((instance_id, after + 1), (instance_id, _BEYOND))
        return [read_message(row[1:], dialect) for row in rows]

    def activities_of(self, instance_id: str) -> list[ActivityRow]:
        """Return the remembered activities of an instance."""
        return [read_activity(row[1:]) for row in self.activities.of(instance_id)]

    def activity_rows(self, instance_id: str) -> list[tuple[ActivityId, ActivityRow]]:
        """Return the remembered activities of an instance, with their keys."""
        return [
            (ActivityId(*row[:3]), read_activity(row[1:]))
            for row in self.activities.of(instance_id)
        ]

    def find_message(
        self, instance_id: str, message_id: str, stored: Stored, dialect: Dialect
    ) -> MessageRow | None:
        """Return the unread message with this id and stored kind."""
        sequence = self._message_ids.get((instance_id, message_id, stored))
        row = None if sequence is None else self.messages.get(instance_id, sequence)
        return None if row is None else read_message(row[1:], dialect)

    def forget_tombstones(self, until: int, limit: int) -> None:
        """Remove the oldest tombstones of messages that were removed by then."""
        for key in self._tombstones.up_to(until, limit):
            self.tombstones.remove(*key)

    # --- requests ---

    def request(self, instance_id: str, request_id: str) -> RequestRow | None:
        """Return a request."""
        row = self.requests.get(instance_id, request_id)
        return None if row is None else read_request(row[1:])

    def answer(self, answer: Row) -> None:
        """Store an answer, unless there is one: the first wins."""
        *values, instance_id, request_id = answer
        row = self.requests.get(instance_id, request_id)
        if row is not None and self.requests.value(row, "answered_at") is None:
            self.requests.change((instance_id, request_id), tables.ANSWER, tuple(values))

    def remove_request(self, instance_id: str, sequence: int) -> None:
        """Remove the message of a request that was answered, if it is there."""
        row = self.messages.get(instance_id, sequence)
        if row is not None and self.messages.value(row, "kind") == MessageKind.REQUEST:
            self.messages.remove(instance_id, sequence)

    def close_requests(self, instance_id: str, now: int) -> None:
        """Close what an ended life has left open: it is never answered."""
        for row in self.requests.of(instance_id):
            self.answer((now, None, None, None, *row[:2]))

    def forget_requests(self, until: int, limit: int) -> None:
        """Remove the requests that were answered by then, the oldest answers first."""
        for key in self._requests.up_to(until, limit):
            self.requests.remove(*key)

    def waiting_events(self, instance_id: str, name: str) -> tuple[Waiting, Waiting]:
        """Return how much waits unread in an inbox, of all names and of one."""
        return self._whole.get(instance_id, Waiting()), self._named.get(
            InboxName(instance_id, name), Waiting()
        )

    # --- indexes of instances and activities ----------------------------------------------

    def owned(self, node_id: str) -> list[str]:
        """Return the ids of the instances that a node owns."""
        return sorted(self._owned.get(node_id, ()))

    def owners(self) -> list[str]:
        """Return the nodes that own instances."""
        return sorted(node_id for node_id, owned in self._owned.items() if owned)

    def ready(self, kind: Kind) -> Queue[str]:
        """Return the instances of a kind that may be claimed, by their wake times."""
        number = self._kinds.get(kind, 0)  # 0: the store has never used the kind
        return self._ready.setdefault(number, Queue(partial(self._claimable_at, number)))

    def expired(self, now: int, limit: int) -> list[str]:
        """Return expired instances, the longest overdue first."""
        return self._expiring.up_to(now, limit)

    def waiting(self, route: Route) -> Queue[ActivityId]:
        """Return the untaken activities of a route, the oldest first."""
        return self._waiting.setdefault(route, Queue(partial(self._handed_out_at, route)))

    def waiting_routes(self) -> list[Route]:
        """Return the routes of untaken activities, in order."""
        return sorted(route for route, queue in self._waiting.items() if queue.first() is not None)

    def abandoned(self, living: Container[str], limit: int) -> list[Task]:
        """Return untaken activities of sessions whose nodes are gone."""
        waiting = self.waiting_routes()
        lost = [route for route in waiting if (node := route.node) and node not in living]
        keys = [key for route in lost for key in self.waiting(route).up_to((_BEYOND,), limit)]
        return [self.task(key) for key in keys[:limit]]

    def taken(self, node_id: str) -> list[Task]:
        """Return the activities that a node has taken."""
        return [self.task(key) for key in sorted(self._taken.get(node_id, ()))]

    def takers(self) -> list[str]:
        """Return the nodes that have taken any activity."""
        return sorted(node_id for node_id, taken in self._taken.items() if taken)

    def task(self, key: ActivityId) -> Task:
        """Return an activity for the node that has taken it."""
        row, event = self.activities.get(*key), self.events.get(*key)
        instance, execution = (
            self.hot_row(key.instance_id),
            self.executions.get(key.instance_id, key.execution),
        )
        if row is None or event is None or instance is None or execution is None:
            raise StoreError(f"activity {key} is not there")
        value = dict(zip(_ACTIVITY.names, row, strict=True))
        name, version, traceparent = (
            self.executions.value(execution, one) for one in ("name", "version", "traceparent")
        )
        head = (*key[:1], instance.incarnation, *key[1:], value["revision"], value["attempt"], name)
        more = (
            version,
            traceparent,
            value["heartbeat"],
            value["heartbeat_encoding"],
            value["stopping"],
        )
        return read_task((*head, *more, *event[2:]))

    # --- nodes ----------------------------------------------------------------------------

    def living(self, node_id: str) -> NodeRow:
        """Return a node that is not dead.

        Raises:
            NodeBuried: it is dead, or it has left.
        """
        node = self.nodes.get(node_id)
        if node is None or node.dead:
            raise NodeBuried(f"node {node_id} was declared dead, or has left")
        return node

    def catalogue(self, clock: Clock, dialect: Dialect) -> Catalogue:
        """Return nodes, policies and kinds as of now."""
        nodes = tuple(
            self.nodes[node_id] for node_id in sorted(self.nodes) if not self.nodes[node_id].dead
        )
        levels = dialect.heard(self.levels)
        waiting = tuple(route for route in self.waiting_routes() if route.session is not None)
        return Catalogue(
            self.time(clock),
            nodes,
            dict(self.policies),
            self.kinds,
            levels,
            dialect.library,
            waiting,
        )

    # --- keeping the indexes --------------------------------------------------------------

    def _instance_changed(self, before: Row | None, after: Row | None) -> None:
        for row, sign in ((before, -1), (after, 1)):
            if row is not None:
                kind, status, held = (
                    self.instances.value(row, name) for name in ("kind", "status", "held")
                )
                self._tally[kind, status, held] += sign
        if before is not None and (owner := self.instances.value(before, "owner")) is not None:
            self._owned[owner].discard(before[0])
        if after is None:
            return
        if (owner := self.instances.value(after, "owner")) is not None:
            self._owned[owner].add(after[0])
        self.ready(self.kind(self.instances.value(after, "kind"))).put(after[0])
        self._expiring.put(after[0])

    def _claimable_at(self, kind: int, instance_id: str) -> tuple[int, str] | None:
        row = self.hot_row(instance_id)
        if row is None or row.kind != kind or not row.is_claimable:
            return None
        return row.wake_at or 0, instance_id

    def _expires_at(self, instance_id: str) -> int | None:
        row = self.instances.get(instance_id)
        return None if row is None else self.instances.value(row, "expires_at")

    def _message_changed(self, before: Row | None, after: Row | None) -> None:
        for row, sign in ((before, -1), (after, 1)):
            if row is None:
                continue
            value = dict(zip(tables.MESSAGE.names, row, strict=True))
            message_id = (row[0], value["message_id"], value["kind"])
            _assign(self._message_ids, message_id, value["sequence"] if sign > 0 else None)
            if not self.is_sent(row):
                continue
            change = Waiting(sign, sign * len(value["payload"]))
            self._whole[row[0]] = self._whole[row[0]].changed_by(change)
            named = InboxName(row[0], value["name"])
            self._named[named] = self._named[named].changed_by(change)

    def _tombstone_changed(self, _before: Row | None, after: Row | None) -> None:
        if after is not None:
            self._tombstones.put(after[:2])

    def _request_changed(self, _before: Row | None, after: Row | None) -> None:
        if after is not None:
            self._requests.put(after[:2])

    def _answered_at(self, key: tuple[str, str]) -> int | None:
        row = self.requests.get(*key)
        return None if row is None else self.requests.value(row, "answered_at")

    def _removed_at(self, key: tuple[str, str]) -> int | None:
        row = self.tombstones.get(*key)
        return None if row is None else self.tombstones.value(row, "removed_at")

    def _activity_changed(self, before: Row | None, after: Row | None) -> None:
        if before is not None and (owner := self.activities.value(before, "owner")) is not None:
            self._taken[owner].discard(ActivityId(*before[:3]))
        if after is None:
            if before is not None and self.activities.value(before, "heartbeat") is not None:
                self._forget_journal(ActivityId(*before[:3]))
            return
        key = ActivityId(*after[:3])
        if (owner := self.activities.value(after, "owner")) is not None:
            self._taken[owner].add(key)
        queue, name = self.activities.value(after, "queue"), self.activities.value(after, "name")
        if queue is not None:
            self.waiting(Route(queue, name)).put(key)

    def _forget_journal(self, key: ActivityId) -> None:
        """Remove the steps of an activity with its row."""
        stream = key.instance_id, journal_of(key.execution, key.event_id)
        if self.streams.remove(*stream) is not None:
            self.stream_items.remove_between(stream, (*stream, _BEYOND))

    def _handed_out_at(self, route: Route, key: ActivityId) -> tuple[int, ActivityId] | None:
        row = self.activities.get(*key)
        if row is None:
            return None
        activity = read_activity(row[1:])
        is_waiting = (
            activity.route == route
            and activity.owner is None
            and not activity.has_ended
            and not activity.paused
        )
        return (activity.started_at, key) if is_waiting else None


def require(condition: bool, failure: str) -> None:  # noqa: FBT001 - it reads as an assertion
    """Refuse a write that does not fit what is stored."""
    if not condition:
        raise StoreError(f"a write does not fit what is stored: {failure}")


def _read_execution(row: Row, dialect: Dialect) -> ExecutionRow:
    return read_execution((*row[1:_VERSION_KEY], *row[_VERSION_KEY + 1 :]), dialect)


def _assign(mapping: dict[K, V], key: K, value: V | None) -> None:
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value
