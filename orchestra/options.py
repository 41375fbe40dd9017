"""Check options: durations, counts, ratios, instants. The check is at the call, not at the first
use.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from math import isfinite
from typing import Final

from orchestra.errors import InvalidArgument, OrchestraError

__all__ = [
    "LONGEST",
    "POSITIVE",
    "check_count",
    "check_duration",
    "check_kind",
    "check_moment",
    "check_ratio",
]

POSITIVE: Final = timedelta(microseconds=1)
"""The least positive duration: no store counts finer."""

LONGEST: Final = timedelta(days=36_500)
"""The longest duration: today plus this is a valid instant, and every lock can wait that long."""

_NOTHING: Final = timedelta(0)
_HIGHEST: Final = 2**62
"""No store counts further than 64 bits."""


def check_duration(
    value: object,
    what: str,
    *,
    least: timedelta = _NOTHING,
    most: timedelta = LONGEST,
    optional: bool = False,
    error: type[OrchestraError] = InvalidArgument,
) -> None:
    """Check a duration; ``optional``: ``None`` is valid.

    Raises:
        InvalidArgument: (or the error given) it is no timedelta, or too short, or too long.
    """
    if optional and value is None:
        return
    instead = ", or None" if optional else ""
    if not isinstance(value, timedelta):
        raise error(
            f"{what} takes a timedelta, not {value!r}; write timedelta(seconds=...){instead}"
        )
    if value < least:
        bound = "positive" if least == POSITIVE else f"at least {least}"
        raise error(f"{what} is {value}; it must be {bound}{instead}")
    if value > most:
        raise error(f"{what} is {value}; it must be at most {most}{instead}")


def check_count(
    value: object,
    what: str,
    *,
    least: int = 1,
    optional: bool = False,
    error: type[OrchestraError] = InvalidArgument,
) -> None:
    """Check a whole number; ``optional``: ``None`` is valid.

    Raises:
        InvalidArgument: (or the error given) it is no whole number, or too small, or more than any
            store can count.
    """
    if optional and value is None:
        return
    instead = ", or None" if optional else ""
    if not isinstance(value, int) or isinstance(value, bool):
        raise error(f"{what} takes a whole number, not {value!r}; give {least} or more{instead}")
    if value < least:
        raise error(f"{what} is {value}; it must be at least {least}{instead}")
    if value >= _HIGHEST:
        raise error(f"{what} is {value}; no number is as large")


def check_ratio(
    value: object,
    what: str,
    *,
    least: float,
    most: float | None = None,
    error: type[OrchestraError] = InvalidArgument,
) -> None:
    """Check a number that need not be whole.

    Raises:
        InvalidArgument: (or the error given) it is no finite number, or outside of its bounds.
    """
    bounds = f"{least} or more" if most is None else f"between {least} and {most}"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise error(f"{what} takes a number, not {value!r}; it must be {bounds}")
    if not isfinite(value) or value < least or (most is not None and value > most):
        raise error(f"{what} is {value}; it must be {bounds}")


def check_kind(
    value: object,
    what: str,
    kind: type,
    *,
    optional: bool = False,
    error: type[OrchestraError] = InvalidArgument,
) -> None:
    """Check a value of one of this library's types; ``optional``: ``None`` is valid.

    Raises:
        InvalidArgument: (or the error given) it is of another type.
    """
    if not isinstance(value, kind) and not (optional and value is None):
        instead = ", or None" if optional else ""
        raise error(
            f"{what} takes a {kind.__name__}, not {value!r}; write {kind.__name__}(...){instead}"
        )


def check_moment(value: object, what: str, *, optional: bool = False) -> None:
    """Check an instant; ``optional``: ``None`` is valid.

    Raises:
        InvalidArgument: it is no datetime, or a naive one, whose instant is unknown.
    """
    if optional and value is None:
        return
    if not isinstance(value, datetime):
        raise InvalidArgument(
            f"{what} takes an aware datetime, not {value!r}; write datetime(..., tzinfo=UTC)"
        )
    if value.utcoffset() is None:
        raise InvalidArgument(
            f"{what} is {value!r}, which has no time zone; write datetime(..., tzinfo=UTC)"
        )
