"""Looks at the store before a node joins it, and as it has joined: what it would strand, and other
code under its versions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from orchestra.errors import CodeChanged, StartRefused
from orchestra.operations.preflight import (
    PreflightFinding,
    PreflightFindingKind,
    PreflightReport,
)
from orchestra.operations.start_check import check_start, other_code
from orchestra.store.catalogue import Catalogue, NodeRecord
from orchestra.store.port import Directory
from orchestra.telemetry import engine_logger

__all__ = ["PREFLIGHTS", "PreflightMode", "StartCheck"]

PreflightMode = Literal["warn", "refuse", "off"]
PREFLIGHTS: Final = ("warn", "refuse", "off")

_LOGGED: Final = 20
"""How many findings are logged one by one."""


class StartCheck:
    """Checks a node's start.

    Args:
        mode: what becomes of findings: a log line each, a refusal if one is an error, or nothing.
        strict: whether other code under a version of the node refuses the start.
    """

    def __init__(self, node: NodeRecord, mode: PreflightMode, *, strict: bool) -> None:
        self._node = node
        self._mode = mode
        self._strict = strict

    @property
    def is_off(self) -> bool:
        """Whether nothing is checked."""
        return self._mode == "off" and not self._strict

    def before_joining(self, directory: Directory) -> None:
        """Check what the store holds.

        Raises:
            CodeChanged: (strict) open executions of a version began with other code.
            StartRefused: ("refuse") open instances need a version that this node should have.
        """
        if self.is_off:
            return
        catalogue = directory.catalogue()
        report = check_start(self._node, catalogue, directory.census(catalogue.now))
        self._refuse_changes(report.findings)
        if self._mode == "refuse" and not report.ok:
            raise _refusal(report)
        self._log(report.findings)

    def after_joining(self, catalogue: Catalogue) -> None:
        """Compare the node's code with that of the living nodes. Of two that join at once, one sees
        the other.

        Raises:
            CodeChanged: (strict) one has other code for a version.
        """
        if self.is_off:
            return
        found = other_code(self._node, catalogue)
        self._refuse_changes(found)
        self._log(found)

    def _refuse_changes(self, findings: tuple[PreflightFinding, ...]) -> None:
        changed = [one for one in findings if one.kind is PreflightFindingKind.CHANGED_CODE]
        if self._strict and changed:
            first = changed[0]
            raise CodeChanged(
                f"this node does not start: {_listed(changed)}",
                findings=tuple(changed),
                name=first.name,
                version=first.version,
            )

    def _log(self, findings: tuple[PreflightFinding, ...]) -> None:
        if self._mode == "off":
            return
        log: Callable[..., None] = engine_logger.warning
        for one in findings[:_LOGGED]:
            log("%s", one)
        if len(findings) > _LOGGED:
            log(
                "and %d more; client.version_report() has all of them",
                len(findings) - _LOGGED,
            )


def _refusal(report: PreflightReport) -> StartRefused:
    errors = [one for one in report.findings if one.severity == "error"]
    return StartRefused(
        f"this node does not start: {_listed(errors)}; deploy these versions as well, or start "
        'with Runtime(preflight="warn")',
        findings=report.findings,
    )


def _listed(findings: list[PreflightFinding]) -> str:
    more = f"; and {len(findings) - 3} more" if len(findings) > 3 else ""
    return "; ".join(map(str, findings[:3])) + more
