"""Kinds and their levels: what lets libraries of different ages work on one store (protocol rules
37 and 38).

Stored rows name their *kind* by a number or a word. A newer library may have kinds that an older
one does not know. The older one reads them as :class:`Unknown`: it shows them and leaves them
alone. Each stored form has a *level*; it is written only once the store's write level has risen to
it, which happens when all living nodes can read it.

A :class:`Kinds` is the table of one sort of kinds. To add a kind is to add one line to its table,
with the next level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from orchestra.errors import LevelTooLow

__all__ = ["BASE_LEVEL", "Forms", "Kinds", "Levels", "Stored", "Unknown"]

K = TypeVar("K")

Stored = int | str
"""The stored form of a kind."""

BASE_LEVEL: Final = 1
"""The level of all kinds of the first library: they may always be written."""


class Levels(NamedTuple):
    """The levels of a store: kinds are written up to ``write``, and libraries below
    ``lowest_reader`` are refused.
    """

    write: int = BASE_LEVEL
    lowest_reader: int = BASE_LEVEL


@dataclass(frozen=True, slots=True)
class Unknown:
    """A stored kind that this library does not know: a newer library wrote it.

    ``sort`` names its table, ``stored`` is the stored number or word.
    """

    sort: str
    stored: Stored

    @property
    def name(self) -> str:
        """The text that people see instead of a name."""
        return "UNKNOWN"

    @property
    def value(self) -> Stored:
        """Its stored form, as of a known kind."""
        return self.stored

    def __str__(self) -> str:
        return f"unknown {self.sort} {self.stored!r}"


class Forms(dict[K, Stored]):
    """The stored forms of one sort of kinds at a write level.

    Raises:
        LevelTooLow: on looking up a kind that may not be written yet, or is unknown here.
    """

    def __init__(self, sort: str, level: int, forms: Mapping[K, Stored]) -> None:
        super().__init__(forms)
        self._sort = sort
        self._level = level

    def __missing__(self, kind: K) -> Stored:
        raise LevelTooLow(
            f"{self._sort} {kind!s} is not written at level {self._level} of the store; the "
            "level rises by itself once all nodes have a library that reads it"
        )


class Kinds(Generic[K]):
    """The kinds of one sort, with their stored forms and levels.

    Args:
        sort: the name of the sort, for people: "hold", "message".
        known: the meaning of each stored form.
        levels: the levels of stored forms above the base level.
    """

    __slots__ = ("_forms", "_known", "_levels", "sort")

    def __init__(
        self, sort: str, known: Mapping[Stored, K], levels: Mapping[Stored, int] | None = None
    ) -> None:
        self.sort: str = sort
        self._known: dict[Stored, K] = dict(known)
        self._levels: dict[Stored, int] = dict(levels or {})
        self._forms: dict[int, Forms[K]] = {}
        """Results of :meth:`at`: each start and lap asks for them."""

    def adding(self, stored: Stored, meaning: K, level: int) -> Kinds[K]:
        """Return a table with one more stored form. It replaces older forms of the same meaning in
        writes.
        """
        return Kinds(self.sort, self._known | {stored: meaning}, self._levels | {stored: level})

    def read(self, stored: Stored) -> K | Unknown:
        """Return the meaning of a stored form."""
        kind = self._known.get(stored)
        return Unknown(self.sort, stored) if kind is None else kind

    def at(self, level: int) -> Forms[K]:
        """Return the stored form of each kind at a write level: its newest form that may be
        written.
        """
        known = self._forms.get(level)
        if known is None:
            forms = sorted(
                (stored for stored in self._known if self.level(stored) <= level), key=self.level
            )
            known = self._forms[level] = Forms(
                self.sort, level, {self._known[stored]: stored for stored in forms}
            )
        return known

    def level_at(self, kind: K, level: int) -> int:
        """Return the level that a library must read to know a kind that is written at a write
        level.
        """
        return self.level(self.at(level)[kind])

    def level(self, stored: Stored) -> int:
        """Return the level of a known stored form."""
        return self._levels.get(stored, BASE_LEVEL)

    def forms(self, *kinds: K) -> tuple[Stored, ...]:
        """Return every stored form of some kinds."""
        return tuple(stored for stored, meaning in self._known.items() if meaning in kinds)

    @property
    def later_levels(self) -> Mapping[Stored, int]:
        """The levels of the stored forms above the base level."""
        return self._levels
