"""Kinds as small integers, which claims are indexed by (protocol rule 24)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from orchestra.errors import StoreCorrupt
from orchestra.providers.sqlite import statements as sql
from orchestra.store.decoding import read_queue, stored_queue
from orchestra.store.routes import Kind

__all__ = ["Kinds", "read_kind"]


class Kinds:
    """A cache of the numbers of kinds. A number never changes.

    Numbers of the current transaction are kept apart, and dropped on a rollback: another process
    may then give the number to another kind.
    """

    def __init__(self) -> None:
        self._numbers: dict[Kind, int] = {}
        self._kinds: dict[int, Kind] = {}
        self._unconfirmed: list[tuple[Kind, int]] = []

    def number(self, connection: sqlite3.Connection, kind: Kind) -> int:
        """Return the number of a kind, and assign one if it has none. Inside a write transaction
        only.
        """
        number = self._numbers.get(kind)
        if number is None:
            number = self.find(connection, kind)
        if number is None:
            number = int(connection.execute(sql.ADD_KIND, _values(kind)).fetchone()[0])
            self._remember(kind, number)
            self._unconfirmed.append((kind, number))
        return number

    def find(self, connection: sqlite3.Connection, kind: Kind) -> int | None:
        """Return the number of a kind; ``None`` if the store has never used it."""
        number = self._numbers.get(kind)
        if number is None:
            row = connection.execute(sql.FIND_KIND, _values(kind)).fetchone()
            if row is None:
                return None
            number = int(row[0])
            self._remember(kind, number)
        return number

    def kind(self, connection: sqlite3.Connection, number: int) -> Kind:
        """Return the kind that has this number."""
        kind = self._kinds.get(number)
        if kind is None:
            row = connection.execute(sql.READ_KIND, (number,)).fetchone()
            if row is None:
                raise StoreCorrupt(f"kind {number} is used, but not known")
            kind = read_kind(row)
            self._remember(kind, number)
        return kind

    def confirm(self) -> None:
        """The transaction was committed."""
        self._unconfirmed.clear()

    def forget_unconfirmed(self) -> None:
        """The transaction was rolled back."""
        for kind, number in self._unconfirmed:
            del self._numbers[kind]
            del self._kinds[number]
        self._unconfirmed.clear()

    def _remember(self, kind: Kind, number: int) -> None:
        self._numbers[kind] = number
        self._kinds[number] = kind


def read_kind(columns: Sequence[Any]) -> Kind:
    """Return a kind from its columns."""
    queue, name, version, event_format, floating, level = columns
    return Kind(read_queue(queue), name, version, event_format, bool(floating), level)


def _values(kind: Kind) -> tuple[str, str, str, int, int, int]:
    return (
        kind.name,
        kind.version,
        stored_queue(kind.queue),
        kind.format,
        int(kind.floating),
        kind.level,
    )
