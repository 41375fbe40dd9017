"""Findings about a PostgreSQL server, as far as this library needs it. Pure functions.

The server's own views show the rest: vacuum, replication, open transactions, connections.
The guide's ``postgres.md`` has SQL for them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from orchestra.cli import store_findings
from orchestra.cli.checks import Check, Verdict
from orchestra.cli.wording import duration_of
from orchestra.providers.postgres.diagnosis import (
    OLDEST_SERVER,
    ClockDifference,
    RoleState,
    ServerState,
)

__all__ = ["clock_check", "role_check", "server_check"]

_CLOCK_TOLERANCE: Final = 5_000_000


def server_check(server: ServerState) -> Check:
    """Judge whether runtimes can work on the server behind the DSN."""
    text = f"PostgreSQL {server.version_name}, encoding {server.encoding}"
    if server.version < OLDEST_SERVER:
        return Check(
            "server", Verdict.FAILURE, f"{text}: too old", remedy="Use PostgreSQL 13 or later."
        )
    if server.encoding != "UTF8":
        return Check(
            "server",
            Verdict.FAILURE,
            f"{text}: no runtime can work with this encoding",
            remedy="Put the store into a database with the encoding UTF8.",
        )
    if server.in_recovery:
        return Check(
            "server",
            Verdict.WARNING,
            f"{text}; a standby: it refuses writes, so no runtime can work here; readers can",
            remedy=(
                "Runtimes need the primary: name all servers in the DSN, with "
                "target_session_attrs=read-write."
            ),
        )
    if server.read_only:
        return Check(
            "server",
            Verdict.WARNING,
            f"{text}; sessions of this role begin read-only (default_transaction_read_only): no "
            "runtime can work so",
            remedy=(
                "Unless the role is for readers: ALTER ROLE or ALTER DATABASE ... RESET "
                "default_transaction_read_only."
            ),
        )
    if server.pooled:
        return Check(
            "server",
            Verdict.NOTICE,
            f"{text}; behind a pooler such as PgBouncer",
            remedy=(
                "If the pooler is in transaction mode, open the store with pooled=True. Session "
                "mode needs nothing."
            ),
        )
    return Check("server", Verdict.OK, text)


def role_check(role: RoleState) -> Check:
    """Judge the role's rights: an owner's, a worker's or a reader's (``orchestra grants``)."""
    if role.is_superuser:
        return _role_ok(f"{role.name} is a superuser: it may do what every role needs")
    if not role.tables:
        if role.migrates:
            return _role_ok(f"{role.name} may make the store, as an owner needs")
        return Check(
            "role",
            Verdict.WARNING,
            f"{role.name} may not make the store, and there is none yet",
            remedy="Let the owner open it first. `orchestra grants` prints what each role needs.",
        )
    if not role.enters or role.unread:
        return Check(
            "role",
            Verdict.FAILURE,
            f"{role.name} may not read the store: its contents were not examined",
            tuple(f"no SELECT on {table}" for table in role.unread)
            if role.enters
            else ("no USAGE on the schema",),
            remedy="`orchestra grants` with --reader or --worker prints what the role needs.",
        )
    if role.migrates and not role.unwritten:
        return _role_ok(f"{role.name} may read, write and migrate, as an owner needs")
    if not role.unwritten:
        return _role_ok(
            f"{role.name} may read and write, as a worker needs, but not migrate (migrate=False)"
        )
    if not role.writes_some:
        return _role_ok(f"{role.name} may read, as a reader needs, but not write")
    return Check(
        "role",
        Verdict.WARNING,
        f"{role.name} may write some tables and others not: no runtime can work so",
        tuple(f"no {lacking}" for lacking in role.unwritten),
        remedy=(
            "`orchestra grants --worker` prints what the role needs. Run it as the tables' owner "
            "or as a superuser."
        ),
    )


def _role_ok(text: str) -> Check:
    return Check("role", Verdict.OK, text)


def clock_check(newest: int | None, now: int, difference: ClockDifference) -> Check:
    """Judge the server's clock, which sets the store's time, and compare this machine's with it."""
    check = store_findings.clock_check(newest, now, "the server's")
    size = abs(difference.ahead)
    if size <= difference.uncertainty:
        return replace(check, text=f"{check.text}; this machine's clock does not measurably differ")
    side = "ahead of" if difference.ahead > 0 else "behind"
    text = f"{check.text}; this machine's clock is {duration_of(size)} {side} the server's"
    if check.verdict is Verdict.OK and size > _CLOCK_TOLERANCE + difference.uncertainty:
        return Check(
            "clock",
            Verdict.NOTICE,
            text,
            remedy=(
                "Set the wrong clock right. Timers follow the server's clock and are not "
                "affected, but this machine's logs and traces differ from the store's times."
            ),
        )
    return replace(check, text=text)
