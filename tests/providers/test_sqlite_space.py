"""What a SQLite store takes on disk: the log under readers, tombstones, the audit, freed pages; and
how old rows are found.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestra import Retention
from orchestra.codec import Payload
from orchestra.providers.sqlite import SqliteProvider
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite import writer as writer_module
from orchestra.store.audit import KEPT_OPERATIONS
from orchestra.store.changes import Recover
from orchestra.store.executions import ExecutionDelta
from orchestra.store.kinds import Status
from orchestra.store.queries import InstanceQuery
from orchestra.testing import ManualClock
from tests.support.contract.shorthand import (
    SECOND,
    a_start,
    a_state,
    a_write,
    an_append,
    an_end,
    an_event,
    begin,
    one,
    read,
)
from tests.support.harness import World, several

LIMIT = 256 * 1024


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def provider(path, clock):
    provider = SqliteProvider(
        path, durability="relaxed", clock=clock, tombstones=timedelta(seconds=100)
    )
    provider.open()
    yield provider
    provider.close()


@pytest.fixture
def small_log(monkeypatch):
    """A log whose bounds are reached soon."""
    monkeypatch.setattr(writer_module, "_LOG_LIMIT", LIMIT)
    monkeypatch.setattr(writer_module, "_COMMITS_BETWEEN_LOOKS", 8)


def size(path):
    return path.stat().st_size


def log_of(path):
    return size(path.with_name(f"{path.name}-wal"))


class Load:
    """Commits of about 10 KiB each."""

    def __init__(self, provider):
        self.provider, self.count = provider, 0
        self.row = begin(provider)

    def commit(self):
        self.count += 1
        event = replace(an_event(self.count), payload=Payload(b"x" * 8000))
        one(self.provider, a_write(self.row, executions=(ExecutionDelta(1, events=(event,)),)))
        self.row = replace(self.row, revision=self.row.revision + 1)


@contextmanager
def readers_that_overlap(path, count=3):
    """Let threads read so that there is never a moment without one: each stays until another has
    begun after it.
    """
    begun, changed, stop = [0], threading.Condition(), threading.Event()

    def main():
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        while not stop.is_set():
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM event").fetchone()
            with changed:
                begun[0] += 1
                mine = begun[0]
                changed.notify_all()
                changed.wait_for(lambda mine=mine: begun[0] > mine or stop.is_set())
            connection.execute("ROLLBACK")
        connection.close()

    threads = [threading.Thread(target=main) for _ in range(count)]
    for thread in threads:
        thread.start()
    with changed:
        changed.wait_for(lambda: begun[0] >= count)
    try:
        yield
    finally:
        stop.set()
        with changed:
            changed.notify_all()
        for thread in threads:
            thread.join()


# --- the log ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_log_stays_bounded_under_readers_that_never_leave_a_moment_without_one(
    provider, path, small_log
):
    """Scenario 20. Left to itself SQLite would never begin the log anew here, and it would grow to
    some ten MiB.
    """
    load = Load(provider)
    largest = 0
    with readers_that_overlap(path):
        for _ in range(800):
            load.commit()
            largest = max(largest, log_of(path))
    assert load.count * 8000 > 20 * LIMIT
    assert largest < 8 * LIMIT


def test_a_reader_that_stays_keeps_no_writer_for_long_and_the_log_is_emptied_once_it_has_gone(
    provider, path, small_log, monkeypatch
):
    monkeypatch.setattr(writer_module, "_PATIENCE_WITH_READERS", 0.01)
    load = Load(provider)
    waits = []
    connection = writer_of(provider)
    connection.set_trace_callback(
        lambda statement: waits.append(statement) if statement == sql.EMPTY_LOG else None
    )
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM event").fetchone()
    for _ in range(200):
        load.commit()
    assert log_of(path) > 4 * LIMIT, "it cannot be emptied"
    assert 1 <= len(waits) <= log_of(path) / (LIMIT / 4), (
        "it is tried again only when it has grown by a part"
    )
    reader.execute("ROLLBACK")
    reader.close()
    for _ in range(40):
        load.commit()
    assert log_of(path) < 4 * LIMIT
    assert len(provider.store.history("i", 1)) == 240


def test_a_log_that_cannot_be_emptied_fails_no_commit(provider, path, small_log, monkeypatch):
    monkeypatch.setattr(sql, "EMPTY_LOG", "PRAGMA wal_checkpoint(TRUNCATE) nonsense")
    load = Load(provider)
    for _ in range(100):
        load.commit()
    assert len(provider.store.history("i", 1)) == 100
    (timeout,) = writer_of(provider).execute("PRAGMA busy_timeout").fetchone()
    assert timeout == 5000, "writers wait for each other as before"


# --- rows ---------------------------------------------------------------------------------------


def test_tombstones_stay_within_what_their_window_holds(provider, clock):
    begin(provider)
    most = 0
    for number in range(600):
        row = (
            provider.store.commit([an_append("i", f"m{number}"), Recover("i", "n1")])
            .outcomes[1]
            .snapshot.row
        )
        provider.store.commit([a_write(row, consumed=(number + 1,))])
        clock.advance(timedelta(seconds=1))
        most = max(most, count(provider, "tombstone"))
    assert most <= 102, "a hundred seconds of one a second"


def test_the_audit_is_bounded_and_keeps_what_was_done_last(provider):
    row = begin(provider)
    one(provider, a_write(row, a_state(row, owner=None)))
    connection = writer_of(provider)
    connection.executemany(
        (
            "INSERT INTO operation (at, actor, action, subject, detail) VALUES (0, 'me', 'pin', "
            "?, x'7b7d')"
        ),
        [(str(number),) for number in range(KEPT_OPERATIONS + 50)],
    )
    provider.admin.set_pin("i", None, by="me", reason="")
    assert count(provider, "operation") == KEPT_OPERATIONS
    assert connection.execute(
        "SELECT subject FROM operation ORDER BY operation_id DESC LIMIT 2"
    ).fetchall() == [
        ("i",),
        (str(KEPT_OPERATIONS + 49),),
    ]


def test_an_instance_that_has_gone_leaves_no_row_in_any_table(provider, clock):
    """I9, counted in every table there is."""
    provider.admin.set_expiry({"watch": SECOND})
    tables = [row[0] for row in writer_of(provider).execute(sql.TABLES)]
    begin(provider)
    provider.store.commit([an_append("i", "m1"), an_append("i", "m2")])
    row = read(provider).row
    one(
        provider,
        a_write(row, consumed=(1,), executions=(ExecutionDelta(1, events=(an_event(1),)),)),
    )
    one(provider, an_end(read(provider).row))
    before = {table: count(provider, table) for table in tables}
    assert before["instance"] == before["tombstone"] == before["event"] == 1
    clock.advance(timedelta(seconds=2))
    assert provider.store.expire() == 1
    of_instances = {
        "instance",
        "instance_detail",
        "label",
        "execution",
        "event",
        "message",
        "tombstone",
        "activity",
    }
    assert {table: count(provider, table) for table in tables} == {
        table: 0 if table in of_instances else before[table] for table in tables
    }


def test_large_instances_go_one_at_a_time(provider, clock):
    """A deletion holds the lock for a few thousand rows, not for as many instances as it may."""
    provider.admin.set_expiry({"watch": SECOND})
    for number in range(3):
        row = begin(provider, f"i{number}")
        events = tuple(an_event(event) for event in range(1, 2001))
        one(provider, a_write(row, executions=(ExecutionDelta(1, events=events),)))
        one(provider, an_end(read(provider, f"i{number}").row))
    clock.advance(timedelta(seconds=2))
    assert [provider.store.expire() for _ in range(4)] == [1, 1, 1, 0]


def test_pages_that_were_freed_are_used_again(provider, path, clock):
    """Why the file needs no vacuum of its own: it grows to what it once held, and no further."""
    provider.admin.set_expiry({"watch": SECOND})
    sizes = []
    for generation in range(6):
        for number in range(20):
            row = begin(provider, f"{generation}-{number}")
            events = tuple(
                replace(an_event(event), payload=Payload(b"x" * 2000)) for event in range(1, 40)
            )
            one(provider, a_write(row, executions=(ExecutionDelta(1, events=events),)))
            one(provider, an_end(read(provider, f"{generation}-{number}").row))
        clock.advance(timedelta(seconds=2))
        while provider.store.expire():
            pass
        sizes.append(writer_of(provider).execute("PRAGMA page_count").fetchone()[0])
    assert sizes[-1] <= sizes[0] * 1.1
    assert read_statuses(provider) == set()


# --- how they are found -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (sql.ANY_EXPIRED, (0,), "instance_expiry"),
        (sql.FIND_EXPIRED, (0, 1), "instance_expiry"),
        (sql.FIND_KEPT, ("i", 1, 1, "i"), "PRIMARY KEY"),
        (sql.PRUNE_EVENTS, ("i", 1, "i"), "PRIMARY KEY"),
        (sql.PRUNE_EXECUTIONS, ("i", 1, "i"), "PRIMARY KEY"),
    ],
    ids=["any expired", "expired", "kept", "events", "executions"],
)
def test_what_is_to_go_is_found_by_an_index_without_a_scan_or_a_sort(
    provider, statement, values, index
):
    plan = [
        row[3] for row in writer_of(provider).execute(f"EXPLAIN QUERY PLAN {statement}", values)
    ]
    assert all(
        step.startswith(("SEARCH", "SCALAR SUBQUERY")) or "LAST TERM" in step for step in plan
    ), plan
    assert index in plan[0]


def test_an_instance_that_is_not_to_go_is_in_no_index_of_those_that_are(provider):
    one(provider, an_end(begin(provider)))
    assert read(provider).status is Status.COMPLETED
    found = (
        writer_of(provider)
        .execute("SELECT 1 FROM instance INDEXED BY instance_expiry WHERE expires_at > 0")
        .fetchall()
    )
    assert found == []


def writer_of(provider):
    return provider._writer._session.connection


def count(provider, table):
    return writer_of(provider).execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def read_statuses(provider):
    return {row[0] for row in writer_of(provider).execute("SELECT status FROM instance")}


# --- families ---------------------------------------------------------------------------------


async def kid(ctx, number):
    return number


async def breeds(ctx, number):
    """A child in each lap, of a second."""
    await ctx.start_child("kid", number)
    await ctx.schedule_timer(timedelta(seconds=1))
    ctx.continue_as_new(number + 1)


def used_pages(path):
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return pages - free


@pytest.mark.slow
@pytest.mark.parametrize("children", ["with_lap", "keep"])
def test_a_loop_with_a_child_in_each_lap_fills_no_disk(path, children):
    """Kept, each child takes 0.86 KiB for ever."""
    world = World(
        lambda clock, **options: SqliteProvider(path, clock=clock, durability="relaxed", **options)
    )
    try:
        retention = Retention(histories=5, executions=30, children=children)
        world.node(several(breeds=breeds, kid=kid), retention=retention)
        instance_id = world.start("breeds", 0)
        world.run(100.5)
        before = used_pages(path)
        world.run(200)
        assert world.record(instance_id).row.execution > 250
        there = len(world.directory.list(InstanceQuery(limit=10_000)))
        if children == "keep":
            assert there > 250
            assert used_pages(path) > before + 25
        else:
            assert there <= 2 * 30 + 3
            assert used_pages(path) <= before + 10
    finally:
        world.close()


_ENDS = """
import resource, sys
from orchestra.providers.sqlite import SqliteProvider
from tests.support.contract.shorthand import an_end, claim, one
provider = SqliteProvider(sys.argv[1])
provider.open()
(snapshot,) = claim(provider)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
one(provider, an_end(snapshot.row, has_parent=False))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
provider.close()
"""


def test_the_end_of_an_instance_does_not_have_its_unread_messages_in_memory(tmp_path):
    path, megabyte = tmp_path / "store.db", Payload(b"x" * 1_000_000)
    provider = SqliteProvider(path)
    provider.open()
    provider.store.commit([a_start("i")])
    for number in range(80):
        message = an_append("i", f"m{number}", limit=1_000, byte_limit=1_000_000_000)
        provider.store.commit([replace(message, payload=megabyte)])
    provider.close()
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ends = subprocess.run(
        [sys.executable, "-c", _ENDS, str(path)],
        check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert int(ends.stdout) < 30_000, "KiB more in memory, beside 80 MB of messages"
