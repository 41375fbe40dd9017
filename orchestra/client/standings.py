"""Counts by status and by hold, made of numbers that the store keeps: no instance is looked at but
those that are held or have not begun.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from orchestra.operations.holds import unserved_kinds
from orchestra.operations.selecting import unserved_routes
from orchestra.store.catalogue import Catalogue
from orchestra.store.census import Census
from orchestra.store.kinds import HoldKind, Status
from orchestra.store.port import Directory
from orchestra.store.queries import Counted, CountedGroup, GroupBy, InstanceQuery, Standing

__all__ = ["count_standings", "missing_activities"]

_PLACE: Final = (GroupBy.NAME, GroupBy.VERSION, GroupBy.QUEUE)
_Place = tuple[str, str, str]
"""A name, a version and a queue."""
_Atom = tuple[_Place, Any, Any, int]
"""A place, a status as the store counts by it, the cause of a hold or ``None``, and a number."""


def count_standings(
    directory: Directory, catalogue: Catalogue, asked: InstanceQuery, keys: Sequence[str], most: int
) -> Counted:
    """Return what :meth:`Directory.count` does, for a query of a name, a version and a queue at
    most.
    """
    groups: Counter[tuple[Any, ...]] = Counter()
    by_status = GroupBy.STATUS in keys
    for place, status, cause, number in _atoms(directory, catalogue, asked, by_status=by_status):
        values: dict[str, Any] = dict(zip(map(str, _PLACE), place, strict=True))
        values |= {GroupBy.STATUS: status, GroupBy.HELD: cause}
        groups[tuple(values[key] for key in keys)] += number
    groups = +groups
    return Counted(groups.total(), tuple(CountedGroup(*one) for one in groups.most_common(most)))


def missing_activities(directory: Directory, catalogue: Catalogue) -> Counter[_Place]:
    """Count the instances that wait for an activity that no living node takes, and that nothing
    else holds.
    """
    routes = unserved_routes(directory.waiting_routes(), catalogue)
    if not routes:
        return Counter()
    return _by_place(
        directory,
        InstanceQuery(
            holds=(HoldKind.ACTIVITY_MISSING,),
            unserved=unserved_kinds(catalogue),
            unserved_routes=routes,
        ),
    )


def _by_place(directory: Directory, query: InstanceQuery) -> Counter[_Place]:
    counted = directory.count(query, _PLACE, 100_000)
    return Counter({(str(n), str(v), str(q)): number for (n, v, q), number in _pairs(counted)})


def _pairs(counted: Counted) -> Iterator[tuple[tuple[Any, ...], int]]:
    return ((group.values, group.count) for group in counted.groups)


def _atoms(
    directory: Directory, catalogue: Catalogue, asked: InstanceQuery, *, by_status: bool
) -> Iterator[_Atom]:
    """Yield the parts that groups are made of. Without ``by_status`` what has not begun counts as
    running: to find it is a look at each instance that has not begun.
    """
    census = directory.census(catalogue.now, asked.name)
    unserved = frozenset(unserved_kinds(catalogue))
    routes = unserved_routes(directory.waiting_routes(), catalogue)
    pending: Counter[_Place] = Counter()
    if by_status:
        pending = _by_place(
            directory,
            InstanceQuery(
                name=asked.name,
                version=asked.version,
                queue=asked.queue,
                statuses=(Status.OPEN,),
                standings=(Standing.PENDING,),
                unserved=tuple(unserved),
                unserved_routes=routes,
            ),
        )
    waiting = missing_activities(directory, catalogue)
    free: Counter[_Place] = Counter()
    for place, number, atoms in _of_kinds(census, unserved):
        if all(
            wanted in (None, found)
            for wanted, found in zip((asked.name, asked.version, asked.queue), place, strict=True)
        ):
            free[place] += number
            yield from atoms
    for place, number in free.items():
        waits, missing = pending[place], waiting[place]
        yield place, (Status.OPEN, Standing.PENDING), None, waits
        yield place, (Status.OPEN, Standing.HELD), HoldKind.ACTIVITY_MISSING, missing
        yield place, (Status.OPEN, Standing.RUNNING), None, max(0, number - waits - missing)


def _of_kinds(
    census: Census, unserved: frozenset[Any]
) -> Iterator[tuple[_Place, int, list[_Atom]]]:
    """Yield how many open instances of a kind nothing holds, and what is known of its others."""
    causes: dict[Any, Counter[Any]] = {}
    for (kind, cause), number in census.holds.items():
        causes.setdefault(kind, Counter())[cause] += number
    for row in census.tally:
        kind = row.kind
        place = (kind.name, kind.version, kind.queue)
        held = (Status.OPEN, Standing.HELD)
        if row.status is not Status.OPEN:
            yield place, 0, [(place, (row.status, None), None, row.number)]
        elif row.held:
            known = causes.get(kind, Counter())
            rest = max(0, row.number - known.total())
            yield (
                place,
                0,
                [(place, held, cause, number) for cause, number in (*known.items(), (None, rest))],
            )
        elif kind in unserved:
            yield place, 0, [(place, held, HoldKind.VERSION_MISSING, row.number)]
        else:
            crashing = census.crashing.get(kind, 0)
            yield place, row.number - crashing, [(place, held, HoldKind.CRASHING, crashing)]
