"""Pause an instance, and let it go on (protocol rule 32)."""

from __future__ import annotations

from orchestra.codec import UserText
from orchestra.errors import InstanceNotHeld
from orchestra.operations.known import require_known, require_level
from orchestra.operations.lookup import has_ended, not_found, open_instance
from orchestra.operations.steps import Operation, ReadCatalogue, Submit
from orchestra.store.audit import Record
from orchestra.store.changes import Release, Resume, Suspend
from orchestra.store.kinds import CONTROL_LEVEL, Library
from orchestra.store.outcomes import AppendRefused, Granted, Outcome, Refusal
from orchestra.store.queries import InstanceRecord

__all__ = ["hold", "release"]


def hold(
    instance_id: str, library: Library, *, by: str, reason: str
) -> Operation[InstanceRecord | None]:
    """Put an operator's hold on an instance. Return the instance; ``None``: it had one already.

    Raises:
        InstanceNotFound, AlreadyCompleted: there is none with this id, or it has ended.
        NewerLibraryNeeded: it has what only a newer library knows.
        LevelTooLow: a living node has a library that would not respect the hold.
    """
    record = yield from open_instance(instance_id)
    require_known(record, library)
    require_level((yield from ReadCatalogue()), CONTROL_LEVEL, f"{instance_id!r} cannot be held")
    entry = Record(by, "hold", instance_id, reason=UserText(reason))
    outcome = yield from Submit(
        Suspend(instance_id, by, UserText(reason), record.row.incarnation, entry)
    )
    return record if _granted(instance_id, outcome) else None


def release(
    instance_id: str, library: Library, *, by: str, reason: str = ""
) -> Operation[InstanceRecord | None]:
    """End what holds an instance: the operator's hold, a stored one, or both. Return the instance
    as it was before; ``None``: the operator's hold was ended meanwhile.

    Raises:
        InstanceNotFound, AlreadyCompleted: there is none with this id, or it has ended.
        InstanceNotHeld: no hold of an operator and no stored one holds it, or a stored one was
            released meanwhile.
        NewerLibraryNeeded: it is held for a reason that only a newer library knows, or has other
            rows of one.
    """
    record = yield from open_instance(instance_id)
    require_known(record, library)
    row = record.row
    entry = Record(by, "release", instance_id, reason=UserText(reason))
    if row.paused:
        outcome = yield from Submit(Resume(instance_id, by, row.incarnation, entry))
        # Refused: it was released meanwhile, perhaps by this call, whose reply was lost.
        return record if _granted(instance_id, outcome) else None
    elif record.held:
        outcome = yield from Submit(Release(instance_id, row.incarnation, row.revision, entry))
        if isinstance(outcome, Granted):
            return record
    raise InstanceNotHeld(
        f"instance {instance_id!r} has no hold to release", instance_id=instance_id
    )


def _granted(instance_id: str, outcome: Outcome) -> bool:
    if isinstance(outcome, AppendRefused):
        raise (
            not_found(instance_id)
            if outcome.reason is Refusal.NOT_FOUND
            else has_ended(instance_id)
        )
    return isinstance(outcome, Granted)
