"""Pictures for the terminal, made by pure functions of what was read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from orchestra.cli.output import STATUS_STYLES, age, instant, span, text
from orchestra.client.info import ExecutionInfo, InstanceInfo
from orchestra.client.jsonable import jsonable
from orchestra.client.ribbon import Cell, Mark, cells_of, heights
from orchestra.codec import dump_json

__all__ = ["ribbon_lines", "show_instance"]

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_COLOURS: Final = ("cyan", "green", "magenta", "blue", "yellow", "bright_cyan", "bright_green")
_MARKS: Final = {
    Mark.FAILURE: "x",
    Mark.REWIND: "<",
    Mark.UPGRADE: "^",
    Mark.MIGRATION: "m",
}
"""The sign of each mark, the most important first."""
_WIDTH: Final = 72
_VALUE: Final = 400
"""How much of a value is shown; JSON has all of it."""


def show_instance(info: InstanceInfo, now: datetime) -> Table:
    """Return what an operator asks first of an instance, a line each."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for head, value in _facts(info, now):
        grid.add_row(head, text(value))
    return grid


def _facts(info: InstanceInfo, now: datetime) -> Iterator[tuple[str, Text | str]]:
    yield "instance", info.instance_id
    yield "status", Text(info.status.value, style=STATUS_STYLES.get(info.status, ""))
    if info.hold is not None:
        yield "held", f"{info.hold.text} (for {age(info.hold.since, now)})"
        yield "", f"goes on {info.hold.releases_when}"
    version = f"{info.name} {info.version}"
    if not info.status.is_final:
        same = info.target_version == info.version
        version += ", and stays on it" if same else f", next {info.target_version}"
    yield "version", version
    if info.pin is not None:
        until = "" if info.pin.until is None else f" until {instant(info.pin.until)}"
        expired = " (expired)" if info.pin.has_expired else ""
        yield "pin", f"{info.pin.version}{until}{expired}, by {info.pin.by}: {info.pin.reason}"
    started = info.execution_started_at
    since = "" if started is None else f", since {instant(started)}"
    yield "lap", f"{info.execution_id:,}{since}"
    if info.boundary_due_at is not None:
        late = ", OVERDUE" if info.boundary_overdue else ""
        yield "boundary due", f"{instant(info.boundary_due_at)}{late}"
    if info.boundary_requested is not None:
        yield "nudged", f"by {info.boundary_requested.by}: {info.boundary_requested.reason}"
    yield from _waits(info, now)
    for activity in info.pending_activities:
        if activity.last_error is not None or activity.held_reason is not None:
            why = activity.held_reason or activity.last_error
            yield "activity", f"{activity.name}, try {activity.attempt}: {why}"
    if info.unread_messages or info.set_aside_messages:
        names = ", ".join(f"{name} {count:,}" for name, count in info.unread_by_name.items())
        aside = f", set aside {info.set_aside_messages:,}" if info.set_aside_messages else ""
        yield "unread", f"{info.unread_messages:,} ({names}){aside}"
    if info.cancel_requested:
        yield "cancel", "requested"
    for child in info.children:
        status = "" if child.status is None else f", {child.status.value}"
        yield "child", f"{child.instance_id} ({child.name}{status})"
    if info.parent is not None:
        yield "parent", f"{info.parent.instance_id}, lap {info.parent.execution_id:,}"
    if info.labels:
        yield "labels", ", ".join(f"{key}={value}" for key, value in sorted(info.labels.items()))
    yield "history", f"{info.history_events:,} events, {info.history_bytes:,} bytes"
    yield "created", f"{instant(info.created_at)}, changed {age(info.updated_at, now)} ago"
    if info.completed_at is not None:
        yield "ended", instant(info.completed_at)
    if info.owner is not None:
        yield "owner", info.owner
    yield "input", _value(info.input)
    if info.custom_status is not None:
        yield "custom status", _value(info.custom_status)
    if info.output is not None:
        yield "output", _value(info.output)
    if info.error is not None:
        yield "error", Text(_cut(str(info.error)), style="red")


def _waits(info: InstanceInfo, now: datetime) -> Iterator[tuple[str, str]]:
    for wait in info.waiting_on:
        name = "" if wait.name in ("", wait.kind) else f" {wait.name}"
        until = "" if wait.until is None else f", until {instant(wait.until)}"
        child = "" if wait.instance_id is None else f" ({wait.instance_id})"
        yield "waits for", f"{wait.kind}{name}{child}, for {age(wait.since, now)}{until}"
    others = sum(info.waiting_counts.values()) - len(info.waiting_on)
    if others > 0:
        yield "", f"and {others:,} more"


def _value(value: Any) -> str:
    return _cut(dump_json(jsonable(value)).decode())


def _cut(words: str) -> str:
    return words if len(words) <= _VALUE else f"{words[:_VALUE]}... ({len(words):,} characters)"


def ribbon_lines(
    executions: Sequence[ExecutionInfo], now: datetime, width: int = _WIDTH
) -> Iterable[Text]:
    """Return the lap ribbon: a block for each lap, coloured by version, as high as it was long,
    with marks below it, and a legend.
    """
    cells = cells_of(executions, now, width)
    if not cells:
        return ()
    colours = _colours(cells)
    blocks, marks = Text(), Text(style="bold")
    for cell, height in zip(cells, heights(cells, len(_BLOCKS)), strict=True):
        blocks.append(_BLOCKS[height], style=colours[cell.version])
        marks.append(next((sign for mark, sign in _MARKS.items() if mark in cell.marks), " "))
    longest = max((cell.duration for cell in cells if cell.duration is not None), default=None)
    first, last = cells[0].first, cells[-1].last
    head = f"laps {first:,} to {last:,}" if first != last else f"lap {first:,}"
    if longest is not None:
        head += f", the longest {span(longest)}"
    legend = Text()
    for version, colour in colours.items():
        legend.append("█ ", style=colour)
        legend.append(f"{version}  ")
    used = {mark for cell in cells for mark in cell.marks}
    for mark, sign in _MARKS.items():
        if mark in used:
            legend.append(f"{sign} {mark.value}  ", style="bold")
    drawn = [Text(head, style="bold"), text(blocks)]
    if marks.plain.strip():
        drawn.append(marks)
    return [*drawn, text(legend)]


def _colours(cells: Sequence[Cell]) -> dict[str, str]:
    versions = dict.fromkeys(cell.version for cell in cells)
    return {version: _COLOURS[index % len(_COLOURS)] for index, version in enumerate(versions)}
