"""The one place that reads clocks and makes ids.

All other modules receive a :class:`Clock`, so tests and the simulation run on virtual time. All
instants are integer microseconds since 1970-01-01 UTC.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

__all__ = [
    "STANDS_STILL",
    "Clock",
    "SystemClock",
    "followed",
    "from_micros",
    "micros",
    "new_id",
    "to_micros",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Clock(Protocol):
    """Two clocks: ``now`` is the wall (microseconds UTC), ``monotonic`` never goes back
    (seconds).
    """

    def now(self) -> int: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> int:
        return time.time_ns() // 1000

    if TYPE_CHECKING:

        def monotonic(self) -> float: ...

    else:
        monotonic = staticmethod(time.monotonic)  # a call in C: it is read several times a step


STANDS_STILL: Final = 50_000
"""Microseconds that a clock may go back before it counts as a correction. Until then, time stands
still.
"""


def followed(last: int, now: int) -> int:
    """Return the store's time after ``last``, if its clock shows ``now`` (protocol rule 25).

    The store's time is the clock's. If the clock goes back by a little, as between two processors,
    time stands still. If it goes back by more, time follows: a corrected clock must stop nothing.
    """
    return last if last - STANDS_STILL <= now < last else now


def new_id() -> str:
    """Return a fresh id: 32 hexadecimal digits (RFC 9562 version 7, without dashes).

    Ids that are made one after the other are neighbours in an index, so stores write few pages for
    many new rows. The first 15 digits are the time (6.2, method 3), the last 16 are random.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    # From urandom, like uuid4: forked children never repeat an id.
    random = int.from_bytes(os.urandom(8)) & (1 << 62) - 1
    time_part = milliseconds << 80 | 7 << 76 | (rest << 12) // 1_000_000 << 64
    return f"{time_part | 2 << 62 | random:032x}"


def micros(delta: timedelta) -> int:
    """Return a duration in microseconds."""
    return delta // _MICROSECOND


def to_micros(moment: datetime) -> int:
    """Return an aware datetime as microseconds UTC.

    Raises:
        ValueError: the datetime is naive, so its instant is unknown.
    """
    if moment.tzinfo is None:
        raise ValueError(
            f"{moment!r} has no time zone; use an aware datetime, for example datetime(..., "
            "tzinfo=UTC)"
        )
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(instant: int) -> datetime:
    """Return microseconds UTC as an aware datetime; beyond the year 9999, the last possible one."""
    try:
        return _EPOCH + timedelta(microseconds=instant)
    except OverflowError:
        # No code can ask for such an instant, but a damaged row must still be shown.
        return _LAST if instant > 0 else _FIRST
