"""Read the facts about a store on PostgreSQL, without changing it or making nodes wait.

Each fact has a read-only transaction of its own, which sets its own timeouts. Nothing stays in the
session, which may belong to a pooler. A reader's privileges are enough.
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
from orchestra.providers.postgres.connection import OLDEST_SERVER, Connection, Connector, read_dsn
from orchestra.providers.postgres.failures import DRIVER_ERRORS, connection_lost, translate
from orchestra.providers.postgres.kinds import read_kind
from orchestra.providers.postgres.settings import Settings
from orchestra.store.catalogue import Catalogue, PolicyRow
from orchestra.store.diagnosis import (
    LISTED,
    LOOKED_AT,
    STRAYS,
    Buried,
    Crashing,
    Ended,
    Miscount,
    NodeLockState,
    Population,
    SchemaState,
    Stray,
    Strayed,
    Tally,
    Waiting,
    held_instance,
    unread_activity,
)
from orchestra.store.kinds import THIS_LIBRARY, Dialect
from orchestra.store.nodes import read_nodes
from orchestra.store.routes import Route

__all__ = [
    "OLDEST_SERVER",
    "ClockDifference",
    "Diagnosis",
    "RoleState",
    "ServerState",
    "describe",
    "diagnose",
]

T = TypeVar("T")
Read = tuple[str, Sequence[Any]]
Row = tuple[Any, ...]

_CONNECT_SECONDS: Final = 5.0
_STATEMENT_SECONDS: Final = 20.0
_LOCK_SECONDS: Final = 1.0

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
_ROLE: Final = """
    SELECT current_user::text, r.rolsuper, n.oid IS NOT NULL,
        coalesce(has_schema_privilege(n.oid, 'USAGE'), false), coalesce(has_schema_privilege(n.oid, 'CREATE'), false),
        has_database_privilege(current_database(), 'CREATE')
    FROM pg_roles r LEFT JOIN pg_namespace n ON n.nspname = $1::text WHERE r.rolname = current_user"""
# Only migrations and a rise of the write level write to meta. A role without that right leaves both
# to others.
_PRIVILEGES: Final = """
    SELECT c.relname::text, has_table_privilege(c.oid, 'SELECT'),
        ARRAY(SELECT p.name FROM unnest(ARRAY['INSERT', 'UPDATE', 'DELETE']) AS p (name)
            WHERE c.relname <> 'meta' AND NOT has_table_privilege(c.oid, p.name)),
        pg_has_role(c.relowner, 'USAGE')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p') AND c.relname = ANY($2::text[]) ORDER BY c.relname"""
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
_MISCOUNTS: Final = """
    SELECT a.kind, sum(a.told)::bigint, sum(a.found)::bigint FROM (
        SELECT kind, status, held, number AS told, 0 AS found FROM @tally
        UNION ALL SELECT kind, status, held, number, 0 FROM @tally_change
        UNION ALL SELECT kind, status, held, 0, count(*) FROM @instance GROUP BY kind, status, held) AS a
    GROUP BY a.kind, a.status, a.held HAVING sum(a.told) <> sum(a.found) ORDER BY a.kind"""
_HELD: Final = """
    SELECT i.instance_id, i.kind, d.hold FROM @instance i JOIN @instance_detail d ON d.instance_id = i.instance_id
    WHERE i.held AND i.status = 0 ORDER BY i.instance_id LIMIT $1::bigint"""
# Activities that were handed out count as waiting.
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


# --- the facts --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServerState:
    """The server behind the DSN. ``pooled``: a pooler assigns sessions to clients."""

    version: int
    version_name: str
    encoding: str
    in_recovery: bool
    read_only: bool
    pooled: bool


@dataclass(frozen=True, slots=True)
class RoleState:
    """The role's rights. ``tables`` counts the store's tables; ``None``: there is no schema.

    ``unread`` names tables that it may not read; ``unwritten`` names missing rights and tables.
    """

    name: str
    is_superuser: bool
    tables: int | None
    enters: bool
    unread: tuple[str, ...]
    unwritten: tuple[str, ...]
    writes_some: bool
    migrates: bool


@dataclass(frozen=True, slots=True)
class ClockDifference:
    """How far this machine's clock is ahead of the server's, and by how much that may be wrong."""

    ahead: int
    uncertainty: int


# --- reading them -----------------------------------------------------------------------------


def describe(dsn: str, schema_name: str) -> str:
    """Return the name and address of the store, without secrets."""
    return Connector(_settings(dsn, schema_name)).description


def diagnose(dsn: str, schema_name: str, clock: Clock, look: Callable[[Diagnosis], T]) -> T:
    """Return the result of ``look``.

    Raises:
        StoreUnavailable: the server cannot be reached, or the DSN cannot be read.
    """
    connector = Connector(_settings(dsn, schema_name))
    if read_dsn(dsn) is None:
        raise StoreUnavailable(
            'the DSN cannot be read; in a URL, write "%40" for an "@" in a name or a password, '
            '"%2F" for a "/", and so on'
        )
    try:
        connection = connector._connect()
    except DRIVER_ERRORS as error:
        raise StoreUnavailable(str(translate(error, connector.description))) from error
    with contextlib.closing(connection):
        return look(Diagnosis(connection, connector, schema_name, clock))


