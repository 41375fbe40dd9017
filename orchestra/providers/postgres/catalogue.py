"""The nodes, and what they can run."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from orchestra.codec import pack, unpack
from orchestra.levels import Levels
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.calls import Calls
from orchestra.providers.postgres.kinds import read_kind
from orchestra.store.catalogue import Capability, Catalogue, NodeRecord, NodeRow, PolicyRow
from orchestra.store.decoding import read_queue, stored_queue
from orchestra.store.kinds import Dialect
from orchestra.store.routes import Route

__all__ = ["abilities_to_bytes", "read_catalogue"]

_READS = (
    sql.LIST_NODES,
    sql.LIST_CAPABILITIES,
    sql.LIST_NODE_ACTIVITIES,
    sql.LIST_POLICIES,
    sql.LIST_KINDS,
    sql.READ_LEVELS,
    sql.WAITING_SESSIONS,
)


def read_catalogue(calls: Calls, dialect: Dialect) -> Catalogue:
    """Return the catalogue, in one snapshot."""
    time, *rows = calls.read_all(
        [calls.time.read, *((statement, ()) for statement in _READS)], one_moment=True
    )
    nodes, capabilities, activities, policies, kinds, levels, sessions = rows
    return Catalogue(
        now=calls.time.heard(time[0]),
        nodes=_read_nodes(nodes, capabilities, activities),
        policies={row[0]: PolicyRow(*row) for row in policies},
        kinds=tuple(read_kind(row[:6]) for row in kinds),
        levels=dialect.heard(Levels(*levels[0])),
        library=dialect.library,
        sessions=tuple(Route(*row) for row in sessions),
    )


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


def _read_nodes(
    nodes: list[tuple[Any, ...]],
    capabilities: list[tuple[Any, ...]],
    activities: list[tuple[Any, ...]],
) -> tuple[NodeRow, ...]:
    capabilities_of: dict[str, list[Capability]] = defaultdict(list)
    for node_id, name, version, fingerprint in capabilities:
        capabilities_of[node_id].append(Capability(name, version, fingerprint))
    activities_of: dict[str, list[str]] = defaultdict(list)
    for node_id, name in activities:
        activities_of[node_id].append(name)
    return tuple(
        _read_node(row, tuple(capabilities_of[row[0]]), tuple(activities_of[row[0]]))
        for row in nodes
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
    return NodeRow(record, started_at, renewed_at, renewals, dead, load)
