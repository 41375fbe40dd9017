"""What can be told about a store on a server from outside, without changing it and without being in
anybody's way.

Each fact is read in one read-only transaction of its own, with its limits set in it: nothing is
left in the session, which may be one of a pooler. A role that may see little is told little;
nothing here needs more than a reader's privileges.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from orchestra.clock import Clock
from orchestra.errors import StoreCorrupt, StoreEmpty, StoreUnavailable
from orchestra.levels import Levels
from orchestra.providers.postgres import objects, schema
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.catalogue import _read_nodes
from orchestra.providers.postgres.connection import OLDEST_SERVER, Connection, Connector, read_dsn
from orchestra.providers.postgres.failures import DRIVER_ERRORS, connection_lost, translate
from orchestra.providers.postgres.kinds import read_kind
from orchestra.providers.postgres.settings import Settings
from orchestra.store.catalogue import Catalogue, PolicyRow
from orchestra.store.diagnosis import (
    LISTED,
    LOOKED_AT,
    Buried,
    Crashing,
    Ended,
    NodeLockState,
    Population,
    SchemaState,
    Tally,
    Waiting,
    held_instance,
    unread_activity,
)
from orchestra.store.kinds import THIS_LIBRARY, Dialect
from orchestra.store.routes import Route

__all__ = [
    "OLDEST_SERVER",
    "Blocked",
    "ClockDifference",
    "Diagnosis",
    "DurabilityState",
    "HorizonState",
    "Lingering",
    "Prepared",
    "RoleState",
    "ServerState",
    "SessionState",
    "Slot",
    "TableState",
    "VacuumState",
    "WraparoundState",
    "describe",
    "diagnose",
]

T = TypeVar("T")
Read = tuple[str, Sequence[Any]]
Row = tuple[Any, ...]

_CONNECT_SECONDS: Final = 5.0
_STATEMENT_SECONDS: Final = 20.0
_LOCK_SECONDS: Final = 1.0
_SHOWN_LOCKS: Final = 3

# --- statements: constants; @name is a table of the store's schema, and values travel as parameters

_BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_LIMIT: Final = """
    SELECT set_config('statement_timeout', $1::text, true), set_config('lock_timeout', $2::text, true),
        set_config('idle_in_transaction_session_timeout', $1::text, true), set_config('search_path', 'pg_catalog', true)"""
_NOW: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_SERVER: Final = """
    SELECT current_setting('server_version_num')::integer, current_setting('server_version'),
        (SELECT pg_encoding_to_char(d.encoding)::text FROM pg_database d WHERE d.datname = current_database()),
        pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on', pg_backend_pid()"""
_DURABILITY: Final = """
    SELECT current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on', current_setting('synchronous_commit'),
        current_setting('synchronous_standby_names'),
        (SELECT count(*) FROM pg_stat_replication r WHERE r.sync_state IN ('sync', 'quorum')),
        (SELECT count(*) FROM pg_stat_replication r WHERE r.sync_state IS NULL)"""
_ROLE: Final = """
    SELECT current_user::text, r.rolsuper, n.oid IS NOT NULL,
        coalesce(has_schema_privilege(n.oid, 'USAGE'), false), coalesce(has_schema_privilege(n.oid, 'CREATE'), false),
        has_database_privilege(current_database(), 'CREATE'),
        (SELECT pg_has_role(s.oid, 'USAGE') FROM pg_roles s WHERE s.rolname = 'pg_read_all_stats')
    FROM pg_roles r LEFT JOIN pg_namespace n ON n.nspname = $1::text WHERE r.rolname = current_user"""
# Only migrations and a rise of the write level write into meta: a role that may not leaves both to
# others.
_PRIVILEGES: Final = """
    SELECT c.relname::text, has_table_privilege(c.oid, 'SELECT'),
        ARRAY(SELECT p.name FROM unnest(ARRAY['INSERT', 'UPDATE', 'DELETE']) AS p (name)
            WHERE c.relname <> 'meta' AND NOT has_table_privilege(c.oid, p.name)),
        pg_has_role(c.relowner, 'USAGE')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p') AND c.relname = ANY($2::text[]) ORDER BY c.relname"""
