"""Worlds over each store."""

from __future__ import annotations

import pytest

from orchestra.clock import new_id
from orchestra.providers.memory import Database, MemoryProvider
from orchestra.providers.postgres import PostgresProvider
from orchestra.providers.sqlite import SqliteProvider
from tests.support.harness import World


def in_memory():
    """Providers of one store in memory."""
    shared = Database()
    return lambda clock, **options: MemoryProvider(shared, clock=clock, **options)


@pytest.fixture
def world():
    """A world over the store in memory."""
    made = World(in_memory())
    yield made
    made.close()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def any_world(request, tmp_path):
    """A world over each store."""

    schema = f"test_{new_id()}"

    def provider(clock, **options):
        if request.param == "postgres":
            return PostgresProvider(
                request.getfixturevalue("dsn"), schema, clock=clock, notify=False, **options
            )
        return SqliteProvider(tmp_path / "store.db", clock=clock, durability="relaxed", **options)

    made = World(in_memory() if request.param == "memory" else provider)
    yield made
    made.close()
