"""The result of a check, and the report of all checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

__all__ = ["Check", "ExitCode", "Report", "Verdict"]


class Verdict(StrEnum):
    """The result of a check. ``NOTICE``: worth knowing, nothing to do now."""

    OK = "ok"
    NOTICE = "notice"
    WARNING = "warning"
    FAILURE = "failure"


class ExitCode(IntEnum):
    """The exit code of the command."""

    FINE = 0
    WARNINGS = 1
    FAILURES = 2
    UNREADABLE = 3
    """There is no readable store, or the arguments make no sense."""


_CODES = {
    Verdict.OK: ExitCode.FINE,
    Verdict.NOTICE: ExitCode.FINE,
    Verdict.WARNING: ExitCode.WARNINGS,
    Verdict.FAILURE: ExitCode.FAILURES,
}
_BY_WEIGHT = tuple(Verdict)


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. ``details`` lists single cases. ``remedy`` says what to do; it may be empty."""

    name: str
    verdict: Verdict
    text: str
    details: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All findings. ``readable``: there is a store that could be read."""

    store: str
    checks: Sequence[Check]
    readable: bool = True

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all checks."""
        return max(
            (check.verdict for check in self.checks), key=_BY_WEIGHT.index, default=Verdict.OK
        )

    @property
    def exit_code(self) -> ExitCode:
        """The exit code for this report."""
        return _CODES[self.verdict] if self.readable else ExitCode.UNREADABLE
