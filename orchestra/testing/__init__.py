"""What services test with: a store in memory, a clock that is set by hand, and a check of a store.

::

    database = Database()
    provider = MemoryProvider(database, clock=ManualClock())
    ...
    check_store(provider, registry).raise_if_violated()

A PostgreSQL server for tests is started by :func:`orchestra.testing.postgres.postgres_server`.
"""

from __future__ import annotations

from orchestra.providers.memory import Database, MemoryProvider
from orchestra.testing.checker import (
    InvariantsViolated,
    Report,
    StoredDrift,
    Violation,
    check_store,
)
from orchestra.testing.clock import ManualClock

__all__ = [
    "Database",
    "InvariantsViolated",
    "ManualClock",
    "MemoryProvider",
    "Report",
    "StoredDrift",
    "Violation",
    "check_store",
]
