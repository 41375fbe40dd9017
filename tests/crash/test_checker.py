"""The checker finds what is wrong with a store, says which invariant it breaks, and is silent about
a sound one.
"""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta

import anyio
import pytest

from orchestra import Failure, OrchestrationRegistry, Runtime, SqliteProvider
from orchestra.codec import pack, unpack
from orchestra.events import EventKind
from orchestra.providers.memory import MemoryProvider
from orchestra.testing.checker import InvariantsViolated, check_store


@dataclass(frozen=True)
class Round:
    number: int = 0


async def add_one(value: int) -> int:
    return value + 1


async def rounds(ctx, state: Round) -> int:
    done = await ctx.schedule_activity(add_one, state.number)
    await ctx.schedule_timer(timedelta(milliseconds=1))
    await ctx.wait_for_event("go")
    await ctx.wait_for_event("go")
    if done == 3:
        return done
    ctx.continue_as_new(replace(state, number=done))


async def rounds_otherwise(ctx, state: Round) -> int:
    await ctx.schedule_timer(timedelta(milliseconds=1))
    return await ctx.schedule_activity(add_one, state.number)


async def waits(ctx, state: Round) -> None:
    await ctx.race(ctx.wait_for_event("never"), ctx.schedule_timer(timedelta(days=1)))


async def fails(ctx, state: Round) -> None:
    raise Failure("on purpose")


def registry(of_rounds=rounds):
    builder = OrchestrationRegistry.builder().register("rounds", of_rounds)
    return builder.register("waits", waits).register("fails", fails).build()


REGISTRY = registry()


async def fill(provider):
    """Make one of each kind: an instance that has lapped and ended, one that waits, one that
    failed, two ended from outside.
    """
    async with Runtime(provider, REGISTRY, [add_one]) as runtime:
        client = runtime.client
        loop = await client.start("rounds", Round(), instance_id="loop")
        for _ in range(6):
            await loop.raise_event("go")
        await client.wait_for_completion("loop", timedelta(seconds=20))
        await client.start("waits", Round(), instance_id="open")
        await client.start("fails", Round(), instance_id="failed")
        await client.wait_for_completion("failed", timedelta(seconds=20))
        for name in ("cancelled", "terminated"):
            handle = await client.start("waits", Round(), instance_id=name)
            await (handle.cancel("enough") if name == "cancelled" else handle.terminate("enough"))
            await client.wait_for_completion(name, timedelta(seconds=20))
        with anyio.fail_after(20):
            while not (await client.get_instance_info("open")).waiting_on:
                await anyio.sleep(0.005)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("checker") / "sound.db"
    anyio.run(fill, SqliteProvider(path))
    return path


@pytest.fixture
def store(sound, tmp_path):
    path = tmp_path / "store.db"
    for file in sound.parent.iterdir():
        if file.name in {"sound.db", "sound.db-wal"}:
            shutil.copy(file, path.with_name(file.name.replace("sound", "store")))
    return path


def change(store, statement, *values):
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute(statement, values).rowcount > 0
        connection.commit()


def envelope_of(store, kind, execution=1):
    with closing(sqlite3.connect(store)) as connection:
        statement = (
            "SELECT event_id, envelope FROM event WHERE instance_id = 'loop' AND execution = ? "
            "AND kind = ?"
        )
        event_id, envelope = connection.execute(statement, (execution, kind.value)).fetchone()
    return event_id, unpack(envelope)


def broken(store, registry=None):
    """Return the numbers of the invariants that are violated."""
    return {
        violation.invariant for violation in check_store(SqliteProvider(store), registry).violations
    }


def test_a_sound_store_violates_nothing(store):
    report = check_store(SqliteProvider(store), REGISTRY)
    report.raise_if_violated()
    assert (report.instances, report.executions, report.histories, report.replayed) == (5, 7, 7, 7)
    assert report.events > 30
    assert "0 violations" in str(report)


def test_a_provider_without_a_file_is_checked_alike():
    provider = MemoryProvider()
    provider.open()
    anyio.run(fill, provider)
    report = check_store(provider, REGISTRY)
    report.raise_if_violated()
    assert report.instances == 5


