"""The audit: what operators did."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from orchestra.errors import OrchestraError
from orchestra.web.access import CurrentClient, CurrentPrincipal
from orchestra.web.dashboard.rendering import Page, render

__all__ = ["pages"]

_PAGE: Final = 50

pages: APIRouter = APIRouter(include_in_schema=False)


@pages.get("/audit")
async def audit(request: Request, client: CurrentClient, principal: CurrentPrincipal) -> Response:
    """Show what operators did, the newest first."""
    query, at = request.query_params, await client.now()
    try:
        found = await client.list_operations(
            subject=query.get("subject") or None,
            action=query.get("action") or None,
            by=query.get("by") or None,
            limit=_PAGE,
            page=query.get("page") or None,
        )
    except OrchestraError as error:
        return render(request, principal, Page("problem.html", at, error=error))
    data = {"operations": found.items, "next_page": found.next_page}
    return render(request, principal, Page("audit.html", at, {"page": found}, data, ("audit",)))
