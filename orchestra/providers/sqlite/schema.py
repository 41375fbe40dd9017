"""The schema: numbered migrations, each applied once."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from orchestra.clock import new_id
from orchestra.errors import SchemaMismatch, StoreCorrupt
from orchestra.levels import BASE_LEVEL, Levels
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.settings import Settings
from orchestra.store.kinds import THIS_LIBRARY, Library

__all__ = ["prepare"]

_MIGRATIONS: Final = "migrations"
_LOWEST_READER: Final = re.compile(r"-- lowest reader: (\d+)")
_FIRST_WITH_LEVELS: Final = 7
"""The first schema that stores the levels."""


@dataclass(frozen=True, slots=True)
class _Migration:
    number: int
    lowest_reader: int
    """The lowest library level that can work on its result; 1 if it only adds."""
    statements: tuple[str, ...]


def prepare(connection: sqlite3.Connection, settings: Settings) -> None:
    """Migrate the schema to this library's number, and read the store's levels.

    Call it under the file lock and inside a transaction. If many processes open an empty store at
    once, one makes the schema and the others find it. A newer schema stays as it is: a newer
    library has only added to it.

    Raises:
        LibraryTooOld: the store refuses libraries as old as this one.
        SchemaMismatch: the schema is older than this library, and migration is off.
        StoreCorrupt: the file is another database.
    """
    path, library = settings.path, settings.dialect.library
    known = migrations(library)
    current = _read_number(connection, path)
    newest = known[-1].number
    levels = read_levels(connection, current)
    if levels is not None:
        library.require(levels, str(path))
    if current < newest:
        if not settings.migrate:
            raise SchemaMismatch(
                f"{path} has schema {current} and needs {newest}, but migration is switched off"
            )
        _migrate(connection, [migration for migration in known if migration.number > current])
    settings.dialect.heard(read_levels(connection, known[-1].number) or Levels())


def _migrate(connection: sqlite3.Connection, steps: Sequence[_Migration]) -> None:
    for migration in steps:
        for statement in migration.statements:
            connection.execute(statement)
    standing = dict(connection.execute(sql.READ_META)).get("lowest_reader", BASE_LEVEL)
    lowest = max(int(standing), *(migration.lowest_reader for migration in steps))
    connection.execute(sql.ADD_META, ("store_id", new_id()))
    connection.execute(sql.SET_META, ("schema", str(steps[-1].number)))
    connection.execute(sql.SET_META, ("lowest_reader", str(lowest)))


def migrations(library: Library = THIS_LIBRARY) -> tuple[_Migration, ...]:
    """Return the migrations of a library in the order of their numbers."""
    own = _own_migrations()
    further = enumerate(library.migrations.get("sqlite", ()), start=own[-1].number + 1)
    return (*own, *(_read(number, script) for number, script in further))


@cache
def _own_migrations() -> tuple[_Migration, ...]:
    folder = resources.files("orchestra.providers.sqlite").joinpath(_MIGRATIONS)
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    return tuple(_read(int(file.name[:4]), file.read_text(encoding="utf-8")) for file in files)


def _read(number: int, script: str) -> _Migration:
    lowest = _LOWEST_READER.match(script)
    return _Migration(
        number, BASE_LEVEL if lowest is None else int(lowest[1]), tuple(_split(script))
    )


def read_levels(connection: sqlite3.Connection, number: int) -> Levels | None:
    """Return the levels of a store whose schema has this number; ``None``: it stores none."""
    return (
        None
        if number < _FIRST_WITH_LEVELS
        else Levels(*connection.execute(sql.READ_LEVELS).fetchone())
    )


def _read_number(connection: sqlite3.Connection, path: Path) -> int:
    tables = {row[0] for row in connection.execute(sql.TABLES)}
    if not tables:
        return 0
    row = connection.execute(sql.READ_SCHEMA).fetchone() if "meta" in tables else None
    if row is None:
        raise StoreCorrupt(f"{path} is a database, but not one of this library")
    return int(row[0])


def _split(script: str) -> Iterator[str]:
    """Yield the statements of a script; ``executescript`` would commit the current transaction."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
