"""Tallies: how many instances there are of each kind, kept by the store itself.

A provider keeps a number for each kind, status and hold as instances change, so that a count costs
as many rows as there are kinds, however many instances there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from orchestra.levels import Stored, Unknown
from orchestra.store.kinds import Dialect, Status
from orchestra.store.routes import Kind

__all__ = ["TallyRow", "read_tally"]


@dataclass(frozen=True, slots=True)
class TallyRow:
    """How many instances are of a kind, have a status, and have a stored hold or none."""

    kind: Kind
    status: Status | Unknown
    held: bool
    number: int


def read_tally(rows: Iterable[tuple[Kind, Stored, bool, int]], dialect: Dialect) -> list[TallyRow]:
    """Return stored numbers as rows, in the order of the kinds, without zeros.

    Several stored forms may mean one status; their numbers are added.
    """
    numbers: Counter[tuple[Kind, Status | Unknown, bool]] = Counter()
    for kind, status, held, number in rows:
        numbers[kind, dialect.library.statuses.read(status), held] += number
    found = [TallyRow(*key, number) for key, number in numbers.items() if number]
    return sorted(found, key=lambda row: (row.kind, str(row.status.value), row.held))
