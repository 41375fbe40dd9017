"""What a node looks at before it joins a store: the part of a preflight that needs no state.

It reads the numbers that the store keeps, so it takes a few milliseconds however many instances
there are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace

from orchestra.operations.preflight import (
    PreflightFinding,
    PreflightFindingKind,
    PreflightReport,
)
from orchestra.resolution import is_living, opening_version, serves, why_unreadable
from orchestra.store.catalogue import Catalogue, NodeRecord, NodeRow
from orchestra.store.census import Census
from orchestra.store.kinds import Status
from orchestra.store.routes import Kind

__all__ = ["check_start", "other_code"]


def check_start(node: NodeRecord, catalogue: Catalogue, census: Census) -> PreflightReport:
    """Return what a node that is about to join would strand, or run on other code.

    A version that open instances need and neither a living node nor this one has is an error if
    this node has the name, and else a warning: another service may bring it.
    """
    number: Counter[Kind] = Counter()
    for row in census.tally:
        if row.status is Status.OPEN:
            number[row.kind] += row.number
    living = [row for row in catalogue.nodes if is_living(row, catalogue.now)]
    joined = NodeRow(node, catalogue.now, catalogue.now, 0, dead=False)
    after = replace(catalogue, nodes=(*living, joined))
    findings = [*_missing(node, after, number), *_changed(node, census, number)]
    order = {"error": 0, "warning": 1, "note": 2}
    findings.sort(key=lambda one: (order[one.severity], one.name, one.version))
    return PreflightReport(number.total(), tuple(findings), ())


def other_code(node: NodeRecord, catalogue: Catalogue) -> tuple[PreflightFinding, ...]:
    """Return for each version of a node the living nodes that have other code for it."""
    own = {(has.name, has.version): has.fingerprint for has in node.capabilities}
    others: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in catalogue.nodes:
        if row.record.node_id == node.node_id or not is_living(row, catalogue.now):
            continue
        for has in row.record.capabilities:
            key = has.name, has.version
            if own.get(key, has.fingerprint) != has.fingerprint:
                others[key].append(f"node {row.record.node_id} has code {has.fingerprint}")
    return tuple(
        _finding(
            PreflightFindingKind.CHANGED_CODE,
            *key,
            f"this node has code {own[key]}, and {', '.join(sorted(found))}; register changed code "
            "under a new version, or start the same code everywhere",
        )
        for key, found in sorted(others.items())
    )


def _missing(
    node: NodeRecord, catalogue: Catalogue, number: Counter[Kind]
) -> Iterator[PreflightFinding]:
    """Yield the versions that open instances need and no node has, once this one has joined."""
    own = {has.name for has in node.capabilities}
    missing: Counter[tuple[str, str, str]] = Counter()
    for kind, count in number.items():
        if any(serves(row.record, kind, catalogue) for row in catalogue.nodes):
            continue
        reason = why_unreadable(catalogue, kind)
        text = (
            "open instances need it, and neither a living node nor this one has it; they are held "
            "until one does"
            if reason is None
            else f"no living node reads open instances of it, nor does this one: {reason}"
        )
        missing[kind.name, opening_version(catalogue, kind), text] += count
    for (name, version, text), count in sorted(missing.items()):
        found = _finding(PreflightFindingKind.MISSING_VERSION, name, version, text, count)
        yield replace(found, severity="error" if name in own else "warning")


def _changed(node: NodeRecord, census: Census, number: Counter[Kind]) -> Iterator[PreflightFinding]:
    """Yield the versions of this node on which open executions began with other code."""
    own = {(has.name, has.version): has.fingerprint for has in node.capabilities}
    begun: dict[tuple[str, str], set[str]] = defaultdict(set)
    for group in census.open_code:
        key = group.name, group.version
        if group.fingerprint not in {None, own.get(key, group.fingerprint)}:
            begun[key].add(group.fingerprint or "")
    for (name, version), codes in sorted(begun.items()):
        live = sum(
            count
            for kind, count in number.items()
            if not kind.floating and (kind.name, kind.version) == (name, version)
        )
        yield _finding(
            PreflightFindingKind.CHANGED_CODE,
            name,
            version,
            f"this node has code {own[name, version]}, and open executions began with code "
            f"{', '.join(sorted(codes))}; register changed code under a new version",
            live,
        )


def _finding(
    kind: PreflightFindingKind, name: str, version: str, message: str, instances: int = 0
) -> PreflightFinding:
    return PreflightFinding(kind, "warning", name, version, "", "", message, instances)
