"""Boundaries: which are due, which are overdue, and how to ask for them."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from orchestra.client.selections import OrderBy, Selection
from orchestra.web.access import CurrentClient, CurrentPrincipal
from orchestra.web.dashboard.rendering import Page, render

__all__ = ["pages"]

_PAGE: Final = 50

pages: APIRouter = APIRouter(include_in_schema=False)


@pages.get("/boundaries")
async def boundaries(
    request: Request, client: CurrentClient, principal: CurrentPrincipal
) -> Response:
    """Show what is due and overdue."""
    summary = await client.summarize_store()
    overdue = await client.list_instances(
        Selection(overdue=True),
        order_by=OrderBy.OLDEST,
        limit=_PAGE,
        page=request.query_params.get("page") or None,
    )
    due = sorted(
        (one for one in summary.versions if one.latest_boundary_due is not None),
        key=lambda one: str(one.latest_boundary_due),
    )
    return render(
        request,
        principal,
        Page(
            "boundaries.html",
            summary.at,
            {"due": summary.boundaries, "page": overdue, "versions": due},
            {"due": summary.boundaries, "overdue": overdue.items, "versions": due},
            ("overview", "list:overdue=1"),
        ),
    )
