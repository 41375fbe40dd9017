"""Resolve versions, and decide which nodes may run an instance.

Versions are resolved at a start, at a boundary, and while an execution waits to be opened; at no
other moment. All nodes and clients resolve alike, from the catalogue in the store.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from orchestra.levels import BASE_LEVEL
from orchestra.store.catalogue import Catalogue, NodeRecord, NodeRow
from orchestra.store.executions import Resolution
from orchestra.store.instances import Pin
from orchestra.store.kinds import ResolvedBy
from orchestra.store.routes import Kind
from orchestra.versions import (
    Exact,
    Latest,
    Policy,
    Range,
    UnknownPolicy,
    listed,
    policy_from_text,
    policy_to_text,
    resolve,
    version_key,
)

__all__ = [
    "LOWEST_VERSION",
    "boundary_version",
    "changed_policies",
    "common_format",
    "has_other_code",
    "has_readable_policy",
    "has_untried_code",
    "is_living",
    "next_level",
    "opening_version",
    "policy_level",
    "policy_of",
    "resolution_level",
    "servable_kinds",
    "serves",
    "shown_kind",
    "start_version",
    "started_versions",
    "stored_policy",
    "why_none_in_range",
    "why_unreadable",
]

LOWEST_VERSION: Final = "0.0.0-0"
"""The version of a detached start whose name no node has. It floats up to the first deployed
version.

