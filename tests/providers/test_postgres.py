"""What is particular to PostgreSQL: second connections in the middle, lost ones, locks, plans,
codes, the schema.
"""

from __future__ import annotations

import json
import os
import random
import select
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql as compose

from orchestra.clock import new_id
from orchestra.codec import Payload
from orchestra.errors import (
    LibraryTooOld,
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
from orchestra.events import OnParentClose
from orchestra.levels import Levels
from orchestra.providers.postgres import PostgresProvider, schema
from orchestra.providers.postgres import connection as connections
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Flags, Numbers, Texts
from orchestra.providers.postgres.conditions import Statement
from orchestra.providers.postgres.failures import translate
from orchestra.providers.postgres.kinds import kind_arrays, route_arrays
from orchestra.providers.postgres.rendering import arrays
from orchestra.providers.postgres.wire import Script
from orchestra.store.changes import (
    Append,
    Cancel,
    ChildCancel,
    ChildStart,
    Claim,
    Recover,
    Release,
    Stop,
)
from orchestra.store.executions import Closing, ExecutionDelta, Opening, Prune
from orchestra.store.instances import ParentLink
from orchestra.store.kinds import (
    CONTROL_LEVEL,
    THIS_LIBRARY,
    Dialect,
    ExecutionEnd,
    HoldKind,
    Status,
)
from orchestra.store.outcomes import (
    Appended,
    Claimed,
    Granted,
    Recovered,
    Refused,
    Reported,
    Started,
    StartExists,
)
from orchestra.store.queries import InstanceQuery, Order, Standing, Target
from orchestra.store.tasks import ActivityRow
from tests.support.contract.shorthand import (
    KIND,
    OTHER_KIND,
    POLICY,
    a_hold,
    a_node,
    a_park,
    a_start,
    a_state,
    a_write,
    an_append,
    an_end,
    an_event,
    an_execution,
    begin,
    claim,
    expect,
    ids,
    one,
    read,
)
from tests.support.contract.tasks import ROUTE, a_report, hand_out, handed_out, take

PATIENCE = 30.0


@pytest.fixture
def schema_name():
    return f"test_{new_id()}"


@pytest.fixture
def connect(dsn, schema_name):
    """Return a function that opens one more provider of this test's store."""
    opened = []

    def open_another(**options):
        provider = PostgresProvider(options.pop("dsn", dsn), schema_name, **options)
        provider.open()
        opened.append(provider)
        return provider

    yield open_another
    for provider in opened:
        provider.close()


@pytest.fixture
def provider(connect):
    return connect()


@pytest.fixture
def other(dsn, schema_name):
    """A connection that is nobody's provider, to come in between."""
    with psycopg.connect(
        dsn, autocommit=True, options=f'-c search_path="{schema_name}" -c deadlock_timeout=60s'
    ) as connection:
        yield connection


def lane_of(provider):
    """Return the engine's connection, to do to it what networks and administrators do."""
    return provider._lane._connection


def backend_of(provider):
    return lane_of(provider).info.backend_pid


def terminate(connection, pid):
    connection.execute("SELECT pg_terminate_backend(%s)", (pid,))


def until(look):
    """Wait for what other processes bring about."""
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)
    return found


def waits(connection, provider):
    """Return whether the engine's connection of a provider waits for a lock."""
    asked = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
    return connection.execute(asked, (backend_of(provider),)).fetchone()[0]


@contextmanager
def in_background(work):
    """Run some work on a thread during the body; give a function that waits for its result."""
    results = []

    def run():
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def result():
        thread.join(PATIENCE)
        return results[0]

    yield result
    thread.join(PATIENCE)


def answer(ask):
    """Return what comes, an error of the store included."""
    try:
        return ask()
    except StoreError as error:
        return error


# --- the DSN, the schema's name, the session ----------------------------------------------------


@pytest.mark.parametrize("name", ["", "pg_mine", "x" * 64, "ü" * 32, "a\0b"])
def test_a_name_that_the_server_would_change_or_refuse_is_refused(name):
    with pytest.raises(ValueError, match="cannot be the name"):
        PostgresProvider("", name)


@pytest.mark.parametrize(
    "name", ['Weird "name"; DROP SCHEMA public', "back\\slash %s $1 @at", "ünïcode"]
)
def test_the_name_of_the_schema_is_a_name_whatever_stands_in_it(dsn, name):
    provider = PostgresProvider(dsn, name)
    provider.open()
    try:
        begin(provider)
        assert read(provider).status is Status.OPEN
        with psycopg.connect(dsn) as connection:
            assert connection.execute(
                "SELECT 1 FROM pg_namespace WHERE nspname = %s", (name,)
            ).fetchone() == (1,)
    finally:
        provider.close()
        with psycopg.connect(dsn) as connection:
            connection.execute(
                compose.SQL("DROP SCHEMA {} CASCADE").format(compose.Identifier(name))
            )


def test_the_description_holds_no_password():
    provider = PostgresProvider("postgresql://me:secret@db.example.com:5433/app?sslmode=require")
    assert (
        provider.description
        == "PostgreSQL store 'orchestra' at db.example.com:5433/app (full durability)"
    )
    with pytest.raises(ValueError, match="durability"):
        PostgresProvider("", durability="off")


def test_a_closed_provider_is_unavailable(dsn):
    provider = PostgresProvider(dsn)
    for ask in (
        lambda: provider.store.commit([]),
        lambda: provider.directory.get("i"),
        lambda: provider.store.owned("n1"),
    ):
        with pytest.raises(StoreUnavailable, match="not open"):
            ask()


def test_a_server_that_is_not_there_is_unavailable_and_is_not_hammered(tmp_path):
    provider = PostgresProvider(f"host={tmp_path} user=nobody password=hidden")
    with pytest.raises(StoreUnavailable) as raised:
        provider.open()
    assert isinstance(raised.value.__cause__, psycopg.OperationalError)
    assert "hidden" not in str(raised.value)
    provider._pool.open()  # as if the server had gone away after it was opened
    with pytest.raises(StoreUnavailable, match="No such file"):
        provider.directory.get("i")
    with pytest.raises(StoreUnavailable, match="a moment ago"):
        provider.directory.get("i")


def test_every_call_is_bounded_on_the_server_and_on_the_wire(connect):
    provider = connect(statement_timeout=timedelta(seconds=7), lock_timeout=timedelta(seconds=3))
    one(provider, a_start("i"))
    read(provider)
    (reader,) = provider._pool._idle
    for connection in (lane_of(provider), reader):
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()[0]
            for name in (
                "statement_timeout",
                "lock_timeout",
                "idle_in_transaction_session_timeout",
                "synchronous_commit",
            )
        }
        assert shown == {
            "statement_timeout": "7s",
            "lock_timeout": "3s",
            "idle_in_transaction_session_timeout": "7s",
            "synchronous_commit": "on",
        }
        parameters = connection.info.get_parameters()
        assert parameters["tcp_user_timeout"] == "10000"
        assert parameters["keepalives_idle"] == "5"
        assert parameters["connect_timeout"] == "10"


def test_what_the_dsn_says_comes_first(connect, dsn):
    provider = connect(dsn=f"{dsn} keepalives_idle=99 application_name=mine")
    one(provider, a_start("i"))
    parameters = lane_of(provider).info.get_parameters()
    assert (parameters["keepalives_idle"], parameters["application_name"]) == ("99", "mine")


def test_a_commit_is_durable_whatever_the_default_is_unless_it_is_relaxed_by_name(connect, dsn):
    lazy = f"{dsn} options='-c synchronous_commit=off'"
    for options, shown in (({}, "on"), ({"durability": "relaxed"}, "off")):
        provider = connect(dsn=lazy, **options)
        one(provider, a_start(f"i {shown}"))
        assert lane_of(provider).execute("SHOW synchronous_commit").fetchone() == (shown,)
    waiting = connect(dsn=f"{dsn} options='-c synchronous_commit=remote_apply'")
    one(waiting, a_start("j"))
    assert lane_of(waiting).execute("SHOW synchronous_commit").fetchone() == ("remote_apply",)


def test_a_server_that_would_lose_commits_is_refused(connect, monkeypatch):
    monkeypatch.setattr(connections, "_READ_DURABILITY", "SELECT 'off', 'on'")
    with pytest.raises(StoreUnavailable, match="I13"):
        connect()
    connect(durability="relaxed")


# --- the schema ---------------------------------------------------------------------------------


