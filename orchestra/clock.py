"""The one place that reads clocks and makes ids.

Everything else is handed a :class:`Clock`, so that tests and the simulator can run on virtual time.
All instants are integer microseconds since 1970-01-01 UTC.
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
"""By how many microseconds a clock may go back before it was put back: until then, time stands
still for as long.
"""


def followed(last: int, now: int) -> int:
    """Return the store's time after ``last``, where its clock shows ``now`` (protocol rule 25).

    The store's time is that of the clock. Where the clock goes back by a little, as between two
    processors, time stands still; where it is put back by more, time follows, so that a clock that
    ran ahead stops nothing once it is right again.
    """
    return last if last - STANDS_STILL <= now < last else now


def new_id() -> str:
    """Return a fresh random id: 32 hexadecimal digits (RFC 9562 version 4, without dashes)."""
    # From urandom, as uuid4 is: forked children therefore never repeat an id.
    octets = bytearray(os.urandom(16))
    octets[6] = octets[6] & 0x0F | 0x40
    octets[8] = octets[8] & 0x3F | 0x80
    return octets.hex()


def micros(delta: timedelta) -> int:
    """Return a duration in microseconds."""
    return delta // _MICROSECOND


def to_micros(moment: datetime) -> int:
    """Return an aware datetime as microseconds UTC.

    Raises:
        ValueError: the datetime is naive, so that nobody knows which instant it means.
    """
    if moment.tzinfo is None:
        raise ValueError(
            f"{moment!r} has no time zone; use an aware datetime, for example datetime(..., "
            "tzinfo=UTC)"
        )
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(instant: int) -> datetime:
    """Return microseconds UTC as an aware datetime: the last one there is where the instant lies
    beyond the year 9999.
    """
    try:
        return _EPOCH + timedelta(microseconds=instant)
    except OverflowError:
        # No code can ask for one, but a damaged row must still be shown.
        return _LAST if instant > 0 else _FIRST
