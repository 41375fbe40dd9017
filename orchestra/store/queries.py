"""Queries for many instances, and the records that answer them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any, Final

from orchestra.codec import Packed, Payload
from orchestra.levels import Unknown
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import InstanceRow
from orchestra.store.kinds import HoldKind, Status
from orchestra.store.routes import Kind, Route
from orchestra.store.tasks import ActivityRow

__all__ = [
    "GROUP_LABEL",
    "SET_SIZE",
    "Counted",
    "CountedGroup",
    "GroupBy",
    "InstanceQuery",
    "InstanceRecord",
    "Order",
    "Standing",
    "Target",
    "WaitCondition",
]


class Standing(IntEnum):
    """The standing of an open instance: not begun; running or waiting; held."""

    PENDING = 0
    RUNNING = 1
    HELD = 2


class Order(IntEnum):
    """The order of a list. The id decides between equal instants."""

    NEWEST = 0
    OLDEST = 1
    LATEST_CHANGE = 2
    EARLIEST_CHANGE = 3
    ID = 4

    @property
    def is_descending(self) -> bool:
        """Whether the greatest comes first."""
        return self in {Order.NEWEST, Order.LATEST_CHANGE}


@dataclass(frozen=True, slots=True)
class Target:
    """A condition on the version that open instances take at their next boundary.

    The version of an instance without a pin follows from its kind: it must be one of ``kinds``. A
    pin must lead to ``version`` or, without one, away from the present version. With ``wanted``
    false, all other instances are asked for, ended ones among them.
    """

    kinds: tuple[Kind, ...]
    version: str | None = None
    wanted: bool = True


@dataclass(frozen=True, slots=True)
class WaitCondition:
    """A condition on the first 16 pending commands of an open instance: one of them has this kind
    (activity, timer, event, child) and this name, and has been pending since ``since`` or longer.
    """

    kind: str | None = None
    name: str | None = None
    since: int | None = None


@dataclass(frozen=True, slots=True)
class InstanceQuery:
    """What to list or count; every condition must hold.

    ``statuses``: only instances with one of these; ``other_statuses``: also those with a status
    that this library does not know. ``standings`` restricts open instances, not ended ones.
    ``held``: an operator holds it, it has a stored hold, has crashed nodes repeatedly (``takeovers
    >= 3``, unowned), is of an ``unserved`` kind, or waits for an activity on an unserved route.
    ``holds``: its hold is of one of these kinds; the first of the causes above counts. ``overdue``:
    it is open, and its boundary was due by ``now``. ``parent`` selects the children of this id, of
    all its executions unless ``parent_execution`` names one. ``after`` is the instant by which the
    list is ordered and the id of the last row of the previous page.
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
    order: Order = Order.NEWEST
    holds: tuple[HoldKind, ...] | None = None
    unserved_routes: tuple[Route, ...] = ()
    targets: tuple[Target, ...] = ()
    waiting: WaitCondition | None = None
    overdue: bool | None = None
    now: int = 0
    updated_from: int | None = None
    updated_until: int | None = None
    pinned: bool | None = None
    schedule: str | None = None
    """Only the runs of this schedule."""
    most: int | None = None
    """A count without groups goes no further than this number."""
    few: bool = False
    """The tally says that few instances have this name, version, queue and status: find them as a
    set, in whatever order the index has.
    """
    until: tuple[int, str] | None = None
    """The last place of the order that a list looks at."""

    @property
    def has_key_set(self) -> bool:
        """Whether a key of the instances themselves finds them: their parent, their schedule, a
        boundary that is overdue, a pin.
        """
        return (
            self.parent is not None
            or self.schedule is not None
            or bool(self.overdue or self.pinned)
        )

    @property
    def is_searched(self) -> bool:
        """Whether instances are looked at one after the other for the query's conditions, labels
        left out of account: no index finds those that meet them.
        """
        if self.few or self.has_key_set:
            return False
        if self.held is not False and (self.held or self.holds):
            return bool(self.unserved) and (
                self.holds is None or HoldKind.VERSION_MISSING in self.holds
            )
        is_by_making = self.order in {Order.NEWEST, Order.OLDEST}
        if self.standings == (Standing.PENDING,) and self.statuses == (Status.OPEN,):
            return False
        plain = replace(
            self.bounds_of_order(),
            limit=self.limit,
            unserved=self.unserved,
            now=self.now,
            unserved_routes=self.unserved_routes,
            labels=self.labels,
        )
        if (
            is_by_making
            and self.statuses is not None
            and len(self.statuses) == 1
            and Status.OPEN not in self.statuses
        ):
            plain = replace(plain, statuses=self.statuses)
        return plain != self

    def bounds_of_order(self) -> InstanceQuery:
        """Return a query of the part of this query's order that its own bounds leave."""
        match self.order:
            case Order.NEWEST | Order.OLDEST:
                bounds = InstanceQuery(
                    created_from=self.created_from, created_until=self.created_until
                )
            case Order.LATEST_CHANGE | Order.EARLIEST_CHANGE:
                bounds = InstanceQuery(
                    updated_from=self.updated_from, updated_until=self.updated_until
                )
            case Order.ID:
                bounds = InstanceQuery(id_prefix=self.id_prefix)
        return replace(bounds, order=self.order, after=self.after)


class GroupBy(StrEnum):
    """What instances may be counted by, besides the value of a label (:data:`GROUP_LABEL`)."""

    NAME = "name"
    VERSION = "version"
    QUEUE = "queue"
    STATUS = "status"
    HELD = "held"


GROUP_LABEL: Final = "label:"
"""Precedes the key of a label that instances are counted by."""

SET_SIZE: Final = 10_000
"""A list finds up to so many instances as a set, by a label, a name or a status that few share, and
sorts them; of more it looks at one after the other in the order of the list.
"""


@dataclass(frozen=True, slots=True)
class CountedGroup:
    """How many instances share some values, in the order of the keys that they are grouped by.

    The value of ``status`` is a pair of the status, and the standing of open instances. That of
    ``held`` is a :class:`~orchestra.store.kinds.HoldKind`, and ``None`` for what is not held. That
    of a label is ``None`` for what lacks it.
    """

    values: tuple[Any, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Counted:
    """How many instances a query finds, and the largest groups of them, the largest first."""

    total: int
    groups: tuple[CountedGroup, ...]


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """Everything that a dashboard shows of an instance, as stored. ``expires_at``: when it is
    deleted after its end.

    ``unread_messages`` counts events and requests, but not what was set aside. ``unserved`` is the
    route without a living node by which an activity waits, among the routes of the query; single
    reads do not tell it. ``unread_by_name`` counts the unread events and those that were set aside,
    of at most :data:`~orchestra.store.messages.NAMES_SHOWN` names, those with the most first. It,
    ``activities`` and ``reports`` (commands whose child's end waits unread, by event id) are read
    for single instances, not in lists.
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
    unserved: Route | None = None
    set_aside: int = 0
    unread_by_name: Mapping[str, int] = field(default_factory=dict[str, int])
    schedule: tuple[str, int] | None = None
    """The schedule that has started it, and its slot."""