# Of other roles' sessions a role may not see what they are: nearly all are clients.
_SESSIONS: Final = """
    SELECT count(*) FILTER (WHERE a.is_client),
        count(*) FILTER (WHERE a.is_client AND a.datname = current_database() AND a.application_name = 'orchestra'
            AND a.pid <> pg_backend_pid()),
        count(*) FILTER (WHERE a.is_client AND a.datname = current_database()),
        count(*) FILTER (WHERE a.is_client AND a.usename = current_user),
        count(*) FILTER (WHERE a.is_client AND a.state IS NULL AND a.backend_type IS NULL),
        current_setting('max_connections')::integer, current_setting('superuser_reserved_connections')::integer
            + coalesce(current_setting('reserved_connections', true), '0')::integer,
        (SELECT d.datconnlimit FROM pg_database d WHERE d.datname = current_database()),
        (SELECT r.rolconnlimit FROM pg_roles r WHERE r.rolname = current_user)
    FROM (SELECT *, backend_type = 'client backend' OR (backend_type IS NULL AND datid IS NOT NULL) AS is_client
        FROM pg_stat_activity) AS a"""
# The oldest. Of a hidden one only how far it holds vacuum back can be seen, and what it has locked.
_LINGERING: Final = """
    SELECT a.pid, a.usename::text, a.application_name, a.state, a.open_for, a.idle_for, a.holds_back,
        ARRAY(SELECT c.relname || ' ' || l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
            JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = $1::text
            WHERE l.pid = a.pid AND l.granted AND l.locktype = 'relation' AND c.relkind IN ('r', 'p')
                AND l.database = a.datid
            ORDER BY 1 LIMIT $2::bigint)
    FROM (
        SELECT s.*, (extract(epoch FROM clock_timestamp() - s.xact_start) * 1000000)::bigint AS open_for,
            CASE WHEN s.state LIKE 'idle in transaction%' THEN
                (extract(epoch FROM clock_timestamp() - s.state_change) * 1000000)::bigint END AS idle_for,
            greatest(age(s.backend_xid), age(s.backend_xmin))::bigint AS holds_back
        FROM pg_stat_activity s
        WHERE s.datname = current_database() AND s.pid <> pg_backend_pid()
            AND (s.backend_type = 'client backend' OR s.backend_type IS NULL)
            AND (s.xact_start IS NOT NULL OR (s.state IS NULL AND (s.backend_xid IS NOT NULL OR s.backend_xmin IS NOT NULL)))
        ORDER BY s.xact_start NULLS LAST, holds_back DESC LIMIT $3::bigint) AS a
    ORDER BY a.xact_start NULLS LAST, a.holds_back DESC"""
_PREPARED: Final = """
    SELECT p.gid, p.owner::text, (extract(epoch FROM clock_timestamp() - p.prepared) * 1000000)::bigint
    FROM pg_prepared_xacts p WHERE p.database = current_database() ORDER BY p.prepared LIMIT $1::bigint"""
_SLOTS: Final = """
    SELECT s.slot_name::text, s.active, age(s.xmin)::bigint
    FROM pg_replication_slots s WHERE s.xmin IS NOT NULL ORDER BY 3 DESC LIMIT $1::bigint"""
