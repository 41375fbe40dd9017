"""The text of queries for many instances. It consists of constants only; values are parameters
(I15).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from orchestra.providers.sqlite import statements as sql
from orchestra.store.decoding import stored_queue
from orchestra.store.instances import CRASHES_BEFORE_DELAY
from orchestra.store.kinds import Dialect, HoldKind, Status
from orchestra.store.queries import (
    InstanceQuery,
    Order,
    Target,
    WaitCondition,
)
from orchestra.store.routes import Kind, Route

__all__ = [
    "ORDERED_BY",
    "Part",
    "finds_held",
    "held_arms",
    "hold_of",
    "standing_of",
    "unserved_activity",
    "where",
]

_HIGHEST_CHARACTER: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)
ORDERED_BY: Final = {
    Order.NEWEST: "i.created_at",
    Order.OLDEST: "i.created_at",
    Order.LATEST_CHANGE: "i.updated_at",
    Order.EARLIEST_CHANGE: "i.updated_at",
}

Part = tuple[str, list[Any]]
"""A piece of a statement, and the values of its parameters."""


def where(query: InstanceQuery, dialect: Dialect, arm: Part | None = None) -> Part:
    """Return the conditions of a query; with an arm, those of the part of its instances that the
    arm's condition finds. The arms of held instances bring the conditions on holds.
    """
    parts = [
        *(() if arm is None else (arm,)),
        *_of_kind_and_status(query, dialect),
        *(_of_hold(query, dialect) if arm is None or not finds_held(query) else ()),
        *_of_future(query),
        *_of_origin(query),
        *_of_time(query),
    ]
    conditions = " AND ".join(condition for condition, _ in parts)
    values = [value for _, values in parts for value in values]
    return f" WHERE {conditions}" if parts else "", values


def _of_kind_and_status(query: InstanceQuery, dialect: Dialect) -> Iterator[Part]:
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
        condition, values = standing_of(query)
        among = f"{condition} IN ({_placeholders(query.standings)})"
        wanted = [standing.value for standing in query.standings]
        yield f"(i.status <> 0 OR {among})", [*values, *wanted]


def _of_hold(query: InstanceQuery, dialect: Dialect) -> Iterator[Part]:
    if query.held is not None:
        condition, values = _stands_still(query)
        yield condition if query.held else f"NOT {condition}", values
    if query.holds is not None:
        condition, values = hold_of(query)
        forms = _forms(query.holds, dialect)
        yield f"{condition} IN ({_placeholders(forms)})", [*values, *forms]


def _of_future(query: InstanceQuery) -> Iterator[Part]:
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


def _of_origin(query: InstanceQuery) -> Iterator[Part]:
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


def _of_time(query: InstanceQuery) -> Iterator[Part]:
    for condition, bound in (
        ("i.created_at >= ?", query.created_from),
        ("i.created_at < ?", query.created_until),
        ("i.updated_at >= ?", query.updated_from),
        ("i.updated_at < ?", query.updated_until),
    ):
        if bound is not None:
            yield condition, [bound]
    ordered_by = ORDERED_BY.get(query.order)
    beyond, within = ("<", ">=") if query.order.is_descending else (">", "<=")
    for place, comparison in ((query.after, beyond), (query.until, within)):
        if place is None:
            continue
        if ordered_by is None:
            yield f"i.instance_id {comparison} ?", [place[1]]
        else:
            yield f"({ordered_by}, i.instance_id) {comparison} (?, ?)", [*place]


# --- what holds an instance -------------------------------------------------------------------

_IS_CRASHING: Final = f"(i.takeovers >= {CRASHES_BEFORE_DELAY} AND i.owner IS NULL)"
# As a set of ids, so that it is found by the index, whatever the order of the list.
_AMONG_CRASHING: Final = (
    "i.instance_id IN (SELECT c.instance_id FROM instance c "
    f"WHERE c.takeovers >= {CRASHES_BEFORE_DELAY} AND c.owner IS NULL)"
)


def _stands_still(query: InstanceQuery) -> Part:
    """Return the condition that an open instance cannot go on now."""
    kind, values = _of_kinds(query.unserved)
    waits, waiting = _waits_by(query.unserved_routes)
    causes = f"i.paused = 1 OR i.held = 1 OR {_IS_CRASHING} OR {kind} OR {waits}"
    return f"(i.status = 0 AND ({causes}))", [*values, *waiting]


def finds_held(query: InstanceQuery) -> bool:
    """Whether a query asks for held instances, which are few among many: :func:`held_arms`."""
    return query.held is not False and bool(query.held or query.holds)


def held_arms(query: InstanceQuery, dialect: Dialect) -> Iterator[Part]:
    """Yield conditions that each find a part of the held instances by an index; no instance is in
    two parts.

    Instances that no living node serves are a share of the store that no index bounds. So they are
    a part of their own, which is left out where it is not asked for.
    """
    asked = frozenset(HoldKind) if query.holds is None else frozenset(query.holds)
    forms = () if query.holds is None else _forms(query.holds, dialect)
    among = "" if query.holds is None else f" AND i.hold_kind IN ({_placeholders(forms)})"
    yield f"i.held = 1{among}", [*forms]
    unserved, kinds = _of_kinds(query.unserved)
    free = "i.status = 0 AND i.held = 0"
    if query.unserved and HoldKind.VERSION_MISSING in asked:
        yield f"{free} AND {unserved}", kinds
    if HoldKind.CRASHING in asked:
        yield f"{free} AND {_AMONG_CRASHING} AND NOT {unserved}", kinds
    if query.unserved_routes and HoldKind.ACTIVITY_MISSING in asked:
        waits, routes = _waits_by(query.unserved_routes)
        yield f"{free} AND {waits} AND NOT {_IS_CRASHING} AND NOT {unserved}", [*routes, *kinds]


def _forms(holds: Iterable[HoldKind], dialect: Dialect) -> tuple[Any, ...]:
    return tuple(dialect.library.holds.forms(*holds))


def hold_of(query: InstanceQuery) -> Part:
    """Return the kind of an open instance's hold; NULL: it has none."""
    kind, values = _of_kinds(query.unserved)
    waits, waiting = _waits_by(query.unserved_routes)
    return (
        f"CASE WHEN i.status <> 0 THEN NULL WHEN i.held = 1 AND i.hold_kind IS NOT NULL THEN i.hold_kind "
        f"WHEN {kind} THEN '{HoldKind.VERSION_MISSING}' "
        f"WHEN {_IS_CRASHING} THEN '{HoldKind.CRASHING}' "
        f"WHEN {waits} THEN '{HoldKind.ACTIVITY_MISSING}' END",
        [*values, *waiting],
    )


