"""Read the facts about a store in a file, without changing it or making processes wait.

One read-only connection reads everything. A store at rest has no log beside it, and is opened as
immutable: an ordinary reader would leave a log and its index behind, owned by another user.
:func:`diagnose` then checks that the file really did not change.
"""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import sleep
from typing import Any, Final, TypeVar

from orchestra.clock import Clock
from orchestra.errors import StoreCorrupt, StoreEmpty, StoreError, StoreUnavailable
from orchestra.levels import Levels
from orchestra.processes import runs
from orchestra.providers.sqlite import schema
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.catalogue import stored_nodes
from orchestra.providers.sqlite.connection import _JOURNAL_LIMIT, _connect, connect_reader
from orchestra.providers.sqlite.failures import translated
from orchestra.providers.sqlite.kinds import read_kind
from orchestra.providers.sqlite.lock_probes import holds, probe, read_pid
from orchestra.providers.sqlite.paths import require_one_name, require_shared_directory, resolve
from orchestra.providers.sqlite.settings import Settings
from orchestra.store.catalogue import Catalogue, PolicyRow
from orchestra.store.diagnosis import (
    LISTED,
    LOOKED_AT,
    STRAYS,
    Buried,
    Crashing,
    Ended,
    Miscount,
    Population,
    SchemaState,
    Stray,
    Strayed,
    Tally,
    Waiting,
    held_instance,
    unread_activity,
)
from orchestra.store.routes import Route

__all__ = [
    "LOG_LIMIT",
    "Diagnosis",
    "Pragmas",
    "WriteLockState",
    "diagnose",
    "library_version",
]

T = TypeVar("T")

LOG_LIMIT: Final = _JOURNAL_LIMIT
"""The largest log, in bytes, while checkpoints keep up."""

_FAULTS: Final = 10
_BUSY_SECONDS: Final = 5.0
_WATCHED: Final = 20
_NAP: Final = 0.05

_OBJECTS: Final = "SELECT type || ' ' || name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'"
_BURIED: Final = (
    "SELECT node_id, host, pid, renewed_at FROM node WHERE dead = 1 ORDER BY renewed_at DESC"
)
_OWNERS: Final = (
    "SELECT owner, count(*) FROM instance WHERE owner IS NOT NULL GROUP BY owner ORDER BY owner"
)
_TAKERS: Final = (
    "SELECT owner, count(*) FROM activity WHERE owner IS NOT NULL GROUP BY owner ORDER BY owner"
)
_WAITING: Final = """
    SELECT queue, name, count(*), min(started_at) FROM activity
    WHERE queue IS NOT NULL AND owner IS NULL AND result IS NULL AND failure IS NULL
    GROUP BY queue, name ORDER BY queue, name"""
_KINDS_BY_NUMBER: Final = f"SELECT k.kind_id, {sql.KIND_COLUMNS} FROM kind k"
_TALLIES: Final = """
    SELECT kind, sum(status = 0), sum(status = 0 AND held = 1),
        sum(status = 0 AND held = 0 AND takeovers >= 3 AND owner IS NULL), max(updated_at)
    FROM instance GROUP BY kind ORDER BY kind"""
_MISCOUNTS: Final = """
    SELECT kind, sum(told), sum(found) FROM (
        SELECT kind, status, held, number AS told, 0 AS found FROM tally
        UNION ALL SELECT kind, status, held, 0, 1 FROM instance)
    GROUP BY kind, status, held HAVING sum(told) <> sum(found) ORDER BY kind"""
_HELD: Final = """
    SELECT i.instance_id, i.kind, d.hold FROM instance i JOIN instance_detail d ON d.instance_id = i.instance_id
    WHERE i.held = 1 AND i.status = 0 ORDER BY i.instance_id LIMIT ?"""
# Activities that were handed out count as waiting.
_UNREAD: Final = """
    SELECT instance_id, event_id, attempts FROM activity
    WHERE queue IS NULL AND result IS NULL AND failure IS NULL AND instr(attempts, CAST('"unread"' AS BLOB)) > 0
    ORDER BY instance_id, event_id LIMIT ?"""
_CRASHING: Final = """
    SELECT instance_id, takeovers FROM instance
    WHERE status = 0 AND held = 0 AND takeovers >= 3 AND owner IS NULL ORDER BY instance_id LIMIT ?"""
_ENDED: Final = """
    SELECT count(*), count(expires_at), coalesce(sum(expires_at <= ?), 0) FROM instance WHERE status <> 0"""
_NEWEST_RENEWAL: Final = "SELECT max(renewed_at) FROM node"