It does not make the name known: a misspelt start must not make the next one succeed.
"""


_NEVER_SET: Final = Latest(), 0


def policy_of(catalogue: Catalogue, name: str) -> tuple[Policy | UnknownPolicy, int]:
    """Return the policy of a name and its revision; ``Latest()`` at revision 0 if none was ever
    set.

    A newer library's policy is never read as another one: this library chooses no version by it
    (protocol rule 37).
    """
    row = catalogue.policies.get(name)
    return (
        _NEVER_SET
        if row is None
        else (policy_from_text(row.value, catalogue.library.policies), row.revision)
    )


def stored_policy(catalogue: Catalogue, policy: Policy) -> str:
    """Return the stored form of a policy.

    Raises:
        LevelTooLow: a living node could not read it.
    """
    return policy_to_text(policy, catalogue.library.policies, catalogue.levels.write)


def policy_level(catalogue: Catalogue, name: str) -> int:
    """Return the level that a library must read to choose versions of a name."""
    row, library = catalogue.policies.get(name), catalogue.library
    if row is None:
        return BASE_LEVEL
    if isinstance(policy_of(catalogue, name)[0], UnknownPolicy):
        return library.level + 1
    return library.policies.level(row.value.partition(":")[0])


def why_unreadable(catalogue: Catalogue, kind: Kind) -> str | None:
    """Return why no living node reads instances of a kind; ``None``: a node does, but lacks the
    code.
    """
    nodes = [row.record for row in catalogue.nodes if is_living(row, catalogue.now)]
    if not nodes:
        return None
    level = max(kind.level, policy_level(catalogue, kind.name) if kind.floating else BASE_LEVEL)
    reads = max(node.reads for node in nodes)
    if level > reads:
        what = (
            f"version policy {catalogue.policies[kind.name].value!r}"
            if level > kind.level
            else "something"
        )
        return (
            f"{what} of it is of level {level}, and living nodes read up to {reads}; start a node "
            "with the newer library"
        )
    if not any(kind.format in node.formats for node in nodes):
        return (
            f"its history is in format {kind.format}, which no living node reads; start a node "
            "with the newer library"
        )
    return None


def why_none_in_range(catalogue: Catalogue, kind: Kind) -> str | None:
    """Return why a start by code waits for a version in the range of its policy; ``None``: it does
    not.
    """
    policy = policy_of(catalogue, kind.name)[0] if kind.floating else None
    registered = catalogue.versions(kind.name, kind.queue)
    if not isinstance(policy, Range) or kind.version != LOWEST_VERSION or not registered:
        return None
    return (
        f"no living node has registered a version of {kind.name!r} in the range "
        f"{policy.text!r} of its policy (registered: {listed(registered)})"
    )


def has_readable_policy(catalogue: Catalogue, name: str) -> bool:
    """Return whether this library can choose versions of a name."""
    return not isinstance(policy_of(catalogue, name)[0], UnknownPolicy)


def changed_policies(before: Catalogue, after: Catalogue) -> list[str]:
    """Return the names whose policy changed between two catalogues."""
    return [
        name for name, row in after.policies.items() if row.revision > policy_of(before, name)[1]
    ]


def started_versions(catalogue: Catalogue, name: str, queue: str | None = None) -> frozenset[str]:
    """Return the versions of earlier starts of a name by policy, in a queue, or in any if none is
    given.
    """
    return frozenset(
        kind.version
        for kind in catalogue.kinds
        if kind.name == name
        and kind.floating
        and kind.version != LOWEST_VERSION
        and queue in {None, kind.queue}
    )


def start_version(catalogue: Catalogue, name: str, queue: str | None = None) -> str | None:
    """Return the version of a start by code, which cannot be refused; ``None``: the name is
    unknown.

    It is a version of living nodes that serve the queue, or else of any node. If no node has the
    name, it is a version of earlier starts: all workers may be restarting. If the policy chooses
    none of these, or this library cannot read it, the start waits under the lowest version for a
    node that can choose.
    """
    versions = (
        catalogue.versions(name, queue)
        or catalogue.versions(name)
        or started_versions(catalogue, name)
    )
    if not versions:
        return None
    return resolve(policy_of(catalogue, name)[0], versions) or LOWEST_VERSION


def opening_version(catalogue: Catalogue, kind: Kind) -> str:
    """Return the version with which a waiting execution opens; a floating one never goes below the
    recorded one.
    """
    if not kind.floating:
        return kind.version
    resolved = resolve(
        policy_of(catalogue, kind.name)[0], catalogue.versions(kind.name, kind.queue)
    )
    # If only build metadata differs, the existing version counts: a new build must continue the old
    # one's instances.
    return kind.version if resolved is None else max(resolved, kind.version, key=version_key)


def shown_kind(catalogue: Catalogue, kind: Kind) -> str:
    """Return the code that an instance of a kind waits for, for people; the version only if it is a
    real one.
    """
    version = opening_version(catalogue, kind)
    return (
        repr(kind.name)
        if kind.floating and version == LOWEST_VERSION
        else f"{kind.name!r} {version}"
    )


def boundary_version(
    catalogue: Catalogue,
    kind: Kind,
    current: str,
    *,
    explicit: str | None,
    pin: Pin | None,
    node: str,
) -> tuple[str, Resolution]:
    """Return the version of the next execution of an instance of this kind, and how it was chosen.

    The code's own version comes first, then an operator's pin that has not expired, then the
    policy. Only ``Exact`` goes
    down. If the policy chooses no living version, the execution stays on its version. If this
    library cannot read the policy, it stays until a node that can opens it.
    """
    policy, revision = policy_of(catalogue, kind.name)
    if explicit is not None:
        return explicit, Resolution(ResolvedBy.EXPLICIT, node, revision)
    if pin is not None and pin.holds(catalogue.now):
        return pin.version, Resolution(ResolvedBy.PIN, node, revision)
    resolved = resolve(policy, catalogue.versions(kind.name, kind.queue))
    if resolved is None:
        resolved = current
    elif not isinstance(policy, Exact):
        resolved = max(resolved, current, key=version_key)
    return resolved, Resolution(ResolvedBy.POLICY, node, revision)


def serves(node: NodeRecord, kind: Kind, catalogue: Catalogue) -> bool:
    """Return whether a node can run instances of a kind now."""
    if kind.format not in node.formats or kind.queue not in node.queues or kind.level > node.reads:
        return False
    if kind.floating and policy_level(catalogue, kind.name) > node.reads:
        return False
    if kind.floating and not has_readable_policy(
        catalogue, kind.name
    ):  # by this library; the node itself may know more
        return any(capability.name == kind.name for capability in node.capabilities)
    version = opening_version(catalogue, kind)
    return any(
        capability.name == kind.name and capability.version == version
        for capability in node.capabilities
    )


def servable_kinds(node: NodeRecord, catalogue: Catalogue) -> tuple[Kind, ...]:
    """Return the kinds that a node may claim: kinds in the store, and kinds that its registry
    implies.
    """
    own = {
        Kind(queue, capability.name, capability.version, event_format, floating)
        for queue in node.queues
        for capability in node.capabilities
        for event_format in node.formats
        for floating in (False, True)
    }
    candidates: Iterable[Kind] = sorted(own | set(catalogue.kinds), key=_kind_order)
    return tuple(kind for kind in candidates if serves(node, kind, catalogue))


def common_format(node: NodeRecord, catalogue: Catalogue) -> int:
    """Return the highest event format that a node and all living nodes read: the format of new
    executions (rule 38).
    """
    common = set(node.formats).intersection(*(row.record.formats for row in catalogue.nodes))
    return max(common, default=min(node.formats))


def next_level(node: NodeRecord, catalogue: Catalogue) -> int | None:
    """Return the level to which a node may raise the store's, if all living nodes read it;
    ``None``: not now.
    """
    wanted = node.writes
    if wanted <= catalogue.levels.write or any(
        row.record.reads < wanted for row in catalogue.nodes
    ):
        return None
    return wanted


def resolution_level(catalogue: Catalogue, how: ResolvedBy) -> int:
    """Return the level that a library must read to know how a version was chosen, if it is written
    now.
    """
    return catalogue.library.resolutions.level_at(how, catalogue.levels.write)


def has_other_code(node: NodeRecord, catalogue: Catalogue) -> bool:
    """Return whether another node has other code for a version that this node has."""
    own = {
        (capability.name, capability.version): capability.fingerprint
        for capability in node.capabilities
    }
    others = (row.record for row in catalogue.nodes if row.record.node_id != node.node_id)
    return any(
        own.get((capability.name, capability.version), capability.fingerprint)
        != capability.fingerprint
        for other in others
        for capability in other.capabilities
    )


def has_untried_code(
    catalogue: Catalogue, kind: Kind, version: str, tried: Collection[str]
) -> bool:
    """Return whether a node that can run instances of a kind has code of a version that was not
    tried: another fingerprint.
    """
    return any(
        capability.name == kind.name
        and capability.version == version
        and capability.fingerprint not in tried
        and is_living(row, catalogue.now)
        and serves(row.record, kind, catalogue)
        for row in catalogue.nodes
        for capability in row.record.capabilities
    )


def _kind_order(kind: Kind) -> tuple[str, str, str, int, bool, int]:
    return kind.queue, kind.name, kind.version, kind.format, kind.floating, kind.level


def is_living(node: NodeRow, now: int) -> bool:
    """Return whether a node looks alive: not dead, and renewed within three leases.

    For people only: no node acts on a lapse alone (protocol rule 11).
    """
    return not node.dead and now - node.renewed_at <= 3 * node.record.lease
