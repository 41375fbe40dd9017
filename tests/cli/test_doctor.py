"""The doctor's findings in real stores: each check sees a healthy one and a faulty one."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import replace

import anyio
import pytest

from orchestra import OrchestrationRegistry, Runtime, SqliteProvider
from orchestra.cli import file_findings, store_findings
from orchestra.cli.checks import ExitCode, Verdict
from orchestra.cli.doctor import _guarded, examine
from orchestra.clock import SystemClock
from orchestra.codec import Payload
from orchestra.engine.attempts import PendingActivity
from orchestra.errors import StoreBusy
from orchestra.events import ActivityScheduled
from orchestra.providers.sqlite import diagnosis, lock_probes, schema
from orchestra.providers.sqlite.diagnosis import diagnose
from orchestra.providers.sqlite.filelock import FileLock
from orchestra.resolution import LOWEST_VERSION
from orchestra.retry import RetryPolicy
from orchestra.runtime.nodes import NodeSettings, node_record
from orchestra.store.diagnosis import SchemaState
from orchestra.store.kinds import HoldKind
from orchestra.store.routes import Route
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


class Shifted(SystemClock):
    """A machine whose clock is wrong."""

    def __init__(self, seconds):
        self._shift = int(seconds * SECOND)

    def now(self):
        return super().now() + self._shift


def report_on(path, clock=CLOCK, quick=False):
    return examine(path, clock, quick=quick)


def finding(path, name, **options):
    checks = {check.name: check for check in report_on(path, **options).checks}
    return checks[name]


def files(path):
    """What lies in the directory: names, and the bytes of all that is no shared memory."""
    return {
        file.name: None if file.name.endswith("-shm") else file.read_bytes()
        for file in path.parent.iterdir()
    }


@contextmanager
def killed(path, script):
    """Run a program until it says a line; kill it at the end of the body, if it still runs."""
    head = """
        import sys, time
        from orchestra.providers.sqlite import SqliteProvider
        from orchestra.providers.sqlite.filelock import FileLock
        from pathlib import Path
        from tests.support.contract.shorthand import *
        path = Path(sys.argv[1])
    """
    source = (
        textwrap.dedent(head)
        + textwrap.dedent(script)
        + "\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", source, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


A_BUSY_NODE = """
    provider = SqliteProvider(path)
    provider.open()
    provider.store.join(a_node())
    begin(provider)
