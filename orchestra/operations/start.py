"""Choose the version of a start, and make an id if none is given."""

from __future__ import annotations

from hashlib import blake2b

from orchestra.codec import encode
from orchestra.errors import UnknownOrchestration, UnknownVersion, UnreadablePolicy
from orchestra.resolution import policy_of, started_versions
from orchestra.store.catalogue import Catalogue
from orchestra.versions import UnknownPolicy, listed, parse_version, resolve

__all__ = ["chosen_version", "id_of_request"]


def id_of_request(name: str, request_id: str) -> str:
    """Return an id for a start without one: the same for each repetition of the request (I1)."""
    return blake2b(
        encode([name, request_id], subject="request id").data, digest_size=16
    ).hexdigest()


def chosen_version(catalogue: Catalogue, name: str, version: str | None, queue: str) -> str:
    """Return the version that a start takes: one of those that the queue's nodes have.

    If none of these has the name, a version of an earlier start in the queue counts: all workers
    may be restarting. Other queues do not count, unless no node lives at all.

    Raises:
        UnknownOrchestration, UnknownVersion: no living node that serves the queue has it, and no
            instance was started with it there before.
        UnreadablePolicy: a newer library has set the policy of the name.
        InvalidVersion: it is not semver.
    """
    if version is not None:
        parse_version(version)
    if catalogue.nodes:
        available = catalogue.versions(name, queue) or started_versions(catalogue, name, queue)
    else:
        available = started_versions(catalogue, name)
    if not available:
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
