"""Instances as earlier versions would have left them."""

from __future__ import annotations

from orchestra.clock import new_id
from orchestra.codec import Payload
from orchestra.errors import UnknownOrchestration
from orchestra.events import FORMAT
from orchestra.registry import OrchestrationRegistry
from orchestra.resolution import policy_of, resolution_level, start_version
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import Start
from orchestra.store.executions import ExecutionRow, Resolution
from orchestra.store.kinds import ResolvedBy
from orchestra.store.routes import kind_of

__all__ = ["seed"]


def seed(
    catalogue: Catalogue,
    registry: OrchestrationRegistry,
    name: str,
    version: str,
    state: Payload,
    *,
    instance_id: str,
    queue: str,
) -> Start:
    """Return the start of an instance whose state a version has written.

    Raises:
        UnknownOrchestration: no version of the name is registered.
    """
    chosen = start_version(catalogue, name, queue)
    if chosen is None:
        raise UnknownOrchestration(
            f"orchestration {name!r} is not registered in queue {queue!r}; give the test runtime a "
            "registry that has it",
            name=name,
        )
    how = ResolvedBy.POLICY
    return Start(
        instance_id=instance_id,
        incarnation=new_id(),
        request_id=new_id(),
        kind=kind_of(queue, name, chosen, FORMAT, True, resolution_level(catalogue, how)),
        execution=ExecutionRow(
            1,
            name,
            chosen,
            Resolution(how, "test", policy_of(catalogue, name)[1]),
            state,
            version,
            created_at=catalogue.now,
            state_shape=registry.shape(name, version),
        ),
        created_by="test",
    )