"""


async def idle(ctx, value):
    return await ctx.wait_for_event("go")


REGISTRY = OrchestrationRegistry.builder().register("idle", idle).build()


# --- whole stores -------------------------------------------------------------------------------


def test_a_store_at_rest_is_well_and_stays_as_it_is(path, provider):
    assert one(provider, a_start("i"))
    provider.close()
    before = files(path)
    report = report_on(path)
    assert files(path) == before, "not even a log is left behind"
    assert report.exit_code is ExitCode.FINE
    assert [check.name for check in report.checks] == [
        *(
            "sqlite",
            "pragmas",
            "integrity",
            "lock",
            "schema",
            "nodes",
            "levels",
            "ownership",
            "held",
        ),
        *("tallies", "activities", "strays", "retention", "clock"),
    ]


def test_a_store_with_a_live_runtime_is_well_and_goes_on_meanwhile(path):
    async def work():
        async with Runtime(SqliteProvider(path, durability="relaxed"), REGISTRY) as runtime:
            handles = [await runtime.client.start("idle", 1) for _ in range(3)]
            while not all([(await handle.info()).waiting_on for handle in handles]):
                await anyio.sleep(0.005)
            for quick in (False, True):
                report = await anyio.to_thread.run_sync(
                    lambda quick=quick: report_on(path, quick=quick)
                )
                assert report.exit_code is ExitCode.FINE, report
                checks = {check.name: check for check in report.checks}
                assert checks["nodes"].text == "1 living"
                assert str(os.getpid()) in checks["nodes"].details[0]
                assert checks["held"].text == "none of 3 open instances"
                assert checks["pragmas"].text.startswith("journal mode wal")
            for handle in handles:
                await handle.raise_event("go", 7)
                assert await handle.result() == 7

    anyio.run(work)


@pytest.mark.slow
def test_a_store_whose_process_was_killed_shows_the_dead_node_and_what_it_owned_until_the_next_start(
    path,
):
    with killed(path, A_BUSY_NODE):
        pass
    before = files(path)
    report = report_on(path)
    assert files(path) == before
    assert report.exit_code is ExitCode.WARNINGS
    checks = {check.name: check for check in report.checks}
    assert checks["integrity"].verdict is Verdict.OK
    assert checks["nodes"].verdict is Verdict.WARNING
    assert "1 dead" in checks["nodes"].text
    assert "its process is gone" in checks["nodes"].details[0]
    assert "owns 1" in checks["nodes"].details[0]
    assert checks["ownership"].details == ("1 instance of n1: its process is gone",)
    assert "next runtime" in checks["ownership"].remedy

    async def start():
        async with Runtime(SqliteProvider(path), REGISTRY):
            pass

    with sqlite3.connect(path) as connection:  # as if it had been one of this host
        connection.execute("UPDATE node SET host = ?, boot_id = ?", _here())
    connection.close()
    anyio.run(start)
    assert finding(path, "ownership").verdict is Verdict.OK
    assert finding(path, "nodes").verdict is Verdict.NOTICE
    assert "1 buried" in finding(path, "nodes").text


def _here():
    node = node_record("n", SqliteProvider("unused.db"), NodeSettings(REGISTRY))
    return node.host, node.boot_id


def test_looking_keeps_no_writer_waiting(path, provider):
    begin(provider)
    numbers = iter(range(100))

    def look(diagnosis):
        for method in (
            lambda: diagnosis.integrity(quick=False),
            diagnosis.schema,
            diagnosis.pragmas,
            diagnosis.population,
        ):
            method()
            one(provider, a_start(f"meanwhile-{next(numbers)}"))
        return diagnosis.population()

    found = diagnose(path, CLOCK, look)
    assert sum(tally.open for tally in found.tallies) == 5


def test_a_store_that_leaves_its_rest_meanwhile_is_looked_at_again(path, provider):
    provider.close()
    seen = []

    def look(diagnosis):
        if not seen:
            provider.open()
            one(provider, a_start("late"))
        seen.append(sum(tally.open for tally in diagnosis.population().tallies))
        return seen[-1]

    assert diagnose(path, CLOCK, look) == 1
    assert len(seen) == 2


# --- what is no store ---------------------------------------------------------------------------


def _missing(path):
    pass


def _directory(path):
    path.mkdir()


def _pipe(path):
    os.mkfifo(path)


def _empty(path):
    path.touch()


def _shopping_list(path):
    path.write_bytes(b"this is a shopping list, and not a short one at that" * 100)


def _somebody_elses(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (thing TEXT)")
    connection.close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_missing, "No such file"),
        (_directory, "not a regular file"),
        (_pipe, "not a regular file"),
        (_empty, "an empty database"),
        (_shopping_list, "not a database"),
        (_somebody_elses, "not one of this library"),
    ],
)
def test_what_is_no_store_is_called_so_and_left_alone(path, make, said):
    make(path)
    before = sorted(file.name for file in path.parent.iterdir())
    report = report_on(path)
    assert report.exit_code is ExitCode.UNREADABLE
    assert [check.name for check in report.checks] == ["sqlite", "store"]
    assert report.checks[1].verdict is Verdict.FAILURE
    assert said in report.checks[1].text
    assert sorted(file.name for file in path.parent.iterdir()) == before


def test_an_empty_file_is_no_loss_and_its_remedy_is_to_start_a_service(path):
    _empty(path)
    (_, check) = report_on(path).checks
    assert "not yet a store; a runtime that opens it makes it one" in check.text
    assert "start one: it makes the store" in check.remedy
    _somebody_elses(path)
    (_, other) = report_on(path).checks
    assert "restore a backup" in other.remedy
    assert "start one" not in other.remedy


def test_a_store_whose_schema_number_is_no_number_is_no_store(path, provider, edit):
    provider.close()
    edit("UPDATE meta SET value = 'many' WHERE key = 'schema'")
    report = report_on(path)
    assert report.exit_code is ExitCode.UNREADABLE
    assert "no number" in report.checks[1].text


# --- sqlite -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ((3, 36, 0), Verdict.FAILURE),
        ((3, 40, 1), Verdict.NOTICE),
        ((3, 44, 5), Verdict.NOTICE),
        ((3, 44, 6), Verdict.OK),
        ((3, 50, 6), Verdict.NOTICE),
        ((3, 50, 7), Verdict.OK),
        ((3, 51, 2), Verdict.NOTICE),
        ((3, 51, 3), Verdict.OK),
        ((3, 53, 0), Verdict.OK),
    ],
)
def test_a_library_with_the_log_reset_bug_is_named_and_so_is_what_protects_from_it(
    version, verdict
):
    check = file_findings.sqlite_check(version)
    assert check.verdict is verdict
    assert ("file lock" in check.text) is (verdict is Verdict.NOTICE)


def test_the_library_is_the_one_of_this_process(path, provider):
    assert finding(path, "sqlite").text.startswith(sqlite3.sqlite_version)


# --- pragmas ------------------------------------------------------------------------------------


def test_another_journal_mode_is_noticed(path, provider, edit):
    assert finding(path, "pragmas").verdict is Verdict.OK
    provider.close()
    assert edit("PRAGMA journal_mode = DELETE") == [[("delete",)]]
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE extra (thing TEXT)")  # a journal lies beside the file now
    check = finding(path, "pragmas")
    other.close()
    assert check.verdict is Verdict.NOTICE
    assert "journal mode delete" in check.text


def test_a_log_that_no_checkpoint_shortens_is_a_warning(path, provider, monkeypatch):
    begin(provider)
    monkeypatch.setattr(file_findings, "LOG_LIMIT", 1000)
    check = finding(path, "pragmas")
    assert check.verdict is Verdict.WARNING
    assert "checkpoints" in check.text


# --- integrity ----------------------------------------------------------------------------------


def _damage(path):
    """Write over the middle of the file, and leave its first page alone."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        for offset in range(4096, size, 4096):
            file.seek(offset + 100)
            file.write(b"\xff" * 3900)


