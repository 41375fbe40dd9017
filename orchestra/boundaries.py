"""When the boundary of an execution is due, and what happens then."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, get_args

from orchestra.errors import RegistrationError
from orchestra.options import POSITIVE, check_duration

__all__ = ["BoundaryDue", "WhenDue"]

WhenDue = Literal["report", "nudge", "cancel", "hold"]
"""What happens to an execution whose boundary is due: it is shown only; it is asked to reach its
boundary; its instance is cancelled; its instance is held until an operator releases it.
"""


@dataclass(frozen=True, slots=True)
class BoundaryDue:
    """How long an execution of a name may take from its opening to its boundary, and what happens
    to one that takes longer.

    Raises:
        RegistrationError: ``after`` is no positive timedelta of at most 100 years, or ``then`` is
            none of the four.
    """

    after: timedelta
    then: WhenDue = "report"

    def __post_init__(self) -> None:
        check_duration(self.after, "due", least=POSITIVE, error=RegistrationError)
        if self.then not in get_args(WhenDue):
            choices = ", ".join(map(repr, get_args(WhenDue)))
            raise RegistrationError(f"then must be one of {choices}, not {self.then!r}")