def test_a_newer_schema_is_refused_unless_it_says_that_this_library_can_read_it(
    provider, connect, other
):
    other.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    other.execute("UPDATE meta SET value = '9' WHERE key = 'lowest_reader'")
    with pytest.raises(
        LibraryTooOld, match=r"needs a library that reads level 9; .* Upgrade the library"
    ):
        connect()
    # Only expanded: nodes of this library may go on, and start anew, while others are newer.
    other.execute("UPDATE meta SET value = '1' WHERE key = 'lowest_reader'")
    begin(connect())
    assert other.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() == ("99",)


def test_where_migration_is_switched_off_the_schema_is_only_verified(connect, other):
    with pytest.raises(SchemaMismatch, match="switched off"):
        connect(migrate=False)
    assert other.execute(
        "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"
    ).fetchone() == (0,)
    connect()
    begin(connect(migrate=False))


def test_an_older_schema_is_migrated_in_one_piece(provider, connect, other, monkeypatch):
    assert one(provider, a_start("i")) == Started()
    known = schema.migrations()
    number = known[-1].number + 1
    broken = schema.Migration(
        number, 1, "CREATE TABLE @extra (thing text); INSERT INTO @nowhere VALUES (1);"
    )
    monkeypatch.setattr(schema, "migrations", lambda *_: (*known, broken))
    with pytest.raises(StoreError):
        connect()
    assert other.execute("SELECT to_regclass('extra')").fetchone() == (None,)
    whole = schema.Migration(
        number, 1, "CREATE TABLE @extra (thing text); INSERT INTO @extra VALUES ('1');"
    )
    monkeypatch.setattr(schema, "migrations", lambda *_: (*known, whole))
    migrated = connect()
    assert read(migrated).status is Status.OPEN
    assert dict(
        other.execute("SELECT key, value FROM meta WHERE key <> 'store_id'").fetchall()
    ) == {
        "schema": str(number),
        "write_level": "1",
        "lowest_reader": "1",
    }
    assert other.execute("SELECT count(*) FROM extra").fetchone() == (1,)
    assert one(provider, a_start("j")) == Started(), "the node that was there before goes on"


def test_what_was_handed_out_before_there_were_stop_marks_is_taken_and_stopped(connect, other):
    stops = next(migration for migration in schema.migrations() if "stopping" in migration.script)
    one(connect(), a_start("i"))
    for number in (1, 2):
        other.execute(
            (
                "INSERT INTO event (instance_id, execution, event_id, kind, at, format, "
                "envelope) VALUES ('i', 1, %s, 2, 1, 1, '')"
            ),
            (number,),
        )
        other.execute(
            "INSERT INTO activity (instance_id, execution, event_id, attempt, started_at, "
            "attempts, queue, name) VALUES ('i', 1, %s, 1, 1, '', 'default', 'probe')",
            (number,),
        )
    other.execute("ALTER TABLE activity DROP COLUMN stopping")
    other.execute("ALTER TABLE execution DROP COLUMN state_shape")
    other.execute("ALTER TABLE execution DROP COLUMN migrations")
    other.execute("DROP TABLE policy_history, set_aside, tally, tally_change, code_seen")
    other.execute("DROP TABLE schedule, schedule_slot, stream, stream_item")
    other.execute("DROP INDEX instance_schedule")
    other.execute("DROP FUNCTION journal_of_activity CASCADE")
    other.execute("DROP TABLE request")
    other.execute("DROP INDEX message_request")
    other.execute("DROP INDEX operation_subject")
    for what in ("new", "changed", "deleted"):
        other.execute(f"DROP FUNCTION tally_of_{what} CASCADE")
    for what in ("changed", "detail"):
        other.execute(f"DROP FUNCTION hold_of_{what} CASCADE")
    for (index,) in other.execute(
        "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() "
        "AND starts_with(indexname, 'key_')"
    ).fetchall():
        other.execute(f"DROP INDEX {index}")
    for index in (
        "instance_held", "instance_hold", "execution_failed", "instance_crashing", "instance_pinned", "instance_status",
    ):  # fmt: skip
        other.execute(f"DROP INDEX {index}")
    for table, columns in {
        "instance": ("paused", "boundary_due", "not_before", "hold_kind", "changed_at"),
        "instance_detail": ("operator_hold", "nudge"),
        "execution": ("request_id", "patches", "rewind"),
        "activity": ("paused",),
    }.items():
        for column in columns:
            other.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    other.execute("CREATE INDEX instance_held ON instance (kind) WHERE held")
    other.execute(
        "CREATE INDEX activity_claim ON activity (queue, name, started_at, instance_id) "
        "WHERE queue IS NOT NULL AND owner IS NULL AND result IS NULL AND failure IS NULL"
    )
    other.execute("UPDATE meta SET value = %s WHERE key = 'schema'", (str(stops.number - 1),))
    migrated = connect()
    (snapshot,) = claim(migrated)
    assert [row.stopping for row in snapshot.activities] == [False, False]
    (task,) = take(migrated, slots=1)
    granted = one(
        migrated, a_write(snapshot.row, stops=(Stop(1, b"withdrawn"), Stop(2, b"withdrawn")))
    )
    assert [arrival.activity.event_id for _, arrival in granted.arrivals] == [2]
    assert migrated.store.taken("n2") == [replace(task, stopping=True)]


def test_the_migrations_are_numbered_from_one_without_a_gap():
    known = schema.migrations()
    assert [migration.number for migration in known] == list(range(1, len(known) + 1))
    assert all(1 <= migration.lowest_reader <= migration.number for migration in known)


def test_the_schema_of_somebody_else_is_left_alone(dsn, schema_name, connect):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{schema_name}"')
        connection.execute(f'CREATE TABLE "{schema_name}".precious (thing text)')
        with pytest.raises(StoreCorrupt, match="not one of this library"):
            connect()
        connection.execute(f'DROP TABLE "{schema_name}".precious')
    begin(connect())  # made by whoever may make schemas, and empty


def test_a_role_that_may_only_read_and_write_rows_is_enough_once_the_schema_is_there(
    postgres, dsn, schema_name, connect, other
):
    if not postgres.is_own:
        pytest.skip("roles are not made on somebody else's server")
    connect()
    role = f"role_{schema_name}"
    other.execute(f'CREATE ROLE "{role}" LOGIN')
    other.execute(f'GRANT USAGE ON SCHEMA "{schema_name}" TO "{role}"')
    other.execute(
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema_name}" TO "{role}"'
    )
    try:
        serving = connect(dsn=psycopg.conninfo.make_conninfo(dsn, user=role))
        serving.store.join(a_node("n1"))
        row = begin(serving)
        assert one(serving, a_write(row)) == Granted(0)
        assert serving.store.vanished() == []
        with pytest.raises(StoreReadOnly):
            PostgresProvider(
                psycopg.conninfo.make_conninfo(dsn, user=role), f"{schema_name[:40]}_new"
            ).open()
        serving.close()
    finally:
        other.execute(f'DROP OWNED BY "{role}"')
        other.execute(f'DROP ROLE "{role}"')


# --- races, with a second connection in the middle ----------------------------------------------


def test_a_write_that_has_waited_for_the_row_is_judged_by_what_it_then_finds(provider, other):
    row = begin(provider)
    with other.transaction():
        other.execute("UPDATE instance SET revision = revision + 1")
        with in_background(
            lambda: one(
                provider, a_write(row, executions=(ExecutionDelta(1, events=(an_event(1),)),))
            )
        ) as result:
            until(lambda: waits(other, provider))
            other.execute("COMMIT")
            assert result() == Refused()
            other.execute("BEGIN")
    assert provider.store.history("i", 1) == []


def test_recovery_waits_for_the_write_that_is_still_under_way(provider, other):
    begin(provider)
    other.execute("BEGIN")
    other.execute("UPDATE instance SET revision = revision + 1, history_events = 7")
    with in_background(lambda: one(provider, Recover("i", "n1"))) as result:
        until(lambda: waits(other, provider))
        other.execute("COMMIT")
        recovered = expect(result(), Recovered)
    assert (recovered.snapshot.row.history_events, recovered.snapshot.row.revision) == (7, 4)


def test_a_stop_waits_for_a_claim_that_is_under_way_and_leaves_the_try_to_who_has_it(
    provider, other
):
    """Whoever takes a try locks its row, and not that of the instance."""
    row = hand_out(provider, handed_out(), owner="n1")
    other.execute("BEGIN")
    other.execute("UPDATE activity SET owner = 'n2', revision = revision + 1")
    with in_background(
        lambda: one(provider, a_write(row, stops=(Stop(1, b"withdrawn"),)))
    ) as result:
        until(lambda: waits(other, provider))
        other.execute("COMMIT")
        assert expect(result(), Granted).arrivals == ()
    (shown,) = read(provider).activities
    assert (shown.owner, shown.stopping, shown.has_ended) == ("n2", True, False)
    (task,) = provider.store.taken("n2")
    expect(one(provider, a_report(task)), Reported)


