"""The options of a SQLite store."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from orchestra.clock import Clock
from orchestra.store.kinds import THIS_LIBRARY, Dialect

__all__ = ["Durability", "Settings"]

Durability = Literal["full", "relaxed"]
"""``full``: an acknowledged commit survives a power cut. ``relaxed``: only the death of the
process.
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of :class:`~orchestra.providers.sqlite.SqliteProvider`; durations in
    microseconds.
    """

    path: Path
    """Absolute and without symbolic links, so it always names one file (:mod:`.paths`)."""
    durability: Durability
    clock: Clock
    busy_seconds: float
    migrate: bool
    tombstone_window: int
    network_allowed: bool = False
    dialect: Dialect = field(default_factory=lambda: Dialect(THIS_LIBRARY))
    """The kinds that this provider's library reads and writes at the store's level."""
    trusting: bool = True
    """Whether owners' writes that affect no other instance skip the read of their rows. Tests turn
    it off.
    """

    @property
    def lock_path(self) -> Path:
        """The file of the writers' lock."""
        return self.path.with_name(self.path.name + ".lock")

    @property
    def log_path(self) -> Path:
        """SQLite's write-ahead log."""
        return self.path.with_name(self.path.name + "-wal")

    def node_lock_path(self, node_id: str) -> Path:
        """The file that a node locks while it lives."""
        return self.path.with_name(f"{self.path.name}.node-{_file_name(node_id)}.lock")


def _file_name(node_id: str) -> str:
    """Return an id as a part of a file name: other characters than letters, digits, ``-`` and ``_``
    become their codes.
    """
    return "".join(
        character if character.isalnum() or character in "-_" else f"%{ord(character):x}%"
        for character in node_id
    )
