"""Facts about a store as findings: what is well, what is not, and what to do. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum
from typing import Final

from orchestra.cli.checks import Check, Verdict
from orchestra.client.describing import why_unserved
from orchestra.providers.sqlite.diagnosis import LOG_LIMIT, Pragmas, WriteLockState
from orchestra.resolution import has_readable_policy, is_living, serves, shown_kind, why_unreadable
from orchestra.store.catalogue import Catalogue, NodeRow
from orchestra.store.diagnosis import (
    LISTED,
    LOOKED_AT,
    Ended,
    HeldInstance,
    NodeLockState,
    Population,
    SchemaState,
    Tally,
)
from orchestra.store.kinds import HoldKind
from orchestra.store.routes import Kind

__all__ = [
    "activities_check",
    "clock_check",
    "ghosts_check",
    "held_check",
    "integrity_check",
    "levels_check",
    "lock_check",
    "nodes_check",
    "pragmas_check",
    "retention_check",
    "schema_check",
    "sqlite_check",
]

_OLDEST_LIBRARY: Final = (3, 37, 0)
"""The first that knows STRICT tables."""

_RESET_BUG: Final = ((3, 7, 0), (3, 51, 2))
_RESET_BUG_FIXED_IN: Final = {(3, 44): 6, (3, 50): 7}
"""Older series into which the fix was taken, and from which patch on they have it."""

_CLOCK_TOLERANCE: Final = 1_000_000

_MUCH_FREE: Final = 64 * 1024 * 1024
"""Bytes of free pages from which on it is worth a word that most of the file is free."""

_MANY_ENDED: Final = 100_000
"""Ended instances that nothing deletes from which on it is worth a word."""

_OF_CODE: Final = (HoldKind.ERROR, HoldKind.LIMIT)

Version = tuple[int, int, int]


# --- the library and the file -----------------------------------------------------------------


def sqlite_check(version: Version) -> Check:
    """Judge the SQLite library of this process; the services' own may be another one."""
    text = ".".join(map(str, version))
    if version < _OLDEST_LIBRARY:
        return Check(
            "sqlite",
            Verdict.FAILURE,
            f"{text} is too old: it cannot read STRICT tables",
            remedy="Use a Python with SQLite 3.37 or later; best 3.51.3 or later.",
        )
    if _has_reset_bug(version):
        return Check(
            "sqlite",
            Verdict.NOTICE,
            f"{text} has the WAL-reset bug (3.7.0 to 3.51.2, but for fixed patches of old "
            "series), which can damage a file that two connections write at once. The file "
            "lock around each write transaction protects from it.",
            remedy="Let nothing but orchestra write to the file; SQLite 3.51.3 is free of the bug.",
        )
    return Check("sqlite", Verdict.OK, f"{text}, free of the WAL-reset bug")


def _has_reset_bug(version: Version) -> bool:
    first, last = _RESET_BUG
    fixed_in = _RESET_BUG_FIXED_IN.get(version[:2])
    return first <= version <= last and (fixed_in is None or version[2] < fixed_in)


def pragmas_check(pragmas: Pragmas) -> Check:
    """Judge the journal mode and the size of the log."""
    size = _bytes(pragmas.page_size * pragmas.pages)
    free = f", {pragmas.free_pages:,} of {pragmas.pages:,} pages free" if pragmas.free_pages else ""
    text = f"journal mode {pragmas.journal_mode}, file {size}{free}, log {_bytes(pragmas.log_size)}"
    if pragmas.journal_mode is None:
        text = f"at rest, without a log; file {size}{free}"
    elif pragmas.journal_mode != "wal":
        return Check(
            "pragmas",
            Verdict.NOTICE,
            text,
            remedy=(
                "A runtime works with the write-ahead log only, and turns it on when it opens "
                "the file."
            ),
        )
    elif pragmas.log_size > 2 * LOG_LIMIT:
        return Check(
            "pragmas",
            Verdict.WARNING,
            f"{text}: checkpoints do not keep up",
            remedy=(
                "Look for a program that has a read transaction open on the file for long, and "
                "end it."
            ),
        )
    if _is_mostly_free(pragmas):
        return Check(
            "pragmas",
            Verdict.NOTICE,
            f"{text}: most of the file is free",
            remedy=(
                "Nothing need be done: free pages are used again before the file grows. To give "
                "them back to the disk, stop the services and run VACUUM with sqlite3."
            ),
        )
    return Check("pragmas", Verdict.OK, text)


