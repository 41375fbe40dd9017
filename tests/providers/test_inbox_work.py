"""What an append costs does not depend on how many messages wait, and old stores learn how many do.
Work is counted.
"""

import sqlite3
from contextlib import closing, contextmanager

import pytest

from orchestra import SqliteProvider
from orchestra.providers.sqlite import schema
from orchestra.store.outcomes import Appended, Granted
from tests.support.contract.shorthand import a_write, an_append, begin, expect, one, read

LIMIT = 1_000


@pytest.fixture
def provider(tmp_path):
    provider = SqliteProvider(tmp_path / "store.db", durability="relaxed")
    provider.open()
    yield provider
    provider.close()


@contextmanager
def steps_of(provider):
    """Count the steps of SQLite's virtual machine, of all that is done on the writer's
    connection.
    """
    connection: sqlite3.Connection = provider._writer._session.connection
    steps = [0]

    def step():
        steps[0] += 1

    connection.set_progress_handler(step, 1)
    try:
        yield steps
    finally:
        connection.set_progress_handler(None, 1)


def send(provider, numbers, name="go"):
    for number in numbers:
        expect(one(provider, an_append("i", f"{name} {number}", name, limit=LIMIT)), Appended)


def test_an_append_costs_the_same_however_many_wait(provider):
    begin(provider)
    send(provider, range(2))
    with steps_of(provider) as few:
        send(provider, range(2, 12))
    send(provider, range(12, 800))
    with steps_of(provider) as many:
        send(provider, range(800, 810))
    assert many[0] <= 2 * few[0]


def test_a_backlog_that_stays_half_full_is_counted_once_in_a_while(provider):
    begin(provider)
    send(provider, range(LIMIT // 2))
    with steps_of(provider) as few:
        send(provider, range(500, 510))
    with steps_of(provider) as all_steps:
        for first in range(510, 510 + 3 * LIMIT, 100):
            row = read(provider).row
            first_unread = first - LIMIT // 2 + 1
            consumed = tuple(range(first_unread, first_unread + 100))
            expect(one(provider, a_write(row, consumed=consumed)), Granted)
            send(provider, range(first, first + 100))
    # Per message, with the write that consumes it; were each append to count, it would be hundreds
    # of times as much.
    assert all_steps[0] / (3 * LIMIT) <= 5 * few[0] / 10


def test_other_names_cost_little_where_one_is_full(provider):
    begin(provider)
    send(provider, range(10), "few")
    send(provider, range(900), "telemetry")
    with steps_of(provider) as beside:
        send(provider, range(10, 60), "few")
    assert beside[0] / 50 <= 1_500, "the name is counted, and not the 900 others"


def test_a_store_from_before_the_bounds_counts_what_it_holds(provider, tmp_path, monkeypatch):
    known = schema.migrations()
    before = tmp_path / "before.db"
    monkeypatch.setattr(schema, "migrations", lambda *_: known[:5])
    with closing(sqlite3.connect(before)) as connection:
        for migration in known[:5]:
            for statement in migration.statements:
                connection.execute(statement)
        connection.execute(
            "INSERT INTO meta VALUES ('schema', '5'), ('store_id', 'x'), ('lowest_reader', '1')"
        )
        connection.commit()
    monkeypatch.setattr(schema, "migrations", lambda *_: known)
    begin(provider)
    send(provider, range(3))
    lasting = provider._writer._session.connection
    with closing(sqlite3.connect(before)) as connection:
        for table in ("kind", "instance", "instance_detail", "execution", "message"):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            rows = lasting.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
            connection.executemany(
                f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", rows
            )
        connection.commit()
    migrated = SqliteProvider(before)
    migrated.open()
    try:
        assert not isinstance(one(migrated, an_append("i", "m3", limit=3)), Appended)
        assert expect(one(migrated, an_append("i", "m3", limit=4)), Appended).sequence == 4
        connection = migrated._writer._session.connection
        assert connection.execute(
            "SELECT most_unread, most_unread_bytes FROM instance"
        ).fetchone() == (4, 28)
    finally:
        migrated.close()
