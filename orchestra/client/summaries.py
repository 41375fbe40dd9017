"""What a store holds, in numbers that the store keeps: the cost does not grow with what waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from orchestra.client.access import HELD_AGE, Access
from orchestra.client.standings import missing_activities
from orchestra.client.version_reports import VersionInfo, read_report
from orchestra.clock import from_micros, micros
from orchestra.operations.holds import unserved_kinds
from orchestra.operations.selecting import drifting
from orchestra.store.catalogue import Catalogue
from orchestra.store.census import Census
from orchestra.store.kinds import HoldKind, Status
from orchestra.store.port import Directory
from orchestra.store.queries import Counted, InstanceQuery

__all__ = ["MOST", "SEARCHED", "BoundariesDue", "StoreSummary", "read_store_summary"]

MOST: Final = 10_000
"""How far single instances are counted: a larger number says only that there are at least so
many.
"""
SEARCHED: Final = 100_000
"""How many instances screens look at for one answer, where no index finds those that they show."""
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
    another version at the next boundary, or whose pin does (of the first 10,000 pins).
    ``held_by_kind`` counts the held instances by the cause.
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

    def read(directory: Directory) -> tuple[list[Counted], int]:
        moments = (catalogue.now, catalogue.now + micros(_HOUR), catalogue.now + micros(_DAY))
        due = [
            directory.count(InstanceQuery(overdue=True, now=moment, most=MOST))
            for moment in moments
        ]
        return due, missing_activities(directory, catalogue).total()

    due, waiting = await access.read(read)
    open_by_kind = Counter[object]()
    for row in census.tally:
        if row.status is Status.OPEN:
            open_by_kind[row.kind] += row.number
    by_kind = Counter[str]()
    for (_, cause), number in census.holds.items():
        by_kind[str(cause)] += number
    by_kind[HoldKind.VERSION_MISSING] += sum(
        row.number
        for row in census.tally
        if row.status is Status.OPEN and not row.held and row.kind in unserved
    )
    by_kind[HoldKind.CRASHING] += sum(
        number for kind, number in census.crashing.items() if kind not in unserved
    )
    by_kind[HoldKind.ACTIVITY_MISSING] += waiting
    overdue, hour, day = (one.total for one in due)
    return StoreSummary(
        at=from_micros(catalogue.now),
        live=open_by_kind.total(),
        held=sum(version.held for version in versions),
        ended=_ended(census),
        drifting=_drifting(open_by_kind, census, catalogue),
        held_by_kind={kind: count for kind, count in by_kind.most_common() if count > 0},
        boundaries=BoundariesDue(overdue, hour - overdue, day - hour),
        versions=versions,
    )


def _drifting(open_by_kind: Mapping[object, int], census: Census, catalogue: Catalogue) -> int:
    leaving = frozenset(drifting(catalogue, wanted=True).kinds)
    number = sum(open_by_kind[kind] for kind in leaving)
    for (kind, version, until), pinned in census.pinned.items():
        if until is None or catalogue.now < until:
            number += pinned * ((version != kind.version) - (kind in leaving))
    return number


def _ended(census: Census) -> Mapping[str, int]:
    ended = {status.name.lower(): 0 for status in Status if status is not Status.OPEN}
    for row in census.tally:
        if row.status is not Status.OPEN:
            name = row.status.name.lower() if isinstance(row.status, Status) else "unknown"
            ended[name] = ended.get(name, 0) + row.number
    return ended
