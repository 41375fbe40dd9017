"""The lap ribbon: an instance's executions as a row of cells, for the terminal and the dashboard.

The cost depends on the number of executions that are given, which its readers bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from orchestra.client.info import ExecutionInfo

__all__ = ["Cell", "Mark", "cells_of", "heights"]


class Mark(StrEnum):
    """Something about a lap that an operator looks for."""

    UPGRADE = "upgrade"
    """It runs on another version than the lap before."""
    MIGRATION = "migration"
    REWIND = "rewind"
    """An operator has ended it, to begin an earlier one again."""
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Cell:
    """One lap, or several neighbours on one version that share a cell.

    ``duration`` is that of the longest; ``None``: it has not begun.
    """

    first: int
    last: int
    version: str
    status: str
    duration: timedelta | None
    marks: tuple[Mark, ...]


def cells_of(executions: Sequence[ExecutionInfo], now: datetime, most: int) -> tuple[Cell, ...]:
    """Return the cells of consecutive executions, the oldest first: at most ``most``, unless the
    version changes more often. ``now`` ends the lap that runs.
    """
    single = [
        _cell(execution, before, now)
        for before, execution in pairwise([None, *executions])
        if execution is not None
    ]
    share = -(-len(single) // max(1, most))
    return tuple(_binned(single, share)) if share > 1 else tuple(single)


def heights(cells: Sequence[Cell], steps: int) -> tuple[int, ...]:
    """Return the height of each cell, from 0 to ``steps`` - 1: its duration, as a share of the
    longest.
    """
    longest = max((cell.duration or timedelta() for cell in cells), default=timedelta())
    if not longest:
        return (0,) * len(cells)
    return tuple(
        min(steps - 1, int((cell.duration or timedelta()) / longest * steps)) for cell in cells
    )


def _cell(execution: ExecutionInfo, before: ExecutionInfo | None, now: datetime) -> Cell:
    marks: list[Mark] = []
    if before is not None and before.version != execution.version:
        marks.append(Mark.UPGRADE)
    if execution.migrations:
        marks.append(Mark.MIGRATION)
    if execution.status == "rewound":
        marks.append(Mark.REWIND)
    if execution.status in {"failed", "terminated"}:
        marks.append(Mark.FAILURE)
    started = execution.started_at
    duration = None if started is None else (execution.ended_at or now) - started
    number = execution.execution_id
    return Cell(number, number, execution.version, execution.status, duration, tuple(marks))


def _binned(cells: Sequence[Cell], share: int) -> list[Cell]:
    """Join up to ``share`` neighbours on one version."""
    binned: list[Cell] = []
    for cell in cells:
        last = binned[-1] if binned else None
        if last is None or last.version != cell.version or cell.last - last.first >= share:
            binned.append(cell)
            continue
        durations = [one for one in (last.duration, cell.duration) if one is not None]
        binned[-1] = Cell(
            last.first,
            cell.last,
            cell.version,
            cell.status,
            max(durations, default=None),
            tuple(dict.fromkeys((*last.marks, *cell.marks))),
        )
    return binned
