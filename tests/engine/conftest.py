"""Makes ``harness`` importable, and worlds over each store."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import World

from orchestra.clock import new_id
from orchestra.providers.memory import MemoryProvider
from orchestra.providers.postgres import PostgresProvider
from orchestra.providers.sqlite import SqliteProvider


@pytest.fixture
def world():
    """A world over the store in memory."""
    made = World(lambda clock: MemoryProvider(clock=clock))
    yield made
    made.close()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def any_world(request, tmp_path):
    """A world over each store."""

    schema = f"test_{new_id()}"

    def provider(clock):
        if request.param == "memory":
            return MemoryProvider(clock=clock)
        if request.param == "postgres":
            return PostgresProvider(request.getfixturevalue("dsn"), schema, clock=clock, notify=False)
        return SqliteProvider(tmp_path / "store.db", clock=clock, durability="relaxed")

    made = World(provider)
    yield made
    made.close()
