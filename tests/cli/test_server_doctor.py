"""The doctor's findings on a real server: each check sees a healthy store and a faulty one."""

import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import anyio
import psycopg
import pytest
from psycopg import conninfo
from psycopg import sql as compose

from orchestra import OrchestrationRegistry, Runtime
from orchestra.cli import main, server_findings
from orchestra.cli.checks import ExitCode, Verdict
from orchestra.cli.server_doctor import examine_server
from orchestra.clock import SystemClock, new_id
from orchestra.codec import Payload
from orchestra.engine.attempts import PendingActivity
from orchestra.events import ActivityScheduled
from orchestra.providers.postgres import PostgresProvider, diagnosis, grants, schema
from orchestra.providers.postgres.diagnosis import (
    Diagnosis,
    RoleState,
    ServerState,
)
from orchestra.retry import RetryPolicy
from orchestra.store.kinds import HoldKind
from orchestra.store.routes import Route
from orchestra.testing.postgres import postgres_server
from tests.support import strays
from tests.support.contract.shorthand import (
    FOREIGN_KIND,
    KIND,
    SECOND,
    a_hold,
    a_node,
    a_park,
    a_start,
    a_state,
    a_write,
    an_end,
    begin,
    claim,
    one,
)
from tests.support.contract.tasks import hand_out, handed_out, take

CLOCK = SystemClock()
PATIENCE = 30.0
SECRET = "open-sesame"


class Shifted(SystemClock):
    """A machine whose clock is wrong."""

    def now(self):
        return super().now() + 3600 * SECOND


@pytest.fixture
def schema_name():
    return f"test_{new_id()}"


@pytest.fixture
def provider(dsn, schema_name):
    """A store that this process has open."""
    provider = PostgresProvider(dsn, schema_name)
    provider.open()
    yield provider
    provider.close()


@pytest.fixture
def other(dsn, schema_name):
    """A connection outside of providers; ``{}`` in a statement is the store's schema."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield Other(connection, schema_name)


class Other:
    def __init__(self, connection, schema_name):
        self.connection = connection
        self._schema = compose.Identifier(schema_name)

    def run(self, *statements):
        for statement in statements:
            self.connection.execute(compose.SQL(statement).format(self._schema))


@pytest.fixture(scope="module")
def own(postgres):
    """A server of this module's own, which may be stopped and started as it likes."""
    if not postgres.is_own:
        pytest.skip("another server is left as it is")
    with postgres_server() as server:
        yield server


@pytest.fixture
def store(own):
    """A store on that server, with an instance in it."""
    provider = PostgresProvider(own.dsn, durability="relaxed")
    provider.open()
    begin(provider, new_id())
    provider.close()
    return own


@pytest.fixture
def make_role(postgres, dsn):
    """Return a function that makes a role of this test's own, and returns how it connects."""
    if not postgres.is_own:
        pytest.skip("roles are not made on another server")
    with psycopg.connect(dsn, autocommit=True) as connection, ExitStack() as stack:

        def make(what, *settings):
            name = f'{what} "{new_id()[:12]}"'
            role = compose.Identifier(name)
            connection.execute(compose.SQL("CREATE ROLE {} LOGIN").format(role))
            stack.callback(connection.execute, compose.SQL("DROP ROLE {}").format(role))
            stack.callback(connection.execute, compose.SQL("DROP OWNED BY {} CASCADE").format(role))
            for setting in settings:
                connection.execute(compose.SQL("ALTER ROLE {} " + setting).format(role))
            return name

        yield make


def as_role(dsn, name):
    return conninfo.make_conninfo(dsn, user=name)


def url_of(dsn, **more):
    """Return a DSN as a URL."""
    return f"postgresql:///?{urlencode({**conninfo.conninfo_to_dict(dsn), **more})}"


def checks_of(report):
    return {check.name: check for check in report.checks}


def finding(dsn, schema_name, name, clock=CLOCK):
    return checks_of(examine_server(dsn, schema_name, clock))[name]


def until(look):
    """Wait for what other processes bring about."""
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)
    return found


async def idle(ctx, value):
    return await ctx.wait_for_event("go")


REGISTRY = OrchestrationRegistry.builder().register("idle", idle).build()
NAMES = ["server", "role", "schema"]
CONTENTS = [
    "nodes",
    "levels",
    "ownership",
    "held",
    "tallies",
    "activities",
    "strays",
    "retention",
    "clock",
]


# --- whole stores -------------------------------------------------------------------------------


