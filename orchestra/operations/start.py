"""Choose the version of a start, and make an id if none is given."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from orchestra.codec import encode
from orchestra.errors import (
    NoVersionInRange,
    UnknownOrchestration,
    UnknownVersion,
    UnreadablePolicy,
)
from orchestra.resolution import LOWEST_VERSION, policy_of, started_versions
from orchestra.store.catalogue import Catalogue
from orchestra.versions import Range, UnknownPolicy, listed, parse_version, resolve, version_key

__all__ = ["chosen_version", "id_of_request", "none_in_range"]


def id_of_request(name: str, request_id: str) -> str:
    """Return an id for a start without one: the same for each repetition of the request (I1)."""
    return blake2b(
        encode([name, request_id], subject="request id").data, digest_size=16
    ).hexdigest()


def chosen_version(
    catalogue: Catalogue,
    name: str,
    version: str | None,
    queue: str,
    *,
    allow_unregistered: bool = False,
) -> str:
    """Return the version that a start takes: one of those that the queue's nodes have.

    If none of these has the name, a version of an earlier start in the queue counts: all workers
    may be restarting. Other queues do not count, unless no node lives at all.

    Args:
        allow_unregistered: choose for a node that is still to come where no node has what is asked
            for: the given version, or the lowest one, which floats to what the first node has.

    Raises:
        UnknownOrchestration, UnknownVersion: no living node that serves the queue has it, and no
            instance was started with it there before.
        NoVersionInRange: they have the name, but no version in the range of its policy.
        UnreadablePolicy: a newer library has set the policy of the name.
        InvalidVersion: it is not semver.
    """
    if version is not None:
        parse_version(version)
    if catalogue.nodes:
        available = catalogue.versions(name, queue) or started_versions(catalogue, name, queue)
    else:
        available = started_versions(catalogue, name)
    if not available and not allow_unregistered:
        raise UnknownOrchestration(_unknown_name(catalogue, name, queue), name=name)
    policy = policy_of(catalogue, name)[0]
    if version is None and isinstance(policy, UnknownPolicy):
        raise UnreadablePolicy(
            f"the version policy of {name!r} is {policy.text!r}, which a newer library has set "
            "and this one cannot read; upgrade the library here, name a version, or set "
            f"another policy with client.set_version_policy({name!r}, ...)",
            name=name,
            value=policy.text,
        )
    chosen = version or resolve(policy, available)
    if allow_unregistered:
        return chosen or LOWEST_VERSION
    if chosen is None and isinstance(policy, Range):
        raise none_in_range(
            name,
            policy,
            available,
            f"that is what its version policy says: change it with client.set_version_policy"
            f"({name!r}, ...), start a runtime that has one, or name a version",
            where=_serving(catalogue, queue),
        )
    if chosen not in available:
        remedy = "start a runtime that has it, or name another version"
        if version is None:
            remedy = (
                f"that is what the version policy of {name!r} says, {policy!r}: change it with "
                f"client.set_version_policy({name!r}, ...), or start a runtime that has the version"
            )
        raise UnknownVersion(
            f"no living node has registered {name!r} {chosen}{_serving(catalogue, queue)} "
            f"(registered: {listed(available)}); {remedy}",
            name=name,
            version=str(chosen),
        )
    return chosen


def none_in_range(
    name: str, policy: Range, available: Iterable[str], remedy: str, *, where: str = ""
) -> NoVersionInRange:
    """Return the error for a range in which no living node has a version."""
    registered = sorted(available, key=version_key)
    return NoVersionInRange(
        f"no living node has registered a version of {name!r} in the range {policy.text!r}{where} "
        f"(registered: {listed(registered)}); {remedy}",
        name=name,
        range=policy.text,
        registered=registered,
    )


def _unknown_name(catalogue: Catalogue, name: str, queue: str) -> str:
    """Return why a name cannot be started in a queue: no living node serves it, or none that serves
    it has the name.
    """
    nodes = [node.record for node in catalogue.nodes]
    elsewhere = sorted(
        {
            one
            for node in nodes
            for one in node.queues
            if any(name == has.name for has in node.capabilities)
        }
    )
    if elsewhere:
        return (
            f"no living node has registered orchestration {name!r} and serves queue {queue!r} "
            f"(the queues of those that have it: {', '.join(map(repr, elsewhere))}); start a "
            "runtime that serves it, or name another queue"
        )
    known = sorted({capability.name for node in nodes for capability in node.capabilities})
    have = ", ".join(map(repr, known)) or "nothing"
    return (
        f"no living node has registered orchestration {name!r} (registered: {have}); start a "
        "runtime that has it"
    )


def _serving(catalogue: Catalogue, queue: str) -> str:
    """Return the queue as a part of a sentence, if it is not the only one."""
    queues = {one for node in catalogue.nodes for one in node.record.queues}
    return "" if queues <= {queue} else f" and serves queue {queue!r}"