# Who waits and has to do with a table of the store. All may see who waits; since when, not all.
_BLOCKED: Final = """
    SELECT w.pid, a.usename::text, a.application_name, w.what,
        (extract(epoch FROM clock_timestamp() - a.query_start) * 1000000)::bigint, pg_blocking_pids(w.pid)
    FROM (
        SELECT DISTINCT l.pid, CASE WHEN l.locktype IN ('transactionid', 'tuple') THEN 'a row'
            ELSE concat_ws(' ', l.locktype, c.relname) END AS what
        FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation AND l.locktype = 'relation'
        WHERE NOT l.granted AND l.pid <> pg_backend_pid() AND EXISTS (
            SELECT 1 FROM pg_locks o JOIN pg_class t ON t.oid = o.relation
            JOIN pg_namespace n ON n.oid = t.relnamespace AND n.nspname = $1::text
            JOIN pg_database d ON d.oid = o.database AND d.datname = current_database()
            WHERE o.pid = l.pid AND o.locktype IN ('relation', 'tuple'))
        LIMIT $2::bigint) AS w
    LEFT JOIN pg_stat_activity a ON a.pid = w.pid ORDER BY 5 DESC NULLS LAST, w.pid"""
_BLOCKERS: Final = """
    SELECT a.pid, a.usename::text, a.application_name, a.state FROM pg_stat_activity a WHERE a.pid = ANY($1::bigint[])"""
_TABLES: Final = """
    SELECT c.relname::text, coalesce(s.n_live_tup, 0), coalesce(s.n_dead_tup, 0), pg_total_relation_size(c.oid),
        (extract(epoch FROM clock_timestamp() - greatest(s.last_vacuum, s.last_autovacuum)) * 1000000)::bigint,
        NOT EXISTS (SELECT 1 FROM pg_options_to_table(c.reloptions) o
            WHERE o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
    WHERE n.nspname = $1::text AND c.relkind = 'r' ORDER BY 4 DESC, 1"""
_AUTOVACUUM: Final = (
    "SELECT current_setting('autovacuum') = 'on' AND current_setting('track_counts') = 'on'"
)
_WRAPAROUND: Final = """
    SELECT age(d.datfrozenxid)::bigint, mxid_age(d.datminmxid)::bigint, current_setting('autovacuum_freeze_max_age')::bigint,
        current_setting('autovacuum_multixact_freeze_max_age')::bigint
    FROM pg_database d WHERE d.datname = current_database()"""

_BURIED: Final = (
    "SELECT node_id, host, pid, renewed_at FROM @node WHERE dead ORDER BY renewed_at DESC"
)
_PULSES: Final = """
    SELECT n.node_id FROM @node n WHERE NOT n.dead AND n.pulse IS NOT NULL
        AND n.pulse_server = (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint"""
_NEWEST_RENEWAL: Final = "SELECT max(renewed_at) FROM @node"
_OWNERS: Final = (
    "SELECT owner, count(*) FROM @instance WHERE owner IS NOT NULL GROUP BY owner ORDER BY owner"
)
_TAKERS: Final = (
    "SELECT owner, count(*) FROM @activity WHERE owner IS NOT NULL GROUP BY owner ORDER BY owner"
)
_WAITING: Final = """
    SELECT queue, name, count(*), min(started_at) FROM @activity
    WHERE queue IS NOT NULL AND owner IS NULL AND result IS NULL AND failure IS NULL
    GROUP BY queue, name ORDER BY queue, name"""
_TALLIES: Final = """
    SELECT kind, count(*) FILTER (WHERE status = 0), count(*) FILTER (WHERE status = 0 AND held),
        count(*) FILTER (WHERE status = 0 AND NOT held AND takeovers >= 3 AND owner IS NULL), max(updated_at)
    FROM @instance GROUP BY kind ORDER BY kind"""
_HELD: Final = """
    SELECT i.instance_id, i.kind, d.hold FROM @instance i JOIN @instance_detail d ON d.instance_id = i.instance_id
    WHERE i.held AND i.status = 0 ORDER BY i.instance_id LIMIT $1::bigint"""
# Those that are handed out are among the waiting ones.
_UNREAD: Final = """
    SELECT instance_id, event_id, attempts FROM @activity
    WHERE queue IS NULL AND result IS NULL AND failure IS NULL AND position(convert_to('"unread"', 'UTF8') IN attempts) > 0
    ORDER BY instance_id, event_id LIMIT $1::bigint"""
