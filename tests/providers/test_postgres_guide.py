"""The guide's SQL runs on a real server, beside a store, and shows what the guide says."""

import re
import threading
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from orchestra.clock import new_id
from orchestra.providers.postgres import PostgresProvider

GUIDE = (
    Path(__file__).parents[2] / "ops" / "guide" / "pages" / "how-to" / "postgres.md"
).read_text(encoding="utf-8")
STATEMENTS = [
    statement.strip()
    for block in re.findall(r"```sql\n(.*?)```", GUIDE, re.DOTALL)
    for statement in block.split(";")
    if statement.strip()
]


@pytest.fixture
def schema_name():
    return f"test_{new_id()}"


@pytest.fixture
def store(dsn, schema_name):
    provider = PostgresProvider(dsn, schema_name)
    provider.open()
    yield
    provider.close()


@pytest.fixture
def ask(dsn, store, schema_name):
    """Run the one statement of the guide that has these words, on the store's schema."""

    def run(words):
        (statement,) = (one for one in STATEMENTS if words in one)
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(
                statement.replace("'orchestra'", f"'{schema_name}'")
            ).fetchall()

    return run


@pytest.mark.parametrize(
    "statement", STATEMENTS, ids=lambda statement: statement.split("\n")[0][:40]
)
def test_each_statement_of_the_guide_runs_in_a_read_only_transaction(dsn, statement):
    with psycopg.connect(dsn) as connection:
        connection.read_only = True
        connection.execute(statement)


def test_an_open_transaction_and_the_session_that_waits_for_its_lock_are_shown(
    dsn, schema_name, ask
):
    table = f'"{schema_name}".instance'
    with psycopg.connect(dsn) as holder, psycopg.connect(dsn) as waiter:
        holder.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        holder_pid, waiter_pid = (each.info.backend_pid for each in (holder, waiter))
        shown = {row["pid"]: row for row in ask("holds_back\nFROM pg_stat_activity")}
        assert shown[holder_pid]["state"] == "idle in transaction"
        thread = threading.Thread(target=waiter.execute, args=(f"SELECT count(*) FROM {table}",))
        thread.start()
        while not (waiting := [row for row in ask("blocked_by") if row["pid"] == waiter_pid]):
            assert thread.is_alive()
        assert waiting[0]["blocked_by"] == [holder_pid]
        holder.rollback()
        thread.join()


def test_the_stores_tables_are_listed_with_their_dead_rows(ask):
    tables = {row["relname"] for row in ask("n_dead_tup")}
    assert {"instance", "event", "activity", "message", "node"} <= tables


def test_the_age_of_transaction_numbers_the_connections_and_the_settings_are_shown(dsn, ask):
    with psycopg.connect(dsn) as connection:
        database = connection.info.dbname
    assert database in {row["datname"] for row in ask("datfrozenxid")}
    assert ("orchestra", database) in {
        (row["application_name"], row["datname"]) for row in ask("max_connections")
    }
    assert len(ask("FROM pg_settings")) == 6
