"""What a PostgreSQL store is opened with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestra.clock import Clock

__all__ = ["Durability", "Settings"]

Durability = Literal["full", "relaxed"]
"""``full``: an acknowledged commit survives a crash of the server's machine. ``relaxed``: a crash may take the last moments."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of :class:`~orchestra.providers.postgres.PostgresProvider`; windows in microseconds, waits in seconds."""

    dsn: str
    schema: str
    durability: Durability
    clock: Clock | None
    migrate: bool
    notify: bool
    pooled: bool
    connect_seconds: float
    statement_seconds: float
    lock_seconds: float
    tombstone_window: int
