"""The checker finds what is wrong between parents and children."""

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta

import anyio
import pytest

from orchestra import OrchestrationRegistry, Runtime, SqliteProvider
from orchestra.codec import unpack
from orchestra.events import EventKind
from orchestra.testing.checker import check_store

PATIENCE = 20


async def kid(ctx, number: int) -> int:
    return number + await ctx.wait_for_event("go")


async def parent(ctx, numbers: list[int]) -> int:
    """Waits for the first, gives the second up, and waits for the third."""
    first, second, third = (
        ctx.start_child("kid", number, instance_id=f"kid-{number}") for number in numbers
    )
    value = await first
    second.cancel()
    return value + await third


def registry(*functions):
    builder = OrchestrationRegistry.builder()
    for function in functions:
        builder.register(function.__name__, function)
    return builder.build()


BOTH = registry(kid, parent)


async def fill(path):
    """Leave a parent whose first child it knows, whose second it gave up, and whose third has ended
    while it was away.
    """

    async def until(client, instance_id, condition):
        with anyio.fail_after(PATIENCE):
            while not condition(await client.get_instance_info(instance_id)):
                await anyio.sleep(0.005)

    async with Runtime(SqliteProvider(path), BOTH) as node:
        await node.client.start("parent", [1, 2, 3], instance_id="p")
        await until(node.client, "p", lambda info: info.waiting_counts == {"child": 3})
        await node.client.raise_event("kid-1", "go", 10)
        await until(node.client, "p", lambda info: info.waiting_counts == {"child": 1})
        await node.client.wait_for_completion("kid-2", timedelta(seconds=PATIENCE))
    async with Runtime(SqliteProvider(path), registry(kid)) as node:
        await node.client.raise_event("kid-3", "go", 10)
        await node.client.wait_for_completion("kid-3", timedelta(seconds=PATIENCE))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("family") / "sound.db"
    anyio.run(fill, path)
    return path


@pytest.fixture
def store(sound, tmp_path):
    for file in sound.parent.iterdir():
        if file.name in {"sound.db", "sound.db-wal"}:
            shutil.copy(file, tmp_path / file.name)
    return tmp_path / "sound.db"


def change(store, *statements):
    with closing(sqlite3.connect(store)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0, statement
        connection.commit()


def problems(store):
    return [
        (violation.invariant, violation.instance_id, violation.problem)
        for violation in check_store(SqliteProvider(store)).violations
    ]


def test_a_sound_family_violates_nothing(store):
    check_store(SqliteProvider(store), BOTH).raise_if_violated()
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("SELECT instance_id, kind, source FROM message").fetchall() == [
            ("p", 1, 4)
        ]


REPORT = "DELETE FROM message WHERE kind <> 0"
COPY = """
    INSERT INTO message (instance_id, sequence, message_id, sender, kind, name, payload, encoding, sent_at, source)
    SELECT instance_id, {sequence}, 'another', sender, kind, name, payload, encoding, sent_at, {source} FROM message
    WHERE kind <> 0"""
DELETED = ("DELETE FROM instance WHERE instance_id = 'kid-3'", REPORT)

BROKEN = {
    "an end that was lost": (
        [REPORT],
        [("I5", "kid-3", "does not know"), ("I11", "p", "which will not end")],
    ),
    "a child that was lost": (DELETED, [("I11", "p", "which will not end")]),
    "an end that is there twice": (
        [
            COPY.format(sequence=900, source=4),
            (
                "UPDATE instance SET inbox_seq = 900, seen_seq = 900, wake_at = 0 WHERE "
                "instance_id = 'p'"
            ),
        ],
        [("I5", "p", "is there 2 times")],
    ),
    "an end that nobody waits for": (
        [COPY.format(sequence=900, source=77)],
        [("I9", "p", "no execution waits for it")],
    ),
    "an end that is known and there": (
        [COPY.format(sequence=900, source=2)],
        [("I9", "p", "no execution waits for it")],
    ),
    "another result than the child's": (
        ["UPDATE event SET payload = CAST('12' AS BLOB) WHERE instance_id = 'p' AND kind = 12"],
        [("I5", "kid-1", "knows another result")],
    ),
    "a child that was not asked for": (
        ["UPDATE instance_detail SET parent_event = 9 WHERE instance_id = 'kid-1'"],
        [("I5", "kid-1", "has not asked for it with event 9")],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_family_is_found_out(store, case):
    statements, expected = BROKEN[case]
    change(store, *statements)
    found = problems(store)
    for invariant, instance_id, words in expected:
        assert any((invariant, instance_id) == one[:2] and words in one[2] for one in found), found


def test_an_end_of_a_child_that_answers_no_child_is_found_out(store):
    with closing(sqlite3.connect(store)) as connection:
        row = "instance_id = 'kid-1' AND kind = ?"
        event_id, envelope = connection.execute(
            f"SELECT event_id, envelope FROM event WHERE {row}", (EventKind.EVENT_RECEIVED.value,)
        ).fetchone()
        source = unpack(envelope)["source"]
        envelope = f"CAST('{{\"source\":{source}}}' AS BLOB)"
        connection.execute(
            (
                f"UPDATE event SET kind = 12, envelope = {envelope} WHERE event_id = {event_id} "
                f"AND {row}"
            ),
            (EventKind.EVENT_RECEIVED.value,),
        )
        connection.commit()
    assert any(
        invariant == "I5" and "answers event" in problem
        for invariant, _, problem in problems(store)
    )