def test_a_claim_passes_over_what_is_being_stopped(connect, other):
    provider, claiming = connect(), connect()
    row = hand_out(provider, handed_out(), owner="n1")
    other.execute("BEGIN")
    other.execute("SELECT FROM activity FOR UPDATE")  # as the write does that stops it
    assert take(claiming) == ()
    other.execute("ROLLBACK")
    expect(one(provider, a_write(row, stops=(Stop(1, b"withdrawn"),))), Granted)
    assert take(claiming) == ()


def test_stops_claims_and_nodes_that_leave_never_wait_for_each_other_in_a_circle(
    connect, other, seed
):
    providers = [connect() for _ in range(4)]
    names = [f"i{number}" for number in range(6)]
    for name in names:
        hand_out(
            providers[0],
            *(handed_out(number) for number in range(1, 41)),
            instance_id=name,
            owner="n0",
        )
    failures = []

    def work(number):
        chance = random.Random(seed + number)
        try:
            for _ in range(20):
                node = f"n{number}-{chance.randrange(1000)}"
                tasks = take(providers[number], node, slots=6)
                providers[number].store.commit(
                    [a_report(task, node) for task in chance.sample(tasks, len(tasks) // 3)]
                )
                providers[number].store.leave(node)
                providers[number].store.sweep()
        except Exception as error:
            failures.append(error)

    def stop():
        chance = random.Random(seed)
        try:
            for _ in range(20):
                writes = []
                for name in chance.sample(names, 3):
                    stops = tuple(
                        Stop(number, b"withdrawn") for number in chance.sample(range(1, 41), 3)
                    )
                    writes.append(a_write(read(providers[0], name).row, stops=stops))
                providers[0].store.commit(writes)
        except Exception as error:
            failures.append(error)

    asked = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = other.execute(asked).fetchone()
    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)] + [
        threading.Thread(target=stop)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    other.execute("SELECT pg_stat_clear_snapshot()")
    assert other.execute(asked).fetchone() == before
    for name in names:
        record = read(providers[0], name)
        ended = [row for row in record.activities if row.has_ended]
        assert record.row.inbox_seq == len(ended), "each end is told once"
        assert all(row.has_ended for row in record.activities if row.stopping), (
            "nobody waits for ever"
        )


def test_the_times_of_messages_have_the_order_of_their_numbers(provider, other):
    begin(provider)
    other.execute("BEGIN")
    other.execute("UPDATE instance SET inbox_seq = inbox_seq + 1")
    with in_background(lambda: one(provider, an_append("i"))) as result:
        until(lambda: waits(other, provider))
        moment = other.execute(
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        ).fetchone()[0]
        other.execute("COMMIT")
        appended = expect(result(), Appended)
    assert appended.sequence == 2
    assert appended.message.sent_at > moment, (
        "its time was taken when the row was locked, not when the wait began"
    )


@pytest.mark.parametrize(
    ("ending", "outcome"), [("COMMIT", StartExists(same=False)), ("ROLLBACK", Started())]
)
def test_a_start_that_meets_one_under_way_waits_for_its_end(provider, other, ending, outcome):
    one(provider, a_start("j"))
    other.execute("BEGIN")
    other.execute(
        "INSERT INTO instance (instance_id, incarnation, kind, revision, status, held, "
        "inbox_seq, seen_seq, execution, opened, takeovers, history_events, history_bytes, "
        "created_at, updated_at, summary) SELECT 'i', 'z', kind, 1, 0, false, 0, 0, 1, false, "
        "0, 0, 0, 0, 0, '' FROM instance"
    )
    other.execute(
        "INSERT INTO instance_detail (instance_id, request_id, created_by) VALUES ('i', "
        "'another', '')"
    )
    with in_background(lambda: provider.store.commit([a_start("i"), an_append("i")])) as result:
        until(lambda: waits(other, provider))
        other.execute(ending)
        started, appended = result().outcomes
    assert started == outcome
    assert expect(appended, Appended).sequence == 1


def test_a_claim_passes_over_what_others_are_taking_and_takes_of_another_kind_instead(
    provider, other
):
    provider.store.commit([a_start("a"), a_start("b"), a_start("c", kind=OTHER_KIND)])
    other.execute("BEGIN")
    other.execute("SELECT 1 FROM instance WHERE instance_id = 'a' FOR UPDATE")
    assert ids(claim(provider, limit=1, kinds=(KIND, OTHER_KIND))) == ["b"]
    other.execute("ROLLBACK")
    other.execute("BEGIN")
    other.execute("SELECT 1 FROM instance WHERE instance_id = 'a' FOR UPDATE")
    assert ids(claim(provider, limit=1, kinds=(KIND, OTHER_KIND))) == ["c"], (
        "nobody is told 'nothing' while work is ready"
    )
    other.execute("ROLLBACK")
    assert ids(claim(provider, limit=2, kinds=(KIND, OTHER_KIND))) == ["a"]


def test_a_sweep_waits_for_a_ghosts_last_write_and_takes_the_instance_over_nonetheless(
    provider, other
):
    begin(provider, node="ghost")
    other.execute("BEGIN")
    other.execute("UPDATE instance SET revision = revision + 1")
    with in_background(provider.store.sweep) as result:
        until(lambda: waits(other, provider))
        other.execute("COMMIT")
        assert result() == 1
    assert read(provider).row.owner is None


def test_a_sweep_that_comes_too_late_takes_nothing_from_whoever_has_claimed_meanwhile(
    provider, other
):
    begin(provider, node="ghost")
    other.execute("BEGIN")
    other.execute("UPDATE instance SET revision = revision + 1, owner = 'living'")
    with in_background(provider.store.sweep) as result:
        until(lambda: waits(other, provider))
        other.execute("COMMIT")
        assert result() == 0
    assert read(provider).row.owner == "living"


def test_groups_of_many_nodes_never_wait_for_each_other_in_a_circle(connect, other, seed):
    providers = [connect() for _ in range(4)]
    names = [f"i{number}" for number in range(12)]
    providers[0].store.commit([a_start(name) for name in names])
    failures = []

    def send(number):
        chance = random.Random(seed + number)
        try:
            for lap in range(25):
                chosen = chance.sample(names, 8)
                group = [an_append(name, f"{number}-{lap}") for name in chosen[:4]]
                group += [
                    a_start(f"new{(lap + step) % 40}", request_id=f"{number}")
                    for step in chance.sample(range(4), 4)
                ]
                group += [Recover(name, f"n{number}") for name in chosen[4:]]
                group.append(Claim(f"n{number}", (KIND, OTHER_KIND), 2))
                chance.shuffle(group)
                providers[number].store.commit(group)
                if lap % 10 == 9:
                    providers[number].store.leave(f"n{number}")
                    providers[number].store.sweep()
        except Exception as error:
            failures.append(error)

    asked = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = other.execute(asked).fetchone()
    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(providers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    other.execute("SELECT pg_stat_clear_snapshot()")
    assert other.execute(asked).fetchone() == before
    assert sum(read(providers[0], name).row.inbox_seq for name in names) == 4 * 25 * 4


# --- errors, by their codes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("40001", StoreBusy),
        ("40P01", StoreBusy),
        ("55P03", StoreBusy),
        ("57014", StoreBusy),
        ("57P01", StoreUnavailable),
        ("57P03", StoreUnavailable),
        ("53300", StoreUnavailable),
        ("08006", StoreUnavailable),
        ("28P01", StoreUnavailable),
        ("26000", StoreUnavailable),
        ("53100", StoreFull),
        ("25006", StoreReadOnly),
        ("42501", StoreReadOnly),
        ("42P01", SchemaMismatch),
        ("42703", SchemaMismatch),
        ("XX001", StoreCorrupt),
        ("22021", StoreError),
        ("23505", StoreError),
        ("22012", StoreError),
    ],
)
def test_errors_are_told_apart_by_their_codes(code, kind):
    failure = translate(psycopg.errors.lookup(code)("whatever the text says"), "here")
    assert type(failure) is kind
    assert failure.retryable == issubclass(kind, (StoreBusy, StoreUnavailable))
    assert code in str(failure)


