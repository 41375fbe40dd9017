"""Instances as earlier versions would have left them."""

from __future__ import annotations

from orchestra.clock import new_id
from orchestra.codec import Payload
from orchestra.errors import UnknownOrchestration
from orchestra.operations.begin import new_start
from orchestra.registry import OrchestrationRegistry
from orchestra.resolution import start_version
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import Start
from orchestra.store.kinds import ResolvedBy

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
    return new_start(
        catalogue,
        name,
        chosen,
        ResolvedBy.POLICY,
        state,
        by="test",
        queue=queue,
        instance_id=instance_id,
        incarnation=new_id(),
        request_id=new_id(),
        written_by=version,
        shape=registry.shape(name, version),
    )
