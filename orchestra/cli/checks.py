"""What a check says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

__all__ = ["Check", "ExitCode", "Report", "Verdict"]


class Verdict(StrEnum):
    """How a check ended. ``NOTICE``: worth knowing, nothing to do now."""

    OK = "ok"
    NOTICE = "notice"
    WARNING = "warning"
    FAILURE = "failure"


class ExitCode(IntEnum):
    """What the command tells its caller."""

    FINE = 0
    WARNINGS = 1
    FAILURES = 2
    UNREADABLE = 3
    """There is no store to look at, or the command was misused."""


_CODES = {
    Verdict.OK: ExitCode.FINE,
    Verdict.NOTICE: ExitCode.FINE,
    Verdict.WARNING: ExitCode.WARNINGS,
    Verdict.FAILURE: ExitCode.FAILURES,
}
_BY_WEIGHT = tuple(Verdict)


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. ``details`` are its single cases; ``remedy`` is what to do about it, empty where
    nothing is to be done.
    """

    name: str
    verdict: Verdict
    text: str
    details: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found. ``readable``: there was a store to look at."""

    store: str
    checks: Sequence[Check]
    readable: bool = True

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        return max(
            (check.verdict for check in self.checks), key=_BY_WEIGHT.index, default=Verdict.OK
        )

    @property
    def exit_code(self) -> ExitCode:
        """What the command ends with."""
        return _CODES[self.verdict] if self.readable else ExitCode.UNREADABLE
