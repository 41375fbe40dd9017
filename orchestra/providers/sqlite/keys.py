"""Which keys sealed values need, on SQLite."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from orchestra.codec.sealed import SEALED
from orchestra.store.keys import SOURCES, KeyUse, Source, key_uses

__all__ = ["read_external", "read_keys"]

_LAPS: Final = {None: "", True: " AND closed_at IS NULL", False: " AND closed_at IS NOT NULL"}


def _sealed(source: Source) -> str:
    encoding = "" if source.encoding is None else f"{source.encoding} = {SEALED} AND "
    return f"{encoding}{source.column} >= x'ff'{_LAPS[source.is_open_lap]}"


def _rows(source: Source) -> str:
    """Return where the sealed values are, by their index and by no other one."""
    return f"{source.table} INDEXED BY {source.name} WHERE {_sealed(source)}"


def _next_key(source: Source) -> str:
    key = f"substr({source.column}, 6, 16)"
    return f"""
        SELECT {key} FROM {_rows(source)} AND {key} > ? ORDER BY {key} LIMIT 1
    """


def _ids(source: Source) -> str:
    """Return the statement of the first ids with a key: one step in the index for each."""
    rows = f"FROM {_rows(source)} AND substr({source.column}, 6, 16) = ?1"
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


_STATEMENTS: Final = tuple((source, _next_key(source), _ids(source)) for source in SOURCES)
_EXTERNAL: Final = tuple(
    f"SELECT substr({source.column}, 26, 32) FROM {source.table} "
    f"WHERE {_sealed(source)} AND substr({source.column}, 5, 1) = x'01'"
    for source in SOURCES
)


def read_keys(connection: sqlite3.Connection, limit: int) -> list[KeyUse]:
    """Return which instances need which keys, up to a number of each key and source."""

    def read(statement: str, *values: bytes | int) -> list[tuple[Any, ...]]:
        return connection.execute(statement, values).fetchall()

    return key_uses(_STATEMENTS, limit, read)


def read_external(connection: sqlite3.Connection) -> set[bytes]:
    """Return the digests of all values that are stored outside. It reads all sealed values."""
    return {bytes(digest) for statement in _EXTERNAL for (digest,) in connection.execute(statement)}
