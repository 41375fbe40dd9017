"""Find the instance of a command: it must exist, and must not have ended."""

from __future__ import annotations

from orchestra.errors import AlreadyCompleted, InstanceNotFound
from orchestra.levels import Unknown
from orchestra.operations.steps import Get, Operation, Submit
from orchestra.store.changes import Recover
from orchestra.store.instances import InstanceRow
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Recovered
from orchestra.store.queries import InstanceRecord

__all__ = ["existing", "has_ended", "not_found", "open_instance", "row_to_write"]


def existing(instance_id: str) -> Operation[InstanceRecord]:
    """Return an instance.

    Raises:
        InstanceNotFound: there is none with this id.
    """
    record = yield from Get(instance_id)
    if record is None:
        raise not_found(instance_id)
    return record


def open_instance(instance_id: str) -> Operation[InstanceRecord]:
    """Return an instance that has not ended.

    Raises:
        InstanceNotFound, AlreadyCompleted: there is none with this id, or it has ended.
    """
    record = yield from existing(instance_id)
    if record.status is not Status.OPEN:
        raise has_ended(instance_id)
    return record


def row_to_write(record: InstanceRecord, *, raced: bool) -> Operation[InstanceRow | None]:
    """Return the row on whose revision an operator's write is conditional; ``None``: the instance
    has changed hands, has ended, or is in another execution; read it again.

    Args:
        raced: a write was refused before. A loop that hardly waits is written again before this
            write comes. Raising the revision in its owner's name makes the store refuse the owner's
            next write (rule 1), and no other node may write it meanwhile.
    """
    row = record.row
    if not raced or row.owner is None:
        return row
    outcome = yield from Submit(Recover(row.instance_id, row.owner))
    if not isinstance(outcome, Recovered) or outcome.snapshot is None:
        return None
    fenced = outcome.snapshot.row
    same = (fenced.incarnation, fenced.execution) == (row.incarnation, row.execution)
    return fenced if same else None


def not_found(instance_id: str) -> InstanceNotFound:
    """Return the error that there is no instance with this id."""
    return InstanceNotFound(f"there is no instance {instance_id!r}", instance_id=instance_id)


def has_ended(instance_id: str, status: Status | Unknown | None = None) -> AlreadyCompleted:
    """Return the error that an instance has ended, and how, if that is known."""
    how = "" if status is None else f" ({status.name.lower()})"
    return AlreadyCompleted(f"instance {instance_id!r} has ended{how}", instance_id=instance_id)
