"""How the providers that keep rows in a database store nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from orchestra.codec import pack, unpack
from orchestra.store.catalogue import Capability, NodeRecord, NodeRow
from orchestra.store.decoding import read_queue, stored_queue

__all__ = ["abilities_to_bytes", "processes_in", "read_nodes"]


def abilities_to_bytes(node: NodeRecord) -> bytes:
    """Return the stored form of a node's abilities, which only nodes read."""
    return pack(
        {
            "formats": list(node.formats),
            "queues": list(map(stored_queue, node.queues)),
            "slots": node.slots,
            "fingerprints": [list(pair) for pair in node.fingerprints],
            "processes": node.processes,
        }
    )


def processes_in(abilities: bytes) -> str:
    """Return :attr:`NodeRecord.processes` of a node that is stored so. Empty: an older library."""
    return unpack(abilities).get("processes", "")


def read_nodes(
    nodes: Iterable[tuple[Any, ...]],
    capabilities: Iterable[tuple[Any, ...]],
    activities: Iterable[tuple[Any, ...]],
) -> tuple[NodeRow, ...]:
    """Return the nodes of the rows of the three tables."""
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
        processes=values.get("processes", ""),
        reads=reads,
        writes=writes,
    )
    return NodeRow(record, started_at, renewed_at, renewals, bool(dead), load)