def test_a_store_with_a_live_runtime_is_well_and_goes_on_meanwhile(postgres, dsn, schema_name):
    async def work():
        async with Runtime(PostgresProvider(dsn, schema_name), REGISTRY) as runtime:
            handles = [await runtime.client.start("idle", 1) for _ in range(3)]
            while not all([(await handle.info()).waiting_on for handle in handles]):
                await anyio.sleep(0.005)
            report = await anyio.to_thread.run_sync(examine_server, dsn, schema_name, CLOCK)
            assert report.exit_code is ExitCode.FINE, report
            assert [check.name for check in report.checks] == NAMES + CONTENTS
            checks = checks_of(report)
            assert not postgres.is_own or {check.verdict for check in report.checks} == {
                Verdict.OK
            }, report
            assert checks["nodes"].text == "1 living"
            assert checks["held"].text == "none of 3 open instances"
            assert checks["schema"].text == f"schema {len(schema.migrations())}"
            for handle in handles:
                await handle.raise_event("go", 7)
                assert await handle.result() == 7

    anyio.run(work)


def test_looking_writes_nothing_and_leaves_nothing_in_the_session(
    dsn, schema_name, provider, monkeypatch
):
    provider.store.join(a_node())
    begin(provider)
    seen = []
    looked = Diagnosis.clock_difference

    def look(self):
        names = (
            "statement_timeout",
            "lock_timeout",
            "search_path",
            "default_transaction_read_only",
            "transaction_isolation",
        )
        seen.append([self._connection.execute(f"SHOW {name}").fetchone()[0] for name in names])
        seen.append(
            self._connection.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()[0]
        )
        return looked(self)

    monkeypatch.setattr(Diagnosis, "clock_difference", look)
    assert examine_server(dsn, schema_name, CLOCK).exit_code is ExitCode.FINE
    with psycopg.connect(dsn) as connection:
        fresh = [
            connection.execute(f"SHOW {name}").fetchone()[0]
            for name in (
                "statement_timeout",
                "lock_timeout",
                "search_path",
                "default_transaction_read_only",
            )
        ]
    assert seen == [[*fresh, "read committed"], None]


# --- what is no store, or cannot be reached -------------------------------------------------------


def test_a_server_that_cannot_be_reached_is_a_finding(capsys):
    store = f"postgresql://app:{SECRET}@127.0.0.1:1/db"
    assert main(["doctor", "--store", store]) == 3
    shown = capsys.readouterr()
    assert "PostgreSQL store 'orchestra' at 127.0.0.1:1/db" in shown.out
    assert "Check that the server runs" in shown.out
    assert SECRET not in shown.out + shown.err
    assert shown.err == ""


@pytest.mark.slow
def test_a_server_that_takes_a_connection_and_says_nothing_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        report = examine_server(
            f"postgresql://app@127.0.0.1:{port}/db?connect_timeout=2", "orchestra", CLOCK
        )
    assert report.exit_code is ExitCode.UNREADABLE
    assert "timeout" in report.checks[0].text


@pytest.mark.parametrize(
    "rest",
    [
        f"app:{SECRET}@home@db.example.com/app",
        f"app:{SECRET}/or/so@db.example.com/app",
        f"app:12/{SECRET}@db.example.com/app",
        f"app@db.example.com/app?password={SECRET}&nonsense=1",
    ],
)
def test_of_a_dsn_that_was_not_quoted_no_part_is_shown(rest, capsys):
    assert main(["doctor", "--store", f"postgresql://{rest}"]) == 3
    assert main(["doctor", "--json", "--store", f"postgres://{rest}"]) == 3
    assert main(["doctor", "--store", f"postgresql+psycopg://{rest}"]) == 3
    assert main(["doctor", "--store", "app.db", f"postgresql://{rest}"]) == 3
    assert (
        main(["doctor", "--store", "app.db", f"password = '{SECRET} {SECRET}' host=db.example.com"])
        == 3
    )
    shown = capsys.readouterr()
    assert "cannot be read" in shown.out
    assert SECRET not in shown.out + shown.err


def test_a_password_is_never_shown(dsn, schema_name, provider, capsys):
    stores = url_of(dsn, password=SECRET), conninfo.make_conninfo(dsn, password=SECRET)
    for store, form in zip(stores, ([], ["--json"]), strict=True):
        assert main(["doctor", *form, "--schema", schema_name, "--store", store]) == 0
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err
    report = json.loads(shown.out[shown.out.index("{\n") :])
    assert (report["readable"], report["exit_code"], report["verdict"]) == (True, 0, "ok")
    assert [check["name"] for check in report["checks"]] == NAMES + CONTENTS


