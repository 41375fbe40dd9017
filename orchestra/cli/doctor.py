"""``orchestra doctor``: examine a store and report what is wrong with it, without changing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from orchestra.cli import file_findings, instance_findings, node_findings, store_findings
from orchestra.cli.checks import Check, Report, Verdict
from orchestra.clock import Clock
from orchestra.errors import (
    OrchestraError,
    StoreBusy,
    StoreCorrupt,
    StoreEmpty,
    StoreError,
    StoreReadOnly,
    StoreUnavailable,
)
from orchestra.providers.sqlite.diagnosis import Diagnosis, diagnose, library_version
from orchestra.store.diagnosis import Ended, Population, Stray

__all__ = ["examine"]

Remedies = Mapping[type[StoreError], str]

_REMEDIES: Final[Remedies] = {
    StoreBusy: "Try again.",
    StoreCorrupt: (
        "Make sure that it is the right file. If it is, keep a copy of it and of its -wal, and "
        "restore a backup."
    ),
    StoreReadOnly: "Run the command as the user that the services run as.",
    StoreUnavailable: "Check the path and its permissions.",
    StoreEmpty: (
        "Make sure that it is the right file. If it is, and no service has run on it yet, start "
        "one: it makes the store. If there was one, restore a backup."
    ),
}

_UNREADABLE: Final = (OrchestraError, ValueError, KeyError, TypeError)
"""What reading a damaged value may raise: a version that is none, bytes that are no JSON."""


def examine(path: Path, clock: Clock, *, quick: bool) -> Report:
    """Return all findings about the store at a path."""
    library = file_findings.sqlite_check(library_version())
    try:
        checks = diagnose(path, clock, lambda diagnosis: _look(diagnosis, quick=quick))
    except StoreError as error:
        return Report(str(path), (library, _failed("store", error)), readable=False)
    return Report(str(path), (library, *checks))


def _look(diagnosis: Diagnosis, *, quick: bool) -> list[Check]:
    checks = [
        _guarded("pragmas", lambda: file_findings.pragmas_check(diagnosis.pragmas())),
        _guarded(
            "integrity",
            lambda: file_findings.integrity_check(diagnosis.integrity(quick=quick), quick=quick),
        ),
        _guarded("lock", lambda: file_findings.lock_check(diagnosis.write_lock())),
    ]
    try:
        schema = diagnosis.schema()
    except StoreError as error:
        return [*checks, _failed("schema", error)]
    checks.append(store_findings.schema_check(schema))
    if not schema.is_readable:
        return checks
    return [
        *checks,
        *contents_checks(
            diagnosis.population,
            diagnosis.ended,
            diagnosis.strays,
            lambda newest: store_findings.clock_check(newest, diagnosis.now()),
            _REMEDIES,
        ),
    ]


def contents_checks(
    population: Callable[[], Population],
    ended: Callable[[], Ended],
    strays: Callable[[], Sequence[Stray]],
    clock_check: Callable[[int | None], Check],
    remedies: Remedies,
) -> Iterator[Check]:
    """Yield the findings about what a store of any provider holds."""
    try:
        found = population()
    except _UNREADABLE as error:
        yield _unread("contents", error, remedies)
        return
    yield _guarded("nodes", lambda: node_findings.nodes_check(found), remedies)
    yield _guarded("levels", lambda: store_findings.levels_check(found), remedies)
    yield _guarded("ownership", lambda: node_findings.ownership_check(found), remedies)
    yield _guarded("held", lambda: instance_findings.held_check(found), remedies)
    yield _guarded("tallies", lambda: instance_findings.tallies_check(found), remedies)
    yield _guarded("activities", lambda: instance_findings.activities_check(found), remedies)
    yield _guarded("strays", lambda: store_findings.strays_check(strays()), remedies)
    yield _guarded("retention", lambda: store_findings.retention_check(ended()), remedies)
    yield _guarded("clock", lambda: clock_check(found.newest), remedies)


def _guarded(name: str, check: Callable[[], Check], remedies: Remedies = _REMEDIES) -> Check:
    """Return the finding, or that it could not be made: one damaged part hides no other."""
    try:
        return check()
    except _UNREADABLE as error:
        return _unread(name, error, remedies)


def _unread(name: str, error: Exception, remedies: Remedies) -> Check:
    if isinstance(error, StoreError):
        return _failed(name, error, remedies)
    text = f"a stored value cannot be understood: {error!r}"
    return Check(name, Verdict.FAILURE, text, remedy=remedies[StoreCorrupt])


def _failed(name: str, error: StoreError, remedies: Remedies = _REMEDIES) -> Check:
    remedy = next(
        (text for kind, text in remedies.items() if isinstance(error, kind)), remedies[StoreCorrupt]
    )
    return Check(
        name,
        Verdict.WARNING if isinstance(error, StoreBusy) else Verdict.FAILURE,
        str(error),
        remedy=remedy,
    )