# --- the facts --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pragmas:
    """The pragmas of the file; sizes in bytes. ``synchronous`` belongs to a connection instead.

    ``journal_mode`` is ``None`` for a store at rest: SQLite knows it only of a file with its log.
    """

    journal_mode: str | None
    page_size: int
    pages: int
    free_pages: int
    log_size: int


@dataclass(frozen=True, slots=True)
class WriteLockState:
    """The lock that writers hold from BEGIN to COMMIT.

    ``last`` is the process that took it last, or ``None``; ``runs`` says whether that process
    lives. ``holder`` is the process that holds it now, as far as the kernel tells. ``stuck``: the
    holder kept it and committed nothing, for as long as it was watched.
    """

    last: int | None
    runs: bool
    holder: int | None
    stuck: bool


# --- reading them -----------------------------------------------------------------------------


def library_version() -> tuple[int, int, int]:
    """Return the version of the SQLite library in this process."""
    return sqlite3.sqlite_version_info


def diagnose(path: Path, clock: Clock, look: Callable[[Diagnosis], T]) -> T:
    """Return the result of ``look``, which runs again if a store at rest changes meanwhile.

    Raises:
        StoreUnavailable: there is no such file, or it cannot be reached.
        StoreEmpty: it is an empty file or database.
        StoreCorrupt: it is no database, or not one of this library.
    """
    path = resolve(path)
    settings = Settings(
        path=path,
        durability="full",
        clock=clock,
        busy_seconds=_BUSY_SECONDS,
        migrate=False,
        tombstone_window=0,
    )
    _require_file(path)
    before = _rest(path)
    if before is not None:
        with _open(settings, at_rest=True) as diagnosis:
            found = look(diagnosis)
        if _rest(path) == before:
            return found
    with _open(settings, at_rest=False) as diagnosis:
        return look(diagnosis)


