"""What a client asks the store to do: which version a start takes, and the write that ends an instance from outside."""

from __future__ import annotations

from hashlib import blake2b

from orchestra.codec import encode, pack
from orchestra.errors import ErrorInfo, UnknownOrchestration, UnknownVersion
from orchestra.events import ExecutionTerminated, error_to_wire, to_record
from orchestra.providers.rows import (
    Catalogue,
    ClientChange,
    ExecutionDelta,
    ExecutionEnd,
    InstanceRow,
    InstanceState,
    Status,
    Write,
)
from orchestra.resolution import start_version, startable_versions
from orchestra.summary import EMPTY_SUMMARY
from orchestra.versions import parse_version

__all__ = ["chosen_version", "id_of_request", "termination"]


def id_of_request(name: str, request_id: str) -> str:
    """Return the id of an instance that was given none: the same for each repetition of the request (I1)."""
    return blake2b(encode([name, request_id], subject="request id").data, digest_size=16).hexdigest()


def chosen_version(catalogue: Catalogue, name: str, version: str | None, queue: str) -> str:
    """Return the version that a start takes.

    Raises:
        UnknownOrchestration, UnknownVersion: no living node has it, and no instance was started with it before.
        InvalidVersion: it is not semver.
    """
    available = startable_versions(catalogue, name, None if version else queue)
    if not available:
        known = sorted({capability.name for node in catalogue.nodes for capability in node.record.capabilities})
        have = ", ".join(map(repr, known)) or "nothing"
        raise UnknownOrchestration(
            f"no living node has registered orchestration {name!r} (registered: {have}); start a runtime that has it", name=name
        )
    if version is not None:
        parse_version(version)
    chosen = version or start_version(catalogue, name, queue)
    if chosen not in available:
        have = ", ".join(sorted(available))
        raise UnknownVersion(
            f"no living node has registered {name!r} {chosen} (registered: {have})", name=name, version=str(chosen)
        )
    return str(chosen)


def termination(row: InstanceRow, reason: str, now: int) -> ClientChange:
    """Return the write that ends an instance from outside, conditional on the revision that was read (rule 6)."""
    event = to_record(ExecutionTerminated(row.history_events + 1, now, reason))
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
