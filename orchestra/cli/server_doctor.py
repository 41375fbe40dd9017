"""``orchestra doctor`` for a store on PostgreSQL. It only looks, and is told what the role may
see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from orchestra.cli import doctor, findings, server_findings
from orchestra.cli.checks import Check, Report, Verdict
from orchestra.cli.doctor import _UNREADABLE, Remedies, _guarded, _undecodable
from orchestra.clock import Clock
from orchestra.errors import (
    SchemaMismatch,
    StoreBusy,
    StoreCorrupt,
    StoreEmpty,
    StoreError,
    StoreReadOnly,
    StoreUnavailable,
)
from orchestra.providers.postgres.diagnosis import (
    OLDEST_SERVER,
    Diagnosis,
    RoleState,
    describe,
    diagnose,
)
from orchestra.providers.postgres.settings import require_schema_name
from orchestra.store.diagnosis import SchemaState

__all__ = ["examine_server", "schema_name"]

_REMEDIES: Final[Remedies] = {
    StoreBusy: "Try again when the server has less to do.",
    StoreReadOnly: (
        "Ask with a role that may look: `orchestra grants --reader ROLE` says what it needs."
    ),
    StoreUnavailable: (
        "Check that the server runs and answers at this address, the DSN, and what pg_hba.conf "
        "lets in."
    ),
    StoreEmpty: (
        "Make sure that it is the right database and schema (--schema). If it is, and no service "
        "has run on it yet, start one: it makes the store. If there was a store, restore a backup."
    ),
    StoreCorrupt: (
        "Make sure that it is the right database and schema (--schema). If there was a store, "
        "restore a backup."
    ),
}

_UNTOLD: Final = (StoreReadOnly, SchemaMismatch)
"""What a view or a function of the server raises that this role may not use, or that this server
does not have.
"""


def schema_name(text: str) -> str:
    """Return what was given as the name of a schema.

    Raises:
        ValueError: it cannot be one.
    """
    require_schema_name(text)
    return text


def examine_server(dsn: str, schema: str, clock: Clock) -> Report:
    """Return all findings about the store in a schema of a database."""
    store = describe(dsn, schema)
    try:
        checks, readable = diagnose(dsn, schema, clock, _look)
    except StoreError as error:
        return Report(store, (_failed("store", error),), readable=False)
    return Report(store, checks, readable=readable)


def _look(diagnosis: Diagnosis) -> tuple[list[Check], bool]:
    """Return the findings, and whether there is a store."""
    checks: list[Check] = []
    try:
        for check in _checks(diagnosis):
            checks.append(check)
            if diagnosis.is_lost:
                raise StoreUnavailable("the connection was lost; the rest was not looked at")
    except (StoreCorrupt, StoreEmpty) as error:
        return [*checks, _failed("schema", error)], False
    except StoreError as error:
        return [*checks, _failed("store", error)], False
    return checks, True


def _checks(diagnosis: Diagnosis) -> Iterator[Check]:
    """Yield the findings.

    Raises:
        StoreEmpty, StoreCorrupt: there is no store in the schema.
        StoreError: what all else rests on could not be read.
    """
    server = diagnosis.server()
    yield server_findings.server_check(server)
    if server.version < OLDEST_SERVER:
        return
    yield _told("durability", lambda: server_findings.durability_check(diagnosis.durability()))
    role = diagnosis.role()
    yield server_findings.role_check(role)
    yield _told("sessions", lambda: server_findings.sessions_check(diagnosis.sessions(), role))
    yield _told("blocked", lambda: server_findings.blocked_check(diagnosis.blocked()))
    yield _told("horizon", lambda: server_findings.horizon_check(diagnosis.horizon()))
    yield _told("wraparound", lambda: server_findings.wraparound_check(diagnosis.wraparound()))
    yield from _contents(diagnosis, role)


def _contents(diagnosis: Diagnosis, role: RoleState) -> Iterator[Check]:
    schema: SchemaState | None = None
    try:
        schema = diagnosis.schema()
    except StoreReadOnly:
        yield Check(
            "schema", Verdict.NOTICE, f"there is one; its number may not be read by {role.name}"
        )
    except StoreBusy as error:
        yield _failed("schema", error)
    else:
        yield findings.schema_check(schema)
    yield _told("vacuum", lambda: server_findings.vacuum_check(diagnosis.vacuum()))
    if schema is None or not schema.is_readable or role.unread:
        return
    try:
        found = diagnosis.population()
    except StoreError as error:
        yield _failed("contents", error)
        return
    except _UNREADABLE as error:
        yield _undecodable("contents", error, _REMEDIES)
        return
    yield _read("nodes", lambda: findings.nodes_check(found))
    yield _read("levels", lambda: findings.levels_check(found))
    yield _read("ghosts", lambda: findings.ghosts_check(found))
    yield _read("held", lambda: findings.held_check(found))
    yield _read("activities", lambda: findings.activities_check(found))
    yield _read("retention", lambda: findings.retention_check(diagnosis.ended()))
    yield _read(
        "clock",
        lambda: server_findings.clock_check(
            found.newest, diagnosis.now(), diagnosis.clock_difference()
        ),
    )


def _read(name: str, check: Callable[[], Check]) -> Check:
    return _guarded(name, check, _REMEDIES)


def _told(name: str, check: Callable[[], Check]) -> Check:
    """Return a finding about the server; where it is not told to this role, that it is not."""
    try:
        return check()
    except _UNTOLD as error:
        return Check(
            name,
            Verdict.NOTICE,
            f"not told to this role, or not by this server: {_one_line(error)}",
        )
    except StoreError as error:
        return _failed(name, error)


def _failed(name: str, error: StoreError) -> Check:
    check = doctor._failed(name, error, _REMEDIES)
    return replace(check, text=_one_line(error))


def _one_line(error: StoreError) -> str:
    return " ".join(str(error).split())
