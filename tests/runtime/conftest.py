"""Both async backends for every test, and nothing that a runtime has made may be left behind."""

import os
import threading
from pathlib import Path

import pytest

from orchestra import SqliteProvider
from orchestra.clock import new_id
from orchestra.providers.postgres import PostgresProvider
from orchestra.store.kinds import THIS_LIBRARY
from orchestra.testing import Database, check_store


@pytest.fixture(params=["asyncio", pytest.param("trio", marks=pytest.mark.slow)])
def anyio_backend(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def store(request, tmp_path):
    """Return a function that makes one more provider of this test's store, which must be in order
    afterwards.
    """
    schema = f"test_{new_id()}"
    dsn = request.getfixturevalue("dsn") if request.param == "postgres" else None

    newest = {"library": THIS_LIBRARY}

    def make(**options):
        newest["library"] = max(
            newest["library"],
            options.get("library", THIS_LIBRARY),
            key=lambda library: library.level,
        )
        if dsn is not None:
            return PostgresProvider(dsn, schema, **options)
        return SqliteProvider(tmp_path / "store.db", durability="relaxed", **options)

    yield make
    check_store(make(**newest)).raise_if_violated()


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path):
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("orchestra-")]
    assert left == []
    assert open_below(tmp_path) == []


def open_below(directory):
    """Return the files below a directory that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
        if target.startswith(f"{directory}{os.sep}"):
            found.append(target)
    return found


@pytest.fixture
def database():
    """The store in memory of a test on virtual time."""
    return Database()