def test_a_connection_that_is_lost_meanwhile_ends_it_with_what_was_found(
    dsn, schema_name, provider, other, monkeypatch
):
    looked = Diagnosis.ended

    def look(self):
        other.connection.execute(
            "SELECT pg_terminate_backend(%s)", (self._connection.info.backend_pid,)
        )
        return looked(self)

    monkeypatch.setattr(Diagnosis, "ended", look)
    report = examine_server(dsn, schema_name, CLOCK)
    assert report.exit_code is ExitCode.UNREADABLE
    assert [check.name for check in report.checks] == [*NAMES, *CONTENTS[:-1], "store"]
    assert "the rest was not examined" in report.checks[-1].text


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["DROP SCHEMA {} CASCADE"], "is not there"),
        (["DROP SCHEMA {} CASCADE", "CREATE SCHEMA {}"], "is empty"),
        (["DROP TABLE {}.meta"], "not one of this library"),
        (["UPDATE {}.meta SET value = 'first' WHERE key = 'schema'"], "no number"),
        (["DELETE FROM {}.meta"], "no number"),
    ],
)
def test_what_is_no_store_is_said_after_what_was_found_of_the_server(
    dsn, schema_name, provider, other, statements, said
):
    provider.close()
    other.run(*statements)
    report = examine_server(dsn, schema_name, CLOCK)
    assert report.exit_code is ExitCode.UNREADABLE
    assert [check.name for check in report.checks] == NAMES
    assert said in report.checks[-1].text
    is_empty = said in ("is not there", "is empty")
    assert ("start one: it makes the store" in report.checks[-1].remedy) is is_empty


@pytest.mark.parametrize("name", ["", "pg_store", "x" * 64])
def test_what_cannot_be_a_schema_is_misuse(name, capsys):
    assert main(["doctor", "--schema", name, "--store", "postgresql://db.example.com/app"]) == 3
    assert "cannot be the name of a schema" in capsys.readouterr().err


@pytest.mark.slow
def test_without_the_driver_the_extra_is_named():
    script = (
        "import sys; sys.modules['psycopg'] = None; from orchestra.cli import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "doctor", "--store", "postgresql://db.example.com/app"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=20)
    assert done.returncode == 3
    assert b"orchestra-runtime[postgres]" in done.stderr
    assert b"Traceback" not in done.stderr


# --- the server -----------------------------------------------------------------------------------


def test_a_server_that_is_too_old_or_speaks_another_encoding_is_a_failure():
    server = ServerState(150000, "15.0", "UTF8", in_recovery=False, read_only=False, pooled=False)
    assert server_findings.server_check(server).verdict is Verdict.OK
    assert server_findings.server_check(replace(server, version=120022)).verdict is Verdict.FAILURE
    assert (
        server_findings.server_check(replace(server, encoding="SQL_ASCII")).verdict
        is Verdict.FAILURE
    )


def test_a_standby_is_told_from_a_primary_and_its_store_is_read(store):
    assert finding(store.dsn, "orchestra", "server").verdict is Verdict.OK
    store.stop()
    signal = store._data / "data" / "standby.signal"
    signal.touch()
    try:
        store.start()
        checks = checks_of(examine_server(store.dsn, "orchestra", CLOCK))
        assert checks["server"].verdict is Verdict.WARNING
        assert "a standby" in checks["server"].text
        assert "open instance" in checks["held"].text
    finally:
        signal.unlink()
        store.restart()


def test_a_role_whose_sessions_begin_read_only_is_told(dsn, schema_name, provider, make_role):
    role = make_role("reader", "SET default_transaction_read_only = on")
    check = finding(as_role(dsn, role), schema_name, "server")
    assert check.verdict is Verdict.WARNING
    assert "default_transaction_read_only" in check.text


class Pooler:
    """Listens on a port of this machine, and makes up the process that a client is told it is
    served by.
    """

    def __init__(self, dsn):
        values = conninfo.conninfo_to_dict(dsn)
        self._upstream = f"{values['host']}/.s.PGSQL.{values.get('port') or 5432}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = conninfo.make_conninfo(
            dsn, host="127.0.0.1", port=self._listener.getsockname()[1], sslmode="disable"
        )
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        self._listener.close()

    def _serve(self):
        with suppress(OSError):
            client, _ = self._listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._upstream)
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            self._forward(server, client)

    def _forward(self, source, target):
        with suppress(OSError), closing(source), closing(target):
            while data := source.recv(65536):
                key = data.find(b"K\0\0\0\x0c")
                target.sendall(data if key < 0 else data[: key + 5] + b"\0\0\0\1" + data[key + 9 :])


def test_a_pooler_in_between_is_noticed(postgres, dsn, schema_name, provider):
    if not postgres.is_own:
        pytest.skip("the way to another server is not known")
    with closing(Pooler(dsn)) as pooler:
        report = examine_server(pooler.dsn, schema_name, CLOCK)
    assert report.exit_code is ExitCode.FINE
    check = checks_of(report)["server"]
    assert check.verdict is Verdict.NOTICE
    assert "PgBouncer" in check.text
    assert "pooled=True" in check.remedy


# --- the role -------------------------------------------------------------------------------------


@pytest.fixture
def roles(dsn, schema_name, make_role):
    """The roles of a store, made by its owner."""
    owner, worker, reader = (make_role(name) for name in ("owner", "worker", "reader"))
    with psycopg.connect(dsn) as connection:
        for statement in grants(schema_name, owner=owner, workers=[worker], readers=[reader]):
            connection.execute(statement)
    before = (
        finding(as_role(dsn, owner), schema_name, "role"),
        finding(as_role(dsn, worker), schema_name, "role"),
    )
    assert [check.verdict for check in before] == [Verdict.OK, Verdict.WARNING], (
        "who may make it, and who may not"
    )
    provider = PostgresProvider(as_role(dsn, owner), schema_name)
    provider.open()
    begin(provider)
    provider.close()
    return owner, worker, reader


