"""What tests of several folders share: a PostgreSQL server, started once where it is first asked for."""

from __future__ import annotations

import os

import pytest

from orchestra.testing.postgres import NoPostgres, postgres_server


@pytest.fixture(scope="session")
def postgres():
    """A running server. Where there is none to be had, the test is skipped; on CI it fails."""
    try:
        serving = postgres_server()
        server = serving.__enter__()
    except NoPostgres as missing:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            raise
        pytest.skip(str(missing))
    yield server
    serving.__exit__(None, None, None)


@pytest.fixture
def dsn(postgres):
    """Where the server is."""
    return postgres.dsn
