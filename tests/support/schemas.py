"""Schemas on a PostgreSQL server that tests use one after the other: to make one takes longer than
most tests.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from orchestra.clock import new_id
from orchestra.providers.postgres import PostgresProvider
from orchestra.store.kinds import THIS_LIBRARY, Library

__all__ = ["Lease", "Schemas"]


class Schemas:
    """Empty schemas of this library. One that is given back is emptied for the next test."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._guard = threading.Lock()
        self._free: list[str] = []
        self._at_first: dict[str, list[tuple[str, str]]] = {}

    def take(self) -> str:
        """Return the name of an empty schema."""
        with self._guard:
            if self._free:
                return self._free.pop()
        name = f"test_{new_id()}"
        provider = PostgresProvider(self._dsn, name, notify=False)
        provider.open()
        provider.close()
        with self._connect() as connection:
            found = connection.execute(
                sql.SQL("SELECT key, value FROM {}").format(sql.Identifier(name, "meta"))
            )
            self._at_first[name] = found.fetchall()
        return name

    def give_back(self, name: str) -> None:
        """Empty a schema. One that something still uses is left alone."""
        try:
            with self._connect() as connection:
                self._empty(connection, name)
        except psycopg.Error:
            return
        with self._guard:
            self._free.append(name)

    def _empty(self, connection: psycopg.Connection[Any], name: str) -> None:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s", (name,)
        ).fetchall()
        connection.execute("SET LOCAL lock_timeout TO '1s'")
        for (table,) in tables:
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name, table)))
        add = sql.SQL("INSERT INTO {} (key, value) VALUES (%s, %s)")
        with connection.cursor() as cursor:
            cursor.executemany(add.format(sql.Identifier(name, "meta")), self._at_first[name])

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._dsn)


class Lease:
    """The schemas of one test, by the places of its stores. They are given back at its end."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._names: dict[Path, str] = {}
        self._spoilt: set[Path] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for location in [*self._names]:
            self.give_back(location)

    def name_of(self, location: Path, library: Library = THIS_LIBRARY) -> str:
        """Return the schema of a place. Another library makes its own, and may change it."""
        if library is not THIS_LIBRARY:
            self._spoilt.add(location)
            self._names.setdefault(location, f"test_{new_id()}")
        elif location not in self._names:
            self._names[location] = self._schemas.take()
        return self._names[location]

    def give_back(self, location: Path) -> None:
        """Give a schema back: nothing uses it any more."""
        name = self._names.pop(location, None)
        if name is not None and location not in self._spoilt:
            self._schemas.give_back(name)
