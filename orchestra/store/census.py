"""The census: what a version report knows of a store, read at one moment.

Its cost depends on how many kinds, versions and codes there are, on how many instances nodes own
now, and on how many are held or pinned, crash, or failed lately: an entry of an index for each of
these. Parked instances cost nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from orchestra.levels import Unknown
from orchestra.store.kinds import HoldKind, ResolvedBy
from orchestra.store.routes import Kind
from orchestra.store.tallies import TallyRow

__all__ = ["GROUPS_READ", "Census", "OpenCode", "Pinned", "SeenCode", "in_order"]

Pinned = tuple[Kind, str, int | None]
"""A kind, the version of a pin, and until when it counts."""

GROUPS_READ: Final = 10_000
"""The most groups of open executions, and the most pins, that a census reads."""


@dataclass(frozen=True, slots=True)
class OpenCode:
    """Open executions that have one version, one code, one way in which the version was chosen, and
    the same marks of patches.

    ``fingerprint`` is ``None`` if they have not begun. ``oldest`` is when the first was made.
    """

    name: str
    version: str
    fingerprint: str | None
    how: ResolvedBy | Unknown
    patches: tuple[str, ...]
    oldest: int


@dataclass(frozen=True, slots=True)
class SeenCode:
    """Code of a version that nodes had: when and where it was seen first and last.

    A node's code is seen as it joins, and as it leaves or is buried.
    """

    name: str
    version: str
    fingerprint: str
    first_seen: int
    first_node: str
    last_seen: int
    last_node: str


@dataclass(frozen=True, slots=True)
class Census:
    """What a version report knows of a store.

    ``owned``: how many open instances nodes own, by kind; ``crashing``: how many wait after several
    nodes were lost with them; ``holds``: how many have a stored hold, by kind and cause.
    ``boundaries``: when the last boundary is due. ``failed``: how many
    executions failed since a moment, by name and version. ``pinned``: how many open instances are
    of a kind and have a pin to a version until a moment, expired pins included.
    """

    tally: tuple[TallyRow, ...] = ()
    owned: Mapping[Kind, int] = field(default_factory=dict[Kind, int])
    crashing: Mapping[Kind, int] = field(default_factory=dict[Kind, int])
    boundaries: Mapping[Kind, int] = field(default_factory=dict[Kind, int])
    failed: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    pinned: Mapping[Pinned, int] = field(default_factory=dict["Pinned", int])
    open_code: tuple[OpenCode, ...] = ()
    seen: tuple[SeenCode, ...] = ()
    holds: Mapping[tuple[Kind, HoldKind | Unknown], int] = field(
        default_factory=dict[tuple[Kind, HoldKind | Unknown], int]
    )

    @property
    def pins(self) -> Mapping[tuple[str, str], int]:
        """How many open instances are pinned to a version of a name."""
        numbers: Counter[tuple[str, str]] = Counter()
        for (kind, version, _), number in self.pinned.items():
            numbers[kind.name, version] += number
        return numbers


def in_order(groups: Iterable[OpenCode]) -> tuple[OpenCode, ...]:
    """Return groups of open executions in one order, whatever the collations of the store."""
    return tuple(sorted(groups, key=_order))


def _order(group: OpenCode) -> tuple[str, str, str, str, str]:
    patches = " ".join(group.patches)
    return group.name, group.version, group.fingerprint or "", str(group.how.value), patches
