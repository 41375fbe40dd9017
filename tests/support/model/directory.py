"""What readers of the model see."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestra.events import EventRecord
from orchestra.levels import Unknown
from orchestra.store import policies
from orchestra.store.audit import OperationQuery, OperationRow
from orchestra.store.catalogue import Catalogue, PolicyRow
from orchestra.store.census import Census, OpenCode, SeenCode, in_order
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import CRASHES_BEFORE_DELAY, Pin
from orchestra.store.kinds import Dialect, ExecutionEnd, HoldKind, MessageKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.queries import (
    Counted,
    CountedGroup,
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
from orchestra.store.tallies import TallyRow
from orchestra.store.tasks import ActivityRow
from tests.support.model import schedules
from tests.support.model.ages import read, read_execution, read_message
from tests.support.model.store import ModelStore
from tests.support.model.streams import page_of, row_of
from tests.support.model.world import SENT, ModelWorld


class ModelDirectory:
    """Implements :class:`~orchestra.store.port.Directory`."""

    def __init__(self, world: ModelWorld, store: ModelStore, dialect: Dialect) -> None:
        self._world = world
        self._dialect = dialect
        self._store = store

    def get(self, instance_id: str) -> InstanceRecord | None:
        instance = self._world.instances.get(instance_id)
        return None if instance is None else instance.record(self._dialect)

    def list(self, query: InstanceQuery) -> list[InstanceRecord]:
        found = [(_place(record, query), _shown(record, query)) for record in self._found(query)]
        found.sort(key=lambda pair: pair[0], reverse=query.order in _BACKWARDS)
        return [record for _, record in found][: query.limit]

    def search_end(self, query: InstanceQuery, number: int) -> tuple[int, str] | None:
        del query, number  # it looks at everything, always
        return None

    def count(
        self, query: InstanceQuery, group_by: Sequence[str] = (), limit: int = 1000
    ) -> Counted:
        found = self._found(replace(query, after=None))
        groups: dict[tuple[object, ...], int] = {} if group_by else {(): 0}
        for record in found:
            values = tuple(_value(record, key, query) for key in group_by)
            groups[values] = groups.get(values, 0) + 1
        if query.most is not None and not group_by:
            some = min(len(found), query.most)
            return Counted(some, (CountedGroup((), some),))
        largest = sorted(groups.items(), key=lambda group: -group[1])[:limit]
        return Counted(len(found), tuple(CountedGroup(*group) for group in largest))

    def waiting_routes(self) -> Sequence[Route]:
        routes = {
            activity.route
            for instance in self._world.instances.values()
            for activity in instance.activities.values()
            if activity.route is not None and _waits_for_node(activity)
        }
        return sorted(routes)

    def _found(self, query: InstanceQuery) -> list[InstanceRecord]:
        records = [
            instance.record(self._dialect) for instance in list(self._world.instances.values())
        ]
        return [record for record in records if _matches(record, query)]

    def executions(self, instance_id: str, after: int = 0, limit: int = 1000) -> list[ExecutionRow]:
        instance = self._world.instances.get(instance_id)
        if instance is None:
            return []
        return [
            read_execution(instance.executions[number], self._dialect)
            for number in sorted(instance.executions)
            if number > after
        ][:limit]

    def history(self, instance_id: str, execution: int) -> list[EventRecord]:
        return self._store.history(instance_id, execution)

    def envelopes(
        self, instance_id: str, execution: int, events: Sequence[int]
    ) -> list[EventRecord]:
        found = self._store.history(instance_id, execution)
        return [replace(event, payload=None) for event in found if event.id in events]

    def messages(self, instance_id: str, after: int = 0, limit: int = 1000) -> list[MessageRow]:
        instance = self._world.instances.get(instance_id)
        if instance is None:
            return []
        found = [read_message(message, self._dialect) for message in instance.messages]
        shown = (*SENT, MessageKind.BACKGROUND_CHILD_ENDED)
        unread = [one for one in found if one.kind in shown and one.sequence > after]
        unread += [one for one in instance.aside if one.sequence > after]
        return sorted(unread, key=lambda one: one.sequence)[:limit]

    def schedule(self, schedule_id: str, slots: int = 20) -> ScheduleRecord | None:
        return schedules.record(self._world, self._dialect, schedule_id, slots)

    def schedules(self, after: str = "", limit: int = 100) -> list[ScheduleRecord]:
        ids = sorted(one for one in self._world.schedules if one > after)[:limit]
        found = [self.schedule(one, 1) for one in ids]
        return [one for one in found if one is not None]

    def request(self, instance_id: str, request_id: str) -> RequestState | None:
        instance = self._world.instances.get(instance_id)
        if instance is None or request_id not in instance.requests:
            return None
        request = instance.requests[request_id]
        is_open = instance.status is Status.OPEN
        return RequestState(request, is_open and instance.row.incarnation == request.incarnation)

    def catalogue(self) -> Catalogue:
        return self._store.catalogue()

    def stream(
        self, instance_id: str, name: str, after: int = 0, page: Page = PAGE
    ) -> StreamPage | None:
        instance = self._world.instances.get(instance_id)
        if instance is None:
            return None
        ended = read(instance.status, self._dialect.library.statuses) is not Status.OPEN
        return page_of(instance.streams, name, after, page, ended=ended)

    def streams(self, instance_id: str) -> Sequence[StreamRow]:
        instance = self._world.instances.get(instance_id)
        streams = {} if instance is None else instance.streams
        return [row_of(name, streams[name]) for name in sorted(streams)]

    def policies(self, name: str, limit: int = 1_001) -> list[PolicyRow]:
        log = self._world.policy_log
        kept = min(limit, policies.KEPT_POLICIES + 1)
        return [row for row in reversed(log) if row.name == name][:kept]

    def tally(self) -> list[TallyRow]:
        records = [one.record(self._dialect) for one in self._world.instances.values()]
        numbers = Counter((one.row.kind, one.status, one.held) for one in records)
        rows = [TallyRow(*key, number) for key, number in numbers.items()]
        return sorted(rows, key=lambda row: (row.kind, str(row.status.value), row.held))

    def census(self, failed_since: int, name: str | None = None) -> Census:
        def asked(found: str) -> bool:
            return name in (None, found)

        instances = list(self._world.instances.values())
        records = [one.record(self._dialect) for one in instances]
        living = [one for one in records if one.status is Status.OPEN and asked(one.row.kind.name)]
        executions = [
            read_execution(execution, self._dialect)
            for one in instances
            for execution in one.executions.values()
            if asked(execution.name)
        ]
        groups: dict[OpenCode, int] = {}
        for one in executions:
            if one.closed_at is None:
                group = OpenCode(
                    one.name, one.version, one.fingerprint, one.resolution.how, one.patches, 0
                )
                groups[group] = min(groups.get(group, one.created_at), one.created_at)
        due = sorted(
            (one.row.boundary_due, one.row.kind)
            for one in living
            if one.row.boundary_due is not None
        )
        crashing = [
            one.row.kind
            for one in living
            if one.row.takeovers >= CRASHES_BEFORE_DELAY and one.row.owner is None and not one.held
        ]
        return Census(
            tuple(row for row in self.tally() if asked(row.kind.name)),
            Counter(one.row.kind for one in living if one.row.owner is not None),
            Counter(crashing),
            {kind: at for at, kind in due},
            Counter(
                (one.name, one.version)
                for one in executions
                if one.end is ExecutionEnd.FAILED and one.closed_at >= failed_since
            ),
            Counter(
                (one.row.kind, one.row.pin.version, one.row.pin.until)
                for one in living
                if one.row.pin
            ),
            in_order(replace(group, oldest=oldest) for group, oldest in groups.items()),
            tuple(
                SeenCode(*key, *self._world.seen[key])
                for key in sorted(
                    self._world.seen,
                    key=lambda key: (key[0], key[1], self._world.seen[key][0], key[2]),
                )
                if asked(key[0])
            ),
            Counter(
                (one.row.kind, "operator" if one.row.paused else one.row.hold.kind)
                for one in living
                if one.held and (one.row.paused or one.row.hold)
            ),
        )

    def operations(self, query: OperationQuery) -> Sequence[OperationRow]:
        entries = [
            OperationRow(
                at,
                by,
                action,
                subject,
                {key: value for key, value in detail.items() if key != "text"},
                f"{number:09}",
                detail.get("text", ""),
            )
            for number, (at, (by, action, subject, detail)) in enumerate(self._world.operations)
        ]
        found = [
            entry
            for entry in entries
            if (query.subject is None or entry.subject == query.subject)
            and (query.action is None or entry.action == query.action)
            and (query.by is None or entry.by == query.by)
            and (query.after is None or (entry.at, entry.number) < query.after)
        ]
        return sorted(found, key=lambda entry: (entry.at, entry.number))[::-1][: query.limit]

    def count_owned(self, node_ids: Sequence[str]) -> Mapping[str, int]:
        return {node_id: len(self._store.owned(node_id)) for node_id in node_ids}

    def going_among(self, instance_ids: Sequence[str]) -> set[str]:
        records = [self.get(instance_id) for instance_id in instance_ids]
        return {
            record.row.instance_id for record in records if record is not None and _is_going(record)
        }


def _is_going(record: InstanceRecord) -> bool:
    return record.status is Status.OPEN and not record.held


def _is_other(record: InstanceRecord, query: InstanceQuery) -> bool:
    return query.other_statuses and isinstance(record.status, Unknown)


_BACKWARDS = (Order.NEWEST, Order.LATEST_CHANGE)


def _place(record: InstanceRecord, query: InstanceQuery) -> tuple[int, str]:
    instants = {
        Order.NEWEST: record.created_at,
        Order.OLDEST: record.created_at,
        Order.LATEST_CHANGE: record.updated_at,
        Order.EARLIEST_CHANGE: record.updated_at,
    }
    return instants.get(query.order, 0), record.row.instance_id


def _waits_for_node(activity: ActivityRow) -> bool:
    ended = activity.result is not None or activity.failure is not None
    return activity.owner is None and not ended and not activity.paused


def _abandoned(record: InstanceRecord, query: InstanceQuery) -> list[ActivityRow]:
    """Return the activities that wait by the query's unserved routes, the oldest first."""
    found = [
        activity
        for activity in record.activities
        if activity.route in query.unserved_routes and _waits_for_node(activity)
    ]
    return sorted(found, key=lambda one: (one.started_at, one.execution, one.event_id))


