"""Tables in memory: rows by their keys, changes that can be taken back, and what finds rows by
something else.
"""

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
    """What takes back the changes of a transaction, the last one first."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], None]] = []

    def add(self, step: Callable[[], None]) -> None:
        """Take note of how a change is taken back."""
        self._steps.append(step)

    def forget(self) -> None:
        """The changes stand."""
        self._steps.clear()

    def run(self) -> None:
        """Take all changes back."""
        while self._steps:
            self._steps.pop()()


class Table:
    """Rows of values in the order of the columns. The key is made of the first columns, and its
    first one is the instance.

    Args:
        watch: is told of every change, as the row before and after; ``None`` stands for no row.
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
        """Return the rows of an instance whose keys stand at or behind one, and before another.
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
    """Keys in an order. A key whose place has changed is simply put in again: entries that are out
    of date are passed over.

    Args:
        place_of: where a key stands now; ``None``: nowhere.
    """

    def __init__(self, place_of: Callable[[K], Any]) -> None:
        self._place_of = place_of
        self._entries: list[tuple[Any, K]] = []

    def put(self, key: K) -> None:
        """Put a key in where it stands now."""
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

    def up_to(self, place: Any, limit: int) -> list[K]:
        """Return the first keys, at most so many, whose places are no later than one."""
        found: dict[K, Any] = {}
        while len(found) < limit and (first := self.first()) is not None and first[0] <= place:
            found[first[1]] = first[0]
            heapq.heappop(self._entries)
        for key, standing in found.items():
            heapq.heappush(self._entries, (standing, key))
        return list(found)
