"""The pages of schedules: what starts by the clock, and how it does."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from orchestra.client import Client
from orchestra.errors import OrchestraError
from orchestra.schedules import Start
from orchestra.web.access import CurrentClient, Operator
from orchestra.web.dashboard.rendering import render
from orchestra.web.paths import Id, id_of

__all__ = ["pages"]

pages: APIRouter = APIRouter(include_in_schema=False)


@pages.get("/schedules")
async def schedules(request: Request, client: CurrentClient) -> Response:
    """List schedules."""
    page = await client.schedules.list(limit=50, page=request.query_params.get("page") or None)
    return render(request, "schedules.html", page=page)


@pages.get("/schedules/{schedule_id}")
async def schedule(schedule_id: Id, request: Request, client: CurrentClient) -> Response:
    """Show a schedule."""
    return await _schedule(request, client, id_of(schedule_id))


async def _schedule(
    request: Request, client: Client, schedule_id: str, error: OrchestraError | None = None
) -> Response:
    try:
        one = await client.schedules.get(schedule_id)
    except OrchestraError as missing:
        return render(request, "problem.html", 404, error=missing)
    starts = isinstance(one.schedule.action, Start)
    status = 200 if error is None else 409
    return render(request, "schedule.html", status, one=one, starts=starts, error=error)


@pages.post("/schedules/{schedule_id}/act")
async def act(schedule_id: Id, request: Request, client: CurrentClient, by: Operator) -> Response:
    """Do what a form says to a schedule, and show it again."""
    form = await request.form()
    known, reason = id_of(schedule_id), str(form.get("reason", ""))
    try:
        match form.get("act"):
            case "pause":
                await client.schedules.pause(known, reason, by=by)
            case "resume":
                catch_up = form.get("catch_up") == "yes"
                await client.schedules.resume(known, catch_up=catch_up, reason=reason, by=by)
            case "trigger":
                await client.schedules.trigger(known, reason=reason, by=by)
            case other:
                raise HTTPException(422, f"{other!r} is nothing to do")
    except OrchestraError as error:
        return await _schedule(request, client, known, error)
    base: str = request.scope.get("root_path", "")
    return RedirectResponse(f"{base}/schedules/{quote(known, safe='')}", 303)