def test_a_lock_that_is_held_too_long_is_busy_and_one_that_is_let_go_in_time_is_waited_for(
    connect, other
):
    provider = connect(lock_timeout=timedelta(milliseconds=50))
    row = begin(provider)
    other.execute("BEGIN")
    other.execute("SELECT 1 FROM instance FOR UPDATE")
    with pytest.raises(StoreBusy) as raised:
        one(provider, a_write(row))
    assert isinstance(raised.value.__cause__, psycopg.errors.LockNotAvailable)
    with in_background(lambda: one(provider, a_write(row))) as result:
        until(lambda: waits(other, provider))
        other.execute("ROLLBACK")
        assert result() == Granted(0)


def test_a_deadlock_with_somebody_elses_statement_is_tried_again_inside(provider, other):
    row, _ = begin(provider, "a"), begin(provider, "b")
    other.execute("BEGIN")
    other.execute("SELECT 1 FROM instance WHERE instance_id = 'b' FOR UPDATE")
    with in_background(lambda: provider.store.commit([a_write(row), an_append("b")])) as result:
        until(lambda: waits(other, provider))
        # The other one waits for a minute before it looks for a deadlock; so it is the provider
        # that finds it.
        other.execute("SELECT 1 FROM instance WHERE instance_id = 'a' FOR UPDATE")
        other.execute("ROLLBACK")
        granted, appended = result().outcomes
    assert granted == Granted(0)
    assert expect(appended, Appended).fresh


def test_a_statement_that_takes_too_long_is_ended_by_the_server(connect, other):
    provider = connect(statement_timeout=timedelta(milliseconds=100))
    row = begin(provider)
    other.execute("BEGIN")
    other.execute("SELECT 1 FROM instance FOR UPDATE")
    with pytest.raises(StoreBusy) as raised:
        one(provider, a_write(row))
    assert isinstance(raised.value.__cause__, psycopg.errors.QueryCanceled)
    other.execute("ROLLBACK")
    assert one(provider, a_write(row)) == Granted(0)


def test_of_two_updates_of_one_row_in_one_statement_none_is_lost_without_a_word(provider):
    row = begin(provider)
    opened = ExecutionDelta(1, opened=Opening(1, "1.0.0", "f1", 1, POLICY))
    with pytest.raises(StoreError) as raised:
        one(provider, a_write(row, executions=(opened, opened)))
    assert not raised.value.retryable
    assert read(provider).row == row


def test_a_statement_that_cannot_be_prepared_is_in_nobodys_way(provider):
    row = begin(provider)
    for _ in range(2):
        with pytest.raises(SchemaMismatch) as raised:
            provider.store._calls.read_all(
                [(sql.LIST_OWNED, ("n1",)), ("SELECT nothing FROM @nowhere", ()), ("SELECT 1", ())]
            )
        assert isinstance(raised.value.__cause__, psycopg.errors.UndefinedTable)
    for number in range(3):
        assert provider.store._calls.read(f"SELECT {number}") == [(number,)]
    assert provider.store.owned("n1") == ["i"]
    assert one(provider, a_write(row)) == Granted(0)


@pytest.mark.parametrize(
    "name",
    ["nul\0", "lone \ud800 surrogate", os.urandom(9000).hex()],
    ids=["nul", "surrogate", "long"],
)
def test_a_value_that_the_server_cannot_hold_concerns_that_value_alone(provider, name):
    for append in (Append(name, "m", "go", Payload(b"")), Append("i", name, "go", Payload(b""))):
        one(provider, a_start("i"))
        outcome = answer(lambda append=append: one(provider, append))
        assert not isinstance(outcome, Appended)
        assert not getattr(outcome, "retryable", False)
    with pytest.raises(StoreError) as raised:
        one(provider, a_start(name))
    assert not raised.value.retryable
    assert expect(one(provider, an_append("i", "after")), Appended).fresh


def test_a_standby_can_be_read_and_is_not_written(connect, dsn, provider):
    one(provider, a_start("i"))
    standby = connect(
        dsn=f"{dsn} options='-c default_transaction_read_only=on'", durability="relaxed"
    )
    assert read(standby).status is Status.OPEN
    with pytest.raises(StoreReadOnly, match="connect to the primary"):
        one(standby, an_append("i"))


# --- lost connections ---------------------------------------------------------------------------


@pytest.mark.parametrize("lane", ["first", "lost"])
def test_what_commits_on_a_new_connection_is_written_at_the_level_that_was_read_before(
    provider, connect, other, lane
):
    """A rewind reads the level, and its write may be the first one on its connection."""
    row = begin(provider)
    provider.store.join(replace(a_node("newest"), reads=CONTROL_LEVEL, writes=CONTROL_LEVEL))
    provider.store.raise_level(Levels(CONTROL_LEVEL, CONTROL_LEVEL))
    if lane == "first":
        provider = connect()
    assert provider.directory.catalogue().levels.write == CONTROL_LEVEL
    if lane == "lost":
        terminate(other, backend_of(provider))
        until(lambda: select.select([lane_of(provider).fileno()], [], [], 0)[0])
    closed = ExecutionDelta(1, closed=Closing(1, ExecutionEnd.REWOUND))
    following = ExecutionDelta(2, create=an_execution(2))
    step = a_write(row, a_state(row, execution=2), executions=(closed, following))
    assert one(provider, step) == Granted(0)


def test_a_connection_that_was_lost_meanwhile_is_made_anew_without_a_word(provider, other):
    row = begin(provider)
    terminate(other, backend_of(provider))
    # A plain write is all in one message. Had the server's farewell not arrived yet, nobody would
    # know what became of it.
    until(lambda: select.select([lane_of(provider).fileno()], [], [], 0)[0])
    assert one(provider, a_write(row)) == Granted(0)
    read(provider)
    terminate(other, provider._pool._idle[0].info.backend_pid)
    assert read(provider).row.revision == row.revision + 1


@pytest.mark.parametrize("scripts_before", [0, 1, 2])
def test_a_backend_that_is_terminated_between_any_two_round_trips_leaves_all_or_nothing(
    provider, other, monkeypatch, scripts_before
):
    row = begin(provider)
    run = Script.run
    count = 0

    def run_or_die(self):
        nonlocal count
        if count == scripts_before:
            terminate(other, backend_of(provider))
        count += 1
        run(self)

    group = (
        a_write(row, executions=(ExecutionDelta(1, events=(an_event(1),)),)),
        a_start("j"),
        Claim("n1", (KIND,), 1),
    )
    with monkeypatch.context() as patch:
        patch.setattr(Script, "run", run_or_die)
        try:
            granted, started, claimed = provider.store.commit(group).outcomes
        except OutcomeUnknown:
            assert scripts_before == 2, "only from COMMIT on the outcome is open"
            assert provider.store.history("i", 1) == []
        else:
            assert (granted, started) == (Granted(0), Started())
            assert ids(expect(claimed, Claimed).snapshots) == ["j"]
            assert provider.store.history("i", 1) == [an_event(1)]
    recovered = expect(one(provider, Recover("i", "n1")), Recovered)
    assert one(provider, a_write(recovered.snapshot.row)) == Granted(0)


def test_a_plain_write_whose_backend_is_terminated_right_then_happens_or_not_and_recovery_tells(
    provider, other
):
    row = begin(provider)
    terminate(other, backend_of(provider))
    outcome = answer(
        lambda: one(provider, a_write(row, executions=(ExecutionDelta(1, events=(an_event(1),)),)))
    )
    assert outcome == Granted(0) or isinstance(outcome, OutcomeUnknown)
    recovered = expect(one(provider, Recover("i", "n1")), Recovered)
    came_through = recovered.snapshot.row.revision == row.revision + 2
    assert came_through or isinstance(outcome, OutcomeUnknown)
    assert provider.store.history("i", 1) == ([an_event(1)] if came_through else [])


def test_plain_writes_are_one_round_trip_and_a_refused_one_does_not_hinder_the_others(
    provider, monkeypatch
):
    rows = [begin(provider, name) for name in ("a", "b")]
    one(provider, an_append("b"))
    trips = []
    run = Script.run
    monkeypatch.setattr(Script, "run", lambda self: (trips.append(self), run(self)))
    group = [
        a_write(row, executions=(ExecutionDelta(1, events=(an_event(1),)),))
        for row in reversed(rows)
    ]
    assert provider.store.commit(group).outcomes == (Granted(1), Granted(0))
    assert len(trips) == 1
    again = [group[0], a_park(replace(rows[0], revision=rows[0].revision + 1), wake_at=10**17)]
    assert provider.store.commit(again).outcomes == (Refused(), Granted(0))
    parked = replace(rows[1], revision=rows[1].revision + 1)
    assert provider.store.commit([a_park(parked, wake_at=10**17, seen_seq=0)]).outcomes == (
        Granted(1),
    )
    assert (read(provider, "a").row.wake_at, read(provider, "b").row.wake_at) == (10**17, 0), (
        "a message is newer (rule 4)"
    )