class Diagnosis:
    """Reads the facts. Each method reads its own, so one unreadable fact hides no other.

    Raises:
        StoreError: from every method: the fact cannot be read, the server did not answer in time,
            or this role may not see it.
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
        """Whether the connection is gone."""
        return connection_lost(self._connection)

    def server(self) -> ServerState:
        """Return the server behind the DSN."""
        version, name, encoding, in_recovery, read_only, pid = self._read_row(_SERVER)
        # A server names the process that serves a connection. A pooler changes the process, and
        # so makes up a name.
        pooled = pid != self._connection.info.backend_pid
        return ServerState(version, name, encoding, in_recovery, read_only, pooled)

    def role(self) -> RoleState:
        """Return the role's rights on the store."""
        known = [name.removeprefix("table ") for name in _expected() if name.startswith("table ")]
        roles, tables = self._read((_ROLE, (self._schema,)), (_PRIVILEGES, (self._schema, known)))
        name, is_superuser, exists, enters, creates, makes_schemas = roles[0]
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
        )

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
        """Return the nodes, what they own, and which instances cannot go on."""
        reads: dict[str, Read] = {
            "now": (_NOW, ()),
            "nodes": (sql.LIST_NODES, ()),
            "capabilities": (sql.LIST_CAPABILITIES, ()),
            "node activities": (sql.LIST_NODE_ACTIVITIES, ()),
            "policies": (sql.LIST_POLICIES, ()),
            "kinds": (sql.LIST_KINDS, ()),
            "buried": (_BURIED, ()),
            "pulses": (_PULSES, ()),
            "pulseless": (sql.LIST_PULSELESS, ()),
            "renewal": (_NEWEST_RENEWAL, ()),
            "owners": (_OWNERS, ()),
            "takers": (_TAKERS, ()),
            "waiting": (_WAITING, ()),
            "tallies": (_TALLIES, ()),
            "miscounts": (_MISCOUNTS, ()),
            "held": (_HELD, (LOOKED_AT,)),
            "crashing": (_CRASHING, (LISTED,)),
            "unread": (_UNREAD, (LOOKED_AT,)),
            "levels": (sql.READ_LEVELS, ()),
        }
        rows = dict(zip(reads, self._read(*reads.values()), strict=True))
        kinds = {row[6]: read_kind(row[:6]) for row in rows["kinds"]}
        dialect = Dialect(THIS_LIBRARY)
        instants = [row[4] for row in rows["tallies"]] + [rows["renewal"][0][0]]
        locks = dict.fromkeys((row[0] for row in rows["pulses"]), NodeLockState.HELD)
        locks |= dict.fromkeys((row[0] for row in rows["pulseless"]), NodeLockState.LOST)
        return Population(
            catalogue=Catalogue(
                now=rows["now"][0][0],
                nodes=read_nodes(rows["nodes"], rows["capabilities"], rows["node activities"]),
                policies={row[0]: PolicyRow(*row) for row in rows["policies"]},
                kinds=tuple(kinds.values()),
                levels=Levels(*rows["levels"][0]),
            ),
            locks=locks,
            buried=tuple(Buried(*row) for row in rows["buried"]),
            owners=dict(rows["owners"]),
            takers=dict(rows["takers"]),
            waiting=tuple(
                Waiting(Route(row[0], row[1]), row[2], row[3]) for row in rows["waiting"]
            ),
            tallies=tuple(
                Tally(kinds.get(row[0]), row[1], row[2], row[3]) for row in rows["tallies"]
            ),
            held=tuple(
                held_instance(row[0], kinds.get(row[1]), row[2], dialect) for row in rows["held"]
            ),
            crashing=tuple(Crashing(*row) for row in rows["crashing"]),
            unread=tuple(
                one for row in rows["unread"] if (one := unread_activity(*row)) is not None
            ),
            newest=max((instant for instant in instants if instant is not None), default=None),
            miscounts=tuple(
                Miscount(kinds.get(row[0]), row[1], row[2]) for row in rows["miscounts"]
            ),
        )

    def ended(self) -> Ended:
        """Return how many instances have ended, and how many of them expire."""
        return Ended(*self._read_row(_ENDED))

    def strays(self) -> tuple[Stray, ...]:
        """Return rows without what they belong to. It reads the keys of all items of streams."""
        (rows,) = self._read((STRAYS, ()))
        return tuple(Stray(Strayed(what), owner, name) for what, owner, name in rows)

    def clock_difference(self) -> ClockDifference:
        """Compare this machine's clock with the server's."""
        self._read_row(_NOW)  # the first query is slow, and would look like a difference
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
        """Return the rows of some statements, all in one snapshot."""
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
