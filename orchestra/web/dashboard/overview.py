"""The overview: what goes on in the store, in numbers that the store keeps."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from orchestra.web.access import CurrentClient, CurrentPrincipal
from orchestra.web.dashboard.bars import bars, name_bars
from orchestra.web.dashboard.colours import colours
from orchestra.web.dashboard.rates import rates_of
from orchestra.web.dashboard.rendering import Page, render

__all__ = ["pages"]

pages: APIRouter = APIRouter(include_in_schema=False)


@pages.get("/")
async def overview(
    request: Request, client: CurrentClient, principal: CurrentPrincipal
) -> Response:
    """Show what lives on which version, what is held, what is due, and who works."""
    summary = await client.summarize_store()
    nodes = await client.list_nodes()
    acts = await client.list_operations(limit=8)
    names = name_bars(summary.versions)
    of_version = colours(version for bar in names for version in bar.counts)
    open_versions = [one for one in summary.versions if one.oldest_execution_at is not None]
    oldest = sorted(open_versions, key=lambda one: (one.oldest_execution_at, one.name))[:8]  # pyright: ignore[reportArgumentType] - None is left out above
    return render(
        request,
        principal,
        Page(
            "overview.html",
            summary.at,
            values={
                "summary": summary,
                "names": names,
                "bars": bars(names, of_version),
                "colours": of_version,
                "nodes": nodes,
                "alive": [node for node in nodes if node.alive],
                "acts": acts.items,
                "oldest": oldest,
                "rate": rates_of(request).after(summary),
                "failed_today": sum(one.failed_recently for one in summary.versions),
            },
            data={
                "summary": summary,
                "live": names,
                "oldest": oldest,
                "nodes": nodes,
                "operations": acts.items,
            },
            topics=("overview",),
        ),
    )
