"""Read the facts of a group, row by row: the transaction excludes all other writers."""

from __future__ import annotations

from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.schedules import read_fences
from orchestra.providers.sqlite.writer import Transaction
from orchestra.store.changes import Append
from orchestra.store.decoding import read_activity, read_message, read_request
from orchestra.store.facts import Address, Addressee, ChildLink, Facts, Needs
from orchestra.store.hot_row import HotRow
from orchestra.store.inbox_limits import Waiting
from orchestra.store.instances import ParentLink

__all__ = ["read_facts", "read_row"]


def read_facts(transaction: Transaction, needs: Needs) -> Facts:
    """Return all facts of a group. Its new instances are made when they are granted."""
    facts = Facts()
    for instance_id in needs.candidates:
        execute = transaction.connection.execute
        begun = execute(sql.READ_REQUEST, (instance_id,)).fetchone()
        if begun is None:
            facts.made.add(instance_id)
        else:
            facts.requests[instance_id] = begun[0]
            if _asks_otherwise(needs, instance_id, facts.requests[instance_id]):
                former = execute(sql.READ_FORMER_REQUESTS, (instance_id,))
                facts.former_requests[instance_id] = {row[0] for row in former}
    for instance_id in needs.rows:
        _add_row(transaction, instance_id, facts)
    for start in needs.standing:
        row = facts.rows.get(start.instance_id)
        if row is not None:
            kind = transaction.kinds.kind(transaction.connection, row.kind)
            facts.names[start.instance_id] = kind.name
    if needs.concerns_others:
        _read_family(transaction, needs, facts)
    for append in needs.appends:
        addressee = _read_addressee(transaction, append)
        if addressee is not None:
            facts.addressees[Address(append.instance_id, append.message_id)] = addressee
    for append in needs.asked:
        address = Address(append.instance_id, append.message_id)
        asked = transaction.connection.execute(sql.READ_REQUEST_ROW, address).fetchone()
        if asked is not None:
            facts.asked[address] = read_request(asked)
    if needs.appends:
        _count_inboxes(transaction, needs, facts)
    execute = transaction.connection.execute
    for consumed in needs.consumed:
        event = execute(sql.READ_CONSUMED_EVENT, consumed).fetchone()
        if event is not None:
            facts.consumed[consumed] = event
    if needs.schedules:
        named = [write.schedule_id for write in needs.schedules]
        facts.schedules = read_fences(transaction.connection, named)
    for attempt in needs.published:
        values = (*attempt.activity, attempt.attempt)
        facts.published[attempt] = execute(sql.READ_LAST_NUMBER, values).fetchone()[0] or 0
    for key in needs.activities:
        activity = execute(sql.READ_ACTIVITY, key).fetchone()
        if activity is not None:
            facts.activities[key] = read_activity(activity)
    return facts


def _asks_otherwise(needs: Needs, instance_id: str, request_id: str) -> bool:
    """Return whether a start of an existing instance is no repetition of the request that began its
    present life.
    """
    return any(
        start.request_id != request_id for start in needs.starts if start.instance_id == instance_id
    )


def read_row(transaction: Transaction, instance_id: str) -> HotRow | None:
    """Return the hot row of an instance."""
    row = transaction.connection.execute(sql.READ_ROW, (instance_id,)).fetchone()
    return None if row is None else HotRow(*row)


def _add_row(transaction: Transaction, instance_id: str, facts: Facts) -> None:
    row = read_row(transaction, instance_id)
    if row is not None:
        facts.rows[instance_id] = row


def _read_family(transaction: Transaction, needs: Needs, facts: Facts) -> None:
    execute = transaction.connection.execute
    relatives = set(needs.rows)
    for closing in needs.closing:
        relatives.update(row[0] for row in execute(sql.LIST_BOUND, closing))
    for instance_id in relatives:
        link = execute(sql.READ_LINK, (instance_id,)).fetchone()
        if link is not None:
            *parent, on_close = link
            closes = transaction.dialect.library.events.on_parent_close
            facts.links[instance_id] = ChildLink(ParentLink(*parent), closes.read(on_close))
    parents = (
        facts.links[instance_id].parent
        for instance_id in needs.ending
        if instance_id in facts.links
    )
    relatives.update(parent.instance_id for parent in parents)
    for instance_id in relatives.difference(needs.rows):
        _add_row(transaction, instance_id, facts)
    for traced in needs.traced:
        if traced.instance_id not in facts.links:
            continue
        trace = execute(sql.READ_TRACE, traced).fetchone()
        if trace is not None:
            facts.traces[traced.instance_id] = trace[0]


def _read_addressee(transaction: Transaction, append: Append) -> Addressee | None:
    execute = transaction.connection.execute
    row = execute(sql.FIND_ADDRESSEE, (append.instance_id, append.message_id)).fetchone()
    if row is None:
        return None
    is_unread, *message, removed_as, removed_at = row
    return Addressee(
        read_message(tuple(message), transaction.dialect) if is_unread else None,
        removed_as,
        removed_at or 0,
    )


def _count_inboxes(transaction: Transaction, needs: Needs, facts: Facts) -> None:
    execute = transaction.connection.execute
    coming = needs.coming
    for inbox_name, limits in needs.rooms:
        instance_id, name = inbox_name
        row = facts.rows.get(instance_id)
        if row is None:
            continue
        most = row.most
        if most is not None and limits.have_room(most, coming[instance_id]):
            continue
        if instance_id not in facts.whole and (
            most is None or limits.ask_for_a_count(most, coming[instance_id])
        ):
            facts.whole[instance_id] = Waiting(
                *execute(sql.COUNT_UNREAD, (instance_id,)).fetchone()
            )
        facts.named[inbox_name] = Waiting(*execute(sql.COUNT_NAME, (instance_id, name)).fetchone())
