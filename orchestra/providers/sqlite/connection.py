"""Open a connection, and check that its settings took effect."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

from orchestra.errors import StoreUnavailable
from orchestra.providers.sqlite.failures import translated
from orchestra.providers.sqlite.paths import require_one_name
from orchestra.providers.sqlite.settings import Settings

__all__ = ["connect_reader", "connect_writer", "file_identity"]

_CACHED_STATEMENTS: Final = 512
_PAGE_CACHE_KIB: Final = 16 * 1024
_JOURNAL_LIMIT: Final = 64 * 1024 * 1024
_SYNCHRONOUS: Final = {"full": 2, "relaxed": 1}


def file_identity(path: Path) -> tuple[int, int]:
    """Return the identity of the file at a path, to detect that another file replaced it.

    Raises:
        StoreUnavailable: there is no file, or it cannot be reached.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error
    return status.st_dev, status.st_ino


def connect_writer(settings: Settings) -> sqlite3.Connection:
    """Return the connection that writes and checkpoints. Call it under the file lock.

    Raises:
        StoreUnavailable: the file cannot be opened, or not with the requested durability.
    """
    _require_directory(settings)
    with translated(settings.path):
        connection = _connect(settings, "rwc")
        try:
            _configure_writer(connection, settings)
        except BaseException:
            connection.close()
            raise
    return connection


def connect_reader(settings: Settings) -> sqlite3.Connection:
    """Return a connection that only reads. It never checkpoints, even if it closes last (protocol
    rule 26).
    """
    with translated(settings.path):
        return _connect(settings, "ro")


def _connect(settings: Settings, mode: str) -> sqlite3.Connection:
    require_one_name(settings.path)
    uri = f"file:{quote(os.fsencode(settings.path))}?mode={mode}"  # a name need not be UTF-8
    return sqlite3.connect(
        uri,
        uri=True,
        timeout=settings.busy_seconds,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
    )


def _configure_writer(connection: sqlite3.Connection, settings: Settings) -> None:
    synchronous = _SYNCHRONOUS[settings.durability]
    journal = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT}")
    connection.execute(f"PRAGMA cache_size = -{_PAGE_CACHE_KIB}")
    # temp_store stays as it is: with MEMORY a statement that deletes many large values keeps all of
    # them in memory until it ends. Otherwise it keeps 64 KiB, and the rest in a temporary file.
    # A pragma without effect reports no error; I13 depends on these two.
    if journal != "wal":
        raise StoreUnavailable(
            f"{settings.path}: the file system allows no write-ahead log (journal mode {journal!r})"
        )
    if connection.execute("PRAGMA synchronous").fetchone()[0] != synchronous:
        raise StoreUnavailable(
            f"{settings.path}: SQLite did not accept durability {settings.durability!r}"
        )


def _require_directory(settings: Settings) -> None:
    if not settings.path.parent.is_dir():
        raise StoreUnavailable(
            f"{settings.path}: the directory {settings.path.parent} does not exist"
        )
