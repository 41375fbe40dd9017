"""Findings about instances that cannot go on and activities that no node runs. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from orchestra.cli.checks import Check, Verdict
from orchestra.cli.node_findings import living_nodes
from orchestra.cli.wording import activities_of, ago, count_of, first_of
from orchestra.client.describing import why_unserved
from orchestra.resolution import serves, shown_kind, why_unreadable
from orchestra.store.catalogue import Catalogue
from orchestra.store.diagnosis import LISTED, LOOKED_AT, HeldInstance, Population, Tally
from orchestra.store.kinds import HoldKind
from orchestra.store.routes import Kind

__all__ = ["activities_check", "held_check", "tallies_check"]

_OF_CODE: Final = (HoldKind.ERROR, HoldKind.LIMIT)
"""Holds whose cause is the code of a version: one line for each version is enough."""


def held_check(found: Population) -> Check:
    """Judge which instances cannot go on, in the words of ``InstanceInfo.held_reason``."""
    catalogue = living_nodes(found)
    has_nodes = bool(catalogue.nodes)
    held = sum(tally.held for tally in found.tallies)
    crashing = sum(tally.crashing for tally in found.tallies)
    unserved = _unserved(found.tallies, catalogue)
    told, details = _held_lines(found.held, catalogue)
    details += [f"{count_of(held - told, 'more held instance')}"] if held > told else []
    if has_nodes:
        details += first_of(_unserved_lines(unserved, catalogue))
    details += [
        f"{one.instance_id}: crashing: {one.takeovers} nodes in a row were lost while they ran it"
        for one in found.crashing
    ]
    if crashing > len(found.crashing):
        details.append(count_of(crashing - len(found.crashing), "more crashing instance"))
    counts = [
        f"{number:,} {word}"
        for number, word in (
            (held, "held"),
            (sum(unserved.values()) if has_nodes else 0, "unserved"),
            (crashing, "crashing"),
        )
        if number
    ]
    count = sum(tally.open for tally in found.tallies)
    text = f"{', '.join(counts) or 'none'} of {count_of(count, 'open instance')}"
    if counts:
        return Check(
            "held",
            Verdict.WARNING,
            text,
            tuple(details),
            remedy=_held_remedy(found, held, crashing, unserved if has_nodes else {}),
        )
    if unserved:
        return Check(
            "held",
            Verdict.NOTICE,
            f"{text}; no node runs, so the deployed versions are not known",
        )
    return Check("held", Verdict.OK, text)


def _held_lines(held: Iterable[HeldInstance], catalogue: Catalogue) -> tuple[int, list[str]]:
    """Return how many held instances the lines cover, and the lines.

    Errors and limits concern code: one line for each version. All other holds get a line each.
    """
    single: list[str] = []
    by_code: dict[tuple[str, HoldKind], list[HeldInstance]] = {}
    for one in held:
        if isinstance(one.why, HoldKind) and one.why in _OF_CODE:
            by_code.setdefault((_shown(one.kind, catalogue), one.why), []).append(one)
        else:
            single.append(f"{one.instance_id}: {one.reason}")
    groups = sorted(by_code.items(), key=lambda group: -len(group[1]))[:LISTED]
    lines = [
        f"{count_of(len(ones), 'instance')} of {code}, first {ones[0].instance_id}: "
        f"{ones[0].reason}"
        for (code, _), ones in groups
    ]
    return sum(len(ones) for _, ones in groups) + len(single[:LISTED]), lines + single[:LISTED]


def _shown(kind: Kind | None, catalogue: Catalogue) -> str:
    return "a kind that is not in the store" if kind is None else shown_kind(catalogue, kind)


def _unserved(tallies: Iterable[Tally], catalogue: Catalogue) -> dict[Kind | None, int]:
    """Return the kinds that no living node can run, with how many instances of each wait without
    a hold of their own.
    """
    return {
        tally.kind: tally.open - tally.held
        for tally in tallies
        if tally.open > tally.held
        and (
            tally.kind is None
            or not any(serves(node.record, tally.kind, catalogue) for node in catalogue.nodes)
        )
    }


def _unserved_lines(unserved: Mapping[Kind | None, int], catalogue: Catalogue) -> list[str]:
    return [
        f"{count_of(number, 'instance')}: "
        + ("of a kind that is not in the store" if kind is None else _why_unserved(kind, catalogue))
        for kind, number in unserved.items()
    ]


def _why_unserved(kind: Kind, catalogue: Catalogue) -> str:
    reason = why_unreadable(catalogue, kind)
    return (
        f"no living node has registered {shown_kind(catalogue, kind)}"
        if reason is None
        else f"no living node reads it: {reason}"
    )


def _held_remedy(
    found: Population, held: int, crashing: int, unserved: Mapping[Kind | None, int]
) -> str:
    parts: list[str] = []
    reasons = {one.why for one in found.held}
    if held:
        parts.append(
            "Deploy code that can go on with the held instances (Operating in the guide says "
            "which). Nodes then try it by themselves."
        )
    if HoldKind.ERROR in reasons:
        parts.append(
            "Where the cause of an error lies elsewhere, client.release() lets the same code try "
            "once more."
        )
    if HoldKind.LIMIT in reasons:
        parts.append("A higher Runtime(limits=...) releases what a limit holds.")
    if unserved:
        parts.append("Deploy the versions that no node has.")
    if crashing:
        parts.append("Look in the logs for what ended the processes that ran the crashing ones.")
    return " ".join(parts)


def tallies_check(found: Population) -> Check:
    """Judge whether the numbers that the store keeps are those of its rows."""
    if not found.miscounts:
        return Check("tallies", Verdict.OK, "the store's counts of instances are right")
    lines = [
        f"{_shown(one.kind, found.catalogue)}: counted {one.told:,}, found {one.found:,}"
        for one in found.miscounts
    ]
    return Check(
        "tallies",
        Verdict.WARNING,
        f"{count_of(len(lines), 'count')} of instances differ from the rows: counts and version "
        "reports are wrong, and nothing else",
        first_of(lines),
        remedy=(
            "A trigger of the table instance was away for a while: see `schema`. Operating in "
            "the guide has the statements that count again."
        ),
    )


def activities_check(found: Population) -> Check:
    """Judge whether nodes will run the activities that wait, in the words of
    ``PendingActivity.held_reason``.
    """
    catalogue = living_nodes(found)
    check = _waiting_check(found, catalogue)
    if not found.unread:
        return check
    number = len(found.unread)
    which = f"{number:,} or more activities" if number == LOOKED_AT else activities_of(number)
    lines = [f"{one.instance_id}, event {one.event_id}: {one.error}" for one in found.unread]
    return replace(
        check,
        verdict=Verdict.WARNING if catalogue.nodes else Verdict.NOTICE,
        text=f"{check.text}; no code that was tried could read the arguments of {which}",
        details=(*check.details, *first_of(lines)),
        remedy=(
            f"{check.remedy} Deploy a worker whose code reads the arguments, or terminate the "
            "instances."
        ).lstrip(),
    )


def _waiting_check(found: Population, catalogue: Catalogue) -> Check:
    count = sum(waiting.count for waiting in found.waiting)
    if not count:
        return Check("activities", Verdict.OK, "none waits for a node")
    unserved = [
        (waiting, reason)
        for waiting in found.waiting
        if (reason := why_unserved(waiting.route, catalogue)) is not None
    ]
    text = f"{activities_of(count)} {'waits' if count == 1 else 'wait'} for a node"
    if not unserved:
        return Check("activities", Verdict.OK, f"{text} that has a place free")
    if not catalogue.nodes:
        return Check(
            "activities",
            Verdict.NOTICE,
            f"{text}; no node runs, so the deployed activities are not known",
        )
    lines = [
        f"{activities_of(waiting.count)}, the oldest asked for "
        f"{ago(found.catalogue.now - waiting.since)}: {reason}"
        for waiting, reason in unserved
    ]
    return Check(
        "activities",
        Verdict.WARNING,
        f"{text}: {sum(waiting.count for waiting, _ in unserved):,} in vain",
        first_of(lines),
        remedy=(
            "Start a runtime that has them and serves their queues, Runtime(activities=..., "
            "queues=...). The activities then run by themselves. Where the name or the queue is a "
            "mistake, terminate the waiting instances."
        ),
    )
