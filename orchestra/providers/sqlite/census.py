"""Read the census of a store."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Any

from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.kinds import read_kind
from orchestra.store.census import GROUPS_READ, Census, SeenCode, in_order
from orchestra.store.decoding import pin_from_bytes, read_open_code
from orchestra.store.kinds import Dialect
from orchestra.store.routes import Kind
from orchestra.store.tallies import TallyRow, read_tally

__all__ = ["read_census", "read_tallies"]


def read_tallies(connection: sqlite3.Connection, dialect: Dialect) -> list[TallyRow]:
    """Return the numbers that the store keeps."""
    return read_tally(
        (
            (read_kind(kind), status, bool(held), number)
            for *kind, status, held, number in connection.execute(sql.READ_TALLY)
        ),
        dialect,
    )


def read_census(
    connection: sqlite3.Connection, failed_since: int, name: str | None, dialect: Dialect
) -> Census:
    """Return the census of one name, or of all. Call it inside a transaction."""

    def is_asked(found: str) -> bool:
        return name is None or found == name

    kinds: dict[int, Kind] = {}
    boundaries: dict[Kind, int] = {}
    for number, *kind, due in connection.execute(sql.LAST_BOUNDARIES):
        kinds[number] = read_kind(kind)
        if due is not None and is_asked(kinds[number].name):
            boundaries[kinds[number]] = due

    def by_kind(statement: str) -> dict[Kind, int]:
        rows = connection.execute(statement)
        return {kinds[kind]: count for kind, count in rows if is_asked(kinds[kind].name)}

    pins = (
        (read_kind(kind), pin_from_bytes(pin))
        for *kind, pin in connection.execute(sql.LIST_PINS, (GROUPS_READ,))
    )
    return Census(
        tally=tuple(row for row in read_tallies(connection, dialect) if is_asked(row.kind.name)),
        owned=by_kind(sql.COUNT_OWNED_BY_KIND),
        crashing=by_kind(sql.COUNT_CRASHING),
        holds={
            (kinds[kind], dialect.library.holds.read(hold)): count
            for kind, hold, count in connection.execute(sql.COUNT_HOLDS)
            if is_asked(kinds[kind].name)
        },
        boundaries=boundaries,
        failed={
            (found, version): count
            for found, version, count in connection.execute(sql.COUNT_FAILED, (failed_since,))
            if is_asked(found)
        },
        pinned=Counter((kind, pin.version, pin.until) for kind, pin in pins if is_asked(kind.name)),
        open_code=in_order(
            read_open_code(row, dialect) for row in _groups(connection, name) if is_asked(row[0])
        ),
        seen=tuple(
            SeenCode(*row) for row in connection.execute(sql.LIST_SEEN_CODE) if is_asked(row[0])
        ),
    )


def _groups(connection: sqlite3.Connection, name: str | None) -> Iterator[tuple[Any, ...]]:
    """Yield the groups of open executions, each by some probes of an index."""
    group = ("" if name is None else name, "", "", "", "")
    for _ in range(GROUPS_READ):
        for statement in sql.NEXT_GROUPS:
            row = connection.execute(statement, group[: statement.count("?")]).fetchone()
            if row is not None:
                break
        else:
            return
        if name is not None and row[0] != name:
            return
        yield row
        group = row[:5]