def test_a_violation_says_where_it_is_and_fails_the_test(store):
    change(store, "DELETE FROM event WHERE instance_id = 'loop' AND execution = 2 AND event_id = 3")
    report = check_store(SqliteProvider(store))
    (violation,) = report.violations
    assert (
        violation.invariant,
        violation.instance_id,
        violation.execution,
        violation.event_id,
    ) == ("I2", "loop", 2, 4)
    with pytest.raises(InvariantsViolated, match="I2: instance 'loop', execution 2, event 4"):
        report.raise_if_violated()


def test_pruned_histories_are_no_violation(store):
    change(store, "DELETE FROM event WHERE instance_id = 'loop' AND execution <= 2")
    report = check_store(SqliteProvider(store), REGISTRY)
    report.raise_if_violated()
    assert report.histories == 5


def test_pruned_executions_are_no_violation(store):
    change(store, "DELETE FROM event WHERE instance_id = 'loop' AND execution <= 1")
    change(store, "DELETE FROM execution WHERE instance_id = 'loop' AND execution <= 1")
    check_store(SqliteProvider(store), REGISTRY).raise_if_violated()


@pytest.mark.parametrize(
    ("invariant", "statement"),
    [
        ("I2", "DELETE FROM event WHERE instance_id = 'loop' AND execution = 3 AND event_id = 1"),
        ("I2", "UPDATE event SET at = 1 WHERE instance_id = 'open' AND event_id = 2"),
        ("I2", "UPDATE instance SET incarnation = 'another' WHERE instance_id = 'open'"),
        ("I3", "DELETE FROM execution WHERE instance_id = 'loop' AND execution = 2"),
        ("I3", "DELETE FROM event WHERE instance_id = 'loop' AND execution = 2"),
        ("I3", "DELETE FROM event WHERE instance_id = 'open'"),
        ("I3", "UPDATE instance SET execution = 2 WHERE instance_id = 'loop'"),
        ("I3", "UPDATE execution SET end_kind = 1 WHERE instance_id = 'loop' AND execution = 1"),
        ("I3", "UPDATE execution SET state = x'37' WHERE instance_id = 'loop' AND execution = 2"),
        (
            "I3",
            (
                "UPDATE execution SET state_version = '0.9.0' WHERE instance_id = 'loop' AND "
                "execution = 2"
            ),
        ),
        (
            "I3",
            (
                "UPDATE execution SET resolved_how = 'explicit' WHERE instance_id = 'loop' AND "
                "execution = 2"
            ),
        ),
        ("I4", "UPDATE instance SET status = 2 WHERE instance_id = 'loop'"),
        ("I4", "UPDATE instance SET status = 0 WHERE instance_id = 'failed'"),
        ("I4", "UPDATE instance SET opened = 0 WHERE instance_id = 'open'"),
        ("I4", "UPDATE instance SET history_events = 99 WHERE instance_id = 'open'"),
        ("I4", "UPDATE execution SET end_kind = 2 WHERE instance_id = 'loop' AND execution = 3"),
        ("I4", "UPDATE execution SET end_kind = 1, closed_at = 1 WHERE instance_id = 'open'"),
        ("I4", "UPDATE execution SET output = x'39' WHERE instance_id = 'loop' AND execution = 3"),
        ("I4", "UPDATE execution SET error = NULL WHERE instance_id = 'failed'"),
        ("I4", "UPDATE execution SET event_count = 1 WHERE instance_id = 'loop' AND execution = 3"),
        ("I7", "UPDATE instance SET updated_at = 1 WHERE instance_id = 'loop'"),
        ("I8", "UPDATE instance SET inbox_seq = 5, seen_seq = 5 WHERE instance_id = 'loop'"),
        ("I9", "UPDATE instance SET owner = 'a ghost' WHERE instance_id = 'open'"),
        ("I9", "UPDATE event SET execution = 4 WHERE instance_id = 'loop' AND execution = 1"),
        ("I11", "UPDATE instance SET wake_at = NULL WHERE instance_id = 'open'"),
        ("I11", "UPDATE instance SET wake_at = wake_at + 1 WHERE instance_id = 'open'"),
        ("I11", "UPDATE instance SET inbox_seq = inbox_seq + 1 WHERE instance_id = 'open'"),
        ("I11", "UPDATE instance SET summary = x'' WHERE instance_id = 'open'"),
        ("I13", "UPDATE instance SET summary = x'00' WHERE instance_id = 'open'"),
        (
            "I1",
            (
                "UPDATE instance SET cancel_at = 1, cancel_reason = '', cancel_by = '' WHERE "
                "instance_id = 'open'"
            ),
        ),
    ],
)
def test_what_is_wrong_with_a_store_is_found(store, invariant, statement):
    change(store, statement)
    assert invariant in broken(store)


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (
            "UPDATE event SET kind = 99 WHERE instance_id = 'open' AND event_id = 2",
            "unknown event 99",
        ),
        ("UPDATE event SET format = 9 WHERE instance_id = 'open'", "unknown event format 9"),
        (
            "UPDATE execution SET resolved_how = 'dice' WHERE instance_id = 'open'",
            "unknown resolution 'dice'",
        ),
    ],
)
def test_what_only_a_newer_library_can_judge_is_told_and_is_no_violation(store, statement, what):
    """Scenario 10."""
    assert check_store(SqliteProvider(store)).unknown == ()
    change(store, statement)
    report = check_store(SqliteProvider(store))
    assert report.violations == ()
    assert [str(one) for one in report.unknown] == [f"instance 'open': {what}"]
    assert "1 instances that only a newer library can judge" in str(report)


