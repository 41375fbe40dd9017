"""Which store a seed runs on: mostly memory, which is fast; now and then a SQLite file; on demand a
PostgreSQL server.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from orchestra.clock import Clock, SystemClock
from orchestra.providers.memory import Database, MemoryProvider
from orchestra.providers.sqlite import SqliteProvider
from orchestra.providers.sqlite.diagnosis import diagnose
from orchestra.store.kinds import THIS_LIBRARY, Library
from orchestra.store.port import Provider
from orchestra.testing.checker import check_store
from tests.support.ages import NEXT_LIBRARY
from tests.support.simulation.simulation import Connect, Result, simulate

__all__ = ["StoreName", "memory_store", "run_seed", "sqlite_store"]

_SQLITE_EVERY: Final = 8
_POOLED_EVERY: Final = 4

StoreName = Literal["memory", "sqlite", "postgres"]


def memory_store() -> Connect:
    """Return connections to a new store in memory."""
    database = Database()

    def connect(clock: Clock, library: Library = THIS_LIBRARY) -> Provider:
        return MemoryProvider(database, clock=clock, library=library)

    return connect


def sqlite_store(path: Path) -> Connect:
    """Return connections to a SQLite file. Only processes die here and not machines, so it is not
    synced.
    """

    def connect(clock: Clock, library: Library = THIS_LIBRARY) -> Provider:
        return SqliteProvider(path, clock=clock, durability="relaxed", library=library)

    return connect


@contextmanager
def _opened(
    store: StoreName, dsn: str | None, library: Library, *, pooled: bool
) -> Generator[Connect]:
    """Give a new store; afterwards a file must be whole, and everything in it as it must be
    (I13).
    """
    match store:
        case "memory":
            yield memory_store()
        case "sqlite":
            with tempfile.TemporaryDirectory(prefix="orchestra-simulation-") as directory:
                path = Path(directory) / "store.db"
                yield sqlite_store(path)
                faults = diagnose(
                    path, SystemClock(), lambda diagnosis: diagnosis.integrity(quick=False)
                )
                assert not faults, f"I13: {faults}"
                check_store(sqlite_store(path)(SystemClock(), library)).raise_if_violated()
        case "postgres":
            from tests.support.simulation.postgres import postgres_store

            if dsn is None:
                raise ValueError("a seed on PostgreSQL needs a server: dsn=")
            with postgres_store(dsn, pooled=pooled) as connect:
                yield connect
                check_store(connect(SystemClock(), library)).raise_if_violated()


def run_seed(
    seed: int,
    store: StoreName | None = None,
    *,
    dsn: str | None = None,
    alike: bool = False,
    ages: bool = False,
) -> Result:
    """Run a seed, on the store that it draws or on the one that is named.

    Args:
        seed: decides everything.
        store: where it runs; PostgreSQL is never drawn.
        dsn: the server, for PostgreSQL. The seed gets a schema of its own there, which is dropped
            afterwards. Each fourth one does without what a pooler in transaction mode does not let
            through.
        alike, ages: as for :func:`simulate`.

    Raises:
        AssertionError: an invariant does not hold.
    """
    chosen: StoreName = store or ("memory" if seed % _SQLITE_EVERY else "sqlite")
    library = NEXT_LIBRARY if ages else THIS_LIBRARY
    with _opened(chosen, dsn, library, pooled=seed % _POOLED_EVERY == 0) as connect:
        return simulate(connect, seed, alike=alike, ages=ages)