def test_each_role_is_told_what_it_may_do_and_a_reader_sees_the_whole_store(
    dsn, schema_name, roles
):
    for role, said in zip(
        roles, ("as an owner needs", "as a worker needs", "as a reader needs"), strict=True
    ):
        report = examine_server(as_role(dsn, role), schema_name, CLOCK)
        assert [check.name for check in report.checks] == NAMES + CONTENTS
        check = checks_of(report)["role"]
        assert check.verdict is Verdict.OK
        assert said in check.text
        assert report.verdict is Verdict.WARNING, "the owner of the instance has not joined"
        assert checks_of(report)["ownership"].details == ("1 instance of n1: unknown",)


def test_a_role_that_may_write_some_tables_only_is_told_which(dsn, schema_name, roles, other):
    other.run('REVOKE UPDATE, DELETE ON {}.message FROM "' + roles[1].replace('"', '""') + '"')
    other.run(
        "CREATE TABLE {}.guest (name text)"
    )  # somebody else's, which no role of the store need read
    check = finding(as_role(dsn, roles[1]), schema_name, "role")
    assert check.verdict is Verdict.WARNING
    assert check.details == ("no UPDATE, DELETE on message",)
    assert "orchestra grants --worker" in check.remedy


def test_a_role_that_may_not_look_is_told_what_it_lacks_and_still_sees_the_server(
    dsn, schema_name, roles, make_role, other
):
    stranger = make_role("stranger")
    report = examine_server(as_role(dsn, stranger), schema_name, CLOCK)
    assert report.exit_code is ExitCode.FAILURES
    assert [check.name for check in report.checks] == NAMES
    assert checks_of(report)["role"].details == ("no USAGE on the schema",)
    assert "may not read its number" in checks_of(report)["schema"].text
    other.run(
        'GRANT USAGE ON SCHEMA {} TO "' + stranger.replace('"', '""') + '"',
        "GRANT SELECT ON {}.meta TO public",
    )
    report = examine_server(as_role(dsn, stranger), schema_name, CLOCK)
    assert "no SELECT on instance" in checks_of(report)["role"].details
    assert checks_of(report)["schema"].verdict is Verdict.OK
    assert [check.name for check in report.checks] == NAMES


def test_a_role_that_may_neither_read_nor_make_the_store_is_no_owner():
    role = RoleState("app", False, None, False, (), (), False, False)
    assert server_findings.role_check(role).verdict is Verdict.WARNING
    assert server_findings.role_check(replace(role, migrates=True)).verdict is Verdict.OK


def test_a_table_that_somebody_has_locked_keeps_the_doctor_waiting_for_a_moment_only(
    dsn, schema_name, provider, other, monkeypatch
):
    monkeypatch.setattr(diagnosis, "_LOCK_SECONDS", 0.05)
    other.run("BEGIN", "LOCK TABLE {}.instance IN ACCESS EXCLUSIVE MODE")
    report = examine_server(dsn, schema_name, CLOCK)
    other.run("ROLLBACK")
    assert report.exit_code is ExitCode.WARNINGS
    assert [check.name for check in report.checks] == [*NAMES, "contents"]
    assert checks_of(report)["contents"].verdict is Verdict.WARNING


# --- the schema -----------------------------------------------------------------------------------


def test_a_newer_schema_is_a_failure_unless_it_was_made_for_older_libraries_too(
    dsn, schema_name, provider, other
):
    begin(provider)
    other.run("UPDATE {}.meta SET value = '99' WHERE key IN ('schema', 'lowest_reader')")
    report = examine_server(dsn, schema_name, CLOCK)
    assert report.exit_code is ExitCode.FAILURES
    assert [check.name for check in report.checks] == NAMES
    assert "schema 99" in checks_of(report)["schema"].text
    assert "the library that the services use" in checks_of(report)["schema"].remedy
    other.run("UPDATE {}.meta SET value = '1' WHERE key = 'lowest_reader'")
    report = examine_server(dsn, schema_name, CLOCK)
    assert [check.name for check in report.checks] == NAMES + CONTENTS
    assert checks_of(report)["schema"].verdict is Verdict.NOTICE


LATER = """-- lowest reader: 1
CREATE TABLE @extra (
    name   text COLLATE "C" NOT NULL,
    number numeric(10, 2) CHECK (number > 0) UNIQUE,
    CONSTRAINT whole PRIMARY KEY (name, number)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX extra_name ON @extra (lower(name), number DESC) WHERE number > 1 AND name <> 'a';
ALTER TABLE @label ADD COLUMN extra text, ADD more integer NOT NULL DEFAULT 0;
ALTER TABLE @label DROP COLUMN more;
DROP INDEX @operation_at;
DROP TABLE @expiry;
"""