class Diagnosis:
    """Reads the facts. Each method reads its own, so a damaged one hides no other.

    Raises:
        StoreError: from every method that reads the file: it cannot be read.
    """

    def __init__(
        self, connection: sqlite3.Connection, settings: Settings, *, at_rest: bool
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._at_rest = at_rest

    def integrity(self, *, quick: bool) -> tuple[str, ...]:
        """Return the first few faults that SQLite finds. Writers go on; the log grows."""
        pragma = "quick_check" if quick else "integrity_check"
        with translated(self._settings.path):
            rows = self._connection.execute(f"PRAGMA {pragma}({_FAULTS})").fetchall()
        return tuple(str(row[0]) for row in rows if row[0] != "ok")

    def schema(self) -> SchemaState:
        """Compare the schema with the one that this library would have made."""
        with translated(self._settings.path):
            number = _schema_number(self._connection, self._settings.path)
            found = dict(self._connection.execute(_OBJECTS))
            levels = schema.read_levels(self._connection, number)
        library = self._settings.dialect.library
        known = schema.migrations(library)[-1].number
        if number != known:
            return SchemaState(number, known, levels=levels, reads=library.level)
        expected = _expected_objects()
        return SchemaState(
            number,
            known,
            missing=tuple(sorted(expected.keys() - found.keys())),
            changed=tuple(
                sorted(
                    name for name in expected.keys() & found.keys() if expected[name] != found[name]
                )
            ),
            added=tuple(sorted(found.keys() - expected.keys())),
            levels=levels,
            reads=library.level,
        )

    def pragmas(self) -> Pragmas:
        """Return the pragmas of the file."""
        with translated(self._settings.path):
            return Pragmas(
                journal_mode=None if self._at_rest else self._pragma("journal_mode"),
                page_size=self._pragma("page_size"),
                pages=self._pragma("page_count"),
                free_pages=self._pragma("freelist_count"),
                log_size=_size(_beside(self._settings.path, "-wal")),
            )

    def write_lock(self) -> WriteLockState:
        """Return the state of the writers' lock, without taking it: no writer waits for this."""
        path = self._settings.lock_path
        last = read_pid(path)
        if last is None:
            return WriteLockState(None, runs=False, holder=None, stuck=False)
        held = holds(path, last)
        stuck = held and self._stands_still(path, last)
        return WriteLockState(last, runs=runs(last), holder=last if held else None, stuck=stuck)

    def population(self) -> Population:
        """Return the nodes, what they own, and which instances cannot go on."""
        connection = self._connection
        with translated(self._settings.path):
            connection.execute(sql.BEGIN_READ)
            try:
                numbers = {
                    row[0]: read_kind(row[1:]) for row in connection.execute(_KINDS_BY_NUMBER)
                }
                tallies = connection.execute(_TALLIES).fetchall()
                instants = [row[4] for row in tallies] + [
                    connection.execute(_NEWEST_RENEWAL).fetchone()[0]
                ]
                found = Population(
                    catalogue=Catalogue(
                        now=0,
                        nodes=stored_nodes(connection),
                        policies={
                            row[0]: PolicyRow(*row) for row in connection.execute(sql.LIST_POLICIES)
                        },
                        kinds=tuple(numbers.values()),
                        levels=Levels(*connection.execute(sql.READ_LEVELS).fetchone()),
                    ),
                    locks={},
                    buried=tuple(Buried(*row) for row in connection.execute(_BURIED)),
                    owners=dict(connection.execute(_OWNERS)),
                    takers=dict(connection.execute(_TAKERS)),
                    waiting=tuple(
                        Waiting(Route(row[0], row[1]), row[2], row[3])
                        for row in connection.execute(_WAITING)
                    ),
                    tallies=tuple(
                        Tally(numbers.get(row[0]), row[1], row[2], row[3]) for row in tallies
                    ),
                    held=tuple(
                        held_instance(row[0], numbers.get(row[1]), row[2], self._settings.dialect)
                        for row in connection.execute(_HELD, (LOOKED_AT,))
                    ),
                    crashing=tuple(
                        Crashing(*row) for row in connection.execute(_CRASHING, (LISTED,))
                    ),
                    unread=tuple(
                        one
                        for row in connection.execute(_UNREAD, (LOOKED_AT,))
                        if (one := unread_activity(*row)) is not None
                    ),
                    newest=max(
                        (instant for instant in instants if instant is not None), default=None
                    ),
                    miscounts=tuple(
                        Miscount(numbers.get(kind), told, found)
                        for kind, told, found in connection.execute(_MISCOUNTS)
                    ),
                )
            finally:
                connection.execute(sql.ROLLBACK)
        # Locks are probed after the rows are read: a node takes its lock before it has a row, and
        # removes the file when it leaves. So a free lock belongs to a dead node.
        return _with_locks(found, self._settings)

    def ended(self) -> Ended:
        """Return how many instances have ended, and how many of them expire."""
        with translated(self._settings.path):
            return Ended(*self._connection.execute(_ENDED, (self.now(),)).fetchone())

    def strays(self) -> tuple[Stray, ...]:
        """Return rows without what they belong to. It reads the keys of all items of streams."""
        with translated(self._settings.path):
            rows = self._connection.execute(STRAYS.replace("@", "")).fetchall()
        return tuple(Stray(Strayed(what), owner, name) for what, owner, name in rows)

    def now(self) -> int:
        """Return the machine's time."""
        return self._settings.clock.now()

    def _pragma(self, name: str) -> Any:
        return self._connection.execute(f"PRAGMA {name}").fetchone()[0]

    def _stands_still(self, path: Path, holder: int) -> bool:
        with translated(self._settings.path):
            version = self._pragma("data_version")
            for _ in range(_WATCHED):
                sleep(_NAP)
                if not holds(path, holder) or self._pragma("data_version") != version:
                    return False
        return True


# --- the file ---------------------------------------------------------------------------------


def _require_file(path: Path) -> None:
    # A pipe above all must not be opened: that would wait for a writer.
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise StoreUnavailable(f"{path}: not a regular file")
    require_one_name(path)
    require_shared_directory(path)


@contextmanager
def _open(settings: Settings, *, at_rest: bool) -> Generator[Diagnosis]:
    path = settings.path
    with translated(path):
        connection = _connect(settings, "ro&immutable=1") if at_rest else connect_reader(settings)
    with contextlib.closing(connection):
        if _schema_number(connection, path) == 0:
            raise StoreEmpty(
                f"{path}: an empty database, not yet a store; a runtime that opens it makes it one"
            )
        yield Diagnosis(connection, settings, at_rest=at_rest)


def _schema_number(connection: sqlite3.Connection, path: Path) -> int:
    # The number is text in the file: `translated` alone would call bad text a driver error.
    try:
        with translated(path):
            return schema._read_number(connection, path)
    except StoreError as error:
        if isinstance(error.__cause__, ValueError):
            raise StoreCorrupt(f"{path}: the number of its schema is no number") from error
        raise


def _rest(path: Path) -> tuple[int, int, int] | None:
    """Return values that any write changes, or ``None`` if the file may be in use."""
    if any(_beside(path, suffix).exists() for suffix in ("-wal", "-journal")):
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _expected_objects() -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for migration in schema.migrations():
            for statement in migration.statements:
                connection.execute(statement)
        return dict(connection.execute(_OBJECTS))


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# --- locks ------------------------------------------------------------------------------------


def _with_locks(found: Population, settings: Settings) -> Population:
    nodes = found.catalogue.nodes
    locks = {
        node.record.node_id: probe(settings.node_lock_path(node.record.node_id)) for node in nodes
    }
    return replace(found, catalogue=replace(found.catalogue, now=settings.clock.now()), locks=locks)
