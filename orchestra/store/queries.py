"""What a client asks of many instances, and the records that answer it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from orchestra.codec import Packed, Payload
from orchestra.levels import Unknown
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import InstanceRow
from orchestra.store.kinds import Status
from orchestra.store.routes import Kind
from orchestra.store.tasks import ActivityRow

__all__ = ["InstanceQuery", "InstanceRecord", "Standing"]


class Standing(IntEnum):
    """How an open instance stands: no lap of it has begun; it goes on, or waits for something; it
    cannot go on now.
    """

    PENDING = 0
    RUNNING = 1
    HELD = 2


@dataclass(frozen=True, slots=True)
class InstanceQuery:
    """What to list; every condition must hold. The newest comes first.

    ``statuses``: only those that stand so; ``other_statuses``: also those in a way that this
    library does not know. ``standings``: of the open ones only those that stand so; they do not
    narrow down those that have ended. ``held``: whether it has a stored hold, has crashed nodes
    repeatedly (``takeovers >= 3``, unowned), or is of an ``unserved`` kind. ``parent`` is the id of
    whose children are asked for, of all its executions unless ``parent_execution`` names one.
    ``after`` is the (created_at, instance_id) of the last row of the page before.
    """

    name: str | None = None
    version: str | None = None
    queue: str | None = None
    statuses: tuple[Status, ...] | None = None
    other_statuses: bool = False
    standings: tuple[Standing, ...] | None = None
    held: bool | None = None
    unserved: tuple[Kind, ...] = ()
    id_prefix: str | None = None
    created_from: int | None = None
    created_until: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    parent: str | None = None
    parent_execution: int | None = None
    limit: int = 100
    after: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """Everything that a dashboard shows of an instance, as stored. ``expires_at``: when it is
    deleted, having ended.

    ``unread_messages`` counts events only. ``activities`` and ``reports`` (of which commands the
    child's end waits unread, by event id) are read of single instances, not in lists.
    """

    row: InstanceRow
    held: bool
    status: Status | Unknown
    execution: ExecutionRow
    summary: Packed
    custom_status: Payload | None
    created_at: int
    updated_at: int
    created_by: str
    unread_messages: int
    unread_at_end: Mapping[str, int]
    labels: Mapping[str, str]
    activities: tuple[ActivityRow, ...] = ()
    expires_at: int | None = None
    reports: tuple[int, ...] = ()
