"""Refuse operators' commands on instances with rows that only a newer library knows (protocol rule
37).
"""

from __future__ import annotations

from orchestra.errors import LevelTooLow, NewerLibraryNeeded
from orchestra.levels import Unknown
from orchestra.resolution import is_living
from orchestra.store.catalogue import Catalogue
from orchestra.store.instances import InstanceRow
from orchestra.store.kinds import Library
from orchestra.store.queries import InstanceRecord

__all__ = ["ending_format", "raise_unless_known", "require_known", "require_level"]


def require_known(record: InstanceRecord, library: Library, *, history: bool = True) -> None:
    """Check that this library knows all that an operator's write would change (protocol rule 37).

    Args:
        history: whether the write continues the history, and so must know its format.

    Raises:
        NewerLibraryNeeded: it does not, and leaves the instance alone.
    """
    hold = record.row.hold
    held = hold.kind if record.held and hold is not None else None
    kinds = record.status, record.execution.resolution.how, held
    unknown = next((str(kind) for kind in kinds if isinstance(kind, Unknown)), None)
    raise_unless_known(record.row, library, unknown, history=history)


def raise_unless_known(
    row: InstanceRow, library: Library, unknown: str | None = None, *, history: bool = True
) -> None:
    """Check that this library may go on with an instance of this kind.

    Raises:
        NewerLibraryNeeded: it may not.
    """
    kind = row.kind
    if unknown is None and kind.level > library.level:
        unknown = f"rows of level {kind.level}, where this library reads up to {library.level}"
    if unknown is None and history and kind.format not in library.formats:
        unknown = f"history in format {kind.format}"
    if unknown is not None:
        raise NewerLibraryNeeded(
            f"instance {row.instance_id!r} has what only a newer library knows ({unknown}); "
            "nothing was changed. Do it with that library",
            instance_id=row.instance_id,
        )


def ending_format(row: InstanceRow, library: Library, catalogue: Catalogue) -> int:
    """Return the format of the event with which an operator ends an instance.

    That is the format of its execution. If neither this library nor a living node reads that, no
    node can ever continue, and the event has a format of this library.

    Raises:
        NewerLibraryNeeded: this library does not read it, and a living node does.
    """
    if row.kind.format in library.formats:
        return row.kind.format
    if any(
        is_living(node, catalogue.now) and row.kind.format in node.record.formats
        for node in catalogue.nodes
    ):
        raise_unless_known(row, library)
    return max(library.formats)


def require_level(catalogue: Catalogue, level: int, what: str) -> None:
    """Check that all nodes know what is about to be written.

    Args:
        what: what cannot be done otherwise, as a sentence begins.

    Raises:
        LevelTooLow: the store is not written at this level yet.
    """
    if catalogue.levels.write < level:
        raise LevelTooLow(
            f"{what}: a node with an older library lives, which would not know of it, or no node "
            "of this library has lived on the store yet; try again once all nodes have the new "
            "library"
        )
