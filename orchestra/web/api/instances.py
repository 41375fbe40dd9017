"""Instances: search, count, look, start, send."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import Query
from fastapi.responses import JSONResponse, Response

from orchestra.client import Client
from orchestra.client.history import HistoryEvent
from orchestra.client.info import ExecutionInfo, InstanceInfo, InstancePage, UnreadMessage
from orchestra.client.jsonable import jsonable
from orchestra.client.selections import InstanceCounts, OrderBy
from orchestra.client.summaries import SEARCHED
from orchestra.errors import InvalidArgument
from orchestra.store.routes import DEFAULT_QUEUE
from orchestra.web.access import CurrentClient, Operator, Role
from orchestra.web.answers import Routes, answer
from orchestra.web.cursors import cursor_of, page_of
from orchestra.web.event_streams import EventStream, event
from orchestra.web.forms import Conditions, conditions_from_text, strict
from orchestra.web.paths import Id, id_of

__all__ = ["routes"]

routes: Routes = Routes("instances")

_LONGEST_WAIT: Final = 300.0
"""Seconds that a request is kept open at most."""

_LONGEST_PAGE: Final = 1_000
Limit = Annotated[int, Query(ge=1, le=_LONGEST_PAGE)]
_INCLUDED: Final = ("input", "output", "state", "history")
Include = Annotated[
    list[str] | None,
    Query(description="what may be large: input, output, state, history; repeated, or with commas"),
]

SearchLimit = Annotated[int, Query(ge=1, description="as in a search; of each look at the list")]


@dataclass(frozen=True, slots=True)
class WholeInstance(InstanceInfo):
    """An instance, with what was asked for: ``input``, ``output``, the ``state`` as the code of the
    current lap has opened it, and the ``history`` of that lap.
    """

    state: Any = None
    history: tuple[HistoryEvent, ...] = ()


@strict
@dataclass
class Search:
    """Which instances, in which order, and how many. ``search_limit``: how many to look at, where
    no index finds those that meet the selection. The answer may then be short or empty, says so in
    ``searched``, and ``next_page`` goes on.
    """

    selection: Conditions = field(default_factory=Conditions)
    order_by: OrderBy = OrderBy.NEWEST
    limit: int = 100
    page: str | None = None
    search_limit: int = SEARCHED


@strict
@dataclass
class Count:
    """Which instances to count, by which groups. ``at_most``: stop at this number, where it counts
    no groups. ``search_limit``: how many to look at, at most, the newest; by default all.
    """

    selection: Conditions = field(default_factory=Conditions)
    group_by: list[str] = field(default_factory=list[str])
    at_most: int | None = None
    search_limit: int | None = None


@strict
@dataclass
class NewInstance:
    """An instance to start; see ``Client.start``."""

    name: str
    input: Any = None
    instance_id: str | None = None
    version: str | None = None
    queue: str | None = None
    labels: dict[str, str] | None = None
    request_id: str | None = None
    if_running: Literal["error", "return", "terminate"] | None = None
    if_ended: Literal["error", "return", "restart", "restart_if_failed"] = "error"
    written_by: str | None = None
    not_before: datetime | None = None
    allow_unregistered: bool = False


@strict
@dataclass
class NewEvent:
    """An event to send."""

    name: str
    payload: Any = None
    message_id: str | None = None


@strict
@dataclass
class NewRequest:
    """A request to send; see ``Client.request``. ``timeout``: seconds to wait for the answer."""

    name: str
    value: Any = None
    timeout: float = 30.0
    request_id: str | None = None


@dataclass
class Answer:
    """The answer of an instance's code."""

    value: Any


@dataclass
class Dropped:
    """How many messages were dropped."""

    count: int


@strict
@dataclass
class Drop:
    """Which unread messages to drop, and why."""

    name: str | None = None
    message_ids: list[str] | None = None
    reason: str = ""


def included(include: Sequence[str] | None) -> frozenset[str]:
    """Return what is asked for beside the plain facts.

    Raises:
        InvalidArgument: a name is none.
    """
    names = [name.strip() for part in include or () for name in part.split(",")]
    for name in names:
        if name not in _INCLUDED:
            raise InvalidArgument(f"include names {name!r}; give some of {', '.join(_INCLUDED)}")
    return frozenset(names)


def shown(info: InstanceInfo, include: Collection[str] = ()) -> dict[str, Any]:
    """Return an instance without the large values that were not asked for."""
    values = jsonable(info)
    for name in ("input", "output"):
        if name not in include:
            del values[name]
    return values


async def _state(client: Client, info: InstanceInfo) -> Any:
    """Return the state of the current lap, after the migrations that it has passed."""
    number = info.execution_id
    laps = await client.list_executions(info.instance_id, after=number - 1, limit=1)
    if laps and laps[0].migrations:
        events = await client.get_history(info.instance_id, number)
        if events and "input" in events[0].details:
            return events[0].details["input"]
    return info.input


@routes.route("POST", "/instances/search", InstancePage, role=Role.VIEW)
async def search_instances(
    body: Search, client: CurrentClient, include: Include = None
) -> JSONResponse:
    """Find instances by a selection, a page at a time."""
    wanted = included(include)
    page = await client.list_instances(
        body.selection.selection(),
        order_by=body.order_by,
        limit=_bounded(body.limit),
        page=page_of(body.page),
        search_limit=body.search_limit,
    )
    items = [shown(info, wanted) for info in page.items]
    next_page = cursor_of(page.next_page)
    return answer({"items": items, "next_page": next_page, "searched": page.searched})