class Proxy:
    """Stands between a provider and the server, and can cut the connection at a COMMIT or at its
    answer, or fall silent.
    """

    def __init__(self, dsn):
        information = psycopg.conninfo.conninfo_to_dict(dsn)
        self.upstream = information["host"], int(information.get("port") or 5432)
        self.dsn = psycopg.conninfo.make_conninfo(dsn, host="127.0.0.1")
        self.cut_at = None
        self.silent_at = None
        self.silenced = threading.Event()
        self.cuts = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = psycopg.conninfo.make_conninfo(self.dsn, port=self.listener.getsockname()[1])
        self.threads = [threading.Thread(target=self.serve, daemon=True)]
        self.threads[0].start()
        self.open = []

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            host, port = self.upstream
            if host.startswith("/"):
                server = socket.socket(socket.AF_UNIX)
                server.connect(f"{host}/.s.PGSQL.{port}")
            else:
                server = socket.create_connection((host, port))
            self.open += [client, server]
            for source, target, side in ((client, server, "request"), (server, client, "reply")):
                thread = threading.Thread(
                    target=self.forward, args=(source, target, side), daemon=True
                )
                self.threads.append(thread)
                thread.start()

    def forward(self, source, target, side):
        try:
            while data := source.recv(65536):
                if self.cut_at == side and b"COMMIT\0" in data:
                    self.cut_at = None
                    self.cuts += 1
                    break
                if self.silent_at == side and b"COMMIT\0" in data:
                    self.silent_at = None
                    self.silenced.set()
                    while source.recv(65536):  # it takes and acknowledges, and says nothing
                        pass
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for end in self.open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(PATIENCE)
        for end in self.open:
            end.close()


@pytest.mark.parametrize("side", ["request", "reply"])
def test_a_lost_reply_to_a_commit_is_an_unknown_outcome_and_recovery_tells_the_truth(
    dsn, schema_name, connect, side
):
    observer = connect()
    row = begin(observer)
    proxy = Proxy(dsn)
    try:
        # Behind a pooler statements have no names, so that the proxy can read along.
        provider = connect(dsn=proxy.dsn, pooled=True)
        expect(one(provider, a_start("j")), Started)
        proxy.cut_at = side
        write = a_write(row, executions=(ExecutionDelta(1, events=(an_event(1),)),))
        with pytest.raises(OutcomeUnknown) as raised:
            one(provider, write)
        assert raised.value.__cause__ is not None
        assert proxy.cuts == 1
        recovered = expect(one(provider, Recover("i", "n1")), Recovered)
        came_through = side == "reply"
        assert recovered.snapshot.row.revision == row.revision + (2 if came_through else 1)
        assert observer.store.history("i", 1) == ([an_event(1)] if came_through else [])
        assert one(provider, write) == Refused(), "whatever became of it, it is fenced off"
        provider.close()
    finally:
        proxy.close()


def test_a_lost_reply_to_a_start_or_a_message_is_answered_by_asking_again(dsn, connect):
    proxy = Proxy(dsn)
    try:
        provider = connect(dsn=proxy.dsn, pooled=True)
        provider.store.commit([a_start("i")])
        proxy.cut_at = "reply"
        with pytest.raises(OutcomeUnknown):
            provider.store.commit([a_start("j"), an_append("i")])
        started, appended = provider.store.commit([a_start("j"), an_append("i")]).outcomes
        assert (started, appended.fresh, appended.sequence) == (StartExists(same=True), False, 1)
        provider.close()
    finally:
        proxy.close()


@pytest.mark.parametrize("side", ["request", "reply"])
def test_who_takes_a_commit_and_never_answers_is_not_waited_for_without_end(
    dsn, schema_name, connect, monkeypatch, side
):
    """Keepalives and ``tcp_user_timeout`` do not help: the peer lives, and acknowledges."""
    observer = connect()
    row = begin(observer)
    monkeypatch.setattr(connections, "_MARGIN", 0.2)
    proxy = Proxy(dsn)
    try:
        provider = connect(dsn=proxy.dsn, pooled=True, statement_timeout=timedelta(seconds=1))
        expect(one(provider, a_start("j")), Started)
        proxy.silent_at = side
        write = a_write(row, executions=(ExecutionDelta(1, events=(an_event(1),)),))
        with pytest.raises(OutcomeUnknown, match=r"no answer within 1\.2 s"):
            one(provider, write)
        assert proxy.silenced.is_set()
        recovered = expect(one(provider, Recover("i", "n1")), Recovered)
        came_through = side == "reply"
        assert recovered.snapshot.row.revision == row.revision + (2 if came_through else 1)
        assert observer.store.history("i", 1) == ([an_event(1)] if came_through else [])
        provider.close()
    finally:
        proxy.close()


def test_a_migration_may_take_as_long_as_it_takes(connect, monkeypatch, dsn):
    monkeypatch.setattr(connections, "_MARGIN", 0.0)
    migrate = schema._migrate

    def slowly(connection, *more):
        connection.execute("SELECT pg_sleep(1.5)")
        migrate(connection, *more)

    monkeypatch.setattr(schema, "_migrate", slowly)
    provider = connect(statement_timeout=timedelta(seconds=1))
    expect(one(provider, a_start("i")), Started)


def test_a_restart_of_the_server_is_no_death_and_work_goes_on(postgres, connect):
    if not postgres.is_own:
        pytest.skip("somebody else's server is not restarted")
    first, second = connect(), connect()
    first.store.join(a_node("n1"))
    second.store.join(a_node("n2"))
    row = begin(first)
    assert first.store.vanished() == second.store.vanished() == []
    postgres.restart(crash=True)
    assert one(first, a_write(row)) == Granted(0)
    until(lambda: first._pulse.server is not None)
    # n2's connection is gone, and nobody may conclude anything from that: it was on another start
    # of the server.
    assert first.store.vanished() == []
    assert [row[0] for row in first._nodes._calls.read(sql.LIST_PULSELESS)] == []
    first.store.renew("n1")
    second.store.renew("n2")
    until(lambda: second._pulse.server is not None)
    second.store.renew("n2")
    assert [row[0] for row in first._nodes._calls.read(sql.LIST_PULSELESS)] == []


def test_a_forked_child_is_refused_and_harms_nothing(provider):
    begin(provider)
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
    assert expect(one(provider, an_append("i")), Appended).fresh
    assert read(provider).unread_messages == 1


# --- nodes and hints ----------------------------------------------------------------------------


class Moments:
    """A clock of the watcher that is moved by hand."""

    def __init__(self):
        self.moment = 0.0

    def monotonic(self):
        return self.moment


@pytest.fixture
def watched(connect):
    """Two nodes, and the watch of the first."""
    first, second = connect(), connect()
    first.store.join(a_node("n1"))
    second.store.join(a_node("n2"))
    first._pulse._clock = moments = Moments()
    return first, second, moments


def test_a_node_whose_connection_drops_is_suspected_after_a_moment(watched):
    first, second, moments = watched
    assert first.store.vanished() == []
    second.close()  # without leaving
    until(lambda: first._nodes._calls.read(sql.LIST_PULSELESS))
    assert first.store.vanished() == [], "it may be reconnecting just now"
    moments.moment += 1.5
    assert first.store.vanished() == ["n2"]
    assert first.store.bury("n2", 0)
    assert first.store.vanished() == []


@pytest.mark.parametrize(
    ("changes", "is_buried_at_once"),
    [
        ({}, True),
        ({"pid": os.getpid()}, False),
        ({"host": "there"}, False),
        ({"processes": "another boot pid:[1]"}, False),
        ({"processes": ""}, False),
    ],
    ids=["gone", "lives", "another_host", "another_namespace", "an_older_library"],
)
def test_a_node_whose_process_is_gone_with_its_connection_needs_no_moment(
    changes, is_buried_at_once, connect
):
    ended = subprocess.Popen(["true"])
    ended.wait()
    first, second = connect(), connect()
    first.store.join(replace(a_node("n1"), processes="this boot pid:[1]"))
    gone = replace(a_node("n2"), processes="this boot pid:[1]", pid=ended.pid)
    second.store.join(replace(gone, **changes))
    assert first.store.vanished() == [], "a node that is connected lives"
    second.close()  # without leaving
    until(lambda: first._nodes._calls.read(sql.LIST_PULSELESS))
    assert first.store.vanished() == (["n2"] if is_buried_at_once else [])


