"""Read the census of a store in memory. It looks at each instance: memory holds few."""

from __future__ import annotations

from collections import Counter

from orchestra.levels import Unknown
from orchestra.providers.memory.database import Database
from orchestra.store.census import Census, OpenCode, in_order
from orchestra.store.instances import CRASHES_BEFORE_DELAY
from orchestra.store.kinds import Dialect, ExecutionEnd, HoldKind, Status
from orchestra.store.queries import InstanceRecord
from orchestra.store.routes import Kind
from orchestra.store.tallies import read_tally

__all__ = ["read_census"]


def read_census(
    database: Database, failed_since: int, name: str | None, dialect: Dialect
) -> Census:
    """Return the census of one name, or of all. Call it under the database's guard."""
    found = (database.record(row.instance_id, dialect) for row in database.hot_rows())
    asked = [
        one for one in found if one is not None and (name is None or name == one.row.kind.name)
    ]
    living = [one for one in asked if one.status is Status.OPEN]
    executions = [
        execution
        for row in database.hot_rows()
        for execution in database.executions_of(row.instance_id, dialect)
        if name is None or execution.name == name
    ]
    oldest: dict[tuple[object, ...], OpenCode] = {}
    for one in executions:
        if one.closed_at is not None:
            continue
        code = OpenCode(
            one.name, one.version, one.fingerprint, one.resolution.how, one.patches, one.created_at
        )
        key = (one.name, one.version, one.fingerprint or "", one.resolution.how.value, one.patches)
        oldest[key] = min(oldest.get(key, code), code, key=lambda group: group.oldest)
    boundaries: dict[Kind, int] = {}
    for one in living:
        if one.row.boundary_due is not None:
            known = boundaries.get(one.row.kind, one.row.boundary_due)
            boundaries[one.row.kind] = max(known, one.row.boundary_due)
    return Census(
        tally=tuple(
            row
            for row in read_tally(database.tally(), dialect)
            if name is None or row.kind.name == name
        ),
        owned=Counter(one.row.kind for one in living if one.row.owner is not None),
        crashing=Counter(one.row.kind for one in living if _is_crashing(one)),
        holds=Counter(
            (one.row.kind, hold)
            for one in living
            if one.held and (hold := _stored_hold(one)) is not None
        ),
        boundaries=boundaries,
        failed=Counter(
            (one.name, one.version)
            for one in executions
            if one.end is ExecutionEnd.FAILED and (one.closed_at or 0) >= failed_since
        ),
        pinned=Counter(
            (one.row.kind, one.row.pin.version, one.row.pin.until)
            for one in living
            if one.row.pin is not None
        ),
        open_code=in_order(oldest.values()),
        seen=tuple(
            sorted(
                (one for one in database.seen.values() if name is None or one.name == name),
                key=lambda one: (one.name, one.version, one.first_seen, one.fingerprint),
            )
        ),
    )


def _stored_hold(one: InstanceRecord) -> HoldKind | Unknown | None:
    if one.row.paused:
        return HoldKind.OPERATOR
    return None if one.row.hold is None else one.row.hold.kind


def _is_crashing(one: InstanceRecord) -> bool:
    return one.row.takeovers >= CRASHES_BEFORE_DELAY and one.row.owner is None and not one.held
