"""The strip of a schedule: what became of its last slots, and the next ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from markupsafe import Markup

from orchestra.schedules import SlotOutcome
from orchestra.web.dashboard.svg import group, line, picture, rect, text
from orchestra.web.dashboard.wording import duration, instant

__all__ = ["strip"]

_CELL: Final = 22
_TALL: Final = 30
_NEXT: Final = 10


def strip(last: Sequence[SlotOutcome], following: Sequence[datetime], now: datetime) -> Markup:
    """Return the strip: the oldest outcome on the left, now as a line, the next slots on the right.

    Args:
        last: outcomes, the newest first.
        following: the next slots, the first one first.
    """
    parts: list[Markup] = []
    shown = list(reversed(last))
    for number, slot in enumerate(shown):
        title = f"{instant(slot.slot)}: {slot.outcome}{', late' if slot.is_late else ''}"
        if slot.count > 1:
            title += f", {slot.count:,} slots"
        if slot.reason:
            title += f": {slot.reason}"
        late = " is-late" if slot.is_late else ""
        height = _TALL if slot.outcome == "fired" else _TALL - 10
        kind = f"slot is-{slot.outcome}{late}"
        parts.append(
            group(title, rect(kind, number * _CELL, _TALL - height + 2, _CELL - 4, height))
        )
    left = len(shown) * _CELL + 4
    parts.append(line("now", left, 0, left, _TALL + 4))
    for number, at in enumerate(following[:_NEXT]):
        title = f"{instant(at)}, in {duration(at - now)}"
        x = left + 8 + number * _CELL
        parts.append(group(title, rect("slot is-next", x, 7, _CELL - 4, _TALL - 5)))
    parts.append(text("now", left, _TALL + 18, "soft middle" if shown else "soft"))
    width = left + 16 + max(1, len(following[:_NEXT])) * _CELL
    return picture("slots", width, _TALL + 22, _words(last, following, now), parts)


def _words(last: Sequence[SlotOutcome], following: Sequence[datetime], now: datetime) -> str:
    counts: dict[str, int] = {}
    for slot in last:
        counts[slot.outcome] = counts.get(slot.outcome, 0) + 1
    past = ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "none yet"
    ahead = f"the next in {duration(following[0] - now)}" if following else "none follows"
    return f"last slots: {past}; {ahead}"
