"""The picture of a run: bars with the spread of the rounds, as SVG, for light and for dark pages. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from ops.bench.peers.catalogue import Entry, Figure, Workload
from ops.bench.peers.results import Cell, Results, number

SHOWN: Final = (
    "one_ms",
    "at_once",
    "fan",
    "laps",
    "step_long",
    "late_p50",
    "idle_parked",
    "recovery",
)
"""The figures of the picture; the table has all."""

WIDTH: Final = 880
COLUMN: Final = 420
NAMES: Final = 166
BAR: Final = 160
ROW: Final = 18
HEAD: Final = 44
TOP: Final = 56
STYLE: Final = """
text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 } .head { font-weight: 600 }
.quiet { fill: #59636e } .own { fill: #0969da } .peer { fill: #8c959f } .track { fill: #eaeef2 }
.spread { stroke: #1f2328; stroke-width: 1.2 } .page { fill: #ffffff }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .quiet { fill: #9198a1 } .own { fill: #4493f8 } .peer { fill: #6e7681 }
.track { fill: #21262d } .spread { stroke: #e6edf3 } .page { fill: #0d1117 }
}
"""

Panel = tuple[Workload, Figure]


def picture(results: Results) -> str:
    """Return the SVG. Its title and description say in words what the bars show."""
    entries = results.entries()
    panels = [
        (workload, figure)
        for workload in results.workloads()
        for figure in workload.figures
        if figure.key in SHOWN
    ]
    height_of_panel = HEAD + ROW * len(entries) + 14
    rows = (len(panels) + 1) // 2
    height = TOP + rows * height_of_panel + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-labelledby="title words">',
        '<title id="title">orchestra beside other systems of durable execution</title>',
        f'<desc id="words">{escape(words(results))}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>',
        '<text class="title" x="20" y="30">orchestra beside other systems: the same work, '
        "the same machine</text>",
    ]
    for place, panel in enumerate(panels):
        left, top = 20 + place % 2 * COLUMN, TOP + place // 2 * height_of_panel
        parts += _panel(results, entries, panel, left, top)
    parts.append(
        f'<text class="quiet" x="20" y="{height - 14}">{escape(_foot(results))}</text></svg>'
    )
    return "\n".join(parts) + "\n"


def words(results: Results) -> str:
    """Return the figures of the picture as sentences."""
    sentences: list[str] = []
    for workload in results.workloads():
        for figure in workload.figures:
            if figure.key not in SHOWN:
                continue
            cells = [
                f"{entry.title} {_value(results.cell(entry, workload, figure.key))}"
                for entry in results.entries()
            ]
            sentences.append(
                f"{results.sized(figure.short)}, {figure.unit}, {figure.better} is better: {', '.join(cells)}."
            )
    return " ".join(sentences)


def _foot(results: Results) -> str:
    machine = results.machine
    return (
        f"Medians of {results.rounds()} rounds; lines: lowest to highest. "
        f"{machine.get('processors', '').partition('(')[0].strip()}, Python {machine.get('python', '')}, "
        f"{machine.get('date', '')}."
    )


def _panel(
    results: Results, entries: Sequence[Entry], panel: Panel, left: int, top: int
) -> list[str]:
    workload, figure = panel
    cells = [results.cell(entry, workload, figure.key) for entry in entries]
    most = max((cell.high for cell in cells if cell.median is not None), default=0) or 1
    parts = [
        f'<text class="head" x="{left}" y="{top + 16}">{escape(results.sized(figure.short))}</text>',
        f'<text class="quiet" x="{left}" y="{top + 32}">{escape(figure.unit)}, '
        f"{figure.better} is better</text>",
    ]
    for place, (entry, cell) in enumerate(zip(entries, cells, strict=True)):
        parts += _row(entry, cell, left, top + HEAD + place * ROW, most)
    return parts


def _row(entry: Entry, cell: Cell, left: int, top: int, most: float) -> list[str]:
    start, middle = left + NAMES, top + ROW // 2 - 1
    parts = [
        f'<text x="{left}" y="{top + 12}">{escape(entry.title)}</text>',
        f'<rect class="track" x="{start}" y="{top + 2}" width="{BAR}" height="{ROW - 6}"/>',
    ]
    if cell.median is not None:
        kind = "own" if not entry.package else "peer"
        width = max(1.0, cell.median / most * BAR)
        parts.append(
            f'<rect class="{kind}" x="{start}" y="{top + 2}" width="{width:.1f}" '
            f'height="{ROW - 6}"/>'
        )
        low, high = start + cell.low / most * BAR, start + cell.high / most * BAR
        if high - low > 0.5:
            parts.append(
                f'<path class="spread" d="M{low:.1f} {middle}H{high:.1f}'
                f'M{low:.1f} {middle - 3}v6M{high:.1f} {middle - 3}v6"/>'
            )
    parts.append(f'<text x="{start + BAR + 6}" y="{top + 12}">{_value(cell)}</text>')
    return parts


def _value(cell: Cell) -> str:
    return "—" if cell.median is None else number(cell.median)