def _bounded(limit: int) -> int:
    """Check how many instances are asked for at once."""
    if limit > _LONGEST_PAGE:
        raise InvalidArgument(f"limit is {limit:,}; at most {_LONGEST_PAGE:,} come at once")
    return limit


@routes.route("POST", "/instances/count", InstanceCounts, role=Role.VIEW)
async def count_instances(body: Count, client: CurrentClient) -> JSONResponse:
    """Count instances by groups: name, version, queue, status, held, or label:KEY."""
    return answer(
        await client.count_instances(
            body.selection.selection(),
            group_by=body.group_by,
            at_most=body.at_most,
            search_limit=body.search_limit,
        )
    )


@routes.route("POST", "/instances", InstanceInfo, 201)
async def start_instance(body: NewInstance, client: CurrentClient) -> JSONResponse:
    """Start an instance."""
    handle = await client.start(
        body.name,
        body.input,
        instance_id=body.instance_id,
        version=body.version,
        labels=body.labels,
        request_id=body.request_id,
        if_running=body.if_running,
        if_ended=body.if_ended,
        written_by=body.written_by,
        not_before=body.not_before,
        allow_unregistered=body.allow_unregistered,
        queue=DEFAULT_QUEUE if body.queue is None else body.queue,
    )
    return answer(await client.get_instance_info(handle.instance_id), 201)


@routes.route("GET", "/instances/{instance_id}", WholeInstance)
async def get_instance(
    instance_id: Id, client: CurrentClient, include: Include = None
) -> JSONResponse:
    """Return an instance."""
    wanted = included(include)
    info = await client.get_instance_info(id_of(instance_id))
    values = shown(info, wanted)
    if "state" in wanted:
        values["state"] = jsonable(await _state(client, info))
    if "history" in wanted:
        values["history"] = jsonable(await client.get_history(info.instance_id, info.execution_id))
    return answer(values)


@routes.route("GET", "/instances/{instance_id}/executions", tuple[ExecutionInfo, ...])
async def list_executions(
    instance_id: Id, client: CurrentClient, after: int = 0, limit: Limit = 100
) -> JSONResponse:
    """Return the laps of an instance in ascending order, behind a number."""
    return answer(await client.list_executions(id_of(instance_id), after=after, limit=limit))


@routes.route("GET", "/instances/{instance_id}/history", tuple[HistoryEvent, ...])
async def get_history(
    instance_id: Id, client: CurrentClient, execution: int | None = None
) -> JSONResponse:
    """Return the events of one lap: by default of the current one."""
    return answer(await client.get_history(id_of(instance_id), execution))


@routes.route("GET", "/instances/{instance_id}/messages", tuple[UnreadMessage, ...])
async def list_messages(
    instance_id: Id, client: CurrentClient, after: int = 0, limit: Limit = 100
) -> JSONResponse:
    """Return what waits unread, and what was set aside, with its reason."""
    return answer(await client.list_messages(id_of(instance_id), after=after, limit=limit))


@routes.route("GET", "/instances/{instance_id}/watch", str)
async def watch_instance(instance_id: Id, client: CurrentClient) -> EventStream:
    """Stream the instance at each change as server-sent events, until it has ended."""
    found = id_of(instance_id)
    await client.get_instance_info(found)  # one that is not there is a problem, and no stream

    async def events() -> AsyncGenerator[bytes]:
        async for info in client.watch(found):
            yield event(shown(info))

    return EventStream(events())


@routes.route("GET", "/watch", str)
async def watch_instances(
    client: CurrentClient,
    selection: Annotated[str, Query(description="as in a search, as JSON")] = "{}",
    order_by: OrderBy = OrderBy.NEWEST,
    limit: Limit = 100,
    search_limit: SearchLimit = SEARCHED,
) -> EventStream:
    """Stream the changes of a list as server-sent events: an instance has ``entered`` it, has
    ``changed`` in it, or has ``left`` it. It goes on until the reader leaves.
    """
    chosen = conditions_from_text(selection)
    # A condition that is none is a problem, and no stream.
    await client.list_instances(chosen, order_by=order_by, limit=1, search_limit=search_limit)

    async def events() -> AsyncGenerator[bytes]:
        async for change in client.watch_instances(
            chosen, order_by=order_by, limit=limit, search_limit=search_limit
        ):
            info = None if change.info is None else shown(change.info)
            yield event({"instance_id": change.instance_id, "change": change.change, "info": info})

    return EventStream(events())


@routes.route("POST", "/instances/{instance_id}/messages/drop", Dropped, role=Role.ADMIN)
async def drop_messages(
    instance_id: Id, body: Drop, client: CurrentClient, by: Operator
) -> JSONResponse:
    """Drop unread messages of a name, or with these ids."""
    count = await client.drop_messages(
        id_of(instance_id), body.name, body.message_ids, reason=body.reason, by=by
    )
    return answer(Dropped(count))


@routes.route("POST", "/instances/{instance_id}/requests", Answer)
async def send_request(instance_id: Id, body: NewRequest, client: CurrentClient) -> JSONResponse:
    """Ask an instance, and wait for the answer. A timeout (504) takes nothing back: the same
    ``request_id`` asks again.
    """
    value = await client.request(
        id_of(instance_id),
        body.name,
        body.value,
        timeout=timedelta(seconds=min(max(body.timeout, 0.0), _LONGEST_WAIT)),
        request_id=body.request_id,
    )
    return answer(Answer(value))


@routes.route("POST", "/instances/{instance_id}/events", None, 202)
async def raise_event(instance_id: Id, body: NewEvent, client: CurrentClient) -> Response:
    """Send an event. It is stored when this has answered."""
    await client.raise_event(
        id_of(instance_id), body.name, body.payload, message_id=body.message_id
    )
    return Response(status_code=202)
