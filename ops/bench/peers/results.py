"""What a run writes, and what the table and the picture read. Pure, but for the machine's names."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from ops.bench.peers.catalogue import ENTRIES, WORKLOADS, Entry, Workload, why_not


@dataclass(frozen=True)
class Try:
    """One try: its figures, or why there are none; the machine just before it; and how many
    processors other programs used meanwhile.
    """

    entry: str
    workload: str
    round: int
    loop_ms: float = 0.0
    syncs: float = 0.0
    load: float = 0.0
    others: float = 0.0
    figures: dict[str, float] = field(default_factory=dict[str, float])
    error: str = ""


@dataclass(frozen=True)
class Results:
    """A whole run.

    Args:
        machine: what it ran on, in words.
        versions: of each package.
        missing: systems that could not be installed, and why.
        full: the sizes are those of the titles.
    """

    machine: dict[str, str]
    versions: dict[str, str]
    sizes: dict[str, float]
    full: bool
    tries: tuple[Try, ...]
    missing: dict[str, str] = field(default_factory=dict[str, str])

    def as_json(self) -> dict[str, Any]:
        """Return it with the settings of each contestant."""
        settings = {
            one.key: {
                "title": one.title,
                "store": one.store,
                "durability": one.durability,
                "settings": one.settings,
            }
            for one in ENTRIES
        }
        return {**asdict(self), "contestants": settings}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Results:
        """Read what :meth:`as_json` wrote."""
        kept = {
            name: value for name, value in values.items() if name not in {"contestants", "tries"}
        }
        return cls(tries=tuple(Try(**one) for one in values["tries"]), **kept)

    def cell(self, entry: Entry, workload: Workload, figure: str) -> Cell:
        """Return what the tries say about one number of one contestant."""
        tries = [
            one for one in self.tries if (one.entry, one.workload) == (entry.key, workload.key)
        ]
        values = [one.figures[figure] for one in tries if figure in one.figures]
        errors = [one.error for one in tries if one.error]
        if values:
            return Cell(statistics.median(values), min(values), max(values), len(errors))
        return Cell(
            note=self.missing.get(entry.package)
            or why_not(entry, workload)
            or (errors[0] if errors else "not measured")
        )

    def sized(self, title: str) -> str:
        """Return a title with the sizes in it."""
        return title.format(**self.sizes)

    def entries(self) -> list[Entry]:
        """Return who has taken part, in the order of the catalogue."""
        tried = {one.entry for one in self.tries}
        return [one for one in ENTRIES if one.key in tried or one.package in self.missing]

    def workloads(self) -> list[Workload]:
        """Return what was measured, in the order of the catalogue."""
        tried = {one.workload for one in self.tries}
        return [one for one in WORKLOADS if one.key in tried]

    def rounds(self) -> int:
        """Return the number of rounds."""
        return max((one.round for one in self.tries), default=0)


@dataclass(frozen=True)
class Cell:
    """A number: the median of its tries, the lowest, the highest; or a note in its place."""

    median: float | None = None
    low: float = 0.0
    high: float = 0.0
    failures: int = 0
    note: str = ""


def number(value: float) -> str:
    """Return three figures that count, no more."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