def _is_mostly_free(pragmas: Pragmas) -> bool:
    return (
        2 * pragmas.free_pages > pragmas.pages
        and pragmas.free_pages * pragmas.page_size >= _MUCH_FREE
    )


def integrity_check(faults: tuple[str, ...], *, quick: bool) -> Check:
    """Judge what SQLite found wrong with the file."""
    name = "quick check" if quick else "full check"
    if faults:
        return Check(
            "integrity",
            Verdict.FAILURE,
            f"the {name} finds the file damaged",
            details=faults,
            remedy=(
                "Stop the services and keep a copy of the file and of its -wal. Restore a backup, "
                "or recover with sqlite3's .recover."
            ),
        )
    return Check("integrity", Verdict.OK, f"the {name} finds no fault")


def schema_check(schema: SchemaState) -> Check:
    """Judge whether this library can work with the store."""
    if schema.levels is not None and schema.levels.lowest_reader > schema.reads:
        return Check(
            "schema",
            Verdict.FAILURE,
            f"schema {schema.number}; libraries below level {schema.levels.lowest_reader} are "
            f"refused, and this one reads up to level {schema.reads}, so that what the store "
            "holds is not looked at",
            remedy="Use the library that the services use.",
        )
    if schema.number < schema.known:
        return Check(
            "schema",
            Verdict.NOTICE,
            (
                f"schema {schema.number}; this library has {schema.known}, so that what the store "
                "holds is not looked at"
            ),
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
            f"schema {schema.number}, but somebody has changed it",
            details,
            remedy="Undo the change, or restore a backup.",
        )
    if schema.invalid:
        return Check(
            "schema",
            Verdict.WARNING,
            (
                f"schema {schema.number}, with indexes that the server does not use: making them "
                "has failed, or was given up"
            ),
            details,
            remedy="REINDEX INDEX each of them; if it is refused, remove what it names first.",
        )
    if schema.number > schema.known:
        return Check(
            "schema",
            Verdict.NOTICE,
            f"schema {schema.number}; this library has {schema.known}, and can work with it",
            remedy="Give the nodes the newer library in time.",
        )
    if schema.added:
        return Check("schema", Verdict.NOTICE, f"schema {schema.number}, and more", details)
    return Check("schema", Verdict.OK, f"schema {schema.number}")


def lock_check(lock: WriteLockState) -> Check:
    """Judge who holds the writers' lock."""
    if lock.last is None:
        return Check("lock", Verdict.OK, "nobody has written here yet")
    if lock.stuck:
        return Check(
            "lock",
            Verdict.WARNING,
            (
                f"process {lock.last} holds the write lock, and commits nothing meanwhile; nobody "
                "else can write"
            ),
            remedy=(
                f"See what process {lock.last} does; if it is stopped, continue or kill it. The "
                "lock goes with it."
            ),
        )
    if lock.holder is not None:
        return Check("lock", Verdict.OK, f"process {lock.holder} is writing")
    state = "running" if lock.runs else "gone"
    return Check("lock", Verdict.OK, f"last taken by process {lock.last} ({state})")


# --- nodes ------------------------------------------------------------------------------------


class _Presence(Enum):
    """How a node stands, and what is said of it."""

    LIVING = "alive"
    STALLED = "holds its lock, but gives no sign of life: stopped, or blocked"
    GONE = "its process is gone"
    CUT = "its connection is gone: dead, or making a new one"
    SILENT = "gives no sign of life"


def nodes_check(found: Population) -> Check:
    """Judge who is there."""
    presences = {node.record.node_id: _presence(node, found) for node in found.catalogue.nodes}
    details = [
        _node_line(node, presences[node.record.node_id], found) for node in found.catalogue.nodes
    ]
    now = found.catalogue.now
    details += [
        (
            f"{one.node_id} (process {one.pid} on {one.host}): buried, last seen "
            f"{_ago(now - one.renewed_at)}"
        )
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
            f"{text}: {_count(count, 'open instance')} will go on when a runtime starts",
            tuple(details),
        )
    return Check("nodes", Verdict.NOTICE if found.buried else Verdict.OK, text, tuple(details))


