"""The lap ribbon: a cell for each lap, coloured by version, as high as it was long."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from orchestra.client.info import ExecutionInfo
from orchestra.client.ribbon import Cell, Mark, heights
from orchestra.web.dashboard.svg import group, line, picture, rect, text
from orchestra.web.dashboard.wording import duration

__all__ = ["Bin", "bins_of", "ribbon"]

_HEIGHT: Final = 56
_LEAST: Final = 6
"""The height of the shortest lap."""
_MARKS: Final = 14
_BETWEEN: Final = 10
"""Between the marks of one lap, one below the other."""
_WIDTH: Final = 1_190
_WIDEST: Final = 22
_NARROWEST: Final = 4.5
_BIN: Final = 10

_MARK: Final = Markup('<path class="mark {}" d="{}"/>')
_LINK: Final = Markup('<a href="{}" tabindex="-1">{}</a>')


@dataclass(frozen=True, slots=True)
class Bin:
    """Older laps that share a cell. ``version`` is that of its first lap: the others were not
    read.
    """

    first: int
    last: int
    version: str


def bins_of(probes: Sequence[ExecutionInfo], end: int) -> tuple[Bin, ...]:
    """Return the bins of older laps, given the first lap of each. ``end`` is the lap behind the
    last bin.
    """
    firsts = {probe.execution_id: probe.version for probe in probes if probe.execution_id < end}
    numbers = sorted(firsts)
    ends = [*numbers[1:], end]
    return tuple(
        Bin(first, following - 1, firsts[first])
        for first, following in zip(numbers, ends, strict=True)
    )


def ribbon(
    cells: Sequence[Cell],
    of_version: Mapping[str, str],
    *,
    older: Sequence[Bin] = (),
    is_held: bool = False,
    paused: Collection[int] = (),
    link: str = "",
) -> Markup:
    """Return the ribbon.

    Args:
        older: bins of the laps before, drawn as one narrow block each.
        is_held: whether the last lap is held.
        paused: the laps that an operator has held or released.
        link: the address of a lap, without its number.
    """
    wide = min(_WIDEST, max(_NARROWEST, (_WIDTH - _BIN * len(older)) / max(1, len(cells))))
    parts = [_older(one, number * _BIN, of_version) for number, one in enumerate(older)]
    left = _BIN * len(older) + (8.0 if older else 0.0)
    deepest = 1
    for number, (cell, step) in enumerate(
        zip(cells, heights(cells, _HEIGHT - _LEAST), strict=True)
    ):
        marks = [mark.value for mark in cell.marks]
        is_last = number == len(cells) - 1
        if (is_held and is_last) or any(cell.first <= lap <= cell.last for lap in paused):
            marks.append("hold")
        deepest = max(deepest, len(marks))
        parts.append(
            _cell(cell, marks, left + number * wide, wide, step + _LEAST, of_version, link)
        )
    width = max(left + wide * len(cells), 60.0)
    parts.append(line("axis", 0, _HEIGHT + 0.5, width, _HEIGHT + 0.5))
    bottom = _HEIGHT + _MARKS + _BETWEEN * (deepest - 1)
    parts += _ends(cells, older, width, bottom)
    words = _words(cells, older, is_held, sorted(paused))
    return picture("ribbon", width, bottom + 16, words, parts)


def _older(one: Bin, left: float, of_version: Mapping[str, str]) -> Markup:
    title = f"laps {one.first:,} to {one.last:,}, from {one.version} on"
    kind = f"{of_version[one.version]} older"
    return group(title, rect(kind, left, 8, _BIN - 1, _HEIGHT - 8, is_round=False))


def _cell(
    cell: Cell,
    marks: Sequence[str],
    left: float,
    wide: float,
    tall: int,
    of_version: Mapping[str, str],
    link: str,
) -> Markup:
    laps = f"lap {cell.first:,}"
    if cell.first != cell.last:
        laps = f"laps {cell.first:,} to {cell.last:,}"
    took = "" if cell.duration is None else f", {duration(cell.duration)}"
    marked = "".join(f", {mark}" for mark in marks)
    kind = f"{of_version[cell.version]} is-{cell.status}"
    gap = 1.0 if wide > 5 else 0.5
    drawn = [rect(kind, left, _HEIGHT - tall, wide - gap, tall, is_round=wide > 8)]
    drawn += [
        mark_at(mark, left + (wide - gap) / 2, _HEIGHT + 8 + _BETWEEN * number)
        for number, mark in enumerate(marks)
    ]
    # A pointer finds also the lap that took no time.
    drawn.append(rect("target", left, 0, wide, _HEIGHT, is_round=False))
    whole = group(f"{laps} on {cell.version}, {cell.status}{took}{marked}", *drawn)
    return _LINK.format(f"{link}{cell.last}", whole) if link else whole


_SHAPES: Final = {
    Mark.UPGRADE.value: "M{x} {t}l4 7h-8z",  # up
    Mark.MIGRATION.value: "M{x} {t}l4 3.5l-4 3.5l-4 -3.5z",  # a diamond
    Mark.REWIND.value: "M{l} {m}l7 -4v8z",  # back
    Mark.FAILURE.value: "M{l} {t}l7 7m0 -7l-7 7",  # a cross
    "hold": "M{l} {t}h2.5v7h-2.5zM{x} {t}h2.5v7h-2.5z",  # a pause
}


def mark_at(mark: str, x: float, y: float) -> Markup:
    """Return the sign of a mark, centred at a point. Signs differ by shape and colour."""
    shape = _SHAPES[mark].format(x=f"{x:.1f}", l=f"{x - 3.5:.1f}", t=f"{y - 3.5:.1f}", m=f"{y:.1f}")
    return _MARK.format(mark, shape)


def _ends(cells: Sequence[Cell], older: Sequence[Bin], width: float, bottom: float) -> list[Markup]:
    """Write the numbers of the first lap and, where there is room, of the last."""
    first = older[0].first if older else cells[0].first if cells else 0
    parts = [text(f"{first:,}", 0, bottom + 12, "soft")]
    if cells and cells[-1].last != first and width > 140:
        parts.append(text(f"{cells[-1].last:,}", width, bottom + 12, "soft end"))
    return parts


def _words(
    cells: Sequence[Cell],
    older: Sequence[Bin],
    is_held: bool,  # noqa: FBT001
    paused: Sequence[int],
) -> str:
    if not cells:
        return "no laps"
    versions = list(dict.fromkeys(cell.version for cell in cells))
    words = f"laps {cells[0].first} to {cells[-1].last}, on {', '.join(versions)}"
    for mark in Mark:
        marked = [str(cell.last) for cell in cells if mark in cell.marks]
        if marked:
            words += f"; {mark.value} at lap {', '.join(marked[:10])}"
    past = [str(lap) for lap in paused if not is_held or lap != cells[-1].last]
    if past:
        words += f"; held by an operator at lap {', '.join(past[:10])}"
    if is_held:
        words += f"; lap {cells[-1].last} is held"
    if older:
        words += f"; laps {older[0].first} to {older[-1].last} before that"
    return words
