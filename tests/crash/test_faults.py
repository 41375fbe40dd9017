"""The faults that the campaigns inject strike where they say: else a campaign would hold what was
never tried.
"""

import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing

import pytest

from tests.support.crashes import device, tracer
from tests.support.crashes.campaigns import Outcome
from tests.support.crashes.device import Fault
from tests.support.crashes.processes import Worker
from tests.support.crashes.ways import by_every_way

by_device = pytest.mark.skipif(device.missing() is not None, reason=str(device.missing()))

INSERTING = """
    import sqlite3, sys, time
    from tests.support.crashes.device import Device, Fault
    device = Device(sys.argv[1], lambda *what: print(*what, flush=True))
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE t (n)")
    connection.execute("INSERT INTO t VALUES (-1)")
    device.arm(Fault.parse(sys.argv[2]))
    for number in range(4):
        try:
            connection.execute("INSERT INTO t VALUES (?)", (number,))
            print(number, flush=True)
        except sqlite3.Error as error:
            print(error.sqlite_errorname, flush=True)
    connection.close()  # while there is still a Python for it to call
"""


def insert(store, fault):
    """Insert four rows, each one write of its page and its header, and one sync. Return what came
    of it.
    """
    command = [sys.executable, "-c", textwrap.dedent(INSERTING), store, str(fault)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout.split("\n")[:-1]


def rows(store):
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [row[0] for row in connection.execute("SELECT n FROM t WHERE n >= 0 ORDER BY n")]


@by_device
@pytest.mark.parametrize(
    ("fault", "said", "kept"),
    [
        (Fault("write", 1, "kill"), [], []),
        (Fault("write", 2, "torn"), [], []),
        (Fault("write", 3, "kill"), ["0"], [0]),
        (
            Fault("sync", 2, "kill"),
            ["0"],
            [0, 1],
        ),  # written, and not known to be safe: it may be there or not
        (Fault("truncate", 1, "kill"), ["0", "1", "2", "3"], [0, 1, 2, 3]),  # when it is closed
    ],
    ids=str,
)
def test_a_process_dies_at_the_call_that_was_chosen(tmp_path, fault, said, kept):
    code, lines = insert(tmp_path / "t.db", fault)
    assert code == -signal.SIGKILL
    assert lines == said
    assert rows(tmp_path / "t.db") == kept


@by_device
@pytest.mark.parametrize(
    ("fault", "said", "kept"),
    [
        (Fault("sync", 2, "io"), ["0", "SQLITE_IOERR_FSYNC", "mended 1", "2", "3"], [0, 2, 3]),
        (Fault("write", 3, "full"), ["0", "SQLITE_FULL", "mended 1", "2", "3"], [0, 2, 3]),
        (
            Fault("write", 1, "io", calls=2),
            ["SQLITE_IOERR_WRITE", "SQLITE_IOERR_WRITE", "mended 2", "2", "3"],
            [2, 3],
        ),
    ],
    ids=str,
)
def test_calls_fail_as_often_as_was_chosen_and_then_no_more(tmp_path, fault, said, kept):
    assert insert(tmp_path / "t.db", fault) == (0, said)
    assert rows(tmp_path / "t.db") == kept


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.skipif(tracer.missing() is not None, reason=str(tracer.missing()))
async def test_strace_kills_at_the_call_that_was_chosen(tmp_path):
    program = """
        import sqlite3, sys
        from tests.support.crashes import tracer
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE t (n)")
        tracer.wait_for_tracer()
        for number in range(4):
            connection.execute("INSERT INTO t VALUES (?)", (number,))
            print(number, flush=True)
    """
    store = tmp_path / "t.db"
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), store], stdout=subprocess.PIPE, text=True
    ) as process:
        trace = tracer.Tracer(
            store,
            Worker(tmp_path, "1", process.pid),
            Fault("fdatasync", 3, "kill"),
            tmp_path / "log",
        )
        await trace.attach()
        said = process.communicate()[0].split()
    assert process.returncode == -signal.SIGKILL
    assert said == ["0", "1"]
    assert trace.finish()["fdatasync"] == 3
    assert rows(store)[:2] == [0, 1]


def test_where_no_way_is_open_the_test_says_so(tmp_path, monkeypatch):
    for way in dict(by_every_way.__globals__["MISSING"]):
        monkeypatch.setitem(by_every_way.__globals__["MISSING"], way, lambda: "not here")
    with pytest.raises(pytest.skip.Exception, match="strace: not here"):
        by_every_way(lambda *_: Outcome(), tmp_path, 1, 2)
