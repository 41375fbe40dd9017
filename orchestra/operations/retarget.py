"""Give another version to executions that have not begun: they follow a pin, or a changed policy.

The client that sets a pin or a policy performs this. A node that sees a changed policy performs it
too, for instances that were held after the operator's call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from orchestra.errors import OrchestraError, StoreError, UnknownVersion
from orchestra.levels import Unknown
from orchestra.operations.holds import hold_reason, unserved_kinds
from orchestra.operations.lookup import existing, has_ended
from orchestra.operations.start import none_in_range
from orchestra.operations.steps import (
    Find,
    Get,
    Operation,
    ReadCatalogue,
    SetPin,
    Submit,
    SubmitAll,
)
from orchestra.resolution import (
    LOWEST_VERSION,
    boundary_version,
    has_readable_policy,
    opening_version,
    policy_of,
)
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import Write
from orchestra.store.executions import ExecutionDelta, ExecutionRow, Resolution, Retargeting
from orchestra.store.instances import InstanceState
from orchestra.store.kinds import ResolvedBy, Status
from orchestra.store.outcomes import Granted
from orchestra.store.queries import InstanceQuery, InstanceRecord
from orchestra.store.routes import Kind
from orchestra.versions import Exact, Policy, Range, listed, resolve

__all__ = ["check_target", "follow_pin", "follow_policy", "following", "pin", "retargeting"]

_ATTEMPTS: Final = 50
"""How often an operation reads an instance again that was written meanwhile."""
_PAGE: Final = 100
"""Held instances that are read, and written in one group, at once."""


def pin(
    instance_id: str, version: str | None, *, by: str, reason: str, until: int | None = None
) -> Operation[None]:
    """Pin an instance to a version, or unpin it (``None``), and have an execution that has not
    begun follow at once.

    Raises:
        InstanceNotFound, AlreadyCompleted: there is none with this id, or it has ended.
        StoreError: it is pinned, but it is written so often that the execution did not follow.
    """
    if not (yield from SetPin(instance_id, version, by, reason, until)):
        yield from existing(instance_id)
        raise has_ended(instance_id)
    yield from follow_pin(instance_id, by)


def follow_pin(instance_id: str, by: str) -> Operation[None]:
    """Let an execution that has not begun follow the present pin, set or removed by any client."""
    for _ in range(_ATTEMPTS):
        record = yield from existing(instance_id)
        change = retargeting(record, (yield from ReadCatalogue()), by)
        # Refused: a node has claimed it, and perhaps begun it, since it was read (rule 6).
        if change is None or isinstance((yield from Submit(change)), Granted):
            return
    raise StoreError(
        f"instance {instance_id!r} is written so often that the execution which has not begun "
        "did not get its new version; try again"
    )


def follow_policy(name: str, by: str, *, only_pinned: bool = False) -> Operation[int]:
    """Have the executions of a name that are held and have not begun follow its policy. Return how
    many have followed. Those whose pin has expired follow as after an unpin (rule 28).

    Args:
        only_pinned: look only at those with a pin.
    """
    count = 0
    pinned = True if only_pinned else None
    query = InstanceQuery(name=name, statuses=(Status.OPEN,), held=True, pinned=pinned, limit=_PAGE)
    while True:
        catalogue = yield from ReadCatalogue()
        records = yield from Find(replace(query, unserved=unserved_kinds(catalogue)))
        count += yield from _have_follow(records, catalogue, by)
        if len(records) < _PAGE:
            return count
        query = replace(query, after=(records[-1].created_at, records[-1].row.instance_id))


def _have_follow(
    records: Sequence[InstanceRecord], catalogue: Catalogue, by: str
) -> Operation[int]:
    """Have a page of instances follow the policy. Return how many have.

    Raises:
        OrchestraError: the first error of a write. The other instances were still written.
    """
    count = 0
    errors: list[OrchestraError] = []
    for _ in range(_ATTEMPTS):
        moves = [
            following(record, catalogue, by) or _after_pin(record, catalogue, by)
            for record in records
        ]
        changes = [change for change in moves if change is not None]
        if not changes:
            break
        refused: list[str] = []
        for change, outcome in zip(changes, (yield from SubmitAll(changes)), strict=True):
            if isinstance(outcome, OrchestraError):
                errors.append(outcome)
            elif isinstance(outcome, Granted):
                count += 1
            else:
                refused.append(change.instance_id)
        if not refused:
            break
        # Written since they were read (rule 6): they may have gone on, or have followed for another
        # client or node.
        catalogue = yield from ReadCatalogue()
        records = yield from _those_there(refused)
    if errors:
        raise errors[0]
    return count


def _after_pin(record: InstanceRecord, catalogue: Catalogue, by: str) -> Write | None:
    """Return the write with which an execution that has not begun leaves an expired pin."""
    pin = record.row.pin
    has_expired = pin is not None and not pin.holds(catalogue.now)
    return retargeting(record, catalogue, by) if has_expired else None


def _those_there(instance_ids: Sequence[str]) -> Operation[list[InstanceRecord]]:
    found: list[InstanceRecord] = []
    for instance_id in instance_ids:
        record = yield from Get(instance_id)
        if record is not None:
            found.append(record)
    return found


def check_target(catalogue: Catalogue, name: str, policy: Policy) -> None:
    """Check that a policy leads to an existing version. While no living node has the name, every
    version may come.

    Raises:
        UnknownVersion: living nodes have the name, and none has the version.
        NoVersionInRange: living nodes have the name, and none has a version in the range.
    """
    available = catalogue.versions(name)
    if isinstance(policy, Range) and available and resolve(policy, available) is None:
        raise none_in_range(
            name,
            policy,
            available,
            "pass allow_missing=True to set the policy ahead of a deploy; starts are refused, and "
            "boundaries lead to no other version until then",
        )
    if isinstance(policy, Exact) and available and policy.version not in available:
        raise UnknownVersion(
            f"no living node has registered {name!r} {policy.version} (registered: "
            f"{listed(available)}); pass allow_missing=True to set the policy ahead of a "
            "deploy; what takes the version is held until then",
            name=name,
            version=policy.version,
        )


def retargeting(record: InstanceRecord, catalogue: Catalogue, by: str) -> Write | None:
    """Return the write with which an execution that has not begun follows the pin, or the policy if
    the pin is gone.

    ``None``: there is nothing to do. It has begun or ended; it has that version already; or its
    caller named the version, which no operator's pin overrides (rule 16).
    """
    row, execution = record.row, record.execution
    if isinstance(execution.resolution.how, Unknown):
        return None  # the next owner, of a newer library, knows what the pin means to it
    if (
        record.status is not Status.OPEN
        or row.opened
        or execution.resolution.how is ResolvedBy.EXPLICIT
    ):
        return None
    if row.pin is not None and row.pin.holds(catalogue.now):
        version = row.pin.version
        resolution = Resolution(ResolvedBy.PIN, by, policy_of(catalogue, execution.name)[1])
    elif execution.resolution.how is ResolvedBy.PIN:
        version, resolution = _by_policy(row.kind, execution, catalogue, by)
    else:
        return None
    return _retargeted(record, version, resolution)


def following(record: InstanceRecord, catalogue: Catalogue, by: str) -> Write | None:
    """Return the write with which an execution that has not begun, and is held, follows a policy
    that has changed.

    ``None``: there is nothing to do. It has begun or ended, or nothing holds it, or it is pinned;
    its version was not chosen by policy, or by a later one; or nodes go to the policy's version by
    themselves, which they do upwards only (rule 16).
    """
    row, execution = record.row, record.execution
    is_pinned = row.pin is not None and row.pin.holds(catalogue.now)
    by_policy = execution.resolution.how is ResolvedBy.POLICY and not is_pinned
    if (
        row.opened
        or not by_policy
        or not has_readable_policy(catalogue, row.kind.name)
        or hold_reason(record, catalogue) is None
    ):
        return None
    if execution.resolution.policy_revision > policy_of(catalogue, row.kind.name)[1]:
        return None
    version, resolution = _by_policy(row.kind, execution, catalogue, by)
    return (
        None
        if version == opening_version(catalogue, row.kind)
        else _retargeted(record, version, resolution)
    )


def _retargeted(record: InstanceRecord, version: str, resolution: Resolution) -> Write | None:
    row, execution = record.row, record.execution
    kind = row.kind._replace(version=version, floating=resolution.how is ResolvedBy.POLICY)
    if (kind, resolution.how) == (row.kind, execution.resolution.how):
        return None
    # A start may be for later. An instance that was held, or crashed its owners, is tried on the
    # other code at once.
    wake_at = 0 if record.held or row.takeovers else row.wake_at
    return Write(
        instance_id=row.instance_id,
        incarnation=row.incarnation,
        revision=row.revision,
        owner=None,
        state=InstanceState(
            kind=kind,
            owner=None,
            wake_at=wake_at or 0,
            seen_seq=row.seen_seq,
            execution=row.execution,
            opened=False,
            takeovers=0,
            status=Status.OPEN,
            history_events=row.history_events,
            history_bytes=row.history_bytes,
            summary=record.summary,
        ),
        executions=(
            ExecutionDelta(
                row.execution,
                retargeted=Retargeting(version, resolution),
                traceparent=execution.traceparent,
            ),
        ),
    )


def _by_policy(
    kind: Kind, execution: ExecutionRow, catalogue: Catalogue, by: str
) -> tuple[str, Resolution]:
    """Return the policy's version for an execution that has not begun, as its boundary or start
    would have.
    """
    if execution.number > 1:
        before = execution.state_version or execution.version
        return boundary_version(catalogue, kind, before, explicit=None, pin=None, node=by)
    # Not versions of former nodes: a mistaken version never existed anywhere.
    version = (
        resolve(policy_of(catalogue, kind.name)[0], catalogue.versions(kind.name, kind.queue))
        or LOWEST_VERSION
    )
    return version, Resolution(ResolvedBy.POLICY, by, policy_of(catalogue, kind.name)[1])
