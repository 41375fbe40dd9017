"""What groups cost: statements on SQLite, round trips on PostgreSQL. A change that costs more must
say so here.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from uuid import uuid4

import pytest

from orchestra.codec import Payload
from orchestra.events import OnParentClose
from orchestra.providers.postgres import PostgresProvider
from orchestra.providers.postgres.wire import Script
from orchestra.providers.sqlite import SqliteProvider
from orchestra.store.changes import Cancel, ChildStart, Claim, Recover, Release
from orchestra.store.executions import Closing, ExecutionDelta, Opening
from orchestra.store.hot_row import started_snapshot
from orchestra.store.instances import ParentLink
from orchestra.store.kinds import ExecutionEnd
from orchestra.store.tasks import ActivityRow
from tests.support.contract.shorthand import (
    KIND,
    POLICY,
    a_hold,
    a_park,
    a_start,
    a_state,
    a_write,
    an_append,
    an_end,
    an_event,
    an_execution,
    begin,
    one,
    read,
)

CLAIM = Claim("n1", (KIND,), 10)


@pytest.fixture
def schema():
    return f"costs_{uuid4().hex}"


def a_turn(row, **fields):
    """Return the write of a turn that adds two events."""
    return a_write(
        row, executions=(ExecutionDelta(1, events=(an_event(1), an_event(2))),), **fields
    )


def a_boundary(row):
    closed = ExecutionDelta(
        1, events=(an_event(1),), closed=Closing(2, ExecutionEnd.CONTINUED_AS_NEW, None, None)
    )
    opened = ExecutionDelta(
        2,
        create=an_execution(2),
        opened=Opening(3, "1.0.0", "f1", 1, POLICY),
        events=(an_event(1), an_event(2)),
    )
    return a_write(row, a_state(row, execution=2), executions=(closed, opened))


def a_child(row, child_id="child"):
    link = ParentLink(row.instance_id, row.incarnation, row.execution, 1)
    start = replace(
        a_start(child_id),
        parent=link,
        root_id=row.instance_id,
        on_parent_close=OnParentClose.CANCEL,
    )
    return ChildStart(child_id, link, start, b"taken")


def appended(provider):
    row = begin(provider)
    one(provider, an_append("i"))
    return read(provider).row or row


def with_child(provider):
    row = begin(provider)
    one(provider, a_write(row, starts=(a_child(row),)))
    (claimed,) = one(provider, CLAIM).snapshots
    return claimed.row


def held(provider):
    row = begin(provider)
    one(provider, a_write(row, a_state(row, owner=None), hold=a_hold()))
    return read(provider).row


def begun_here(instance_id):
    start = replace(a_start(instance_id, "another", "another"), owner="n1")
    opened = Opening(5, "1.0.0", "f1", 1, start.execution.resolution)
    delta = ExecutionDelta(1, opened=opened, events=(an_event(1),), event_count=1, byte_count=9)
    return [start, a_write(started_snapshot(start).row, executions=(delta,))]


# What is prepared, the group, its statements on SQLite between BEGIN and COMMIT, and its round
# trips on PostgreSQL.
GROUPS = {
    "a turn": (begin, lambda row: [a_turn(row)], 3, 1),
    "a turn that consumes a message": (appended, lambda row: [a_turn(row, consumed=(1,))], 6, 2),
    "a park": (begin, lambda row: [a_park(row, 5)], 1, 1),
    "a lap": (begin, lambda row: [a_boundary(row)], 7, 1),
    "a retry": (
        begin,
        lambda row: [a_turn(row, activities=(ActivityRow(1, 1, 1, 5, 4, b"[]"),))],
        4,
        1,
    ),
    "a hold": (begin, lambda row: [a_write(row, a_state(row, owner=None), hold=a_hold())], 2, 1),
    "a refused write": (begin, lambda row: [a_write(replace(row, revision=9))], 2, 3),
    "an end": (begin, lambda row: [an_end(row, has_parent=False)], 5, 1),
    "an end that a parent may be told of": (begin, lambda row: [an_end(row)], 7, 2),
    "the end of a child": (with_child, lambda row: [an_end(row)], 11, 2),
    "the start of a child": (begin, lambda row: [a_write(row, starts=(a_child(row),))], 9, 2),
    "a start": (lambda _: None, lambda _: [a_start("new")], 4, 2),
    "a start again": (begin, lambda _: [a_start("i")], 1, 2),
    "a start that is claimed": (lambda _: None, lambda _: [a_start("new"), CLAIM], 8, 3),
    "a start with its first turn": (lambda _: None, lambda _: begun_here("new"), 5, 1),
    "a start again with a first turn": (begin, lambda _: begun_here("i"), 2, 3),
    "a message": (begin, lambda _: [an_append("i")], 4, 2),
    "a message again": (appended, lambda _: [an_append("i")], 2, 2),
    "a cancel": (begin, lambda _: [Cancel("i", "enough")], 3, 2),
    "a release": (held, lambda row: [Release("i", row.incarnation, row.revision)], 2, 2),
    "a recovery": (begin, lambda _: [Recover("i", "n1")], 5, 2),
    "a claim of nothing": (begin, lambda _: [CLAIM], 1, 3),
}


@pytest.fixture
def count_statements():
    def count(provider, changes):
        with provider._writer.reading() as reading:
            connection = reading.connection
        executed: list[str] = []
        connection.set_trace_callback(executed.append)
        provider.store.commit(changes)
        connection.set_trace_callback(None)
        assert (executed[0], executed[-1]) == ("BEGIN IMMEDIATE", "COMMIT")
        # Where a trigger runs, SQLite shows the statement once more.
        return len([statement for statement, _ in groupby(executed)]) - 2

    return count


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_on_sqlite_takes_so_many_statements(group, tmp_path, count_statements):
    prepare, make, statements, _ = GROUPS[group]
    provider = SqliteProvider(tmp_path / "store.db")
    provider.open()
    try:
        changes = make(prepare(provider))
        begin(provider, "another")  # kinds and statements are known
        assert count_statements(provider, changes) == statements
    finally:
        provider.close()


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_on_postgresql_takes_so_many_round_trips(group, dsn, schema, monkeypatch):
    prepare, make, _, trips = GROUPS[group]
    provider = PostgresProvider(dsn, schema)
    provider.open()
    try:
        changes = make(prepare(provider))
        begin(provider, "another")
        counted = []
        exchange = Script._exchange

        def counting(self, *arguments):
            counted.append(1)
            return exchange(self, *arguments)

        monkeypatch.setattr(Script, "_exchange", counting)
        provider.store.commit(changes)
        assert len(counted) == trips
    finally:
        provider.close()


def test_a_message_costs_the_same_however_many_share_its_group(tmp_path, count_statements):
    provider = SqliteProvider(tmp_path / "store.db")
    provider.open()
    begin(provider)
    payload = Payload(b"1")
    few = [replace(an_append("i", f"few{number}"), payload=payload) for number in range(10)]
    many = [replace(an_append("i", f"many{number}"), payload=payload) for number in range(100)]
    cost_of_few, cost_of_many = count_statements(provider, few), count_statements(provider, many)
    provider.close()
    assert cost_of_many - cost_of_few == 2 * 90
