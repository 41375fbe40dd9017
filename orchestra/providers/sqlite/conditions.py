"""The text of queries for many instances. It consists of constants only; values are parameters
(I15).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from orchestra.providers.sqlite import statements as sql
from orchestra.store.decoding import stored_queue
from orchestra.store.instances import CRASHES_BEFORE_DELAY
from orchestra.store.kinds import Dialect, HoldKind, Status
from orchestra.store.queries import (
    GROUP_LABEL,
    GroupBy,
    InstanceQuery,
    Order,
    Target,
    WaitCondition,
)
from orchestra.store.routes import Kind, Route

__all__ = ["count_statement", "list_statement"]

_HIGHEST_CHARACTER: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)
_COLUMNS: Final = {
    GroupBy.NAME: "k.name",
    GroupBy.VERSION: "k.version",
    GroupBy.QUEUE: "k.queue",
}
_ORDERED_BY: Final = {
    Order.NEWEST: "i.created_at",
    Order.OLDEST: "i.created_at",
    Order.LATEST_CHANGE: "i.updated_at",
    Order.EARLIEST_CHANGE: "i.updated_at",
}

_SORTED: Final = frozenset({Order.LATEST_CHANGE, Order.EARLIEST_CHANGE})

_NEEDS_DETAIL: Final = re.compile(r"\bd\.")

_Part = tuple[str, list[Any]]
"""A piece of a statement, and the values of its parameters."""


def list_statement(query: InstanceQuery, dialect: Dialect) -> _Part:
    """Return the statement that lists instances, and its values."""
    unserved, values = _unserved_activity(query.unserved_routes)
    where, conditions = _where(query, dialect)
    direction = " DESC" if query.order.is_descending else ""
    instant = _ORDERED_BY.get(query.order)
    order = f"i.instance_id{direction}" if instant is None else _both(instant, direction)
    columns = f"{sql.RECORD_COLUMNS}, {unserved}{sql.FROM_RECORDS}"
    if query.order in _SORTED or query.held or query.holds or query.pinned:
        # They are found in another order: sort the ids alone, and read the rest of one page.
        tables = sql.FROM_INSTANCES if _NEEDS_DETAIL.search(where) else sql.FROM_HOT_ROWS
        where = (
            f" WHERE i.instance_id IN (SELECT i.instance_id{tables}{where} "
            f"ORDER BY {order} LIMIT ?)"
        )
        conditions = [*conditions, query.limit]
    statement = f"{columns}{where} ORDER BY {order} LIMIT ?"
    return statement, [*values, *conditions, query.limit]


def count_statement(
    query: InstanceQuery, dialect: Dialect, group_by: Sequence[str], limit: int
) -> _Part:
    """Return the statement that counts instances by groups, and its values."""
    keys = [_key(key, query) for key in group_by]
    where, conditions = _where(replace(query, after=None), dialect)
    selected = "".join(f"{text} AS g{place}, " for place, (text, _) in enumerate(keys))
    grouped = ", ".join(f"g{place}" for place in range(len(keys)))
    values = [value for _, parameters in keys for value in parameters]
    # Most counts need no cold rows; the database would read one for each instance.
    tables = sql.FROM_INSTANCES if _NEEDS_DETAIL.search(f"{selected}{where}") else sql.FROM_HOT_ROWS
    if not keys and query.most is not None:
        found = f"SELECT 1{tables}{where} LIMIT ?"
        return f"SELECT count(*), count(*) FROM ({found})", [*conditions, query.most]
    statement = f"SELECT {selected}count(*) AS number, sum(count(*)) OVER (){tables}{where}"
    if not keys:
        return statement, conditions
    statement += f" GROUP BY {grouped} ORDER BY number DESC LIMIT ?"
    return statement, [*values, *conditions, limit]


def _both(instant: str, direction: str) -> str:
    return f"{instant}{direction}, i.instance_id{direction}"


def _key(key: str, query: InstanceQuery) -> _Part:
    """Return the value that a group shares."""
    if key.startswith(GROUP_LABEL):
        label = key.removeprefix(GROUP_LABEL)
        return (
            "(SELECT l.value FROM label l WHERE l.instance_id = i.instance_id AND l.key = ?)",
            [label],
        )
    if key == GroupBy.STATUS:
        # One number for both, of which the reader makes the pair.
        standing, values = _standing(query)
        return f"CASE WHEN i.status = 0 THEN {standing} ELSE 4 * i.status END", values
    if key == GroupBy.HELD:
        return _hold(query)
    return _COLUMNS[GroupBy(key)], []


def _where(query: InstanceQuery, dialect: Dialect) -> _Part:
    """Return the conditions of a query."""
    parts = [
        *_of_kind_and_status(query, dialect),
        *_of_hold(query, dialect),
        *_of_future(query),
        *_of_origin(query),
        *_of_time(query),
    ]
    conditions = " AND ".join(condition for condition, _ in parts)
    values = [value for _, values in parts for value in values]
    return f" WHERE {conditions}" if parts else "", values


def _of_kind_and_status(query: InstanceQuery, dialect: Dialect) -> Iterator[_Part]:
    if query.name is not None:
        yield "k.name = ?", [query.name]
    if query.version is not None:
        yield "k.version = ?", [query.version]
    if query.queue is not None:
        yield "k.queue = ?", [stored_queue(query.queue)]
    if query.statuses is not None:
        asked, known = dialect.statuses_of(query.statuses), dialect.statuses_of(Status)
        among = f"i.status IN ({_placeholders(asked)})"
        if len(asked) == 1 and Status.OPEN not in query.statuses:
            among += " AND i.status <> 0"  # the index on ends has the order of the list
        if query.other_statuses:
            among = f"({among} OR i.status NOT IN ({_placeholders(known)}))"
        yield among, [*asked, *(known if query.other_statuses else ())]
    if query.standings is not None:
        condition, values = _standing(query)
        among = f"{condition} IN ({_placeholders(query.standings)})"
        wanted = [standing.value for standing in query.standings]
        yield f"(i.status <> 0 OR {among})", [*values, *wanted]


def _of_hold(query: InstanceQuery, dialect: Dialect) -> Iterator[_Part]:
    if query.held is not None:
        condition, values = _held_set(query) if query.held else _stands_still(query)
        yield condition if query.held else f"NOT {condition}", values
    if query.holds is not None:
        yield _held_set(query)
        condition, values = _hold(query)
        forms = dialect.library.holds.forms(*query.holds)
        yield f"{condition} IN ({_placeholders(forms)})", [*values, *forms]


def _of_future(query: InstanceQuery) -> Iterator[_Part]:
    for target in query.targets:
        condition, values = _leads_to(target, query.now)
        yield condition if target.wanted else f"NOT {condition}", values
    if query.waiting is not None:
        yield _waits(query.waiting)
    if query.overdue is not None:
        # As a set of ids, so that it is found by the index, whatever the order of the list.
        overdue = (
            "i.status = 0 AND i.instance_id IN "
            "(SELECT b.instance_id FROM instance b WHERE b.boundary_due <= ?)"
        )
        # The unary plus keeps the planner from the index where nearly all rows are asked for.
        other = "NOT (i.status = 0 AND coalesce(+i.boundary_due <= ?, 0))"
        yield overdue if query.overdue else other, [query.now]
    if query.pinned is not None:
        condition = f"(i.status = 0 AND {_IS_PINNED})"
        # As a set of ids as well, so that they are found by the index on pins.
        pins = (
            "i.instance_id IN (SELECT p.instance_id FROM instance_detail p WHERE p.pin IS NOT NULL)"
        )
        yield f"{pins} AND {condition}" if query.pinned else f"NOT {condition}", [query.now]


def _of_origin(query: InstanceQuery) -> Iterator[_Part]:
    if query.id_prefix:
        yield "i.instance_id >= ?", [query.id_prefix]
        beyond = _first_beyond(query.id_prefix)
        if beyond is not None:
            yield "i.instance_id < ?", [beyond]
    for key, value in query.labels.items():
        condition = "l.instance_id = i.instance_id AND l.key = ? AND l.value = ?"
        yield f"EXISTS (SELECT 1 FROM label l WHERE {condition})", [key, value]
    if query.parent is not None:
        # As a set of ids, so that it is found by the index on parents, whatever the order of the
        # list.
        children = "SELECT c.instance_id FROM instance_detail c WHERE c.parent_id = ?"
        yield f"i.instance_id IN ({children})", [query.parent]
    if query.schedule is not None:
        runs = "SELECT c.instance_id FROM instance_detail c WHERE c.schedule_id = ?"
        yield f"i.instance_id IN ({runs})", [query.schedule]
    if query.parent_execution is not None:
        yield "d.parent_execution = ?", [query.parent_execution]


def _of_time(query: InstanceQuery) -> Iterator[_Part]:
    for condition, bound in (
        ("i.created_at >= ?", query.created_from),
        ("i.created_at < ?", query.created_until),
        ("i.updated_at >= ?", query.updated_from),
        ("i.updated_at < ?", query.updated_until),
    ):
        if bound is not None:
            yield condition, [bound]
    if query.after is not None:
        instant, instance_id = query.after
        beyond = "<" if query.order.is_descending else ">"
        ordered_by = _ORDERED_BY.get(query.order)
        if ordered_by is None:
            yield f"i.instance_id {beyond} ?", [instance_id]
        else:
            yield f"({ordered_by}, i.instance_id) {beyond} (?, ?)", [instant, instance_id]


# --- what holds an instance -------------------------------------------------------------------

_IS_CRASHING: Final = f"(i.takeovers >= {CRASHES_BEFORE_DELAY} AND i.owner IS NULL)"


def _stands_still(query: InstanceQuery) -> _Part:
    """Return the condition that an open instance cannot go on now."""
    kind, values = _of_kinds(query.unserved)
    waits, waiting = _waits_by(query.unserved_routes)
    causes = f"i.paused = 1 OR i.held = 1 OR {_IS_CRASHING} OR {kind} OR {waits}"
    return f"(i.status = 0 AND ({causes}))", [*values, *waiting]


def _held_set(query: InstanceQuery) -> _Part:
    """Return the condition that an open instance cannot go on now, as a set of ids if it can be.

    The indexes find such a set, however many instances go on. Instances that no living node serves
    are a share of the store that no index bounds.
    """
    if query.unserved:
        return _stands_still(query)
    held = "SELECT h.instance_id FROM instance h WHERE h.held = 1"
    crashing = _IS_CRASHING.replace("i.", "c.")
    sets, values = [held, f"SELECT c.instance_id FROM instance c WHERE {crashing}"], list[Any]()
    if query.unserved_routes:
        among, values = _among(query.unserved_routes)
        sets.append(f"SELECT a.instance_id FROM activity a WHERE {sql.IS_WAITING} AND {among}")
    return f"(i.status = 0 AND i.instance_id IN ({' UNION '.join(sets)}))", values


def _hold(query: InstanceQuery) -> _Part:
    """Return the kind of an open instance's hold; NULL: it has none."""
    kind, values = _of_kinds(query.unserved)
    waits, waiting = _waits_by(query.unserved_routes)
    stored = "json_extract(CAST(d.hold AS TEXT), '$.kind')"
    return (
        f"CASE WHEN i.status <> 0 THEN NULL WHEN i.paused = 1 THEN '{HoldKind.OPERATOR}' "
        f"WHEN i.held = 1 THEN {stored} WHEN {kind} THEN '{HoldKind.VERSION_MISSING}' "
        f"WHEN {_IS_CRASHING} THEN '{HoldKind.CRASHING}' "
        f"WHEN {waits} THEN '{HoldKind.ACTIVITY_MISSING}' END",
        [*values, *waiting],
    )


