"""What readers of the model see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestra.events import EventRecord
from orchestra.levels import Unknown
from orchestra.store import policies
from orchestra.store.catalogue import Catalogue, PolicyRow
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import CRASHES_BEFORE_DELAY
from orchestra.store.kinds import Dialect, MessageKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.queries import InstanceQuery, InstanceRecord, Standing
from orchestra.store.tallies import TallyRow
from tests.support.model.ages import read_execution, read_message
from tests.support.model.store import ModelStore
from tests.support.model.world import ModelWorld


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
        records = [
            replace(instance.record(self._dialect), activities=(), reports=())
            for instance in list(self._world.instances.values())
        ]
        matching = [record for record in records if _matches(record, query)]
        matching.sort(key=lambda record: (record.created_at, record.row.instance_id), reverse=True)
        return matching[: query.limit]

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
        unread = [one for one in found if one.kind is MessageKind.EVENT and one.sequence > after]
        return sorted(unread, key=lambda one: one.sequence)[:limit]

    def catalogue(self) -> Catalogue:
        return self._store.catalogue()

    def policies(self, name: str, limit: int = 1_001) -> list[PolicyRow]:
        log = self._world.policy_log
        kept = min(limit, policies.KEPT_POLICIES + 1)
        return [row for row in reversed(log) if row.name == name][:kept]

    def tally(self) -> list[TallyRow]:
        records = [one.record(self._dialect) for one in self._world.instances.values()]
        numbers = Counter((one.row.kind, one.status, one.held) for one in records)
        rows = [TallyRow(*key, number) for key, number in numbers.items()]
        return sorted(rows, key=lambda row: (row.kind, str(row.status.value), row.held))

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


def _matches(record: InstanceRecord, query: InstanceQuery) -> bool:
    row = record.row
    is_open = record.status is Status.OPEN
    stands_still = is_open and (
        record.held
        or (row.takeovers >= CRASHES_BEFORE_DELAY and row.owner is None)
        or row.kind in query.unserved
    )
    begun = row.opened or row.execution > 1
    standing = Standing.HELD if stands_still else Standing.RUNNING if begun else Standing.PENDING
    return (
        (query.name is None or row.kind.name == query.name)
        and (query.version is None or row.kind.version == query.version)
        and (query.queue is None or row.kind.queue == query.queue)
        and (query.statuses is None or record.status in query.statuses or _is_other(record, query))
        and (query.standings is None or not is_open or standing in query.standings)
        and (query.held is None or query.held == stands_still)
        and (query.id_prefix is None or row.instance_id.startswith(query.id_prefix))
        and (query.created_from is None or record.created_at >= query.created_from)
        and (query.created_until is None or record.created_at < query.created_until)
        and all(record.labels.get(key) == value for key, value in query.labels.items())
        and (
            query.parent is None
            or (row.parent is not None and row.parent.instance_id == query.parent)
        )
        and (
            query.parent_execution is None
            or (row.parent is not None and row.parent.execution == query.parent_execution)
        )
        and (query.after is None or (record.created_at, row.instance_id) < query.after)
    )
