"""The files of a store go away under processes that work, and come back (scenarios 41 and 42)."""

import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from contextlib import asynccontextmanager, closing

import anyio
import pytest

from orchestra import SqliteProvider
from tests.support.crashes.campaigns import Outcome, verdict
from tests.support.crashes.processes import Worker, Workforce, until
from tests.support.crashes.traffic import Promises
from tests.support.crashes.verdict import own_open

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
SMALL = 128 * 1024
"""Bytes; less than a log soon has, and more than the files in which a worker notes what it does."""

OUTAGE = 2.0
"""Seconds. A node that spins would use as much of a processor."""


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "store.db"


@asynccontextmanager
async def working(store):
    """A worker that takes in work and does it; afterwards everything that was acknowledged must be
    there.
    """
    outcome = Outcome()
    with Workforce(store, intake=True, busy=0.3) as workforce:
        worker = await workforce.begin()
        await worker.ready()
        await until(lambda: worker.granted > 50, "it works")
        yield worker
        assert worker.is_alive, worker.errors
        before = worker.granted
        await until(lambda: worker.granted > before + 50, "it goes on")
        worker.signal(signal.SIGUSR2)
        await until(lambda: worker.has_ended_intake, "it takes in no more")
        provider = SqliteProvider(store)
        provider.open()
        try:
            await until(lambda: not own_open(provider.directory, workforce.all), "everything ends")
        finally:
            provider.close()
        assert await worker.go_home(), worker.errors
        verdict(store, workforce, Promises(), outcome, code="old")
    assert not outcome.problems, str(outcome)


async def sit_through(worker):
    """Let the outage last; say what was told, and see that the worker neither spins nor floods its
    log.
    """
    told = len(worker.refusals)
    await until(lambda: len(worker.refusals) > told, "its client is told")
    used = worker.processor_seconds
    await anyio.sleep(OUTAGE)
    assert worker.processor_seconds - used < OUTAGE / 2, "it spins"
    assert len(worker.complaints) <= 4, worker.errors
    return set(worker.refusals[told:])


@pytest.mark.campaign
async def test_a_directory_that_is_gone_is_told_at_once_and_its_return_is_noticed(store):
    async with working(store) as worker:
        hidden = store.parent.with_name("hidden")
        store.parent.rename(hidden)
        moved = Worker(hidden, worker.name, worker.pid)  # what it notes goes with the directory
        assert await sit_through(moved) == {"StoreUnavailable"}
        hidden.rename(store.parent)


@pytest.mark.campaign
async def test_a_database_that_is_moved_away_and_back_takes_every_write_or_none(store):
    async with working(store) as worker:
        hidden = store.parent.with_name("hidden")
        hidden.mkdir()
        files = [store.with_name(store.name + suffix) for suffix in ("-wal", "-shm", "")]
        for file in reversed(
            files
            # the database first: whoever finds it without its log would take it for older than it is
        ):
            file.rename(hidden / file.name)
        assert await sit_through(worker) == {"StoreUnavailable"}
        for file in files:
            (hidden / file.name).rename(file)


@pytest.mark.campaign
async def test_a_file_that_may_not_grow_refuses_writes_and_takes_them_again(store):
    """The nearest to a full disk that needs no privileges: the kernel refuses every write beyond a
    size.
    """
    async with working(store) as worker:
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (SMALL, resource.RLIM_INFINITY))
        told = await sit_through(worker)
        assert told <= {"OutcomeUnknown", "StoreUnavailable", "StoreFull"}
        assert told - {"OutcomeUnknown"}, "nobody could know that nothing was written"
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, UNLIMITED)


@pytest.mark.campaign
async def test_somebody_who_keeps_the_database_locked_makes_it_busy_and_no_instance_fails(store):
    """Scenario 40: a stranger that writes past the lock file; also over and over, for moments."""
    async with working(store) as worker:
        with closing(sqlite3.connect(store, isolation_level=None, timeout=10)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            assert await sit_through(worker) == {"StoreBusy"}
            stranger.execute("ROLLBACK")
            for _ in range(20):
                stranger.execute("BEGIN IMMEDIATE")
                await anyio.sleep(0.02)
                stranger.execute("ROLLBACK")
                await anyio.sleep(0.005)


READ_ONLY = """
    import os, sys
    from pathlib import Path
    from orchestra import SqliteProvider
    from orchestra.errors import StoreReadOnly
    from orchestra.store.kinds import Status
    from orchestra.store.outcomes import Started
    from tests.support.contract.shorthand import a_start, one, read

    def expect_read_only(provider):
        try:
            provider.open()
            one(provider, a_start("refused"))
        except StoreReadOnly as error:
            assert error.retryable
            print(type(error).__name__)
        finally:
            provider.close()

    folder = Path(sys.argv[1])
    folder.chmod(0o777)
    first = SqliteProvider(folder / "first.db")  # imports what it needs while everything may be read
    first.open()
    first.close()
    if os.geteuid() == 0:
        os.seteuid(65534)  # modes mean nothing to root
    store = folder / "store.db"
    first = SqliteProvider(store)
    first.open()
    assert one(first, a_start("i")) == Started()
    first.close()

    store.chmod(0o444)  # the file alone
    provider = SqliteProvider(store)
    expect_read_only(provider)
    for file in folder.glob("store.*"):  # and all that lies beside it
        file.chmod(0o444)
    expect_read_only(provider)
    for file in folder.glob("store.*"):
        file.chmod(0o644)
    provider.open()
    assert read(provider, "i").status is Status.OPEN
    assert provider.directory.get("refused") is None
    assert one(provider, a_start("j")) == Started()
    provider.close()
    print("mended")
"""


@pytest.mark.slow
def test_a_file_that_may_not_be_written_is_called_so_and_opens_once_it_may():
    """Scenario 42. Not below ``tmp_path``, where only the user of the tests may go."""
    with tempfile.TemporaryDirectory() as folder:
        answer = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(READ_ONLY), folder],
            capture_output=True,
            text=True,
        )
    assert answer.stdout.split() == ["StoreReadOnly", "StoreReadOnly", "mended"], answer.stderr
