"""Read inboxes: the first unread events, of all names or of some, as many as fit a page."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.writer import Transaction
from orchestra.store.decoding import read_message
from orchestra.store.kinds import Dialect
from orchestra.store.messages import InboxPage, MessageRow, QueueName, RequestName, Unread

__all__ = ["read_first", "read_names"]


def read_first(
    transaction: Transaction, instance_id: str, after: int, up_to: int, page: InboxPage
) -> Unread:
    """Return the first unread events of an instance after a number, and up to another."""
    rows = transaction.connection.execute(
        sql.READ_INBOX, (instance_id, after, up_to, page.messages + 1)
    )
    return _fill(rows, transaction.dialect, up_to, page, at_least=0)


def read_names(
    transaction: Transaction,
    instance_id: str,
    after: Mapping[QueueName, int],
    up_to: int,
    page: InboxPage,
) -> dict[QueueName, Unread]:
    """Return the next unread events or requests of some names, which share the page. Each gets at
    least one, if it has any.
    """
    share = page.share(len(after))
    found: dict[QueueName, Unread] = {}
    for name, number in after.items():
        asks = isinstance(name, RequestName)
        rows = transaction.connection.execute(
            sql.READ_REQUESTS if asks else sql.READ_EVENTS,
            (instance_id, name.name if asks else name, number, up_to, share.messages + 1),
        )
        found[name] = _fill(rows, transaction.dialect, up_to, share, at_least=1)
    return found


def _fill(
    rows: sqlite3.Cursor, dialect: Dialect, up_to: int, page: InboxPage, at_least: int
) -> Unread:
    """Read rows until the page is full. Only the first row that does not fit is loaded besides."""
    messages: list[MessageRow] = []
    size = 0
    row: tuple[Any, ...]
    for row in rows:
        message = read_message(row, dialect)
        size += len(message.payload.data)
        if len(messages) >= at_least and (len(messages) >= page.messages or size > page.bytes):
            rows.close()
            return Unread(tuple(messages), message.sequence - 1)
        messages.append(message)
    return Unread(tuple(messages), up_to)
