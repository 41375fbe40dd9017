"""What tests of several folders share: a PostgreSQL server, started once where it is first asked
for.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
from pathlib import Path
from random import SystemRandom

import pytest
from hypothesis import settings

from orchestra.testing.postgres import NoPostgres, postgres_server
from tests.support.schemas import Lease, Schemas

ROOT = Path(__file__).parents[1]
MEMORY = Path("/dev/shm")
ROOM = 4 * 1024**3
PATIENCE_WITH_MANY = 900
"""Seconds for properties and campaigns. A campaign's own waits end long before, and say what has not
come; this limit ends its process without a word.
"""


def pytest_configure(config):
    """Give all processes of a run one hash seed: names of tests that show a set must be the same in
    each of them. Those that tests start find this checkout's packages.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background of a shell: the programs that tests start would ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("PYTHONHASHSEED", str(SystemRandom().randrange(1, 1_000_000)))
    # Hundreds of tests start programs: without its compiled modules each takes twice as long to begin.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        # Thousands of tests have a store of their own. None needs it to outlive the machine.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    # While a developer waits, properties look at fewer examples. `.ci/run` tries all of them.
    settings.register_profile("full", deadline=None, print_blob=True)
    settings.register_profile("quick", settings.get_profile("full"), max_examples=15)
    if config.getoption("--hypothesis-profile", None) is None:
        chosen = config.getoption("markexpr", "")
        is_quick = "not slow" in chosen or "not campaign" in chosen
        settings.load_profile("quick" if is_quick else "full")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def pytest_report_header():
    return f"processes of this run hash with PYTHONHASHSEED={os.environ['PYTHONHASHSEED']}"


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """Campaigns are slow, and so is what needs a server. What is slow on asyncio, or on another
    store, is a campaign on trio, or on a server: a second way to run the same test.
    """
    for item in items:
        params = item.callspec.params.values() if hasattr(item, "callspec") else ()
        chosen = {value for value in params if isinstance(value, str)}
        needs_server = "postgres" in {*item.fixturenames, *chosen}
        is_slow_anyway = any(mark.name == "slow" for mark in getattr(item.obj, "pytestmark", ()))
        if ("trio" in chosen and (needs_server or is_slow_anyway)) or (
            needs_server and is_slow_anyway
        ):
            item.add_marker(pytest.mark.campaign)
        if needs_server or item.get_closest_marker("campaign"):
            item.add_marker(pytest.mark.slow)
        takes_long = is_property(item) or item.get_closest_marker("campaign")
        if takes_long and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(PATIENCE_WITH_MANY))


def is_property(item):
    """Return whether a test tries examples: on a busy machine all of them take minutes."""
    drawn = getattr(item.obj, "is_hypothesis_test", False)
    return drawn or item.get_closest_marker("property") is not None


@pytest.fixture
def seed(request):
    """A seed for what a test draws; a test that fails shows the command that repeats it."""
    drawn = int(os.environ.get("ORCHESTRA_SEED") or SystemRandom().randrange(1_000_000))
    print(f"repeat: {command_for(request.node.nodeid, drawn)}")
    return drawn


def command_for(test, seed):
    """Return the command that runs a test again with what was drawn for it."""
    variables = f"PYTHONHASHSEED={os.environ['PYTHONHASHSEED']} ORCHESTRA_SEED={seed}"
    return f"{variables} python -m pytest {shlex.quote(test)}"


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


@pytest.fixture(scope="session")
def schemas(postgres):
    """Schemas that tests of this process use one after the other."""
    return Schemas(postgres.dsn)


@pytest.fixture
def lease(schemas):
    """The schemas of one test. Nothing of it may use them afterwards."""
    with Lease(schemas) as lease:
        yield lease
