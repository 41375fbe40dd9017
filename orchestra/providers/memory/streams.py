"""Streams in memory: append, cut, and read."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from orchestra.providers.memory.database import Database
from orchestra.providers.memory.tables import Row
from orchestra.store import tables
from orchestra.store.decoding import read_stream, read_stream_page, stream_item_values
from orchestra.store.effects import Publication
from orchestra.store.facts import AttemptId
from orchestra.store.kinds import Dialect
from orchestra.store.streams import (
    AT_ONCE,
    JOURNAL,
    Bounds,
    Page,
    StreamPage,
    StreamRow,
    is_over,
    last_cut,
)

__all__ = ["last_number", "publish_all", "read_page", "read_streams"]

_BEYOND: Final = 1 << 63
_NO_STREAM: Final = (None,) * 5
_NO_ITEM: Final = (None,) * 7
_PAYLOAD: Final = tables.STREAM_ITEM.names.index("payload")
_AT: Final = tables.STREAM_ITEM.names.index("at")


def publish_all(database: Database, publications: Iterable[Publication]) -> None:
    """Add items to streams, and cut those that are over their bounds."""
    for instance_id, incarnation, items, bounds in publications:
        for item in items:
            stream = database.streams.get(instance_id, item.stream)
            if stream is None:
                stream = (instance_id, item.stream, incarnation, 1, 0, 0, item.at)
            *head, last, size, first_at = stream
            stream = (*head, last + 1, size + len(item.payload.data), first_at)
            database.streams.put(stream)
            database.stream_items.put(stream_item_values(instance_id, last + 1, item))
        latest = {item.stream: item.at for item in items}
        for name, now in latest.items():
            if not name.startswith(JOURNAL):
                _cut(database, instance_id, name, bounds, now)


def _cut(database: Database, instance_id: str, name: str, bounds: Bounds, now: int) -> None:
    row = database.streams.get(instance_id, name)
    assert row is not None
    *head, first, last, size, first_at = row
    if not is_over(bounds, last - first + 1, size, first_at, now):
        return
    kept = database.stream_items.between((instance_id, name), (instance_id, name, _BEYOND))
    oldest = ((one[2], len(one[_PAYLOAD]), one[_AT]) for one in islice(kept, AT_ONCE))
    cut, gone = last_cut(bounds, last, size, now, oldest)
    if cut:
        database.stream_items.remove_between((instance_id, name), (instance_id, name, cut + 1))
        newest = database.stream_items.get(instance_id, name, cut + 1)
        assert newest is not None
        database.streams.put((*head, cut + 1, last, size - gone, newest[_AT]))


def read_page(
    database: Database, instance_id: str, name: str, after: int, page: Page, dialect: Dialect
) -> StreamPage | None:
    """Return a page of a stream."""
    instance, stream = database.hot_row(instance_id), database.streams.get(instance_id, name)
    if instance is None:
        return None
    bounds = (instance_id, name, after + 1), (instance_id, name, _BEYOND)
    items: list[Row] = database.stream_items.between(*bounds)[: page.items]
    head = (instance.status, *(_NO_STREAM if stream is None else stream[1:6]))
    rows = [(*head, *item[2:9]) for item in items] or [(*head, *_NO_ITEM)]
    return read_stream_page(rows, page, dialect)


def read_streams(database: Database, instance_id: str) -> list[StreamRow]:
    """Return the streams of an instance."""
    return [read_stream(row[1:6]) for row in database.streams.of(instance_id)]


def last_number(database: Database, attempt: AttemptId) -> int:
    """Return the number of the last item that an attempt has published; 0: none."""
    rows = database.stream_items.of(attempt.activity.instance_id)
    wanted = (*attempt.activity[1:], attempt.attempt)
    return max((row[-1] for row in rows if row[6:9] == wanted), default=0)
