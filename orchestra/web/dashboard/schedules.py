"""The pages of schedules: what starts by the clock, and how it does."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from orchestra.client import Client
from orchestra.client.schedules import BackfillReport
from orchestra.errors import InvalidArgument, OrchestraError
from orchestra.schedules import Start
from orchestra.web.access import CurrentClient, CurrentPrincipal, Operator, Principal
from orchestra.web.dashboard.instance_acts import moment_of
from orchestra.web.dashboard.rendering import Page, base_of, render
from orchestra.web.dashboard.slots import strip
from orchestra.web.paths import Id, id_of

__all__ = ["pages"]

pages: APIRouter = APIRouter(include_in_schema=False)


@pages.get("/schedules")
async def schedules(
    request: Request, client: CurrentClient, principal: CurrentPrincipal
) -> Response:
    """List schedules."""
    at = await client.now()
    try:
        page = await client.schedules.list(limit=50, page=request.query_params.get("page") or None)
    except OrchestraError as error:
        return render(request, principal, Page("problem.html", at, error=error))
    shown = Page("schedules.html", at, {"page": page}, {"schedules": page.items}, ("schedules",))
    return render(request, principal, shown)


@pages.get("/schedules/{schedule_id}")
async def schedule(
    schedule_id: Id, request: Request, client: CurrentClient, principal: CurrentPrincipal
) -> Response:
    """Show a schedule."""
    return await _shown(request, client, principal, id_of(schedule_id))


@pages.post("/schedules/{schedule_id}/act")
async def act(
    schedule_id: Id,
    request: Request,
    client: CurrentClient,
    principal: CurrentPrincipal,
    by: Operator,
) -> Response:
    """Do what a form says to a schedule, and show it again."""
    form = {key: str(value) for key, value in (await request.form()).items()}
    known = id_of(schedule_id)
    try:
        report = await _perform(client, known, form, by)
    except OrchestraError as error:
        return await _shown(request, client, principal, known, error=error, form=form)
    if report is not None:
        return await _shown(request, client, principal, known, report=report, form=form)
    path = f"{base_of(request)}/schedules/{quote(known, safe='')}"
    return RedirectResponse(f"{path}?said={form['act']}", 303)


async def _perform(
    client: Client, known: str, form: dict[str, str], by: str
) -> BackfillReport | None:
    reason = form.get("reason", "")
    match form.get("act"):
        case "pause":
            until = moment_of(form.get("until", ""), "until")
            await client.schedules.pause(known, reason, until, by=by)
        case "resume":
            catch_up = form.get("catch_up") == "yes"
            await client.schedules.resume(known, catch_up=catch_up, reason=reason, by=by)
        case "trigger":
            await client.schedules.trigger(known, reason=reason, by=by)
        case "backfill":
            return await client.schedules.backfill(
                known,
                _required(form, "start"),
                _required(form, "end"),
                dry_run=form.get("do") != "yes",
                reason=reason,
                by=by,
            )
        case other:
            raise InvalidArgument(f"{other!r} is nothing to do with a schedule")
    return None


def _required(form: dict[str, str], name: str) -> datetime:
    moment = moment_of(form.get(name, ""), name)
    if moment is None:
        raise InvalidArgument(f"{name} is missing: say from when to when the slots run")
    return moment


async def _shown(
    request: Request,
    client: Client,
    principal: Principal,
    schedule_id: str,
    *,
    error: OrchestraError | None = None,
    report: BackfillReport | None = None,
    form: dict[str, str] | None = None,
) -> Response:
    at = await client.now()
    try:
        one = await client.schedules.get(schedule_id)
        following = await client.schedules.preview(schedule_id, 10)
    except OrchestraError as missing:
        return render(request, principal, Page("problem.html", at, error=missing))
    ahead = () if one.verdict == "paused" else following
    values: dict[str, Any] = {
        "one": one,
        "following": following,
        "starts": isinstance(one.schedule.action, Start),
        "strip": strip(one.last_slots[:20], ahead, at),
        "report": report,
        "form": form or {},
    }
    return render(
        request,
        principal,
        Page(
            "schedule.html",
            at,
            values,
            {"schedule": one, "next_slots": following},
            (f"schedule:{schedule_id}",),
            error,
        ),
    )
