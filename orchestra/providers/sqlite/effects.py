"""Write a decision: each statement runs once for all its rows."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from orchestra.codec import pack
from orchestra.errors import StoreError
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.audit import record_all
from orchestra.providers.sqlite.schedules import write_schedule
from orchestra.providers.sqlite.snapshots import read_snapshots
from orchestra.providers.sqlite.streams import publish_all
from orchestra.providers.sqlite.writer import Transaction
from orchestra.store.changes import Start
from orchestra.store.decision import Decision, Recovery
from orchestra.store.decoding import (
    detail_values,
    message_values,
    pin_to_bytes,
    report_values,
    request_values,
)
from orchestra.store.effects import NOTHING_ELSE, Effects, EffectsExtras, Pruning
from orchestra.store.hot_row import HotRow
from orchestra.store.kinds import MessageKind
from orchestra.store.outcomes import Outcome, Recovered

__all__ = ["carry_out", "prune_requests", "prune_tombstones", "write_decision", "write_row"]

_SENT: Final = (MessageKind.EVENT, MessageKind.REQUEST)
"""What is counted as unread at the end. The ends of children are not."""


def write_decision(transaction: Transaction, decision: Decision) -> dict[int, Outcome]:
    """Write all rows of a decision. Return the outcomes of its recoveries, by their positions."""
    connection = transaction.connection
    recovered: dict[int, Outcome] = {}
    _add_starts(transaction, decision)
    for step in decision.steps:
        if isinstance(step, Effects):
            carry_out(transaction, step)
        else:
            recovered[step.position] = _recover(transaction, step, decision)
    _renew(transaction, decision)
    for step in decision.steps:
        if isinstance(step, Effects):
            _operate(connection, step)
    for key, activity in decision.reported.items():
        connection.execute(sql.REPORT_ACTIVITY, (*report_values(activity), *key))
    if decision.messages:
        connection.executemany(
            sql.ADD_MESSAGE,
            [message_values(*message, transaction.dialect) for message in decision.messages],
        )
    _run(connection, sql.ADD_REQUEST, [request_values(*one) for one in decision.requests])
    for row in decision.changed_rows:
        if row.instance_id not in decision.started:
            write_row(connection, row)
    for step in decision.steps:
        if isinstance(step, Effects):
            set_expiry(transaction, step)
            _run(connection, sql.LET_CHILDREN_GO, step.families)
    for change in decision.schedules:
        write_schedule(connection, change)
    record_all(transaction, decision.records)
    return recovered


def carry_out(transaction: Transaction, effects: Effects) -> None:
    """Carry out the effects of granted writes."""
    connection, now = transaction.connection, transaction.now
    _run(connection, sql.ADD_EXECUTION, effects.created)
    _run_each_once(
        connection,
        sql.OPEN_EXECUTION,
        effects.opened,
        "an execution was opened twice, or is not there",
    )
    _run_each_once(
        connection,
        sql.CLOSE_EXECUTION,
        effects.closed,
        "an execution was closed twice, or is not there",
    )
    _run(connection, sql.ADD_EVENT, effects.events)
    _run(connection, sql.FORGET_ACTIVITIES, [(instance_id,) for instance_id in effects.forgotten])
    _run(connection, sql.SETTLE_ACTIVITY, effects.completed)
    _run(connection, sql.PUT_ACTIVITY, effects.activities)
    if effects.extras is not NOTHING_ELSE:
        _carry_out_extras(connection, effects.extras, now)
    _run(connection, sql.BURY_MESSAGE, [(now, *message) for message in effects.consumed])
    _run_each_once(
        connection, sql.REMOVE_MESSAGE, effects.consumed, "a message was consumed that is not there"
    )
    if effects.dropped:
        reports = f"[{', '.join(map(str, transaction.dialect.reports))}]"
        dropped = [(instance_id, reports) for instance_id in effects.dropped]
        _run(connection, sql.DROP_REPORTS, dropped)
    _run(connection, sql.SET_HOLD, effects.holds)
    for pruning in effects.pruned:
        _prune(connection, pruning)
    for instance_id in effects.ended:
        _empty_inbox(connection, instance_id)
    if effects.extras is not NOTHING_ELSE:
        _run(connection, sql.ADD_MESSAGE, effects.extras.restored)
        if effects.extras.publications:
            publish_all(connection, effects.extras.publications)


def _carry_out_extras(connection: sqlite3.Connection, extras: EffectsExtras, now: int) -> None:
    """Carry out what few groups do, and what comes before messages are consumed."""
    _run_each_once(connection, sql.SET_PATCHES, extras.patched, "an execution is not there")
    _run(connection, sql.REPORT_ACTIVITY, extras.stopped)
    if extras.set_aside:
        _set_aside(connection, extras, now)
    _run(connection, sql.REMOVE_ASIDE, extras.unkept)
    _run(connection, sql.ANSWER_REQUEST, extras.answers)
    _run(connection, sql.REMOVE_REQUEST, extras.answered)
    _run(connection, sql.SET_CUSTOM_STATUS, extras.custom_statuses)
    _run(connection, sql.REMOVE_LABEL, extras.unlabelled)
    _run(connection, sql.SET_LABEL, extras.labels)


def _operate(connection: sqlite3.Connection, effects: Effects) -> None:
    """Carry out what operators have done. The cold rows of new instances are there already."""
    extras = effects.extras
    if extras is NOTHING_ELSE:
        return
    _run(connection, sql.SET_NUDGE, extras.nudges)
    _run(connection, sql.SET_OPERATOR_HOLD, extras.operator_holds)
    suspended = [(instance_id,) for _, instance_id in extras.operator_holds]
    _run(connection, sql.SUSPEND_ACTIVITIES, suspended)
    _run(connection, sql.RESUME_ACTIVITIES, [(instance_id,) for instance_id in extras.resumed])
    _run(connection, sql.SET_PIN, extras.pins)


def set_expiry(transaction: Transaction, effects: Effects) -> None:
    """Set the expiry of ended instances, if their names have one. Their hot rows are written
    already.
    """
    if effects.ended and transaction.connection.execute(sql.ANY_EXPIRY).fetchone() is not None:
        _run(
            transaction.connection,
            sql.SET_EXPIRES_AT,
            [(transaction.now, instance_id) for instance_id in effects.ended],
        )


def prune_tombstones(transaction: Transaction, added: int, window: int) -> None:
    """Remove expired tombstones: at most twice as many as were added, so that the writer pays for
    them.
    """
    if added:
        transaction.connection.execute(sql.PRUNE_TOMBSTONES, (transaction.now - window, 2 * added))


def prune_requests(transaction: Transaction, answered: int, window: int) -> None:
    """Remove requests whose answers are forgotten: at most twice as many as were answered."""
    if answered:
        transaction.connection.execute(sql.PRUNE_REQUESTS, (transaction.now - window, 2 * answered))


def _recover(transaction: Transaction, recovery: Recovery, decision: Decision) -> Recovered:
    """Read an instance as the earlier steps leave it. Its row is written first; the rest of the
    group builds on it.
    """
    row, standing = recovery.row, decision.rows[recovery.row.instance_id]
    row.read_revision = (
        standing.read_revision
    )  # an earlier recovery of the group may have written the row
    write_row(transaction.connection, row)
    standing.read_revision = row.revision
    return Recovered(read_snapshots(transaction, (row.instance_id,))[0])


def _add_starts(transaction: Transaction, decision: Decision) -> None:
    """Add new instances, with their hot rows as the group leaves them."""
    for instance_id, start in decision.started.items():
        row = decision.rows[instance_id]
        values = (*row.values, transaction.now, row.summary or b"")
        transaction.connection.execute(sql.ADD_INSTANCE, values)
        _add_cold_row(transaction.connection, start)


def _renew(transaction: Transaction, decision: Decision) -> None:
    """Clear what former lives of instances have left."""
    connection = transaction.connection
    for instance_id, start in decision.restarted.items():
        renewal = (start.incarnation, start.not_before, transaction.now, instance_id)
        connection.execute(sql.RENEW_INSTANCE, renewal)
        connection.execute(sql.REMOVE_DETAIL, (instance_id,))
        connection.execute(sql.REMOVE_LABELS, (instance_id,))
        connection.execute(sql.CLOSE_REQUESTS, (transaction.now, instance_id))
        _add_cold_row(connection, start)


def _add_cold_row(connection: sqlite3.Connection, start: Start) -> None:
    connection.execute(sql.ADD_DETAIL, detail_values(start))
    if start.pin is not None:
        connection.execute(sql.SET_PIN, (pin_to_bytes(start.pin), start.instance_id))
    labels = [(start.instance_id, key, value) for key, value in start.labels.items()]
    _run(connection, sql.ADD_LABEL, labels)


def write_row(connection: sqlite3.Connection, row: HotRow) -> None:
    """Write a changed row. A row with arrivals alone keeps its owner and status, so their indexes
    stay untouched.
    """
    fence = row.instance_id, row.read_revision
    if row.written:
        written = connection.execute(sql.WRITE_ROW, (*row.written_values, row.summary, *fence))
    else:
        values = (
            row.inbox_seq,
            row.wake_at,
            row.updated_at,
            row.most_unread,
            row.most_unread_bytes,
        )
        written = connection.execute(sql.RING_ROW, (*values, *fence))
    if written.rowcount != 1:
        raise StoreError(f"instance {row.instance_id!r} was changed past its lock")  # I6
    if row.marked:
        connection.execute(sql.MARK_CANCELLED, (*row.mark_values, row.instance_id))


def _prune(connection: sqlite3.Connection, pruning: Pruning) -> None:
    """Remove the oldest executions. A suffix with the current one stays (I3). A row goes only with
    its events.
    """
    instance_id, current, prune = pruning
    executions = prune.executions
    if prune.closed_until is not None:
        values = (instance_id, current - 1, prune.closed_until, instance_id)
        (kept,) = connection.execute(sql.FIND_KEPT, values).fetchone()
        executions = max(executions, kept - 1)
    histories = min(max(prune.histories, executions), current - 1)
    if histories > 0:
        connection.execute(sql.PRUNE_EVENTS, (instance_id, histories, instance_id))
    if executions > 0:
        connection.execute(
            sql.PRUNE_EXECUTIONS, (instance_id, min(executions, current - 1), instance_id)
        )


def _set_aside(connection: sqlite3.Connection, extras: EffectsExtras, now: int) -> None:
    _run(
        connection,
        sql.SET_ASIDE,
        [(reason, now, *message) for reason, *message in extras.set_aside],
    )
    kept_at = dict.fromkeys(instance_id for _, instance_id, _ in extras.set_aside)
    _run(connection, sql.PRUNE_ASIDE, [(instance_id,) for instance_id in kept_at])


def _empty_inbox(connection: sqlite3.Connection, instance_id: str) -> None:
    left = connection.execute(sql.COUNT_UNREAD_BY_NAME, (instance_id,)).fetchall()
    unread: Counter[str] = Counter()
    for kind, name, count in left:
        if kind in _SENT:
            unread[name] += count
    if unread:
        connection.execute(sql.SET_UNREAD_AT_END, (pack(unread), instance_id))
    if left:
        connection.execute(sql.EMPTY_INBOX, (instance_id,))
        connection.execute(sql.EMPTY_ASIDE, (instance_id,))


def _run(connection: sqlite3.Connection, statement: str, values: Sequence[tuple[Any, ...]]) -> None:
    if values:
        connection.executemany(statement, values)


def _run_each_once(
    connection: sqlite3.Connection, statement: str, values: Sequence[tuple[Any, ...]], failure: str
) -> None:
    if values and connection.executemany(statement, values).rowcount != len(values):
        raise StoreError(f"a write does not fit what is stored: {failure}")
