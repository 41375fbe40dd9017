"""Reports as text for people and as JSON for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, cast

from orchestra.cli.checks import Check, Report, Verdict
from orchestra.client.version_reports import VersionInfo
from orchestra.operations.preflight import PreflightReport

__all__ = [
    "as_text",
    "preflight_values",
    "printable",
    "report_values",
    "version_values",
    "versions_as_text",
]

_WIDTH: Final = 80
_LABEL: Final = 9
_NAME: Final = 11
_LINES_OF_A_DETAIL: Final = 4


def as_text(report: Report) -> str:
    """Return the report in lines of at most 80 columns."""
    lines = [*_wrapped(f"store: {printable(report.store)}", "", "  "), ""]
    for check in report.checks:
        lines += _check_lines(check)
    counts = [
        (sum(check.verdict is verdict for check in report.checks), verdict)
        for verdict in reversed(Verdict)
    ]
    lines += ["", ", ".join(_counted(count, verdict) for count, verdict in counts if count)]
    return "\n".join(lines) + "\n"


def report_values(report: Report) -> dict[str, Any]:
    """Return the report as a plain JSON object."""
    return {
        "store": _utf8(report.store),
        "readable": report.readable,
        "verdict": report.verdict.value,
        "exit_code": report.exit_code.value,
        "checks": [
            {
                "name": check.name,
                "verdict": check.verdict.value,
                "text": _utf8(check.text),
                "details": [_utf8(detail) for detail in check.details],
                "remedy": check.remedy,
            }
            for check in report.checks
        ],
    }


def preflight_values(report: PreflightReport) -> dict[str, Any]:
    """Return a preflight as a plain JSON object."""
    return {
        "ok": report.ok,
        "instances": report.instances,
        "findings": [
            {**asdict(finding), "kind": finding.kind.value} for finding in report.findings
        ],
        "moves": [asdict(move) for move in report.moves],
    }


def version_values(report: Iterable[VersionInfo]) -> list[Any]:
    """Return a version report as plain JSON objects."""
    return [_plain(asdict(version)) for version in report]


def versions_as_text(report: Sequence[VersionInfo]) -> str:
    """Return a version report in lines of at most 80 columns."""
    lines: list[str] = []
    for version in report:
        lines += _version_lines(version)
    return "\n".join(lines or ["no version is registered or needed"]) + "\n"


def _version_lines(version: VersionInfo) -> Iterator[str]:
    words = [
        *(["the target"] if version.is_target else []),
        f"live {version.live:,} (waiting {version.waiting:,}, held {version.held:,})",
        f"failed within a day {version.failed_recently:,}",
        *_instant("oldest execution", version.oldest_execution_at),
        *_instant("last boundary due", version.latest_boundary_due),
        f"nodes: {', '.join(version.nodes) or 'none'}",
        *([f"code {version.fingerprint}"] if version.fingerprint else []),
        *(["CODE CHANGED under it"] if version.fingerprint_changed else []),
        *(
            [f"patches that may go: {', '.join(version.unneeded_patches)}"]
            if version.unneeded_patches
            else []
        ),
        *(["safe to retire"] if version.safe_to_retire else []),
    ]
    head = f"{printable(version.name)} {printable(version.version)}: "
    yield from _wrapped(printable("; ".join(words)), head, "  ")
    for blocker in version.blockers:
        yield from _wrapped(printable(blocker), "  - ", "    ")


def _instant(label: str, instant: datetime | None) -> list[str]:
    return [] if instant is None else [f"{label} {instant:%Y-%m-%d %H:%M:%S} UTC"]


def _plain(value: Any) -> Any:
    """Return a value with instants as text."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in cast("Sequence[Any]", value)]
    return value


def _counted(count: int, verdict: Verdict) -> str:
    return f"{count} {verdict.value}{'' if count == 1 or verdict is Verdict.OK else 's'}"


def _check_lines(check: Check) -> Iterator[str]:
    head = f"{check.verdict.value:<{_LABEL}}{check.name:<{_NAME}}"
    margin = " " * len(head)
    yield from _wrapped(printable(check.text), head, margin)
    for detail in check.details:
        yield from _wrapped(
            printable(detail), f"{margin}- ", f"{margin}  ", lines=_LINES_OF_A_DETAIL
        )
    if check.remedy:
        yield from _wrapped(check.remedy, f"{margin}> ", f"{margin}  ")


def _wrapped(text: str, first: str, others: str, *, lines: int | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        max_lines=lines,
        placeholder=" ...",
        break_on_hyphens=False,
    )


def printable(text: str) -> str:
    """Escape a text so that it cannot move the cursor or begin a line (I15). Users write ids and
    reasons.
    """
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


def _utf8(text: str) -> str:
    """Escape lone surrogates: they stand for the bytes of a path that is not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