def test_an_older_schema_is_a_notice_and_is_compared_with_all_migrations_once_it_has_them(
    dsn, schema_name, provider, monkeypatch
):
    known = schema.migrations()
    later = schema.Migration(len(known) + 1, 1, LATER)
    monkeypatch.setattr(schema, "migrations", lambda *_: (*known, later))
    report = examine_server(dsn, schema_name, CLOCK)
    assert [check.name for check in report.checks] == NAMES
    assert checks_of(report)["schema"].verdict is Verdict.NOTICE
    assert "migrates it" in checks_of(report)["schema"].remedy
    another = PostgresProvider(dsn, schema_name)
    another.open()
    another.close()
    check = finding(dsn, schema_name, "schema")
    assert (check.verdict, check.details) == (Verdict.OK, ())
    monkeypatch.undo()
    assert finding(dsn, schema_name, "schema").verdict is Verdict.NOTICE


@pytest.mark.parametrize(
    ("statements", "verdict", "details"),
    [
        (["DROP INDEX {}.instance_claim"], Verdict.FAILURE, ["missing: index instance_claim"]),
        (
            ["ALTER TABLE {}.tombstone DROP CONSTRAINT tombstone_pkey"],
            Verdict.FAILURE,
            ["tombstone (instance_id, message_id)"],
        ),
        (
            ["ALTER TABLE {}.label DROP COLUMN value CASCADE"],
            Verdict.FAILURE,
            ["column label.value", "index label_value"],
        ),
        (
            ["DROP TABLE {}.label"],
            Verdict.FAILURE,
            ["missing: index label_value", "missing: table label"],
        ),
        (
            ["DROP INDEX {}.instance_held", "CREATE INDEX instance_held ON {}.instance (kind)"],
            Verdict.FAILURE,
            ["changed: index instance_held"],
        ),
        (
            ["ALTER TABLE {}.label ADD COLUMN extra text"],
            Verdict.NOTICE,
            ["not of this library: column label.extra"],
        ),
        (
            ["CREATE TABLE {}.guest (name text PRIMARY KEY)"],
            Verdict.NOTICE,
            ["not of this library: table guest"],
        ),
        (
            ["DROP TRIGGER tally_of_new ON {}.instance"],
            Verdict.FAILURE,
            ["missing: trigger tally_of_new"],
        ),
        (
            ["ALTER TABLE {}.instance DISABLE TRIGGER tally_of_changed"],
            Verdict.FAILURE,
            ["changed: trigger tally_of_changed"],
        ),
        (
            ["CREATE INDEX mine ON {}.event (at)"],
            Verdict.NOTICE,
            ["not of this library: index mine"],
        ),
    ],
)
def test_a_schema_that_somebody_has_changed_is_told(
    dsn, schema_name, provider, other, statements, verdict, details
):
    other.run(*statements)
    check = finding(dsn, schema_name, "schema")
    assert check.verdict is verdict
    assert len(check.details) == len(details), check.details
    for found, detail in zip(check.details, details, strict=True):
        assert found.endswith(detail)


def test_an_index_that_could_not_be_made_is_a_warning(dsn, schema_name, provider, other):
    begin(provider)
    row = "SELECT 'i', {}, 'same', 'me', 0, 0, 'go', '', 0, 0"
    columns = (
        "instance_id, sequence, message_id, sender, kind, source, name, payload, encoding, sent_at"
    )
    other.run("DROP INDEX {}.message_identity")
    for number in (1, 2):
        other.run(f"INSERT INTO {{}}.message ({columns}) " + row.replace("{}", str(number)))
    with pytest.raises(psycopg.errors.UniqueViolation):
        other.run(
            "CREATE UNIQUE INDEX CONCURRENTLY message_identity ON {}.message (instance_id, "
            "message_id, kind)"
        )
    check = finding(dsn, schema_name, "schema")
    assert check.verdict is Verdict.WARNING
    assert check.details == ("not valid: index message_identity",)
    assert "REINDEX" in check.remedy
    other.run("DELETE FROM {}.message", "REINDEX INDEX {}.message_identity")
    assert finding(dsn, schema_name, "schema").verdict is Verdict.OK


# --- nodes and ownership -----------------------------------------------------------------------------


def test_a_node_whose_connection_is_gone_is_cut_off_and_what_it_owns_is_found(
    dsn, schema_name, provider
):
    provider.store.join(a_node())
    begin(provider)
    assert finding(dsn, schema_name, "nodes").verdict is Verdict.OK
    provider._pulse.close()  # as if the process were gone
    check = until(
        lambda: [
            check
            for check in [finding(dsn, schema_name, "nodes")]
            if check.verdict is Verdict.WARNING
        ]
    )[0]
    assert check.text == "0 living, 1 cut off"
    assert "its connection is gone" in check.details[0]
    assert "owns 1" in check.details[0]
    assert "its connection is gone" in finding(dsn, schema_name, "ownership").details[0]


