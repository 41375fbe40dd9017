"""The nodes that work on the store."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from orchestra.web.access import CurrentClient, CurrentPrincipal
from orchestra.web.dashboard.rendering import Page, render

__all__ = ["pages"]

pages: APIRouter = APIRouter(include_in_schema=False)


@pages.get("/nodes")
async def nodes(request: Request, client: CurrentClient, principal: CurrentPrincipal) -> Response:
    """Show who works on the store, with what."""
    found, at = await client.list_nodes(), await client.now()
    page = Page("nodes.html", at, {"nodes": found}, {"nodes": found}, ("nodes",))
    return render(request, principal, page)
