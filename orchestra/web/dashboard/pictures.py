"""Pictures: SVG made by pure functions of what was read. Each has a text that says the same.

Colours are classes, so that the page's style sheet decides, in light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from markupsafe import Markup

from orchestra.client.history import HistoryEvent
from orchestra.client.ribbon import Cell, Mark, heights

__all__ = ["Span", "bars", "colours", "ribbon", "spans_of", "timeline"]

_COLOURS: Final = 8
_CELL: Final = 9
_HEIGHT: Final = 48
_MARKS: Final = {
    Mark.FAILURE: "failure",
    Mark.REWIND: "rewind",
    Mark.MIGRATION: "migration",
    Mark.UPGRADE: "upgrade",
}
_ROW: Final = 18
_LABELS: Final = 180
_WIDTH: Final = 820

_BAR: Final = Markup(
    '<g><title>{}</title><rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/></g>'
)
_SVG: Final = Markup(
    '<svg class="{}" role="img" viewBox="0 0 {} {}" width="{}" height="{}" aria-label="{}">{}</svg>'
)


def colours(versions: Iterable[str]) -> dict[str, str]:
    """Return the class of each version's colour, in the order of their appearance."""
    return {
        version: f"v{index % _COLOURS}" for index, version in enumerate(dict.fromkeys(versions))
    }


def ribbon(cells: Sequence[Cell], of_version: Mapping[str, str]) -> Markup:
    """Return the lap ribbon: a bar for each lap, coloured by version, as high as it was long."""
    drawn = [
        _bar(cell, height, number, of_version)
        for number, (cell, height) in enumerate(
            zip(cells, heights(cells, _HEIGHT - 4), strict=True)
        )
    ]
    first, last = (cells[0].first, cells[-1].last) if cells else (0, 0)
    words = f"laps {first} to {last}, on {', '.join(of_version)}"
    return _svg(Markup("").join(drawn), max(1, len(cells)) * _CELL, _HEIGHT + 14, words, "ribbon")


def _bar(cell: Cell, height: int, number: int, of_version: Mapping[str, str]) -> Markup:
    tall = height + 4
    laps = f"lap {cell.first}" if cell.first == cell.last else f"laps {cell.first} to {cell.last}"
    marks = "".join(f", {mark.value}" for mark in cell.marks)
    took = "" if cell.duration is None else f", {_words(cell.duration)}"
    bar = _BAR.format(
        f"{laps} on {cell.version}, {cell.status}{took}{marks}",
        of_version[cell.version],
        number * _CELL,
        _HEIGHT - tall,
        _CELL - 1,
        tall,
    )
    for mark, name in _MARKS.items():
        if mark in cell.marks:
            bar += Markup('<circle class="{}" cx="{}" cy="{}" r="3"/>').format(
                name, number * _CELL + (_CELL - 1) / 2, _HEIGHT + 7
            )
            break
    return bar


def bars(rows: Sequence[tuple[str, Mapping[str, int]]], of_version: Mapping[str, str]) -> Markup:
    """Return stacked bars: for each name, how many instances live on each version."""
    longest = max((sum(counts.values()) for _, counts in rows), default=0)
    drawn: list[Markup] = []
    for number, (name, counts) in enumerate(rows):
        top = number * (_ROW + 6)
        drawn.append(_label(name, top))
        left = float(_LABELS)
        for version, count in counts.items():
            width = count / longest * (_WIDTH - _LABELS - 80) if longest else 0.0
            drawn.append(
                _BAR.format(
                    f"{name} {version}: {count}", of_version[version], left, top, width, _ROW
                )
            )
            left += width
        drawn.append(
            Markup('<text x="{:.1f}" y="{}">{}</text>').format(
                left + 6, top + _ROW - 5, f"{sum(counts.values()):,}"
            )
        )
    words = "; ".join(
        f"{name}: " + ", ".join(f"{count} on {version}" for version, count in counts.items())
        for name, counts in rows
    )
    height = max(1, len(rows)) * (_ROW + 6)
    return _svg(Markup("").join(drawn), _WIDTH, height, f"live instances: {words}", "bars")


@dataclass(frozen=True, slots=True)
class Span:
    """Something of a lap that took time. ``end`` is ``None`` while it goes on."""

    kind: str
    name: str
    begin: datetime
    end: datetime | None
    outcome: str


_BEGINS: Final = {
    "activity_scheduled": "activity",
    "timer_created": "timer",
    "event_awaited": "event",
    "request_awaited": "request",
    "child_started": "child",
    "child_awaited": "child",
}
_ENDS: Final = {
    "activity_completed": "completed",
    "activity_failed": "failed",
    "timer_fired": "fired",
    "event_received": "received",
    "request_received": "received",
    "child_completed": "completed",
    "child_failed": "failed",
    "child_ended": "ended",
    "command_cancelled": "cancelled",
}


def spans_of(events: Sequence[HistoryEvent]) -> tuple[Span, ...]:
    """Return what a history has begun, and how it ended."""
    open_spans: dict[int, Span] = {}
    spans: dict[int, Span] = {}
    for event in events:
        if (kind := _BEGINS.get(event.kind)) is not None:
            name = str(event.details.get("name", kind))
            spans[event.event_id] = open_spans[event.event_id] = Span(
                kind, name, event.at, None, "open"
            )
        elif (outcome := _ENDS.get(event.kind)) is not None:
            begun = open_spans.pop(event.details.get("source", 0), None)
            if begun is not None:
                number = event.details["source"]
                spans[number] = Span(begun.kind, begun.name, begun.begin, event.at, outcome)
    return tuple(spans.values())


def timeline(spans: Sequence[Span], now: datetime) -> Markup:
    """Return a row for each span, from its begin to its end."""
    if not spans:
        return Markup("")
    begin = min(span.begin for span in spans)
    end = max(span.end or now for span in spans)
    whole = max(end - begin, timedelta(milliseconds=1))
    scale = (_WIDTH - _LABELS) / whole.total_seconds()
    drawn: list[Markup] = []
    for number, span in enumerate(spans):
        top = number * (_ROW + 4)
        left = _LABELS + (span.begin - begin).total_seconds() * scale
        width = max(2.0, ((span.end or now) - span.begin).total_seconds() * scale)
        took = _words((span.end or now) - span.begin)
        drawn.append(_label(f"{span.kind} {span.name}", top))
        drawn.append(
            _BAR.format(
                f"{span.kind} {span.name}: {span.outcome}, {took}",
                f"span-{span.kind} is-{span.outcome}",
                left,
                top,
                width,
                _ROW,
            )
        )
    words = "; ".join(f"{span.kind} {span.name} {span.outcome}" for span in spans)
    return _svg(Markup("").join(drawn), _WIDTH, len(spans) * (_ROW + 4), words, "timeline")


def _label(words: str, top: int) -> Markup:
    shown = words if len(words) <= 26 else f"{words[:25]}…"
    return Markup('<text x="0" y="{}">{}</text>').format(top + _ROW - 5, shown)


def _svg(drawn: Markup, width: int, height: int, words: str, kind: str) -> Markup:
    return _SVG.format(kind, width, height, width, height, words[:2_000], drawn)


def _words(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3_600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
