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
from orchestra.store.messages import InboxPage, MessageRow, Unread

__all__ = ["read_page", "read_unread"]

_PAYLOAD, _KIND = 3, 6


def read_page(
    rows: Iterable[Sequence[Any]], up_to: int, page: InboxPage, dialect: Dialect
) -> Unread:
    """Return the messages of one inbox's rows, in order: all ends of children, and the events on
    the page.

    An event beyond the page comes without its payload, or is one more than the page holds.
    """
    messages: list[MessageRow] = []
    whole_to, events = up_to, 0
    for row in rows:
        is_event = row[_KIND] == MessageKind.EVENT
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
    after: Mapping[str, int],
    up_to: int,
    page: InboxPage,
) -> dict[str, Unread]:
    """Return the next unread events of some names, which share the page. Each gets at least one, if
    it has any.
    """
    share = page.share(len(after))
    rows = calls.read(
        sql.READ_UNREAD,
        instance_id,
        Texts(after),
        Numbers(after.values()),
        up_to,
        share.messages + 1,
        share.bytes,
    )
    of_names: dict[str, list[Sequence[Any]]] = defaultdict(list)
    for name, *columns in rows:
        of_names[name].append(columns)
    return {name: read_page(of_names[name], up_to, share, dialect) for name in after}
