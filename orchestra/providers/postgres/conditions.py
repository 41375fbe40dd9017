"""The text of queries for many instances. It consists of constants only; values are parameters
(I15).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from orchestra.codec import pack_text
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Numbers, Texts
from orchestra.providers.postgres.kinds import kind_arrays, route_arrays
from orchestra.store.decoding import stored_queue
from orchestra.store.instances import CRASHES_BEFORE_DELAY
from orchestra.store.kinds import Dialect, HoldKind, Status
from orchestra.store.queries import (
    GROUP_LABEL,
    GroupBy,
    InstanceQuery,
    Order,
    Standing,
    Target,
    WaitCondition,
)
from orchestra.store.routes import Kind

__all__ = ["Statement"]

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
_IS_CRASHING: Final = f"(i.takeovers >= {CRASHES_BEFORE_DELAY} AND i.owner IS NULL)"
_NUL: Final = "\\u0000"
_SHOWN_NUL: Final = "\\ufffd"


def _json(column: str) -> str:
    """Return a column of packed facts as JSON. PostgreSQL refuses \\u0000, which an error's message
    may hold.
    """
    return f"replace(convert_from({column}, 'UTF8'), '{_NUL}', '{_SHOWN_NUL}')::json"


_PIN: Final = f"({_json('d.pin')} ->> 'version')"
_PINNED_UNTIL: Final = f"({_json('d.pin')} ->> 'until')::bigint"
# Before its first turn an instance has no summary.
_SUMMARY: Final = f"""
    CASE WHEN octet_length(i.summary) > 1 AND get_byte(i.summary, 0) = 123
    THEN {_json("i.summary")} -> 'w' ELSE '[]'::json END"""
_IS_CURRENT: Final = "coalesce(x.closed_at, 0) = 0"
# Instances that have not begun, and that nothing holds. Each kind with a free open instance, as the
# tally knows, is probed for executions without code: the index has those that have not begun first.
# EXCEPT drops held ones by an index alone; an array is read in the order of the key.
_HAS_FREE: Final = (
    "kind_id IN (SELECT t.kind FROM (SELECT kind, number FROM @tally WHERE status = 0 AND NOT held "
    "UNION ALL SELECT kind, number FROM @tally_change WHERE status = 0 AND NOT held) AS t "
    "GROUP BY t.kind HAVING sum(t.number) > 0)"
)
_IS_PENDING: Final = (
    "i.status = 0 AND NOT i.opened AND NOT i.held AND i.execution = 1 AND i.instance_id = ANY(ARRAY("
    f"SELECT x.instance_id FROM (SELECT DISTINCT name, version FROM @kind WHERE {_HAS_FREE}) n "
    "JOIN @execution x ON x.name = n.name AND x.version = n.version "
    f"AND coalesce(x.fingerprint, '') = '' AND {_IS_CURRENT} AND x.execution = 1 "
    "EXCEPT SELECT h.instance_id FROM @instance h WHERE h.held))"
)
_CHANGED: Final = frozenset({Order.LATEST_CHANGE, Order.EARLIEST_CHANGE})
_IS_OWNED: Final = "i.owner IS NOT NULL"
# The index on changes has only these; each step of an owner would cost it a write.
_IS_FREE: Final = "i.changed_at IS NOT NULL"
_NEEDS_DETAIL: Final = re.compile(r"\bd\.")
_NEEDS_KIND: Final = re.compile(r"\bk\.")


def _both(instant: str, direction: str) -> str:
    return f"{instant}{direction}, i.instance_id{direction}"


def _instant(order: Order, arm: str | None = None) -> str | None:
    """Return the column that an order has before the ids, in the part that an arm finds."""
    if arm == _IS_FREE and order in _CHANGED:
        return "i.changed_at"
    return _ORDERED_BY.get(order)


def _tables(text: str) -> str:
    """Return the tables that a text names. Without the kinds, an index alone can have all columns."""
    if _NEEDS_DETAIL.search(text):
        return sql.FROM_INSTANCES
    return sql.FROM_HOT_ROWS if _NEEDS_KIND.search(text) else sql.FROM_HOT_ROWS_ALONE


def _finds_held(query: InstanceQuery) -> bool:
    """Whether a query asks for held instances, which are few among many."""
    return query.held is not False and bool(query.held or query.holds)


class Statement:
    """A statement that lists or counts the instances of a query, and its values."""

    def __init__(self, query: InstanceQuery, dialect: Dialect) -> None:
        self._query = query
        self._dialect = dialect
        self._by_label: str | None = None
        self.values: list[Any] = []
        self.text = ""

    @classmethod
    def listing(cls, query: InstanceQuery, dialect: Dialect, label: str | None = None) -> Statement:
        """Return the statement that lists instances.

        Args:
            label: the key of a label that few instances share with the query.
        """
        self = cls(query, dialect)
        columns = f"{sql.RECORD_COLUMNS}, {self._unserved_activity()}{sql.FROM_RECORDS}"
        direction = " DESC" if query.order.is_descending else ""
        instant = _instant(query.order)
        limit = self._value("bigint", query.limit)
        order = f"i.instance_id{direction}" if instant is None else _both(instant, direction)
        arms = list(self._arms(label, is_list=True))
        if not arms:
            where = self._where()
        else:
            parts = [self._places(arm) for arm in arms]
            # A few are read as a set and sorted: walking through the order for them takes long.
            is_set = label is not None or query.few
            by_place = f"ORDER BY at{direction}, id{direction} LIMIT {limit}"
            found = " UNION ALL ".join(
                f"SELECT * FROM (SELECT * FROM ({part} OFFSET 0) AS s {by_place}) AS a{number}"
                if is_set
                else f"SELECT * FROM ({part} {by_place}) AS a{number}"
                for number, part in enumerate(parts)
            )
            where = f" WHERE i.instance_id IN (SELECT id FROM ({found}) AS found {by_place})"
        self.text = f"{columns}{where} ORDER BY {order} LIMIT {limit}"
        return self

    @classmethod
    def counting(
        cls,
        query: InstanceQuery,
        dialect: Dialect,
        group_by: Sequence[str],
        limit: int,
        label: str | None = None,
    ) -> Statement:
        """Return the statement that counts instances by groups."""
        self = cls(replace(query, after=None), dialect)
        arms: list[str | None] = [*self._arms(label, is_list=False)] or [None]
        keys = [self._key(key) for key in group_by]
        if not keys:
            found = " UNION ALL ".join(self._found("SELECT 1", arm) for arm in arms)
            if query.most is not None:
                found += f" LIMIT {self._value('bigint', query.most)}"
            self.text = f"SELECT count(*), count(*) FROM ({found}) AS found"
            return self
        selected = "".join(f"{text} AS g{place}, " for place, text in enumerate(keys))
        if len(arms) == 1:
            where = self._where(arms[0])
        else:
            found = " UNION ALL ".join(self._found("SELECT i.instance_id", arm) for arm in arms)
            where = f" WHERE i.instance_id IN ({found})"
        grouped = ", ".join(f"g{place}" for place in range(len(keys)))
        self.text = (
            f"SELECT {selected}count(*) AS number, (sum(count(*)) OVER ())::bigint"
            f"{_tables(selected + where)}{where} GROUP BY {grouped} ORDER BY number DESC "
            f"LIMIT {self._value('bigint', limit)}"
        )
        return self

    @classmethod
    def search_end(cls, query: InstanceQuery, dialect: Dialect, number: int) -> Statement:
        """Return the statement that finds where a search of so many instances ends."""
        self = cls(query.bounds_of_order(), dialect)
        direction = " DESC" if query.order.is_descending else ""
        arm = _IS_FREE if query.order in _CHANGED else None
        instant = _instant(query.order, arm)
        order = f"i.instance_id{direction}" if instant is None else _both(instant, direction)
        where = self._where(arm)
        self.text = (
            f"SELECT {instant or '0'}, i.instance_id FROM @instance i{where} ORDER BY {order} "
            f"LIMIT 1 OFFSET {self._value('bigint', number - 1)}"
        )
        return self

    def _places(self, arm: str) -> str:
        instant = _instant(self._query.order, arm)
        return self._found(f"SELECT {instant or '0'} AS at, i.instance_id AS id", arm)

    def _found(self, selected: str, arm: str | None) -> str:
        where = self._where(arm)
        # Most conditions need no cold rows; the database would read one for each instance.
        return f"{selected}{_tables(where)}{where}"

    def _arms(self, label: str | None, *, is_list: bool) -> Iterable[str]:
        """Yield conditions that together find the instances of the query, each of them once; none:
        the order of the list finds them.
        """
        query = self._query
        if query.has_key_set:
            if is_list and query.order in _CHANGED:
                yield "true"  # sort the ids alone, and read the rest of one page
        elif _finds_held(query):
            yield from self._held_arms()
        elif label is not None:
            self._by_label = label
            values = self._value("text", label), self._value("text", query.labels[label])
            yield (
                "i.instance_id IN (SELECT f.instance_id FROM @label f WHERE f.key = "
                f"{values[0]} AND f.value = {values[1]})"
            )
        elif query.few:
            yield from self._few_arms()
        elif query.standings == (Standing.PENDING,) and query.statuses == (Status.OPEN,):
            yield _IS_PENDING
        elif is_list and query.order in _CHANGED:
            yield _IS_FREE
            yield _IS_OWNED

    def _few_arms(self) -> Iterable[str]:
        query = self._query
        wanted = [
            (column, self._value("text", value))
            for column, value in (("name", query.name), ("version", query.version))
            if value is not None
        ]
        if query.statuses is None or Status.OPEN in query.statuses:
            among = "".join(f" AND x.{column} = {value}" for column, value in wanted)
            yield (
                "i.status = 0 AND i.instance_id IN (SELECT x.instance_id FROM @execution x WHERE "
                f"{_IS_CURRENT}{among})"
            )
        if query.statuses != (Status.OPEN,) or query.other_statuses:
            among = " AND ".join(f"n.{column} = {value}" for column, value in wanted) or "true"
            yield (
                "i.status <> 0 AND i.kind = ANY(ARRAY(SELECT n.kind_id FROM @kind n "
                f"WHERE {among}))"
            )

    def _held_arms(self) -> Iterable[str]:
        """Yield conditions that each find a part of the held instances by an index; no instance is
        in two parts.
        """
        query = self._query
        asked = frozenset(HoldKind) if query.holds is None else frozenset(query.holds)
        yield "i.held" if query.holds is None else f"i.held AND {self._is_held_by(query.holds)}"
        free = "i.status = 0 AND NOT i.held"
        if query.unserved and HoldKind.VERSION_MISSING in asked:
            yield f"{free} AND {self._of_kinds(query.unserved)}"
        if HoldKind.CRASHING in asked:
            yield f"{free} AND {_IS_CRASHING}{self._and_served()}"
        if query.unserved_routes and HoldKind.ACTIVITY_MISSING in asked:
            waits = f"{self._waits_for_node()} AND NOT {_IS_CRASHING}"
            yield f"{free} AND {waits}{self._and_served()}"

    def _and_served(self) -> str:
        unserved = self._query.unserved
        return f" AND NOT {self._of_kinds(unserved)}" if unserved else ""

    def _is_held_by(self, holds: Iterable[HoldKind]) -> str:
        forms = tuple(map(str, self._dialect.library.holds.forms(*holds)))
        if len(forms) == 1:
            # The server reads the index on holds in the order of the list for one value, and for an
            # array it does not.
            return f"i.hold_kind = {self._value('text', forms[0])}"
        return f"i.hold_kind = ANY({self._value('text[]', Texts(forms))})"

    def _forms(self, holds: Iterable[HoldKind]) -> str:
        forms = Texts(map(str, self._dialect.library.holds.forms(*holds)))
        return self._value("text[]", forms)

    def _key(self, key: str) -> str:
        """Return the value that a group shares."""
        if key.startswith(GROUP_LABEL):
            label = self._value("text", key.removeprefix(GROUP_LABEL))
            return (
                "(SELECT l.value FROM @label l WHERE l.instance_id = i.instance_id AND l.key = "
                f"{label})"
            )
        if key == GroupBy.STATUS:
            # One number for both, of which the reader makes the pair.
            return f"CASE WHEN i.status = 0 THEN {self._standing()} ELSE 4 * i.status END"
        return self._hold() if key == GroupBy.HELD else _COLUMNS[GroupBy(key)]

    def _where(self, arm: str | None = None) -> str:
        """Return the conditions of the query; with an arm, those of the part that it finds. The
        arms of held instances bring the conditions on holds.
        """
        conditions = [
            *([] if arm is None else [arm]),
            *self._of_kind_and_status(),
            *(self._of_hold() if arm is None or not _finds_held(self._query) else ()),
            *self._of_future(),
            *self._of_origin(),
            *self._of_time(arm),
        ]
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""

    def _of_kind_and_status(self) -> Iterable[str]:
        query = self._query
        if query.name is not None:
            yield f"k.name = {self._value('text', query.name)}"
        if query.version is not None:
            yield f"k.version = {self._value('text', query.version)}"
        if query.queue is not None:
            yield f"k.queue = {self._value('text', stored_queue(query.queue))}"
        if query.statuses is not None:
            forms = self._dialect.statuses_of(query.statuses)
            if len(forms) == 1 and Status.OPEN not in query.statuses:
                # The index on ends has the order of the list.
                among = f"(i.status = {self._value('bigint', int(forms[0]))} AND i.status <> 0)"
            else:
                among = f"i.status = ANY({self._stored(query.statuses)})"
            yield (
                f"({among} OR i.status <> ALL({self._stored(Status)}))"
                if query.other_statuses
                else among
            )
        if query.standings is not None:
            among = self._value("bigint[]", Numbers(one.value for one in query.standings))
            yield f"(i.status <> 0 OR {self._standing()} = ANY({among}))"

    def _of_hold(self) -> Iterable[str]:
        query = self._query
        if query.held is not None:
            yield self._stands_still() if query.held else f"NOT {self._stands_still()}"
        if query.holds is not None:
            yield f"{self._hold()} = ANY({self._forms(query.holds)})"

    def _of_future(self) -> Iterable[str]:
        query = self._query
        for target in query.targets:
            condition = self._leads_to(target)
            yield condition if target.wanted else f"NOT {condition}"
        if query.waiting is not None:
            yield self._waits(query.waiting)
        if query.overdue is not None:
            now = self._value("bigint", query.now)
            yield (
                f"i.status = 0 AND i.boundary_due <= {now}"
                if query.overdue
                else f"NOT (i.status = 0 AND coalesce(i.boundary_due <= {now}, false))"
            )
        if query.pinned is not None:
            condition = f"(i.status = 0 AND {self._is_pinned()})"
            yield condition if query.pinned else f"NOT {condition}"

    def _of_origin(self) -> Iterable[str]:
        query = self._query
        if query.id_prefix:
            yield f"i.instance_id LIKE {self._value('text', _escaped(query.id_prefix) + '%')}"
        for key, value in query.labels.items():
            if key == self._by_label:
                continue  # the arm has found it
            yield (
                "EXISTS (SELECT 1 FROM @label l WHERE l.instance_id = i.instance_id"
                f" AND l.key = {self._value('text', key)} AND l.value = "
                f"{self._value('text', value)})"
            )
        if query.parent is not None:
            # As a set of ids, so that it is found by the index on parents, whatever the order of
            # the list.
            parent = self._value("text", query.parent)
            yield (
                "i.instance_id IN (SELECT c.instance_id FROM @instance_detail c WHERE "
                f"c.parent_id = {parent})"
            )
        if query.schedule is not None:
            schedule = self._value("text", query.schedule)
            yield (
                "i.instance_id IN (SELECT c.instance_id FROM @instance_detail c WHERE "
                f"c.schedule_id = {schedule})"
            )
        if query.parent_execution is not None:
            yield f"d.parent_execution = {self._value('bigint', query.parent_execution)}"

    def _of_time(self, arm: str | None) -> Iterable[str]:
        query = self._query
        changed = _instant(Order.LATEST_CHANGE, arm)
        for condition, bound in (
            ("i.created_at >=", query.created_from),
            ("i.created_at <", query.created_until),
            (f"{changed} >=", query.updated_from),
            (f"{changed} <", query.updated_until),
        ):
            if bound is not None:
                yield f"{condition} {self._value('bigint', bound)}"
        ordered_by = _instant(query.order, arm)
        beyond, within = ("<", ">=") if query.order.is_descending else (">", "<=")
        for place, comparison in ((query.after, beyond), (query.until, within)):
            if place is None:
                continue
            if ordered_by is None:
                yield f"i.instance_id {comparison} {self._value('text', place[1])}"
            else:
                at = f"{self._value('bigint', place[0])}, {self._value('text', place[1])}"
                yield f"({ordered_by}, i.instance_id) {comparison} ({at})"

    # --- what holds an instance ---------------------------------------------------------------

    def _stands_still(self) -> str:
        """Return the condition that an open instance cannot go on now."""
        causes = ["i.paused", "i.held", _IS_CRASHING]
        if self._query.unserved:
            causes.append(self._of_kinds(self._query.unserved))
        if self._query.unserved_routes:
            causes.append(self._waits_for_node())
        return f"(i.status = 0 AND ({' OR '.join(causes)}))"

    def _hold(self) -> str:
        """Return the kind of an open instance's hold; NULL: it has none."""
        kind = self._of_kinds(self._query.unserved) if self._query.unserved else "false"
        waits = self._waits_for_node() if self._query.unserved_routes else "false"
        return (
            "CASE WHEN i.status <> 0 THEN NULL "
            "WHEN i.held AND i.hold_kind IS NOT NULL THEN i.hold_kind "
            f"WHEN {kind} THEN '{HoldKind.VERSION_MISSING}' "
            f"WHEN {_IS_CRASHING} THEN '{HoldKind.CRASHING}' "
            f"WHEN {waits} THEN '{HoldKind.ACTIVITY_MISSING}' END"
        )

    def _standing(self) -> str:
        """Return the :class:`Standing` of an open instance."""
        return (
            f"CASE WHEN {self._stands_still()} THEN 2 WHEN i.opened OR i.execution > 1 "
            "THEN 1 ELSE 0 END"
        )

    def _of_kinds(self, kinds: Sequence[Kind]) -> str:
        """Return the condition that an instance is of one of these kinds."""
        casts = ("text[]", "text[]", "text[]", "bigint[]", "boolean[]", "bigint[]")
        arrays = ", ".join(
            self._value(cast, array) for cast, array in zip(casts, kind_arrays(kinds), strict=True)
        )
        columns = "k.queue, k.name, k.version, k.format, k.floating, k.level"
        return f"(({columns}) IN (SELECT * FROM unnest({arrays})))"

    def _waits_for_node(self) -> str:
        """Return the condition that an activity of an instance waits on an unserved route."""
        # As a set of ids: it is found by the index on routes, and there are few of them.
        return (
            "(i.instance_id IN (SELECT a.instance_id FROM @activity a WHERE "
            f"{sql.IS_WAITING} AND {self._among_routes()}))"
        )

    def _unserved_activity(self) -> str:
        """Return the route without a living node by which the longest waiting activity of an
        instance waits; NULL: none does.
        """
        if not self._query.unserved_routes:
            return "NULL::text[]"
        return (
            "(SELECT ARRAY[a.queue, a.name] FROM @activity a WHERE a.instance_id = i.instance_id "
            f"AND {sql.IS_WAITING} AND {self._among_routes()} "
            "ORDER BY a.started_at, a.execution, a.event_id LIMIT 1)"
        )

    def _among_routes(self) -> str:
        queues, names = route_arrays(self._query.unserved_routes)
        given = f"{self._value('text[]', queues)}, {self._value('text[]', names)}"
        return f"(a.queue, a.name) IN (SELECT * FROM unnest({given}))"

    # --- where it leads, and what it waits for ------------------------------------------------

    def _leads_to(self, target: Target) -> str:
        kind = self._of_kinds(target.kinds) if target.kinds else "false"
        pinned = (
            f"{_PIN} <> k.version"
            if target.version is None
            else f"{_PIN} = {self._value('text', target.version)}"
        )
        return f"(i.status = 0 AND CASE WHEN {self._is_pinned()} THEN {pinned} ELSE {kind} END)"

    def _is_pinned(self) -> str:
        """Return the condition that an instance has a pin, and that it counts still."""
        now = self._value("bigint", self._query.now)
        return f"(d.pin IS NOT NULL AND coalesce({_PINNED_UNTIL} > {now}, true))"

    def _waits(self, waiting: WaitCondition) -> str:
        """Return the condition that an open instance waits for something. Its summary has it as
        JSON.
        """
        conditions = [
            f"(w -> {place})::text = {self._value('text', _packed(text))}"
            for place, text in enumerate((waiting.kind, waiting.name))
            if text is not None
        ]
        if waiting.since is not None:
            conditions.append(f"(w -> 2)::text::bigint <= {self._value('bigint', waiting.since)}")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        entries = f"json_array_elements({_SUMMARY}) AS w"
        return f"(i.status = 0 AND EXISTS (SELECT 1 FROM {entries}{where}))"

    def _stored(self, statuses: Iterable[Status]) -> str:
        return self._value("bigint[]", Numbers(map(int, self._dialect.statuses_of(statuses))))

    def _value(self, cast: str, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}::{cast}"


def _packed(text: str) -> str:
    """Return a text as it stands in :func:`_json`."""
    return pack_text(text).replace(_NUL, _SHOWN_NUL)


def _escaped(prefix: str) -> str:
    """Return a pattern that matches exactly this text."""
    return prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