def test_a_node_without_a_pulse_is_silent_after_three_leases_and_one_with_it_is_stalled(
    dsn, schema_name, provider, other
):
    provider.store.join(a_node())
    begin(provider)
    assert finding(dsn, schema_name, "nodes").verdict is Verdict.OK
    other.run(f"UPDATE {{}}.node SET renewed_at = renewed_at - {46 * SECOND}")
    assert finding(dsn, schema_name, "nodes").text == "0 living, 1 stalled"
    assert finding(dsn, schema_name, "ownership").verdict is Verdict.OK, (
        "its work is its own until it is buried"
    )
    other.run("UPDATE {}.node SET pulse = NULL, pulse_server = NULL")
    check = finding(dsn, schema_name, "nodes")
    assert check.verdict is Verdict.WARNING
    assert check.text == "0 living, 1 silent"
    assert finding(dsn, schema_name, "ownership").verdict is Verdict.WARNING


def test_instances_of_buried_and_of_unknown_nodes_are_found(dsn, schema_name, provider, other):
    provider.store.join(a_node("n1"))
    provider.store.join(a_node("n2"))
    begin(provider, "i", node="n1")
    begin(provider, "j", node="n2")
    assert finding(dsn, schema_name, "ownership").text == "living nodes own 2 instances"
    provider.store.bury("n1", 0)
    other.run("UPDATE {}.instance SET owner = 'nobody' WHERE instance_id = 'j'")
    check = finding(dsn, schema_name, "ownership")
    assert check.verdict is Verdict.WARNING
    assert check.details == ("1 instance of n1: buried", "1 instance of nobody: unknown")
    assert "1 buried" in finding(dsn, schema_name, "nodes").text
    assert provider.store.sweep() == 2
    assert finding(dsn, schema_name, "ownership").verdict is Verdict.OK


def test_activities_that_nodes_have_taken_who_are_not_there_count_as_well(
    dsn, schema_name, provider, other
):
    provider.store.join(a_node("n1"))
    provider.store.join(a_node("n2"))
    hand_out(provider, handed_out(1), handed_out(2), handed_out(3), owner="n1")
    assert finding(dsn, schema_name, "ownership").text == "living nodes own 1 instance", (
        "nobody has taken them"
    )
    assert len(take(provider, "n2", slots=2)) == 2
    assert (
        finding(dsn, schema_name, "ownership").text
        == "living nodes own 1 instance and 2 activities"
    )
    provider.store.bury("n2", 0)
    check = finding(dsn, schema_name, "ownership")
    assert check.verdict is Verdict.WARNING
    assert check.text == "2 activities owned by dead or unknown nodes"
    assert check.details == ("2 activities of n2: buried",)
    assert len(take(provider, "n1")) == 1
    provider.store.bury("n1", 0)
    other.run("UPDATE {}.activity SET owner = 'nobody' WHERE event_id = 1")
    check = finding(dsn, schema_name, "ownership")
    assert check.text == "1 instance and 3 activities owned by dead or unknown nodes"
    assert check.details == (
        "1 instance and 1 activity of n1: buried",
        "1 activity of n2: buried",
        "1 activity of nobody: unknown",
    )
    assert provider.store.sweep() == 4
    assert finding(dsn, schema_name, "ownership").verdict is Verdict.OK


def test_activities_that_no_living_node_takes_are_named(dsn, schema_name, provider):
    instant = CLOCK.now() - 1_210 * SECOND
    routes = {"probe": "default", "fetch": "gpu"}
    rows = [
        handed_out(number, Route(queue, name), instant + number * SECOND)
        for number, (name, queue) in enumerate(
            [*routes.items(), *routes.items(), ("probe", "gpu")], start=1
        )
    ]
    hand_out(provider, *rows)
    check = finding(dsn, schema_name, "activities")
    assert check.verdict is Verdict.NOTICE
    assert (
        check.text
        == "5 activities wait for a node; no node runs, so the deployed activities are not known"
    )
    provider.store.join(a_node("n1"))
    check = finding(dsn, schema_name, "activities")
    assert check.verdict is Verdict.WARNING
    assert check.text == "5 activities wait for a node: 3 in vain"
    assert check.details == (
        (
            "2 activities, the oldest asked for 20 min ago: no living node has activity 'fetch' "
            "and serves queue 'gpu'"
        ),
        "1 activity, the oldest asked for 20 min ago: no living node has activity 'probe' and "
        "serves queue 'gpu'; some have it and serve 'default', 'slow': let one of them serve "
        "'gpu' too (Runtime(queues=...)), or name a queue of theirs where it is scheduled",
    )
    assert "Runtime(activities=..., queues=...)" in check.remedy
    provider.store.join(replace(a_node("n2"), activities=("fetch", "probe"), queues=("gpu",)))
    check = finding(dsn, schema_name, "activities")
    assert check.verdict is Verdict.OK
    assert check.text == "5 activities wait for a node that has a place free"
    assert len(take(provider, "n2", (Route("gpu", "fetch"), Route("gpu", "probe")))) == 3
    assert len(take(provider, "n1", (Route("default", "probe"),))) == 2
    assert finding(dsn, schema_name, "activities").text == "none waits for a node"


