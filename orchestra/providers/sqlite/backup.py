"""Copy a store in use into a file that is a store of its own."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestra.clock import Clock, new_id
from orchestra.errors import InvalidArgument, StoreCorrupt, StoreEmpty, StoreUnavailable
from orchestra.providers.sqlite import schema
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.connection import _connect as connect
from orchestra.providers.sqlite.connection import connect_reader
from orchestra.providers.sqlite.diagnosis import _rest
from orchestra.providers.sqlite.failures import translated
from orchestra.providers.sqlite.paths import resolve
from orchestra.providers.sqlite.settings import Settings
from orchestra.store.kinds import THIS_LIBRARY

__all__ = ["Backup", "back_up"]

_BUSY_SECONDS: Final = 5.0

_MAKE_NOBODYS: Final = (
    (
        "UPDATE instance SET owner = NULL, wake_at = 0, revision = revision + 1 WHERE owner IS "
        "NOT NULL"
    ),
    "DELETE FROM capability",
    "DELETE FROM node_activity",
    "DELETE FROM node",
)
"""The original's nodes do not know the copy. There they would be dead owners until their leases run
out.
"""

_COUNT: Final = "SELECT count(*), coalesce(sum(status = 0), 0) FROM instance"
_READ_META: Final = "SELECT value FROM meta WHERE key = ?"


@dataclass(frozen=True, slots=True)
class Backup:
    """A finished copy. ``size`` is in bytes; ``open`` of the ``instances`` have not ended."""

    path: Path
    size: int
    instances: int
    open: int


def back_up(source: Path, target: Path, clock: Clock) -> Backup:
    """Copy a store, as it stands at one moment, into a new file. Services go on meanwhile; only the
    log grows.

    The copy is complete, checked and on disk when it appears under its name. It is a store of its
    own, with another store id, without nodes and owners. So the next runtime that opens it goes on
    at once. Its instances are the same ones: if the original runs on too, both do the same work,
    with the same idempotency keys.

    Raises:
        InvalidArgument: the name of the copy is taken, or its directory does not exist.
        StoreUnavailable: there is no such store, or the copy could not be written.
        StoreCorrupt: the store is damaged, or is not a store.
        StoreEmpty: it is an empty file or database.
        LibraryTooOld: the store refuses libraries as old as this one.
    """
    source, target = resolve(source), target.absolute()
    if not source.is_file():
        raise StoreUnavailable(f"{source}: there is no such file")
    _require_free(target)
    partial = target.with_name(f"{target.name}.{new_id()}.partial")
    with _removed_at_last(partial):
        _copy(source, partial, clock)
        with contextlib.closing(_connect(partial)) as copy, translated(partial):
            instances, still_open = _adapt(copy, source, clock)
        _write_out(partial)
        size = partial.stat().st_size
        _require_free(target)
        partial.rename(target)
    _write_out(target.parent)
    return Backup(target, size, instances, still_open)


def _require_free(target: Path) -> None:
    # SQLite would take a log beside it for the copy's own.
    for path in (
        target,
        *(target.with_name(target.name + suffix) for suffix in ("-wal", "-journal")),
    ):
        if os.path.lexists(path):
            raise InvalidArgument(
                f"{path} is there already; a backup overwrites nothing, give it another name"
            )
    if not target.parent.is_dir():
        raise InvalidArgument(f"{target}: the directory {target.parent} does not exist")


@contextmanager
def _removed_at_last(partial: Path) -> Generator[None]:
    try:
        yield
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                partial.with_name(partial.name + suffix).unlink()


def _copy(source: Path, partial: Path, clock: Clock) -> None:
    settings = Settings(source, "full", clock, _BUSY_SECONDS, migrate=False, tombstone_window=0)
    # Open a store at rest as immutable: a reader would leave a log that belongs to the user of the
    # backup, and that the service cannot write.
    before = _rest(source)
    if before is not None:
        with translated(source):
            at_rest = connect(settings, "ro&immutable=1")
        _copy_pages(at_rest, source, partial)
        if _rest(source) == before:
            return
        partial.unlink()
    _copy_pages(connect_reader(settings), source, partial)


def _copy_pages(source_connection: sqlite3.Connection, source: Path, partial: Path) -> None:
    with (
        contextlib.closing(source_connection) as reader,
        contextlib.closing(_connect(partial)) as copy,
        translated(source),
    ):
        number = schema._read_number(reader, source)
        if number == 0:
            raise StoreEmpty(
                f"{source} is an empty database, not yet a store; make sure that it is the right "
                "file"
            )
        levels = schema.read_levels(reader, number)
        if levels is not None:
            THIS_LIBRARY.require(levels, str(source))
        # Copy all pages in one step, which is one read transaction: with several steps each write
        # of others would restart the copy.
        reader.backup(copy, pages=-1)


def _adapt(copy: sqlite3.Connection, source: Path, clock: Clock) -> tuple[int, int]:
    """Make the copy a store of its own, and check it. Return its instances, and the open ones."""
    # A single file without a log, so that it can be moved. A runtime that opens it turns the log
    # on.
    copy.execute("PRAGMA journal_mode = DELETE")
    copy.execute("PRAGMA synchronous = FULL")
    copy.execute(sql.BEGIN_WRITE)
    original = copy.execute(_READ_META, ("store_id",)).fetchone()
    for statement in _MAKE_NOBODYS:
        copy.execute(statement)
    copy.execute(sql.SET_META, ("store_id", new_id()))
    copy.execute(sql.SET_META, ("copied_from", "" if original is None else original[0]))
    copy.execute(sql.SET_META, ("copied_at", str(clock.now())))
    copy.execute(sql.COMMIT)
    faults = [row[0] for row in copy.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
    if faults:
        raise StoreCorrupt(
            f"{source} is damaged, and a copy of it is no backup: {'; '.join(faults)}"
        )
    instances, still_open = copy.execute(_COUNT).fetchone()
    return instances, still_open


def _connect(path: Path) -> sqlite3.Connection:
    with translated(path):
        return sqlite3.connect(path, isolation_level=None)


def _write_out(path: Path) -> None:
    """Sync a file, or the names of a directory. SQLite has closed it, so no lock of SQLite is
    lost.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error