_CRASHING: Final = """
    SELECT instance_id, takeovers FROM @instance
    WHERE status = 0 AND NOT held AND takeovers >= 3 AND owner IS NULL ORDER BY instance_id LIMIT $1::bigint"""
_ENDED: Final = """
    SELECT count(*), count(expires_at),
        count(*) FILTER (WHERE expires_at <= (extract(epoch FROM statement_timestamp()) * 1000000)::bigint)
    FROM @instance WHERE status <> 0"""


# --- what is found: ages and waits in microseconds, sizes in bytes --------------------------------


@dataclass(frozen=True, slots=True)
class ServerState:
    """What answers. ``pooled``: something stands in between that gives each client a session of its
    choice.
    """

    version: int
    version_name: str
    encoding: str
    in_recovery: bool
    read_only: bool
    pooled: bool


@dataclass(frozen=True, slots=True)
class DurabilityState:
    """What the server promises a commit. ``synchronous_commit`` is what sessions of this role begin
    with.

    ``standbys``: how many standbys commits can wait for; ``None`` where the role may not see it.
    """

    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    standby_names: str
    standbys: int | None


@dataclass(frozen=True, slots=True)
class RoleState:
    """What the role may do. ``tables`` is how many of the store's there are; ``None``: there is no
    schema.

    ``unread`` are tables that it cannot read, ``unwritten`` says what it lacks to write into which.
    """

    name: str
    is_superuser: bool
    tables: int | None
    enters: bool
    unread: tuple[str, ...]
    unwritten: tuple[str, ...]
    writes_some: bool
    migrates: bool
    makes_schemas: bool
    sees_sessions: bool


@dataclass(frozen=True, slots=True)
class SessionState:
    """How many connections there are, and may be. A limit of ``None`` is none. ``hidden``: of which
    nothing can be seen.
    """

    used: int
    of_stores: int
    limit: int
    of_database: int
    database_limit: int | None
    of_role: int
    role_limit: int | None
    hidden: int


@dataclass(frozen=True, slots=True)
class Lingering:
    """An open transaction. ``open_for`` is ``None`` where the role may not see it; ``idle_for``,
    where it is at work.

    ``holds_back``: from how many transactions ago on vacuum removes nothing because of it.
    """

    pid: int
    who: str
    open_for: int | None
    idle_for: int | None
    holds_back: int | None
    locks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A transaction that was prepared for a commit in two phases, and waits for the second."""

    name: str
    owner: str
    age: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot that holds vacuum back."""

    name: str
    is_active: bool
    holds_back: int


@dataclass(frozen=True, slots=True)
class HorizonState:
    """What keeps locks and old versions of rows."""

    transactions: tuple[Lingering, ...]
    prepared: tuple[Prepared, ...]
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Blocked:
    """A session that waits for a lock. ``waited`` is ``None`` where the role may not see it."""

    pid: int
    who: str
    what: str
    waited: int | None
    blockers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableState:
    """A table with its indexes. ``vacuumed``: how long ago, if ever since statistics were begun."""

    name: str
    live: int
    dead: int
    size: int
    vacuumed: int | None
    autovacuum: bool


@dataclass(frozen=True, slots=True)
class VacuumState:
    """How vacuum keeps up. ``autovacuum``: the server's own switch."""

    autovacuum: bool
    tables: tuple[TableState, ...]


@dataclass(frozen=True, slots=True)
class WraparoundState:
    """How old the oldest transaction and multixact numbers are, and from which age on the server
    freezes by itself.
    """

    age: int
    multixact_age: int
    freeze_age: int
    multixact_freeze_age: int


@dataclass(frozen=True, slots=True)
class ClockDifference:
    """How far this machine's clock is ahead of the server's, and by how much that may be wrong."""

    ahead: int
    uncertainty: int


# --- finding it -------------------------------------------------------------------------------


def describe(dsn: str, schema_name: str) -> str:
    """Return what the store is and where, without anything secret."""
    return Connector(_settings(dsn, schema_name)).description


