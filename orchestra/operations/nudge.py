"""Ask an execution to reach its boundary soon."""

from __future__ import annotations

from orchestra.errors import LevelTooLow
from orchestra.operations.lookup import existing, has_ended, open_instance
from orchestra.operations.steps import Operation, ReadCatalogue, SetNudge
from orchestra.store.kinds import NUDGE_LEVEL
from orchestra.store.nudges import Nudged

__all__ = ["nudge"]


def nudge(
    instance_id: str, *, execution: int | None = None, by: str, reason: str
) -> Operation[bool]:
    """Ask an execution to reach its boundary soon. Return whether it was asked now.

    Otherwise it was asked before, or it is not the current execution any more.

    Args:
        execution: which one is meant; ``None``: the one that is current now.

    Raises:
        InstanceNotFound, AlreadyCompleted: there is none with this id, or it has ended.
        LevelTooLow: a living node has a library that cannot read it.
    """
    record = yield from open_instance(instance_id)
    if execution is not None and execution != record.row.execution:
        return False  # rule 40
    catalogue = yield from ReadCatalogue()
    if catalogue.levels.write < NUDGE_LEVEL:
        raise LevelTooLow(
            f"{instance_id!r} cannot be nudged: a node with an older library lives, which cannot "
            "read that; try again once all nodes have the new library"
        )
    outcome = yield from SetNudge(
        instance_id, record.row.incarnation, record.row.execution, by, reason
    )
    if outcome is Nudged.CLOSED:
        yield from existing(instance_id)
        raise has_ended(instance_id)
    return outcome is Nudged.ASKED