@pytest.mark.parametrize("status", ["open", "ended"])
def test_an_activity_that_nobody_waits_for_is_found(store, status):
    instance_id = "open" if status == "open" else "loop"
    statement = (
        "INSERT INTO activity (instance_id, execution, event_id, attempt, started_at, attempts) "
        "VALUES (?, 1, 2, 1, 1, ?)"
    )
    change(store, statement, instance_id, pack({"tries": [], "counted": 0}))
    assert broken(store) == {"I9"}


async def asks(ctx, state: Round) -> None:
    await ctx.schedule_activity("nobody has it")


def test_an_activity_that_is_to_end_and_that_nobody_will_end_is_found(store):
    async def hand_out():
        code = OrchestrationRegistry.builder().register("asks", asks).build()
        async with Runtime(SqliteProvider(store), code) as runtime:
            handle = await runtime.client.start("asks", Round(), instance_id="asking")
            with anyio.fail_after(20):
                while not (await handle.info()).pending_activities:
                    await anyio.sleep(0.005)

    anyio.run(hand_out)
    assert broken(store) == set()
    change(store, "UPDATE activity SET stopping = 1 WHERE instance_id = 'asking'")
    assert broken(store) == {"I11"}


def test_a_message_that_is_left_after_the_end_is_found(store):
    statement = """
        INSERT INTO message (instance_id, sequence, message_id, sender, name, payload, encoding, sent_at)
        VALUES ('loop', 7, 'm', '', 'go', x'37', 1, 1)"""
    change(store, statement)
    assert broken(store) == {"I9"}


def test_a_second_answer_to_one_command_is_found(store):
    completed, envelope = envelope_of(store, EventKind.ACTIVITY_COMPLETED)
    fired, _ = envelope_of(store, EventKind.TIMER_FIRED)
    statement = (
        "UPDATE event SET kind = ?, envelope = ?, payload = x'31', encoding = 1 WHERE "
        "instance_id = 'loop' AND event_id = ?"
    )
    change(
        store,
        f"{statement} AND execution = 1",
        EventKind.ACTIVITY_COMPLETED.value,
        pack(envelope),
        fired,
    )
    violations = check_store(SqliteProvider(store)).violations
    assert [violation.event_id for violation in violations if violation.invariant == "I5"] == [
        fired
    ]
    assert f"event {completed} has answered already" in str(violations[-1])


