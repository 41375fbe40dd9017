"""Lock and read the facts of a group, in one round trip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Numbers, Texts
from orchestra.providers.postgres.calls import Read, Transaction
from orchestra.providers.postgres.rendering import arrays
from orchestra.providers.postgres.schedules import lock_schedules, read_fences
from orchestra.providers.postgres.wire import Result
from orchestra.store import tables
from orchestra.store.changes import Start
from orchestra.store.decoding import read_activity, read_message, read_request
from orchestra.store.facts import Address, Addressee, ChildLink, Facts, Needs
from orchestra.store.hot_row import HotRow
from orchestra.store.inbox_limits import InboxLimits, Waiting
from orchestra.store.instances import ParentLink
from orchestra.store.kinds import Dialect
from orchestra.store.routes import Kind

__all__ = ["instances_on_trust", "new_instances", "read_facts"]


def read_facts(
    transaction: Transaction, needs: Needs, numbers: Mapping[Kind, int], dialect: Dialect
) -> Facts:
    """Begin the transaction: make a group's new instances, lock its rows in the order of their ids,
    and read its facts.
    """
    reads: list[Read] = []
    if needs.candidates:
        reads.append(new_instances(transaction, needs.candidates.values(), numbers))
    if needs.schedules:
        reads += lock_schedules(needs.schedules)
    if needs.concerns_others:
        closing = (
            Texts(one.instance_id for one in needs.closing),
            Numbers(one.execution for one in needs.closing),
        )
        reads.append((sql.LOCK_FAMILIES, (Texts(needs.rows), Texts(needs.ending), *closing)))
        reads.append((sql.READ_LINKS, (Texts(needs.rows), *closing)))
        reads.append((sql.READ_TRACES, arrays(tables.EXECUTION_ID, needs.traced)))
    elif needs.rows:
        reads.append((sql.LOCK_ROWS, (Texts(needs.rows),)))
    # After the locks: a start that begins an ended instance again changes them (rule 41).
    if needs.candidates:
        reads.append((sql.READ_REQUESTS, (Texts(needs.candidates),)))
    if needs.appends:
        reads.append((sql.READ_ADDRESSEES, arrays(sql.ADDRESS, _addresses(needs))))
        reads.append((sql.READ_ROOMS, arrays(sql.ROOM, _rooms(needs))))
        reads.append((sql.READ_CONSUMED_EVENTS, arrays(sql.MESSAGE_ID, needs.consumed)))
    if needs.asked:
        asked = [(append.instance_id, append.message_id) for append in needs.asked]
        reads.append((sql.READ_ASKED, arrays(sql.REQUEST_ID, asked)))
    if needs.published:
        reads.append((sql.READ_LAST_NUMBERS, arrays(sql.ATTEMPT, _attempts(needs))))
    if needs.activities:
        reads.append((sql.READ_TASKS, arrays(sql.ACTIVITY_ID, needs.activities)))
    return _collect(needs, iter(transaction.begin(*reads)), dialect)


def new_instances(
    transaction: Transaction, starts: Iterable[Start], numbers: Mapping[Kind, int]
) -> Read:
    """Return the statement that adds hot rows of new instances, and returns the ids that were
    free.
    """
    return sql.ADD_INSTANCES, _new_rows(transaction, starts, numbers)


def instances_on_trust(
    transaction: Transaction, starts: Sequence[Start], numbers: Mapping[Kind, int]
) -> Read:
    """Return the statement that adds hot rows of new instances, and fails if an id is taken."""
    values = _new_rows(transaction, starts, numbers)
    return sql.ADD_INSTANCES_ON_TRUST, (*values, len(starts))


def _new_rows(
    transaction: Transaction, starts: Iterable[Start], numbers: Mapping[Kind, int]
) -> tuple[Any, ...]:
    rows = [
        (
            start.instance_id,
            start.incarnation,
            numbers[start.kind],
            start.owner,
            start.wake_at,
            start.execution.number,
            start.execution.opened_at is not None,
            start.not_before,
        )
        for start in starts
    ]
    _, moment = transaction.time.read
    return (*arrays(tables.NEW_INSTANCE, rows), *moment)


def _collect(needs: Needs, results: Iterator[Result], dialect: Dialect) -> Facts:
    facts = Facts()
    if needs.candidates:
        facts.made = {row[0] for row in next(results).rows}
    if needs.schedules:
        next(results)
        facts.schedules = read_fences(next(results))
    if needs.rows:
        facts.rows = {row[0]: HotRow(*row) for row in next(results).rows}
    if needs.concerns_others:
        for instance_id, *parent, on_close in next(results).rows:
            facts.links[instance_id] = ChildLink(
                ParentLink(*parent), dialect.library.events.on_parent_close.read(on_close)
            )
        facts.traces = dict(next(results).rows)
    if needs.candidates:
        for instance_id, request_id, name in next(results).rows:
            if name is not None:
                facts.requests[instance_id] = request_id
                facts.names[instance_id] = name
            else:
                facts.former_requests.setdefault(instance_id, set()).add(request_id)
    if needs.appends:
        _collect_addressees(needs, next(results), facts, dialect)
        _collect_rooms(needs, next(results), facts)
        facts.consumed = {(row[0], row[1]): (row[2], row[3]) for row in next(results).rows}
    if needs.asked:
        for instance_id, *columns in next(results).rows:
            request = read_request(tuple(columns))
            facts.asked[Address(instance_id, request.request_id)] = request
    if needs.published:
        for place, number in next(results).rows:
            facts.published[needs.published[int(place) - 1]] = number
    if needs.activities:
        facts.activities = {
            needs.activities[place - 1]: read_activity(tuple(row))
            for place, *row in next(results).rows
        }
    return facts


def _attempts(needs: Needs) -> list[tuple[Any, ...]]:
    return [(*attempt.activity, attempt.attempt) for attempt in needs.published]


def _addresses(needs: Needs) -> list[tuple[str, str]]:
    return [(append.instance_id, append.message_id) for append in needs.appends]


def _collect_addressees(needs: Needs, result: Result, facts: Facts, dialect: Dialect) -> None:
    for place, is_unread, *message, removed_as, removed_at in result.rows:
        unread = read_message(tuple(message), dialect) if is_unread else None
        append = needs.appends[int(place) - 1]
        address = Address(append.instance_id, append.message_id)
        facts.addressees[address] = Addressee(unread, removed_as, removed_at or 0)


def _rooms(needs: Needs) -> list[tuple[Any, ...]]:
    """Return the queries of inboxes; a whole inbox is counted once for each of its limits."""
    coming = needs.coming
    asked: set[tuple[str, InboxLimits]] = set()
    rows: list[tuple[Any, ...]] = []
    for inbox_name, limits in needs.rooms:
        instance_id, name = inbox_name
        is_first = (instance_id, limits) not in asked
        asked.add((instance_id, limits))
        bounds = (limits.messages, limits.bytes, *limits.of_name)
        rows.append((instance_id, name, is_first, *coming[instance_id], *bounds))
    return rows


def _collect_rooms(needs: Needs, result: Result, facts: Facts) -> None:
    for place, named, whole in result.rows:
        inbox_name, _ = needs.rooms[int(place) - 1]
        if named is not None:
            facts.named[inbox_name] = Waiting(*named)
        if whole is not None:
            facts.whole[inbox_name.instance_id] = Waiting(*whole)
