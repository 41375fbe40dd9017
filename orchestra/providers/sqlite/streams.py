"""Streams on SQLite: append, cut, and read; and how readers hear of other processes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from typing import Final

from orchestra.errors import StoreError
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.writer import Writer
from orchestra.store.decoding import read_stream, read_stream_page, stream_item_values
from orchestra.store.effects import Publication
from orchestra.store.hints import StreamHints
from orchestra.store.kinds import Dialect
from orchestra.store.streams import (
    JOURNAL,
    Page,
    Published,
    StreamPage,
    StreamRow,
    is_over,
    last_cut,
)

__all__ = ["ChangeWatch", "publish_all", "read_page", "read_streams"]

_INTERVAL: Final = 0.01
"""Seconds between two looks whether another process has written, while a reader listens."""
_PATIENT_INTERVAL: Final = 0.5
"""... while only patient ones listen, such as the pages of a dashboard."""


def publish_all(connection: sqlite3.Connection, publications: Sequence[Publication]) -> None:
    """Add items to streams, and cut those that are over their bounds."""
    for publication in publications:
        streams: dict[str, list[Published]] = {}
        for item in publication.items:
            streams.setdefault(item.stream, []).append(item)
        for name, items in streams.items():
            _append(connection, publication, name, items)


def _append(
    connection: sqlite3.Connection, publication: Publication, name: str, items: list[Published]
) -> None:
    instance_id, incarnation, _, bounds = publication
    added, now = sum(len(item.payload.data) for item in items), items[-1].at
    row = (instance_id, name, incarnation, 1, len(items), added, items[0].at)
    first, last, size, first_at = connection.execute(sql.GROW_STREAM, row).fetchone()
    begin = last - len(items) + 1
    connection.executemany(
        sql.ADD_STREAM_ITEM,
        [stream_item_values(instance_id, begin + place, item) for place, item in enumerate(items)],
    )
    if not name.startswith(JOURNAL) and is_over(bounds, last - first + 1, size, first_at, now):
        oldest = connection.execute(sql.READ_OLDEST_ITEMS, (instance_id, name))
        cut, gone = last_cut(bounds, last, size, now, oldest)
        oldest.close()
        if cut:
            connection.execute(sql.CUT_ITEMS, (instance_id, name, cut))
            connection.execute(sql.MOVE_CUT, (instance_id, name, cut, gone))


def read_page(
    connection: sqlite3.Connection,
    instance_id: str,
    name: str,
    after: int,
    page: Page,
    dialect: Dialect,
) -> StreamPage | None:
    """Return a page of a stream. It reads no further than the page."""
    rows = connection.execute(sql.READ_STREAM, (instance_id, name, after, page.items))
    found = read_stream_page(rows, page, dialect)
    rows.close()
    return found


def read_streams(connection: sqlite3.Connection, instance_id: str) -> list[StreamRow]:
    """Return the streams of an instance."""
    return [read_stream(row) for row in connection.execute(sql.LIST_STREAMS, (instance_id,))]


class ChangeWatch:
    """Tells readers that another process has written: a thread looks at the file while a reader
    listens.
    """

    def __init__(self, writer: Writer, hints: StreamHints) -> None:
        self._writer = writer
        self._hints = hints
        self._is_asked = threading.Event()
        self._guard = threading.Lock()
        self._stop: threading.Event | None = None
        self._threads: list[threading.Thread] = []
        """Those that run, or have just been asked to end."""
        hints.on_listening = self._listening

    def close(self) -> None:
        """End the thread, and wait for that: it uses the file."""
        self._listening(is_listening=False)
        with self._guard:
            threads, self._threads = self._threads, []
        for thread in threads:
            thread.join()

    def _listening(self, is_listening: bool) -> None:  # noqa: FBT001 - a callback
        with self._guard:
            if self._stop is not None:
                self._stop.set()
                self._stop = None
            if is_listening:
                self._stop = stop = threading.Event()
                thread = threading.Thread(
                    target=self._watch, args=(stop,), name="orchestra-streams", daemon=True
                )
                self._threads = [one for one in self._threads if one.is_alive()]
                self._threads.append(thread)
                thread.start()

    def _watch(self, stop: threading.Event) -> None:
        seen: int | None = None
        while not stop.wait(_PATIENT_INTERVAL if self._hints.are_patient else _INTERVAL):
            try:
                # The writer's own connection: SQLite reports the commits of all others.
                version = self._writer.changes_of_others()
            except StoreError:
                continue  # readers poll, and get the error themselves
            if seen is not None and version != seen:
                self._hints.tell(None)
            seen = version
