"""Statements that list and count the instances of a query.

SQLite has no statistics of these tables. So a statement says where it looks: what an index finds is
an *arm*, a part of the instances with a condition and an order of its own, of which the statement
takes as many as a page has.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.conditions import (
    ORDERED_BY,
    Part,
    finds_held,
    held_arms,
    hold_of,
    standing_of,
    unserved_activity,
    where,
)
from orchestra.store.decoding import stored_queue
from orchestra.store.kinds import Dialect, Status
from orchestra.store.queries import (
    GROUP_LABEL,
    SET_SIZE,
    GroupBy,
    InstanceQuery,
    Order,
    Standing,
)

__all__ = ["count_statement", "list_statement", "rarest_label", "search_end_statement"]

_COLUMNS: Final = {
    GroupBy.NAME: "k.name",
    GroupBy.VERSION: "k.version",
    GroupBy.QUEUE: "k.queue",
}
_CHANGED: Final = frozenset({Order.LATEST_CHANGE, Order.EARLIEST_CHANGE})
_NEEDS_DETAIL: Final = re.compile(r"\bd\.")
_IS_PARKED: Final = "i.owner IS NULL AND (i.opened = 1 OR i.status <> 0)"
# Each kind is probed for executions without code: the index has those that have not begun first.
_IS_UNOPENED: Final = (
    "i.status = 0 AND i.opened = 0 AND i.instance_id IN (SELECT x.instance_id "
    "FROM (SELECT DISTINCT name, version FROM kind) n CROSS JOIN execution x ON x.name = n.name "
    "AND x.version = n.version AND coalesce(x.fingerprint, '') = '' AND x.closed_at IS NULL)"
)
_BY_STATUS: Final = ("FROM instance i", "FROM instance i INDEXED BY instance_status")


def list_statement(query: InstanceQuery, dialect: Dialect, label: str | None = None) -> Part:
    """Return the statement that lists instances, and its values.

    Args:
        label: the key of a label that few instances share with the query (:func:`rarest_label`).
    """
    unserved, values = unserved_activity(query.unserved_routes)
    direction = " DESC" if query.order.is_descending else ""
    instant = ORDERED_BY.get(query.order)
    order = f"i.instance_id{direction}" if instant is None else _both(instant, direction)
    columns = f"{sql.RECORD_COLUMNS}, {unserved}{sql.FROM_RECORDS}"
    arms = list(_arms(query, dialect, label, is_list=True))
    if not arms:
        chosen, conditions = where(query, dialect)
    else:
        parts = [
            _found(query, dialect, arm, f"{instant or '0'} AS at, i.instance_id AS id")
            for arm in arms
        ]
        found = " UNION ALL ".join(
            f"SELECT * FROM ({text} ORDER BY {order} LIMIT ?)" for text, _ in parts
        )
        chosen = (
            f" WHERE i.instance_id IN (SELECT id FROM ({found}) "
            f"ORDER BY at{direction}, id{direction} LIMIT ?)"
        )
        conditions = [one for _, given in parts for one in (*given, query.limit)]
        conditions.append(query.limit)
    return f"{columns}{chosen} ORDER BY {order} LIMIT ?", [*values, *conditions, query.limit]


def count_statement(
    query: InstanceQuery,
    dialect: Dialect,
    group_by: Sequence[str],
    limit: int,
    label: str | None = None,
) -> Part:
    """Return the statement that counts instances by groups, and its values."""
    query = replace(query, after=None)
    arms = list(_arms(query, dialect, label, is_list=False)) or [None]
    if not group_by:
        parts = [_found(query, dialect, arm, "1") for arm in arms]
        found = " UNION ALL ".join(text for text, _ in parts)
        values = [value for _, given in parts for value in given]
        if query.most is not None:
            return f"SELECT count(*), count(*) FROM ({found} LIMIT ?)", [*values, query.most]
        return f"SELECT count(*), count(*) FROM ({found})", values
    keys = [_key(key, query) for key in group_by]
    selected = "".join(f"{text} AS g{place}, " for place, (text, _) in enumerate(keys))
    grouped = ", ".join(f"g{place}" for place in range(len(keys)))
    values = [value for _, parameters in keys for value in parameters]
    if arms == [None]:
        chosen, conditions = where(query, dialect)
    else:
        parts = [_found(query, dialect, arm, "i.instance_id") for arm in arms]
        chosen = f" WHERE i.instance_id IN ({' UNION ALL '.join(text for text, _ in parts)})"
        conditions = [value for _, given in parts for value in given]
    return (
        f"SELECT {selected}count(*) AS number, sum(count(*)) OVER (){_tables(selected + chosen)}"
        f"{chosen} GROUP BY {grouped} ORDER BY number DESC LIMIT ?",
        [*values, *conditions, limit],
    )


def search_end_statement(query: InstanceQuery, dialect: Dialect, number: int) -> Part:
    """Return the statement that finds where a search of so many instances ends."""
    direction = " DESC" if query.order.is_descending else ""
    bounds = query.bounds_of_order()
    arm = (_IS_PARKED, list[Any]()) if query.order in _CHANGED else None
    chosen, values = where(bounds, dialect, arm)
    instant = ORDERED_BY.get(query.order)
    order = f"i.instance_id{direction}" if instant is None else _both(instant, direction)
    return (
        f"SELECT {instant or 0}, i.instance_id FROM instance i{chosen} ORDER BY {order} LIMIT 1 OFFSET ?",
        [*values, number - 1],
    )


def rarest_label(connection: sqlite3.Connection, query: InstanceQuery) -> tuple[str, int] | None:
    """Return the key of the label of a query that the fewest instances have, and how many: counted
    up to :data:`SET_SIZE` and one more; ``None``: it asks for no label.
    """
    numbers = {
        key: connection.execute(sql.COUNT_LABEL, (key, value, SET_SIZE + 1)).fetchone()[0]
        for key, value in query.labels.items()
    }
    return min(numbers.items(), key=lambda one: one[1]) if numbers else None


def _both(instant: str, direction: str) -> str:
    return f"{instant}{direction}, i.instance_id{direction}"


def _found(query: InstanceQuery, dialect: Dialect, arm: Part | None, selected: str) -> Part:
    text, values = where(query, dialect, arm)
    # Most conditions need no cold rows; the database would read one for each instance.
    tables = _tables(text)
    if query.few and arm is not None and arm[0].startswith("i.status <> 0"):
        tables = tables.replace(*_BY_STATUS)
    return f"SELECT {selected}{tables}{text}", values


def _tables(text: str) -> str:
    return sql.FROM_INSTANCES if _NEEDS_DETAIL.search(text) else sql.FROM_HOT_ROWS


def _arms(
    query: InstanceQuery, dialect: Dialect, label: str | None, *, is_list: bool
) -> Iterator[Part]:
    """Yield conditions that together find the instances of a query, each of them once; none: the
    order of the list finds them.
    """
    if query.has_key_set:
        if is_list:
            yield "1", []  # sort the ids alone, and read the rest of one page
    elif finds_held(query):
        yield from held_arms(query, dialect)
    elif label is not None:
        values = [label, query.labels[label]]
        yield (
            "i.instance_id IN (SELECT f.instance_id FROM label f WHERE f.key = ? AND f.value = ?)",
            values,
        )
    elif query.few:
        yield from _few_arms(query)
    elif query.standings == (Standing.PENDING,) and query.statuses == (Status.OPEN,):
        yield f"{_IS_UNOPENED} AND i.execution = 1", []
    elif is_list and query.order in _CHANGED:
        yield _IS_PARKED, []
        yield "i.owner IS NOT NULL", []
        yield f"i.owner IS NULL AND {_IS_UNOPENED}", []


def _few_arms(query: InstanceQuery) -> Iterator[Part]:
    wanted = [
        (column, value)
        for column, value in (("name", query.name), ("version", query.version))
        if value is not None
    ]
    values = [value for _, value in wanted]
    if query.statuses is None or Status.OPEN in query.statuses:
        among = "".join(f" AND x.{column} = ?" for column, _ in wanted)
        yield (
            "i.status = 0 AND i.instance_id IN (SELECT x.instance_id FROM execution x WHERE "
            f"x.closed_at IS NULL{among})",
            values,
        )
    if query.statuses is None or query.statuses != (Status.OPEN,) or query.other_statuses:
        if query.queue is not None:
            wanted.append(("queue", stored_queue(query.queue)))
        among = " AND ".join(f"n.{column} = ?" for column, _ in wanted) or "1"
        yield (
            f"i.status <> 0 AND i.kind IN (SELECT n.kind_id FROM kind n WHERE {among})",
            [value for _, value in wanted],
        )


def _key(key: str, query: InstanceQuery) -> Part:
    """Return the value that a group shares."""
    if key.startswith(GROUP_LABEL):
        label = key.removeprefix(GROUP_LABEL)
        return (
            "(SELECT l.value FROM label l WHERE l.instance_id = i.instance_id AND l.key = ?)",
            [label],
        )
    if key == GroupBy.STATUS:
        # One number for both, of which the reader makes the pair.
        standing, values = standing_of(query)
        return f"CASE WHEN i.status = 0 THEN {standing} ELSE 4 * i.status END", values
    if key == GroupBy.HELD:
        return hold_of(query)
    return _COLUMNS[GroupBy(key)], []
