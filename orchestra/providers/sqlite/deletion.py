"""Delete ended instances: one by an operator, or many that have expired."""

from __future__ import annotations

from typing import Final

from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.writer import Transaction, Writer
from orchestra.store.executions import GOES_WITH_LAP, MARKED_AT_ONCE

__all__ = ["delete_expired", "delete_instance"]

_ROWS_AT_ONCE: Final = 2_000
"""Rows after which a transaction deletes no further instance, to free the lock for nodes."""


def delete_instance(transaction: Transaction, instance_id: str, incarnation: str) -> int:
    """Delete an ended instance and all its rows (I9). Return the number of rows; 0: it is open, or
    absent.
    """
    connection = transaction.connection
    deleted = connection.execute(sql.DELETE_INSTANCE, (instance_id, incarnation)).rowcount
    if deleted:
        deleted += sum(
            connection.execute(statement, (instance_id,)).rowcount
            for statement in sql.DELETE_BELONGINGS
        )
    return deleted


def delete_expired(writer: Writer, limit: int) -> int:
    """Delete expired instances, the longest overdue first. Return how many."""
    with writer.reading() as reading:
        if reading.connection.execute(sql.ANY_EXPIRED, (reading.now,)).fetchone() is None:
            return 0
    count = rows = 0
    with writer.transaction() as transaction:
        for instance_id, incarnation, expires_at in transaction.connection.execute(
            sql.FIND_EXPIRED, (transaction.now, limit)
        ).fetchall():
            count += 1
            marked = 0
            if expires_at == GOES_WITH_LAP:
                family = instance_id, incarnation
                marked = transaction.connection.execute(sql.LET_FAMILY_GO, family).rowcount
                rows += marked
            if marked < MARKED_AT_ONCE:  # else it stays: it has more children
                rows += delete_instance(transaction, instance_id, incarnation)
            if rows >= _ROWS_AT_ONCE:
                break
    return count
