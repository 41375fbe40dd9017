"""Which keys sealed values need, on SQLite."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final

from orchestra.codec.sealed import SEALED
from orchestra.store.keys import SOURCES, KeyUse, Source, key_uses

__all__ = ["add_key_indexes", "has_key_indexes", "read_external", "read_keys"]

_LAPS: Final = {None: "", True: " AND closed_at IS NULL", False: " AND closed_at IS NOT NULL"}


def _sealed(source: Source) -> str:
    encoding = "" if source.encoding is None else f"{source.encoding} = {SEALED} AND "
    return f"{encoding}{source.column} >= x'ff'{_LAPS[source.is_open_lap]}"


def _key(source: Source) -> str:
    return f"substr({source.column}, 6, 16)"


def _index(source: Source) -> str:
    lap = ", execution" if source.needs == "lap" else ""
    return (
        f"CREATE INDEX IF NOT EXISTS {source.name} ON {source.table} ({_key(source)}, {source.id}{lap}) "
        f"WHERE {_sealed(source)}"
    )


def _rows(source: Source, *, indexed: bool) -> str:
    """Return where the sealed values are; ``indexed``: by their index and by no other one."""
    index = f" INDEXED BY {source.name}" if indexed else ""
    return f"{source.table}{index} WHERE {_sealed(source)}"


def _next_key(source: Source, *, indexed: bool) -> str:
    key = _key(source)
    return f"""
        SELECT {key} FROM {_rows(source, indexed=indexed)} AND {key} > ? ORDER BY {key} LIMIT 1
    """


def _ids(source: Source, *, indexed: bool) -> str:
    """Return the statement of the first ids with a key: one step in the index for each."""
    rows = f"FROM {_rows(source, indexed=indexed)} AND {_key(source)} = ?1"
    order = f"ORDER BY {source.id} LIMIT 1"
    is_open = "coalesce(i.status = 0, 0)"
    needed = {
        "lives": "1",
        "kept": "0",
        "open": is_open,
        "lap": f"{is_open} AND EXISTS (SELECT 1 {rows} AND {source.id} = f.id AND execution = i.execution)",
    }[source.needs]
    return f"""
        WITH RECURSIVE found (id) AS (
            SELECT (SELECT {source.id} {rows} {order})
            UNION ALL
            SELECT (SELECT {source.id} {rows} AND {source.id} > found.id {order}) FROM found
            WHERE found.id IS NOT NULL
            LIMIT ?2
        )
        SELECT f.id, {needed} FROM found f LEFT JOIN instance i ON i.instance_id = f.id
        WHERE f.id IS NOT NULL
    """


_INDEXES: Final = tuple(_index(source) for source in SOURCES)
_STATEMENTS: Final = {
    indexed: tuple(
        (source, _next_key(source, indexed=indexed), _ids(source, indexed=indexed))
        for source in SOURCES
    )
    for indexed in (True, False)
}
_COUNT_INDEXES: Final = "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name IN (SELECT value FROM json_each(?))"
_EXTERNAL: Final = tuple(
    f"SELECT substr({source.column}, 26, 32) FROM {source.table} "
    f"WHERE {_sealed(source)} AND substr({source.column}, 5, 1) = x'01'"
    for source in SOURCES
)


def has_key_indexes(connection: sqlite3.Connection) -> bool:
    """Return whether the store has the indexes of sealed values."""
    names = json.dumps([source.name for source in SOURCES])
    return connection.execute(_COUNT_INDEXES, (names,)).fetchone() == (len(SOURCES),)


def add_key_indexes(connection: sqlite3.Connection) -> None:
    """Make the indexes of sealed values that are not there."""
    for statement in _INDEXES:
        connection.execute(statement)


def read_keys(connection: sqlite3.Connection, limit: int) -> list[KeyUse]:
    """Return which instances need which keys, up to a number of each key and source."""
    statements = _STATEMENTS[has_key_indexes(connection)]

    def read(statement: str, *values: bytes | int) -> list[tuple[Any, ...]]:
        return connection.execute(statement, values).fetchall()

    return key_uses(statements, limit, read)


def read_external(connection: sqlite3.Connection) -> set[bytes]:
    """Return the digests of all values that are stored outside. It reads all sealed values."""
    return {bytes(digest) for statement in _EXTERNAL for (digest,) in connection.execute(statement)}
