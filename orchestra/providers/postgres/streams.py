"""Streams on PostgreSQL: append and cut, blind, and read."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.calls import Calls
from orchestra.providers.postgres.rendering import arrays
from orchestra.providers.postgres.wire import Script
from orchestra.store.decoding import read_stream, read_stream_page, stream_item_values
from orchestra.store.effects import Publication
from orchestra.store.kinds import Dialect
from orchestra.store.streams import JOURNAL, UNBOUNDED, Bounds, Page, StreamPage, StreamRow

__all__ = ["publish_all", "read_page", "read_streams"]


def publish_all(script: Script, publications: Sequence[Publication]) -> None:
    """Add the statements that add items to streams, and cut those that are over their bounds."""
    rows: list[tuple[object, ...]] = []
    latest: dict[tuple[str, str], tuple[Bounds, int]] = {}
    for instance_id, incarnation, items, bounds in publications:
        for item in items:
            row = stream_item_values(instance_id, 0, item)
            rows.append((incarnation, *row[:2], *row[3:]))
            latest[instance_id, item.stream] = bounds, item.at
    script.add(sql.PUBLISH, *arrays(sql.PUBLISHED, rows))
    bounded = [
        (*stream, *bounds, at)
        for stream, (bounds, at) in latest.items()
        if bounds != UNBOUNDED and not stream[1].startswith(JOURNAL)
    ]
    if bounded:
        script.add(sql.CUT_STREAMS, *arrays(sql.STREAM_BOUNDS, bounded))


def read_page(
    calls: Calls, instance_id: str, name: str, after: int, page: Page, dialect: Dialect
) -> StreamPage | None:
    """Return a page of a stream, in one statement."""
    rows = calls.read(sql.READ_STREAM, instance_id, name, after, *page)
    return read_stream_page(rows, page, dialect)


def read_streams(calls: Calls, instance_id: str) -> list[StreamRow]:
    """Return the streams of an instance."""
    return [read_stream(row) for row in calls.read(sql.LIST_STREAMS, instance_id)]
