"""Reports as text for people and as JSON for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

from orchestra.cli.checks import Check, Report, Verdict
from orchestra.codec import pack, pack_lines
from orchestra.operations.preflight import PreflightReport

__all__ = ["as_json", "as_text", "preflight_as_json"]

_WIDTH: Final = 80
_LABEL: Final = 9
_NAME: Final = 11
_LINES_OF_A_DETAIL: Final = 4


def as_text(report: Report) -> str:
    """Return the report in lines of at most 80 columns."""
    lines = [*_wrapped(f"store: {_printable(report.store)}", "", "  "), ""]
    for check in report.checks:
        lines += _check_lines(check)
    counts = [
        (sum(check.verdict is verdict for check in report.checks), verdict)
        for verdict in reversed(Verdict)
    ]
    lines += ["", ", ".join(_counted(count, verdict) for count, verdict in counts if count)]
    return "\n".join(lines) + "\n"


def as_json(report: Report) -> bytes:
    """Return the report as one JSON object."""
    values = {
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
    return pack(values) + b"\n"


def preflight_as_json(report: PreflightReport) -> bytes:
    """Return a preflight as one JSON object."""
    return pack_lines(
        {
            "ok": report.ok,
            "instances": report.instances,
            "findings": [
                {**asdict(finding), "kind": finding.kind.value} for finding in report.findings
            ],
            "moves": [asdict(move) for move in report.moves],
        }
    )


def _counted(count: int, verdict: Verdict) -> str:
    return f"{count} {verdict.value}{'' if count == 1 or verdict is Verdict.OK else 's'}"


def _check_lines(check: Check) -> Iterator[str]:
    head = f"{check.verdict.value:<{_LABEL}}{check.name:<{_NAME}}"
    margin = " " * len(head)
    yield from _wrapped(_printable(check.text), head, margin)
    for detail in check.details:
        yield from _wrapped(
            _printable(detail), f"{margin}- ", f"{margin}  ", lines=_LINES_OF_A_DETAIL
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


def _printable(text: str) -> str:
    """Escape a text so that it cannot move the cursor or begin a line (I15). Users write ids and
    reasons.
    """
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


def _utf8(text: str) -> str:
    """Escape lone surrogates: they stand for the bytes of a path that is not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
