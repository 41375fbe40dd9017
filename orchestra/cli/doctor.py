"""``orchestra doctor``: looks at a store and says what is wrong with it. It only looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from orchestra.cli import findings
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
"""What reading a value that this library never wrote may raise: a version that is none, bytes that
are no JSON.
"""


def examine(path: Path, clock: Clock, *, quick: bool) -> Report:
    """Return all findings about the store at a path."""
    library = findings.sqlite_check(library_version())
    try:
        checks = diagnose(path, clock, lambda diagnosis: _look(diagnosis, quick=quick))
    except StoreError as error:
        return Report(str(path), (library, _failed("store", error)), readable=False)
    return Report(str(path), (library, *checks))


def _look(diagnosis: Diagnosis, *, quick: bool) -> list[Check]:
    checks = [
        _guarded("pragmas", lambda: findings.pragmas_check(diagnosis.pragmas())),
        _guarded(
            "integrity",
            lambda: findings.integrity_check(diagnosis.integrity(quick=quick), quick=quick),
        ),
        _guarded("lock", lambda: findings.lock_check(diagnosis.write_lock())),
    ]
    try:
        schema = diagnosis.schema()
    except StoreError as error:
        return [*checks, _failed("schema", error)]
    checks.append(findings.schema_check(schema))
    if not schema.is_readable:
        return checks
    try:
        found = diagnosis.population()
    except StoreError as error:
        return [*checks, _failed("contents", error)]
    except _UNREADABLE as error:
        return [*checks, _undecodable("contents", error)]
    return [
        *checks,
        _guarded("nodes", lambda: findings.nodes_check(found)),
        _guarded("levels", lambda: findings.levels_check(found)),
        _guarded("ghosts", lambda: findings.ghosts_check(found)),
        _guarded("held", lambda: findings.held_check(found)),
        _guarded("activities", lambda: findings.activities_check(found)),
        _guarded("retention", lambda: findings.retention_check(diagnosis.ended())),
        _guarded("clock", lambda: findings.clock_check(found.newest, diagnosis.now())),
    ]


def _guarded(name: str, check: Callable[[], Check], remedies: Remedies = _REMEDIES) -> Check:
    """Return the finding, or that there is none: one damaged part must not hide the others."""
    try:
        return check()
    except StoreError as error:
        return _failed(name, error, remedies)
    except _UNREADABLE as error:
        return _undecodable(name, error, remedies)


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


def _undecodable(name: str, error: Exception, remedies: Remedies = _REMEDIES) -> Check:
    text = f"what is stored cannot be understood: {error!r}"
    return Check(name, Verdict.FAILURE, text, remedy=remedies[StoreCorrupt])
