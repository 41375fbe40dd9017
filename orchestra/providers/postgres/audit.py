"""The audit of operators' acts, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.clock import new_id
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.rendering import arrays
from orchestra.providers.postgres.wire import Script
from orchestra.store.audit import KEPT_OPERATIONS, Record
from orchestra.store.decoding import record_to_bytes

__all__ = ["record_all"]


def record_all(script: Script, records: Sequence[Record], now: int) -> None:
    """Add the statements that leave entries in the audit. It is bounded: people ask about the
    latest ones.
    """
    if not records:
        return
    # The number comes first, so that the entries of one transaction keep their order.
    rows = [
        (f"{number:06}{new_id()}", now, one.by, one.action, one.subject, record_to_bytes(one))
        for number, one in enumerate(records)
    ]
    script.add(sql.ADD_OPERATIONS, *arrays(sql.OPERATION, rows))
    # Pruning reads past all that are kept, so it is done for one entry in 256, by chance.
    if any(identity[-2:] == "00" for identity, *_ in rows):
        script.add(sql.PRUNE_OPERATIONS, KEPT_OPERATIONS)
