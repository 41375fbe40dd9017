"""Delete ended instances: one, or all that a purge selects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from orchestra.errors import InstanceStillOpen
from orchestra.operations.known import require_known
from orchestra.operations.lookup import existing, not_found
from orchestra.operations.steps import Delete, DeleteAll, Find, Operation
from orchestra.store.kinds import Library, Status
from orchestra.store.queries import InstanceQuery, InstanceRecord

__all__ = ["Purged", "delete", "ended_before", "purge"]

_FOUND_AT_ONCE: Final = 100
_DELETED_AT_ONCE: Final = 25
"""Instances that a purge deletes in one transaction: each may have thousands of rows."""
_NAMED: Final = 100


def delete(instance_id: str, library: Library, *, by: str, reason: str) -> Operation[None]:
    """Delete an ended instance.

    Raises:
        InstanceNotFound: there is none with this id, or another client deleted it meanwhile.
        InstanceStillOpen: it has not ended.
        NewerLibraryNeeded: only a newer library knows its status.
    """
    record = yield from existing(instance_id)
    if record.status is Status.OPEN:
        raise InstanceStillOpen(
            f"instance {instance_id!r} has not ended; terminate it first", instance_id=instance_id
        )
    require_known(record, library, history=False)
    # What has ended stays so: if it cannot be deleted, another client has deleted it meanwhile.
    if not (yield from Delete(instance_id, record.row.incarnation, by, reason)):
        raise not_found(instance_id)


@dataclass(frozen=True, slots=True)
class Purged:
    """How many instances a purge deleted, or would delete, and the ids of the first hundred."""

    count: int
    instance_ids: tuple[str, ...]


def purge(
    query: InstanceQuery,
    before: int,
    limit: int | None = None,
    *,
    dry_run: bool,
    by: str,
    reason: str,
) -> Operation[Purged]:
    """Delete the instances that a query finds and that ended before a moment: the newest first, at
    most ``limit``.

    It deletes few instances in one transaction, so that others who work on the store need not wait.
    """
    count, named = 0, list[str]()
    query = replace(query, limit=_FOUND_AT_ONCE)
    while limit is None or count < limit:
        records = yield from Find(query)
        room = None if limit is None else limit - count
        selected = ended_before(records, before, room)
        ids = (
            [instance_id for instance_id, _ in selected]
            if dry_run
            else (yield from _delete_all(selected, by, reason))
        )
        count += len(ids)
        named += ids[: _NAMED - len(named)]
        if len(records) < _FOUND_AT_ONCE:
            break
        query = replace(query, after=(records[-1].created_at, records[-1].row.instance_id))
    return Purged(count, tuple(named))


def ended_before(
    records: Sequence[InstanceRecord], before: int, limit: int | None = None
) -> list[tuple[str, str]]:
    """Return the (id, incarnation) of those that ended before a moment, at most ``limit``."""
    old = (
        (record.row.instance_id, record.row.incarnation)
        for record in records
        if record.status is not Status.OPEN
        and record.execution.closed_at is not None
        and record.execution.closed_at < before
    )
    return list(islice(old, limit))


def _delete_all(instances: Sequence[tuple[str, str]], by: str, reason: str) -> Operation[list[str]]:
    """Delete a page of instances. Return the ids of those that this operation deleted, and no other
    client meanwhile.
    """
    deleted: list[str] = []
    for start in range(0, len(instances), _DELETED_AT_ONCE):
        deleted += yield from DeleteAll(instances[start : start + _DELETED_AT_ONCE], by, reason)
    return deleted
