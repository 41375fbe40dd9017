"""From local times to instants: slots on the clocks of a zone, forward and backward."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from orchestra.schedules.zones import fold_at, gap_at, instant_of

__all__ = ["BEFORE", "EARLIEST", "LATEST", "TICK", "LocalClock"]

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9990, 1, 1, tzinfo=UTC)
TICK: Final = timedelta(microseconds=1)
"""No store counts finer."""
BEFORE: Final = EARLIEST - TICK

_NOTHING: Final = timedelta(0)


@dataclass(frozen=True, slots=True)
class LocalClock:
    """How local slots become instants.

    ``forward`` yields local slots after a local time, ``backward`` those at or before it.
    ``repeats``: a slot in a fold occurs twice. ``moves``: whether a local slot in a gap of a given
    length occurs, at the gap's end.
    """

    zone: tzinfo
    forward: Callable[[datetime], Iterator[datetime]]
    backward: Callable[[datetime], Iterator[datetime]]
    repeats: bool = False
    moves: Callable[[datetime, timedelta], bool] = lambda _local, _gap: True

    def instants(self, local: datetime) -> tuple[datetime, ...]:
        """Return the instants of a local slot, the earliest first."""
        zone = self.zone
        if zone is UTC:
            return (local.replace(tzinfo=UTC),)
        gap = gap_at(local, zone)
        if gap and not self.moves(local, gap):
            return ()
        first = instant_of(local, zone)
        if self.repeats and (fold := fold_at(local, zone)):
            return first, first + fold
        return (first,)

    def after(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the slots after an instant, and not after another."""
        after, until = max(after, BEFORE), min(until, LATEST)
        if after >= until:
            return
        start = _local(after, self.zone)
        # In a fold's first passing, earlier local slots are still to come, in the second one.
        start -= fold_at(start, self.zone) if self.repeats else _NOTHING
        last = after
        for instant in _in_order(map(self.instants, self.forward(start))):
            if instant > until:
                return
            if instant > last:
                yield instant
                last = instant

    def upto(self, upto: datetime, after: datetime) -> Iterator[datetime]:
        """Yield the slots at or before an instant, and after another, the latest first."""
        after, upto = max(after, BEFORE), min(upto, LATEST)
        if after >= upto:
            return
        start = _local(upto, self.zone)
        # In a fold's second passing, later local slots were already, in the first one.
        start += fold_at(start, self.zone)
        last = upto + TICK
        for instant in _in_reverse(map(self.instants, self.backward(start))):
            if instant <= after:
                return
            if instant < last:
                yield instant
                last = instant


def _local(instant: datetime, zone: tzinfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _in_order(groups: Iterable[tuple[datetime, ...]]) -> Iterator[datetime]:
    """Yield the instants of local slots in order: in a fold, second passings follow all first
    ones.
    """
    waiting: list[datetime] = []
    for group in groups:
        if not group:
            continue
        while waiting and waiting[0] <= group[0]:
            yield heapq.heappop(waiting)
        yield group[0]
        for later in group[1:]:
            heapq.heappush(waiting, later)
    while waiting:
        yield heapq.heappop(waiting)


def _in_reverse(groups: Iterable[tuple[datetime, ...]]) -> Iterator[datetime]:
    """Yield the instants of local slots, latest first: in a fold, first passings follow all second
    ones.
    """
    waiting: deque[datetime] = deque()  # the latest first; local slots come in this order
    for group in groups:
        if not group:
            continue
        while waiting and waiting[0] >= group[-1]:
            yield waiting.popleft()
        yield group[-1]
        waiting.extend(group[:-1])
    yield from waiting
