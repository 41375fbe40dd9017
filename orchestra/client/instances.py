"""Describe instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from orchestra.client.access import HELD_AGE, Access
from orchestra.client.arguments import (
    check_id,
    check_limit,
    check_number,
)
from orchestra.client.describing import (
    execution_info,
    instance_info,
    node_infos,
    untold_activities,
)
from orchestra.client.exports import export_of
from orchestra.client.history import HistoryEvent, history_event
from orchestra.client.info import (
    ExecutionInfo,
    InstanceInfo,
    InstanceStatus,
    NodeInfo,
)
from orchestra.events import EventKind, EventRecord
from orchestra.operations.lookup import not_found
from orchestra.store.port import Directory
from orchestra.store.queries import InstanceQuery, InstanceRecord

__all__ = ["Instances"]

_CHILDREN: Final = 1_000


class Instances:
    """Reads instances for people."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def info(self, instance_id: str) -> InstanceInfo:
        """Return an instance; see :meth:`Client.get_instance_info`."""
        check_id(instance_id)
        access = self._access
        found = await access.read(lambda directory: _read_whole(directory, instance_id))
        if found is None:
            raise not_found(instance_id)
        record, children, scheduled = found
        info = instance_info(record, await access.catalogue(), children, scheduled)
        held = InstanceStatus.HELD
        if info.status is held or any(child.status is held for child in info.children):
            # Perhaps only by nodes that have come within the last second.
            info = instance_info(record, await access.catalogue(HELD_AGE), children, scheduled)
        return info

    async def executions(
        self, instance_id: str, after: int, limit: int
    ) -> tuple[ExecutionInfo, ...]:
        """Return executions of an instance; see :meth:`Client.list_executions`."""
        check_id(instance_id)
        check_limit(limit)
        check_number(after, "after")
        rows = await self._access.read(
            lambda directory: directory.executions(instance_id, after, limit)
        )
        if not rows:
            await self._access.record(instance_id)
        return tuple(execution_info(instance_id, row) for row in rows)

    async def history(self, instance_id: str, execution_id: int | None) -> tuple[HistoryEvent, ...]:
        """Return the events of an execution; see :meth:`Client.get_history`."""
        check_id(instance_id)
        access = self._access
        if execution_id is not None:
            check_number(execution_id, "execution_id")
        number = (
            (await access.record(instance_id)).row.execution
            if execution_id is None
            else execution_id
        )
        records = await access.read(lambda directory: directory.history(instance_id, number))
        if not records:
            await access.record(instance_id)
        return tuple(history_event(record, access.provider.library) for record in records)

    async def export(self, instance_id: str, execution_id: int | None) -> str:
        """Return histories as JSON; see :meth:`Client.export_history`."""
        check_id(instance_id)
        if execution_id is not None:
            check_number(execution_id, "execution_id")
        record = await self._access.record(instance_id)
        exported = await self._access.read(
            lambda directory: export_of(directory, record, execution_id)
        )
        return exported.decode()

    async def nodes(self) -> tuple[NodeInfo, ...]:
        """Return the nodes that work on the store; see :meth:`Client.list_nodes`."""
        return await self._access.read(_read_nodes)


def _read_whole(
    directory: Directory, instance_id: str
) -> tuple[InstanceRecord, Sequence[InstanceRecord], Sequence[EventRecord]] | None:
    """Return an instance, its children, and the events of activities that its summary has no room
    for.
    """
    record = directory.get(instance_id)
    if record is None:
        return None
    children, untold = _read_children(directory, record), untold_activities(record)
    if not untold:
        return record, children, ()
    scheduled = directory.envelopes(instance_id, record.row.execution, untold)
    # Read at another moment: the id may be a new instance's by now.
    return (
        record,
        children,
        [event for event in scheduled if event.kind == EventKind.ACTIVITY_SCHEDULED],
    )


def _read_children(directory: Directory, record: InstanceRecord) -> list[InstanceRecord]:
    """Return the children of an instance's current execution, in order."""
    row = record.row
    found: list[InstanceRecord] = []
    query = InstanceQuery(parent=row.instance_id, parent_execution=row.execution, limit=_CHILDREN)
    while page := directory.list(query):
        found.extend(page)
        query = replace(query, after=(page[-1].created_at, page[-1].row.instance_id))
        if len(page) < _CHILDREN:
            break
    links = [(child.row.parent, child) for child in found]
    own = [
        (link.event_id, child)
        for link, child in links
        if link is not None and link.incarnation == row.incarnation
    ]
    return [child for _, child in sorted(own, key=lambda pair: pair[0])]


def _read_nodes(directory: Directory) -> tuple[NodeInfo, ...]:
    # Two reads: what changes hands in between may be counted with neither or with both. No node
    # acts on it.
    catalogue = directory.catalogue()
    return node_infos(
        catalogue, directory.count_owned([node.record.node_id for node in catalogue.nodes])
    )