def _shown(record: InstanceRecord, query: InstanceQuery) -> InstanceRecord:
    abandoned = _abandoned(record, query)
    route = abandoned[0].route if abandoned else None
    return replace(record, activities=(), reports=(), unread_by_name={}, unserved=route)


def _cause(record: InstanceRecord, query: InstanceQuery) -> object:
    """Return what holds an instance: the first that applies."""
    if record.status is not Status.OPEN:
        return None
    row = record.row
    causes = {
        HoldKind.OPERATOR: row.paused,
        row.hold.kind if row.hold else None: record.held,
        HoldKind.VERSION_MISSING: row.kind in query.unserved,
        HoldKind.CRASHING: row.takeovers >= CRASHES_BEFORE_DELAY and row.owner is None,
        HoldKind.ACTIVITY_MISSING: bool(_abandoned(record, query)),
    }
    return next((kind for kind, applies in causes.items() if applies), None)


def _standing(record: InstanceRecord, query: InstanceQuery) -> Standing:
    if _cause(record, query) is not None:
        return Standing.HELD
    begun = record.row.opened or record.row.execution > 1
    return Standing.RUNNING if begun else Standing.PENDING


def _value(record: InstanceRecord, key: str, query: InstanceQuery) -> object:
    kind, is_open = record.row.kind, record.status is Status.OPEN
    values: dict[str, object] = {
        "name": kind.name,
        "version": kind.version,
        "queue": kind.queue,
        "status": (record.status, _standing(record, query) if is_open else None),
        "held": _cause(record, query),
    }
    return values[key] if key in values else record.labels.get(key.partition(":")[2])