def _standing(query: InstanceQuery) -> _Part:
    """Return the :class:`Standing` of an open instance."""
    stands_still, values = _stands_still(query)
    return (
        f"CASE WHEN {stands_still} THEN 2 WHEN i.opened = 1 OR i.execution > 1 THEN 1 ELSE 0 END",
        values,
    )


def _of_kinds(kinds: Sequence[Kind]) -> _Part:
    """Return the condition that an instance is of one of these kinds."""
    if not kinds:
        return "0", []
    rows = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(kinds))
    values = [
        value
        for kind in kinds
        for value in (
            stored_queue(kind.queue),
            kind.name,
            kind.version,
            kind.format,
            int(kind.floating),
            kind.level,
        )
    ]
    columns = "k.queue, k.name, k.version, k.format, k.floating, k.level"
    return f"(({columns}) IN (VALUES {rows}))", values


def _waits_by(routes: Sequence[Route]) -> _Part:
    """Return the condition that an activity of an instance waits for a node by one of these
    routes.
    """
    if not routes:
        return "0", []
    among, values = _among(routes)
    # As a set of ids: it is found by the index on routes, and there are few of them.
    return (
        f"(i.instance_id IN (SELECT a.instance_id FROM activity a WHERE {sql.IS_WAITING} AND {among}))",
        values,
    )


