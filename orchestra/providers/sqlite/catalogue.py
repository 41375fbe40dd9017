"""The nodes, and what they can run."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from typing import Any

from orchestra.codec import pack, unpack
from orchestra.levels import Levels
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.kinds import read_kind
from orchestra.providers.sqlite.writer import Transaction
from orchestra.store.catalogue import Capability, Catalogue, NodeRecord, NodeRow, PolicyRow
from orchestra.store.decoding import read_queue, stored_queue
from orchestra.store.kinds import Dialect
from orchestra.store.routes import SESSION_QUEUES, Route

__all__ = ["abilities_to_bytes", "read_catalogue", "read_levels"]


def read_catalogue(connection: sqlite3.Connection, now: int, dialect: Dialect) -> Catalogue:
    """Return the catalogue, in one snapshot."""
    connection.execute(sql.BEGIN_READ)
    try:
        return Catalogue(
            now=now,
            nodes=_read_nodes(connection),
            policies={row[0]: PolicyRow(*row) for row in connection.execute(sql.LIST_POLICIES)},
            kinds=tuple(read_kind(row) for row in connection.execute(sql.LIST_KINDS)),
            levels=dialect.heard(_levels(connection)),
            library=dialect.library,
            sessions=_read_sessions(connection),
        )
    finally:
        connection.execute(sql.ROLLBACK)


def _read_sessions(connection: sqlite3.Connection) -> tuple[Route, ...]:
    """Return the routes of the sessions that wait for a node. One probe of an index, if none do."""
    found: list[Route] = []
    last, end = (SESSION_QUEUES[0], ""), SESSION_QUEUES[1]
    while (row := connection.execute(sql.NEXT_WAITING_ROUTE, last).fetchone()) is not None:
        if row[0] >= end:
            break
        last = row
        found.append(Route(*row))
    return tuple(found)


def read_levels(transaction: Transaction) -> Levels:
    """Return the levels of the store, and remember them."""
    return transaction.dialect.heard(_levels(transaction.connection))


def _levels(connection: sqlite3.Connection) -> Levels:
    return Levels(*connection.execute(sql.READ_LEVELS).fetchone())


def abilities_to_bytes(node: NodeRecord) -> bytes:
    """Return the stored form of a node's abilities, which only nodes read."""
    return pack(
        {
            "formats": list(node.formats),
            "queues": list(map(stored_queue, node.queues)),
            "slots": node.slots,
            "fingerprints": [list(pair) for pair in node.fingerprints],
        }
    )


def _read_nodes(connection: sqlite3.Connection) -> tuple[NodeRow, ...]:
    capabilities: dict[str, list[Capability]] = defaultdict(list)
    for node_id, name, version, fingerprint in connection.execute(sql.LIST_CAPABILITIES):
        capabilities[node_id].append(Capability(name, version, fingerprint))
    activities: dict[str, list[str]] = defaultdict(list)
    for node_id, name in connection.execute(sql.LIST_NODE_ACTIVITIES):
        activities[node_id].append(name)
    return tuple(
        _read_node(row, tuple(capabilities[row[0]]), tuple(activities[row[0]]))
        for row in connection.execute(sql.LIST_NODES)
    )


def _read_node(
    row: tuple[Any, ...], capabilities: tuple[Capability, ...], activities: tuple[str, ...]
) -> NodeRow:
    (
        node_id,
        host,
        boot_id,
        pid,
        library,
        abilities,
        lease,
        started_at,
        renewed_at,
        renewals,
        dead,
        load,
        reads,
        writes,
    ) = row
    values = unpack(abilities)
    record = NodeRecord(
        node_id=node_id,
        host=host,
        boot_id=boot_id,
        pid=pid,
        library=library,
        formats=tuple(values["formats"]),
        lease=lease,
        capabilities=capabilities,
        activities=activities,
        queues=tuple(map(read_queue, values["queues"])),
        slots=values.get("slots", 0),
        fingerprints=tuple((name, code) for name, code in values.get("fingerprints", ())),
        reads=reads,
        writes=writes,
    )
    return NodeRow(record, started_at, renewed_at, renewals, bool(dead), load)
