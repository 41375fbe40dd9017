"""What a client asks the store to do: which version a start takes, and what operators write into an instance from outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b

from orchestra.codec import encode, pack
from orchestra.errors import ErrorInfo, NewerLibraryNeeded, UnknownOrchestration, UnknownVersion, UnreadablePolicy
from orchestra.events import EventWriter, ExecutionTerminated, error_to_wire, to_record
from orchestra.levels import Unknown
from orchestra.providers.kinds import Library
from orchestra.providers.rows import (
    Catalogue,
    ClientChange,
    ExecutionDelta,
    ExecutionEnd,
    ExecutionRow,
    InstanceRecord,
    InstanceRow,
    InstanceState,
    Kind,
    Resolution,
    ResolvedBy,
    Status,
    Write,
)
from orchestra.resolution import (
    LOWEST_VERSION,
    boundary_version,
    has_readable_policy,
    opening_version,
    policy_of,
    started_versions,
)
from orchestra.summary import EMPTY_SUMMARY
from orchestra.versions import Exact, Policy, UnknownPolicy, parse_version, resolve, version_key

__all__ = [
    "check_target",
    "chosen_version",
    "following",
    "id_of_request",
    "raise_unless_known",
    "require_known",
    "retargeting",
    "termination",
]


def id_of_request(name: str, request_id: str) -> str:
    """Return the id of an instance that was given none: the same for each repetition of the request (I1)."""
    return blake2b(encode([name, request_id], subject="request id").data, digest_size=16).hexdigest()


def chosen_version(catalogue: Catalogue, name: str, version: str | None, queue: str) -> str:
    """Return the version that a start takes: one of those that the queue's nodes have.

    While none of these has the name, one under which it was started in the queue before: every worker may be away for a
    restart. What is in other queues says nothing, unless no node lives at all.

    Raises:
        UnknownOrchestration, UnknownVersion: no living node that serves the queue has it, and no instance was started with it
            there before.
        UnreadablePolicy: a newer library has set the policy of the name.
        InvalidVersion: it is not semver.
    """
    if version is not None:
        parse_version(version)
    if catalogue.nodes:
        available = catalogue.versions(name, queue) or started_versions(catalogue, name, queue)
    else:
        available = started_versions(catalogue, name)
    if not available:
        raise UnknownOrchestration(_nobody_has(catalogue, name, queue), name=name)
    policy = policy_of(catalogue, name)[0]
    if version is None and isinstance(policy, UnknownPolicy):
        raise UnreadablePolicy(
            f"the version policy of {name!r} is {policy.text!r}, which a newer library has set and this one cannot read; "
            f"upgrade the library here, name a version, or set another policy with client.set_version_policy({name!r}, ...)",
            name=name,
            value=policy.text,
        )
    chosen = version or resolve(policy, available)
    if chosen not in available:
        remedy = "start a runtime that has it, or name another version"
        if version is None:
            remedy = (
                f"that is what the version policy of {name!r} says, {policy_of(catalogue, name)[0]!r}: change it with "
                f"client.set_version_policy({name!r}, ...), or start a runtime that has the version"
            )
        raise UnknownVersion(
            f"no living node has registered {name!r} {chosen}{_serving(catalogue, queue)} (registered: {_listed(available)}); "
            f"{remedy}",
            name=name,
            version=str(chosen),
        )
    return chosen


def _nobody_has(catalogue: Catalogue, name: str, queue: str) -> str:
    """Return why a name cannot be started in a queue: it is served by nobody, or by nobody who has the name."""
    nodes = [node.record for node in catalogue.nodes]
    elsewhere = sorted({one for node in nodes for one in node.queues if any(name == has.name for has in node.capabilities)})
    if elsewhere:
        return (
            f"no living node has registered orchestration {name!r} and serves queue {queue!r} (the queues of those that have "
            f"it: {', '.join(map(repr, elsewhere))}); start a runtime that serves it, or name another queue"
        )
    known = sorted({capability.name for node in nodes for capability in node.capabilities})
    have = ", ".join(map(repr, known)) or "nothing"
    return f"no living node has registered orchestration {name!r} (registered: {have}); start a runtime that has it"


def _serving(catalogue: Catalogue, queue: str) -> str:
    """Return the queue as a part of a sentence, where it is not the only one that there is."""
    queues = {one for node in catalogue.nodes for one in node.record.queues}
    return "" if queues <= {queue} else f" and serves queue {queue!r}"


def check_target(catalogue: Catalogue, name: str, policy: Policy) -> None:
    """Check that a policy leads to a version that there is. While no node lives that has the name, nobody can tell.

    Raises:
        UnknownVersion: living nodes have the name, and none has the version.
    """
    available = catalogue.versions(name)
    if isinstance(policy, Exact) and available and policy.version not in available:
        raise UnknownVersion(
            f"no living node has registered {name!r} {policy.version} (registered: {_listed(available)}); pass "
            "allow_missing=True to set the policy ahead of a deploy; what takes the version is held until then",
            name=name,
            version=policy.version,
        )


def _listed(versions: Iterable[str]) -> str:
    return ", ".join(sorted(versions, key=version_key))


def require_known(record: InstanceRecord, library: Library) -> None:
    """Check that this library knows all that an operator's write would change (protocol rule 37).

    Raises:
        NewerLibraryNeeded: it does not, and leaves the instance alone.
    """
    hold = record.row.hold
    held = hold.kind if record.held and hold is not None else None
    kinds = record.status, record.execution.resolution.how, held
    unknown = next((str(kind) for kind in kinds if isinstance(kind, Unknown)), None)
    raise_unless_known(record.row, library, unknown)


def raise_unless_known(row: InstanceRow, library: Library, unknown: str | None = None) -> None:
    """Check that this library may go on with an instance of this kind.

    Raises:
        NewerLibraryNeeded: it may not.
    """
    kind = row.kind
    if unknown is None and kind.level > library.level:
        unknown = f"rows of level {kind.level}, where this library reads up to {library.level}"
    if unknown is None and kind.format not in library.formats:
        unknown = f"history in format {kind.format}"
    if unknown is not None:
        raise NewerLibraryNeeded(
            f"instance {row.instance_id!r} has what only a newer library knows ({unknown}); nothing was changed. "
            "Do it with that library",
            instance_id=row.instance_id,
        )


def termination(row: InstanceRow, reason: str, now: int, writer: EventWriter) -> ClientChange:
    """Return the write that ends an instance from outside, conditional on the revision that was read (rule 6)."""
    event = to_record(ExecutionTerminated(row.history_events + 1, now, reason), writer)
    events = (event,) if row.opened else ()
    error = pack({"error": error_to_wire(ErrorInfo("orchestra.Terminated", reason))})
    event_count = row.history_events + len(events)
    byte_count = row.history_bytes + sum(entry.size for entry in events)
    return Write(
        instance_id=row.instance_id,
        incarnation=row.incarnation,
        revision=row.revision,
        owner=None,
        state=InstanceState(
            kind=row.kind,
            owner=None,
            wake_at=None,
            seen_seq=row.inbox_seq,
            execution=row.execution,
            opened=row.opened,
            takeovers=row.takeovers,
            status=Status.TERMINATED,
            history_events=event_count,
            history_bytes=byte_count,
            summary=EMPTY_SUMMARY,
        ),
        executions=(
            ExecutionDelta(
                row.execution,
                events=events,
                closed=(now, ExecutionEnd.TERMINATED, None, error),
                event_count=event_count,
                byte_count=byte_count,
            ),
        ),
    )


def retargeting(record: InstanceRecord, catalogue: Catalogue, by: str) -> Write | None:
    """Return the write with which an execution that has not begun follows the pin, or the policy where the pin has gone.

    ``None``: there is nothing to do. It has begun or ended, it is to take that version already, or its version was named by
    whoever asked for it, which no operator's pin overrides (rule 16).
    """
    row, execution = record.row, record.execution
    if isinstance(execution.resolution.how, Unknown):
        return None  # the next owner, of a newer library, knows what the pin means to it
    if record.status is not Status.OPEN or row.opened or execution.resolution.how is ResolvedBy.EXPLICIT:
        return None
    if row.pin is not None:
        version = row.pin.version
        resolution = Resolution(ResolvedBy.PIN, by, policy_of(catalogue, execution.name)[1])
    elif execution.resolution.how is ResolvedBy.PIN:
        version, resolution = _by_policy(row.kind, execution, catalogue, by)
    else:
        return None
    return _retargeted(record, version, resolution)


def following(record: InstanceRecord, catalogue: Catalogue, by: str) -> Write | None:
    """Return the write with which an execution that has not begun, and is held, follows a policy that has been changed.

    ``None``: there is nothing to do. It has begun or ended, or is pinned; its version was not chosen by policy, or by a later
    one; or the policy leads to where nodes try it by themselves, which is upwards only (rule 16).
    """
    row, execution = record.row, record.execution
    by_policy = execution.resolution.how is ResolvedBy.POLICY and row.pin is None
    if record.status is not Status.OPEN or row.opened or not by_policy or not has_readable_policy(catalogue, row.kind.name):
        return None
    if execution.resolution.policy_revision > policy_of(catalogue, row.kind.name)[1]:
        return None
    version, resolution = _by_policy(row.kind, execution, catalogue, by)
    return None if version == opening_version(catalogue, row.kind) else _retargeted(record, version, resolution)


def _retargeted(record: InstanceRecord, version: str, resolution: Resolution) -> Write | None:
    row, execution = record.row, record.execution
    kind = replace(row.kind, version=version, floating=resolution.how is ResolvedBy.POLICY)
    if (kind, resolution.how) == (row.kind, execution.resolution.how):
        return None
    # A start may be for later. Who was held, or crashed its owners, is tried on the other code at once.
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
        executions=(ExecutionDelta(row.execution, retargeted=(version, resolution), traceparent=execution.traceparent),),
    )


def _by_policy(kind: Kind, execution: ExecutionRow, catalogue: Catalogue, by: str) -> tuple[str, Resolution]:
    """Return what the policy gives to an execution that has not begun: as the boundary before it, or the start, would have."""
    if execution.state_version is not None:
        return boundary_version(catalogue, kind, execution.state_version, explicit=None, pin=None, node=by)
    # Not those of nodes that were there once: a version that was a mistake has never been anywhere.
    version = resolve(policy_of(catalogue, kind.name)[0], catalogue.versions(kind.name, kind.queue)) or LOWEST_VERSION
    return version, Resolution(ResolvedBy.POLICY, by, policy_of(catalogue, kind.name)[1])
