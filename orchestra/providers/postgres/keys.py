"""Which keys sealed values need, on PostgreSQL."""

from __future__ import annotations

from typing import Final

from orchestra.providers.postgres.calls import Calls
from orchestra.store.keys import SOURCES, KeyUse, Source, key_uses

__all__ = ["KEY_INDEXES", "read_external", "read_keys"]

_LAPS: Final = {None: "", True: " AND closed_at IS NULL", False: " AND closed_at IS NOT NULL"}


def _sealed(source: Source) -> str:
    mark = f"substring({source.column} from 1 for 1) = '\\xff'::bytea"
    return f"{mark}{_LAPS[source.is_open_lap]}"


def _key(source: Source) -> str:
    return f"substring({source.column} from 6 for 16)"


def _index(source: Source) -> str:
    lap = ", execution" if source.needs == "lap" else ""
    return (
        f"CREATE INDEX IF NOT EXISTS {source.name} ON @{source.table} ({_key(source)}, {source.id}{lap}) "
        f"WHERE {_sealed(source)}"
    )


def _next_key(source: Source) -> str:
    key = _key(source)
    return (
        f"SELECT {key} FROM @{source.table} WHERE {_sealed(source)} AND {key} > $1::bytea "
        f"ORDER BY {key} LIMIT 1"
    )


def _ids(source: Source) -> str:
    """Return the statement of the first ids with a key: one step in the index for each."""
    rows = f"FROM @{source.table} WHERE {_sealed(source)} AND {_key(source)} = $1::bytea"
    order = f"ORDER BY {source.id} LIMIT 1"
    is_open = "coalesce(i.status = 0, false)"
    needed = {
        "lives": "true",
        "kept": "false",
        "open": is_open,
        "lap": f"{is_open} AND EXISTS (SELECT 1 {rows} AND {source.id} = f.id AND execution = i.execution)",
    }[source.needs]
    return f"""
        WITH RECURSIVE found (id) AS (
            SELECT (SELECT {source.id} {rows} {order})
            UNION ALL
            SELECT (SELECT {source.id} {rows} AND {source.id} > found.id {order}) FROM found
            WHERE found.id IS NOT NULL
        )
        SELECT f.id, {needed} FROM (SELECT id FROM found WHERE id IS NOT NULL LIMIT $2) f
        LEFT JOIN @instance i ON i.instance_id = f.id
    """


KEY_INDEXES: Final = tuple((source.name, _index(source)) for source in SOURCES)
"""The indexes of sealed values: their names, and the statements that make them."""

_STATEMENTS: Final = tuple((source, _next_key(source), _ids(source)) for source in SOURCES)
_EXTERNAL: Final = " UNION ALL ".join(
    f"SELECT substring({source.column} from 26 for 32) FROM @{source.table} "
    f"WHERE {_sealed(source)} AND substring({source.column} from 5 for 1) = '\\x01'::bytea"
    for source in SOURCES
)


def read_keys(calls: Calls, limit: int) -> list[KeyUse]:
    """Return which instances need which keys, up to a number of each key and source."""
    return key_uses(_STATEMENTS, limit, calls.read)


def read_external(calls: Calls) -> set[bytes]:
    """Return the digests of all values that are stored outside, as of one moment. It reads all
    sealed values.
    """
    return {bytes(digest) for (digest,) in calls.read(_EXTERNAL)}
