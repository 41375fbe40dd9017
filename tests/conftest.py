"""What tests of several folders share: a PostgreSQL server, started once where it is first asked
for.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import SystemRandom

import pytest

from orchestra.testing.postgres import NoPostgres, postgres_server

ROOT = Path(__file__).parents[1]


def pytest_configure():
    """Give all processes of a run one hash seed: names of tests that show a set must be the same in
    each of them. Those that tests start find this checkout's packages.
    """
    os.environ.setdefault("PYTHONHASHSEED", str(SystemRandom().randrange(1, 1_000_000)))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def pytest_report_header():
    return f"processes of this run hash with PYTHONHASHSEED={os.environ['PYTHONHASHSEED']}"


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
