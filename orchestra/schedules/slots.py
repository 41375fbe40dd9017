"""The slots of a spec in an interval, next to an instant, and how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from orchestra.options import check_moment
from orchestra.schedules.specs import Every, Spec

__all__ = ["Counted", "count_slots", "last_slots", "next_slot", "slots_between"]


class Counted(NamedTuple):
    """How many slots were counted. ``is_all``: there are no more of them."""

    slots: int
    is_all: bool


def slots_between(spec: Spec, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the slots after an instant and not after another, in UTC, the earliest first. They are
    evaluated one by one, as they are asked for.

    Raises:
        InvalidArgument: a bound is no aware datetime.
    """
    check_moment(after, "slots_between(after=...)")
    check_moment(until, "slots_between(until=...)")
    return spec.forward(after, until)


def next_slot(spec: Spec, after: datetime) -> datetime | None:
    """Return the first slot after an instant, in UTC. ``None``: there is none.

    Raises:
        InvalidArgument: the instant is no aware datetime.
    """
    check_moment(after, "next_slot(after=...)")
    return next(spec.forward(after), None)


def last_slots(spec: Spec, after: datetime, until: datetime, most: int) -> list[datetime]:
    """Return the newest slots of an interval, at most ``most`` of them, the earliest first. Older
    ones cost nothing.

    Raises:
        InvalidArgument: a bound is no aware datetime.
    """
    check_moment(after, "last_slots(after=...)")
    check_moment(until, "last_slots(until=...)")
    found = list(islice(spec.backward(until, after), most))
    found.reverse()
    return found


def count_slots(spec: Spec, after: datetime, until: datetime, most: int) -> Counted:
    """Count the slots of an interval: up to ``most``, or all at once for an :class:`Every`."""
    if isinstance(spec, Every):
        return Counted(spec.count(after, until), is_all=True)
    found = sum(1 for _ in islice(slots_between(spec, after, until), most + 1))
    return Counted(min(found, most), is_all=found <= most)
