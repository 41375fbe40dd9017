"""The store: its nodes, what operators did to it, and whether it answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import JSONResponse

from orchestra.client import Client
from orchestra.client.audit import OperationPage
from orchestra.client.info import NodeInfo
from orchestra.client.summaries import StoreSummary
from orchestra.web.access import CurrentClient
from orchestra.web.answers import Routes, answer
from orchestra.web.cursors import cursor_of, page_of

__all__ = ["health", "routes"]

routes: Routes = Routes("store")
health: Routes = Routes("health", is_open=True)


@dataclass
class Health:
    """Whether the service answers, and the store behind it."""

    status: str
    nodes: int | None = None


@routes.route("GET", "/nodes", tuple[NodeInfo, ...])
async def list_nodes(client: CurrentClient) -> JSONResponse:
    """Return the nodes that work on the store."""
    return answer(await client.list_nodes())


@routes.route("GET", "/summary", StoreSummary)
async def summarize_store(client: CurrentClient) -> JSONResponse:
    """Return what the store holds, in numbers. The cost does not grow with what waits."""
    return answer(await client.summarize_store())


@routes.route("GET", "/operations", OperationPage)
async def list_operations(
    client: CurrentClient,
    subject: str | None = None,
    action: str | None = None,
    by: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    page: str | None = None,
) -> JSONResponse:
    """Return what operators did, the newest first."""
    found = await client.list_operations(
        subject=subject, action=action, by=by, limit=limit, page=page_of(page)
    )
    return answer(replace(found, next_page=cursor_of(found.next_page)))


@health.route("GET", "/live", Health)
async def live() -> JSONResponse:
    """Say that the process answers."""
    return answer(Health("live"))


@health.route("GET", "/ready", Health)
async def ready(request: Request) -> JSONResponse:
    """Say that the store answers, and how many nodes live."""
    client: Client = request.app.state.client
    nodes = [node for node in await client.list_nodes() if node.alive]
    return answer(Health("ready", len(nodes)))
