"""Instances: search, count, look, start, send."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import Query
from fastapi.responses import JSONResponse, Response, StreamingResponse

from orchestra.client.history import HistoryEvent
from orchestra.client.info import ExecutionInfo, InstanceInfo, InstancePage, UnreadMessage
from orchestra.client.jsonable import jsonable
from orchestra.client.selections import InstanceCounts, OrderBy, Selection
from orchestra.codec import dump_json
from orchestra.store.routes import DEFAULT_QUEUE
from orchestra.web.access import CurrentClient, Operator
from orchestra.web.answers import Routes, answer
from orchestra.web.paths import Id, id_of

__all__ = ["routes"]

routes: Routes = Routes("instances")

_LONGEST_WAIT: Final = 300.0
"""Seconds that a request is kept open at most."""

Limit = Annotated[int, Query(ge=1, le=1000)]
Include = Annotated[
    list[Literal["input", "output"]] | None, Query(description="values that may be large")
]


@dataclass
class Search:
    """Which instances, in which order, and how many."""

    selection: Selection = field(default_factory=Selection)
    order_by: OrderBy = OrderBy.NEWEST
    limit: int = 100
    page: str | None = None


@dataclass
class Count:
    """Which instances to count, by which groups."""

    selection: Selection = field(default_factory=Selection)
    group_by: list[str] = field(default_factory=list[str])


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


@dataclass
class NewEvent:
    """An event to send."""

    name: str
    payload: Any = None
    message_id: str | None = None


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


@dataclass
class Drop:
    """Which unread messages to drop, and why."""

    name: str | None = None
    message_ids: list[str] | None = None
    reason: str = ""


def shown(info: InstanceInfo, include: Sequence[str] | None) -> Any:
    """Return an instance without the large values that were not asked for."""
    values = jsonable(info)
    for name in ("input", "output"):
        if name not in (include or ()):
            del values[name]
    return values


@routes.route("POST", "/instances/search", InstancePage)
async def search_instances(
    body: Search, client: CurrentClient, include: Include = None
) -> JSONResponse:
    """Find instances by a selection, a page at a time."""
    page = await client.list_instances(
        body.selection, order_by=body.order_by, limit=body.limit, page=body.page
    )
    items = [shown(info, include) for info in page.items]
    return answer({"items": items, "next_page": page.next_page})


@routes.route("POST", "/instances/count", InstanceCounts)
async def count_instances(body: Count, client: CurrentClient) -> JSONResponse:
    """Count instances by groups: name, version, queue, status, held, or label:KEY."""
    return answer(await client.count_instances(body.selection, group_by=body.group_by))


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
    return answer(await handle.info(), 201)


@routes.route("GET", "/instances/{instance_id}", InstanceInfo)
async def get_instance(
    instance_id: Id, client: CurrentClient, include: Include = None
) -> JSONResponse:
    """Return an instance."""
    return answer(shown(await client.get_instance_info(id_of(instance_id)), include))


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
async def watch_instance(instance_id: Id, client: CurrentClient) -> StreamingResponse:
    """Stream the instance at each change as server-sent events, until it has ended."""
    found = id_of(instance_id)
    await client.get_instance_info(found)  # one that is not there is a problem, and no stream

    async def events() -> AsyncGenerator[bytes]:
        async for info in client.watch(found):
            yield b"data: " + dump_json(shown(info, None)) + b"\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@routes.route("POST", "/instances/{instance_id}/messages/drop", Dropped)
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
