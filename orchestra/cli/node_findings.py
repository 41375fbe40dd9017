"""Findings about nodes and about ownership: who works, and who owns what. Pure functions."""

from __future__ import annotations

from enum import Enum
from typing import Final

from orchestra.cli.checks import Check, Verdict
from orchestra.cli.wording import activities_of, ago, count_of, first_of
from orchestra.resolution import is_living
from orchestra.store.catalogue import Catalogue, NodeRow
from orchestra.store.diagnosis import LISTED, NodeLockState, Population

__all__ = ["living_nodes", "nodes_check", "ownership_check"]


class _Presence(Enum):
    """The state of a node, as findings show it."""

    LIVING = "alive"
    STALLED = "holds its lock, but does not renew its lease: stopped, or blocked"
    GONE = "its process is gone"
    CUT = "its connection is gone: dead, or reconnecting"
    SILENT = "does not renew its lease"


_ABSENT: Final = (_Presence.GONE, _Presence.CUT, _Presence.SILENT)

_REMEDIES: Final = {
    _Presence.GONE: (
        "The next runtime that starts on this machine buries the dead node and releases what it "
        "owned: at once, or within a lease if the machine has been restarted since."
    ),
    _Presence.CUT: (
        "A running runtime buries a node without a connection after a second or two, and takes its "
        "work over. Start a runtime if none runs."
    ),
    _Presence.SILENT: (
        "A running runtime buries the silent node after watching it for a lease. Start a runtime "
        "if none runs."
    ),
    _Presence.STALLED: (
        "Look at the stalled process. Other nodes take its work over after watching it for a lease."
    ),
}


def nodes_check(found: Population) -> Check:
    """Judge which nodes work on the store."""
    presences = {node.record.node_id: _presence(node, found) for node in found.catalogue.nodes}
    details = [
        _node_line(node, presences[node.record.node_id], found) for node in found.catalogue.nodes
    ]
    now = found.catalogue.now
    details += [
        f"{one.node_id} (process {one.pid} on {one.host}): buried, last seen "
        f"{ago(now - one.renewed_at)}"
        for one in found.buried[:LISTED]
    ]
    living = sum(presence is _Presence.LIVING for presence in presences.values())
    counts = [f"{living} living"]
    for presence, word in (
        (_Presence.STALLED, "stalled"),
        (_Presence.GONE, "dead"),
        (_Presence.CUT, "cut off"),
        (_Presence.SILENT, "silent"),
    ):
        count = sum(each is presence for each in presences.values())
        counts += [f"{count} {word}"] if count else []
    if found.buried:
        counts.append(f"{len(found.buried)} buried")
    text = ", ".join(counts)
    remedies = [_REMEDIES[presence] for presence in _REMEDIES if presence in presences.values()]
    if remedies:
        return Check("nodes", Verdict.WARNING, text, tuple(details), remedy=" ".join(remedies))
    count = sum(tally.open for tally in found.tallies)
    if not living and count:
        return Check(
            "nodes",
            Verdict.NOTICE,
            f"{text}: {count_of(count, 'open instance')} will go on when a runtime starts",
            tuple(details),
        )
    return Check("nodes", Verdict.NOTICE if found.buried else Verdict.OK, text, tuple(details))


def ownership_check(found: Population) -> Check:
    """Judge whether a dead or unknown node owns instances or activities (protocol rule 12)."""
    nodes = {node.record.node_id: node for node in found.catalogue.nodes}
    buried = {one.node_id for one in found.buried}
    details: list[str] = []
    instances = activities = 0
    for owner in sorted({*found.owners, *found.takers}):
        node = nodes.get(owner)
        if node is None:
            why = "buried" if owner in buried else "unknown"
        elif (presence := _presence(node, found)) in _ABSENT:
            why = presence.value
        else:
            continue
        owned, taken = found.owners.get(owner, 0), found.takers.get(owner, 0)
        instances += owned
        activities += taken
        details.append(f"{_possessions(owned, taken)} of {owner}: {why}")
    if not details:
        possessions = _possessions(sum(found.owners.values()), sum(found.takers.values()))
        text = f"living nodes own {possessions}" if possessions else "no node owns anything"
        return Check("ownership", Verdict.OK, text)
    return Check(
        "ownership",
        Verdict.WARNING,
        f"{_possessions(instances, activities)} owned by dead or unknown nodes",
        first_of(details),
        remedy="The next runtime start releases them; a running runtime does so within a lease.",
    )


def living_nodes(found: Population) -> Catalogue:
    """Return the catalogue with the living nodes only."""
    living = tuple(
        node for node in found.catalogue.nodes if _presence(node, found) is _Presence.LIVING
    )
    return Catalogue(found.catalogue.now, living, found.catalogue.policies, found.catalogue.kinds)


def _possessions(instances: int, activities: int) -> str:
    """Return what nodes own: instances, and activities that they took; empty for nothing."""
    counts = [count_of(instances, "instance")] if instances else []
    counts += [activities_of(activities)] if activities else []
    return " and ".join(counts)


def _presence(node: NodeRow, found: Population) -> _Presence:
    lock = found.locks.get(node.record.node_id, NodeLockState.MISSING)
    if lock is NodeLockState.FREE:
        return _Presence.GONE
    if lock is NodeLockState.LOST:
        return _Presence.CUT
    if is_living(node, found.catalogue.now):
        return _Presence.LIVING
    return _Presence.STALLED if lock is NodeLockState.HELD else _Presence.SILENT


def _node_line(node: NodeRow, presence: _Presence, found: Population) -> str:
    record = node.record
    seen = ago(found.catalogue.now - node.renewed_at)
    owned = found.owners.get(record.node_id, 0)
    return (
        f"{record.node_id} (process {record.pid} on {record.host}): {presence.value}, last seen "
        f"{seen}, owns {owned:,}"
    )
