"""Write a decision into the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from orchestra.providers.memory.database import Database, require
from orchestra.providers.memory.inbox import read_snapshot
from orchestra.providers.memory.schedules import write_schedule
from orchestra.providers.memory.streams import publish_all
from orchestra.providers.memory.tables import Row
from orchestra.store import tables
from orchestra.store.changes import Start
from orchestra.store.decision import Decision
from orchestra.store.decoding import (
    detail_values,
    message_values,
    pin_to_bytes,
    report_values,
    request_values,
)
from orchestra.store.effects import Effects, Pruning
from orchestra.store.executions import PRUNED_AT_ONCE
from orchestra.store.hot_row import HotRow
from orchestra.store.kinds import Dialect, MessageKind
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import Outcome, Recovered
from orchestra.store.routes import Kind

__all__ = ["write_decision"]

_KIND: Final = tables.MESSAGE.names.index("kind")


def write_decision(
    database: Database, decision: Decision, now: int, kinds: Mapping[Kind, int], dialect: Dialect
) -> dict[int, Outcome]:
    """Write all rows of a decision. Return the outcomes of its recoveries, by their positions."""
    recovered: dict[int, Outcome] = {}
    for start in decision.started.values():  # their first turns may come with them
        _add(database, start, now, kinds)
    for step in decision.steps:
        if isinstance(step, Effects):
            _carry_out(database, step, now)
        else:
            recovered[step.position] = Recovered(read_snapshot(database, step.row, dialect))
    for start in decision.restarted.values():
        _renew(database, start, now)
    for step in decision.steps:
        if isinstance(step, Effects):
            _operate(database, step)
    for key, activity in decision.reported.items():
        database.activities.change(key, tables.REPORT, report_values(activity))
    for instance_id, message in decision.messages:
        _deliver(database, instance_id, message, dialect)
    for instance_id, request in decision.requests:
        database.requests.put((*request_values(instance_id, request), None, None, None, None))
    for row in decision.changed_rows:
        database.store_row(row)
    for change in decision.schedules:
        write_schedule(database, change)
    database.leave_records(now, decision.records)
    for step in decision.steps:
        if isinstance(step, Effects):
            _set_expiry(database, step, now)
            for family in step.families:
                database.let_children_go(*family)
    return recovered


def _add(database: Database, start: Start, now: int, kinds: Mapping[Kind, int]) -> None:
    database.add_instance(HotRow.started(start, kinds[start.kind], now), detail_values(start), now)
    for key, value in start.labels.items():
        database.labels.put((start.instance_id, key, value))
    if start.pin is not None:
        database.change_detail(start.instance_id, pin=pin_to_bytes(start.pin))


def _renew(database: Database, start: Start, now: int) -> None:
    database.renew_instance(start, detail_values(start), now)
    database.close_requests(start.instance_id, now)
    database.labels.remove_all(start.instance_id)
    for key, value in start.labels.items():
        database.labels.put((start.instance_id, key, value))
    if start.pin is not None:
        database.change_detail(start.instance_id, pin=pin_to_bytes(start.pin))


def _operate(database: Database, effects: Effects) -> None:
    """Carry out what operators have done."""
    for hold, instance_id in effects.extras.operator_holds:
        database.change_detail(instance_id, operator_hold=hold)
        for key, activity in database.activity_rows(instance_id):
            if activity.route is not None and not activity.has_ended and not activity.stopping:
                revoked = replace(activity, owner=None, revision=activity.revision + 1, paused=True)
                database.activities.change(key, tables.REPORT, report_values(revoked))
    for instance_id in effects.extras.resumed:
        for key, activity in database.activity_rows(instance_id):
            if activity.paused:
                resumed = replace(activity, paused=False)
                database.activities.change(key, tables.REPORT, report_values(resumed))
    for pin, instance_id in effects.extras.pins:
        database.change_detail(instance_id, pin=pin)


def _deliver(database: Database, instance_id: str, message: MessageRow, dialect: Dialect) -> None:
    values = message_values(instance_id, message, dialect)
    twin = database.find_message(instance_id, message.message_id, values[_KIND], dialect)
    require(twin is None, "a message, or the end of a child, was stored twice")
    database.messages.put(values)


def _carry_out(database: Database, effects: Effects, now: int) -> None:
    for row in effects.created:
        require(database.executions.get(*row[:2]) is None, "an execution was made twice")
        database.executions.put(row)
    for *opening, instance_id, number in effects.opened:
        _require_open(database, instance_id, number, is_opened=False)
        database.executions.change((instance_id, number), tables.OPENING, tuple(opening))
    for *closing, instance_id, number in effects.closed:
        _require_open(database, instance_id, number)
        database.executions.change((instance_id, number), tables.CLOSING, tuple(closing))
    for patches, instance_id, number in effects.extras.patched:
        database.executions.change((instance_id, number), tables.PATCHED, (patches,))
    for row in effects.events:
        require(database.events.get(*row[:3]) is None, "an event was written twice")
        database.events.put(row)
    for instance_id in effects.forgotten:
        database.activities.remove_all(instance_id)
    for key in effects.completed:
        database.activities.remove(*key)
    for row in effects.activities:
        standing = database.activities.get(*row[:3])
        fence = 0 if standing is None else database.activities.value(standing, "revision") + 1
        database.activities.put((*row, fence))
    for *activity, instance_id, execution, event_id in effects.extras.stopped:
        database.activities.change(
            (instance_id, execution, event_id), tables.REPORT, tuple(activity)
        )
    for reason, instance_id, sequence in effects.extras.set_aside:
        database.set_aside(instance_id, sequence, reason, now)
    for key in effects.extras.unkept:
        database.aside.remove(*key)
    for key in effects.consumed:
        _consume(database, database.messages.remove(*key), now)
    for instance_id in effects.dropped:
        for row in database.messages.of(instance_id):
            if row[_KIND] in effects.dialect.reports:  # messages of a newer library stay for it
                database.messages.remove(*row[:2])
    for answer in effects.extras.answers:
        database.answer(answer)
    for key in effects.extras.answered:
        database.remove_request(*key)
    _change_details(database, effects)
    for pruning in effects.pruned:
        _prune(database, pruning)
    for instance_id in effects.ended:
        database.end_inbox(instance_id)
    for message in effects.extras.restored:
        database.messages.put(message)
    publish_all(database, effects.extras.publications)


def _change_details(database: Database, effects: Effects) -> None:
    for label in effects.extras.unlabelled:
        database.labels.remove(*label)
    for label in effects.extras.labels:
        database.labels.put(label)
    for custom_status, encoding, instance_id in effects.extras.custom_statuses:
        database.change_detail(
            instance_id, custom_status=custom_status, custom_status_encoding=encoding
        )
    for nudge, instance_id in effects.extras.nudges:
        database.change_detail(instance_id, nudge=nudge)
    for hold, instance_id in effects.holds:
        database.change_detail(instance_id, hold=hold)


def _require_open(
    database: Database, instance_id: str, number: int, *, is_opened: bool | None = None
) -> None:
    row = database.executions.get(instance_id, number)
    is_open = row is not None and database.executions.value(row, "closed_at") is None
    require(is_open, "an execution was closed twice, or is not there")
    if is_opened is not None and row is not None:
        stands = database.executions.value(row, "opened_at") is not None
        require(stands is is_opened, "an execution was opened twice")


def _consume(database: Database, row: Row | None, now: int) -> None:
    require(row is not None, "a message was consumed that is not there")
    if row is not None and database.messages.value(row, "kind") == MessageKind.EVENT:
        instance_id, sequence, message_id = row[:3]
        database.tombstones.put((instance_id, message_id, sequence, now))


def _prune(database: Database, pruning: Pruning) -> None:
    """Remove the oldest executions. A suffix with the current one stays (I3). A row goes only with
    its events.
    """
    instance_id, current, prune = pruning
    aged = (
        0
        if prune.closed_until is None
        else _last_closed(database, instance_id, current, prune.closed_until)
    )
    rows = max(prune.executions, aged)
    for table, bound in (
        (database.events, max(prune.histories, rows)),
        (database.executions, rows),
    ):
        oldest = table.oldest(instance_id)
        if oldest is not None:
            last = min(bound, current - 1, oldest[1] + PRUNED_AT_ONCE - 1)
            table.remove_between((instance_id,), (instance_id, last + 1))


def _last_closed(database: Database, instance_id: str, current: int, until: int) -> int:
    """Return the last of the oldest executions that had all closed by then, without the newest
    closed one.
    """
    last = 0
    for row in database.executions.of(instance_id)[:PRUNED_AT_ONCE]:
        number, closed_at = row[1], database.executions.value(row, "closed_at")
        if number >= current - 1 or closed_at is None or closed_at > until:
            break
        last = number
    return last


def _set_expiry(database: Database, effects: Effects, now: int) -> None:
    for instance_id in effects.ended:
        row = database.hot_row(instance_id)
        after = (
            None
            if row is None or row.is_open
            else database.expiries.get(database.kind(row.kind).name)
        )
        if after is not None:
            database.set_expires_at(instance_id, now + after)