@pytest.mark.parametrize("quick", [False, True])
def test_a_damaged_file_is_a_failure_and_the_rest_is_still_told(path, provider, quick):
    provider.store.commit([a_start(f"i{number}") for number in range(200)])
    provider.close()
    assert finding(path, "integrity", quick=quick).verdict is Verdict.OK
    # Only what comes after the pages of the schema: a store whose schema cannot be read cannot be
    # looked at.
    with sqlite3.connect(path) as connection:
        root = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'instance'"
        ).fetchone()[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    report = report_on(path, quick=quick)
    checks = {check.name: check for check in report.checks}
    assert report.exit_code is ExitCode.FAILURES
    assert checks["integrity"].verdict is Verdict.FAILURE
    assert "backup" in checks["integrity"].remedy
    assert checks["contents"].verdict is Verdict.FAILURE
    assert checks["schema"].verdict is Verdict.OK


def test_a_file_that_is_damaged_all_over_cannot_be_read(path, provider):
    provider.close()
    _damage(path)
    assert report_on(path).exit_code in (ExitCode.FAILURES, ExitCode.UNREADABLE)


def test_a_file_that_was_cut_off_is_not_well(path, provider):
    provider.store.commit([a_start(f"i{number}") for number in range(200)])
    provider.close()
    os.truncate(path, path.stat().st_size // 2)
    assert report_on(path).exit_code in (ExitCode.FAILURES, ExitCode.UNREADABLE)


# --- schema -------------------------------------------------------------------------------------


def test_a_store_that_rules_out_libraries_as_old_as_this_is_a_failure_and_its_tables_are_left_alone(
    path, provider, edit
):
    assert finding(path, "schema").verdict is Verdict.OK
    provider.close()
    edit(
        "UPDATE meta SET value = '99' WHERE key = 'schema'",
        "UPDATE meta SET value = '9' WHERE key IN ('write_level', 'lowest_reader')",
        "DROP TABLE instance",
    )
    report = report_on(path)
    assert report.exit_code is ExitCode.FAILURES
    assert report.checks[-1].name == "schema"
    assert "schema 99; the store refuses libraries below level 9" in report.checks[-1].text


def test_a_newer_schema_that_libraries_as_old_as_this_can_read_is_a_notice(path, provider, edit):
    provider.close()
    edit(
        "UPDATE meta SET value = '99' WHERE key = 'schema'",
        "ALTER TABLE instance ADD COLUMN later TEXT",
    )
    report = report_on(path)
    assert finding(path, "schema").verdict is Verdict.NOTICE
    assert report.checks[-1].name == "clock", "what the store holds is looked at"


def test_an_older_schema_is_a_notice(path, provider, monkeypatch):
    known = schema.migrations()
    more = schema._Migration(known[-1].number + 1, 1, ("CREATE TABLE extra (thing TEXT) STRICT;",))
    monkeypatch.setattr(schema, "migrations", lambda *_: (*known, more))
    check = finding(path, "schema")
    assert check.verdict is Verdict.NOTICE
    assert "migrates" in check.remedy


@pytest.mark.parametrize(
    ("statement", "verdict", "detail"),
    [
        ("DROP INDEX instance_claim", Verdict.FAILURE, "missing: index instance_claim"),
        ("ALTER TABLE label ADD COLUMN extra TEXT", Verdict.FAILURE, "changed: table label"),
        ("CREATE INDEX mine ON event (at)", Verdict.NOTICE, "not of this library: index mine"),
    ],
)
def test_a_schema_that_somebody_has_changed_is_told(
    path, provider, edit, statement, verdict, detail
):
    provider.close()
    edit(statement)
    check = finding(path, "schema")
    assert check.verdict is verdict
    assert check.details == (detail,)


def test_a_migrated_schema_is_compared_with_all_migrations():
    assert store_findings.schema_check(SchemaState(2, 2)).verdict is Verdict.OK


# --- the write lock -----------------------------------------------------------------------------


def test_the_last_holder_of_the_write_lock_is_named(path, provider):
    check = finding(path, "lock")
    assert check.verdict is Verdict.OK
    assert check.text == f"last taken by process {os.getpid()} (running)"


@pytest.mark.slow
def test_a_last_holder_that_is_gone_is_called_so(path):
    with killed(path, A_BUSY_NODE) as process:
        pass
    assert finding(path, "lock").text == f"last taken by process {process.pid} (gone)"


def test_a_store_that_was_restored_without_its_locks_is_well(path, provider):
    provider.close()
    for file in path.parent.glob("*.lock*"):
        file.unlink()
    assert finding(path, "lock").verdict is Verdict.OK


@pytest.mark.slow
def test_a_stopped_process_that_holds_the_write_lock_is_a_warning(path, provider, monkeypatch):
    monkeypatch.setattr(diagnosis, "_NAP", 0.005)
    with killed(
        path, "lock = FileLock(path.with_name(path.name + '.lock'))\nlock.acquire(5)"
    ) as process:
        process.send_signal(signal.SIGSTOP)
        check = finding(path, "lock")
        if lock_probes.KERNEL_LOCKS.exists():
            assert check.verdict is Verdict.WARNING
        assert f"process {process.pid}" in check.text


def test_a_writer_that_commits_is_not_stuck(path, provider, monkeypatch):
    lock = FileLock(path.with_name("app.db.lock"))
    lock.acquire(5)
    monkeypatch.setattr(diagnosis, "sleep", lambda _: lock.release())
    if lock_probes.KERNEL_LOCKS.exists():
        assert finding(path, "lock").text == f"process {os.getpid()} is writing"
    lock.close()


def test_the_write_lock_is_never_taken(path, provider, monkeypatch):
    lock = FileLock(path.with_name("app.db.lock"))
    lock.acquire(5)
    monkeypatch.setattr(diagnosis, "_NAP", 0)
    assert finding(path, "nodes").verdict is Verdict.OK
    other = FileLock(path.with_name("app.db.lock"))
    with pytest.raises(StoreBusy):
        other.acquire(0.001)
    lock.close()
    other.close()


# --- nodes --------------------------------------------------------------------------------------


def test_living_nodes_are_listed_and_keep_their_locks(path, provider):
    provider.store.join(a_node("n1"))
    provider.store.join(a_node("n2", host="there"))
    begin(provider)
    for _ in range(2):
        check = finding(path, "nodes")
        assert check.verdict is Verdict.OK
        assert check.text == "2 living"
        assert "owns 1" in check.details[0]
    assert provider.store.vanished() == []


def test_a_node_that_holds_its_lock_and_does_not_renew_is_stalled(path, provider):
    provider.store.join(a_node())
    begin(provider)
    check = finding(path, "nodes", clock=Shifted(46))
    assert check.verdict is Verdict.WARNING
    assert "1 stalled" in check.text
    assert finding(path, "ownership", clock=Shifted(46)).verdict is Verdict.OK, (
        "its work is its own until it is buried"
    )


def test_a_node_without_a_lock_file_is_silent_after_three_leases(path, provider):
    provider.store.join(a_node())
    begin(provider)
    for file in path.parent.glob("*.node-*"):
        file.unlink()
    assert finding(path, "nodes").verdict is Verdict.OK
    check = finding(path, "nodes", clock=Shifted(46))
    assert "1 silent" in check.text
    assert check.verdict is Verdict.WARNING
    assert list(path.parent.glob("*.node-*")) == [], "looking for a lock does not make one"
    assert finding(path, "ownership", clock=Shifted(46)).verdict is Verdict.WARNING


def test_a_store_that_waits_for_its_service_is_no_cause_for_alarm(path, provider):
    one(provider, a_start("i"))
    check = finding(path, "nodes")
    assert check.verdict is Verdict.NOTICE
    assert "1 open instance" in check.text


# --- ownership -------------------------------------------------------------------------------------


def test_instances_of_buried_and_of_unknown_nodes_are_found(path, provider, edit):
    provider.store.join(a_node("n1"))
    provider.store.join(a_node("n2"))
    begin(provider, "i", node="n1")
    begin(provider, "j", node="n2")
    assert finding(path, "ownership").text == "living nodes own 2 instances"
    provider.store.bury("n1", 0)
    edit("UPDATE instance SET owner = 'nobody' WHERE instance_id = 'j'")
    check = finding(path, "ownership")
    assert check.verdict is Verdict.WARNING
    assert check.details == ("1 instance of n1: buried", "1 instance of nobody: unknown")
    assert provider.store.sweep() == 2
    assert finding(path, "ownership").verdict is Verdict.OK


def test_activities_that_nodes_have_taken_who_are_not_there_count_as_well(path, provider, edit):
    provider.store.join(a_node("n1"))
    provider.store.join(a_node("n2"))
    hand_out(provider, handed_out(1), handed_out(2), handed_out(3), owner="n1")
    assert finding(path, "ownership").text == "living nodes own 1 instance", "nobody has taken them"
    assert len(take(provider, "n2", slots=2)) == 2
    assert finding(path, "ownership").text == "living nodes own 1 instance and 2 activities"
    provider.store.bury("n2", 0)
    check = finding(path, "ownership")
    assert check.verdict is Verdict.WARNING
    assert check.text == "2 activities owned by dead or unknown nodes"
    assert check.details == ("2 activities of n2: buried",)
    assert len(take(provider, "n1")) == 1
    provider.store.bury("n1", 0)
    edit("UPDATE activity SET owner = 'nobody' WHERE event_id = 1")
    check = finding(path, "ownership")
    assert check.text == "1 instance and 3 activities owned by dead or unknown nodes"
    assert check.details == (
        "1 instance and 1 activity of n1: buried",
        "1 activity of n2: buried",
        "1 activity of nobody: unknown",
    )
    assert provider.store.sweep() == 4
    assert finding(path, "ownership").verdict is Verdict.OK


def test_activities_that_no_living_node_takes_are_named(path, provider):
    instant = CLOCK.now() - 1_210 * SECOND
    routes = {"probe": "default", "fetch": "gpu"}
    rows = [
        handed_out(number, Route(queue, name), instant + number * SECOND)
        for number, (name, queue) in enumerate(
            [*routes.items(), *routes.items(), ("probe", "gpu")], start=1
        )
    ]
    hand_out(provider, *rows)
    check = finding(path, "activities")
    assert check.verdict is Verdict.NOTICE
    assert (
        check.text
        == "5 activities wait for a node; no node runs, so the deployed activities are not known"
    )
    provider.store.join(a_node("n1"))
    check = finding(path, "activities")
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
    check = finding(path, "activities")
    assert check.verdict is Verdict.OK
    assert check.text == "5 activities wait for a node that has a place free"
    assert len(take(provider, "n2", (Route("gpu", "fetch"), Route("gpu", "probe")))) == 3
    assert len(take(provider, "n1", (Route("default", "probe"),))) == 2
    assert finding(path, "activities").text == "none waits for a node"


def test_activities_whose_arguments_no_code_could_read_are_named_with_what_was_wrong(
    path, provider
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
    check = finding(path, "activities")
    assert check.verdict is Verdict.NOTICE
    provider.store.join(a_node("n1"))
    check = finding(path, "activities")
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


# --- held ---------------------------------------------------------------------------------------


def test_held_instances_are_listed_up_to_ten_with_their_reasons(path, provider):
    provider.store.join(a_node())
    provider.store.commit([a_start(f"i{number:02}") for number in range(12)])
    assert finding(path, "held").verdict is Verdict.OK
    hold = replace(a_hold(), kind=HoldKind.NONDETERMINISM, detail="event 3\nis another")
    rows = [snapshot.row for snapshot in claim(provider, limit=12)]
    provider.store.commit([a_write(row, a_state(row, owner=None), hold=hold) for row in rows])
    check = finding(path, "held")
    assert check.verdict is Verdict.WARNING
    assert check.text == "12 held of 12 open instances"
    assert check.details[0] == "i00: nondeterminism: event 3\nis another"
    assert len(check.details) == 11
    assert check.details[-1] == "2 more held instances"


def test_what_errors_and_limits_hold_is_counted_by_version_with_the_first_detail(path, provider):
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
    check = finding(path, "held")
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


def test_instances_whose_version_no_living_node_has_are_unserved(path, provider):
    one(provider, a_start("i", kind=FOREIGN_KIND))
    assert finding(path, "held").verdict is Verdict.NOTICE, "nobody is there at all"
    provider.store.join(a_node())
    check = finding(path, "held")
    assert check.verdict is Verdict.WARNING
    assert check.details == ("1 instance: no living node has registered 'other' 2.0.0",)


def test_a_name_that_nobody_has_ever_had_is_named_without_a_version(path, provider):
    one(provider, a_start("i", kind=FOREIGN_KIND._replace(version=LOWEST_VERSION, floating=True)))
    provider.store.join(a_node())
    assert finding(path, "held").details == ("1 instance: no living node has registered 'other'",)


@pytest.mark.slow
def test_what_only_a_dead_node_could_run_is_unserved(path, provider):
    with killed(path, A_BUSY_NODE):
        assert finding(path, "held").verdict is Verdict.OK
        provider.store.join(replace(a_node("n2"), capabilities=()))
    assert "'watch' 1.0.0" in finding(path, "held").details[0]


def test_instances_that_crash_their_owners_are_listed(path, provider, edit):
    provider.store.join(a_node())
    provider.store.commit([a_park(begin(provider, f"i{number:02}")) for number in range(11)])
    edit("UPDATE instance SET takeovers = 2")
    assert finding(path, "held").verdict is Verdict.OK
    edit("UPDATE instance SET takeovers = 4")
    check = finding(path, "held")
    assert check.verdict is Verdict.WARNING
    assert check.text == "11 crashing of 11 open instances"
    assert check.details[0] == "i00: crashing: 4 nodes in a row were lost while they ran it"
    assert check.details[-1] == "1 more crashing instance"


def test_a_count_that_differs_from_the_rows_is_told(path, provider, edit):
    provider.store.commit([a_start(f"i{number}") for number in range(5)])
    assert finding(path, "tallies").verdict is Verdict.OK
    edit("UPDATE tally SET number = 7")
    check = finding(path, "tallies")
    assert check.verdict is Verdict.WARNING
    assert check.details == ("'watch' 1.0.0: counted 7, found 5",)
    assert finding(path, "schema").verdict is Verdict.OK
    edit("DELETE FROM instance")
    assert finding(path, "tallies").details == ("'watch' 1.0.0: counted 2, found 0",)


def test_rows_that_lack_what_they_belong_to_are_told(path, provider, edit):
    strays.fill(provider)
    assert finding(path, "strays").verdict is Verdict.OK
    tables = dict(zip(strays.TABLES, strays.TABLES, strict=True))
    strays.stray(provider, lambda statement: edit(statement.format(**tables)))
    check = finding(path, "strays")
    assert (check.verdict, check.text) == (
        Verdict.WARNING,
        "6 groups of rows lack what they belong to",
    )
    assert check.details == strays.STRAYS


def test_a_hold_that_cannot_be_read_hides_nothing(path, provider, edit):
    row = begin(provider)
    one(provider, a_write(row, a_state(row, owner=None), hold=a_hold()))
    edit("UPDATE instance_detail SET hold = x'ff'")
    assert finding(path, "held").details == ("i: the stored reason cannot be read",)


def test_a_version_that_is_none_fails_its_check_alone(path, provider, edit):
    provider.store.join(a_node())
    one(provider, a_start("i", kind=KIND._replace(floating=True)))
    edit("UPDATE capability SET version = 'nonsense' WHERE version = '1.0.0'")
    report = report_on(path)
    verdicts = {check.name: check.verdict for check in report.checks}
    assert verdicts["held"] is Verdict.FAILURE
    assert verdicts["clock"] is Verdict.OK


# --- clock --------------------------------------------------------------------------------------


def test_a_clock_that_is_behind_what_was_written_is_a_warning(path, provider):
    assert finding(path, "clock").text == "no row has been written yet"
    one(provider, a_start("i"))
    assert finding(path, "clock").verdict is Verdict.OK
    assert finding(path, "clock", clock=Shifted(-0.5)).verdict is Verdict.OK, (
        "half a second is no matter"
    )
    check = finding(path, "clock", clock=Shifted(-3 * 3600))
    assert check.verdict is Verdict.WARNING
    assert "3.0 h in the future" in check.text


def test_a_node_that_renews_tells_the_time_as_well(path, provider):
    provider.store.join(a_node())
    assert finding(path, "clock", clock=Shifted(-60)).verdict is Verdict.WARNING


def test_a_busy_file_is_a_warning_and_not_a_failure():
    def busy():
        raise StoreBusy("it is busy")

    assert _guarded("lock", busy).verdict is Verdict.WARNING


# --- retention ----------------------------------------------------------------------------------


def test_what_has_ended_is_counted_and_what_of_it_goes(path, provider, monkeypatch):
    assert finding(path, "retention").text == "no instance has ended"
    one(provider, an_end(begin(provider, "kept")))
    provider.admin.set_expiry({"watch": SECOND})
    one(provider, an_end(begin(provider, "soon")))
    provider.admin.set_expiry({"watch": 3600 * SECOND})
    one(provider, an_end(begin(provider, "later")))
    check = finding(path, "retention", clock=Shifted(2))
    assert check.verdict is Verdict.OK
    assert check.text == "3 ended instances: 2 expire (1 now), 1 stay until they are deleted"
    monkeypatch.setattr(store_findings, "_MANY_ENDED", 1)
    check = finding(path, "retention")
    assert check.verdict is Verdict.NOTICE
    assert "client.purge" in check.remedy
