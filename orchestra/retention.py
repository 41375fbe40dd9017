"""How much of what is over is kept: histories and executions of an instance that goes on, and
instances that have ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from orchestra.errors import InvalidArgument
from orchestra.options import POSITIVE, check_count, check_duration

__all__ = ["Retention"]

_LONGEST: Final = timedelta(days=365_000)


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept of an orchestration. The current execution is never touched, whatever stands
    here.

    Each bound holds by itself: what any of them lets go of goes. Laps go oldest first, in the write
    of a boundary, so that an instance that waits keeps what it has.

    Args:
        histories: of how many closed laps of an instance the events are kept, at least; as several
            go together it may be up to twice as many, but never 500 more. ``None``: all.
        executions: the same for the rows of executions: version, state, times, output.
        keep_for: laps that ended longer ago go as well, events and rows, but for the newest closed
            one; each goes at the latest at the first boundary after an eighth more of this time.
            ``None``: no lap is too old.
        finished: how long after its end an instance is deleted, with all that belongs to it. Its id
            is free again then, so that the same start makes a new instance. ``None``: never;
            ``client.purge`` deletes by filter.

    Raises:
        InvalidArgument: fewer than one history, fewer executions than histories, or a time that is
            not positive.
    """

    histories: int | None = 10
    executions: int | None = 1000
    keep_for: timedelta | None = None
    finished: timedelta | None = None

    def __post_init__(self) -> None:
        check_count(self.histories, "Retention.histories", optional=True)
        check_count(self.executions, "Retention.executions", optional=True)
        if self.executions is not None and (
            self.histories is None or self.histories > self.executions
        ):
            raise InvalidArgument(
                f"{self.histories} histories cannot be kept of {self.executions} executions; keep "
                "at least as many executions"
            )
        check_duration(
            self.keep_for, "Retention.keep_for", least=POSITIVE, most=_LONGEST, optional=True
        )
        check_duration(
            self.finished, "Retention.finished", least=POSITIVE, most=_LONGEST, optional=True
        )
