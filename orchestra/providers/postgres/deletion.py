"""Delete ended instances: by operators, or after their expiry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Texts
from orchestra.providers.postgres.calls import Calls, Transaction
from orchestra.providers.postgres.wire import Script
from orchestra.store.executions import GOES_WITH_LAP, MARKED_AT_ONCE
from orchestra.store.hot_row import HotRow

__all__ = ["delete_expired", "delete_instances"]

_ROWS_AT_ONCE: Final = 2_000
"""Rows after which a transaction deletes no further instance, so that it stays short."""

_TOGETHER: Final = 8


def delete_instances(
    transaction: Transaction,
    instances: Mapping[str, str],
    *,
    rows_at_once: int | None = None,
    record: Callable[[Script, Sequence[str]], None] | None = None,
) -> list[str]:
    """Delete the ended ones of some instances, given as id and incarnation, with all their rows
    (I9).

    Commits; ``record`` may add statements to the commit. Returns the deleted ids, in the given
    order.
    """
    (locked,) = transaction.begin((sql.LOCK_ROWS, (Texts(sorted(instances)),)))
    rows = {row[0]: HotRow(*row) for row in locked.rows}
    ended = [
        instance_id
        for instance_id, incarnation in instances.items()
        if instance_id in rows
        and not rows[instance_id].is_open
        and rows[instance_id].incarnation == incarnation
    ]
    deleted: list[str] = []
    count = 0
    for start in range(0, len(ended), _TOGETHER):
        part = ended[start : start + _TOGETHER]
        script = transaction.script()
        script.add(sql.DELETE_INSTANCES, Texts(part), len(part))
        results = [script.add(statement, Texts(part)) for statement in sql.DELETE_BELONGINGS]
        script.run()
        deleted += part
        count += sum(result.count for result in results)
        if rows_at_once is not None and count >= rows_at_once:
            break
    script = transaction.script()
    if deleted and record is not None:
        record(script, deleted)
    transaction.commit(script)
    return deleted


def delete_expired(calls: Calls, limit: int) -> int:
    """Delete expired instances, the longest overdue first. Return how many."""
    _, moment = calls.time.read
    rows = calls.read(sql.FIND_EXPIRED, *moment, limit)
    found: dict[str, str] = {instance_id: incarnation for instance_id, incarnation, _ in rows}
    if not found:
        return 0
    families = {
        instance_id: incarnation
        for instance_id, incarnation, expires_at in rows
        if expires_at == GOES_WITH_LAP
    }
    marked = 0
    if families:
        # Before they are deleted: a death in between leaves them for the next deletion. One that has
        # more children stays.
        for instance_id, count in calls.transaction(lambda one: _let_families_go(one, families)):
            marked += 1
            if count == MARKED_AT_ONCE:
                del found[instance_id]
    deleted = calls.transaction(
        lambda transaction: delete_instances(transaction, found, rows_at_once=_ROWS_AT_ONCE)
    )
    return max(marked, len(deleted))


def _let_families_go(
    transaction: Transaction, families: Mapping[str, str]
) -> list[tuple[str, int]]:
    """Let the ended children of instances expire that go with their laps. Return how many each
    has.
    """
    begun = (sql.LET_FAMILIES_GO, (Texts(families), Texts(families.values())))
    (marked,) = transaction.begin(begun)
    transaction.commit()
    return [(row[0], row[1]) for row in marked.rows]
