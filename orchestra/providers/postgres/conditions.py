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


_HOLD: Final = f"({_json('d.hold')} ->> 'kind')"
_PIN: Final = f"({_json('d.pin')} ->> 'version')"
_PINNED_UNTIL: Final = f"({_json('d.pin')} ->> 'until')::bigint"
# Before its first turn an instance has no summary.
_SUMMARY: Final = f"""
    CASE WHEN octet_length(i.summary) > 1 AND get_byte(i.summary, 0) = 123
    THEN {_json("i.summary")} -> 'w' ELSE '[]'::json END"""
_SORTED: Final = frozenset({Order.LATEST_CHANGE, Order.EARLIEST_CHANGE})
_NEEDS_DETAIL: Final = re.compile(r"\bd\.")


class Statement:
    """A statement that lists or counts the instances of a query, and its values."""

    def __init__(self, query: InstanceQuery, dialect: Dialect) -> None:
        self._query = query
        self._dialect = dialect
        self.values: list[Any] = []
        self.text = ""

    @classmethod
    def listing(cls, query: InstanceQuery, dialect: Dialect) -> Statement:
        """Return the statement that lists instances."""
        self = cls(query, dialect)
        columns = f"{sql.RECORD_COLUMNS}, {self._unserved_activity()}{sql.FROM_RECORDS}"
        direction = " DESC" if query.order.is_descending else ""
        instant = _ORDERED_BY.get(query.order)
        order = "" if instant is None else f"{instant}{direction}, "
        where, limit = self._where(), self._value("bigint", query.limit)
        ordered = f" ORDER BY {order}i.instance_id{direction} LIMIT {limit}"
        if query.order in _SORTED:
            # No index has this order: sort the ids alone, and read the rest of few instances.
            tables = sql.FROM_INSTANCES if _NEEDS_DETAIL.search(where) else sql.FROM_HOT_ROWS
            where = f" WHERE i.instance_id IN (SELECT i.instance_id{tables}{where}{ordered})"
        self.text = f"{columns}{where}{ordered}"
        return self

    @classmethod
    def counting(
        cls, query: InstanceQuery, dialect: Dialect, group_by: Sequence[str], limit: int
    ) -> Statement:
        """Return the statement that counts instances by groups."""
        self = cls(replace(query, after=None), dialect)
        keys = [self._key(key) for key in group_by]
        selected = "".join(f"{text} AS g{place}, " for place, text in enumerate(keys))
        where = self._where()
        # Most counts need no cold rows; the database would read one for each instance.
        tables = (
            sql.FROM_INSTANCES if _NEEDS_DETAIL.search(f"{selected}{where}") else sql.FROM_HOT_ROWS
        )
        if not keys and query.most is not None:
            most = self._value("bigint", query.most)
            found = f"SELECT 1{tables}{where} LIMIT {most}"
            self.text = f"SELECT count(*), count(*) FROM ({found}) AS found"
            return self
        self.text = (
            f"SELECT {selected}count(*) AS number, (sum(count(*)) OVER ())::bigint{tables}{where}"
        )
        if keys:
            grouped = ", ".join(f"g{place}" for place in range(len(keys)))
            self.text += (
                f" GROUP BY {grouped} ORDER BY number DESC LIMIT {self._value('bigint', limit)}"
            )
        return self

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

    def _where(self) -> str:
        """Return the conditions of the query."""
        conditions = [
            *self._of_kind_and_status(),
            *self._of_hold(),
            *self._of_future(),
            *self._of_origin(),
            *self._of_time(),
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
            yield self._held_set() if query.held else f"NOT {self._stands_still()}"
        if query.holds is not None:
            yield self._held_set()
            forms = Texts(map(str, self._dialect.library.holds.forms(*query.holds)))
            yield f"{self._hold()} = ANY({self._value('text[]', forms)})"

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

    def _of_time(self) -> Iterable[str]:
        query = self._query
        for condition, bound in (
            ("i.created_at >=", query.created_from),
            ("i.created_at <", query.created_until),
            ("i.updated_at >=", query.updated_from),
            ("i.updated_at <", query.updated_until),
        ):
            if bound is not None:
                yield f"{condition} {self._value('bigint', bound)}"
        if query.after is not None:
            instant, instance_id = query.after
            beyond = "<" if query.order.is_descending else ">"
            ordered_by = _ORDERED_BY.get(query.order)
            if ordered_by is None:
                yield f"i.instance_id {beyond} {self._value('text', instance_id)}"
            else:
                after = f"{self._value('bigint', instant)}, {self._value('text', instance_id)}"
                yield f"({ordered_by}, i.instance_id) {beyond} ({after})"

    # --- what holds an instance ---------------------------------------------------------------

    def _stands_still(self) -> str:
        """Return the condition that an open instance cannot go on now."""
        causes = ["i.paused", "i.held", _IS_CRASHING]
        if self._query.unserved:
            causes.append(self._of_kinds(self._query.unserved))
        if self._query.unserved_routes:
            causes.append(self._waits_for_node())
        return f"(i.status = 0 AND ({' OR '.join(causes)}))"

    def _held_set(self) -> str:
        """Return the condition that an open instance cannot go on now, as a set of ids if it can
        be.

        The indexes find such a set, however many instances go on. Instances that no living node
        serves are a share of the store that no index bounds.
        """
        if self._query.unserved:
            return self._stands_still()
        crashing = _IS_CRASHING.replace("i.", "c.")
        sets = [
            "SELECT h.instance_id FROM @instance h WHERE h.held",
            f"SELECT c.instance_id FROM @instance c WHERE {crashing}",
        ]
        if self._query.unserved_routes:
            sets.append(
                f"SELECT a.instance_id FROM @activity a WHERE {sql.IS_WAITING} AND "
                f"{self._among_routes()}"
            )
        return f"(i.status = 0 AND i.instance_id IN ({' UNION '.join(sets)}))"

    def _hold(self) -> str:
        """Return the kind of an open instance's hold; NULL: it has none."""
        kind = self._of_kinds(self._query.unserved) if self._query.unserved else "false"
        waits = self._waits_for_node() if self._query.unserved_routes else "false"
        return (
            f"CASE WHEN i.status <> 0 THEN NULL WHEN i.paused THEN '{HoldKind.OPERATOR}' "
            f"WHEN i.held THEN {_HOLD} WHEN {kind} THEN '{HoldKind.VERSION_MISSING}' "
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