def diagnose(dsn: str, schema_name: str, clock: Clock, look: Callable[[Diagnosis], T]) -> T:
    """Return what ``look`` makes of the store.

    Raises:
        StoreUnavailable: the server cannot be reached, or the DSN cannot be read.
    """
    connector = Connector(_settings(dsn, schema_name))
    if read_dsn(dsn) is None:
        raise StoreUnavailable(
            'the DSN cannot be read; in a URL, write "%40" for an "@" in a name or a password, "%2F" for a "/", and so on'
        )
    try:
        connection = connector._connect()
    except DRIVER_ERRORS as error:
        raise StoreUnavailable(str(translate(error, connector.description))) from error
    with contextlib.closing(connection):
        return look(Diagnosis(connection, connector, schema_name, clock))


class Diagnosis:
    """Reads the facts. Each method stands for itself, so that what cannot be read does not hide the
    rest.

    Raises:
        StoreError: from every method: it could not be read, was not answered in time, or may not be
            seen by this role.
    """

    def __init__(
        self, connection: Connection, connector: Connector, schema_name: str, clock: Clock
    ) -> None:
        self._connection = connection
        self._connector = connector
        self._schema = schema_name
        self._clock = clock

    @property
    def is_lost(self) -> bool:
        """Whether nothing more can be asked."""
        return connection_lost(self._connection)

    def server(self) -> ServerState:
        """Return what answers."""
        version, name, encoding, in_recovery, read_only, pid = self._read_row(_SERVER)
        # A server names the process that a connection is served by. What pools connections makes up
        # a name, since the process changes.
        pooled = pid != self._connection.info.backend_pid
        return ServerState(version, name, encoding, in_recovery, read_only, pooled)

    def durability(self) -> DurabilityState:
        """Return what the server promises a commit."""
        fsync, full_pages, synchronous, names, standbys, hidden = self._read_row(_DURABILITY)
        return DurabilityState(fsync, full_pages, synchronous, names, None if hidden else standbys)

    def role(self) -> RoleState:
        """Return what the role may do with the store."""
        known = [name.removeprefix("table ") for name in _expected() if name.startswith("table ")]
        roles, tables = self._read((_ROLE, (self._schema,)), (_PRIVILEGES, (self._schema, known)))
        name, is_superuser, exists, enters, creates, makes_schemas, sees_sessions = roles[0]
        return RoleState(
            name=name,
            is_superuser=is_superuser,
            tables=len(tables) if exists else None,
            enters=enters,
            unread=tuple(table for table, reads, _, _ in tables if not reads),
            unwritten=tuple(
                f"{', '.join(lacking)} on {table}" for table, _, lacking, _ in tables if lacking
            ),
            writes_some=any(len(lacking) < 3 for table, _, lacking, _ in tables if table != "meta"),
            migrates=creates and all(owns for *_, owns in tables) if exists else makes_schemas,
            makes_schemas=makes_schemas,
            sees_sessions=is_superuser or bool(sees_sessions),
        )

    def sessions(self) -> SessionState:
        """Return how many connections there are."""
        (
            used,
            of_stores,
            of_database,
            of_role,
            hidden,
            most,
            reserved,
            database_limit,
            role_limit,
        ) = self._read_row(_SESSIONS)
        return SessionState(
            used=used,
            of_stores=of_stores,
            limit=most - reserved,
            of_database=of_database,
            database_limit=database_limit if database_limit >= 0 else None,
            of_role=of_role,
            role_limit=role_limit if role_limit >= 0 else None,
            hidden=hidden,
        )

    def horizon(self) -> HorizonState:
        """Return the transactions that have been open for longest, and what else keeps locks or old
        versions of rows.
        """
        transactions, prepared, slots = self._read(
            (_LINGERING, (self._schema, _SHOWN_LOCKS, LISTED)),
            (_PREPARED, (LISTED,)),
            (_SLOTS, (LISTED,)),
        )
        return HorizonState(
            tuple(
                Lingering(
                    pid,
                    _who(pid, user, application, state),
                    open_for,
                    idle_for,
                    holds_back,
                    tuple(locks),
                )
                for pid, user, application, state, open_for, idle_for, holds_back, locks in transactions
            ),
            tuple(Prepared(*row) for row in prepared),
            tuple(Slot(*row) for row in slots),
        )

    def blocked(self) -> tuple[Blocked, ...]:
        """Return sessions that wait for locks, and for whom."""
        waiting = self._read((_BLOCKED, (self._schema, LISTED)))[0]
        if not waiting:
            return ()
        pids = sorted({pid for *_, blockers in waiting for pid in blockers})
        names = {row[0]: _who(*row) for row in self._read((_BLOCKERS, (pids,)))[0]}
        names[0] = "a prepared transaction"
        return tuple(
            Blocked(
                pid,
                _who(pid, user, application, None),
                what,
                waited,
                tuple(
                    names.get(blocker, f"process {blocker}") for blocker in dict.fromkeys(blockers)
                ),
            )
            for pid, user, application, what, waited, blockers in waiting
        )

    def vacuum(self) -> VacuumState:
        """Return how vacuum keeps up, the largest table first."""
        switch, tables = self._read((_AUTOVACUUM, ()), (_TABLES, (self._schema,)))
        return VacuumState(switch[0][0], tuple(TableState(*row) for row in tables))

    def wraparound(self) -> WraparoundState:
        """Return how old the oldest numbers are."""
        return WraparoundState(*self._read_row(_WRAPAROUND))

    def schema(self) -> SchemaState:
        """Compare the schema with the one that this library would have made.

        Raises:
            StoreEmpty: there is no schema, or nothing in it.
            StoreCorrupt: it is not one of this library.
        """
        found = self._read((sql.FIND_TABLES, (self._schema,)))[0]
        if not found or not found[0][1]:
            state = "is not there" if not found else "is empty"
            raise StoreEmpty(
                f"schema {self._schema!r} {state}: not yet a store; a runtime that opens it makes "
                "it one"
            )
        if "meta" not in found[0][1]:
            raise StoreCorrupt(
                f"schema {self._schema!r} is there, but it is not one of this library"
            )
        meta, rows = self._read((sql.READ_META, ()), (objects.FIND_OBJECTS, (found[0][0],)))
        values = dict(meta)
        try:
            number = int(values["schema"])
            levels = (
                Levels(int(values["write_level"]), int(values["lowest_reader"]))
                if "write_level" in values
                else None
            )
        except (KeyError, ValueError) as error:
            raise StoreCorrupt(f"schema {self._schema!r}: its number is no number") from error
        known = schema.migrations()[-1].number
        invalid = tuple(sorted(name for name, _, is_valid in rows if not is_valid))
        missing, changed, added = (), (), ()
        if number == known:
            missing, changed, added = objects.compared(
                _expected(), {name: definition for name, definition, _ in rows}
            )
        return SchemaState(
            number, known, missing, changed, added, invalid, levels, THIS_LIBRARY.level
        )

    def population(self) -> Population:
        """Return the nodes, what they own, and which instances stand still."""
        (
            now,
            nodes,
            capabilities,
            activities,
            policies,
            kinds,
            buried,
            pulses,
            pulseless,
            renewal,
            owners,
            takers,
            waiting,
            tallies,
            held,
            crashing,
            unread,
            levels,
        ) = self._read(
            (_NOW, ()),
            (sql.LIST_NODES, ()),
            (sql.LIST_CAPABILITIES, ()),
            (sql.LIST_NODE_ACTIVITIES, ()),
            (sql.LIST_POLICIES, ()),
            (sql.LIST_KINDS, ()),
            (_BURIED, ()),
            (_PULSES, ()),
            (sql.LIST_PULSELESS, ()),
            (_NEWEST_RENEWAL, ()),
            (_OWNERS, ()),
            (_TAKERS, ()),
            (_WAITING, ()),
            (_TALLIES, ()),
            (_HELD, (LOOKED_AT,)),
            (_CRASHING, (LISTED,)),
            (_UNREAD, (LOOKED_AT,)),
            (sql.READ_LEVELS, ()),
        )
        numbers = {row[6]: read_kind(row[:6]) for row in kinds}
        dialect = Dialect(THIS_LIBRARY)
        instants = [row[4] for row in tallies] + [renewal[0][0]]
        locks = dict.fromkeys((row[0] for row in pulses), NodeLockState.HELD)
        locks |= dict.fromkeys((row[0] for row in pulseless), NodeLockState.LOST)
        return Population(
            catalogue=Catalogue(
                now=now[0][0],
                nodes=_read_nodes(nodes, capabilities, activities),
                policies={row[0]: PolicyRow(*row) for row in policies},
                kinds=tuple(numbers.values()),
                levels=Levels(*levels[0]),
            ),
            locks=locks,
            buried=tuple(Buried(*row) for row in buried),
            owners=dict(owners),
            takers=dict(takers),
            waiting=tuple(Waiting(Route(row[0], row[1]), row[2], row[3]) for row in waiting),
            tallies=tuple(Tally(numbers.get(row[0]), row[1], row[2], row[3]) for row in tallies),
            held=tuple(held_instance(row[0], numbers.get(row[1]), row[2], dialect) for row in held),
            crashing=tuple(Crashing(*row) for row in crashing),
            unread=tuple(one for row in unread if (one := unread_activity(*row)) is not None),
            newest=max((instant for instant in instants if instant is not None), default=None),
        )

    def ended(self) -> Ended:
        """Return how many instances have ended, and which of them go by themselves."""
        return Ended(*self._read_row(_ENDED))

    def clock_difference(self) -> ClockDifference:
        """Compare this machine's clock with the server's."""
        self._read_row(_NOW)  # so that what a first question costs is not taken for a distance
        begun, started = self._clock.now(), self._clock.monotonic()
        try:
            row = self._connection.execute(_NOW.encode()).fetchone()
        except DRIVER_ERRORS as error:
            raise translate(error, self._connector.description) from error
        assert row is not None
        half = int((self._clock.monotonic() - started) * 500_000)
        return ClockDifference(begun + half - row[0], half)

    def now(self) -> int:
        """Return the server's time."""
        return self._read_row(_NOW)[0]

    def _read_row(self, statement: str) -> Row:
        return self._read((statement, ()))[0][0]

    def _read(self, *reads: Read) -> list[list[Row]]:
        """Return the rows of some statements, all of one moment."""
        connection, render = self._connection, self._connector.render
        limits = (f"{_STATEMENT_SECONDS:g}s", f"{_LOCK_SECONDS:g}s")
        try:
            connection.execute(_BEGIN.encode())
            try:
                connection.execute(_LIMIT.encode(), limits)
                return [
                    connection.execute(render(statement), values).fetchall()
                    for statement, values in reads
                ]
            finally:
                if not connection_lost(connection):
                    connection.execute(b"ROLLBACK")
        except DRIVER_ERRORS as error:
            raise translate(error, self._connector.description) from error


def _expected() -> dict[str, str]:
    return objects.expected(
        (sql.ADD_META_TABLE, *(migration.script for migration in schema.migrations()))
    )


def _settings(dsn: str, schema_name: str) -> Settings:
    return Settings(
        dsn=dsn,
        schema=schema_name,
        durability="full",
        clock=None,
        migrate=False,
        notify=False,
        pooled=True,
        connect_seconds=_CONNECT_SECONDS,
        statement_seconds=_STATEMENT_SECONDS,
        lock_seconds=_LOCK_SECONDS,
        tombstone_window=0,
    )


def _who(pid: int, user: str | None, application: str | None, state: str | None) -> str:
    words = [
        f"process {pid}",
        *([f"of {user}"] if user else []),
        *([f"({application})"] if application else []),
    ]
    return " ".join(words) + (f", {state}" if state else "")
