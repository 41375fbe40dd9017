"""Nodes of two ages on one store: which library a node has, and what an old one may do to what it
does not know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Literal

from orchestra.levels import Unknown
from orchestra.store.changes import Claim, Write
from orchestra.store.kinds import THIS_LIBRARY, Library
from orchestra.store.queries import InstanceRecord
from orchestra.store.snapshots import Snapshot
from tests.support.ages import NEXT_LEVEL

__all__ = ["ERAS", "Ages", "Era", "is_known"]

Era = Literal["old", "mixed", "new"]

ERAS: Final[tuple[Era, ...]] = ("old", "mixed", "new", "mixed", "old", "mixed", "new", "old", "new")
"""Which libraries nodes have: an upgrade, a roll back, and again; the later ones are not always
reached.
"""


class Ages:
    """Checks what nodes do to rows that their library does not know (rule 37).

    Args:
        library_of: which library a node has; ``None``: nobody knows of that node any more.
    """

    def __init__(self, library_of: Callable[[str], Library | None], counts: Counter[str]) -> None:
        self._library_of = library_of
        self._counts = counts
        self._beyond: dict[str, str] = {}
        """Instances in which a node has met what it does not know, when it claimed them."""
        self.common_format: int | None = None
        """What new executions are to be written in now, where nothing is in the way of knowing
        it.
        """

    def reads_all_ends(self, node: str | None) -> bool:
        """Return whether a node reads each status that any library writes."""
        library = None if node is None else self._library_of(node)
        return library is None or library.level >= NEXT_LEVEL

    def claimed(self, claim: Claim, snapshot: Snapshot) -> None:
        """A node was given an instance: one that is routed to nodes like it."""
        row = snapshot.row
        library = self._library_of(claim.node)
        if library is None:
            return
        assert row.kind.level <= library.level, f"rule 37: {claim.node} reads less than {row.kind}"
        assert row.kind.format in library.formats, f"rule 38: {claim.node} does not read {row.kind}"
        unknown = [
            snapshot.execution.resolution.how,
            *(message.kind for message in snapshot.messages),
        ]
        if any(isinstance(kind, Unknown) for kind in unknown):
            self._counts["unknown kinds met"] += 1
            self._beyond[row.instance_id] = claim.node

    def written(self, write: Write) -> None:
        """A node has written: what it does not know it has handed on, and nothing else."""
        formats = [delta.opened.format for delta in write.executions if delta.opened is not None]
        formats += [
            delta.create.format
            for delta in write.executions
            if delta.create is not None and delta.create.format
        ]
        self._counts.update(f"opened in format {number}" for number in formats)
        if self.common_format is not None:
            fits = all(number == self.common_format for number in formats)
            assert fits, (
                f"rule 38: {write.instance_id} was opened in {formats}, and not in "
                f"{self.common_format}"
            )
        if self._beyond.pop(write.instance_id, None) != write.owner or write.owner is None:
            return
        self._counts["instances handed on"] += 1
        changes = (
            write.executions,
            write.consumed,
            write.completed,
            write.extras.starts,
            write.extras.cancels,
            write.hold,
            write.prune,
        )
        assert not any(changes), (
            f"rule 37: {write.owner} has changed {write.instance_id}, which it does not know: "
            f"{write}"
        )
        assert write.state.owner is None, (
            f"rule 37: {write.owner} keeps {write.instance_id}, which it does not know"
        )
        library = self._library_of(write.owner)
        assert library is None or write.state.kind.level > library.level, (
            f"rule 37: {write.instance_id} comes back to it"
        )


def is_known(record: InstanceRecord, library: Library = THIS_LIBRARY) -> bool:
    """Return whether nodes of a library may go on with an instance, as that library reads it."""
    kind = record.row.kind
    hold = record.row.hold if record.held else None
    kinds = record.status, record.execution.resolution.how, None if hold is None else hold.kind
    return (
        kind.level <= library.level
        and kind.format in library.formats
        and not any(isinstance(one, Unknown) for one in kinds)
    )