def standing_of(query: InstanceQuery) -> Part:
    """Return the :class:`Standing` of an open instance."""
    stands_still, values = _stands_still(query)
    return (
        f"CASE WHEN {stands_still} THEN 2 WHEN i.opened = 1 OR i.execution > 1 THEN 1 ELSE 0 END",
        values,
    )


def _of_kinds(kinds: Sequence[Kind]) -> Part:
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


def _waits_by(routes: Sequence[Route]) -> Part:
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


def unserved_activity(routes: Sequence[Route]) -> Part:
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


def _among(routes: Iterable[Route]) -> Part:
    values = [value for route in routes for value in (route.queue, route.name)]
    rows = ", ".join(["(?, ?)"] * (len(values) // 2))
    return f"(a.queue, a.name) IN (VALUES {rows})", values


# --- where it leads, and what it waits for ----------------------------------------------------

_IS_PINNED: Final = (
    "(d.pin IS NOT NULL AND coalesce(json_extract(CAST(d.pin AS TEXT), '$.until') > ?, 1))"
)
_PIN: Final = "json_extract(CAST(d.pin AS TEXT), '$.version')"


def _leads_to(target: Target, now: int) -> Part:
    kind, values = _of_kinds(target.kinds)
    pinned = f"{_PIN} <> k.version" if target.version is None else f"{_PIN} = ?"
    return (
        f"(i.status = 0 AND CASE WHEN {_IS_PINNED} THEN {pinned} ELSE {kind} END)",
        [now, *([] if target.version is None else [target.version]), *values],
    )


def _waits(waiting: WaitCondition) -> Part:
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