_REMEDIES: Final = {
    _Presence.GONE: (
        "The next runtime that starts on this machine buries the dead node and releases what it "
        "owned: at once, or within a lease if the machine has been restarted since."
    ),
    _Presence.CUT: (
        "A runtime that runs buries a node without a connection after a second or two, and takes "
        "its work over; start one if there is none."
    ),
    _Presence.SILENT: (
        "A runtime that runs buries the silent node once it has watched it for a lease; start one "
        "if there is none."
    ),
    _Presence.STALLED: (
        "See what the stalled process does. Others take its work over once they have watched it "
        "for a lease."
    ),
}


def ghosts_check(found: Population) -> Check:
    """Judge whether instances, or activities that were handed out, are with somebody who is not
    there (protocol rule 12).
    """
    nodes = {node.record.node_id: node for node in found.catalogue.nodes}
    buried = {one.node_id for one in found.buried}
    details: list[str] = []
    instances = activities = 0
    for owner in sorted({*found.owners, *found.takers}):
        node = nodes.get(owner)
        if node is None:
            why = "buried" if owner in buried else "unknown"
        elif _presence(node, found) in (_Presence.GONE, _Presence.CUT, _Presence.SILENT):
            why = _presence(node, found).value
        else:
            continue
        owned, taken = found.owners.get(owner, 0), found.takers.get(owner, 0)
        instances += owned
        activities += taken
        details.append(f"{_possessions(owned, taken)} of {owner}: {why}")
    if not details:
        possessions = _possessions(sum(found.owners.values()), sum(found.takers.values()))
        return Check(
            "ghosts",
            Verdict.OK,
            f"none; {possessions} owned by living nodes" if possessions else "none",
        )
    return Check(
        "ghosts",
        Verdict.WARNING,
        f"{_possessions(instances, activities)} owned by nodes that are not there",
        _first(details),
        remedy="The next runtime start releases them; a runtime that runs does so within a lease.",
    )


def _possessions(instances: int, activities: int) -> str:
    """Return what nodes have: instances, and activities that were handed out to them; nothing where
    they have nothing.
    """
    counts = [_count(instances, "instance")] if instances else []
    counts += [_activities(activities)] if activities else []
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
    seen = _ago(found.catalogue.now - node.renewed_at)
    owned = found.owners.get(record.node_id, 0)
    return (
        f"{record.node_id} (process {record.pid} on {record.host}): {presence.value}, last seen "
        f"{seen}, owns {owned:,}"
    )


