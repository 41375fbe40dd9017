"""Write a decision: each table's rows in one statement, all in the script of one round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Numbers, Texts
from orchestra.providers.postgres.audit import record_all
from orchestra.providers.postgres.calls import Transaction
from orchestra.providers.postgres.facts import new_instances
from orchestra.providers.postgres.rendering import arrays
from orchestra.providers.postgres.schedules import add_schedules
from orchestra.providers.postgres.snapshots import SnapshotReads
from orchestra.providers.postgres.streams import publish_all
from orchestra.providers.postgres.wire import Script
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
from orchestra.store.effects import NOTHING_ELSE, Effects, EffectsExtras, Pruning
from orchestra.store.facts import Needs
from orchestra.store.hot_row import HotRow
from orchestra.store.kinds import Dialect
from orchestra.store.routes import Kind
from orchestra.store.tables import Columns

__all__ = [
    "add_cold_rows",
    "add_decision",
    "add_effects",
    "prune_requests",
    "prune_tombstones",
    "set_labels",
    "write_rows",
]


def add_decision(
    transaction: Transaction,
    script: Script,
    decision: Decision,
    needs: Needs,
    numbers: Mapping[Kind, int],
    dialect: Dialect,
) -> dict[int, SnapshotReads]:
    """Add the statements that write a decision. Return the reads of its recovered instances, by
    position.
    """
    now = transaction.now
    recovered: dict[int, SnapshotReads] = {}
    _add_starts(transaction, script, decision, needs, numbers)
    for step in decision.steps:
        if isinstance(step, Effects):
            add_effects(script, step, now)
        else:
            recovered[step.position] = SnapshotReads(script, [step.row], dialect)
    if decision.restarted:
        _renew(script, decision.restarted, now)
    for step in decision.steps:
        if isinstance(step, Effects):
            _add_operations(script, step)
    reported = [(*report_values(activity), *key) for key, activity in decision.reported.items()]
    _add(script, sql.REPORT_ACTIVITIES, sql.REPORTED, reported, counted=True)
    _add(
        script,
        sql.ADD_MESSAGES,
        tables.MESSAGE,
        [message_values(*message, dialect) for message in decision.messages],
    )
    asked = [request_values(*one) for one in decision.requests]
    _add(script, sql.ADD_REQUESTS, tables.REQUEST, asked)
    marks = [(*row.mark_values, row.instance_id) for row in decision.marked_rows]
    _add(script, sql.MARK_CANCELLED, sql.CANCELLED, marks, counted=True)
    write_rows(script, decision.changed_rows, now)
    add_schedules(script, decision.schedules)
    record_all(script, decision.records, now)
    families = [
        one for step in decision.steps if isinstance(step, Effects) for one in step.families
    ]
    _add(script, sql.LET_CHILDREN_GO, sql.FAMILY, families)
    return recovered


def set_labels(script: Script, labels: Sequence[tuple[str, str, str | None]]) -> None:
    """Add the statements that set labels, given as instance, key and value, and remove those
    without a value.
    """
    unset = [(instance_id, key) for instance_id, key, value in labels if value is None]
    _add(script, sql.UNSET_LABELS, sql.LABEL_ID, unset)
    _add(script, sql.SET_LABELS, tables.LABEL, [one for one in labels if one[2] is not None])


def write_rows(script: Script, changed: Sequence[HotRow], now: int) -> None:
    """Add the statement that writes changed hot rows."""
    rows = [
        (*row.written_values, row.summary, row.instance_id, row.read_revision) for row in changed
    ]
    if rows:
        script.add(sql.WRITE_ROWS, *arrays(sql.WRITTEN, rows), len(rows), now)


def add_effects(script: Script, effects: Effects, now: int) -> None:
    """Add the statements that carry out the effects of granted writes."""
    _add(script, sql.ADD_EXECUTIONS, tables.EXECUTION, effects.created)
    _add(script, sql.OPEN_EXECUTIONS, sql.OPENED, effects.opened, counted=True)
    _add(script, sql.CLOSE_EXECUTIONS, sql.CLOSED, effects.closed, counted=True)
    _add(script, sql.ADD_EVENTS, tables.EVENT, effects.events)
    if effects.forgotten:
        script.add(sql.FORGET_ACTIVITIES, Texts(effects.forgotten))
    _add(script, sql.SETTLE_ACTIVITIES, sql.ACTIVITY_ID, effects.completed)
    _add(script, sql.PUT_ACTIVITIES, tables.ACTIVITY, effects.activities)
    if effects.extras is not NOTHING_ELSE:
        _add_extras(script, effects.extras, now)
    if effects.consumed:
        script.add(
            sql.BURY_MESSAGES, *arrays(sql.MESSAGE_ID, effects.consumed), len(effects.consumed), now
        )
    if effects.dropped:
        script.add(
            sql.DROP_REPORTS, Texts(effects.dropped), Numbers(map(int, effects.dialect.reports))
        )
    _add(script, sql.SET_HOLDS, sql.HOLD, effects.holds)
    if effects.pruned:
        _prune(script, effects.pruned)
    if effects.ended:
        script.add(sql.EMPTY_INBOXES, Texts(effects.ended))
    if effects.extras is not NOTHING_ELSE:
        _add(script, sql.ADD_MESSAGES, tables.MESSAGE, effects.extras.restored)
        if effects.extras.publications:
            publish_all(script, effects.extras.publications)


def _add_extras(script: Script, extras: EffectsExtras, now: int) -> None:
    """Add the statements that few groups need, and that come before messages are consumed."""
    _add(script, sql.SET_PATCHES, sql.PATCHED, extras.patched, counted=True)
    _add(script, sql.REPORT_ACTIVITIES, sql.REPORTED, extras.stopped, counted=True)
    if extras.set_aside:
        script.add(sql.SET_ASIDE, *arrays(sql.ASIDE, extras.set_aside), now)
        kept_at = dict.fromkeys(instance_id for _, instance_id, _ in extras.set_aside)
        script.add(sql.PRUNE_ASIDE, Texts(kept_at))
    _add(script, sql.REMOVE_ASIDE, sql.MESSAGE_ID, extras.unkept)
    _add(script, sql.ANSWER_REQUESTS, sql.ANSWERED, extras.answers)
    _add(script, sql.REMOVE_REQUESTS, sql.MESSAGE_ID, extras.answered)
    _add(script, sql.SET_CUSTOM_STATUSES, sql.CUSTOM_STATUS, extras.custom_statuses)
    set_labels(script, [*extras.labels, *((*one, None) for one in extras.unlabelled)])
    _add(script, sql.SET_NUDGES, sql.NUDGE, extras.nudges)


def _prune(script: Script, prunings: Sequence[Pruning]) -> None:
    # A row goes only with its events, and the rows say which go by age. So events are deleted
    # first.
    pruned = [
        (
            one.instance_id,
            one.current,
            one.prune.histories,
            one.prune.executions,
            one.prune.closed_until,
        )
        for one in prunings
    ]
    _add(script, sql.PRUNE_EVENTS, sql.PRUNED, pruned)
    _add(script, sql.PRUNE_EXECUTIONS, sql.PRUNED, pruned)


def prune_tombstones(script: Script, now: int, added: int, window: int) -> None:
    """Remove expired tombstones: at most twice as many as were added, so that the writer pays for
    them.
    """
    if added:
        script.add(sql.PRUNE_TOMBSTONES, now - window, 2 * added)


def prune_requests(script: Script, effects: Sequence[Effects], window: int) -> None:
    """Remove requests whose answers are forgotten: at most twice as many as were answered."""
    times = [answer[0] for one in effects for answer in one.extras.answers]
    if times:
        script.add(sql.PRUNE_REQUESTS, max(times) - window, 2 * len(times))


def _add_starts(
    transaction: Transaction,
    script: Script,
    decision: Decision,
    needs: Needs,
    numbers: Mapping[Kind, int],
) -> None:
    """Complete new instances. Rows that were made for refused writes are deleted, or made again for
    later starts.
    """
    started = decision.started
    anew = [
        start
        for instance_id, start in started.items()
        if needs.candidates[instance_id] is not start
    ]
    unused = [*decision.unmade, *(start.instance_id for start in anew)]
    if unused:
        script.add(sql.UNMAKE_INSTANCES, Texts(unused), len(unused))
    if anew:
        statement, values = new_instances(transaction, anew, numbers)
        script.add(statement, *values)
    add_cold_rows(script, [*started.values()])


def _renew(script: Script, restarted: Mapping[str, Start], now: int) -> None:
    """Clear what former lives of instances have left."""
    script.add(
        sql.RENEW_INSTANCES,
        Texts(restarted),
        Texts(start.incarnation for start in restarted.values()),
        Numbers(start.not_before for start in restarted.values()),
        now,
        len(restarted),
    )
    script.add(sql.REMOVE_DETAILS, Texts(restarted))
    script.add(sql.REMOVE_LABELS, Texts(restarted))
    script.add(sql.CLOSE_REQUESTS, Texts(restarted), now)
    add_cold_rows(script, [*restarted.values()])


def add_cold_rows(script: Script, starts: Sequence[Start]) -> None:
    """Add the statements that add the cold rows of new lives."""
    if not starts:
        return
    labels = [
        (start.instance_id, key, value) for start in starts for key, value in start.labels.items()
    ]
    _add(script, sql.ADD_DETAILS, tables.DETAIL, [detail_values(start) for start in starts])
    _add(script, sql.ADD_LABELS, tables.LABEL, labels)
    pins = [
        (pin_to_bytes(start.pin), start.instance_id) for start in starts if start.pin is not None
    ]
    _add(script, sql.SET_PINS, sql.PIN, pins)


def _add_operations(script: Script, effects: Effects) -> None:
    """Add the statements for what operators have done. The cold rows of new instances are there
    already.
    """
    extras = effects.extras
    if extras is NOTHING_ELSE:
        return
    _add(script, sql.SUSPEND_INSTANCES, sql.OPERATOR_HOLD, extras.operator_holds)
    if extras.operator_holds:
        suspended = (instance_id for _, instance_id in extras.operator_holds)
        script.add(sql.SUSPEND_ACTIVITIES, Texts(suspended))
    if extras.resumed:
        script.add(sql.RESUME_ACTIVITIES, Texts(extras.resumed))
    _add(script, sql.SET_PINS, sql.PIN, extras.pins)


def _add(
    script: Script,
    statement: str,
    columns: Columns,
    rows: Sequence[tuple[Any, ...]],
    *,
    counted: bool = False,
) -> None:
    """Add a statement for some rows, if any; ``counted``: it must change exactly as many."""
    if rows:
        script.add(statement, *arrays(columns, rows), *((len(rows),) if counted else ()))
