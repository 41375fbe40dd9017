"""Which store a seed runs on: mostly the model, which is fast; now and then a SQLite file."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from orchestra.clock import Clock, SystemClock
from orchestra.providers.interfaces import Provider
from orchestra.providers.sqlite import SqliteProvider
from orchestra.providers.sqlite.diagnosis import diagnose
from orchestra.testing.checker import check_store
from orchestra.testing.model import ModelProvider, ModelWorld
from orchestra.testing.simulation.simulation import Connect, Result, simulate

__all__ = ["model_store", "run_seed", "sqlite_store"]

_ALL: Final = 100_000
"""Histories and executions that are kept: what was pruned cannot be checked."""

_SQLITE_EVERY: Final = 8


def model_store() -> Connect:
    """Return connections to a new store in memory."""
    world = ModelWorld()

    def connect(clock: Clock) -> Provider:
        return ModelProvider(world, clock=clock, histories=_ALL, executions=_ALL)

    return connect


def sqlite_store(path: Path) -> Connect:
    """Return connections to a SQLite file. Only processes die here and not machines, so it is not synced."""

    def connect(clock: Clock) -> Provider:
        return SqliteProvider(path, clock=clock, durability="relaxed", histories=_ALL, executions=_ALL)

    return connect


@contextmanager
def store_of(seed: int) -> Generator[Connect]:
    """Give the store of a seed; afterwards a file must be whole, and hold the same as before it was closed (I13)."""
    if seed % _SQLITE_EVERY:
        yield model_store()
        return
    with tempfile.TemporaryDirectory(prefix="orchestra-simulation-") as directory:
        path = Path(directory) / "store.db"
        yield sqlite_store(path)
        faults = diagnose(path, SystemClock(), lambda diagnosis: diagnosis.integrity(quick=False))
        assert not faults, f"I13: {faults}"
        check_store(sqlite_store(path)(SystemClock())).raise_if_violated()


def run_seed(seed: int) -> Result:
    """Run a seed on its store.

    Raises:
        AssertionError: an invariant does not hold.
    """
    with store_of(seed) as connect:
        return simulate(connect, seed)
