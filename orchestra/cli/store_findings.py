"""Findings about a store as a whole, of any provider: schema, levels, retention, clock. Pure
functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from orchestra.cli.checks import Check, Verdict
from orchestra.cli.wording import ago, count_of, duration_of, first_of
from orchestra.resolution import has_readable_policy
from orchestra.store.diagnosis import LISTED, Ended, Population, SchemaState, Stray, Strayed

__all__ = ["clock_check", "levels_check", "retention_check", "schema_check", "strays_check"]

_CLOCK_TOLERANCE: Final = 1_000_000

_MANY_ENDED: Final = 100_000
"""The number of ended instances without an expiry that is worth a notice."""


def schema_check(schema: SchemaState) -> Check:
    """Judge whether this library can work with the store's schema."""
    if schema.levels is not None and schema.levels.lowest_reader > schema.reads:
        return Check(
            "schema",
            Verdict.FAILURE,
            f"schema {schema.number}; the store refuses libraries below level "
            f"{schema.levels.lowest_reader}, and this one reads up to level {schema.reads}: its "
            "contents were not examined",
            remedy="Use the library that the services use.",
        )
    if schema.number < schema.known:
        return Check(
            "schema",
            Verdict.NOTICE,
            f"schema {schema.number}; this library has {schema.known}: the store's contents were "
            "not examined",
            remedy="The next runtime of this library that opens the store migrates it, if it may.",
        )
    details = (
        *(f"missing: {name}" for name in schema.missing),
        *(f"changed: {name}" for name in schema.changed),
        *(f"not valid: {name}" for name in schema.invalid),
        *(f"not of this library: {name}" for name in schema.added),
    )
    if schema.missing or schema.changed:
        return Check(
            "schema",
            Verdict.FAILURE,
            f"schema {schema.number}, but it differs from the one that the migrations make",
            details,
            remedy="Undo the change, or restore a backup.",
        )
    if schema.invalid:
        return Check(
            "schema",
            Verdict.WARNING,
            f"schema {schema.number}, with indexes that the server does not use: building them "
            "failed or was aborted",
            details,
            remedy="REINDEX INDEX each of them. If that fails, remove the rows it names first.",
        )
    if schema.number > schema.known:
        return Check(
            "schema",
            Verdict.NOTICE,
            f"schema {schema.number}; this library has {schema.known}, and can work with it",
            remedy="Upgrade the nodes to the newer library.",
        )
    if schema.added:
        return Check("schema", Verdict.NOTICE, f"schema {schema.number}, and more", details)
    return Check("schema", Verdict.OK, f"schema {schema.number}")


def levels_check(found: Population) -> Check:
    """Judge how libraries of different ages share the store.

    The details list what each node reads and writes, and what keeps the level from rising.
    """
    catalogue = found.catalogue
    nodes, levels, library = catalogue.nodes, catalogue.levels, catalogue.library
    details = [
        f"{node.record.node_id} (library {node.record.library}): reads level "
        f"{node.record.reads}, wants level {node.record.writes} to be written, reads event "
        f"formats {', '.join(map(str, node.record.formats))}"
        for node in nodes
    ]
    unreadable = [
        f"the version policy of {name!r} is {row.value!r}; a newer library has set it, and this "
        "one cannot read it"
        for name, row in sorted(catalogue.policies.items())
        if not has_readable_policy(catalogue, name)
    ]
    text = f"written at level {levels.write}, lowest reader {levels.lowest_reader}"
    wanted = max((node.record.writes for node in nodes), default=levels.write)
    older = [node for node in nodes if node.record.reads < wanted]
    if wanted > levels.write and older:
        blocking = ", ".join(node.record.node_id for node in older[:LISTED])
        return Check(
            "levels",
            Verdict.NOTICE,
            f"{text}; nodes want level {wanted}, and {count_of(len(older), 'node')} of an older "
            "library cannot read it",
            (*details, *unreadable, f"in the way: {blocking}"),
            remedy="Upgrade these nodes, or stop them. The level then rises by itself.",
        )
    if wanted > levels.write:
        text += f"; level {wanted} follows when a node next renews its lease"
    if levels.write > library.level:
        text += f"; this library reads up to level {library.level}"
    if unreadable or levels.write > library.level:
        return Check(
            "levels",
            Verdict.NOTICE,
            text,
            (*details, *unreadable),
            remedy="Use the library that the services use: this one cannot judge newer kinds.",
        )
    return Check("levels", Verdict.OK, text, tuple(details))


def retention_check(ended: Ended) -> Check:
    """Judge how many ended instances the store keeps."""
    if not ended.count:
        return Check("retention", Verdict.OK, "no instance has ended")
    text = (
        f"{count_of(ended.count, 'ended instance')}: {ended.expiring:,} expire ({ended.due:,} now)"
    )
    kept = ended.count - ended.expiring
    if kept:
        text += f", {kept:,} stay until they are deleted"
    if kept >= _MANY_ENDED:
        return Check(
            "retention",
            Verdict.NOTICE,
            text,
            remedy=(
                "Retention(finished=...) gives an expiry to instances that end from then on. "
                "client.purge deletes those that have ended."
            ),
        )
    return Check("retention", Verdict.OK, text)


_STRAYED: Final = {
    Strayed.STREAM: "stream {name!r} of {id}: the instance is not there",
    Strayed.ITEMS: "items of stream {name!r} of {id}: the stream is not there",
    Strayed.GAP: "stream {name!r} of {id}: items between its first and its last one are missing",
    Strayed.JOURNAL: "{name} of {id}: no attempt of the activity will read these steps",
    Strayed.REQUEST: "request {name} to {id}: the instance is not there",
    Strayed.SLOTS: "slots of schedule {id}: the schedule is not there",
}


def strays_check(strays: Sequence[Stray]) -> Check:
    """Judge whether rows of streams, journals, requests and schedules have what they belong to."""
    if not strays:
        return Check("strays", Verdict.OK, "no row lacks what it belongs to")
    lines = [_STRAYED[one.what].format(id=one.id, name=one.name) for one in strays]
    return Check(
        "strays",
        Verdict.WARNING,
        f"{count_of(len(strays), 'group')} of rows lack what they belong to",
        first_of(lines),
        remedy=(
            "The library leaves none: look for what else writes to the store, or was restored "
            "without the rest. A reader of a stream with a gap gets what there is."
        ),
    )


def clock_check(newest: int | None, now: int, whose: str = "this machine's") -> Check:
    """Judge the clock that sets the store's time, by the newest row."""
    if newest is None:
        return Check("clock", Verdict.OK, "no row has been written yet")
    ahead = newest - now
    if ahead > _CLOCK_TOLERANCE:
        return Check(
            "clock",
            Verdict.WARNING,
            f"the newest row was written {duration_of(ahead)} in the future",
            remedy=(
                f"Set {whose} clock right. If the clock was ahead before, timers that were set "
                "then fire late by the difference."
            ),
        )
    return Check("clock", Verdict.OK, f"newest row written {ago(max(-ahead, 0))}")
