"""``orchestra doctor`` for a store on PostgreSQL. A reader's privileges are enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from orchestra.cli import doctor, server_findings, store_findings
from orchestra.cli.checks import Check, Report, Verdict
from orchestra.cli.doctor import Remedies, contents_checks
from orchestra.clock import Clock
from orchestra.errors import (
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
        "Use a role that may read: `orchestra grants --reader ROLE` prints what it needs."
    ),
    StoreUnavailable: (
        "Check that the server runs and answers at this address. Check the DSN and pg_hba.conf."
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


def schema_name(text: str) -> str:
    """Return the text as the name of a schema.

    Raises:
        ValueError: no schema can have this name.
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
                raise StoreUnavailable("the connection was lost; the rest was not examined")
    except (StoreCorrupt, StoreEmpty) as error:
        return [*checks, _failed("schema", error)], False
    except StoreError as error:
        return [*checks, _failed("store", error)], False
    return checks, True


def _checks(diagnosis: Diagnosis) -> Iterator[Check]:
    """Yield the findings.

    Raises:
        StoreEmpty, StoreCorrupt: there is no store in the schema.
        StoreError: the facts that all other findings need could not be read.
    """
    server = diagnosis.server()
    yield server_findings.server_check(server)
    if server.version < OLDEST_SERVER:
        return
    role = diagnosis.role()
    yield server_findings.role_check(role)
    schema = _readable_schema(diagnosis)
    yield _schema_check(schema, role)
    if not isinstance(schema, SchemaState) or not schema.is_readable or role.unread:
        return
    yield from contents_checks(
        diagnosis.population,
        diagnosis.ended,
        diagnosis.strays,
        lambda newest: server_findings.clock_check(
            newest, diagnosis.now(), diagnosis.clock_difference()
        ),
        _REMEDIES,
    )


def _readable_schema(diagnosis: Diagnosis) -> SchemaState | StoreReadOnly | StoreBusy:
    try:
        return diagnosis.schema()
    except (StoreReadOnly, StoreBusy) as error:
        return error


def _schema_check(schema: SchemaState | StoreReadOnly | StoreBusy, role: RoleState) -> Check:
    if isinstance(schema, StoreReadOnly):
        text = f"there is one; {role.name} may not read its number"
        return Check("schema", Verdict.NOTICE, text)
    if isinstance(schema, StoreBusy):
        return _failed("schema", schema)
    return store_findings.schema_check(schema)


def _failed(name: str, error: StoreError) -> Check:
    check = doctor._failed(name, error, _REMEDIES)
    return replace(check, text=" ".join(str(error).split()))
