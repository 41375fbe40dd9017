"""What is particular to SQLite: files, processes, locks, query plans, error codes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestra.codec import Payload
from orchestra.errors import (
    LibraryTooOld,
    NodeBuried,
    OutcomeUnknown,
    SchemaMismatch,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreForked,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from orchestra.providers.sqlite import SqliteProvider, failures, schema
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.filelock import FileLock
from orchestra.providers.sqlite.selections import count_statement, list_statement
from orchestra.store.changes import Append, Claim, Recover, Stop
from orchestra.store.kinds import THIS_LIBRARY, Dialect, MessageKind, Status
from orchestra.store.outcomes import Appended, Claimed, Started
from orchestra.store.queries import InstanceQuery, Order
from orchestra.store.routes import Route
from orchestra.testing import ManualClock
from tests.support.contract.shorthand import (
    KIND,
    a_node,
    a_park,
    a_start,
    a_write,
    an_append,
    begin,
    claim,
    one,
    read,
)
from tests.support.contract.tasks import take


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def provider(path):
    provider = SqliteProvider(path)
    provider.open()
    yield provider
    provider.close()


def writer_of(provider):
    """Return the writer's connection, to do to it what the world does to files."""
    return provider._writer._session.connection


def run_python(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
    )


def edit(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


# --- the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [":memory:", ""])
def test_a_store_without_a_file_is_refused(path):
    with pytest.raises(ValueError, match="needs one"):
        SqliteProvider(path)


def test_a_missing_directory_is_named(tmp_path):
    """Scenario 42."""
    provider = SqliteProvider(tmp_path / "nowhere" / "store.db")
    with pytest.raises(StoreUnavailable, match="nowhere"):
        provider.open()
    (tmp_path / "nowhere").mkdir()
    provider.open()
    assert one(provider, a_start("i")) == Started()
    provider.close()


def test_a_path_that_cannot_be_opened_is_unavailable(tmp_path):
    (tmp_path / "store.db").mkdir()
    with pytest.raises(StoreUnavailable):
        SqliteProvider(tmp_path / "store.db").open()


def test_a_file_that_is_no_database_is_corrupt(path):
    path.write_bytes(b"this is a shopping list, and not a short one at that" * 100)
    with pytest.raises(StoreCorrupt) as raised:
        SqliteProvider(path).open()
    assert isinstance(raised.value.__cause__, sqlite3.DatabaseError)


def test_the_database_of_somebody_else_is_left_alone(path):
    edit(path, "CREATE TABLE precious (thing TEXT)")
    with pytest.raises(StoreCorrupt, match="not one of this library"):
        SqliteProvider(path).open()


def test_durability_is_full_unless_it_is_relaxed_by_name(tmp_path):
    full, relaxed = (
        SqliteProvider(tmp_path / "a.db"),
        SqliteProvider(tmp_path / "b.db", durability="relaxed"),
    )
    for provider, synchronous, name in ((full, 2, "full"), (relaxed, 1, "relaxed")):
        provider.open()
        assert writer_of(provider).execute("PRAGMA synchronous").fetchone() == (synchronous,)
        assert writer_of(provider).execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert name in provider.description
        provider.close()
    with pytest.raises(ValueError, match="durability"):
        SqliteProvider(tmp_path / "c.db", durability="off")


def test_special_characters_of_a_path_are_characters_of_a_file_name(tmp_path):
    provider = SqliteProvider(tmp_path / "what? 100%#1&mode=memory.db")
    provider.open()
    provider.store.join(a_node("n/../1"))
    assert one(provider, a_start("i")) == Started()
    assert read(provider).status is Status.OPEN
    assert (tmp_path / "what? 100%#1&mode=memory.db").exists()
    provider.close()


def test_a_closed_provider_is_unavailable(path):
    provider = SqliteProvider(path)
    for ask in (
        lambda: provider.store.commit([]),
        lambda: provider.directory.get("i"),
        lambda: provider.store.owned("n1"),
    ):
        with pytest.raises(StoreUnavailable, match="not open"):
            ask()


# --- the schema ---------------------------------------------------------------------------------


def test_a_newer_schema_is_refused_only_where_it_rules_out_libraries_as_old_as_this(path, provider):
    """Scenario 37."""
    provider.close()
    edit(
        path,
        "UPDATE meta SET value = '99' WHERE key = 'schema'",
        "UPDATE meta SET value = '9' WHERE key = 'lowest_reader'",
    )
    with pytest.raises(
        LibraryTooOld, match=r"needs a library that reads level 9; .* Upgrade the library"
    ):
        SqliteProvider(path).open()
    # Only expanded: nodes of this library may go on, and start anew, while others are newer.
    edit(path, "UPDATE meta SET value = '1' WHERE key = 'lowest_reader'")
    again = SqliteProvider(path)
    again.open()
    assert one(again, a_start("i")) == Started()
    again.close()


def test_an_older_schema_is_reported_where_migration_is_switched_off(path):
    """Scenario 37."""
    with pytest.raises(SchemaMismatch, match="switched off"):
        SqliteProvider(path, migrate=False).open()
    migrating = SqliteProvider(path)
    migrating.open()
    migrating.close()
    current = SqliteProvider(path, migrate=False)
    current.open()
    current.close()


def test_an_older_schema_is_migrated_in_one_piece(path, provider):
    """Scenario 37."""
    assert one(provider, a_start("i")) == Started()
    provider.close()
    following = schema.migrations()[-1].number + 1
    whole = "CREATE TABLE extra (thing TEXT) STRICT;"
    broken = f"{whole}\nINSERT INTO nowhere VALUES (1);\n"
    with pytest.raises(StoreError):
        SqliteProvider(path, library=replace(THIS_LIBRARY, migrations={"sqlite": (broken,)})).open()
    migrated = SqliteProvider(path, library=replace(THIS_LIBRARY, migrations={"sqlite": (whole,)}))
    migrated.open()
    assert read(migrated).status is Status.OPEN
    assert writer_of(migrated).execute(
        "SELECT value FROM meta WHERE key = 'schema'"
    ).fetchone() == (str(following),)
    migrated.close()


def test_a_store_from_before_children_is_migrated_with_what_is_in_it(path):
    with closing(sqlite3.connect(path)) as connection:
        for statement in schema.migrations()[0].statements:
            connection.execute(statement)
        for statement in (
            "INSERT INTO meta VALUES ('schema', '1'), ('store_id', 'x'), ('lowest_reader', '1')",
            "INSERT INTO kind VALUES (1, '', 'watch', '1.0.0', 1, 0)",
            """INSERT INTO instance VALUES (
                'i', 'a', 1, 1, NULL, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, 5, 5, x'')""",
            (
                "INSERT INTO instance_detail (instance_id, request_id, created_by) VALUES ('i', "
                "'r', 'somebody')"
            ),
            """INSERT INTO execution (instance_id, execution, name, version, version_key, resolved_how, resolved_by,
                policy_revision, state, state_encoding, created_at, event_count, byte_count)
                VALUES ('i', 1, 'watch', '1.0.0', '1', 'policy', 'n', 1, x'6e756c6c', 1, 5, 0, 0)""",
            """INSERT INTO message (instance_id, sequence, message_id, sender, name, payload, encoding, sent_at)
                VALUES ('i', 1, 'm1', '', 'go', x'6e756c6c', 1, 5)""",
        ):
            connection.execute(statement)
        connection.commit()
    migrated = SqliteProvider(path)
    migrated.open()
    try:
        appended = one(migrated, an_append("i", "m1"))
        assert (appended.fresh, appended.sequence) == (False, 1)
        (snapshot,) = claim(migrated)
        assert (snapshot.row.parent, snapshot.row.root_id, snapshot.row.cancel) == (
            None,
            None,
            None,
        )
        assert [message.kind for message in snapshot.messages] == [MessageKind.EVENT]
    finally:
        migrated.close()


def test_what_was_handed_out_before_there_were_stop_marks_is_taken_and_stopped(path):
    stops = next(
        migration
        for migration in schema.migrations()
        if "stopping" in "".join(migration.statements)
    )
    earlier = SqliteProvider(path)
    earlier.open()
    one(earlier, a_start("i"))
    earlier.close()
    with closing(sqlite3.connect(path)) as connection:
        event = (
            "INSERT INTO event (instance_id, execution, event_id, kind, at, format, envelope) "
            "VALUES ('i', 1, ?, 2, 1, 1, x'')"
        )
        connection.executemany(event, [(1,), (2,)])
        activity = """
            INSERT INTO activity (instance_id, execution, event_id, attempt, started_at, attempts, queue, name)
            VALUES ('i', 1, ?, 1, 1, x'', 'default', 'probe')"""
        connection.executemany(activity, [(1,), (2,)])
        connection.execute("ALTER TABLE activity DROP COLUMN stopping")
        connection.execute("ALTER TABLE execution DROP COLUMN state_shape")
        connection.execute("ALTER TABLE execution DROP COLUMN migrations")
        connection.execute("DROP TABLE policy_history")
        connection.execute("DROP TABLE set_aside")
        connection.execute("DROP TRIGGER journal_of_activity")
        connection.execute("DROP TABLE request")
        connection.execute("DROP INDEX message_request")
        for what in ("new", "changed", "deleted"):
            connection.execute(f"DROP TRIGGER tally_of_{what}")
        for what in ("changed", "detail"):
            connection.execute(f"DROP TRIGGER hold_of_{what}")
        for (index,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND name GLOB 'key_*'"
        ).fetchall():
            connection.execute(f"DROP INDEX {index}")
        connection.execute("DROP TABLE tally")
        connection.execute("DROP TABLE code_seen")
        for index in (
            "execution_open",
            "execution_failed",
            "instance_crashing",
            "instance_boundary_kind",
            "instance_pinned",
            "instance_status",
            "instance_held",
            "instance_hold",
            "instance_changed",
        ):
            connection.execute(f"DROP INDEX {index}")
        for gone in (
            "TABLE stream",
            "TABLE stream_item",
            "TABLE schedule",
            "TABLE schedule_slot",
            "INDEX instance_schedule",
        ):
            connection.execute(f"DROP {gone}")
        connection.execute("DROP INDEX instance_boundary")
        connection.execute("DROP INDEX operation_at")
        connection.execute("DROP INDEX operation_subject")
        connection.execute("DROP INDEX activity_claim")
        for table, columns in {
            "instance": ("paused", "boundary_due", "not_before", "hold_kind"),
            "instance_detail": ("operator_hold", "nudge"),
            "execution": ("request_id", "patches", "rewind"),
            "activity": ("paused",),
        }.items():
            for column in columns:
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("CREATE INDEX instance_held ON instance (kind) WHERE held = 1")
        connection.execute(
            "CREATE INDEX activity_claim ON activity (queue, name, started_at) "
            "WHERE queue IS NOT NULL AND owner IS NULL AND result IS NULL AND failure IS NULL"
        )
        connection.execute(
            "UPDATE meta SET value = ? WHERE key = 'schema'", (str(stops.number - 1),)
        )
        connection.commit()
    migrated = SqliteProvider(path)
    migrated.open()
    try:
        (snapshot,) = claim(migrated)
        assert [row.stopping for row in snapshot.activities] == [False, False]
        (task,) = take(migrated, slots=1)
        granted = one(
            migrated, a_write(snapshot.row, stops=(Stop(1, b"withdrawn"), Stop(2, b"withdrawn")))
        )
        assert [arrival.activity.event_id for _, arrival in granted.arrivals] == [2]
        assert migrated.store.taken("n2") == [replace(task, stopping=True)]
    finally:
        migrated.close()


def test_the_migrations_are_numbered_from_one_without_a_gap():
    assert [migration.number for migration in schema.migrations()] == list(
        range(1, len(schema.migrations()) + 1)
    )


@pytest.mark.slow
def test_many_processes_that_open_an_empty_store_make_it_once(path):
    """Scenario 37."""
    script = """
        import sys
        from orchestra.providers.sqlite import SqliteProvider
        from tests.support.contract.shorthand import a_start, one
        provider = SqliteProvider(sys.argv[1])
        provider.open()
        print(one(provider, a_start(sys.argv[2])))
        provider.close()
    """
    processes = [run_python(script, path, f"i{number}") for number in range(6)]
    answers = [process.communicate()[0] for process in processes]
    assert answers == [f"{Started()!r}\n".encode()] * 6
    provider = SqliteProvider(path)
    provider.open()
    assert len(provider.directory.list(InstanceQuery())) == 6
    assert writer_of(provider).execute(
        "SELECT count(*) FROM meta WHERE key = 'store_id'"
    ).fetchone() == (1,)
    provider.close()


# --- crashes ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_acknowledged_commit_survives_a_killed_writer(path):
    script = """
        import sys
        from orchestra.providers.sqlite import SqliteProvider
        from tests.support.contract.shorthand import a_start, an_append
        provider = SqliteProvider(sys.argv[1])
        provider.open()
        provider.store.commit([a_start("i"), a_start("j")])
        number = 0
        while True:
            provider.store.commit([an_append("i", f"m{number}"), an_append("j", f"m{number}")])
            print(number, flush=True)
            number += 1
    """
    acknowledged = -1
    for least in (20, 45, 70):
        process = run_python(script.replace("number = 0", f"number = {acknowledged + 1}"), path)
        for line in process.stdout:
            acknowledged = int(line)
            if acknowledged >= least:
                break
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        acknowledged = int(rest[-1]) if rest else acknowledged
        process.stdout.close()
        process.wait()
    provider = SqliteProvider(path)
    provider.open()
    assert writer_of(provider).execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    first, second = read(provider, "i"), read(provider, "j")
    assert first.unread_messages == second.unread_messages, "a group is all or nothing"
    assert first.unread_messages in (acknowledged + 1, acknowledged + 2)
    provider.close()


def test_a_killed_node_is_seen_to_have_vanished_and_a_living_one_is_not(path, provider):
    script = """
        import sys
        from orchestra.providers.sqlite import SqliteProvider
        from tests.support.contract.shorthand import a_node, begin
        provider = SqliteProvider(sys.argv[1])
        provider.open()
        provider.store.join(a_node("n2"))
        begin(provider, "theirs", node="n2")
        print("joined", flush=True)
        sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    provider.store.join(a_node("n1"))
    assert provider.store.vanished() == []
    process.kill()
    process.communicate()
    assert provider.store.vanished() == ["n2"]
    (node,) = (node for node in provider.store.catalogue().nodes if node.record.node_id == "n2")
    assert provider.store.bury("n2", node.renewals)
    assert provider.store.vanished() == []
    assert provider.store.sweep() == 1
    assert not list(path.parent.glob("*n2*")), "the lock file of a dead node is removed"


def test_leaving_removes_the_lock_file_and_closing_leaves_it(path, provider):
    provider.store.join(a_node("n1"))
    provider.store.join(a_node("n2"))
    provider.store.leave("n1")
    assert [file.name for file in path.parent.glob("*.node-*")] == ["store.db.node-n2.lock"]
    provider.close()
    assert [file.name for file in path.parent.glob("*.node-*")] == ["store.db.node-n2.lock"]


def test_a_node_cannot_be_joined_twice(path, provider):
    provider.store.join(a_node("n1"))
    with pytest.raises(StoreError, match="another process is this node"):
        provider.store.join(a_node("n1"))
    provider.store.renew("n1")


def test_the_lock_of_a_buried_node_that_lives_is_not_removed(path, provider):
    other = SqliteProvider(path)
    other.open()
    other.store.join(a_node("n2"))
    assert provider.store.bury("n2", 0)
    assert len(list(path.parent.glob("*.node-n2.lock"))) == 1
    with pytest.raises(NodeBuried):
        other.store.renew("n2")
    other.store.leave("n2")
    assert not list(path.parent.glob("*.node-n2.lock"))
    other.close()


def test_a_forked_child_is_refused_and_takes_no_lock_away(path, provider):
    provider.store.join(a_node("n1"))
    reader, writer = os.pipe()
    parent, child = os.getpid(), os.fork()
    if child == 0:  # pragma: no cover - counted in the parent only
        answers = []
        for call in (lambda: provider.store.commit([]), lambda: provider.directory.get("i")):
            try:
                call()
            except StoreForked as error:
                answers.append(f"{error.opened_by == parent} {error.retryable} {error}")
        answer = "\n".join(answers).encode()
        provider.close()
        os.write(writer, answer)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    assert [line.startswith(b"True False ") for line in answer.splitlines()] == [True, True]
    assert answer.count(b"does not survive a fork: make a new provider in the child") == 2
    assert one(provider, a_start("i")) == Started()
    other = SqliteProvider(path)
    other.open()
    other.store.join(a_node("n2"))
    assert other.store.vanished() == []
    other.close()


# --- trouble with files -------------------------------------------------------------------------


def test_a_full_disk_is_a_typed_error_and_passes(provider):
    """Scenario 42."""
    row = begin(provider)
    connection = writer_of(provider)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    large = Append("i", "m", "go", Payload(b"x" * 100_000))
    for _ in range(2):
        with pytest.raises(StoreFull) as raised:
            provider.store.commit([large, a_start("j")])
        assert raised.value.retryable
        assert isinstance(raised.value.__cause__, sqlite3.OperationalError)
    assert provider.directory.get("j") is None
    connection.execute("PRAGMA max_page_count = 1000000")
    assert isinstance(one(provider, large), Appended)
    assert one(provider, a_write(row)).inbox_seq == 1


def test_a_read_only_file_is_a_typed_error_and_passes(provider):
    """Scenario 42."""
    writer_of(provider).execute("PRAGMA query_only = 1")
    with pytest.raises(StoreReadOnly):
        provider.store.commit([a_start("i")])
    writer_of(provider).execute("PRAGMA query_only = 0")
    assert one(provider, a_start("i")) == Started()


def test_a_file_that_is_gone_takes_no_write_and_loses_none(path, provider):
    """Scenario 42."""
    assert one(provider, a_start("i")) == Started()
    hidden = path.parent / "hidden"
    hidden.mkdir()
    files = [path, path.with_name("store.db-wal"), path.with_name("store.db-shm")]
    for file in files:
        file.rename(hidden / file.name)
    with pytest.raises(StoreUnavailable):
        one(provider, a_start("j"))
    for file in files:
        (hidden / file.name).rename(file)
    assert one(provider, a_start("j")) == Started()
    assert read(provider, "i").status is Status.OPEN


def test_a_file_that_was_replaced_is_opened_anew(path, provider):
    assert one(provider, a_start("i")) == Started()
    assert read(provider).row.incarnation == "a"
    for file in path.parent.glob("store.db*"):
        file.unlink()
    other = SqliteProvider(path)
    other.open()
    other.close()
    assert one(provider, a_start("i", incarnation="b")) == Started()
    assert claim(provider)[0].row.incarnation == "b"
    assert read(provider).row.incarnation == "b"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_BUSY, StoreBusy),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreBusy),
        (sqlite3.SQLITE_LOCKED, StoreBusy),
        (sqlite3.SQLITE_FULL, StoreFull),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreReadOnly),
        (sqlite3.SQLITE_CANTOPEN, StoreUnavailable),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreUnavailable),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreCorrupt),
        (sqlite3.SQLITE_NOTADB, StoreCorrupt),
        (sqlite3.SQLITE_TOOBIG, StoreError),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, StoreError),
        (None, StoreError),
    ],
)
def test_errors_are_told_apart_by_their_code(code, expected):
    error = sqlite3.OperationalError("whatever the text says: database is locked")
    if code is not None:
        error.sqlite_errorcode = code
    translated = failures.translate(error, Path("store.db"))
    assert type(translated) is expected
    assert translated.retryable == (expected is not StoreError and expected is not StoreCorrupt)


def test_a_device_that_fails_in_the_commit_leaves_the_outcome_open():
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    with pytest.raises(OutcomeUnknown) as raised, failures.translated_commit(Path("store.db")):
        raise error
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("poison", [a_start("\ud800"), a_start("i", wake_at=2**70)])
def test_values_that_no_database_can_hold_are_poison(provider, poison):
    with pytest.raises(StoreError) as raised:
        provider.store.commit([a_start("j"), poison])
    assert not raised.value.retryable
    assert one(provider, a_start("j")) == Started()


def test_a_nul_in_an_id_is_a_character_like_others(provider):
    assert one(provider, a_start("a\x00b")) == Started()
    assert one(provider, a_start("a\x00c")) == Started()
    assert sorted(snapshot.row.instance_id for snapshot in claim(provider)) == ["a\x00b", "a\x00c"]


# --- the lock -----------------------------------------------------------------------------------


def test_waiting_for_another_process_is_bounded_and_names_it(path, provider):
    impatient = SqliteProvider(path, busy_timeout=timedelta(milliseconds=20))
    impatient.open()
    lock = FileLock(path.with_name("store.db.lock"))
    lock.acquire(1)
    with pytest.raises(StoreBusy, match=str(os.getpid())):
        impatient.store.commit([])
    assert impatient.directory.list(InstanceQuery()) == [], "readers wait for nobody"
    lock.release()
    assert one(impatient, a_start("i")) == Started()
    lock.close()
    impatient.close()


def test_somebody_who_writes_past_the_lock_makes_the_store_busy(path, provider):
    """Scenario 40."""
    impatient = SqliteProvider(path, busy_timeout=timedelta(milliseconds=20))
    impatient.open()
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        impatient.store.commit([a_start("i")])
    stranger.execute("ROLLBACK")
    stranger.close()
    assert one(impatient, a_start("i")) == Started()
    impatient.close()


def test_a_busy_writer_lets_the_others_in(path):
    """Scenario 43: without a queue, who polls for the lock never meets the moment in which it is
    free.
    """
    busy, patient = FileLock(path.with_name("x.lock")), FileLock(path.with_name("x.lock"))
    turns = []
    done = threading.Event()

    def hurry():
        while not done.is_set():
            busy.acquire(10)
            turns.append("busy")
            busy.release()

    thread = threading.Thread(target=hurry)
    thread.start()
    for _ in range(50):
        patient.acquire(10)
        patient.release()
    done.set()
    thread.join()
    busy.close()
    patient.close()
    assert turns


@pytest.mark.slow
def test_processes_share_one_file_without_losing_anything(path, provider):
    script = """
        import sys
        from orchestra.providers.sqlite import SqliteProvider
        from tests.support.contract.shorthand import an_append, one
        provider = SqliteProvider(sys.argv[1])
        provider.open()
        for number in range(50):
            one(provider, an_append("i", f"{sys.argv[2]}-{number}"))
        provider.close()
    """
    assert one(provider, a_start("i")) == Started()
    processes = [run_python(script, path, sender) for sender in range(3)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert read(provider).unread_messages == 150
    assert writer_of(provider).execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# --- query plans --------------------------------------------------------------------------------


def plan(provider, statement, *values):
    return [
        row[3] for row in writer_of(provider).execute(f"EXPLAIN QUERY PLAN {statement}", values)
    ]


def test_claims_probe_the_partial_index_without_scan_or_sort(provider):
    (due,) = plan(provider, sql.FIND_READY, 1, 5, 10)
    assert due == "SEARCH instance USING INDEX instance_claim (kind=? AND wake_at>? AND wake_at<?)"
    (earliest,) = plan(provider, sql.NEXT_WAKE, 1)
    assert earliest == "SEARCH instance USING INDEX instance_claim (kind=? AND wake_at>?)"


def test_news_is_found_among_what_is_new_only(provider):
    (instances,) = plan(provider, sql.READ_NEWS, "n1")
    assert instances == "SEARCH instance USING INDEX instance_news (owner=?)"
    (messages,) = plan(provider, sql.READ_INBOX, "i", 0, 9, 10)
    assert (
        messages == "SEARCH message USING PRIMARY KEY (instance_id=? AND sequence>? AND sequence<?)"
    )


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (sql.LIST_OWNED, ("n1",), "instance_owner"),
        (sql.COUNT_OWNED, ("n1",), "instance_owner"),
        (sql.IS_GOING, ("i",), "PRIMARY KEY (instance_id=?)"),
        (sql.FIND_GHOST_OWNED, (1,), "instance_owner"),
        (
            list_statement(InstanceQuery(limit=10), Dialect(THIS_LIBRARY))[0],
            (10,),
            "instance_created",
        ),
        (sql.FIND_ADDRESSEE, ("i", "m"), "message_identity"),
        (
            sql.READ_EVENTS,
            ("i", "go", 0, 9, 10),
            "message_name (instance_id=? AND name=? AND sequence>? AND sequence<?)",
        ),
        (sql.DROP_REPORTS, ("i", "[1, 2]"), "message_report"),
        (sql.LIST_REPORTS, ("i",), "message_report"),
        (sql.READ_REPORTS % "?", ("i",), "message_report"),
        (sql.PRUNE_TOMBSTONES, (1, 10), "tombstone_age"),
        (sql.ANY_WAITING, (), "activity_claim"),
        (sql.FIND_WAITING, ("default", "probe", 10), "activity_claim"),
        (sql.LIST_TASKS, ("n1",), "activity_owner"),
        (sql.FIND_LOST_TASKS, (10,), "activity_owner"),
    ],
)
def test_reads_go_by_their_index_and_sort_nothing(provider, statement, values, index):
    steps = plan(provider, statement, *values)
    assert any(index in step for step in steps), steps
    assert not any("TEMP B-TREE FOR ORDER BY" in step for step in steps), steps


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (InstanceQuery(overdue=True, now=5), "INDEX instance_boundary (boundary_due<?)"),
        (InstanceQuery(parent="i"), "INDEX instance_parent (parent_id=?)"),
        (InstanceQuery(id_prefix="i", order=Order.ID), "PRIMARY KEY (instance_id>? AND "),
        (InstanceQuery(order=Order.OLDEST), "INDEX instance_created"),
        (InstanceQuery(held=True), "INDEX instance_hold"),
        (InstanceQuery(few=True, name="rare"), "INDEX execution_open (name=?"),
        (InstanceQuery(few=True, name="rare"), "COVERING INDEX instance_status"),
        (
            InstanceQuery(held=True, unserved_routes=(Route("q", "a"),)),
            "activity_claim (queue=? AND",
        ),
    ],
)
def test_selections_are_found_by_their_index_and_counted_by_it(provider, query, index):
    dialect = Dialect(THIS_LIBRARY)
    statement, values = list_statement(query, dialect)
    steps = plan(provider, statement, *values)
    assert any(index in step for step in steps), steps
    statement, values = count_statement(query, dialect, (), 10)
    steps = plan(provider, statement, *values)
    held = query.held and "instance_hold" in index
    assert any(index in step for step in steps) or query.order is Order.OLDEST or held, steps
    assert not any("SEARCH d " in step for step in steps), "a plain count reads no cold row"


def test_a_list_by_the_last_change_looks_at_a_page_of_what_is_parked(provider):
    query = InstanceQuery(order=Order.LATEST_CHANGE)
    steps = plan(provider, list_statement(query, Dialect(THIS_LIBRARY))[0], *[10] * 5)
    assert "SCAN i USING INDEX instance_changed" in steps
    assert "SEARCH i USING INDEX instance_owner (owner>?)" in steps
    assert not any(step.startswith("SCAN x") for step in steps), "what has not begun is probed for"


def test_numbers_of_reports_are_read_from_indexes_alone(provider):
    (failed, *_) = plan(provider, sql.COUNT_FAILED, 5)
    assert failed == "SEARCH execution USING COVERING INDEX execution_failed (closed_at>?)"
    (held,) = plan(provider, sql.COUNT_HOLDS)
    assert held == "SCAN instance USING COVERING INDEX instance_held"


def test_routes_of_waiting_activities_are_read_from_their_index_one_by_one(provider):
    (step,) = plan(provider, sql.NEXT_WAITING_ROUTE, "default", "probe")
    assert "COVERING INDEX activity_claim" in step or "INDEX activity_claim" in step
    assert step.startswith("SEARCH")


def test_held_instances_are_found_without_looking_at_others(provider):
    steps = plan(provider, sql.LIST_HELD, -1, "", 1000, '["watch"]')
    assert (
        "SEARCH instance USING COVERING INDEX instance_hold ((created_at,instance_id)>(?,?))"
        in steps
    )
    assert not [step for step in steps if step.startswith("SCAN instance")]


def test_operators_leave_an_audit(provider):
    begin(provider)
    provider.admin.set_policy("watch", "latest", by="me", reason="why not")
    provider.admin.set_policy("watch", "latest", by="me", reason="again", only_first=True)
    provider.admin.set_pin("i", None, by="me", reason="")
    provider.admin.delete("i", "a", by="me", reason="")
    rows = (
        writer_of(provider)
        .execute("SELECT action, actor, subject FROM operation ORDER BY operation_id")
        .fetchall()
    )
    assert rows == [("set policy", "me", "watch"), ("unpin", "me", "i")], (
        "what was refused is no operation"
    )


def test_a_policy_that_a_library_without_a_history_replaced_is_a_gap_in_it(provider):
    def revisions():
        return [(row.revision, row.by) for row in provider.directory.policies("watch")]

    provider.admin.set_policy("watch", "latest", by="me", reason="")
    older = "UPDATE policy SET revision = revision + 1, set_by = 'older' WHERE name = 'watch'"
    writer_of(provider).execute(older)
    assert revisions() == [(2, "older")]
    provider.admin.set_policy("watch", "exact:1.0.0", by="me", reason="")
    assert revisions() == [(3, "me"), (2, "older")]


def test_tombstones_are_pruned_in_small_parts(path):
    clock = ManualClock()
    provider = SqliteProvider(path, clock=clock, tombstones=timedelta(seconds=1))
    provider.open()
    begin(provider)
    for number in range(20):
        row = (
            provider.store.commit([an_append("i", f"m{number}"), Recover("i", "n1")])
            .outcomes[1]
            .snapshot.row
        )
        provider.store.commit([a_write(row, consumed=(number + 1,))])
        clock.advance(timedelta(seconds=2 if number > 10 else 0))
    (left,) = writer_of(provider).execute("SELECT count(*) FROM tombstone").fetchone()
    assert left < 12
    provider.close()


def test_a_parked_instance_is_in_no_index_that_a_claim_looks_at(provider):
    row = begin(provider)
    one(provider, a_park(row))
    assert one(provider, Claim("n1", (KIND,), 1)) == Claimed((), more=False)