def _pin(record: InstanceRecord, now: int) -> Pin | None:
    pin = record.row.pin
    return None if pin is None or (pin.until is not None and pin.until <= now) else pin


def _goes_to(record: InstanceRecord, target: Target, now: int) -> bool:
    pin, kind = _pin(record, now), record.row.kind
    if record.status is not Status.OPEN:
        return False
    if pin is not None:
        return pin.version == target.version if target.version else pin.version != kind.version
    return kind in target.kinds


def _waits_for(record: InstanceRecord, condition: WaitCondition) -> bool:
    try:
        waits = json.loads(record.summary)["w"]
    except (ValueError, KeyError):
        return False
    return record.status is Status.OPEN and any(
        (condition.kind is None or wait[0] == condition.kind)
        and (condition.name is None or wait[1] == condition.name)
        and (condition.since is None or wait[2] <= condition.since)
        for wait in waits
    )


def _comes_after(record: InstanceRecord, query: InstanceQuery) -> bool:
    if query.after is None:
        return True
    if query.order is Order.ID:
        return record.row.instance_id > query.after[1]
    place = _place(record, query)
    return place < query.after if query.order in _BACKWARDS else place > query.after


def _matches(record: InstanceRecord, query: InstanceQuery) -> bool:
    row = record.row
    is_open = record.status is Status.OPEN
    overdue = is_open and row.boundary_due is not None and row.boundary_due <= query.now
    return (
        (query.name is None or row.kind.name == query.name)
        and (query.version is None or row.kind.version == query.version)
        and (query.queue is None or row.kind.queue == query.queue)
        and (query.statuses is None or record.status in query.statuses or _is_other(record, query))
        and (query.standings is None or not is_open or _standing(record, query) in query.standings)
        and (query.held is None or query.held == (_cause(record, query) is not None))
        and (query.holds is None or _cause(record, query) in query.holds)
        and all(_goes_to(record, target, query.now) == target.wanted for target in query.targets)
        and (query.waiting is None or _waits_for(record, query.waiting))
        and (query.overdue is None or query.overdue == overdue)
        and (
            query.pinned is None
            or query.pinned == (is_open and _pin(record, query.now) is not None)
        )
        and (query.id_prefix is None or row.instance_id.startswith(query.id_prefix))
        and (query.created_from is None or record.created_at >= query.created_from)
        and (query.created_until is None or record.created_at < query.created_until)
        and (query.updated_from is None or record.updated_at >= query.updated_from)
        and (query.updated_until is None or record.updated_at < query.updated_until)
        and all(record.labels.get(key) == value for key, value in query.labels.items())
        and (
            query.parent is None
            or (row.parent is not None and row.parent.instance_id == query.parent)
        )
        and (
            query.parent_execution is None
            or (row.parent is not None and row.parent.execution == query.parent_execution)
        )
        and (
            query.schedule is None
            or (record.schedule is not None and record.schedule[0] == query.schedule)
        )
        and _comes_after(record, query)
    )
