"""What can be found out about a store of any provider; the same facts mean the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from orchestra.codec import unpack
from orchestra.levels import Levels, Unknown
from orchestra.store.catalogue import Catalogue
from orchestra.store.decoding import hold_from_bytes
from orchestra.store.instances import shown_hold
from orchestra.store.kinds import Dialect, HoldKind
from orchestra.store.routes import Kind, Route

__all__ = [
    "LISTED",
    "LOOKED_AT",
    "Buried",
    "Crashing",
    "Ended",
    "HeldInstance",
    "NodeLockState",
    "Population",
    "SchemaState",
    "Tally",
    "Unread",
    "Waiting",
    "held_instance",
    "unread_activity",
]

LISTED: Final = 10
"""Of how many instances of a sort the ids are told."""

LOOKED_AT: Final = 1_000
"""How many rows are decoded of what is counted by what only their bytes tell."""


@dataclass(frozen=True, slots=True)
class SchemaState:
    """The number of the store's schema and of the newest that is known here; how its objects
    differ, where both are the same.

    ``levels`` are those of the store, ``None`` where its schema is older than they are; ``reads``
    is the level of this library. ``invalid`` are indexes that are there, but that the server does
    not use.
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
        """Whether this library understands what the store holds."""
        if self.levels is not None and self.levels.lowest_reader > self.reads:
            return False
        return self.number >= self.known


class NodeLockState(StrEnum):
    """How the lock of a node stands.

    ``FREE``: its process is certainly gone. ``LOST``: its connection is gone, and most likely its
    process. ``MISSING``: it has none, which says nothing.
    """

    HELD = "held"
    FREE = "free"
    LOST = "lost"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Buried:
    """A node that others have declared dead."""

    node_id: str
    host: str
    pid: int
    renewed_at: int


@dataclass(frozen=True, slots=True)
class Tally:
    """How many instances of a kind there are: open ones, and of these the held ones and the
    crashing ones.
    """

    kind: Kind | None
    open: int
    held: int
    crashing: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Activities that are handed out by a route and that nobody has taken: how many, and when the
    oldest was asked for.
    """

    route: Route
    count: int
    since: int


@dataclass(frozen=True, slots=True)
class HeldInstance:
    """An instance with a stored hold, and its kind where the store has it. ``why`` is ``None``
    where that cannot be read.
    """

    instance_id: str
    kind: Kind | None
    why: HoldKind | Unknown | None
    reason: str


@dataclass(frozen=True, slots=True)
class Unread:
    """An activity that waits at its instance's owner, since no code that was tried could read its
    arguments.
    """

    instance_id: str
    event_id: int
    error: str


@dataclass(frozen=True, slots=True)
class Crashing:
    """An instance whose owners were lost again and again."""

    instance_id: str
    takeovers: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Instances that have ended: how many, how many of them go by themselves, and how many of these
    are to go by now.
    """

    count: int
    expiring: int
    due: int


@dataclass(frozen=True, slots=True)
class Population:
    """Nodes and instances, all of one moment.

    ``owners`` says how many instances each node owns, and ``takers`` how many activities that were
    handed out each has taken; by the nodes' ids, of living, of dead and of unknown ones;
    ``waiting``, which of these nobody has taken. Of ``held`` and ``unread`` the first
    :data:`LOOKED_AT` are there. ``newest`` is the latest instant at which a row says it was
    written.
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


def held_instance(
    instance_id: str, kind: Kind | None, hold: bytes | None, dialect: Dialect
) -> HeldInstance:
    """Return why an instance is held, from what is stored of it."""
    try:
        found = hold_from_bytes(hold or b"", dialect)
    except (ValueError, KeyError, TypeError):
        return HeldInstance(instance_id, kind, None, "the stored reason cannot be read")
    return HeldInstance(instance_id, kind, found.kind, f"{shown_hold(found)}: {found.detail}")


def unread_activity(instance_id: str, event_id: int, attempts: bytes) -> Unread | None:
    """Return what an activity's row tells of code that could not read its arguments; ``None``:
    nothing.
    """
    try:
        known = unpack(attempts)
        return (
            Unread(instance_id, event_id, str(known["unread_error"])) if known["unread"] else None
        )
    except (ValueError, KeyError, TypeError):
        return None
