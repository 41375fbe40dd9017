"""Stores in the states that a doctor may find."""

import sqlite3

import pytest

from orchestra.providers.sqlite import SqliteProvider


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


@pytest.fixture
def provider(path):
    """A store that this process has open."""
    provider = SqliteProvider(path, durability="relaxed")
    provider.open()
    yield provider
    provider.close()


@pytest.fixture
def edit(path):
    """Change the file behind the library's back."""

    def run(*statements):
        connection = sqlite3.connect(path, isolation_level=None)
        rows = [connection.execute(statement).fetchall() for statement in statements]
        connection.close()
        return rows

    return run