def test_a_node_that_reconnects_or_renews_is_not_suspected(watched, other):
    first, second, moments = watched
    session = second._pulse._session
    pids = (
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND (classid::bigint << 32) | "
        "objid::bigint = %s"
    )
    terminate(other, other.execute(pids, (second._pulse.key,)).fetchone()[0])
    until(lambda: second._pulse._session not in (None, session))
    moments.moment += 1.5
    assert first.store.vanished() == []
    # One that is cut off for longer, and renews over its other connection, lives.
    second._pulse.close()
    until(lambda: first._nodes._calls.read(sql.LIST_PULSELESS))
    first.store.vanished()
    second._nodes._hint = lambda: (second._pulse.key, first._pulse.server)
    second.store.renew("n2")
    moments.moment += 1.5
    assert first.store.vanished() == []


def test_a_watcher_that_was_cut_off_itself_suspects_nobody(watched):
    first, second, moments = watched
    second.close()
    until(lambda: first._nodes._calls.read(sql.LIST_PULSELESS))
    first.store.vanished()
    moments.moment += 0.9
    first._pulse._session = object()  # as after a reconnection
    moments.moment += 0.9
    assert first.store.vanished() == []
    moments.moment += 1.5
    assert first.store.vanished() == ["n2"]


def test_the_clock_of_a_node_does_not_matter(connect, monkeypatch, other):
    wall = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: wall() + 3600 * 10**9)
    provider = connect()
    one(provider, a_start("i", wake_at=0))
    before = other.execute(
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    ).fetchone()[0]
    now = provider.store.commit([]).now
    after = other.execute(
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    ).fetchone()[0]
    assert before <= now <= after
    assert before - 60 * 10**6 < read(provider).created_at <= before
    one(provider, a_start("later", wake_at=now + 1800 * 10**6))
    assert ids(claim(provider)) == ["i"], (
        "half an hour is still to come, whatever this node's clock says"
    )


def test_the_stores_time_stands_still_for_a_small_step_back_of_the_servers_and_follows_a_large_one(
    provider,
):
    time, now = provider.store._calls.time, provider.store.commit([]).now
    time._last = ahead = now + 60_000_000
    assert now <= provider.store.commit([]).now < ahead
    time._last = ahead = provider.store.commit([]).now + 40_000
    assert provider.store.commit([]).now >= ahead
    assert provider.store.catalogue().now >= ahead


def test_own_work_is_no_news_and_a_new_connection_may_have_missed_some(connect, other):
    first, second = connect(), connect()
    first.store.changed()
    second.store.changed()
    one(first, a_start("i"))
    until(second.store.changed)
    assert not first.store.changed()
    session = first._pulse._session
    pids = (
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND (classid::bigint << 32) | "
        "objid::bigint = %s"
    )
    terminate(other, other.execute(pids, (first._pulse.key,)).fetchone()[0])
    until(lambda: first._pulse._session not in (None, session))
    until(first.store.changed)


def test_of_two_who_ask_for_an_id_the_one_whose_write_is_granted_gets_it(provider, other):
    row = begin(provider)
    link = ParentLink("i", "a", 1, 1)
    refused = replace(a_start("child", "of the refused", "r1", OTHER_KIND), parent=link)
    stale = a_write(
        replace(row, revision=row.revision - 1),
        starts=(ChildStart("child", link, refused, b"taken"),),
    )
    assert one(provider, stale) == Refused()
    assert other.execute(
        "SELECT count(*) FROM instance WHERE instance_id = 'child'"
    ).fetchone() == (0,)
    group = (stale, a_start("child", "of the other", "r2"), an_append("child"))
    outcomes = provider.store.commit(group).outcomes
    assert outcomes[:2] == (Refused(), Started())
    assert expect(outcomes[2], Appended).sequence == 1
    record = read(provider, "child")
    assert (record.row.incarnation, record.row.kind, record.row.parent) == (
        "of the other",
        KIND,
        None,
    )
    assert (record.unread_messages, record.created_at > 0) == (1, True)


def test_what_concerns_nobody_else_is_not_told(connect):
    first, second = connect(), connect()
    first.store.join(a_node("n1"))
    told = []
    first._pulse.notify = lambda: told.append(True)
    row = begin_claimed(first)
    assert told == [], "started and claimed in one group"
    one(first, a_write(row))
    one(first, an_append("i"))
    assert told == [], "its owner is here"
    one(first, a_park(read(first).row, wake_at=10**17))
    assert told == []
    one(first, an_append("i", "m2"))
    assert told == [True], "whoever is free may take it"
    taken = claim(second, "n9")[0].row
    one(first, an_append("i", "m3"))
    assert told == [True, True]
    first.admin.set_pin("i", "1.0.0", by="me", reason="")
    assert len(told) == 3
    assert one(second, a_write(taken)) == Refused()


def begin_claimed(provider):
    claimed = provider.store.commit([a_start("i"), Claim("n1", (KIND,), 1)]).outcomes[1]
    return claimed.snapshots[0].row


def test_without_notifications_nothing_is_heard_and_everything_works(connect):
    first, second = connect(notify=False), connect(notify=False)
    first.store.changed()
    row = begin(second)
    assert one(second, a_write(row)) == Granted(0)
    assert not first.store.changed()
    assert read(first).row.revision == row.revision + 1


def test_behind_a_pooler_nothing_is_kept_in_the_session(connect):
    provider = connect(pooled=True, statement_timeout=timedelta(seconds=7))
    assert provider._pulse._thread is None
    provider.store.join(a_node("n1"))
    row = begin(provider)
    one(provider, a_write(row))
    one(provider, an_append("i"))
    assert provider.store.news("n1")
    assert provider.store.next_wake([KIND]) is None
    assert provider.store.catalogue().nodes
    assert provider.store.vanished() == []
    connection = lane_of(provider)
    assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
    assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
    run = Script.run
    shown = []

    def and_look(self):
        result = self.add("SHOW statement_timeout")
        run(self)
        shown.append(result.rows[0][0])

    script = Script(connection, provider._connector)
    script.add("BEGIN")
    provider.store._calls._set_up(script)
    and_look(script)
    connection.execute("ROLLBACK")
    assert shown == ["7s"]


# --- plans --------------------------------------------------------------------------------------


class Undo(Exception):
    """Ends a transaction that was only to be looked at."""


def explained(
    provider, statement, *values, how="ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON", calls=None
):
    """Return the nodes of the plan that a statement is executed with on the engine's connection, or
    on one of other calls; its effect is undone.
    """
    plans = []

    def work(transaction):
        transaction.begin()
        script = transaction.script()
        result = script.add(f"EXPLAIN ({how}) {statement}", *values)
        script.run()
        plans.append(result.rows[0][0])
        raise Undo

    with pytest.raises(Undo):
        (calls or provider.store._calls).transaction(work)
    plan = plans[0] if not isinstance(plans[0], (str, bytes)) else json.loads(plans[0])

    def nodes(node):
        yield node
        for child in node.get("Plans", ()):
            yield from nodes(child)

    return list(nodes(plan[0]["Plan"]))


def pages_of(nodes):
    return nodes[0]["Shared Hit Blocks"] + nodes[0]["Shared Read Blocks"]


PARK = """
    INSERT INTO instance (
        instance_id, incarnation, kind, revision, owner, wake_at, status, held, inbox_seq, seen_seq, execution, opened,
        takeovers, history_events, history_bytes, created_at, updated_at, summary)
    SELECT %s || n, 'a', %s, 1, %s, %s, 0, false, 0, 0, 1, false, 0, 0, 0, n, n, '' FROM generate_series(1, %s) n
"""


def _room_of(instance_id, limit):
    """Return what is asked of an inbox for one append."""
    return (
        Texts([instance_id]),
        Texts(["go"]),
        Flags([True]),
        *(Numbers([n]) for n in (1, 1, limit, 9_999, limit, 9_999)),
    )


def test_an_inbox_with_room_is_not_counted(provider):
    begin(provider)
    provider.store.commit([an_append("i", f"m{number}") for number in range(20)])
    for limit, counts in ((21, False), (20, True)):
        nodes = explained(provider, sql.READ_ROOMS, *_room_of("i", limit))
        loops = [node["Actual Loops"] for node in nodes if node.get("Relation Name") == "message"]
        assert any(loops) is counts, (limit, loops)


