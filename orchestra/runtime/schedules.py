"""The schedules that code declares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

from orchestra.errors import InvalidArgument
from orchestra.schedules import Schedule

__all__ = ["checked_schedules"]


def checked_schedules(schedules: object) -> tuple[Schedule, ...]:
    """Return the schedules that were given to a runtime.

    Raises:
        InvalidArgument: they are no sequence of schedules, or two have one id.
    """
    if not isinstance(schedules, Sequence) or isinstance(schedules, (str, bytes)):
        raise InvalidArgument(f"schedules takes a list of Schedule(...), not {schedules!r}")
    given = tuple(cast("Sequence[object]", schedules))
    for one in given:
        if not isinstance(one, Schedule):
            raise InvalidArgument(f"schedules takes Schedule(...), not {one!r}")
    found = cast("tuple[Schedule, ...]", given)
    twice = [one for one, number in Counter(each.id for each in found).items() if number > 1]
    if twice:
        raise InvalidArgument(f"the schedule {twice[0]!r} is declared twice; give each its own id")
    return found
