"""Reads for clients and dashboards, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestra.clock import Clock
from orchestra.codec import unpack
from orchestra.events import EventRecord
from orchestra.levels import Unknown
from orchestra.providers.memory.census import read_census
from orchestra.providers.memory.database import Database
from orchestra.providers.memory.keys import read_external, read_keys
from orchestra.providers.memory.schedules import find_schedule, list_schedules
from orchestra.providers.memory.streams import read_page, read_streams
from orchestra.store.audit import KEPT_OPERATIONS, OperationQuery, OperationRow
from orchestra.store.catalogue import Catalogue, PolicyRow
from orchestra.store.census import Census
from orchestra.store.decoding import in_order
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import CRASHES_BEFORE_DELAY
from orchestra.store.keys import KeyUse
from orchestra.store.kinds import Dialect, HoldKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.policies import KEPT_POLICIES
from orchestra.store.queries import (
    GROUP_LABEL,
    Counted,
    CountedGroup,
    GroupBy,
    InstanceQuery,
    InstanceRecord,
    Order,
    Standing,
    Target,
    WaitCondition,
)
from orchestra.store.requests import RequestState
from orchestra.store.routes import Route
from orchestra.store.schedules import ScheduleRecord
from orchestra.store.streams import PAGE, Page, StreamPage, StreamRow
from orchestra.store.tallies import TallyRow, read_tally

__all__ = ["MemoryDirectory"]


class MemoryDirectory:
    """Implements :class:`~orchestra.store.port.Directory`; the promises are written there."""

    def __init__(self, database: Database, clock: Clock, dialect: Dialect) -> None:
        self._database = database
        self._dialect = dialect
        self._clock = clock

    def get(self, instance_id: str) -> InstanceRecord | None:
        with self._database.guard:
            return self._database.record(instance_id, self._dialect)

    def list(self, query: InstanceQuery) -> list[InstanceRecord]:
        found, order = self._matching(query), query.order
        found.sort(key=lambda record: _place_of(record, order), reverse=order.is_descending)
        return [
            replace(
                record,
                activities=(),
                reports=(),
                unread_by_name={},
                unserved=_unserved_route(record, query),
            )
            for record in found[: query.limit]
        ]

    def search_end(self, query: InstanceQuery, number: int) -> tuple[int, str] | None:
        del query, number  # it looks at everything, always
        return None

    def count(
        self, query: InstanceQuery, group_by: Sequence[str] = (), limit: int = 1000
    ) -> Counted:
        matching = self._matching(replace(query, after=None))
        counts = Counter(
            tuple(_group_value(record, key, query) for key in group_by) for record in matching
        )
        if not group_by:
            counts[()] += 0
        if not group_by and query.most is not None:
            counts[()] = min(counts[()], query.most)
        groups = tuple(CountedGroup(*group) for group in counts.most_common(limit))
        return Counted(counts.total(), groups)

    def waiting_routes(self) -> Sequence[Route]:
        with self._database.guard:
            return self._database.waiting_routes()

    def _matching(self, query: InstanceQuery) -> list[InstanceRecord]:
        with self._database.guard:
            records = [
                self._database.record(row.instance_id, self._dialect)
                for row in self._database.hot_rows()
            ]
        return [record for record in records if record is not None and _is_asked_for(record, query)]

    def executions(self, instance_id: str, after: int = 0, limit: int = 1000) -> list[ExecutionRow]:
        with self._database.guard:
            return self._database.executions_of(instance_id, self._dialect, after, limit)

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        with self._database.guard:
            return self._database.history(instance_id, execution)

    def envelopes(
        self, instance_id: str, execution: int, events: Sequence[int]
    ) -> list[EventRecord]:
        return [
            replace(event, payload=None)
            for event in self.history(instance_id, execution)
            if event.id in events
        ]

    def messages(self, instance_id: str, after: int = 0, limit: int = 1000) -> list[MessageRow]:
        with self._database.guard:
            found = self._database.messages_of(instance_id, self._dialect, after)
            aside = self._database.aside_of(instance_id, after)
        unread = [one for one in found if one.queue is not None]
        return list(in_order(unread, aside)[:limit])

    def schedule(self, schedule_id: str, slots: int = 20) -> ScheduleRecord | None:
        with self._database.guard:
            return find_schedule(self._database, self._dialect, schedule_id, slots)

    def schedules(self, after: str = "", limit: int = 100) -> list[ScheduleRecord]:
        with self._database.guard:
            return list_schedules(self._database, self._dialect, after, limit)

    def request(self, instance_id: str, request_id: str) -> RequestState | None:
        with self._database.guard:
            request, row = (
                self._database.request(instance_id, request_id),
                self._database.hot_row(instance_id),
            )
        if request is None:
            return None
        is_going = row is not None and row.is_open and row.incarnation == request.incarnation
        return RequestState(request, is_going)

    def catalogue(self) -> Catalogue:
        with self._database.guard:
            return self._database.catalogue(self._clock, self._dialect)

    def policies(self, name: str, limit: int = KEPT_POLICIES + 1) -> list[PolicyRow]:
        with self._database.guard:
            standing = self._database.policies.get(name)
            former = self._database.former_policies.get(name, ())
        rows = [*former, *([] if standing is None else [standing])]
        return rows[::-1][:limit]

    def tally(self) -> list[TallyRow]:
        with self._database.guard:
            rows = self._database.tally()
        return read_tally(rows, self._dialect)

    def census(self, failed_since: int, name: str | None = None) -> Census:
        with self._database.guard:
            return read_census(self._database, failed_since, name, self._dialect)

    def operations(self, query: OperationQuery) -> Sequence[OperationRow]:
        with self._database.guard:
            rows = self._database.operations[-KEPT_OPERATIONS:]
        found = [
            row
            for row in rows
            if query.subject in (None, row.subject)
            and query.action in (None, row.action)
            and query.by in (None, row.by)
            and (query.after is None or _age(row) < query.after)
        ]
        return sorted(found, key=_age, reverse=True)[: query.limit]

    def count_owned(self, node_ids: Sequence[str]) -> Mapping[str, int]:
        with self._database.guard:
            return {node_id: len(self._database.owned(node_id)) for node_id in node_ids}

    def going_among(self, instance_ids: Sequence[str]) -> set[str]:
        with self._database.guard:
            rows = [self._database.hot_row(instance_id) for instance_id in instance_ids]
        return {row.instance_id for row in rows if row is not None and row.is_open and not row.held}

    def stream(
        self, instance_id: str, name: str, after: int = 0, page: Page = PAGE
    ) -> StreamPage | None:
        with self._database.guard:
            return read_page(self._database, instance_id, name, after, page, self._dialect)

    def streams(self, instance_id: str) -> Sequence[StreamRow]:
        with self._database.guard:
            return read_streams(self._database, instance_id)

    def keys(self, limit: int) -> Sequence[KeyUse]:
        with self._database.guard:
            return read_keys(self._database, limit)

    def external(self) -> set[bytes]:
        with self._database.guard:
            return read_external(self._database)


def _age(row: OperationRow) -> tuple[int, str]:
    return row.at, row.number


def _is_asked_for(record: InstanceRecord, query: InstanceQuery) -> bool:
    row, kind, parent = record.row, record.row.kind, record.row.parent
    standing, is_open = _standing(record, query), record.status is Status.OPEN
    is_overdue = is_open and row.boundary_due is not None and row.boundary_due <= query.now
    wanted = [
        (query.name, kind.name),
        (query.version, kind.version),
        (query.queue, kind.queue),
        (query.parent, parent and parent.instance_id),
        (query.parent_execution, parent and parent.execution),
        (query.schedule, record.schedule and record.schedule[0]),
        (query.held, standing is Standing.HELD),
        (query.overdue, is_overdue),
        (query.pinned, is_open and row.pin is not None and row.pin.holds(query.now)),
    ]
    if any(asked is not None and asked != found for asked, found in wanted):
        return False
    is_other = query.other_statuses and isinstance(record.status, Unknown)
    if query.statuses is not None and record.status not in query.statuses and not is_other:
        return False
    if query.standings is not None and standing not in (None, *query.standings):
        return False
    if query.holds is not None and _hold_kind(record, query) not in query.holds:
        return False
    if not all(_leads_to(record, target, query.now) is target.wanted for target in query.targets):
        return False
    if query.waiting is not None and not (is_open and _waits(record, query.waiting)):
        return False
    return _is_within(record, query) and query.labels.items() <= record.labels.items()


def _is_within(record: InstanceRecord, query: InstanceQuery) -> bool:
    instance_id = record.row.instance_id
    if not instance_id.startswith(query.id_prefix or ""):
        return False
    for since, until, instant in (
        (query.created_from, query.created_until, record.created_at),
        (query.updated_from, query.updated_until, record.updated_at),
    ):
        if (since is not None and instant < since) or (until is not None and instant >= until):
            return False
    if query.after is None:
        return True
    place = _place_of(record, query.order)
    after = (0, query.after[1]) if query.order is Order.ID else query.after
    return place < after if query.order.is_descending else place > after


def _place_of(record: InstanceRecord, order: Order) -> tuple[int, str]:
    """Return the place of an instance in an order."""
    match order:
        case Order.NEWEST | Order.OLDEST:
            return record.created_at, record.row.instance_id
        case Order.LATEST_CHANGE | Order.EARLIEST_CHANGE:
            return record.updated_at, record.row.instance_id
        case Order.ID:
            return 0, record.row.instance_id


def _standing(record: InstanceRecord, query: InstanceQuery) -> Standing | None:
    """Return the standing of an open instance; ``None``: it has ended."""
    row = record.row
    if record.status is not Status.OPEN:
        return None
    if _hold_kind(record, query) is not None:
        return Standing.HELD
    return Standing.RUNNING if row.opened or row.execution > 1 else Standing.PENDING


def _hold_kind(record: InstanceRecord, query: InstanceQuery) -> HoldKind | Unknown | None:
    """Return the kind of an instance's hold; ``None``: it has none, or has ended."""
    row = record.row
    if record.status is not Status.OPEN:
        return None
    if row.paused:
        return HoldKind.OPERATOR
    if record.held and row.hold is not None:
        return row.hold.kind
    if row.kind in query.unserved:
        return HoldKind.VERSION_MISSING
    if row.takeovers >= CRASHES_BEFORE_DELAY and row.owner is None:
        return HoldKind.CRASHING
    return None if _unserved_route(record, query) is None else HoldKind.ACTIVITY_MISSING


