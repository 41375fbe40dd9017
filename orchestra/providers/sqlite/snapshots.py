"""Read instances for their owners, many with few statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.inbox import read_first
from orchestra.providers.sqlite.writer import Transaction
from orchestra.store.decoding import (
    INSTANCE_WIDTH,
    in_order,
    read_activity,
    read_execution,
    read_instance,
    read_message,
)
from orchestra.store.instances import InstanceRow
from orchestra.store.messages import InboxPage, MessageRow, Unread
from orchestra.store.snapshots import Snapshot
from orchestra.store.tasks import ActivityRow

__all__ = ["read_snapshots"]

_LENGTHS: Final = (1, 8, 64, 256)
"""The numbers of ids that statements take. Few numbers make few statements, which stay prepared."""


def read_snapshots(
    transaction: Transaction,
    instance_ids: Sequence[str],
    page: InboxPage = InboxPage(),  # noqa: B008 - it is immutable
) -> list[Snapshot]:
    """Return the snapshots of existing instances, in the order of the ids, with a page of each
    inbox.
    """
    snapshots: dict[str, Snapshot] = {}
    for part in _parts(instance_ids):
        snapshots.update(_read_part(transaction, part, page))
    return [snapshots[instance_id] for instance_id in instance_ids if instance_id in snapshots]


def _read_part(
    transaction: Transaction, instance_ids: tuple[str | None, ...], page: InboxPage
) -> Iterator[tuple[str, Snapshot]]:
    rows = _run(transaction, sql.READ_SNAPSHOTS, instance_ids)
    instances = [_read_row(transaction, row) for row in rows]
    reports: dict[str, list[MessageRow]] = defaultdict(list)
    if any(instance.inbox_seq for instance in instances):
        for instance_id, *columns in _run(transaction, sql.READ_REPORTS, instance_ids):
            reports[instance_id].append(read_message(tuple(columns), transaction.dialect))
    activities: dict[str, list[ActivityRow]] = defaultdict(list)
    for instance_id, *columns in _run(transaction, sql.READ_ACTIVITIES, instance_ids):
        activities[instance_id].append(read_activity(tuple(columns)))
    for instance, row in zip(instances, rows, strict=True):
        number, instance_id = instance.execution, instance.instance_id
        first = Unread((), 0)
        if instance.inbox_seq:
            first = read_first(transaction, instance_id, 0, instance.inbox_seq, page)
        yield (
            instance_id,
            Snapshot(
                instance,
                read_execution(row[1 + INSTANCE_WIDTH : -1], transaction.dialect),
                in_order(reports[instance_id], first.messages),
                tuple(
                    activity for activity in activities[instance_id] if activity.execution == number
                ),
                first.whole_to,
                row[-1],
            ),
        )


def _read_row(transaction: Transaction, row: tuple[Any, ...]) -> InstanceRow:
    kind = transaction.kinds.kind(transaction.connection, row[0])
    return read_instance(kind, row[1 : 1 + INSTANCE_WIDTH], transaction.dialect)


def _run(
    transaction: Transaction, template: str, instance_ids: tuple[str | None, ...]
) -> list[tuple[Any, ...]]:
    return transaction.connection.execute(
        _with_placeholders(template, len(instance_ids)), instance_ids
    ).fetchall()


def _parts(instance_ids: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
    """Yield the ids in parts, each padded to one of the lengths with NULL, which is no id."""
    for start in range(0, len(instance_ids), _LENGTHS[-1]):
        part = instance_ids[start : start + _LENGTHS[-1]]
        length = next(length for length in _LENGTHS if length >= len(part))
        yield (*part, *(None,) * (length - len(part)))


@cache
def _with_placeholders(template: str, count: int) -> str:
    return template % ", ".join("?" * count)
