"""Which keys sealed values need, in memory: it looks at every row."""

from __future__ import annotations

from orchestra.codec.sealed import is_sealed, read_header
from orchestra.providers.memory.database import Database
from orchestra.providers.memory.tables import Table
from orchestra.store.keys import SOURCES, KeyUse, Source

__all__ = ["read_external", "read_keys"]


def _table(database: Database, name: str) -> Table:
    tables = {
        "execution": database.executions,
        "message": database.messages,
        "activity": database.activities,
        "schedule": database.schedules,
        "event": database.events,
        "instance_detail": database.details,
        "set_aside": database.aside,
        "request": database.requests,
        "stream_item": database.stream_items,
    }
    return tables[name]


def _rows(database: Database, source: Source) -> list[tuple[str, bytes, bool]]:
    """Return the ids and the sealed values of a source, and whether code must read each."""
    table, found = _table(database, source.table), list[tuple[str, bytes, bool]]()
    for row in table:
        data, owner = table.value(row, source.column), table.value(row, source.id)
        if data is None or not is_sealed(data):
            continue
        if source.is_open_lap not in {
            None,
            source.table == "execution" and table.value(row, "closed_at") is None,
        }:
            continue
        found.append((owner, bytes(data), _needs(database, source, owner, row)))
    return found


def _needs(database: Database, source: Source, owner: str, row: tuple[object, ...]) -> bool:
    if source.needs in {"lives", "kept"}:
        return source.needs == "lives"
    instances = database.instances
    instance = instances.get(owner)
    if instance is None or instances.value(instance, "status") != 0:
        return False
    lap = _table(database, source.table).value(row, "execution") if source.needs == "lap" else None
    return lap in {None, instances.value(instance, "execution")}


def read_keys(database: Database, limit: int) -> list[KeyUse]:
    """Return which instances need which keys, up to a number of each key and source."""
    found: list[KeyUse] = []
    for source in SOURCES:
        needed: dict[str, dict[str, bool]] = {}
        for owner, data, needs in _rows(database, source):
            header = read_header(data)
            if header is not None and header.key_id:
                owners = needed.setdefault(header.key_id, {})
                owners[owner] = owners.get(owner, False) or needs
        for key_id, owners in sorted(needed.items()):
            ids = tuple(sorted(owners.items()))
            found.append(KeyUse(key_id, source, ids[:limit], len(ids) > limit))
    return found


def read_external(database: Database) -> set[bytes]:
    """Return the digests of all values that are stored outside."""
    sealed = (data for source in SOURCES for _, data, _ in _rows(database, source))
    return {data[25:57] for data in sealed if data[4] == 1}
