"""Read the facts of a group."""

from __future__ import annotations

from orchestra.providers.memory.database import Database
from orchestra.providers.memory.schedules import find_fence
from orchestra.providers.memory.streams import last_number
from orchestra.store.changes import Append
from orchestra.store.decoding import read_activity
from orchestra.store.facts import Address, Addressee, ChildLink, Facts, InboxName, Needs
from orchestra.store.instances import ParentLink
from orchestra.store.kinds import Dialect, MessageKind

__all__ = ["read_facts"]


def read_facts(database: Database, needs: Needs, dialect: Dialect) -> Facts:
    """Return all facts of a group. Its new instances are made when they are granted."""
    facts = Facts()
    for instance_id in needs.candidates:
        detail = database.details.get(instance_id)
        if detail is None:
            facts.made.add(instance_id)
        else:
            facts.requests[instance_id] = database.details.value(detail, "request_id")
            hot = database.hot_row(instance_id)
            if hot is not None:
                facts.names[instance_id] = database.kind(hot.kind).name
            rows = database.executions.of(instance_id)
            requests = {database.executions.value(row, "request_id") for row in rows}
            facts.former_requests[instance_id] = requests - {None}
    children = [
        child
        for closing in needs.closing
        for child in _children(database, closing.instance_id, closing.execution)
    ]
    for instance_id in (*needs.rows, *children):
        _read_row(database, instance_id, facts)
        _read_link(database, instance_id, facts, dialect)
    for instance_id in needs.ending:
        if instance_id in facts.links:
            _read_row(database, facts.links[instance_id].parent.instance_id, facts)
    for traced in needs.traced:
        execution = database.executions.get(*traced)
        if execution is not None:
            facts.traces[traced.instance_id] = database.executions.value(execution, "traceparent")
    for append in needs.appends:
        address = Address(append.instance_id, append.message_id)
        facts.addressees[address] = _read_addressee(database, append, dialect)
        name = InboxName(append.instance_id, append.name)
        facts.whole[append.instance_id], facts.named[name] = database.waiting_events(*name)
    for append in needs.asked:
        address = Address(append.instance_id, append.message_id)
        asked = database.request(*address)
        if asked is not None:
            facts.asked[address] = asked
    for instance_id, sequence in needs.consumed:
        row = database.messages.get(instance_id, sequence)
        if row is not None and database.is_sent(row):
            name, payload = (
                database.messages.value(row, "name"),
                database.messages.value(row, "payload"),
            )
            facts.consumed[instance_id, sequence] = name, len(payload)
    for write in needs.schedules:
        fence = find_fence(database, write.schedule_id)
        if fence is not None:
            facts.schedules[write.schedule_id] = fence
    for attempt in needs.published:
        facts.published[attempt] = last_number(database, attempt)
    for key in needs.activities:
        activity = database.activities.get(*key)
        if activity is not None:
            facts.activities[key] = read_activity(activity[1:])
    return facts


def _children(database: Database, instance_id: str, execution: int) -> list[str]:
    return [child for _, number, child in database.children.of(instance_id) if number == execution]


def _read_row(database: Database, instance_id: str, facts: Facts) -> None:
    row = database.hot_row(instance_id)
    if row is not None and instance_id not in facts.rows:
        facts.rows[instance_id] = row


def _read_link(database: Database, instance_id: str, facts: Facts, dialect: Dialect) -> None:
    detail = database.details.get(instance_id)
    if detail is None or database.details.value(detail, "parent_id") is None:
        return
    names = ("parent_id", "parent_incarnation", "parent_execution", "parent_event")
    parent = ParentLink(*(database.details.value(detail, name) for name in names))
    on_close = dialect.library.events.on_parent_close.read(
        database.details.value(detail, "on_parent_close")
    )
    facts.links[instance_id] = ChildLink(parent, on_close)


def _read_addressee(database: Database, append: Append, dialect: Dialect) -> Addressee:
    stored = dialect.messages[MessageKind.EVENT]
    unread = database.find_message(append.instance_id, append.message_id, stored, dialect)
    tombstone = database.tombstones.get(append.instance_id, append.message_id)
    return Addressee(unread) if tombstone is None else Addressee(unread, *tombstone[2:])
