"""Find and count the instances of a selection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict, get_args

from orchestra.client.access import HELD_AGE, Access
from orchestra.client.arguments import (
    check_choice,
    check_filters,
    check_limit,
    check_name,
    check_text,
    read_page,
    read_statuses,
)
from orchestra.client.describing import STORED_STATUS, instance_info, shown_status
from orchestra.client.info import InstancePage, InstanceStatus
from orchestra.client.selections import (
    InstanceCount,
    InstanceCounts,
    OrderBy,
    Selection,
    WaitingFor,
    WaitKind,
)
from orchestra.client.standings import count_standings
from orchestra.clock import to_micros
from orchestra.errors import InvalidArgument
from orchestra.levels import Unknown
from orchestra.operations.holds import unserved_kinds
from orchestra.operations.selecting import drifting, leading_to, unserved_routes
from orchestra.options import check_count, check_duration, check_kind, check_moment
from orchestra.store.catalogue import Catalogue
from orchestra.store.kinds import HoldKind
from orchestra.store.port import Directory
from orchestra.store.queries import (
    GROUP_LABEL,
    SET_SIZE,
    Counted,
    CountedGroup,
    GroupBy,
    InstanceQuery,
    InstanceRecord,
    Order,
    Standing,
    WaitCondition,
)
from orchestra.store.routes import Route
from orchestra.store.tallies import TallyRow

__all__ = ["Conditions", "QueryMaker", "Selecting", "query_maker", "selected"]

_STANDING_OF: Final = {
    InstanceStatus.PENDING: Standing.PENDING,
    InstanceStatus.RUNNING: Standing.RUNNING,
    InstanceStatus.HELD: Standing.HELD,
}
_ORDERS: Final = {
    OrderBy.NEWEST: Order.NEWEST,
    OrderBy.OLDEST: Order.OLDEST,
    OrderBy.LATEST_CHANGE: Order.LATEST_CHANGE,
    OrderBy.EARLIEST_CHANGE: Order.EARLIEST_CHANGE,
    OrderBy.ID: Order.ID,
}
_CHANGED: Final = (OrderBy.LATEST_CHANGE, OrderBy.EARLIEST_CHANGE)
_TALLIED: Final = frozenset({"name", "version", "queue"})
"""What the store's own tally can be grouped by."""
_STANDING: Final = _TALLIED | {"status", "held"}
"""What can be counted from the tally and the few instances that are held or have not begun."""
_MOST_GROUPS: Final = 1_000
_WAITS: Final = get_args(WaitKind)

_FIELDS: Final = {
    "created_from": "created_after",
    "created_until": "created_before",
    "updated_from": "updated_after",
    "updated_until": "updated_before",
}
"""The fields of a selection that have another name as keywords."""

QueryMaker = Callable[[Catalogue, Sequence[Route]], InstanceQuery]
"""Makes the query of a selection, given what lives now and the routes of waiting activities."""


class Conditions(TypedDict, total=False):
    """The conditions that may be given as keywords, without a :class:`Selection`."""

    name: str | None
    version: str | None
    target_version: str | None
    drifting: bool | None
    queue: str | None
    status: InstanceStatus | Sequence[InstanceStatus] | None
    held: HoldKind | bool | None
    waiting_on: WaitingFor | None
    overdue: bool | None
    pinned: bool | None
    id_prefix: str | None
    created_from: datetime | None
    created_until: datetime | None
    updated_from: datetime | None
    updated_until: datetime | None
    labels: Mapping[str, str] | None
    parent: str | None
    schedule: str | None


def selected(selection: Selection | None, conditions: Conditions) -> Selection:
    """Return a selection, given as one or by its conditions.

    Raises:
        InvalidArgument: both are given, or there is no such condition.
    """
    for key in _FIELDS:
        check_moment(conditions.get(key), key, optional=True)
    if selection is None:
        named: dict[str, Any] = {_FIELDS.get(key, key): value for key, value in conditions.items()}
        known = {one.name for one in fields(Selection)}
        strange = [key for key in conditions if _FIELDS.get(key, key) not in known]
        if strange:
            raise InvalidArgument(
                f"{', '.join(strange)} is no condition; give some of "
                f"{', '.join(Conditions.__annotations__)}"
            )
        return Selection(**named)
    if conditions:
        raise InvalidArgument(
            f"a selection was given, and {', '.join(conditions)} besides; put all conditions into "
            "the selection"
        )
    return selection


