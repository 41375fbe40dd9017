"""What the workers of a campaign share: a file, or a schema on a server; and how it is looked at
past the library.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import psycopg

from orchestra import SqliteProvider
from orchestra.providers.postgres import PostgresProvider
from orchestra.store.kinds import Status
from orchestra.store.port import Directory, Provider
from orchestra.store.queries import InstanceQuery


@dataclass(frozen=True)
class Served:
    """A store on a server. What the workers note beside it lies in ``folder``."""

    folder: Path
    dsn: str
    schema: str = "orchestra"
    workers_dsn: str | None = None
    """How the workers get there, if they take another way than everybody else."""


Store: TypeAlias = Path | Served
"""A ``Path`` is that of a SQLite file; what the workers note lies beside it."""


def folder_of(store: Store) -> Path:
    return store.folder if isinstance(store, Served) else store.parent


def provider_of(store: Store, *, busy: float = 10) -> Provider:
    """Return a provider that has not been opened."""
    if isinstance(store, Served):
        return PostgresProvider(store.dsn, store.schema, lock_timeout=timedelta(seconds=busy))
    return SqliteProvider(store, busy_timeout=timedelta(seconds=busy))


def arguments_of(store: Store) -> list[str]:
    """Return how a worker is told where its store is."""
    if isinstance(store, Served):
        return [
            str(store.folder / "store"),
            "--dsn",
            store.workers_dsn or store.dsn,
            "--schema",
            store.schema,
        ]
    return [str(store)]


def rows_of(store: Store, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return what is there, past the library. Values are ``?``; the statement must be one that both
    databases know.
    """
    if isinstance(store, Served):
        with psycopg.connect(store.dsn, options=f'-c search_path="{store.schema}"') as connection:
            return connection.execute(statement.replace("?", "%s").encode(), values).fetchall()
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        return connection.execute(statement, values).fetchall()


def open_ids(directory: Directory) -> set[str]:
    """Return the instances that have not ended."""
    found = directory.list(InstanceQuery(statuses=(Status.OPEN,), limit=1_000_000))
    return {record.row.instance_id for record in found}


def damages_of(store: Store) -> list[str]:
    """Return what the database says is wrong with its own files (I13)."""
    if isinstance(store, Path):
        verdict = rows_of(store, "PRAGMA integrity_check")
        return [] if verdict == [("ok",)] else [str(verdict)]
    found = []
    with psycopg.connect(store.dsn, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s", (store.schema,)
        ).fetchall()
        indexes = connection.execute(
            "SELECT c.oid, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = "
            "relnamespace JOIN pg_am a ON a.oid = relam WHERE nspname = %s AND relkind = 'i' "
            "AND amname = 'btree'",
            (store.schema,),
        ).fetchall()
        can_check = True
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA public")
        except (
            psycopg.errors.FeatureNotSupported,
            psycopg.errors.UndefinedFile,
            psycopg.errors.InsufficientPrivilege,
        ):
            can_check = False  # the server does not have it, or does not let us
        for (name,) in tables:
            try:
                connection.execute(
                    f'SELECT count(t.*) FROM "{store.schema}"."{name}" t'.encode()
                )  # reads every row
            except psycopg.Error as error:
                found.append(f"{name}: {error}")
        for oid, name in indexes if can_check else ():
            try:
                connection.execute("SELECT public.bt_index_check(%s::oid::regclass, true)", (oid,))
            except psycopg.Error as error:
                found.append(f"{name}: {error}")
    return found
