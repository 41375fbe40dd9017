"""Read inboxes a page at a time, and instances with a page of their inbox."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestra.providers.memory.database import Database
from orchestra.store.hot_row import HotRow
from orchestra.store.kinds import Dialect
from orchestra.store.messages import InboxPage, MessageRow, QueueName, Unread
from orchestra.store.snapshots import Snapshot

__all__ = ["page_of", "read_snapshot", "read_unread"]

_PAGE = InboxPage()


def read_snapshot(
    database: Database, row: HotRow, dialect: Dialect, page: InboxPage = _PAGE
) -> Snapshot:
    """Return an instance for its owner, with the given hot row."""
    instance_id, number = row.instance_id, row.execution
    unread = page_of(database.messages_of(instance_id, dialect), row.inbox_seq, page)
    return Snapshot(
        database.instance(row, dialect),
        database.execution(instance_id, number, dialect),
        unread.messages,
        tuple(one for one in database.activities_of(instance_id) if one.execution == number),
        unread.whole_to,
        database.summary(instance_id) if row.summary is None else row.summary,
    )


def read_unread(
    database: Database,
    dialect: Dialect,
    instance_id: str,
    after: Mapping[QueueName, int],
    up_to: int,
    page: InboxPage,
) -> dict[QueueName, Unread]:
    """Return the next unread events or requests of some names, which share the page. Each gets at
    least one, if it has any.
    """
    share = page.share(len(after))
    found = database.messages_of(instance_id, dialect)
    sent = [one for one in found if one.sequence <= up_to]
    return {
        name: page_of(
            (one for one in sent if one.queue == name and one.sequence > number),
            up_to,
            share,
            at_least=1,
        )
        for name, number in after.items()
    }


def page_of(
    messages: Iterable[MessageRow], up_to: int, page: InboxPage, at_least: int = 0
) -> Unread:
    """Return all ends of children, the first events that fit, and the number up to which they are
    complete.
    """
    found: list[MessageRow] = []
    whole_to, events, size = up_to, 0, 0
    for message in messages:
        if message.is_sent:
            if whole_to < up_to:
                continue
            size += len(message.payload.data)
            if events >= at_least and (events >= page.messages or size > page.bytes):
                whole_to = message.sequence - 1
                continue
            events += 1
        found.append(message)
    return Unread(tuple(found), whole_to)
