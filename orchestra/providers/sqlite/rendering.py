"""SQLite's form of the statements that follow from a table's columns."""

from __future__ import annotations

from orchestra.store.tables import Columns

__all__ = ["insert", "update"]


def insert(table: str, columns: Columns) -> str:
    """Return the statement that adds a row."""
    return f"INSERT INTO {table} ({columns.listed()}) VALUES ({', '.join('?' * len(columns))})"


def update(table: str, columns: Columns, key: Columns) -> str:
    """Return the statement that changes columns of a row. Its parameters are the columns, then the
    key.
    """
    changes = ", ".join(f"{name} = ?" for name in columns.names)
    condition = " AND ".join(f"{name} = ?" for name in key.names)
    return f"UPDATE {table} SET {changes} WHERE {condition}"
