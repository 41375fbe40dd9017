"""The options of a PostgreSQL store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from orchestra.clock import Clock
from orchestra.store.kinds import THIS_LIBRARY, Dialect

__all__ = ["Durability", "Settings", "require_schema_name"]

_LONGEST_NAME: Final = 63

Durability = Literal["full", "relaxed"]
"""``full``: an acknowledged commit survives a crash of the server's machine. ``relaxed``: a crash
may lose the last commits.
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of :class:`~orchestra.providers.postgres.PostgresProvider`; windows in
    microseconds, waits in seconds.
    """

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
    dialect: Dialect = field(default_factory=lambda: Dialect(THIS_LIBRARY))
    """The kinds that this provider's library reads and writes at the store's level."""
    trusting: bool = True
    """Whether groups of only owners' writes skip the read of their rows. Tests turn it off."""


def require_schema_name(schema: str) -> None:
    """Refuse names that the server would cut, or reserves.

    Raises:
        ValueError: it cannot be the name of a schema.
    """
    if (
        not schema
        or "\0" in schema
        or len(schema.encode()) > _LONGEST_NAME
        or schema.startswith("pg_")
    ):
        raise ValueError(
            f"{schema!r} cannot be the name of a schema: 1 to {_LONGEST_NAME} bytes, not "
            "beginning with 'pg_'"
        )
