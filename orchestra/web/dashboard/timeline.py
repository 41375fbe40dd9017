"""The timeline of a lap: what it has begun, as a waterfall, with long idle times folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from markupsafe import Markup

from orchestra.client.history import HistoryEvent
from orchestra.web.dashboard.svg import group, named, picture, rect, text
from orchestra.web.dashboard.wording import duration

__all__ = ["Span", "spans_of", "timeline"]

_ROW: Final = 22
_BAR: Final = 14
_WIDTH: Final = 990
_RIGHT: Final = 125
"""Room for the words behind the last bar."""
_FOLD: Final = 44.0
"""The width of a folded time."""
_SHOWN: Final = 120
_WORKING: Final = frozenset({"activity", "child"})


@dataclass(frozen=True, slots=True)
class Span:
    """Something of a lap that took time. ``end`` is ``None`` while it goes on; ``attempts`` is how
    many attempts an activity took, where more than one.
    """

    kind: str
    name: str
    begin: datetime
    end: datetime | None
    outcome: str
    attempts: int = 1


_BEGINS: Final = {
    "activity_scheduled": "activity",
    "timer_created": "timer",
    "event_awaited": "event",
    "request_awaited": "request",
    "child_started": "child",
    "child_awaited": "child",
    "event_sent": "send",
    "cancel_sent": "send",
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
    "send_delivered": "delivered",
    "send_refused": "refused",
}


def spans_of(events: Sequence[HistoryEvent], attempts: Mapping[str, int] = {}) -> tuple[Span, ...]:
    """Return what a history has begun, and how it ended. What is open as the lap ends, ends with
    it.

    Args:
        attempts: the attempts so far of activities that are open, by their names.
    """
    spans: dict[int, Span] = {}
    open_spans: set[int] = set()
    for event in events:
        if (kind := _BEGINS.get(event.kind)) is not None:
            spans[event.event_id] = Span(kind, _name(kind, event.details), event.at, None, "open")
            open_spans.add(event.event_id)
        elif (outcome := _ENDS.get(event.kind)) is not None:
            number: int = event.details.get("source", 0)
            if number in open_spans:
                open_spans.discard(number)
                begun, tried = spans[number], _attempts(event.details)
                spans[number] = Span(begun.kind, begun.name, begun.begin, event.at, outcome, tried)
    is_over = bool(events) and events[-1].kind.startswith(
        ("execution_c", "execution_f", "execution_t", "execution_r", "continued")
    )
    for number in open_spans:
        begun = spans[number]
        if is_over:
            spans[number] = Span(begun.kind, begun.name, begun.begin, events[-1].at, "cancelled")
        elif begun.kind == "activity":
            tried = attempts.get(begun.name, 1)
            spans[number] = Span(begun.kind, begun.name, begun.begin, None, "open", tried)
    return tuple(spans.values())


def _name(kind: str, details: Mapping[str, Any]) -> str:
    if kind == "timer":
        return ""
    return str(details.get("name", "cancel" if kind == "send" else kind))


def _attempts(details: Mapping[str, Any]) -> int:
    for key in ("attempt", "tries"):
        number = details.get(key)
        if isinstance(number, int):
            return max(1, number)
    return 1


@dataclass(frozen=True, slots=True)
class _Axis:
    """Maps instants to places. Idle times are folded to one width each."""

    points: Sequence[datetime]
    places: Sequence[float]
    folds: Sequence[tuple[float, timedelta]]

    def place(self, at: datetime) -> float:
        """Return the place of an instant; all that matter are points."""
        return self.places[self.points.index(at)]


def _axis(spans: Sequence[Span], now: datetime) -> _Axis:
    points = sorted({span.begin for span in spans} | {span.end or now for span in spans})
    working = [(span.begin, span.end or now) for span in spans if span.kind in _WORKING]
    gaps = list(pairwise(points))
    busy = [any(a <= begin and end <= b for a, b in working) for begin, end in gaps]
    work = sum(
        (end - begin for (begin, end), is_busy in zip(gaps, busy, strict=True) if is_busy),
        timedelta(),
    )
    folded = [
        not is_busy and work > timedelta() and end - begin > 2 * work
        for (begin, end), is_busy in zip(gaps, busy, strict=True)
    ]
    rest = sum(
        (
            end - begin
            for (begin, end), is_folded in zip(gaps, folded, strict=True)
            if not is_folded
        ),
        timedelta(),
    )
    space = max(100.0, _WIDTH - _RIGHT - _FOLD * sum(folded))
    places, folds, x = [0.0], list[tuple[float, timedelta]](), 0.0
    for (begin, end), is_folded in zip(gaps, folded, strict=True):
        if is_folded:
            folds.append((x, end - begin))
        x += _FOLD if is_folded else (end - begin) / rest * space if rest else 0.0
        places.append(x)
    return _Axis(points, places, folds)


def timeline(spans: Sequence[Span], now: datetime) -> Markup:
    """Return a row for each span, from its begin to its end. A picture of many has the last 120."""
    shown = spans[-_SHOWN:]
    if not shown:
        return Markup("")
    axis = _axis(shown, now)
    height = len(shown) * _ROW + 4
    parts: list[Markup] = []
    for x, idle in axis.folds:
        title = f"{duration(idle)} without work, folded"
        parts.append(group(title, rect("fold", x, 0, _FOLD, height, is_round=False)))
        if idle >= timedelta(seconds=1):
            parts.append(text(_short(idle), x + _FOLD / 2, height + 10, "soft middle"))
    for number, span in enumerate(shown):
        parts.append(_row(span, number * _ROW + 4.0, axis, now))
    words = "; ".join(_words(span, now) for span in shown)
    whole = picture("timeline", _WIDTH, height + 14, words, parts)
    return named((_label(span) for span in shown), "rows-22", whole)


def _row(span: Span, top: float, axis: _Axis, now: datetime) -> Markup:
    left, right = axis.place(span.begin), axis.place(span.end or now)
    width = max(3.0, right - left)
    parts = [
        rect(f"span-{span.kind} is-{span.outcome}", left, top, width, _BAR),
    ]
    note = _short((span.end or now) - span.begin)
    if span.attempts > 1:
        note += f", {span.attempts} tries"
    parts.append(text(note, left + width + 5, top + 11, "soft"))
    return group(_words(span, now), *parts)


def _label(span: Span) -> str:
    return f"{span.kind} {span.name}".strip()


def _words(span: Span, now: datetime) -> str:
    tries = f", {span.attempts} attempts" if span.attempts > 1 else ""
    return f"{_label(span)} {span.outcome}, {duration((span.end or now) - span.begin)}{tries}"


def _short(of: timedelta) -> str:
    return duration(of)
