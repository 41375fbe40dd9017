"""The web application: the runtime lives in its lifespan, and HTTP is a thin layer over its
client.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, TypedDict

from failures import answer_failure
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from settings import Settings
from views import ConfigEvent, Event, ExecutionView, InstanceView, PageView, Start
from watches import NAME, Watch, build_registry, probe

from orchestra import (
    Client,
    ExecutionInfo,
    InstanceInfo,
    InstancePage,
    InstanceStatus,
    OrchestraError,
    Runtime,
    SqliteProvider,
    StreamTruncated,
)
from orchestra.web import create_app as create_dashboard


class State(TypedDict):
    """The state that every request can reach."""

    client: Client


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application. Also for ``uvicorn --factory app:create_app``, with settings from the
    environment.
    """
    chosen = settings or Settings.from_environment()

    registry = build_registry(chosen.versions)
    runtime = Runtime(
        SqliteProvider(chosen.database),
        registry,
        activities=[probe],
        grace=timedelta(seconds=5),
        inbox_limit=chosen.inbox_limit,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[State]:
        # Leaving it stops in order: activities get their grace, ownership is released.
        async with runtime:
            yield {"client": runtime.client}

    app = FastAPI(title="Watches", lifespan=lifespan)
    app.include_router(router)
    app.add_api_route("/health", health)
    app.add_exception_handler(OrchestraError, answer_failure)
    # The dashboard and the HTTP API. Without auth= they answer this machine alone.
    app.mount("/orchestra", create_dashboard(runtime.client, registry=registry))
    return app


def client_of(request: Request) -> Client:
    """Return the client of the runtime that the lifespan has entered."""
    return request.state.client


Orchestrations = Annotated[Client, Depends(client_of)]
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]
"""A caller without an answer repeats the request with the same key; nothing happens twice."""
Limit = Annotated[int, Query(ge=1, le=500)]

router = APIRouter(prefix="/api/orchestrations")


@router.post("", status_code=201, response_model=InstanceView)
async def start(
    body: Start, client: Orchestrations, response: Response, key: Key = None
) -> InstanceInfo:
    """Start a watch. Once this has answered, the watch goes on over crashes and deploys until it is
    stopped.
    """
    handle = await client.start(
        NAME,
        Watch(body.url, body.pause_seconds),
        instance_id=body.instance_id,
        version=body.version,
        labels=body.labels,
        request_id=key,
    )
    response.headers["Location"] = f"{router.prefix}/{handle.instance_id}"
    return await handle.info()


@router.get("", response_model=PageView)
async def list_instances(
    client: Orchestrations,
    status: Annotated[list[InstanceStatus] | None, Query()] = None,
    version: str | None = None,
    prefix: str | None = None,
    limit: Limit = 50,
    page: str | None = None,
) -> InstancePage:
    """List instances, the newest first; ``prefix`` is the beginning of their ids."""
    return await client.list_instances(
        name=NAME, status=status, version=version, id_prefix=prefix, limit=limit, page=page
    )


@router.get("/{instance_id}", response_model=InstanceView)
async def get_instance(instance_id: str, client: Orchestrations) -> InstanceInfo:
    """Show an instance: its version, the version that it would take next, its status, and what it
    waits for.
    """
    return await client.get_instance_info(instance_id)


@router.get("/{instance_id}/executions", response_model=list[ExecutionView])
async def list_executions(
    instance_id: str,
    client: Orchestrations,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Limit = 50,
) -> tuple[ExecutionInfo, ...]:
    """List the laps of an instance in ascending order, beginning behind number ``after``."""
    return await client.list_executions(instance_id, after=after, limit=limit)


@router.get("/{instance_id}/streams/{name}")
async def follow(
    instance_id: str,
    name: str,
    client: Orchestrations,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    last: Annotated[int | None, Header(alias="Last-Event-ID", ge=0, le=2**53)] = None,
) -> StreamingResponse:
    """Send what an instance publishes, as server-sent events, until it has ended.

    The id of an event is its offset. A browser that was cut off sends the last one back, and misses
    nothing.
    """
    await client.get_instance_info(instance_id)  # answers 404 while there is still a status to send
    events = events_of(client, instance_id, name, after if last is None else last)
    return StreamingResponse(events, media_type="text/event-stream")


async def events_of(client: Client, instance_id: str, name: str, after: int) -> AsyncGenerator[str]:
    """Yield the items of a stream as server-sent events."""
    while True:
        try:
            async for item in client.read_stream(instance_id, name, after=after):
                after = item.offset
                yield f"id: {after}\ndata: {json.dumps(item.value)}\n\n"
        except StreamTruncated as cut:  # retention was faster than this reader
            after = cut.first_offset - 1
            yield f"event: truncated\ndata: {cut.first_offset}\n\n"
        else:
            return


@router.post("/{instance_id}/events", status_code=202, response_class=Response)
async def raise_event(
    instance_id: str, body: Event, client: Orchestrations, key: Key = None
) -> None:
    """Send an instance an event. It is stored when this has answered, and read when the loop waits
    for it.
    """
    payload = body.payload if isinstance(body, ConfigEvent) else None
    await client.raise_event(instance_id, body.name, payload, message_id=key)


@router.post("/{instance_id}/cancel", status_code=202, response_class=Response)
async def cancel(instance_id: str, client: Orchestrations, reason: str = "") -> None:
    """Ask an instance to stop where it is."""
    await client.cancel(instance_id, reason)


@router.delete("/{instance_id}", status_code=204)
async def delete(instance_id: str, client: Orchestrations) -> None:
    """Delete an instance that has ended."""
    await client.delete(instance_id)


async def health(client: Orchestrations) -> dict[str, str]:
    """Answer 200 if the store answers and the runtime runs, otherwise 503. A supervisor may then
    restart this process.
    """
    await client.list_instances(name=NAME, limit=1)
    return {"status": "ok"}