def test_activities_whose_arguments_no_code_could_read_are_named_with_what_was_wrong(
    dsn, schema_name, provider
):
    unread = {"unread": ("f1",), "last_error": "total: not a number"}
    events = [
        ActivityScheduled(number, 4, "probe", Payload(b"7"), RetryPolicy(), None, None)
        for number in range(1, 14)
    ]
    rows = [PendingActivity(event, started_at=4, **unread).row(1) for event in events[:12]]
    hand_out(
        provider,
        *rows,
        replace(
            PendingActivity(events[12], started_at=4).row(1),
            attempts=b'{"tries":[["\\"unread\\""]]}',
        ),
    )
    check = finding(dsn, schema_name, "activities")
    assert check.verdict is Verdict.NOTICE
    provider.store.join(a_node("n1"))
    check = finding(dsn, schema_name, "activities")
    assert check.verdict is Verdict.WARNING
    assert (
        check.text
        == "none waits for a node; no code that was tried could read the arguments of 12 activities"
    )
    assert check.details[0] == "i, event 1: total: not a number"
    assert (len(check.details), check.details[-1]) == (11, "and 2 more")
    assert (
        check.remedy
        == "Deploy a worker whose code reads the arguments, or terminate the instances."
    )


# --- instances ------------------------------------------------------------------------------------


def test_held_crashing_and_unserved_instances_are_listed_with_their_reasons(
    dsn, schema_name, provider, other
):
    provider.store.join(a_node())
    hold = replace(a_hold(), kind=HoldKind.NONDETERMINISM, detail="event 3\nis another")
    held, crashing = begin(provider, "held"), begin(provider, "crashing")
    assert finding(dsn, schema_name, "held").verdict is Verdict.OK
    one(provider, a_write(held, a_state(held, owner=None), hold=hold))
    one(provider, a_park(crashing))
    one(provider, a_start("foreign", kind=FOREIGN_KIND))
    other.run("UPDATE {}.instance SET takeovers = 4 WHERE instance_id = 'crashing'")
    check = finding(dsn, schema_name, "held")
    assert check.verdict is Verdict.WARNING
    assert check.text == "1 held, 1 unserved, 1 crashing of 3 open instances"
    assert check.details == (
        "held: nondeterminism: event 3\nis another",
        "1 instance: no living node has registered 'other' 2.0.0",
        "crashing: crashing: 4 nodes in a row were lost while they ran it",
    )


def test_what_errors_and_limits_hold_is_counted_by_version_with_the_first_detail(
    dsn, schema_name, provider
):
    provider.store.join(a_node())
    provider.store.commit([a_start(f"i{number:02}") for number in range(15)])
    one(provider, a_start("j", kind=KIND._replace(version="1.1.0")))
    holds = [
        *(
            replace(a_hold(), kind=HoldKind.ERROR, detail=f"LookupError: {number}")
            for number in range(11)
        ),
        *(replace(a_hold(), kind=HoldKind.LIMIT, detail="too many events") for _ in range(2)),
        *(a_hold() for _ in range(2)),
    ]
    rows = [snapshot.row for snapshot in claim(provider, limit=15)]
    for row, hold in zip(sorted(rows, key=lambda row: row.instance_id), holds, strict=True):
        one(provider, a_write(row, a_state(row, owner=None), hold=hold))
    (row,) = (snapshot.row for snapshot in claim(provider, kinds=(KIND._replace(version="1.1.0"),)))
    one(provider, a_write(row, a_state(row, owner=None), hold=holds[0]))
    check = finding(dsn, schema_name, "held")
    assert check.text.startswith("16 held")
    assert check.details == (
        "11 instances of 'watch' 1.0.0, first i00: error: LookupError: 0",
        "2 instances of 'watch' 1.0.0, first i11: limit: too many events",
        "1 instance of 'watch' 1.1.0, first j: error: LookupError: 0",
        "i13: state: the state does not fit",
        "i14: state: the state does not fit",
    )
    assert "client.release()" in check.remedy
    assert "Runtime(limits=...)" in check.remedy


