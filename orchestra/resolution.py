"""Which version an execution gets, and which node may run it.

Versions are resolved at a start, at a boundary, and while an execution waits to be opened; at no other moment. All nodes and
clients resolve alike, against the catalogue in the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from orchestra.events import FORMATS
from orchestra.providers.rows import Catalogue, Kind, NodeRecord, NodeRow, Pin, Resolution, ResolvedBy
from orchestra.versions import Latest, Policy, policy_from_text, resolve, version_key

__all__ = [
    "LOWEST_VERSION",
    "boundary_version",
    "changed_policies",
    "has_other_code",
    "is_living",
    "opening_version",
    "policy_of",
    "servable_kinds",
    "serves",
    "shown_kind",
    "start_version",
    "started_versions",
]

LOWEST_VERSION: Final = "0.0.0-0"
"""What a detached start waits under for a name that nobody has: it floats up to whatever is deployed first.

It says nothing about the name. A start that was misspelt must not make the next one succeed.
"""


def policy_of(catalogue: Catalogue, name: str) -> tuple[Policy, int]:
    """Return the policy of a name and its revision; ``Latest()`` at revision 0 where none was ever set."""
    row = catalogue.policies.get(name)
    return (Latest(), 0) if row is None else (policy_from_text(row.value), row.revision)


def changed_policies(before: Catalogue, after: Catalogue) -> list[str]:
    """Return the names whose policy was set between two catalogues."""
    return [name for name, row in after.policies.items() if row.revision > policy_of(before, name)[1]]


def started_versions(catalogue: Catalogue, name: str, queue: str | None = None) -> set[str]:
    """Return the versions that a policy has given to starts of a name before, in a queue or, if none is given, in any."""
    return {
        kind.version
        for kind in catalogue.kinds
        if kind.name == name and kind.floating and kind.version != LOWEST_VERSION and queue in {None, kind.queue}
    }


def start_version(catalogue: Catalogue, name: str, queue: str | None = None) -> str | None:
    """Return the version that the policy gives to a start that nobody would hear refused; ``None``: the name is unknown.

    It is one of those of living nodes that serve the queue, or else of any. While none has the name, it is one under which
    instances have been started before: every worker may be away for a restart.
    """
    versions = catalogue.versions(name, queue) or catalogue.versions(name) or started_versions(catalogue, name)
    return resolve(policy_of(catalogue, name)[0], versions) if versions else None


def opening_version(catalogue: Catalogue, kind: Kind) -> str:
    """Return the version with which an execution that waits is opened: for a floating one, never lower than recorded."""
    if not kind.floating:
        return kind.version
    resolved = resolve(policy_of(catalogue, kind.name)[0], catalogue.versions(kind.name, kind.queue))
    # Where only build metadata differs, the one that exists counts: a new build must go on with what the old one left.
    return kind.version if resolved is None else max(resolved, kind.version, key=version_key)


def shown_kind(catalogue: Catalogue, kind: Kind) -> str:
    """Return what code an instance of a kind waits for, for people: the version only where there is a real one."""
    version = opening_version(catalogue, kind)
    return repr(kind.name) if kind.floating and version == LOWEST_VERSION else f"{kind.name!r} {version}"


def boundary_version(
    catalogue: Catalogue, kind: Kind, current: str, *, explicit: str | None, pin: Pin | None, node: str
) -> tuple[str, Resolution]:
    """Return the version of the next execution of an instance of this kind, and how it was chosen.

    The code's own word comes first, then an operator's pin, then the policy. ``Latest`` never goes down.
    """
    policy, revision = policy_of(catalogue, kind.name)
    if explicit is not None:
        return explicit, Resolution(ResolvedBy.EXPLICIT, node, revision)
    if pin is not None:
        return pin.version, Resolution(ResolvedBy.PIN, node, revision)
    resolved = resolve(policy, catalogue.versions(kind.name, kind.queue))
    if resolved is None:
        resolved = current
    elif isinstance(policy, Latest):
        resolved = max(resolved, current, key=version_key)
    return resolved, Resolution(ResolvedBy.POLICY, node, revision)


def serves(node: NodeRecord, kind: Kind, catalogue: Catalogue) -> bool:
    """Return whether a node can run instances of a kind now."""
    if kind.format not in node.formats or kind.queue not in node.queues:
        return False
    version = opening_version(catalogue, kind)
    return any(capability.name == kind.name and capability.version == version for capability in node.capabilities)


def servable_kinds(node: NodeRecord, catalogue: Catalogue) -> tuple[Kind, ...]:
    """Return the kinds that a node may claim: those known to the store, and those that its own registry implies."""
    own = {
        Kind(queue, capability.name, capability.version, event_format, floating)
        for queue in node.queues
        for capability in node.capabilities
        for event_format in FORMATS
        for floating in (False, True)
    }
    candidates: Iterable[Kind] = sorted(own | set(catalogue.kinds), key=_kind_order)
    return tuple(kind for kind in candidates if serves(node, kind, catalogue))


def has_other_code(node: NodeRecord, catalogue: Catalogue) -> bool:
    """Return whether another node has other code for a version that this node has."""
    own = {(capability.name, capability.version): capability.fingerprint for capability in node.capabilities}
    others = (row.record for row in catalogue.nodes if row.record.node_id != node.node_id)
    return any(
        own.get((capability.name, capability.version), capability.fingerprint) != capability.fingerprint
        for other in others
        for capability in other.capabilities
    )


def _kind_order(kind: Kind) -> tuple[str, str, str, int, bool]:
    return kind.queue, kind.name, kind.version, kind.format, kind.floating


def is_living(node: NodeRow, now: int) -> bool:
    """Return whether a reader should take a node for alive: not dead, and renewed within three leases.

    For what people are shown only: nobody acts on a lapse alone (protocol rule 11).
    """
    return not node.dead and now - node.renewed_at <= 3 * node.record.lease
