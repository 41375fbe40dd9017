"""Facts about a store, of any provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from orchestra.codec import unpack
from orchestra.levels import Levels, Unknown
from orchestra.store.catalogue import Catalogue
from orchestra.store.decoding import hold_from_bytes
from orchestra.store.instances import hold_text
from orchestra.store.kinds import Dialect, HoldKind
from orchestra.store.routes import Kind, Route
from orchestra.store.streams import JOURNAL

__all__ = [
    "LISTED",
    "LOOKED_AT",
    "STRAYS",
    "Buried",
    "Crashing",
    "Ended",
    "HeldInstance",
    "Miscount",
    "NodeLockState",
    "Population",
    "SchemaState",
    "Stray",
    "Strayed",
    "Tally",
    "Unread",
    "Waiting",
    "held_instance",
    "unread_activity",
]

LISTED: Final = 10
"""How many instances of a sort a report names."""

LOOKED_AT: Final = 1_000
"""How many rows are decoded where only their bytes tell what they are."""


class Strayed(StrEnum):
    """How rows lack what they belong to."""

    STREAM = "stream"
    """A stream of an instance that is not there."""
    ITEMS = "items"
    """Items of a stream that is not there."""
    GAP = "gap"
    """A stream whose items are not those from its first to its last offset."""
    JOURNAL = "journal"
    """Steps of an activity that no attempt will read."""
    REQUEST = "request"
    """A request to an instance that is not there."""
    SLOTS = "slots"
    """Slots of a schedule that is not there."""


_STRAYS: Final = {
    Strayed.STREAM: """
        SELECT s.instance_id AS id, s.stream AS name FROM @stream s
        WHERE NOT EXISTS (SELECT 1 FROM @instance i WHERE i.instance_id = s.instance_id)""",
    Strayed.ITEMS: """
        SELECT DISTINCT t.instance_id AS id, t.stream AS name FROM @stream_item t WHERE NOT EXISTS
            (SELECT 1 FROM @stream s WHERE s.instance_id = t.instance_id AND s.stream = t.stream)""",
    Strayed.GAP: """
        SELECT s.instance_id AS id, s.stream AS name FROM @stream s LEFT JOIN (
            SELECT instance_id, stream, count(*) AS n, min(item_offset) AS first, max(item_offset) AS last
            FROM @stream_item GROUP BY instance_id, stream) t
        ON t.instance_id = s.instance_id AND t.stream = s.stream
        WHERE t.n IS NULL OR t.first <> s.first_offset OR t.last <> s.last_offset
            OR t.n <> s.last_offset - s.first_offset + 1""",
    # Its first step may stand before the row of its activity does, while a node owns the instance.
    Strayed.JOURNAL: f"""
        SELECT s.instance_id AS id, s.stream AS name FROM @stream s
        JOIN @instance i ON i.instance_id = s.instance_id
        WHERE substr(s.stream, 1, {len(JOURNAL)}) = '{JOURNAL}' AND (i.status <> 0 OR i.owner IS NULL)
            AND NOT EXISTS (SELECT 1 FROM @activity a WHERE a.instance_id = s.instance_id
                AND s.stream = '{JOURNAL}' || a.execution || '/' || a.event_id)""",
    Strayed.REQUEST: """
        SELECT r.instance_id AS id, r.request_id AS name FROM @request r
        WHERE NOT EXISTS (SELECT 1 FROM @instance i WHERE i.instance_id = r.instance_id)""",
    Strayed.SLOTS: """
        SELECT DISTINCT t.schedule_id AS id, '' AS name FROM @schedule_slot t
        WHERE NOT EXISTS (SELECT 1 FROM @schedule s WHERE s.schedule_id = t.schedule_id)""",
}

STRAYS: Final = " UNION ALL ".join(
    f"SELECT '{what}', found.id, found.name FROM ({select} LIMIT {LOOKED_AT}) found"
    for what, select in _STRAYS.items()
)
"""One statement, for every database; ``@name`` is a table of the store. Each row is a
:class:`Strayed`, an id, and a name: the first :data:`LOOKED_AT` of each sort.
"""


@dataclass(frozen=True, slots=True)
class Stray:
    """Rows without what they belong to. ``id`` is that of an instance or a schedule; ``name`` is
    the stream or the request.
    """

    what: Strayed
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class SchemaState:
    """The number of the store's schema and of this library's, and differences of the objects.

    Objects are compared only if both numbers are equal. ``levels`` are the store's; ``None`` if its
    schema has none yet. ``reads`` is this library's level. ``invalid`` names indexes that exist,
    but that the server does not use.
    """

    number: int
    known: int
    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    levels: Levels | None = None
    reads: int = 1

    @property
    def is_readable(self) -> bool:
        """Whether this library understands the store's contents."""
        if self.levels is not None and self.levels.lowest_reader > self.reads:
            return False
        return self.number >= self.known


