"""The schema: numbered migrations, each applied once, all of them in one transaction.

A migration first adds; a later release removes. So nodes of the previous library go on working. The
first line of each file names the lowest library level that can work on its result: 1 if it only
adds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import psycopg

from orchestra.clock import new_id
from orchestra.errors import (
    SchemaMismatch,
    StoreCorrupt,
    StoreError,
    StoreReadOnly,
    StoreUnavailable,
)
from orchestra.levels import BASE_LEVEL, Levels
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.connection import Connection, Connector
from orchestra.providers.postgres.failures import (
    DRIVER_ERRORS,
    connection_lost,
    contended,
    sqlstate,
    translate,
)
from orchestra.providers.postgres.settings import Settings
from orchestra.store.kinds import THIS_LIBRARY, Library

__all__ = ["Migration", "add_indexes", "migrations", "prepare"]

_LOWEST_READER: Final = re.compile(r"-- lowest reader: (\d+)")
_MADE_BY_ANOTHER: Final = frozenset(
    {
        "23505",  # unique_violation: in the server's own catalogues
        "42P06",  # duplicate_schema
        "42P07",  # duplicate_table
        "42710",  # duplicate_object
    }
)
_TRIES: Final = 20
_PAUSE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    lowest_reader: int
    script: str


def prepare(connector: Connector, settings: Settings) -> None:
    """Check that this library can work on the schema; make or migrate it if allowed.

    If many nodes start at once on an empty database, one makes the schema, and the others wait.

    Raises:
        LibraryTooOld: no library as old as this one may work on it.
        SchemaMismatch: it is too old, and migration is off.
        StoreCorrupt: another program has the schema's name.
        StoreError: the server cannot be used.
    """
    _insist(connector, lambda connection: _prepare(connection, connector, settings))


def add_indexes(
    connector: Connector, settings: Settings, indexes: Sequence[tuple[str, str]]
) -> None:
    """Make the indexes that are not there, given by name and statement, if migration is on and the
    role may do it.

    Raises:
        StoreError: the server cannot be used.
    """

    def add(connection: Connection) -> None:
        names = [name for name, _ in indexes]
        with connection.transaction():
            (found,) = connection.execute(
                sql.COUNT_INDEXES.encode(), (settings.schema, names)
            ).fetchone() or (0,)
            if found == len(indexes):
                return
            _begin_migrating(connection, connector)
            for _, statement in indexes:
                connection.execute(connector.render(statement))

    if settings.migrate:
        with suppress(StoreReadOnly):  # the role of a worker: the owner of the schema makes them
            _insist(connector, add)


def _insist(connector: Connector, work: Callable[[Connection], None]) -> None:
    """Do some work on a connection of its own, again while others are in its way."""
    for number in range(1, _TRIES + 1):
        connection = connector.connect()
        try:
            work(connection)
        except DRIVER_ERRORS as error:
            passes = (
                contended(error)
                or sqlstate(error) in _MADE_BY_ANOTHER
                or connection_lost(connection)
            )
            if not passes or number == _TRIES:
                raise _failure(error, connector) from error
        else:
            return
        finally:
            connection.close()
        time.sleep(_PAUSE)


def migrations(library: Library = THIS_LIBRARY) -> tuple[Migration, ...]:
    """Return the migrations of a library in order; the n-th has the number n."""
    own = _own_migrations()
    further = enumerate(library.migrations.get("postgres", ()), start=len(own) + 1)
    return (*own, *(_read(f"{number:04d}", script) for number, script in further))


@cache
def _own_migrations() -> tuple[Migration, ...]:
    folder = resources.files("orchestra.providers.postgres").joinpath("migrations")
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    return tuple(_read(file.name, file.read_text(encoding="utf-8")) for file in files)


def _read(name: str, script: str) -> Migration:
    lowest = _LOWEST_READER.match(script)
    assert lowest is not None, f"{name} does not say its lowest reader"
    return Migration(int(name[:4]), int(lowest[1]), script)


def _prepare(connection: Connection, connector: Connector, settings: Settings) -> None:
    with connection.transaction():
        found = connection.execute(sql.FIND_TABLES.encode(), (settings.schema,)).fetchone()
        standing = (
            _read_meta(connection, connector) if found is not None and "meta" in found[1] else None
        )
        if standing is None and found is not None and found[1]:
            raise StoreCorrupt(
                f"{connector.description}: the schema is there, but it is not one of this library"
            )
        if not _is_behind(standing or {}, connector, settings):
            return
        if found is None:
            connection.execute(f"CREATE SCHEMA {connector.quoted_schema}".encode())
        if standing is None:
            connection.execute(connector.render(sql.ADD_META_TABLE))
        _begin_migrating(connection, connector)
        current = _read_meta(connection, connector) or {}
        if _is_behind(current, connector, settings):
            _migrate(
                connection, connector, migrations(settings.dialect.library)[_number(current) :]
            )


def _begin_migrating(connection: Connection, connector: Connector) -> None:
    # Another migrating node waits here, and finds it done.
    connection.execute(connector.render(sql.LOCK_META))
    # Building an index has no time limit; waiting for locks has one.
    connection.execute("SET LOCAL statement_timeout TO 0")
    connection.patience = None


def _migrate(connection: Connection, connector: Connector, steps: Sequence[Migration]) -> None:
    for migration in steps:
        _run_script(connection, connector.render(migration.script))
    standing = (_read_meta(connection, connector) or {}).get("lowest_reader", BASE_LEVEL)
    lowest = max(int(standing), *(migration.lowest_reader for migration in steps))
    for statement, values in (
        (sql.ADD_META, ("store_id", new_id())),
        (sql.SET_META, ("schema", str(steps[-1].number))),
        (sql.SET_META, ("lowest_reader", str(lowest))),
    ):
        connection.execute(connector.render(statement), values)


def _run_script(connection: Connection, script: bytes) -> None:
    # No parameters, not binary: this uses the simple protocol, which takes several statements.
    with psycopg.ClientCursor[Any](connection) as cursor:
        cursor.execute(script)


def _read_meta(connection: Connection, connector: Connector) -> dict[str, str] | None:
    rows = connection.execute(connector.render(sql.READ_META)).fetchall()
    return dict(rows) or None


def _number(meta: dict[str, str]) -> int:
    return int(meta.get("schema", 0))


def _is_behind(meta: dict[str, str], connector: Connector, settings: Settings) -> bool:
    """Return whether to migrate the schema. A newer one stays as it is: a newer library has only
    added to it.

    Raises:
        LibraryTooOld: no library as old as this one may work on it.
        SchemaMismatch: it is too old, and migration is off.
    """
    library = settings.dialect.library
    current, newest = _number(meta), migrations(library)[-1].number
    if "write_level" in meta:
        levels = Levels(int(meta["write_level"]), int(meta["lowest_reader"]))
        library.require(settings.dialect.heard(levels), connector.description)
    if current >= newest:
        return False
    if not settings.migrate:
        raise SchemaMismatch(
            f"{connector.description} has schema {current} and needs {newest}, but migration is "
            "switched off"
        )
    return True


def _failure(error: Exception, connector: Connector) -> StoreError:
    failure = translate(error, connector.description)
    return (
        failure
        if failure.retryable or isinstance(failure, (SchemaMismatch, StoreReadOnly))
        else StoreUnavailable(str(failure))
    )
