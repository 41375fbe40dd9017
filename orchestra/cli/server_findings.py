"""Facts about a PostgreSQL server, and a store on it, as findings. Pure functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from orchestra.cli import findings
from orchestra.cli.checks import Check, Verdict
from orchestra.cli.findings import _bytes, _count, _duration
from orchestra.providers.postgres.diagnosis import (
    OLDEST_SERVER,
    Blocked,
    ClockDifference,
    DurabilityState,
    HorizonState,
    Lingering,
    RoleState,
    ServerState,
    SessionState,
    TableState,
    VacuumState,
    WraparoundState,
)

__all__ = [
    "blocked_check",
    "clock_check",
    "durability_check",
    "horizon_check",
    "role_check",
    "server_check",
    "sessions_check",
    "vacuum_check",
    "wraparound_check",
]

_MANY_OF_THE_LIMIT: Final = 0.8
_LONG_WAIT: Final = 1_000_000
_LONG_IDLE: Final = 30_000_000
"""A runtime's own transaction is ended by the server after a third of this."""

_LONG_OPEN: Final = 600_000_000
_FAR_BACK: Final = 1_000_000
"""Transactions that have begun since, where nobody may say how long that was."""

_MANY_DEAD: Final = 100_000
_VERY_MANY_DEAD: Final = 1_000_000
_LONG_UNVACUUMED: Final = 600_000_000
_OLD_NUMBERS: Final = 1_000_000_000
_EXHAUSTED: Final = 1_900_000_000
"""The server takes no more writes at about 2,144,000,000."""

_CLOCK_TOLERANCE: Final = 5_000_000


# --- the server -------------------------------------------------------------------------------


def server_check(server: ServerState) -> Check:
    """Judge what answers at the DSN."""
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
            f"{text}; a standby: it takes no writes, so that no runtime can work here; readers can",
            remedy=(
                "Runtimes need the primary: give all servers in the DSN, with "
                "target_session_attrs=read-write."
            ),
        )
    if server.read_only:
        return Check(
            "server",
            Verdict.WARNING,
            (
                f"{text}; sessions of this role begin read-only (default_transaction_read_only): "
                "no runtime can work so"
            ),
            remedy=(
                "If it is not meant for readers: ALTER ROLE or ALTER DATABASE ... RESET "
                "default_transaction_read_only."
            ),
        )
    if server.pooled:
        return Check(
            "server",
            Verdict.NOTICE,
            f"{text}; a pooler such as PgBouncer is in between",
            remedy=(
                "If it is in transaction mode, open the store with pooled=True; in session mode "
                "nothing need be done."
            ),
        )
    return Check("server", Verdict.OK, text)


def durability_check(durability: DurabilityState) -> Check:
    """Judge whether what the server has acknowledged can be lost."""
    switches = (("fsync", durability.fsync), ("full_page_writes", durability.full_page_writes))
    shown = [f"{name} {'on' if is_on else 'off'}" for name, is_on in switches]
    text = ", ".join([*shown, f"synchronous_commit {durability.synchronous_commit}"])
    if not durability.fsync:
        return Check(
            "durability",
            Verdict.FAILURE,
            f"{text}: a crash of the server's machine can lose or damage everything; runtimes "
            "refuse the store, unless they were told durability='relaxed'",
            remedy=(
                "Set fsync=on. What was written without it may be damaged already if the machine "
                "has crashed meanwhile."
            ),
        )
    if not durability.full_page_writes:
        return Check(
            "durability",
            Verdict.WARNING,
            f"{text}: a crash of the server's machine can damage pages that were half written",
            remedy="Set full_page_writes=on, unless the file system never writes half a page.",
        )
    if durability.standby_names and durability.standbys == 0:
        return Check(
            "durability",
            Verdict.WARNING,
            f"{text}; commits wait for a standby (synchronous_standby_names), and none is there",
            remedy="Bring a standby back. Until then nothing is acknowledged.",
        )
    if durability.synchronous_commit not in ("on", "remote_apply"):
        return Check(
            "durability",
            Verdict.NOTICE,
            f"{text}, for this role and database: a crash can lose what others have just "
            "committed, and what runtimes have with durability='relaxed'; all other runtimes "
            "switch it on for themselves",
            remedy=(
                "Nothing need be done for runtimes. For others: ALTER ROLE or ALTER DATABASE ... "
                "RESET synchronous_commit."
            ),
        )
    return Check("durability", Verdict.OK, text)


