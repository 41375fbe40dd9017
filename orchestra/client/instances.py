"""Start instances, and describe them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Literal, TypedDict

from orchestra.client.access import HELD_AGE, Access
from orchestra.client.arguments import (
    check_choice,
    check_id,
    check_limit,
    check_name,
    check_number,
    check_start,
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
from orchestra.clock import new_id, to_micros
from orchestra.codec import Payload, decoder, encode
from orchestra.context import OrchestrationContext
from orchestra.errors import (
    InstanceExists,
    InvalidArgument,
    UnknownOrchestration,
)
from orchestra.events import FORMAT, EventKind, EventRecord
from orchestra.operations.lookup import not_found
from orchestra.operations.start import chosen_version, id_of_request
from orchestra.options import check_moment
from orchestra.registry import OrchestrationRegistry
from orchestra.resolution import LOWEST_VERSION, policy_of, resolution_level
from orchestra.signatures import called, plain_function
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import Start
from orchestra.store.executions import ExecutionRow, Resolution
from orchestra.store.kinds import DELAYED_START_LEVEL, ResolvedBy
from orchestra.store.outcomes import StartExists
from orchestra.store.port import Directory
from orchestra.store.queries import InstanceQuery, InstanceRecord
from orchestra.store.routes import kind_of
from orchestra.versions import parse_version

__all__ = ["Instances", "Orchestration", "StartOptions"]

_CHILDREN: Final = 1_000
Orchestration = str | Callable[[OrchestrationContext, Any], Awaitable[Any]]
"""The target of a start: a name, or a registered function."""


class StartOptions(TypedDict, total=False):
    """The keyword arguments of :meth:`Client.start`."""

    instance_id: str | None
    version: str | None
    queue: str
    labels: Mapping[str, str] | None
    request_id: str | None
    existing: Literal["error", "return"]
    written_by: str | None
    not_before: datetime | None
    allow_unregistered: bool


class Instances:
    """Starts instances, and reads them for people."""

    def __init__(
        self, access: Access, registry: OrchestrationRegistry | None, payload_limit: int
    ) -> None:
        self._access = access
        self._registry = registry
        self._payload_limit = payload_limit

    def use(self, registry: OrchestrationRegistry) -> None:
        """Know the names and types of another registry from now on."""
        self._registry = registry

    # --- starting ---

    async def start(
        self,
        orchestration: Orchestration,
        state: Any,
        returns: Any,
        *,
        instance_id: str | None,
        version: str | None,
        queue: str,
        labels: Mapping[str, str] | None,
        request_id: str | None,
        existing: Literal["error", "return"],
        written_by: str | None,
        not_before: datetime | None,
        allow_unregistered: bool,
    ) -> tuple[str, Any]:
        """Start an instance; return its id, and the annotation of its result. See
        :meth:`Client.start`.
        """
        name, annotation = self._called(orchestration)
        annotation = annotation if returns is None else decoder(returns).annotation
        check_name(name, "an orchestration's name")
        check_start(instance_id, request_id, labels)
        check_name(queue, "a queue")
        check_choice(existing, "existing", ("error", "return"))
        check_moment(not_before, "not_before", optional=True)
        catalogue, chosen = await self._choose(
            name, version, queue, allow_unregistered=allow_unregistered
        )
        access = self._access
        how = ResolvedBy.POLICY if version is None else ResolvedBy.EXPLICIT
        resolution = Resolution(how, access.name, policy_of(catalogue, name)[1])
        writer = (
            self._writer(name, chosen) if written_by is None else str(parse_version(written_by))
        )
        payload = self._encoded(state, name, writer)
        first_turn = None if not_before is None else to_micros(not_before)
        level = resolution_level(catalogue, how)
        if first_turn is not None and catalogue.levels.lowest_reader < DELAYED_START_LEVEL:
            level = max(level, DELAYED_START_LEVEL)  # no older node may claim it
        change = Start(
            instance_id=instance_id
            or (new_id() if request_id is None else id_of_request(name, request_id)),
            incarnation=new_id(),
            request_id=request_id or new_id(),
            kind=kind_of(queue, name, chosen, FORMAT, version is None, level),
            execution=ExecutionRow(
                1,
                name,
                chosen,
                resolution,
                payload,
                writer,
                created_at=catalogue.now,
                state_shape=None
                if self._registry is None or writer is None
                else self._registry.shape(name, writer),
            ),
            created_by=access.name,
            labels=dict(labels or {}),
            wake_at=first_turn or 0,
            not_before=first_turn,
        )
        with access.recorder.starting(name, chosen, change.instance_id) as traceparent:
            outcome = await access.port.submit(
                change if traceparent is None else replace(change, traceparent=traceparent)
            )
            if isinstance(outcome, StartExists) and not outcome.same and existing == "error":
                raise InstanceExists(
                    f"instance {change.instance_id!r} exists; choose another id, delete it once "
                    "it has ended, or pass existing='return'",
                    instance_id=change.instance_id,
                )
        return change.instance_id, annotation

    async def rerun(
        self, instance_id: str, version: str | None, new_instance_id: str | None
    ) -> str:
        """Start a new instance from an old one's first input; see :meth:`Client.rerun`."""
        check_id(instance_id)
        check_start(new_instance_id, None, None)
        access = self._access
        record = await access.record(instance_id)
        rows = await access.read(lambda directory: directory.executions(instance_id, 0, 1))
        if not rows or rows[0].number != 1:
            raise InvalidArgument(
                f"retention has deleted the first lap of {instance_id!r}, and its input with it; "
                "start a new instance with a state of its own"
            )
        first, row = rows[0], record.row
        catalogue, chosen = await self._choose(first.name, version, row.kind.queue)
        how = ResolvedBy.POLICY if version is None else ResolvedBy.EXPLICIT
        change = Start(
            instance_id=new_instance_id or new_id(),
            incarnation=new_id(),
            request_id=new_id(),
            kind=kind_of(
                row.kind.queue,
                first.name,
                chosen,
                FORMAT,
                version is None,
                resolution_level(catalogue, how),
            ),
            execution=ExecutionRow(
                1,
                first.name,
                chosen,
                Resolution(how, access.name, policy_of(catalogue, first.name)[1]),
                first.state,
                first.state_version,
                created_at=catalogue.now,
                state_shape=first.state_shape,
            ),
            created_by=f"rerun of {instance_id}",
            labels=dict(record.labels),
        )
        outcome = await access.port.submit(change)
        if isinstance(outcome, StartExists) and not outcome.same:
            raise InstanceExists(
                f"instance {change.instance_id!r} exists; choose another id",
                instance_id=change.instance_id,
            )
        return change.instance_id

    def _called(self, orchestration: Orchestration) -> tuple[str, Any]:
        """Return the name of an orchestration, and the annotation of its result."""
        if inspect.iscoroutine(orchestration):
            plain_function(orchestration, "what is started")
        if isinstance(orchestration, str) or not callable(orchestration):
            return orchestration, Any
        if self._registry is None:
            shown = called(orchestration)
            raise UnknownOrchestration(
                f"this client has no registry that could tell the name of {shown}; give the "
                "name, or make the client with Client(provider, registry=registry)",
                name=shown,
            )
        name, result = self._registry.called(orchestration)
        return name, result.annotation

    async def _choose(
        self, name: str, version: str | None, queue: str, *, allow_unregistered: bool = False
    ) -> tuple[Catalogue, str]:
        """Return the version that a start takes, and the catalogue that says so."""
        catalogue = await self._access.catalogue()
        try:
            return catalogue, chosen_version(catalogue, name, version, queue)
        except UnknownOrchestration:
            # It may have been registered within the last second.
            catalogue = await self._access.catalogue(0)
        chosen = chosen_version(
            catalogue, name, version, queue, allow_unregistered=allow_unregistered
        )
        return catalogue, chosen

    def _writer(self, name: str, chosen: str) -> str | None:
        """Return the version whose shape the input of a start has; ``None``: that of the version
        that opens it, whichever that will be.
        """
        if chosen != LOWEST_VERSION:
            return chosen
        registry = self._registry
        return registry.resolve(name) if registry is not None and name in registry.names else None

    def _encoded(self, state: Any, name: str, version: str | None) -> Payload:
        definition = self._registry.find(name, version) if self._registry and version else None
        if definition is None:
            return encode(state, subject=f"input of {name!r}", limit=self._payload_limit)
        return definition.state.encode_input(
            state, subject=f"input of {name!r} {version}", limit=self._payload_limit
        )

    # --- describing ---

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