class Selecting:
    """Lists and counts instances."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def find(
        self,
        selection: Selection,
        order_by: str,
        limit: int,
        page: str | None,
        search_limit: int | None = None,
    ) -> InstancePage:
        """Return a page of instances; see :meth:`Client.list_instances`."""
        make = query_maker(selection)
        check_limit(limit)
        if search_limit is not None:
            check_count(search_limit, "search_limit")
        order = _read_order(order_by)
        after = _read_place(page, order)
        catalogue = await self._access.catalogue(HELD_AGE)

        def read(
            directory: Directory,
        ) -> tuple[list[InstanceRecord], tuple[int, str] | None]:
            query = make(catalogue, directory.waiting_routes())
            query = replace(query, order=_ORDERS[order], limit=limit + 1, after=after)
            if _is_tallied(query):
                number = _tallied(directory.tally(), query)
                if not number:
                    return [], None  # without a look at the others, however many there are
                query = replace(query, few=number <= SET_SIZE)
            end = None if search_limit is None else directory.search_end(query, search_limit)
            return directory.list(replace(query, until=end)), end

        records, end = await self._access.read(read)
        items = tuple(instance_info(record, catalogue) for record in records[:limit])
        if len(records) > limit:
            return InstancePage(items, _place(_place_of(records[limit - 1], order), order))
        if end is not None:
            return InstancePage(items, _place(end, order), search_limit)
        return InstancePage(items, None)

    async def count(
        self,
        selection: Selection,
        group_by: Sequence[str],
        at_most: int | None = None,
        search_limit: int | None = None,
    ) -> InstanceCounts:
        """Count instances by groups; see :meth:`Client.count_instances`."""
        make, keys = query_maker(selection), _read_keys(group_by)
        if search_limit is not None:
            check_count(search_limit, "search_limit")
        if at_most is not None:
            check_count(at_most, "at_most")
            if keys:
                raise InvalidArgument("at_most bounds a count without groups; leave out group_by")
        if _TALLIED.issuperset(keys) and selection == _tallied_part(selection):
            # The store keeps these numbers: however many instances there are, it reads a few rows.
            rows = await self._access.read(lambda directory: directory.tally())
            counted, is_whole = _count_tally(rows, selection, keys), True
        else:
            catalogue = await self._access.catalogue(HELD_AGE)

            def read(directory: Directory) -> tuple[Counted, bool]:
                query = make(catalogue, directory.waiting_routes())
                if _STANDING.issuperset(keys) and selection == _tallied_part(selection):
                    known = count_standings(directory, catalogue, query, keys, _MOST_GROUPS)
                    return known, True
                if _is_tallied(query):
                    few = _tallied(directory.tally(), query) <= SET_SIZE
                    query = replace(query, few=few)
                end = None if search_limit is None else directory.search_end(query, search_limit)
                query = replace(query, most=at_most, until=end)
                return directory.count(query, keys, _MOST_GROUPS), end is None

            counted, is_whole = await self._access.read(read)
        counts: dict[tuple[str | None, ...], int] = {}
        for group in counted.groups:
            values = tuple(map(_shown, keys, group.values))
            counts[values] = counts.get(values, 0) + group.count
        largest = sorted(
            counts.items(), key=lambda one: (-one[1], [value or "" for value in one[0]])
        )
        return InstanceCounts(
            counted.total,
            tuple(
                InstanceCount(dict(zip(keys, values, strict=True)), count)
                for values, count in largest
            ),
            None if is_whole else search_limit,
        )


def _tallied_part(selection: Selection) -> Selection:
    return Selection(name=selection.name, version=selection.version, queue=selection.queue)


def _is_tallied(query: InstanceQuery) -> bool:
    """Whether the store's tally bounds how many instances a query finds."""
    named = (query.name, query.version, query.queue)
    return any(one is not None for one in named) or (
        query.statuses is not None and not query.other_statuses
    )


def _tallied(rows: Sequence[TallyRow], query: InstanceQuery) -> int:
    """Return how many instances at most a query finds."""
    statuses = None if query.other_statuses else query.statuses
    return sum(
        row.number
        for row in rows
        if query.name in (None, row.kind.name)
        and query.version in (None, row.kind.version)
        and query.queue in (None, row.kind.queue)
        and (statuses is None or row.status in statuses or isinstance(row.status, Unknown))
    )


def _count_tally(rows: Sequence[TallyRow], selection: Selection, keys: Sequence[str]) -> Counted:
    groups: Counter[tuple[Any, ...]] = Counter() if keys else Counter({(): 0})
    for row in rows:
        wanted = (
            (selection.name, row.kind.name),
            (selection.version, row.kind.version),
            (selection.queue, row.kind.queue),
        )
        if all(asked in (None, found) for asked, found in wanted):
            groups[tuple(getattr(row.kind, key) for key in keys)] += row.number
    largest = groups.most_common(_MOST_GROUPS)
    return Counted(groups.total(), tuple(CountedGroup(*group) for group in largest))


