"""Read the census of a store."""

from __future__ import annotations

from collections import Counter
from typing import Any

from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.calls import Calls
from orchestra.providers.postgres.kinds import read_kind
from orchestra.store.census import GROUPS_READ, Census, SeenCode, in_order
from orchestra.store.decoding import pin_from_bytes, read_open_code
from orchestra.store.kinds import Dialect
from orchestra.store.routes import Kind
from orchestra.store.tallies import TallyRow, read_tally

__all__ = ["read_census", "tally_of"]


def tally_of(rows: list[tuple[Any, ...]], dialect: Dialect) -> list[TallyRow]:
    """Return the rows of the statement that reads the store's numbers."""
    return read_tally(
        ((read_kind(kind), status, held, number) for *kind, status, held, number in rows), dialect
    )


def read_census(calls: Calls, failed_since: int, name: str | None, dialect: Dialect) -> Census:
    """Return the census of one name, or of all, in one snapshot."""
    tally, kinds, owned, crashing, holds, failed, pins, groups, seen = calls.read_all(
        [
            (sql.READ_TALLY, ()),
            (sql.LAST_BOUNDARIES, ()),
            (sql.COUNT_OWNED_BY_KIND, ()),
            (sql.COUNT_CRASHING, ()),
            (sql.COUNT_HOLDS, ()),
            (sql.COUNT_FAILED, (failed_since,)),
            (sql.LIST_PINS, (GROUPS_READ,)),
            (sql.LIST_OPEN_CODE, (name, GROUPS_READ)),
            (sql.LIST_SEEN_CODE, ()),
        ],
        one_moment=True,
    )
    of_number = {row[0]: read_kind(row[1:7]) for row in kinds}

    def is_asked(found: str) -> bool:
        return name is None or found == name

    def by_kind(rows: list[tuple[Any, ...]]) -> dict[Kind, int]:
        found = {of_number[number]: count for number, count in rows}
        return {kind: count for kind, count in found.items() if is_asked(kind.name)}

    return Census(
        tally=tuple(row for row in tally_of(tally, dialect) if is_asked(row.kind.name)),
        owned=by_kind(owned),
        crashing=by_kind(crashing),
        holds={
            (of_number[number], dialect.library.holds.read(hold)): count
            for number, hold, count in holds
            if is_asked(of_number[number].name)
        },
        boundaries=by_kind([(row[0], row[7]) for row in kinds if row[7] is not None]),
        failed={(row[0], row[1]): row[2] for row in failed if is_asked(row[0])},
        pinned=Counter(
            (read_kind(kind), (read := pin_from_bytes(pin)).version, read.until)
            for *kind, pin in pins
            if is_asked(read_kind(kind).name)
        ),
        open_code=in_order(read_open_code(row, dialect) for row in groups if is_asked(row[0])),
        seen=tuple(SeenCode(*row) for row in seen if is_asked(row[0])),
    )
