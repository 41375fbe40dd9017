"""End a stored hold, so that the deployed code tries the instance once more."""

from __future__ import annotations

from orchestra.errors import InstanceNotHeld
from orchestra.operations.known import require_known
from orchestra.operations.lookup import open_instance
from orchestra.operations.steps import Operation, Submit
from orchestra.store.changes import Release
from orchestra.store.kinds import Library
from orchestra.store.outcomes import Granted

__all__ = ["release"]


def release(instance_id: str, library: Library) -> Operation[None]:
    """End the hold of an instance.

    Raises:
        InstanceNotFound, AlreadyCompleted: there is none with this id, or it has ended.
        InstanceNotHeld: it has no stored hold, or it was released meanwhile.
        NewerLibraryNeeded: it is held for a reason that only a newer library knows, or has other
            rows of one.
    """
    record = yield from open_instance(instance_id)
    require_known(record, library)
    row = record.row
    if record.held and isinstance(
        (yield from Submit(Release(instance_id, row.incarnation, row.revision))), Granted
    ):
        return
    raise InstanceNotHeld(
        f"instance {instance_id!r} has no stored hold to release", instance_id=instance_id
    )