def test_a_count_that_differs_from_the_rows_is_told_and_the_guide_counts_again(
    dsn, schema_name, provider, other
):
    provider.store.commit([a_start(f"i{number}") for number in range(5)])
    assert finding(dsn, schema_name, "tallies").verdict is Verdict.OK
    provider.store.sweep()
    assert finding(dsn, schema_name, "tallies").verdict is Verdict.OK
    other.run(
        "ALTER TABLE {}.instance DISABLE TRIGGER ALL",
        "DELETE FROM {}.instance WHERE instance_id IN ('i1', 'i2')",
        "ALTER TABLE {}.instance ENABLE TRIGGER ALL",
    )
    check = finding(dsn, schema_name, "tallies")
    assert check.verdict is Verdict.WARNING
    assert check.details == ("'watch' 1.0.0: counted 5, found 3",)
    other.run(*[f"SET search_path TO {{}};{each}" for each in recounts()])
    assert finding(dsn, schema_name, "tallies").verdict is Verdict.OK


def test_rows_that_lack_what_they_belong_to_are_told(dsn, schema_name, provider, other):
    strays.fill(provider)
    assert finding(dsn, schema_name, "strays").verdict is Verdict.OK
    tables = {name: f"{{0}}.{name}" for name in strays.TABLES}
    strays.stray(provider, lambda statement: other.run(statement.format(**tables)))
    check = finding(dsn, schema_name, "strays")
    assert check.verdict is Verdict.WARNING
    assert check.details == strays.STRAYS


def recounts():
    """Return the statements of the guide's operating.md that count again."""
    guide = (
        Path(__file__).parents[2] / "ops" / "guide" / "pages" / "how-to" / "operating.md"
    ).read_text(encoding="utf-8")
    script = guide.partition("```sql\nBEGIN;\n")[2].partition("COMMIT;")[0]
    return [line.partition("--")[0] for line in script.splitlines()]


def test_what_cannot_be_understood_fails_its_check_alone(dsn, schema_name, provider, other):
    provider.store.join(a_node())
    one(
        provider,
        a_start("i", kind=FOREIGN_KIND._replace(queue="default", floating=True, name="watch")),
    )
    other.run("UPDATE {}.capability SET version = 'nonsense' WHERE version = '1.0.0'")
    verdicts = {
        check.name: check.verdict for check in examine_server(dsn, schema_name, CLOCK).checks
    }
    assert verdicts["held"] is Verdict.FAILURE
    assert verdicts["clock"] is Verdict.OK
    other.run("UPDATE {}.node SET abilities = 'x'")
    report = examine_server(dsn, schema_name, CLOCK)
    assert [check.name for check in report.checks] == [*NAMES, "contents"]
    assert report.exit_code is ExitCode.FAILURES


def test_what_has_ended_is_counted_and_what_of_it_goes(dsn, schema_name, provider, other):
    assert finding(dsn, schema_name, "retention").text == "no instance has ended"
    one(provider, an_end(begin(provider, "kept")))
    provider.admin.set_expiry({"watch": 3600 * SECOND})
    one(provider, an_end(begin(provider, "later")))
    one(provider, an_end(begin(provider, "soon")))
    other.run("UPDATE {}.instance SET expires_at = 1 WHERE instance_id = 'soon'")
    text = finding(dsn, schema_name, "retention").text
    assert text == "3 ended instances: 2 expire (1 now), 1 stay until they are deleted"


# --- clocks ---------------------------------------------------------------------------------------


def test_a_server_whose_clock_is_behind_what_was_written_is_a_warning(
    dsn, schema_name, provider, other
):
    assert "no row has been written yet" in finding(dsn, schema_name, "clock").text
    begin(provider)
    assert finding(dsn, schema_name, "clock").verdict is Verdict.OK
    other.run(f"UPDATE {{}}.instance SET updated_at = updated_at + {3 * 3600 * SECOND}")
    check = finding(dsn, schema_name, "clock")
    assert check.verdict is Verdict.WARNING
    assert "3.0 h in the future" in check.text
    assert "the server's clock" in check.remedy


def test_a_machine_whose_clock_is_another_than_the_servers_is_a_notice(dsn, schema_name, provider):
    check = finding(dsn, schema_name, "clock", clock=Shifted())
    assert check.verdict is Verdict.NOTICE
    assert "this machine's clock is 60 min ahead of the server's" in check.text


# --- backups --------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [[], ["--to", "copy.db"]])
def test_a_backup_of_a_store_on_a_server_names_the_servers_tools(
    tmp_path, monkeypatch, capsys, target
):
    monkeypatch.chdir(tmp_path)
    store = f"postgresql://app:{SECRET}@db.example.com/app"
    assert main(["backup", "--store", store, *target]) == 3
    shown = capsys.readouterr()
    assert "pg_dump --format=custom --schema=orchestra " in shown.err
    assert "pg_restore" in shown.err
    assert "pg_basebackup" in shown.err
    assert SECRET not in shown.out + shown.err
    assert main(["backup", "--schema", 'Te"nant', "--store", store, *target]) == 3
    assert """'--schema="Te""nant"'""" in capsys.readouterr().err
    assert list(Path(tmp_path).iterdir()) == []