def role_check(role: RoleState) -> Check:
    """Judge whether the role can do what an owner, a worker or a reader needs (``orchestra
    grants``).
    """
    if role.is_superuser:
        return Check(
            "role",
            Verdict.OK,
            f"{role.name} is a superuser, who may do all that an owner, a worker or a reader needs",
        )
    if not role.tables:
        if role.migrates:
            return Check("role", Verdict.OK, f"{role.name} may make the store, as an owner needs")
        return Check(
            "role",
            Verdict.WARNING,
            f"{role.name} may not make the store, and there is none yet",
            remedy="Let its owner open it first; `orchestra grants` says what each role needs.",
        )
    if not role.enters or role.unread:
        return Check(
            "role",
            Verdict.FAILURE,
            f"{role.name} may not read the store, so that what it holds is not looked at",
            tuple(f"no SELECT on {table}" for table in role.unread)
            if role.enters
            else ("no USAGE on the schema",),
            remedy="Let `orchestra grants` say what the role needs, as --reader or --worker.",
        )
    if role.migrates and not role.unwritten:
        return Check(
            "role", Verdict.OK, f"{role.name} may read, write and migrate, as an owner needs"
        )
    if not role.unwritten:
        return Check(
            "role",
            Verdict.OK,
            (
                f"{role.name} may read and write, as a worker needs; it migrates nothing "
                "(migrate=False)"
            ),
        )
    if not role.writes_some:
        return Check(
            "role", Verdict.OK, f"{role.name} may read, as a reader needs; it writes nothing"
        )
    return Check(
        "role",
        Verdict.WARNING,
        f"{role.name} may write some tables and others not: no runtime can work so",
        tuple(f"no {lacking}" for lacking in role.unwritten),
        remedy=(
            "Let `orchestra grants --worker` say what the role needs, and run it as the tables' "
            "owner or a superuser."
        ),
    )


def sessions_check(sessions: SessionState, role: RoleState) -> Check:
    """Judge whether there is room for more connections."""
    bounds = [("of the server", sessions.used, sessions.limit)]
    if sessions.database_limit is not None:
        bounds.append(("of the database", sessions.of_database, sessions.database_limit))
    if sessions.role_limit is not None:
        bounds.append((f"of {role.name}", sessions.of_role, sessions.role_limit))
    counts = [f"{used:,} of {limit:,} connections {whose}" for whose, used, limit in bounds]
    text = f"{', '.join(counts)}; {sessions.of_stores:,} here are of orchestra"
    if any(used >= limit * _MANY_OF_THE_LIMIT for _, used, limit in bounds):
        return Check(
            "sessions",
            Verdict.WARNING,
            f"{text}: there is little room",
            remedy=(
                "A deploy needs room for the old and the new processes, six connections each. "
                "Raise the limit, or put a pooler in between."
            ),
        )
    if sessions.hidden and not role.sees_sessions:
        return Check(
            "sessions",
            Verdict.NOTICE,
            f"{text}; what {sessions.hidden:,} of other roles do cannot be seen by {role.name}",
            remedy="To see it, ask with a role that is a member of pg_monitor.",
        )
    return Check("sessions", Verdict.OK, text)


# --- who is in the way ------------------------------------------------------------------------


def blocked_check(blocked: tuple[Blocked, ...]) -> Check:
    """Judge who waits for locks on the store's tables."""
    if not blocked:
        return Check("blocked", Verdict.OK, "nobody waits for a lock on the store's tables")
    text = f"{_count(len(blocked), 'session')} waiting for a lock on the store's tables"
    details = tuple(_blocked_line(one) for one in blocked)
    longest = max((one.waited for one in blocked if one.waited is not None), default=None)
    if longest is None:
        return Check(
            "blocked", Verdict.NOTICE, f"{text}; for how long cannot be seen by this role", details
        )
    if longest < _LONG_WAIT:
        return Check("blocked", Verdict.OK, f"{text}, as happens; not for long", details)
    return Check(
        "blocked",
        Verdict.WARNING,
        f"{text}, the longest for {_duration(longest)}",
        details,
        remedy=(
            "See what those who are waited for do; end them, or their sessions with "
            "pg_terminate_backend(PID)."
        ),
    )