def test_hot_statements_find_their_rows_by_index_and_stay_flat_as_parked_instances_grow(
    provider, other
):
    far = 10**17
    row = begin(provider)
    provider.store.commit([a_start(f"due{number}") for number in range(40)])
    mine, foreign = (
        provider._kinds.make_sure_of([kind])[kind]
        for kind in (KIND, KIND._replace(name="a kind that nobody has"))
    )
    now = provider.store.commit([]).now
    hot = {
        "claim": (sql.CLAIM, *kind_arrays([KIND]), now, 10, "n1"),
        "next wake": (sql.NEXT_WAKE, *kind_arrays([KIND]), *route_arrays([ROUTE])),
        "tasks": (sql.TAKE_TASKS, *route_arrays([ROUTE]), 10, "n1", Flags([False]), 10),
        "taken": (sql.LIST_TASKS, "n1"),
        "lock": (sql.LOCK_ROWS, Texts(["due1", "due2", "i"])),
        "write": (
            sql.WRITE_ROWS,
            *arrays(
                sql.WRITTEN,
                [
                    (
                        mine,
                        row.revision + 1,
                        "n1",
                        0,
                        0,
                        False,
                        0,
                        0,
                        1,
                        True,
                        *(0,) * 6,
                        False,
                        None,
                        None,
                        "i",
                        row.revision,
                    )
                ],
            ),
            1,
            0,
        ),
        "news": (sql.READ_NEWS, "n1", 65, 65_536),
        "owned": (sql.LIST_OWNED, "n1"),
        "addressees": (sql.READ_ADDRESSEES, Texts(["i"]), Texts(["m"])),
        "rooms": (sql.READ_ROOMS, *_room_of("i", 10)),
        "snapshots": (sql.READ_SNAPSHOTS, Texts(["i"]), Numbers([1]), Numbers([mine])),
        "ghosts": (sql.FIND_GHOST_OWNED, 256),
        "count of owned": (sql.COUNT_OWNED, Texts(["n1", "n2"])),
        "open among": (sql.GOING_AMONG, Texts(["due1", "i", "nobody"])),
    }
    pages: dict[str, list[int]] = {name: [] for name in hot}
    # The first time hardly anything is there: what is planned then must serve for a full store as
    # well.
    for count in (1, 100, 20_000):
        other.execute(PARK, (f"parked {count} ", mine, None, far, count))
        other.execute(PARK, (f"foreign {count} ", foreign, None, 0, count))
        other.execute("VACUUM ANALYZE instance")
        for name, (statement, *values) in hot.items():
            nodes = explained(provider, statement, *values)
            for node in nodes:
                if node.get("Relation Name") == "instance" and "Scan" in node["Node Type"]:
                    assert node["Node Type"] in ("Index Scan", "Index Only Scan"), (name, node)
                    assert "Index Cond" in node or name == "ghosts", (name, node)
                    assert node.get("Rows Removed by Filter", 0) <= 1, (name, node)
                    assert node["Actual Rows"] <= 60, (name, node)
            pages[name].append(pages_of(nodes))
    for name, (_, few, many) in pages.items():
        # An index of 40,000 rows is a level higher than one of 200: a page more for each row that
        # is looked up.
        assert many <= 2 * few + 40, (name, few, many)


OPEN = """
    INSERT INTO execution (
        instance_id, execution, name, version, version_key, resolved_how, resolved_by, policy_revision, state,
        state_encoding, created_at, fingerprint, opened_at, patches, event_count, byte_count)
    SELECT %s || n, 1, 'watch', '1.0.0', '', 'policy', 'n1', 1, '', 1, n, 'f' || n %% 3, 1,
        CASE n %% 2 WHEN 0 THEN 'p' END, 0, 0
    FROM generate_series(1, %s) n
"""


def test_due_boundaries_and_waiting_routes_are_found_at_a_cost_that_parked_instances_do_not_raise(
    provider, other
):
    begin(provider)
    other.execute("UPDATE instance SET boundary_due = 3 WHERE instance_id = 'i'")
    (parked,) = provider._kinds.make_sure_of([OTHER_KIND]).values()
    dialect = Dialect(THIS_LIBRARY)
    due = Statement.counting(InstanceQuery(overdue=True, now=5), dialect, ("name", "held"), 100)
    held = Statement.counting(
        InstanceQuery(overdue=True, now=5, unserved_routes=(ROUTE,)), dialect, (), 1
    )
    reads = {
        "due": (due.text, *due.values),
        "due, by no hold": (held.text, *held.values),
        "routes": (sql.WAITING_ROUTES,),
        "audit": (sql.LIST_OPERATIONS, "i", None, None, None, None, 10),
    }
    pages: dict[str, list[int]] = {name: [] for name in reads}
    for count in (100, 30_000):
        other.execute(PARK, (f"parked {count} ", parked, None, 10**17, count))
        other.execute("VACUUM ANALYZE instance, instance_detail, activity, operation")
        for name, (statement, *values) in reads.items():
            pages[name].append(pages_of(explained(provider, statement, *values)))
    assert all(many <= 2 * few + 40 for few, many in pages.values()), pages


SEEN = """
    INSERT INTO instance_detail (instance_id, request_id, created_by)
    SELECT i.instance_id, i.instance_id, '' FROM instance i ON CONFLICT DO NOTHING;
    UPDATE instance SET opened = instance_id NOT LIKE '%0', held = instance_id LIKE '%0',
        hold_kind = CASE WHEN instance_id LIKE '%0' THEN 'error' END WHERE instance_id LIKE 'parked%';
    UPDATE execution SET fingerprint = CASE WHEN instance_id LIKE '%0' THEN NULL ELSE fingerprint END
        WHERE instance_id LIKE 'parked%';
    INSERT INTO label SELECT instance_id, 'plan', 'free' FROM instance WHERE instance_id LIKE '%0' ON CONFLICT DO NOTHING;
    INSERT INTO execution (
        instance_id, execution, name, version, version_key, resolved_how, resolved_by, policy_revision, state,
        state_encoding, created_at, closed_at, end_kind, event_count, byte_count)
    SELECT 'i', n, 'watch', '1.0.0', '', 'policy', 'n1', 1, '', 1, n, n, 3, 0, 0
    FROM generate_series(2, (SELECT count(*) FROM instance)) n ON CONFLICT DO NOTHING;
"""


def test_a_page_of_a_list_and_one_instance_cost_what_they_show_however_much_there_is(
    provider, other
):
    begin(provider)
    (parked,) = provider._kinds.make_sure_of([OTHER_KIND]).values()
    dialect = Dialect(THIS_LIBRARY)

    def listed(**conditions):
        statement = Statement.listing(InstanceQuery(limit=11, **conditions), dialect)
        return statement.text, *statement.values

    pending = InstanceQuery(standings=(Standing.PENDING,), statuses=(Status.OPEN,))
    counted = Statement.counting(pending, dialect, ("name", "version"), 100)
    to = (Target(kinds=(OTHER_KIND,), version="1.0.0"),)
    reads = {
        "newest": listed(),
        "latest change": listed(order=Order.LATEST_CHANGE),
        "earliest change": listed(order=Order.EARLIEST_CHANGE),
        "latest change of a name": listed(order=Order.LATEST_CHANGE, name=OTHER_KIND.name),
        "held by a cause": listed(holds=(HoldKind.ERROR,)),
        "leading to a version": listed(targets=to),
        "a loop of many laps": (sql.READ_RECORD, "i"),
    }
    # These look at an index of what is held, and at executions that have not begun.
    shares = {
        "held, by id": listed(holds=(HoldKind.ERROR,), order=Order.ID),
        "not begun, by name": (counted.text, *counted.values),
    }
    pages: dict[str, list[int]] = {name: [] for name in reads | shares}
    for count in (100, 30_000):
        other.execute(PARK, (f"parked {count} ", parked, None, 10**17, count))
        other.execute(OPEN, (f"parked {count} ", count))
        with psycopg.ClientCursor(other) as cursor:
            cursor.execute(SEEN)
        other.execute("VACUUM ANALYZE instance, instance_detail, execution, label")
        for name, (statement, *values) in (reads | shares).items():
            nodes = explained(provider, statement, *values, calls=provider.directory._calls)
            pages[name].append(pages_of(nodes))
    # Each row of a page takes some twenty pages of the database: its tables' and their indexes'.
    assert max(many for name, (_, many) in pages.items() if name in reads) <= 400, pages
    # One of ten instances is held, and has not begun.
    assert max(many for name, (_, many) in pages.items() if name in shares) <= 3_600, pages
    assert provider.directory._calls.read("SHOW jit") == [("off",)]