def _unserved_route(record: InstanceRecord, query: InstanceQuery) -> Route | None:
    """Return the route of the longest waiting activity that no living node takes."""
    waiting = [
        (activity.started_at, activity.execution, activity.event_id, activity.route)
        for activity in record.activities
        if activity.is_waiting and activity.route in query.unserved_routes
    ]
    return min(waiting)[-1] if waiting else None


def _leads_to(record: InstanceRecord, target: Target, now: int) -> bool:
    row = record.row
    if record.status is not Status.OPEN:
        return False
    if row.pin is None or not row.pin.holds(now):
        return row.kind in target.kinds
    if target.version is None:
        return row.pin.version != row.kind.version
    return row.pin.version == target.version


def _waits(record: InstanceRecord, waiting: WaitCondition) -> bool:
    entries: list[list[Any]] = (
        unpack(record.summary).get("w", []) if record.summary[:1] == b"{" else []
    )
    return any(
        waiting.kind in (None, kind)
        and waiting.name in (None, name)
        and (waiting.since is None or since <= waiting.since)
        for kind, name, since, *_ in entries
    )


def _group_value(record: InstanceRecord, key: str, query: InstanceQuery) -> Any:
    match key:
        case GroupBy.NAME:
            return record.row.kind.name
        case GroupBy.VERSION:
            return record.row.kind.version
        case GroupBy.QUEUE:
            return record.row.kind.queue
        case GroupBy.STATUS:
            return record.status, _standing(record, query)
        case GroupBy.HELD:
            return _hold_kind(record, query)
        case _:
            return record.labels.get(key.removeprefix(GROUP_LABEL))