class NodeLockState(StrEnum):
    """The state of a node's lock.

    ``FREE``: its process is certainly gone. ``LOST``: its connection is gone, and most likely its
    process. ``MISSING``: it has no lock, which proves nothing.
    """

    HELD = "held"
    FREE = "free"
    LOST = "lost"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Buried:
    """A node that other nodes have declared dead."""

    node_id: str
    host: str
    pid: int
    renewed_at: int


@dataclass(frozen=True, slots=True)
class Tally:
    """The number of open instances of a kind, and how many of them are held or crashing."""

    kind: Kind | None
    open: int
    held: int
    crashing: int


@dataclass(frozen=True, slots=True)
class Miscount:
    """A number of the tallies that differs from the number of rows."""

    kind: Kind | None
    told: int
    found: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Activities of a route that no node has taken: how many, and since when the oldest waits."""

    route: Route
    count: int
    since: int


@dataclass(frozen=True, slots=True)
class HeldInstance:
    """An instance with a stored hold, and its kind if the store has it.

    ``why`` is ``None`` if the hold cannot be read.
    """

    instance_id: str
    kind: Kind | None
    why: HoldKind | Unknown | None
    reason: str


@dataclass(frozen=True, slots=True)
class Unread:
    """An activity that waits at its owner: no code that was tried could read its arguments."""

    instance_id: str
    event_id: int
    error: str


@dataclass(frozen=True, slots=True)
class Crashing:
    """An instance whose owners were lost several times in a row."""

    instance_id: str
    takeovers: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The number of ended instances, of those with an expiry, and of those that have expired."""

    count: int
    expiring: int
    due: int


@dataclass(frozen=True, slots=True)
class Population:
    """Nodes and instances, all in one snapshot.

    ``owners`` counts instances by the id of their owner, ``takers`` activities that were handed out
    by the id of the node that took them. Both include dead and unknown nodes. ``waiting`` counts
    activities that no node has taken. ``held`` and ``unread`` hold the first :data:`LOOKED_AT`.
    ``newest`` is the latest time at which a row was written.
    """

    catalogue: Catalogue
    locks: Mapping[str, NodeLockState]
    buried: tuple[Buried, ...]
    owners: Mapping[str, int]
    takers: Mapping[str, int]
    waiting: tuple[Waiting, ...]
    tallies: tuple[Tally, ...]
    held: tuple[HeldInstance, ...]
    crashing: tuple[Crashing, ...]
    unread: tuple[Unread, ...]
    newest: int | None
    miscounts: tuple[Miscount, ...] = ()


def held_instance(
    instance_id: str, kind: Kind | None, hold: bytes | None, dialect: Dialect
) -> HeldInstance:
    """Return why an instance is held, from its stored hold."""
    try:
        found = hold_from_bytes(hold or b"", dialect)
    except (ValueError, KeyError, TypeError):
        return HeldInstance(instance_id, kind, None, "the stored reason cannot be read")
    return HeldInstance(instance_id, kind, found.kind, hold_text(found))


def unread_activity(instance_id: str, event_id: int, attempts: bytes) -> Unread | None:
    """Return the activity if its row says that code could not read its arguments, else ``None``."""
    try:
        known = unpack(attempts)
        return (
            Unread(instance_id, event_id, str(known["unread_error"])) if known["unread"] else None
        )
    except (ValueError, KeyError, TypeError):
        return None