def test_a_census_looks_at_kinds_and_groups_and_stays_flat_as_parked_instances_grow(
    provider, other
):
    begin(provider)
    (parked,) = provider._kinds.make_sure_of([OTHER_KIND]).values()
    reads = {
        "tally": (sql.READ_TALLY,),
        "boundaries": (sql.LAST_BOUNDARIES,),
        "owned": (sql.COUNT_OWNED_BY_KIND,),
        "crashing": (sql.COUNT_CRASHING,),
        "failed": (sql.COUNT_FAILED, 1),
        "pins": (sql.LIST_PINS, 100),
        "open code": (sql.LIST_OPEN_CODE, None, 100),
        "open code of a name": (sql.LIST_OPEN_CODE, "watch", 100),
    }
    pages: dict[str, list[int]] = {name: [] for name in reads}
    for count in (100, 30_000):
        other.execute(PARK, (f"parked {count} ", parked, None, 10**17, count))
        other.execute(OPEN, (f"parked {count} ", count))
        while provider.store.sweep():
            pass
        other.execute("VACUUM ANALYZE instance, execution, tally, tally_change")
        for name, (statement, *values) in reads.items():
            pages[name].append(pages_of(explained(provider, statement, *values)))
    for name, (few, many) in pages.items():
        assert many <= 2 * few + 40, (name, few, many)
    census = provider.directory.census(0)
    assert {row.kind: row.number for row in census.tally} == {KIND: 1, OTHER_KIND: 30_100}
    # One of its own, with a code of its own, and 3 codes with and without a mark.
    assert len(census.open_code) == 1 + 3 * 2


def test_nodes_that_add_up_tallies_at_once_lose_and_double_nothing(connect, other):
    providers = [connect() for _ in range(3)]
    providers[0].store.commit([a_start(f"i{number}") for number in range(200)])
    other.execute("UPDATE instance SET status = 1 WHERE instance_id < 'i5'")
    expected = providers[0].directory.tally()
    errors = []

    def fold(provider):
        try:
            for _ in range(20):
                provider.store.sweep()
                assert provider.directory.tally() == expected
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=fold, args=(each,)) for each in providers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert other.execute("SELECT count(*) FROM tally_change").fetchone()[0] == 0
    assert providers[0].directory.tally() == expected


LARGE = {
    "instance",
    "instance_detail",
    "label",
    "execution",
    "event",
    "message",
    "tombstone",
    "activity",
}
PASSES_OVER_AN_INDEX = {sql.FIND_GHOST_OWNED, sql.FIND_LOST_TASKS}
"""What looks at all that is owned, once a lease; and the store's own tables of a few rows are
looked at as a whole.
"""


def test_every_statement_of_the_engine_finds_its_rows_by_index_also_when_it_is_planned_on_an_empty_store(
    connect, monkeypatch
):
    provider = connect()
    added = {}
    add = Script.add

    def note(self, statement, *values):
        added.setdefault(statement, values)
        return add(self, statement, *values)

    monkeypatch.setattr(Script, "add", note)
    do_everything_once(provider)
    monkeypatch.undo()
    looked_at = 0
    for statement, values in added.items():
        if statement.split()[0] not in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"):
            continue
        for node in explained(provider, statement, *values, how="FORMAT JSON"):
            if node.get("Relation Name") in LARGE and "Scan" in node["Node Type"]:
                looked_at += 1
                assert node["Node Type"] in ("Index Scan", "Index Only Scan"), (statement, node)
                assert "Index Cond" in node or statement in PASSES_OVER_AN_INDEX, (statement, node)
    assert looked_at > 30


def do_everything_once(provider):
    """Have the engine's side of a provider execute each of its statements."""
    store = provider.store
    store.join(a_node("n1"))
    store.renew("n1")
    store.commit(
        [
            replace(a_start("i"), labels={"team": "blue"}),
            an_append("i"),
            a_start("ghosts", kind=OTHER_KIND),
        ]
    )
    (snapshot,) = claim(provider, "n1")
    claim(provider, "ghost", kinds=(OTHER_KIND,))
    laps = ExecutionDelta(
        1,
        opened=Opening(1, "1.0.0", "f1", 1, POLICY),
        events=(an_event(1),),
        closed=Closing(2, ExecutionEnd.CONTINUED_AS_NEW, None, None),
    )
    following = ExecutionDelta(2, create=an_execution(2))
    activity = ActivityRow(2, 1, 1, 5, 4, b"[]", Payload(b"1"))
    one(
        provider,
        a_write(
            snapshot.row,
            a_state(snapshot.row, execution=2, opened=False),
            executions=(laps, following),
            consumed=(1,),
            activities=(activity,),
            completed=(9,),
            custom_status=Payload(b"1"),
        ),
    )
    store.commit([an_append("i", "m2"), Cancel("i", "enough"), Recover("i", "n1")])
    store.news("n1")
    row = read(provider).row
    one(provider, a_write(row, prune=Prune(1, 1, 1)))
    store.history("i", 1)
    store.next_wake([KIND], [ROUTE])
    store.owned("n1")
    hand_out(provider, handed_out(1), handed_out(2), handed_out(3), instance_id="tasks", owner="n1")
    first, second = take(provider, "n1", slots=2)
    store.taken("n1")
    store.commit([a_report(first, "n1"), a_report(second, "n1", heartbeat=Payload(b"1"))])
    store.news("n1")
    take(provider, "a ghost")
    row = read(provider).row
    one(provider, a_write(row, a_state(row, owner=None), hold=a_hold()))
    (held,) = store.held(["watch"]).rows
    one(provider, Release("i", held.incarnation, held.revision))
    (snapshot,) = claim(provider, "n1")
    one(provider, an_end(snapshot.row))
    one(provider, a_start("parent"))
    (snapshot,) = claim(provider, "n1")
    link = ParentLink("parent", "a", 1, 1)
    child = replace(
        a_start("child"), parent=link, root_id="parent", on_parent_close=OnParentClose.CANCEL
    )
    one(provider, a_write(snapshot.row, starts=(ChildStart("child", link, child, b"taken"),)))
    refused = a_write(
        snapshot.row, starts=(ChildStart("never", link, replace(child, instance_id="never"), None),)
    )
    assert one(provider, refused) == Refused()
    (born,) = claim(provider, "n1")
    one(provider, an_end(born.row))
    parent = read(provider, "parent").row
    closing = ExecutionDelta(
        1, closed=Closing(2, ExecutionEnd.CONTINUED_AS_NEW, None, None), children=True
    )
    leaving = a_write(
        parent,
        a_state(parent, execution=2, opened=False),
        executions=(closing, following),
        consumed=(1,),
        cancels=(ChildCancel("child", link, "enough"),),
    )
    assert (
        expect(provider.store.commit([leaving, an_append("parent")]).outcomes[0], Granted).inbox_seq
        == 1
    )
    provider.admin.set_expiry({"watch": 1})
    one(provider, a_start("ends"))
    (snapshot,) = claim(provider, "n1")
    one(provider, an_end(snapshot.row))
    assert until(store.expire) == 1
    store.vanished()
    store.sweep()
    store.catalogue()
    store.bury("n1", 1)
    store.leave("n1")


def test_an_owner_that_writes_step_after_step_touches_no_index(provider, other):
    row = begin(provider)
    other.execute("VACUUM instance")
    for number in range(20):
        one(
            provider,
            a_write(
                replace(row, revision=row.revision + number),
                executions=(ExecutionDelta(1, events=(an_event(number),)),),
            ),
        )
    asked = (
        "SELECT pg_stat_get_tuples_hot_updated(c), pg_stat_get_tuples_updated(c) FROM (SELECT "
        "'instance'::regclass::oid c) c"
    )

    def updates():
        other.execute("SELECT pg_stat_clear_snapshot()")
        hot, all_of_them = other.execute(asked).fetchone()
        return (hot, all_of_them) if all_of_them >= 21 else None

    lane_of(provider).close()  # what a session has counted is told at its end
    hot, all_of_them = until(updates)
    assert all_of_them - hot <= 1, "only the claim changes what is indexed"


def test_ending_and_deleting_leaves_no_row_behind(provider, other):
    row = begin(provider)
    provider.store.commit([an_append("i", f"m{number}") for number in range(3)])
    one(provider, an_end(row, consumed=(2,)))
    assert provider.admin.delete("i", row.incarnation, by="me", reason="")
    tables = (
        "instance",
        "instance_detail",
        "label",
        "execution",
        "event",
        "message",
        "tombstone",
        "activity",
    )
    assert [other.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables] == [
        0
    ] * len(tables)