def _blocked_line(one: Blocked) -> str:
    waited = "" if one.waited is None else f" since {_duration(one.waited)}"
    return (
        f"{one.who} waits for {one.what}{waited}, held by "
        f"{'; '.join(one.blockers) or 'nobody any more'}"
    )


def horizon_check(horizon: HorizonState) -> Check:
    """Judge what keeps locks on the store's tables, or keeps vacuum from removing old versions of
    rows.
    """
    lingering = [one for one in horizon.transactions if _lingers(one)]
    prepared = [one for one in horizon.prepared if one.age >= _LONG_OPEN]
    slots = [one for one in horizon.slots if one.holds_back >= _FAR_BACK]
    details = [_lingering_line(one) for one in lingering]
    details += [
        f"prepared transaction {one.name!r} of {one.owner}: for {_duration(one.age)}"
        for one in prepared
    ]
    details += [
        f"replication slot {one.name} ({'in use' if one.is_active else 'nobody reads it'}): "
        f"keeps what {one.holds_back:,} transactions have replaced"
        for one in slots
    ]
    if not details:
        others = (
            [f"{_count(len(horizon.prepared), 'prepared transaction')}"] if horizon.prepared else []
        )
        ages = [one.open_for for one in horizon.transactions if one.open_for is not None]
        hidden = len(horizon.transactions) - len(ages)
        longest = (
            f"the longest transaction is open for {_duration(max(ages))}"
            if ages
            else "no transaction is open"
        )
        others += (
            [f"for how long {_count(hidden, 'transaction')} of other roles cannot be seen"]
            if hidden
            else []
        )
        return Check(
            "horizon", Verdict.OK, "; ".join([*([longest] if ages or not hidden else []), *others])
        )
    remedies = [
        (
            "End them: what they have locked stays locked, and vacuum removes nothing that they "
            "might still see."
        )
    ]
    if lingering:
        remedies.append(
            "pg_terminate_backend(PID) ends a session; idle_in_transaction_session_timeout does "
            "so by itself."
        )
    if prepared:
        remedies.append("COMMIT PREPARED or ROLLBACK PREPARED end a prepared transaction.")
    if slots:
        remedies.append("pg_drop_replication_slot(NAME) removes a slot that nobody needs.")
    counts = [
        _count(len(found), noun)
        for found, noun in (
            (lingering, "transaction"),
            (prepared, "prepared transaction"),
            (slots, "replication slot"),
        )
        if found
    ]
    return Check(
        "horizon",
        Verdict.WARNING,
        f"{', '.join(counts)} open for long",
        tuple(details),
        remedy=" ".join(remedies),
    )


def _lingers(one: Lingering) -> bool:
    if one.open_for is None:
        return one.holds_back is not None and one.holds_back >= _FAR_BACK
    if not one.locks and one.holds_back is None:
        return False  # it is in nobody's way
    return one.open_for >= _LONG_OPEN or (one.idle_for is not None and one.idle_for >= _LONG_IDLE)


def _lingering_line(one: Lingering) -> str:
    words = [one.who if one.open_for is None else f"{one.who}: open for {_duration(one.open_for)}"]
    words += [f"idle for {_duration(one.idle_for)}"] if one.idle_for is not None else []
    words += [f"keeps what {one.holds_back:,} transactions have replaced"] if one.holds_back else []
    words += [f"has locked {', '.join(one.locks)}"] if one.locks else []
    return ", ".join(words)


# --- the tables -------------------------------------------------------------------------------


