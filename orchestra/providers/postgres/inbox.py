"""Read inboxes: pages of messages, and the number up to which they are complete."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Numbers, Texts
from orchestra.providers.postgres.calls import Calls
from orchestra.store.decoding import read_message
from orchestra.store.kinds import Dialect, MessageKind
from orchestra.store.messages import InboxPage, MessageRow, QueueName, RequestName, Unread

__all__ = ["read_page", "read_unread"]

_PAYLOAD, _KIND = 3, 6
_SENT = (MessageKind.EVENT, MessageKind.REQUEST)


def read_page(
    rows: Iterable[Sequence[Any]], up_to: int, page: InboxPage, dialect: Dialect
) -> Unread:
    """Return the messages of one inbox's rows, in order: all ends of children, and the events
    and requests on the page.

    One beyond the page comes without its payload, or is one more than the page holds.
    """
    messages: list[MessageRow] = []
    whole_to, events = up_to, 0
    for row in rows:
        is_event = row[_KIND] in _SENT
        if is_event and whole_to < up_to:
            continue
        if is_event and (row[_PAYLOAD] is None or events >= page.messages):
            whole_to = row[0] - 1
            continue
        events += is_event
        messages.append(read_message(tuple(row), dialect))
    return Unread(tuple(messages), whole_to)


def read_unread(
    calls: Calls,
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
    events = {name: number for name, number in after.items() if isinstance(name, str)}
    requests = {
        name.name: number for name, number in after.items() if isinstance(name, RequestName)
    }
    asked = ((sql.READ_UNREAD, events), (sql.READ_UNREAD_REQUESTS, requests))
    bounds = (up_to, share.messages + 1, share.bytes)
    reads = [
        (statement, (instance_id, Texts(names), Numbers(names.values()), *bounds))
        for statement, names in asked
        if names
    ]
    of_names: dict[QueueName, list[Sequence[Any]]] = defaultdict(list)
    for (statement, _), rows in zip(reads, calls.read_all(reads), strict=True):
        for name, *columns in rows:
            of_names[name if statement == sql.READ_UNREAD else RequestName(name)].append(columns)
    return {name: read_page(of_names[name], up_to, share, dialect) for name in after}
