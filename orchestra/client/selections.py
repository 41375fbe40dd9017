"""Which instances to list, to count, or to change: plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from orchestra.client.info import InstanceStatus
from orchestra.store.kinds import HoldKind

__all__ = ["InstanceCount", "InstanceCounts", "OrderBy", "Selection", "WaitKind", "WaitingFor"]


WaitKind = Literal["activity", "timer", "event", "child", "request"]
"""What an instance may wait for."""


@dataclass(frozen=True, slots=True)
class WaitingFor:
    """What an instance waits for. Each condition that is given must hold for the same thing.

    Attributes:
        kind: the kind of it, as :attr:`WaitingOn.kind` shows it.
        name: the name of the activity, the event, the request or the child.
        longer_than: it has waited for this for at least so long.
    """

    kind: WaitKind | None = None
    name: str | None = None
    longer_than: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which instances are meant; each condition that is given must hold. Without conditions, all.

    Attributes:
        name: the name of the orchestration.
        version: the version that runs, or ran last.
        target_version: the version that an open instance takes at its next boundary, under the
            present policy and its pin.
        drifting: ``True``: only open instances whose next version is another one; ``False``: all
            others.
        status: one or several, as :attr:`InstanceInfo.status` shows it.
        held: ``True``: only held instances, for any cause; a kind: only those held for this cause;
            ``False``: only instances that are not held.
        waiting_on: what an open instance waits for. It looks at the first 16 things, as
            :attr:`InstanceInfo.waiting_on` shows them. The store reads what each instance waits
            for that meets the other conditions, so the cost grows with their number.
        overdue: ``True``: only open instances whose boundary is due; ``False``: all others.
        pinned: ``True``: only open instances with a pin; ``False``: all others.
        labels: these labels with these values.
        id_prefix: the beginning of the id.
        queue: the queue whose nodes run it.
        parent: only children of the instance with this id, of all its executions.
        schedule: only runs that the schedule with this id has started.
        created_after: made at this instant or later.
        created_before: made before it.
        updated_after: last written at this instant or later.
        updated_before: last written before it.
    """

    name: str | None = None
    version: str | None = None
    target_version: str | None = None
    drifting: bool | None = None
    status: InstanceStatus | Sequence[InstanceStatus] | None = None
    held: HoldKind | bool | None = None
    waiting_on: WaitingFor | None = None
    overdue: bool | None = None
    pinned: bool | None = None
    labels: Mapping[str, str] | None = None
    id_prefix: str | None = None
    queue: str | None = None
    parent: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    updated_after: datetime | None = None
    updated_before: datetime | None = None
    schedule: str | None = None


class OrderBy(StrEnum):
    """The order of a list. It is read from an index; but on PostgreSQL a list by the moment of the
    last write looks at each instance that meets the selection, at each call: such an index would
    cost each step of each instance a write.
    """

    NEWEST = "newest"
    """The instance that was made last comes first."""
    OLDEST = "oldest"
    LATEST_CHANGE = "latest_change"
    """The instance that was written last comes first."""
    EARLIEST_CHANGE = "earliest_change"
    ID = "id"


@dataclass(frozen=True, slots=True)
class InstanceCount:
    """How many instances share some values. ``values`` has one for each key that they are counted
    by; ``None``: they have none.
    """

    values: Mapping[str, str | None]
    count: int


@dataclass(frozen=True, slots=True)
class InstanceCounts:
    """How many instances a selection has, and its groups, the largest first.

    ``groups`` may be cut at a limit; ``total`` counts all. ``searched``: only so many instances
    were looked at, the newest, and there are more.
    """

    total: int
    groups: tuple[InstanceCount, ...]
    searched: int | None = None
