"""The tests of payloads run on asyncio; what differs by the backend is tested elsewhere."""

import pytest

from orchestra import SqliteProvider
from orchestra.clock import new_id
from orchestra.providers.memory import Database, MemoryProvider
from orchestra.providers.postgres import PostgresProvider


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def any_store(request, tmp_path):
    """Return a function that makes one more provider of this test's store."""
    if request.param == "memory":
        database = Database()
        return lambda: MemoryProvider(database)
    if request.param == "sqlite":
        return lambda: SqliteProvider(tmp_path / "store.db", durability="relaxed")
    dsn, schema = request.getfixturevalue("dsn"), f"test_{new_id()}"
    return lambda: PostgresProvider(dsn, schema)
