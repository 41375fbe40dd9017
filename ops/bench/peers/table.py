"""The Markdown table of a run. Pure."""

from __future__ import annotations

import statistics

from ops.bench.peers.results import Cell, Results, number


def table(results: Results) -> str:
    """Return the tables: the figures, what is missing and why, and each contestant's settings."""
    notes: list[str] = []
    entries = results.entries()
    lines = [
        "| | | " + " | ".join(one.title for one in entries) + " |",
        "|---|---|" + "---:|" * len(entries),
    ]
    for workload in results.workloads():
        for place, figure in enumerate(workload.figures):
            head = f"**{workload.key}** {results.sized(workload.title)}" if place == 0 else ""
            cells = [_text(results.cell(entry, workload, figure.key), notes) for entry in entries]
            lines.append(
                f"| {head} | {results.sized(figure.title)}, {figure.unit} | "
                + " | ".join(cells)
                + " |"
            )
    if notes:
        lines += ["", *(f"{index}. {note}" for index, note in enumerate(notes, 1))]
    lines += ["", "| | durability | settings |", "|---|---|---|"]
    for entry in entries:
        version = results.versions.get(entry.package or "orchestra", "")
        title = f"{entry.title} {version}".strip()
        lines.append(f"| {title} | {entry.durability} | {entry.settings} |")
    lines += ["", calibration(results)]
    return "\n".join(lines)


def calibration(results: Results) -> str:
    """Return one sentence on how even the machine was."""
    if not results.tries:
        return "Nothing was measured."

    def span(values: list[float], unit: str) -> str:
        middle, low, high = statistics.median(values), min(values), max(values)
        return f"{number(middle)} ({number(low)} to {number(high)}) {unit}"

    loops = span([one.loop_ms for one in results.tries], "ms for a fixed loop of Python")
    syncs = span([one.syncs for one in results.tries], "synced appends a second")
    load = span([one.load for one in results.tries], "load average")
    others = span([one.others for one in results.tries], "processors used by other programs")
    return f"The machine before each try: {loops}, {syncs}, {load}; during it: {others}."


def _text(cell: Cell, notes: list[str]) -> str:
    if cell.median is None:
        if cell.note not in notes:
            notes.append(cell.note)
        return f"— [{notes.index(cell.note) + 1}]"
    text = number(cell.median)
    if cell.low != cell.high:
        text += f" ({number(cell.low)} to {number(cell.high)})"
    if cell.failures:
        text += f", {cell.failures} failed"
    return text