def vacuum_check(vacuum: VacuumState) -> Check:
    """Judge whether vacuum keeps up with the tables, and say how large they are."""
    largest = ", ".join(f"{table.name} {_bytes(table.size)}" for table in vacuum.tables[:3])
    dead = sum(table.dead for table in vacuum.tables)
    text = f"{_bytes(sum(table.size for table in vacuum.tables))} ({largest}), {dead:,} dead rows"
    disabled = [table.name for table in vacuum.tables if not table.autovacuum]
    if not vacuum.autovacuum or disabled:
        return Check(
            "vacuum",
            Verdict.WARNING,
            (
                f"{text}; autovacuum is switched off "
                f"{'for ' + ', '.join(disabled) if vacuum.autovacuum else 'for all tables'}"
            ),
            remedy="ALTER TABLE ... RESET (autovacuum_enabled)."
            if vacuum.autovacuum
            else (
                "Set autovacuum=on and track_counts=on: without, tables and indexes grow with "
                "each step."
            ),
        )
    behind = [table for table in vacuum.tables if _is_behind(table)]
    if behind:
        return Check(
            "vacuum",
            Verdict.WARNING,
            f"{text}: vacuum does not keep up",
            tuple(_table_line(table) for table in behind),
            remedy=(
                "See `horizon` for what holds it back; if nothing does, give autovacuum more "
                "workers or a lower cost delay."
            ),
        )
    return Check("vacuum", Verdict.OK, text)


def _is_behind(table: TableState) -> bool:
    # Tables of what comes and goes are mostly dead between two runs of vacuum, which comes about
    # once a minute.
    is_recent = table.vacuumed is not None and table.vacuumed < _LONG_UNVACUUMED
    if is_recent:
        return table.dead >= _VERY_MANY_DEAD and table.dead > table.live
    return table.dead >= _MANY_DEAD and 5 * table.dead > table.live


def _table_line(table: TableState) -> str:
    when = (
        "not since statistics were begun"
        if table.vacuumed is None
        else f"last {_duration(table.vacuumed)} ago"
    )
    return (
        f"{table.name}: {table.dead:,} dead of {table.dead + table.live:,} rows, "
        f"{_bytes(table.size)}; vacuumed {when}"
    )


def wraparound_check(wraparound: WraparoundState) -> Check:
    """Judge how near the server is to running out of transaction numbers."""
    age = max(wraparound.age, wraparound.multixact_age)
    text = (
        f"the oldest transaction is {wraparound.age:,} numbers old, the oldest multixact "
        f"{wraparound.multixact_age:,}"
    )
    if age >= _EXHAUSTED:
        return Check(
            "wraparound",
            Verdict.FAILURE,
            f"{text}: the server is about to refuse writes, or does",
            remedy=(
                "End what holds vacuum back (see `horizon`), and VACUUM the whole database at once."
            ),
        )
    if age >= _OLD_NUMBERS:
        return Check(
            "wraparound",
            Verdict.WARNING,
            f"{text}; from {wraparound.freeze_age:,} on autovacuum should have made it younger",
            remedy=(
                "End what holds vacuum back (see `horizon`), and VACUUM (FREEZE) the oldest tables."
            ),
        )
    return Check("wraparound", Verdict.OK, text)


# --- time -------------------------------------------------------------------------------------


def clock_check(newest: int | None, now: int, difference: ClockDifference) -> Check:
    """Judge the server's clock, which the store goes by, and this machine's beside it."""
    check = findings.clock_check(newest, now, "the server's")
    size = abs(difference.ahead)
    if size <= difference.uncertainty:
        return replace(
            check, text=f"{check.text}; this machine's clock is the server's, as far as can be told"
        )
    side = "ahead of" if difference.ahead > 0 else "behind"
    text = f"{check.text}; this machine's clock is {_duration(size)} {side} the server's"
    if check.verdict is Verdict.OK and size > _CLOCK_TOLERANCE + difference.uncertainty:
        return Check(
            "clock",
            Verdict.NOTICE,
            text,
            remedy=(
                "Timers go by the server's clock, and are not concerned. Set whichever is wrong: "
                "this machine's logs and traces tell other times than the store."
            ),
        )
    return replace(check, text=text)
