"""What a store holds, in numbers that the store keeps: the cost does not grow with what waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from orchestra.client.access import HELD_AGE, Access
from orchestra.client.version_reports import VersionInfo, read_report
from orchestra.clock import from_micros, micros
from orchestra.operations.holds import unserved_kinds
from orchestra.operations.selecting import drifting, unserved_routes
from orchestra.store.census import Census
from orchestra.store.kinds import HoldKind, Status
from orchestra.store.port import Directory
from orchestra.store.queries import Counted, GroupBy, InstanceQuery

__all__ = ["MOST", "BoundariesDue", "StoreSummary", "read_store_summary"]

MOST: Final = 10_000
"""How far single instances are counted: a larger number says only that there are at least so
many.
"""
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class BoundariesDue:
    """How many open executions have a boundary that is overdue, that is due within an hour, and
    within a day but not within the hour. Each number goes up to 10,000.
    """

    overdue: int
    within_an_hour: int
    within_a_day: int


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """What a store holds, in numbers. ``at`` is when, on the store's clock.

    ``live`` counts the open instances; ``held`` those of them that cannot go on now. ``ended``
    counts the ended ones by their status. ``drifting`` counts the open instances whose policy gives
    another version at the next boundary; pins are left out of account. ``held_by_kind`` counts up
    to 10,000 held instances by the cause.
    """

    at: datetime
    live: int
    held: int
    ended: Mapping[str, int]
    drifting: int
    held_by_kind: Mapping[str, int]
    boundaries: BoundariesDue
    versions: tuple[VersionInfo, ...]

    @property
    def total(self) -> int:
        """How many instances there are."""
        return self.live + sum(self.ended.values())


async def read_store_summary(access: Access) -> StoreSummary:
    """Return the summary; see :meth:`Client.summarize_store`."""
    catalogue, census, versions = await read_report(access, None, HELD_AGE)
    unserved = unserved_kinds(catalogue)

    def read(directory: Directory) -> tuple[list[Counted], Counted]:
        moments = (catalogue.now, catalogue.now + micros(_HOUR), catalogue.now + micros(_DAY))
        due = [
            directory.count(InstanceQuery(overdue=True, now=moment, most=MOST))
            for moment in moments
        ]
        routes = unserved_routes(directory.waiting_routes(), catalogue)
        # Without the kinds that no node serves, which the tally counts: the rest is found by
        # indexes.
        held = directory.count(InstanceQuery(held=True, unserved_routes=routes), (GroupBy.HELD,))
        return due, held

    due, held = await access.read(read)
    open_by_kind = Counter[object]()
    for row in census.tally:
        if row.status is Status.OPEN:
            open_by_kind[row.kind] += row.number
    by_kind = Counter({str(group.values[0]): group.count for group in held.groups})
    missing = sum(
        row.number
        for row in census.tally
        if row.status is Status.OPEN and not row.held and row.kind in unserved
    )
    if missing:
        by_kind[HoldKind.VERSION_MISSING] += missing
    lost = sum(number for kind, number in census.crashing.items() if kind in unserved)
    if lost:  # counted twice: no node has their version either
        by_kind[HoldKind.CRASHING] -= lost
    overdue, hour, day = (one.total for one in due)
    return StoreSummary(
        at=from_micros(catalogue.now),
        live=open_by_kind.total(),
        held=sum(version.held for version in versions),
        ended=_ended(census),
        drifting=sum(open_by_kind[kind] for kind in drifting(catalogue, wanted=True).kinds),
        held_by_kind={kind: count for kind, count in by_kind.most_common() if count > 0},
        boundaries=BoundariesDue(overdue, hour - overdue, day - hour),
        versions=versions,
    )


def _ended(census: Census) -> Mapping[str, int]:
    ended = {status.name.lower(): 0 for status in Status if status is not Status.OPEN}
    for row in census.tally:
        if row.status is not Status.OPEN:
            name = row.status.name.lower() if isinstance(row.status, Status) else "unknown"
            ended[name] = ended.get(name, 0) + row.number
    return ended