def levels_check(found: Population) -> Check:
    """Judge how libraries of different ages work on the store: what is written, what nodes read,
    what is in the way.
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
        (
            f"the version policy of {name!r} is {row.value!r}, which this library cannot read: a "
            "newer one has set it"
        )
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
            (
                f"{text}; nodes want level {wanted}, and {_count(len(older), 'node')} of an older "
                "library cannot read it"
            ),
            (*details, *unreadable, f"in the way: {blocking}"),
            remedy=(
                "Give these nodes the newer library too, or stop them; the level then rises by "
                "itself."
            ),
        )
    if wanted > levels.write:
        text += f"; level {wanted} follows when a node next renews"
    if unreadable or levels.write > library.level:
        return Check(
            "levels",
            Verdict.NOTICE,
            text
            if levels.write <= library.level
            else f"{text}; this library reads up to level {library.level}",
            (*details, *unreadable),
            remedy=(
                "Use the library that the services use; what this one does not know it cannot "
                "judge."
            ),
        )
    return Check("levels", Verdict.OK, text, tuple(details))


# --- instances --------------------------------------------------------------------------------


def held_check(found: Population) -> Check:
    """Judge which instances cannot go on, in the words of ``InstanceInfo.held_reason``."""
    there = _there(found)
    living = there.nodes
    held = sum(tally.held for tally in found.tallies)
    unserved = _unserved(found.tallies, there)
    crashing = sum(tally.crashing for tally in found.tallies)
    told, details = _held_lines(found.held, there)
    details += [f"{_count(held - told, 'more held instance')}"] if held > told else []
    if living:
        details += _first(_unserved_lines(unserved, there))
    details += [
        f"{one.instance_id}: crashing: {one.takeovers} nodes in a row were lost while they ran it"
        for one in found.crashing
    ]
    details += (
        [f"{_count(crashing - len(found.crashing), 'more crashing instance')}"]
        if crashing > len(found.crashing)
        else []
    )
    count = sum(tally.open for tally in found.tallies)
    counts = [
        f"{number:,} {word}"
        for number, word in (
            (held, "held"),
            (sum(unserved.values()) if living else 0, "unserved"),
            (crashing, "crashing"),
        )
        if number
    ]
    text = f"{', '.join(counts) or 'none'} of {_count(count, 'open instance')}"
    if counts:
        return Check(
            "held",
            Verdict.WARNING,
            text,
            tuple(details),
            remedy=_held_remedy(found, held, crashing, unserved if living else {}),
        )
    if unserved:
        return Check(
            "held",
            Verdict.NOTICE,
            f"{text}; with no node there, nobody can tell which versions are deployed",
        )
    return Check("held", Verdict.OK, text)


def _held_lines(held: Iterable[HeldInstance], there: Catalogue) -> tuple[int, list[str]]:
    """Return of how many held instances the lines tell, and the lines.

    Errors and limits concern code: one line for each version. What is held for other reasons is an
    instance's own.
    """
    single: list[str] = []
    by_code: dict[tuple[str, HoldKind], list[HeldInstance]] = {}
    for one in held:
        if isinstance(one.why, HoldKind) and one.why in _OF_CODE:
            code = (
                "a kind that is not in the store"
                if one.kind is None
                else shown_kind(there, one.kind)
            )
            by_code.setdefault((code, one.why), []).append(one)
        else:
            single.append(f"{one.instance_id}: {one.reason}")
    groups = sorted(by_code.items(), key=lambda group: -len(group[1]))[:LISTED]
    lines = [
        f"{_count(len(ones), 'instance')} of {code}, first {ones[0].instance_id}: {ones[0].reason}"
        for (code, _), ones in groups
    ]
    return sum(len(ones) for _, ones in groups) + len(single[:LISTED]), lines + single[:LISTED]


def _there(found: Population) -> Catalogue:
    """Return the catalogue with the living nodes only."""
    living = tuple(
        node for node in found.catalogue.nodes if _presence(node, found) is _Presence.LIVING
    )
    return Catalogue(found.catalogue.now, living, found.catalogue.policies, found.catalogue.kinds)


def _unserved(tallies: Iterable[Tally], there: Catalogue) -> dict[Kind | None, int]:
    """Return the kinds that nobody there can run, and how many instances of each wait that are not
    held by themselves.
    """
    return {
        tally.kind: tally.open - tally.held
        for tally in tallies
        if tally.open > tally.held
        and (
            tally.kind is None
            or not any(serves(node.record, tally.kind, there) for node in there.nodes)
        )
    }


def _unserved_lines(unserved: Mapping[Kind | None, int], there: Catalogue) -> list[str]:
    return [
        f"{_count(number, 'instance')}: "
        + ("of a kind that is not in the store" if kind is None else _why_unserved(kind, there))
        for kind, number in unserved.items()
    ]


def _why_unserved(kind: Kind, there: Catalogue) -> str:
    reason = why_unreadable(there, kind)
    return (
        f"no living node has registered {shown_kind(there, kind)}"
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
            "Deploy code that can go on with what is held (ops/operating.md says which); it is "
            "tried by itself."
        )
    if HoldKind.ERROR in reasons:
        parts.append(
            "Where the cause of an error lies elsewhere, client.release() lets the same code try "
            "once more."
        )
    if HoldKind.LIMIT in reasons:
        parts.append("What a limit holds goes on as well once Runtime(limits=...) allows more.")
    if unserved:
        parts.append("Deploy the versions that no node has.")
    if crashing:
        parts.append("Look in the logs for what ended the processes that ran the crashing ones.")
    return " ".join(parts)


def activities_check(found: Population) -> Check:
    """Judge whether somebody will take what is handed out, in the words of
    ``PendingActivity.held_reason``.
    """
    there = _there(found)
    check = _waiting_check(found, there)
    if not found.unread:
        return check
    number = len(found.unread)
    which = f"{number:,} or more activities" if number == LOOKED_AT else _activities(number)
    return replace(
        check,
        verdict=Verdict.WARNING if there.nodes else Verdict.NOTICE,
        text=f"{check.text}; no code that was tried could read the arguments of {which}",
        details=(
            *check.details,
            *_first(
                [f"{one.instance_id}, event {one.event_id}: {one.error}" for one in found.unread]
            ),
        ),
        remedy=(
            f"{check.remedy} Deploy a worker whose code reads the arguments, or terminate the "
            "instances."
        ).lstrip(),
    )


def _waiting_check(found: Population, there: Catalogue) -> Check:
    count = sum(waiting.count for waiting in found.waiting)
    if not count:
        return Check("activities", Verdict.OK, "none waits for a node")
    unserved = [
        (waiting, reason)
        for waiting in found.waiting
        if (reason := why_unserved(waiting.route, there)) is not None
    ]
    text = f"{_activities(count)} {'waits' if count == 1 else 'wait'} for a node"
    if not unserved:
        return Check("activities", Verdict.OK, f"{text} that has a place free")
    if not there.nodes:
        return Check(
            "activities",
            Verdict.NOTICE,
            f"{text}; with no node there, nobody can tell which are deployed",
        )
    stranded = sum(waiting.count for waiting, _ in unserved)
    return Check(
        "activities",
        Verdict.WARNING,
        f"{text}: {stranded:,} in vain",
        _first(
            [
                (
                    f"{_activities(waiting.count)}, the oldest asked for "
                    f"{_ago(found.catalogue.now - waiting.since)}: {reason}"
                )
                for waiting, reason in unserved
            ]
        ),
        remedy=(
            "Start a runtime that has them and serves their queues, Runtime(activities=..., "
            "queues=...); they go on by themselves then. Where the name or the queue is a mistake, "
            "terminate the instances that wait."
        ),
    )


def _activities(number: int) -> str:
    return f"{number:,} {'activity' if number == 1 else 'activities'}"


def retention_check(ended: Ended) -> Check:
    """Judge what is kept of what has ended."""
    if not ended.count:
        return Check("retention", Verdict.OK, "nothing has ended")
    text = (
        f"{_count(ended.count, 'ended instance')}: {ended.expiring:,} go by themselves "
        f"({ended.due:,} now)"
    )
    kept = ended.count - ended.expiring
    if kept:
        text += f", {kept:,} stay until somebody deletes them"
    if kept >= _MANY_ENDED:
        return Check(
            "retention",
            Verdict.NOTICE,
            text,
            remedy=(
                "Retention(finished=...) lets those go that end from then on; client.purge "
                "deletes those that have ended."
            ),
        )
    return Check("retention", Verdict.OK, text)


def clock_check(newest: int | None, now: int, whose: str = "this machine's") -> Check:
    """Judge the clock that the store goes by, by the newest row."""
    if newest is None:
        return Check("clock", Verdict.OK, "nothing has been written yet")
    ahead = newest - now
    if ahead > _CLOCK_TOLERANCE:
        return Check(
            "clock",
            Verdict.WARNING,
            f"the newest row was written {_duration(ahead)} in the future",
            remedy=(
                f"Set {whose} clock right. If it was ahead before, timers that were set then fire "
                "as much later."
            ),
        )
    return Check("clock", Verdict.OK, f"newest row written {_ago(max(-ahead, 0))}")


# --- words ------------------------------------------------------------------------------------


def _first(lines: list[str]) -> tuple[str, ...]:
    return (
        *lines[:LISTED],
        *([f"and {len(lines) - LISTED:,} more"] if len(lines) > LISTED else []),
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _bytes(size: int) -> str:
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def _ago(micros: int) -> str:
    return f"{_duration(micros)} ago" if micros >= 0 else f"{_duration(-micros)} in the future"


def _duration(micros: int) -> str:
    seconds = micros / 1e6
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return (
                f"{seconds / size:.1f} {unit}"
                if seconds / size < 10
                else f"{seconds / size:.0f} {unit}"
            )
    return f"{seconds / 86_400:,.0f} days"
