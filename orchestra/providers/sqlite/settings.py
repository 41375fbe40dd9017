"""What a SQLite store is opened with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from orchestra.clock import Clock
from orchestra.store.kinds import THIS_LIBRARY, Dialect

__all__ = ["Durability", "Settings"]

Durability = Literal["full", "relaxed"]
"""``full``: an acknowledged commit survives a power cut. ``relaxed``: it survives the death of the
process only.
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of :class:`~orchestra.providers.sqlite.SqliteProvider`; instants and durations in
    microseconds.
    """

    path: Path
    """Absolute and free of symbolic links, so that it names one file whatever the process does
    (:mod:`.paths`).
    """
    durability: Durability
    clock: Clock
    busy_seconds: float
    migrate: bool
    tombstone_window: int
    network_allowed: bool = False
    dialect: Dialect = field(default_factory=lambda: Dialect(THIS_LIBRARY))
    """What the library of this provider reads and writes, at the level of the store."""
    trusting: bool = True
    """Whether writes of owners that concern no other instance are written without being read first.
    Tests turn it off.
    """

    @property
    def lock_path(self) -> Path:
        """The file that the writers' lock is taken on."""
        return self.path.with_name(self.path.name + ".lock")

    @property
    def log_path(self) -> Path:
        """SQLite's write-ahead log."""
        return self.path.with_name(self.path.name + "-wal")

    def node_lock_path(self, node_id: str) -> Path:
        """The file that a node holds while it lives."""
        return self.path.with_name(f"{self.path.name}.node-{_file_name(node_id)}.lock")


def _file_name(node_id: str) -> str:
    """Return an id as a part of a file name: what is not a letter, a digit, ``-`` or ``_`` is
    written as its code.
    """
    return "".join(
        character if character.isalnum() or character in "-_" else f"%{ord(character):x}%"
        for character in node_id
    )
