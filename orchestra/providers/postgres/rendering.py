"""PostgreSQL's form of the statements that follow from a table's columns, and of their values.

A statement takes its rows as arrays, one a column (``unnest``), so any number of rows is one
statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from orchestra.providers.postgres.arrays import Blobs, Flags, Numbers, Texts
from orchestra.store.tables import Columns

__all__ = ["arrays", "exactly", "given", "insert", "update"]

_ARRAYS: Final[dict[str, Callable[[Iterable[Any]], list[Any]]]] = {
    "text": Texts,
    "number": Numbers,
    "flag": Flags,
    "blob": Blobs,
}
_CASTS: Final = {"text": "text[]", "number": "bigint[]", "flag": "boolean[]", "blob": "bytea[]"}


def arrays(columns: Columns, rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Return the values of some rows as arrays for statements. Without rows the arrays are
    empty.
    """
    values = list(zip(*rows, strict=True)) or [()] * len(columns)
    return [
        _ARRAYS[column.type](column_values)
        for column, column_values in zip(columns, values, strict=True)
    ]


def given(columns: Columns, alias: str = "u", *, numbered: bool = False) -> str:
    """Return the rows in a statement's first parameters, as a table; ``numbered``: with their
    ``place``.
    """
    parameters = ", ".join(
        f"${number}::{_CASTS[column.type]}" for number, column in enumerate(columns, 1)
    )
    ordinality, place = (" WITH ORDINALITY", ", place") if numbered else ("", "")
    return f"unnest({parameters}){ordinality} AS {alias} ({columns.listed()}{place})"


def insert(table: str, columns: Columns) -> str:
    """Return the statement that adds rows."""
    return (
        f"INSERT INTO @{table} ({columns.listed()}) SELECT {columns.listed('u')} FROM "
        f"{given(columns)}"
    )


def update(
    table: str, columns: Columns, key: Columns, *, condition: str = "", more: str = ""
) -> str:
    """Return the statement that changes columns of rows, in all rows or none.

    Its parameters are the columns, the key, and the number of rows. ``condition`` must hold for
    each row ``t``; ``more`` sets further columns.
    """
    changes = ", ".join(f"{name} = u.{name}" for name in columns.names)
    matches = " AND ".join(f"t.{name} = u.{name}" for name in key.names)
    whole = Columns((*columns, *key))
    return exactly(
        f"UPDATE @{table} t SET {changes}{more} FROM {given(whole)} WHERE {matches}{condition}",
        number=len(whole) + 1,
    )


def exactly(statement: str, number: int) -> str:
    """Return a statement that fails (22012, division by zero) unless it changes a given number of
    rows.

    Its script then ends before the COMMIT. If one statement updates a row twice, PostgreSQL
    silently drops one update (rule 7); the number shows this.
    """
    return (
        f"WITH changed AS ({statement} RETURNING 1) SELECT 1 / (count(*) = "
        f"${number}::bigint)::integer FROM changed"
    )
