"""The schema: numbered migrations, each applied once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from orchestra.clock import new_id
from orchestra.errors import SchemaMismatch, StoreCorrupt
from orchestra.providers.sqlite import statements as sql

__all__ = ["prepare"]

_MIGRATIONS: Final = "migrations"


@dataclass(frozen=True, slots=True)
class _Migration:
    number: int
    statements: tuple[str, ...]


def prepare(connection: sqlite3.Connection, path: Path, *, migrate: bool) -> None:
    """Bring the schema to this library's number.

    To be called under the file lock and inside a transaction, so that of many processes which open an empty store at once
    one makes the schema and the others find it.

    Raises:
        SchemaMismatch: it is newer than this library, or older and not to be migrated.
        StoreCorrupt: the file is some other database.
    """
    known = migrations()
    current = _read_number(connection, path)
    newest = known[-1].number
    if current > newest:
        raise SchemaMismatch(f"{path} has schema {current}; this library knows up to {newest}. Upgrade the library.")
    if current == newest:
        return
    if not migrate:
        raise SchemaMismatch(f"{path} has schema {current} and needs {newest}, but migration is switched off")
    for migration in (migration for migration in known if migration.number > current):
        for statement in migration.statements:
            connection.execute(statement)
    connection.execute(sql.ADD_META, ("store_id", new_id()))
    connection.execute(sql.SET_META, ("schema", str(newest)))
    connection.execute(sql.SET_META, ("lowest_reader", str(newest)))


@cache
def migrations() -> tuple[_Migration, ...]:
    """Return the migrations in the order of their numbers."""
    folder = resources.files("orchestra.providers.sqlite").joinpath(_MIGRATIONS)
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return tuple(_Migration(int(file.name[:4]), tuple(_split(file.read_text(encoding="utf-8")))) for file in files)


def _read_number(connection: sqlite3.Connection, path: Path) -> int:
    tables = {row[0] for row in connection.execute(sql.TABLES)}
    if not tables:
        return 0
    row = connection.execute(sql.READ_SCHEMA).fetchone() if "meta" in tables else None
    if row is None:
        raise StoreCorrupt(f"{path} is a database, but not one of this library")
    return int(row[0])


def _split(script: str) -> Iterator[str]:
    """Yield the statements of a script; ``executescript`` would commit the transaction that they belong to."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
