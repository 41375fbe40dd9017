"""The verdict over a campaign finds what the checker cannot see."""

import json
import sqlite3
from contextlib import closing

import psycopg
import pytest

from orchestra.clock import new_id
from tests.support.crashes.processes import Worker
from tests.support.crashes.stores import Served, provider_of
from tests.support.crashes.verdict import raw_problems, write_problems

NEITHER = 2**22 + 1
"""No process has this id."""


@pytest.fixture(params=["file", pytest.param("server", marks=pytest.mark.slow)])
def store(request, tmp_path):
    if request.param == "file":
        found = tmp_path / "store.db"
    else:
        found = Served(tmp_path, request.getfixturevalue("dsn"), f"test_{new_id()}")
    provider = provider_of(found)
    provider.open()
    provider.close()
    return found


def execute(store, *statements):
    if isinstance(store, Served):
        with psycopg.connect(store.dsn, options=f"-c search_path={store.schema}") as connection:
            for statement in statements:
                connection.execute(statement)
        return
    with closing(sqlite3.connect(store)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def write(folder, name, *lines):
    (folder / f"writes-{name}").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Worker(folder, name, NEITHER)


def test_an_empty_store_is_sound(store):
    assert list(raw_problems(store)) == []


def test_rows_that_belong_to_nobody_are_found(store):
    execute(
        store,
        "INSERT INTO label (instance_id, key, value) VALUES ('gone', 'k', 'v')",
        (
            "INSERT INTO capability (node_id, name, version, fingerprint) VALUES ('gone', 'n', "
            "'1.0.0', 'f')"
        ),
    )
    assert list(raw_problems(store)) == [
        "I9: label has rows of 'gone', which is not there",
        "I9: abilities of a node that does not live: gone",
    ]


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_a_damaged_file_is_found(store):
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        root = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'instance_created'"
        ).fetchone()[0]
        connection.execute(
            "UPDATE sqlite_schema SET rootpage = ? WHERE name = 'label_value'", (root,)
        )
        connection.commit()
    assert any(problem.startswith("I13") for problem in raw_problems(store))


@pytest.mark.parametrize("store", ["server"], indirect=True)
def test_an_index_that_does_not_say_what_its_table_does_is_found(store, postgres):
    """The order of texts under it has changed, as when the machine's collations do."""
    if not postgres.is_own:
        pytest.skip("somebody else's catalogue is not damaged")
    execute(store, "CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA public")
    execute(
        store,
        (
            "INSERT INTO label (instance_id, key, value) SELECT 'i', 'k' || n, 'v' || n FROM "
            "generate_series(1, 50) n"
        ),
        "UPDATE pg_index SET indoption = '1 1' WHERE indexrelid = 'label_pkey'::regclass",
    )
    assert any(problem.startswith("I13: label_pkey") for problem in raw_problems(store))


def test_two_writes_from_one_revision_are_found(tmp_path):
    one = write(tmp_path, "1", ["a", "i", 1, "node-1", True, 0], ["a", "i", 2, "node-1", False, 0])
    two = write(
        tmp_path, "2", ["a", "i", 2, "node-2", True, 0], ["a", "other", 1, "node-2", True, 0]
    )
    assert list(write_problems([one, two])) == []
    three = write(tmp_path, "3", ["a", "i", 2, "node-3", True, 0])
    assert list(write_problems([one, two, three])) == [
        "I6: revision 2 of 'a' was written by node-2 and by node-3"
    ]