def _unserved_activity(routes: Sequence[Route]) -> _Part:
    """Return the route without a living node by which the longest waiting activity of an instance
    waits; NULL: none does.
    """
    if not routes:
        return "NULL", []
    among, values = _among(routes)
    return (
        "(SELECT json_object('queue', a.queue, 'name', a.name) FROM activity a WHERE a.instance_id = i.instance_id "
        f"AND {sql.IS_WAITING} AND {among} ORDER BY a.started_at, a.execution, a.event_id LIMIT 1)",
        values,
    )


def _among(routes: Iterable[Route]) -> _Part:
    values = [value for route in routes for value in (route.queue, route.name)]
    rows = ", ".join(["(?, ?)"] * (len(values) // 2))
    return f"(a.queue, a.name) IN (VALUES {rows})", values


# --- where it leads, and what it waits for ----------------------------------------------------

_IS_PINNED: Final = (
    "(d.pin IS NOT NULL AND coalesce(json_extract(CAST(d.pin AS TEXT), '$.until') > ?, 1))"
)
_PIN: Final = "json_extract(CAST(d.pin AS TEXT), '$.version')"


def _leads_to(target: Target, now: int) -> _Part:
    kind, values = _of_kinds(target.kinds)
    pinned = f"{_PIN} <> k.version" if target.version is None else f"{_PIN} = ?"
    return (
        f"(i.status = 0 AND CASE WHEN {_IS_PINNED} THEN {pinned} ELSE {kind} END)",
        [now, *([] if target.version is None else [target.version]), *values],
    )


def _waits(waiting: WaitCondition) -> _Part:
    """Return the condition that an open instance waits for something. Its summary has it as JSON,
    from its first turn on.
    """
    conditions: list[str] = []
    values: list[Any] = []
    for place, value, comparison in (
        (0, waiting.kind, "="),
        (1, waiting.name, "="),
        (2, waiting.since, "<="),
    ):
        if value is not None:
            conditions.append(f"json_extract(w.value, '$[{place}]') {comparison} ?")
            values.append(value)
    summary = "CAST(i.summary AS TEXT)"
    entries = f"json_each(CASE WHEN json_valid({summary}) THEN {summary} ELSE '{{}}' END, '$.w') w"
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"(i.status = 0 AND EXISTS (SELECT 1 FROM {entries}{where}))", values


def _placeholders(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _first_beyond(prefix: str) -> str | None:
    """Return the least text above every text with this prefix, if there is one.

    Ids are compared by code point. A range needs no escaping, and can use the key.
    """
    while prefix:
        following = ord(prefix[-1]) + 1
        if following <= _HIGHEST_CHARACTER:
            return prefix[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)
        prefix = prefix[:-1]
    return None