def test_an_answer_to_nothing_is_found(store):
    event_id, envelope = envelope_of(store, EventKind.ACTIVITY_COMPLETED)
    statement = (
        "UPDATE event SET envelope = ? WHERE instance_id = 'loop' AND execution = 1 AND event_id "
        "= ?"
    )
    change(store, statement, pack({**envelope, "source": 99}), event_id)
    assert "I5" in broken(store)


def test_a_timer_that_fired_early_is_found(store):
    event_id, envelope = envelope_of(store, EventKind.TIMER_CREATED)
    statement = (
        "UPDATE event SET envelope = ? WHERE instance_id = 'loop' AND execution = 1 AND event_id "
        "= ?"
    )
    change(store, statement, pack({"due": envelope["due"] + 60_000_000}), event_id)
    assert broken(store) == {"I7"}


@pytest.mark.parametrize("sequence", [1, 2])
def test_a_message_that_was_delivered_twice_or_out_of_order_is_found(store, sequence):
    event_id, envelope = envelope_of(store, EventKind.EVENT_RECEIVED, execution=2)
    statement = (
        "UPDATE event SET envelope = ? WHERE instance_id = 'loop' AND execution = 2 AND event_id "
        "= ?"
    )
    change(store, statement, pack({**envelope, "sequence": sequence}), event_id)
    if sequence == 1:  # so that it is not delivered twice, but late
        change(store, "DELETE FROM event WHERE instance_id = 'loop' AND execution = 1")
        first, envelope = envelope_of(store, EventKind.EVENT_RECEIVED, execution=3)
        statement = (
            "UPDATE event SET envelope = ? WHERE instance_id = 'loop' AND execution = 3 AND "
            "event_id = ?"
        )
        change(store, statement, pack({**envelope, "sequence": 2}), first)
    assert broken(store) == {"I8"}


def test_code_that_does_not_replay_is_found(store):
    report = check_store(SqliteProvider(store), registry(rounds_otherwise))
    assert {(violation.invariant, violation.instance_id) for violation in report.violations} == {
        ("I10", "loop")
    }
    assert len(report.violations) == 3


def test_a_history_that_code_cannot_have_written_is_found(store):
    other = "CAST(replace(CAST(envelope AS TEXT), 'add_one', 'add_two') AS BLOB)"
    change(
        store,
        (
            f"UPDATE event SET envelope = {other} WHERE instance_id = 'loop' AND execution = 2 "
            "AND kind = 2"
        ),
    )
    assert "I10" in broken(store, REGISTRY)


def test_values_that_code_gives_otherwise_now_are_listed_and_no_fault(store):
    """Scenario 45."""
    assert check_store(SqliteProvider(store), REGISTRY).drift == ()
    change(
        store,
        (
            "UPDATE event SET payload = x'5B355D' WHERE instance_id = 'loop' AND execution = 2 "
            "AND kind = 2"
        ),
    )
    report = check_store(SqliteProvider(store), REGISTRY)
    report.raise_if_violated()
    (found,) = report.drift
    assert (found.instance_id, found.execution, found.drift.event_id) == ("loop", 2, 2)
    assert "activity 'add_one': other arguments" in str(report)


def test_versions_that_the_registry_lacks_are_not_replayed(store):
    report = check_store(
        SqliteProvider(store), OrchestrationRegistry.builder().register("waits", waits).build()
    )
    report.raise_if_violated()
    assert report.replayed == 3


def test_a_store_at_work_may_be_owned(store):
    change(store, "UPDATE instance SET owner = 'a node' WHERE instance_id = 'open'")
    check_store(SqliteProvider(store), quiescent=False).raise_if_violated()


def test_an_instance_that_changes_while_it_is_read_is_left_out(store):
    provider = SqliteProvider(store)
    provider.open()
    get = provider.directory.get
    changes = iter(range(1000))

    def restless(instance_id):
        record = get(instance_id)
        return replace(record, updated_at=next(changes)) if instance_id == "open" else record

    provider.directory.get = restless
    try:
        report = check_store(provider, REGISTRY, quiescent=False)
        assert report.unsettled == ("open",)
        assert not report.violations
        assert {
            violation.invariant for violation in check_store(provider, REGISTRY).violations
        } == {"I9"}
    finally:
        provider.close()
