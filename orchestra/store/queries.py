"""Queries for many instances, and the records that answer them."""

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
    """The standing of an open instance: not begun; running or waiting; held."""

    PENDING = 0
    RUNNING = 1
    HELD = 2


@dataclass(frozen=True, slots=True)
class InstanceQuery:
    """What to list; every condition must hold. The newest comes first.

    ``statuses``: only instances with one of these; ``other_statuses``: also those with a status
    that this library does not know. ``standings`` restricts open instances, not ended ones.
    ``held``: it has a stored hold, has crashed nodes repeatedly (``takeovers >= 3``, unowned), or
    is of an ``unserved`` kind. ``parent`` selects the children of this id, of all its executions
    unless ``parent_execution`` names one. ``after`` is the (created_at, instance_id) of the last
    row of the previous page.
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
    deleted after its end.

    ``unread_messages`` counts events only. ``activities`` and ``reports`` (commands whose child's
    end waits unread, by event id) are read for single instances, not in lists.
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
