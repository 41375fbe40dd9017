"""Worlds over each store."""

from __future__ import annotations

import pytest

from orchestra.providers.memory import Database, MemoryProvider
from orchestra.providers.postgres import PostgresProvider
from orchestra.providers.sqlite import SqliteProvider
from orchestra.store.kinds import THIS_LIBRARY
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
    served = request.param == "postgres"
    dsn = request.getfixturevalue("dsn") if served else None
    lease = request.getfixturevalue("lease") if served else None

    def provider(clock, **options):
        if served:
            schema = lease.name_of(tmp_path, options.get("library", THIS_LIBRARY))
            return PostgresProvider(dsn, schema, clock=clock, notify=False, **options)
        return SqliteProvider(tmp_path / "store.db", clock=clock, durability="relaxed", **options)

    made = World(in_memory() if request.param == "memory" else provider)
    yield made
    made.close()
