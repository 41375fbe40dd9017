"""The web side: a FastAPI process that runs no loop. It starts, signals and shows what the workers
run.

    DSN=postgresql://app@db.example.com/app PORT=8000 python examples/postgres_workers/web.py

    curl -X POST localhost:8000/watches/watch-1 -H 'Content-Type: application/json' -d '{"url":
    "http://example.com"}' curl localhost:8000/watches/watch-1 curl -X POST
    localhost:8000/watches/watch-1/events/check curl localhost:8000/nodes

It may be restarted at any time, and there may be several: nothing lives in it. Needs
`pip install 'orchestra-runtime[postgres]' fastapi uvicorn httpx`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, NoReturn, TypedDict

import uvicorn
from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from watches import NAME, Watch, store

from orchestra import (
    Client,
    InstanceExists,
    InstanceInfo,
    InstanceNotFound,
    InstanceStatus,
    OrchestraError,
    UnknownOrchestration,
)
from orchestra.errors import InboxFull, InstanceCompleted, StoreError

STATUSES: dict[type[Exception], int] = {
    InstanceNotFound: 404,
    InstanceExists: 409,
    InstanceCompleted: 410,
    InboxFull: 429,
    UnknownOrchestration: 503,  # no worker has ever run
    StoreError: 503,
    OrchestraError: 500,
}


class State(TypedDict):
    """The state that every request can reach."""

    client: Client


class Start(BaseModel):
    """Start watching a URL."""

    url: Annotated[str, Field(pattern=r"^https?://[^/]", max_length=2000)]
    pause_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0


class InstanceView(BaseModel):
    """An instance, as :class:`orchestra.InstanceInfo` has it: its version, and the node that works
    on it now.
    """

    model_config = ConfigDict(from_attributes=True)

    instance_id: str
    version: str
    status: InstanceStatus
    held_reason: str | None
    execution_id: int
    owner: str | None
    custom_status: Any
    output: Any
    next_wake_at: datetime | None


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[State]:
    """Connect to the store; no runtime is started."""
    async with Client(store()) as client:
        yield {"client": client}


def client_of(request: Request) -> Client:
    """Return the client that the lifespan has opened."""
    return request.state.client


Orchestrations = Annotated[Client, Depends(client_of)]
InstanceId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,100}$")]

app = FastAPI(title="Watches on PostgreSQL", lifespan=lifespan)


@app.exception_handler(OrchestraError)
async def answer_failure(_request: Request, error: Exception) -> JSONResponse:
    """Answer with the status of the nearest class; internals are not shown outside."""
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    detail = "try again later" if status >= 500 else str(error)
    headers = {"Retry-After": "1"} if status in {429, 503} else None
    return JSONResponse({"error": type(error).__name__, "detail": detail}, status, headers)


@app.post("/watches/{instance_id}", status_code=201, response_model=InstanceView)
async def start(instance_id: InstanceId, body: Start, client: Orchestrations) -> InstanceInfo:
    """Start a watch. Once this has answered, the workers keep it going until it is stopped."""
    handle = await client.start(NAME, Watch(body.url, body.pause_seconds), instance_id=instance_id)
    return await handle.info()


@app.get("/watches/{instance_id}", response_model=InstanceView)
async def show(instance_id: InstanceId, client: Orchestrations) -> InstanceInfo:
    """Show a watch: its version, its lap, and the node that works on it now, if any does."""
    return await client.get_instance_info(instance_id)


@app.post("/watches/{instance_id}/events/{name}", status_code=202)
async def send(
    instance_id: InstanceId, name: Literal["check", "stop"], client: Orchestrations
) -> None:
    """Send a watch an event. It is stored when this has answered."""
    await client.raise_event(instance_id, name)


@app.get("/nodes")
async def nodes(client: Orchestrations) -> list[dict[str, Any]]:
    """List the workers: host, process, versions, heartbeat, and how many watches each works on
    now.
    """
    return [asdict(node) for node in await client.list_nodes()]


def leave(*_: Any) -> NoReturn:
    """End the process with 0."""
    sys.exit(0)


if __name__ == "__main__":
    # uvicorn stops in order and then raises the signal again. An ordered stop must end with 0, not
    # with "killed by SIGTERM".
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    uvicorn.run(
        app,
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("PORT", "8000")),
        lifespan="on",
    )