def query_maker(selection: Selection) -> QueryMaker:
    """Check a selection, and return what makes its query.

    Raises:
        InvalidArgument: a condition cannot hold for any instance: it is of another type, no id, no
            name, no label, no status, or a naive datetime.
    """
    _check(selection)
    wanted = read_statuses(selection.status)
    standings = {_STANDING_OF[one] for one in wanted or () if one in _STANDING_OF}

    def make(catalogue: Catalogue, routes: Sequence[Route]) -> InstanceQuery:
        held, waits = selection.held, selection.waiting_on
        targets = (
            [] if selection.drifting is None else [drifting(catalogue, wanted=selection.drifting)]
        )
        if selection.target_version is not None:
            targets.append(leading_to(selection.target_version, catalogue))
        return InstanceQuery(
            name=selection.name,
            version=selection.version,
            queue=selection.queue,
            statuses=None
            if wanted is None
            else tuple({STORED_STATUS[one] for one in wanted if one in STORED_STATUS}),
            other_statuses=wanted is not None and InstanceStatus.UNKNOWN in wanted,
            standings=tuple(standings) if 0 < len(standings) < len(_STANDING_OF) else None,
            held=held if isinstance(held, bool) else None,
            holds=(HoldKind(held),) if isinstance(held, str) else None,
            unserved=unserved_kinds(catalogue),
            unserved_routes=unserved_routes(routes, catalogue),
            targets=tuple(targets),
            waiting=None if waits is None else _condition(waits, catalogue.now),
            overdue=selection.overdue,
            now=catalogue.now,
            pinned=selection.pinned,
            id_prefix=selection.id_prefix,
            labels=dict(selection.labels or {}),
            parent=selection.parent,
            schedule=selection.schedule,
            created_from=_instant(selection.created_after),
            created_until=_instant(selection.created_before),
            updated_from=_instant(selection.updated_after),
            updated_until=_instant(selection.updated_before),
        )

    return make


def _instant(moment: datetime | None) -> int | None:
    return None if moment is None else to_micros(moment)


def _condition(waits: WaitingFor, now: int) -> WaitCondition:
    longer_than = waits.longer_than
    since = None if longer_than is None else now - longer_than // timedelta(microseconds=1)
    return WaitCondition(waits.kind, waits.name, since)


def _check(selection: Selection) -> None:
    check_kind(selection, "a selection", Selection)
    check_filters(
        name=selection.name,
        version=selection.version,
        queue=selection.queue,
        id_prefix=selection.id_prefix,
        parent=selection.parent,
        labels=selection.labels,
    )
    check_text(selection.target_version, "a version")
    check_text(selection.schedule, "a schedule's id")
    for name in ("created_after", "created_before", "updated_after", "updated_before"):
        check_moment(getattr(selection, name), name, optional=True)
    for name in ("drifting", "overdue", "pinned"):
        check_kind(getattr(selection, name), name, bool, optional=True)
    _check_held(selection.held)
    if selection.waiting_on is not None:
        _check_waiting(selection.waiting_on)


def _check_held(held: object) -> None:
    if held is None or isinstance(held, bool):
        return
    try:
        HoldKind(held)  # pyright: ignore[reportArgumentType] - that is what is checked
    except ValueError:
        kinds = ", ".join(HoldKind)
        raise InvalidArgument(
            f"held is {held!r}; give True, False or a kind of hold, one of {kinds}"
        ) from None


def _check_waiting(waiting: object) -> None:
    check_kind(waiting, "waiting_on", WaitingFor)
    assert isinstance(waiting, WaitingFor)
    if waiting.kind is not None:
        check_choice(waiting.kind, "the kind of what is waited for", _WAITS)
    check_text(waiting.name, "the name of what is waited for")
    check_duration(waiting.longer_than, "longer_than", optional=True)


def _read_order(order_by: object) -> OrderBy:
    try:
        return OrderBy(order_by)  # pyright: ignore[reportArgumentType] - that is what is checked
    except ValueError:
        raise InvalidArgument(
            f"order_by is {order_by!r}; give one of {', '.join(OrderBy)}"
        ) from None


def _place_of(record: InstanceRecord, order: OrderBy) -> tuple[int, str]:
    instant = record.updated_at if order in _CHANGED else record.created_at
    return instant, record.row.instance_id


def _place(at: tuple[int, str], order: OrderBy) -> str:
    """Return the page behind a place. It names its order, but for the one by default."""
    place = f"{at[0]}:{at[1]}"
    return place if order is OrderBy.NEWEST else f"{order}:{place}"


def _read_place(page: str | None, order: OrderBy) -> tuple[int, str] | None:
    if order is OrderBy.NEWEST or not isinstance(page, str):
        return read_page(page)
    if not page.startswith(f"{order}:"):
        raise InvalidArgument(
            f"{page!r} is no page of a list by {order}; give back `next_page` of the page before, "
            "with the same order"
        )
    return read_page(page.removeprefix(f"{order}:"))


def _read_keys(group_by: Sequence[str]) -> tuple[str, ...]:
    keys = (group_by,) if isinstance(group_by, str) else tuple(group_by)
    for key in keys:
        label = isinstance(key, str) and key.startswith(GROUP_LABEL)
        if label:
            check_name(key.removeprefix(GROUP_LABEL), "a label")
        elif key not in set(GroupBy):
            raise InvalidArgument(
                f"instances cannot be counted by {key!r}; give some of {', '.join(GroupBy)}, or "
                "'label:' and the key of a label"
            )
    if len(set(keys)) < len(keys):
        raise InvalidArgument(f"group_by names a key twice: {', '.join(keys)}")
    return tuple(map(str, keys))


def _shown(key: str, value: Any) -> str | None:
    if key == GroupBy.STATUS:
        return str(shown_status(*value))
    if isinstance(value, Unknown):
        return str(value)
    return None if value is None else str(value)
