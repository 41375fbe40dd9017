"""Kinds as small integers, which claims are indexed by (protocol rule 24)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Flags, Numbers, Texts
from orchestra.providers.postgres.calls import Calls, Transaction
from orchestra.store.decoding import read_queue, stored_queue
from orchestra.store.routes import Kind, Route

__all__ = ["Kinds", "kind_arrays", "read_kind", "route_arrays"]


class Kinds:
    """A cache of the numbers of kinds. A number never changes.

    A separate transaction assigns numbers, before the group that needs them. An unused number does
    no harm.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._guard = threading.Lock()
        self._numbers: dict[Kind, int] = {}

    def clear(self) -> None:
        """Clear the cache. Call it for each new connection: it may lead to a restored database."""
        with self._guard:
            self._numbers = {}

    def make_sure_of(self, kinds: Iterable[Kind]) -> dict[Kind, int]:
        """Return the numbers of these kinds, and assign missing ones. Outside of transactions
        only.
        """
        wanted = dict.fromkeys(kinds)
        if any(kind not in self._numbers for kind in wanted):
            self._load()
        missing = sorted((kind for kind in wanted if kind not in self._numbers), key=_sort_key)
        if missing:
            self._calls.transaction(lambda transaction: _add(transaction, missing))
            self._load()
        return {kind: self._numbers[kind] for kind in wanted}

    def _load(self) -> None:
        found = {read_kind(row[:6]): row[6] for row in self._calls.read(sql.LIST_KINDS)}
        with self._guard:
            self._numbers = found


def read_kind(columns: Sequence[Any]) -> Kind:
    """Return a kind from its columns."""
    queue, name, version, event_format, floating, level = columns
    return Kind(read_queue(queue), name, version, event_format, floating, level)


def kind_arrays(kinds: Sequence[Kind]) -> tuple[Texts, Texts, Texts, Numbers, Flags, Numbers]:
    """Return kinds as arrays for statements."""
    return (
        Texts(stored_queue(kind.queue) for kind in kinds),
        Texts(kind.name for kind in kinds),
        Texts(kind.version for kind in kinds),
        Numbers(kind.format for kind in kinds),
        Flags(kind.floating for kind in kinds),
        Numbers(kind.level for kind in kinds),
    )


def route_arrays(routes: Iterable[Route]) -> tuple[Texts, Texts]:
    """Return routes of activities as arrays for statements."""
    distinct = dict.fromkeys(routes)
    return Texts(route.queue for route in distinct), Texts(route.name for route in distinct)


def _add(transaction: Transaction, kinds: Sequence[Kind]) -> None:
    transaction.begin()
    script = transaction.script()
    script.add(sql.ADD_KINDS, *kind_arrays(kinds))
    transaction.commit(script)


def _sort_key(kind: Kind) -> tuple[str, str, str, int, bool, int]:
    return kind.name, kind.version, kind.queue, kind.format, kind.floating, kind.level
