"""What the tests of the contract are written with: kinds, rows and changes with all that does not
matter filled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Final, TypeVar

from orchestra.codec import Payload
from orchestra.events import EventRecord
from orchestra.store.catalogue import Capability, NodeRecord
from orchestra.store.changes import Append, Change, Claim, Start, Write, WriteExtras
from orchestra.store.executions import Closing, ExecutionDelta, ExecutionRow, Resolution
from orchestra.store.inbox_limits import InboxLimits
from orchestra.store.instances import Hold, InstanceRow, InstanceState
from orchestra.store.kinds import ExecutionEnd, HoldKind, ResolvedBy, Status
from orchestra.store.outcomes import Claimed, Outcome, Started
from orchestra.store.port import Provider
from orchestra.store.queries import InstanceRecord
from orchestra.store.routes import DEFAULT_QUEUE, Kind
from orchestra.store.snapshots import Snapshot

T = TypeVar("T")

_OF_EXTRAS: Final = {field.name for field in fields(WriteExtras)}

KIND: Final = Kind(DEFAULT_QUEUE, "watch", "1.0.0", 1)
OTHER_KIND: Final = Kind(DEFAULT_QUEUE, "watch", "1.1.0", 1, floating=True)
FOREIGN_KIND: Final = Kind("elsewhere", "other", "2.0.0", 1)
POLICY: Final = Resolution(ResolvedBy.POLICY, "n1", 1)
SECOND: Final = 1_000_000
TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def an_execution(number: int = 1, version: str = "1.0.0", name: str = "watch") -> ExecutionRow:
    return ExecutionRow(number, name, version, POLICY, Payload(b'{"checks":0}'), None, created_at=7)


def a_start(
    instance_id: str,
    incarnation: str = "a",
    request_id: str = "r",
    kind: Kind = KIND,
    wake_at: int = 0,
) -> Start:
    execution = an_execution(1, kind.version, kind.name)
    return Start(instance_id, incarnation, request_id, kind, execution, wake_at)


def an_event(number: int) -> EventRecord:
    payload = Payload(b'["x"]', encoding=2) if number % 2 else None
    return EventRecord(
        number, kind=2, at=number, format=1, envelope=b"{%d}" % number, payload=payload
    )


def an_append(
    instance_id: str,
    message_id: str = "m1",
    name: str = "go",
    limit: int = 10_000,
    byte_limit: int = 1_000_000,
) -> Append:
    limits = InboxLimits(limit, byte_limit)
    return Append(
        instance_id, message_id, name, Payload(b'"hello"'), sender="somebody", limits=limits
    )


def a_hold(tried: tuple[str, ...] = ("f1",)) -> Hold:
    return Hold(
        HoldKind.STATE, "the state does not fit", since=5, by="n1", tried=tried, at_fault=tried[:1]
    )


def a_node(node_id: str = "n1", host: str = "here") -> NodeRecord:
    capabilities = (Capability("watch", "1.0.0", "f1"), Capability("watch", "1.1.0", "f2"))
    return NodeRecord(
        node_id,
        host,
        "boot",
        1,
        "0.1.0",
        (1,),
        15 * SECOND,
        capabilities,
        ("probe",),
        (DEFAULT_QUEUE, "slow"),
        8,
    )


def a_state(row: InstanceRow, **changes: Any) -> InstanceState:
    standing = InstanceState(
        kind=row.kind,
        owner=row.owner,
        wake_at=None,
        seen_seq=row.inbox_seq,
        execution=row.execution,
        opened=True,
        takeovers=0,
        status=Status.OPEN,
        history_events=row.history_events,
        history_bytes=row.history_bytes,
        summary=b"{}",
    )
    return replace(standing, **changes)


def a_write(row: InstanceRow, state: InstanceState | None = None, **changes: Any) -> Write:
    plain = Write(row.instance_id, row.incarnation, row.revision, row.owner, state or a_state(row))
    return changed(plain, **changes)


def changed(write: Write, **changes: Any) -> Write:
    """Return a write with other fields, of its own or of its extras."""
    extras = {name: changes.pop(name) for name in _OF_EXTRAS & changes.keys()}
    return replace(write, **changes, extras=replace(write.extras, **extras))


def an_end(row: InstanceRow, status: Status = Status.COMPLETED, **fields: Any) -> Write:
    closed = Closing(9, ExecutionEnd(status.value), Payload(b'"done"'), None)
    delta = ExecutionDelta(row.execution, closed=closed, event_count=4, byte_count=44)
    return a_write(row, a_state(row, status=status, owner=None), executions=(delta,), **fields)


def a_park(row: InstanceRow, wake_at: int | None = None, seen_seq: int | None = None) -> Write:
    seen = row.inbox_seq if seen_seq is None else seen_seq
    return a_write(row, a_state(row, owner=None, wake_at=wake_at, seen_seq=seen))


def one(provider: Provider, change: Change) -> Outcome:
    return provider.store.commit([change]).outcomes[0]


def expect(outcome: Outcome, kind: type[T]) -> T:
    assert isinstance(outcome, kind), outcome
    return outcome


def claim(
    provider: Provider, node: str = "n1", limit: int = 10, kinds: tuple[Kind, ...] = (KIND,)
) -> tuple[Snapshot, ...]:
    return expect(one(provider, Claim(node, kinds, limit)), Claimed).snapshots


def begin(provider: Provider, instance_id: str = "i", node: str = "n1") -> InstanceRow:
    """Start an instance and claim it."""
    expect(one(provider, a_start(instance_id)), Started)
    (snapshot,) = claim(provider, node)
    return snapshot.row


def read(provider: Provider, instance_id: str = "i") -> InstanceRecord:
    record = provider.directory.get(instance_id)
    assert record is not None
    return record


def ids(snapshots: Sequence[Snapshot]) -> list[str]:
    return [snapshot.row.instance_id for snapshot in snapshots]
