"""The audit of operators' acts, on SQLite."""

from __future__ import annotations

from collections.abc import Iterable

from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.writer import Transaction
from orchestra.store.audit import KEPT_OPERATIONS, Record
from orchestra.store.decoding import record_to_bytes

__all__ = ["record_all"]


def record_all(transaction: Transaction, records: Iterable[Record]) -> None:
    """Leave entries in the audit. It is bounded: people ask about the latest ones."""
    rows = [
        (transaction.now, one.by, one.action, one.subject, record_to_bytes(one)) for one in records
    ]
    if rows:
        transaction.connection.executemany(sql.ADD_OPERATION, rows)
        transaction.connection.execute(sql.PRUNE_OPERATIONS, (KEPT_OPERATIONS,))
