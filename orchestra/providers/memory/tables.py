"""Tables in memory: rows by their keys, an undo log, and indexes."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Generic, TypeVar

from orchestra.store.tables import Columns

__all__ = ["Queue", "Table", "Undo"]

Row = tuple[Any, ...]
Key = tuple[Any, ...]
K = TypeVar("K")


class Undo:
    """The undo log of a transaction."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], None]] = []

    def add(self, step: Callable[[], None]) -> None:
        """Add the undo of a change."""
        self._steps.append(step)

    def forget(self) -> None:
        """Commit: drop the undo log."""
        self._steps.clear()

    def run(self) -> None:
        """Undo all changes, the last one first."""
        while self._steps:
            self._steps.pop()()


class Table:
    """Rows of values in the order of the columns. The key is made of the first columns, and its
    first one is the instance.

    Args:
        watch: receives every change, as the row before and after; ``None`` means no row.
    """

    def __init__(
        self,
        columns: Columns,
        key_width: int,
        undo: Undo,
        watch: Callable[[Row | None, Row | None], None] | None = None,
    ) -> None:
        self.columns: Final = columns
        self._places = {name: place for place, name in enumerate(columns.names)}
        self._width = key_width
        self._undo = undo
        self._watch = watch
        self._rows: dict[Any, dict[Key, Row]] = {}
        self._keys: dict[Any, list[Key]] = {}
        """The keys of the rows of each instance, in order."""

    def get(self, *key: Any) -> Row | None:
        """Return the row with this key."""
        return self._rows.get(key[0], {}).get(key)

    def value(self, row: Row, name: str) -> Any:
        """Return one value of a row."""
        return row[self._places[name]]

    def of(self, first: Any) -> list[Row]:
        """Return the rows of an instance, in the order of their keys."""
        rows = self._rows.get(first, {})
        return [rows[key] for key in self._keys.get(first, ())]

    def between(self, low: Key, high: Key) -> list[Row]:
        """Return the rows of an instance whose keys are at or after one key, and before another.
        Both may be parts of keys.
        """
        rows, keys = self._rows.get(low[0], {}), self._keys.get(low[0], [])
        return [rows[key] for key in keys[bisect_left(keys, low) : bisect_left(keys, high)]]

    def oldest(self, first: Any) -> Row | None:
        """Return the row of an instance with the least key."""
        keys = self._keys.get(first)
        return self._rows[first][keys[0]] if keys else None

    def __iter__(self) -> Iterator[Row]:
        """Return all rows, in the order of their keys."""
        for first in sorted(self._rows):
            yield from self.of(first)

    def put(self, row: Row) -> None:
        """Add a row, or replace the one with its key."""
        key = row[: self._width]
        self._undo.add(partial(self._set, key, self.get(*key)))
        self._set(key, row)

    def change(self, key: Key, columns: Columns, values: Row) -> None:
        """Change columns of a row that is there."""
        row = self.get(*key)
        assert row is not None
        changed = list(row)
        for column, value in zip(columns, values, strict=True):
            changed[self._places[column.name]] = value
        self.put(tuple(changed))

    def remove(self, *key: Any) -> Row | None:
        """Remove the row with this key; return it, if there was one."""
        row = self.get(*key)
        if row is not None:
            self._undo.add(partial(self._set, key, row))
            self._set(key, None)
        return row

    def remove_all(self, first: Any) -> list[Row]:
        """Remove the rows of an instance; return them."""
        return [row for row in self.of(first) if self.remove(*row[: self._width]) is not None]

    def remove_between(self, low: Key, high: Key) -> None:
        """Remove the rows that :meth:`between` returns."""
        for row in self.between(low, high):
            self.remove(*row[: self._width])

    def _set(self, key: Key, row: Row | None) -> None:
        first = key[0]
        rows, keys = self._rows.setdefault(first, {}), self._keys.setdefault(first, [])
        before = rows.get(key)
        if row is not None:
            if before is None:
                insort(keys, key)
            rows[key] = row
        elif before is not None:
            del rows[key], keys[bisect_left(keys, key)]
            if not rows:
                del self._rows[first], self._keys[first]
        if self._watch is not None:
            self._watch(before, row)


class Queue(Generic[K]):
    """Keys in an order. A key whose place has changed is added again; outdated entries are
    skipped.

    Args:
        place_of: returns the place of a key; ``None``: it has none.
    """

    def __init__(self, place_of: Callable[[K], Any]) -> None:
        self._place_of = place_of
        self._entries: list[tuple[Any, K]] = []

    def put(self, key: K) -> None:
        """Add a key at its present place."""
        place = self._place_of(key)
        if place is not None:
            heapq.heappush(self._entries, (place, key))

    def first(self) -> tuple[Any, K] | None:
        """Return the first place and its key."""
        while self._entries:
            place, key = self._entries[0]
            if self._place_of(key) == place:
                return place, key
            heapq.heappop(self._entries)
        return None

    def after(self, place: Any) -> tuple[Any, K] | None:
        """Return the first place behind a place, and its key."""
        passed: list[tuple[Any, K]] = []
        while (first := self.first()) is not None and first[0] <= place:
            passed.append(heapq.heappop(self._entries))
        for entry in passed:
            heapq.heappush(self._entries, entry)
        return first

    def up_to(self, place: Any, limit: int) -> list[K]:
        """Return the first keys, at most a number, up to a place."""
        found: dict[K, Any] = {}
        while len(found) < limit and (first := self.first()) is not None and first[0] <= place:
            found[first[1]] = first[0]
            heapq.heappop(self._entries)
        for key, standing in found.items():
            heapq.heappush(self._entries, (standing, key))
        return list(found)
