"""Time zones, and what becomes of local times where clocks are changed.

A *gap* is local time that a zone skips, a *fold* local time that it has twice.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Final

from orchestra.errors import UnknownZone

__all__ = ["fold_at", "gap_at", "instant_of", "start_of_day", "zone_named"]

_HOST_DEPENDENT: Final = frozenset({"localtime", "posixrules", "Factory"})
_SECOND: Final = timedelta(seconds=1)
_NOTHING: Final = timedelta(0)


@lru_cache(maxsize=1024)
def zone_named(name: str) -> tzinfo:
    """Return the zone with an IANA name. The host's zone database comes first, then the package
    ``tzdata``; ``UTC`` needs neither.

    Raises:
        UnknownZone: neither has it, or its meaning differs from host to host.
    """
    if name == "UTC":
        return UTC
    if not isinstance(name, str) or not name or name in _HOST_DEPENDENT:  # pyright: ignore[reportUnnecessaryIsInstance] - users may give anything
        raise UnknownZone(
            f"{name!r} is no zone; write an IANA name such as 'Europe/Berlin'", zone=str(name)
        )
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, LookupError, OSError) as error:
        raise UnknownZone(
            f"this host knows no time zone {name!r}; write an IANA name such as 'Europe/Berlin', "
            "and install the package tzdata where the host has no zone database",
            zone=name,
        ) from error


def _offset(local: datetime, zone: tzinfo, fold: int) -> timedelta:
    return local.replace(tzinfo=zone, fold=fold).utcoffset() or _NOTHING


def fold_at(local: datetime, zone: tzinfo) -> timedelta:
    """Return the length of the fold in which a local time lies; 0 if it lies in none."""
    return max(_NOTHING, _offset(local, zone, 0) - _offset(local, zone, 1))


def gap_at(local: datetime, zone: tzinfo) -> timedelta:
    """Return the length of the gap in which a local time lies; 0 if it lies in none."""
    return max(_NOTHING, _offset(local, zone, 1) - _offset(local, zone, 0))


def instant_of(local: datetime, zone: tzinfo) -> datetime:
    """Return the instant of a local time, in UTC: the first one in a fold, the gap's end in a gap.

    A later local time has never an earlier instant.
    """
    if zone is UTC:
        return local.replace(tzinfo=UTC)
    before, after = _offset(local, zone, 0), _offset(local, zone, 1)
    instant = (local - before).replace(tzinfo=UTC)
    if after <= before:
        return instant
    # In a gap. The clocks are changed in (local - after, local - before], at a whole second.
    low = (local - after).replace(tzinfo=UTC, microsecond=0)
    seconds = int((instant - low) / _SECOND) + 1
    first, last = 0, seconds
    while first < last:
        middle = (first + last) // 2
        if (low + middle * _SECOND).astimezone(zone).utcoffset() == after:
            last = middle
        else:
            first = middle + 1
    return low + first * _SECOND


def start_of_day(day: date, zone: tzinfo) -> datetime:
    """Return the first instant of a local day, in UTC."""
    return instant_of(datetime.combine(day, time()), zone)
