"""The page of an instance, and what its forms do."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from orchestra.client import Client
from orchestra.client.info import InstanceInfo
from orchestra.client.ribbon import cells_of
from orchestra.errors import OrchestraError
from orchestra.registry import OrchestrationRegistry
from orchestra.web.access import CurrentClient, CurrentPrincipal, Operator, Principal
from orchestra.web.dashboard.awaited import awaited_by
from orchestra.web.dashboard.colours import colours
from orchestra.web.dashboard.fields import fields_of
from orchestra.web.dashboard.instance_acts import (
    MEANINGS,
    Done,
    Inputs,
    acts_on,
    perform,
    plain_acts_on,
)
from orchestra.web.dashboard.instance_view import InstanceView, read_instance, why_next
from orchestra.web.dashboard.rendering import Page, base_of, render
from orchestra.web.dashboard.ribbon import ribbon
from orchestra.web.dashboard.timeline import spans_of, timeline
from orchestra.web.paths import Id, id_of

__all__ = ["pages"]

_CELLS: Final = 200
_FORMS: Final = 20

pages: APIRouter = APIRouter(include_in_schema=False)


@pages.get("/instances/{instance_id}")
async def instance(
    instance_id: Id,
    request: Request,
    client: CurrentClient,
    principal: CurrentPrincipal,
    lap: int | None = None,
) -> Response:
    """Show an instance; with ``lap`` the timeline of that lap."""
    return await _shown(request, client, principal, id_of(instance_id), lap=lap)


def inputs_of(request: Request, info: InstanceInfo) -> Inputs:
    """Return the inputs of the events and requests that the code of an instance waits for, where
    this service has the code; the first twenty.
    """
    registry: OrchestrationRegistry | None = request.app.state.registry
    code = None if registry is None else registry.find(info.name, info.version)
    if code is None or info.status.is_final:
        return {}
    awaited = islice(awaited_by(code.function).items(), _FORMS)
    return {key: fields_of(schema) for key, schema in awaited}


@pages.post("/instances/{instance_id}/act")
async def act(
    instance_id: Id,
    request: Request,
    client: CurrentClient,
    principal: CurrentPrincipal,
    by: Operator,
) -> Response:
    """Do what a form says to an instance, and show it again."""
    form = {key: str(value) for key, value in (await request.form()).items()}
    known = id_of(instance_id)
    try:
        inputs: Inputs = {}
        if form.get("act") in {"event", "request"}:
            inputs = inputs_of(request, await client.get_instance_info(known))
        done = await perform(client, known, form, by, inputs)
    except OrchestraError as error:
        return await _shown(request, client, principal, known, error=error, form=form)
    if done.answer is not None:
        return await _shown(request, client, principal, known, done=done, form=form)
    page = "instances" if done.is_gone else f"instances/{quote(done.instance_id, safe='')}"
    return RedirectResponse(f"{base_of(request)}/{page}?said={done.said}", 303)


async def _shown(
    request: Request,
    client: Client,
    principal: Principal,
    instance_id: str,
    *,
    lap: int | None = None,
    error: OrchestraError | None = None,
    done: Done | None = None,
    form: dict[str, str] | None = None,
) -> Response:
    at = await client.now()
    try:
        view = await read_instance(client, instance_id, lap)
    except OrchestraError as missing:
        return render(request, principal, Page("problem.html", at, error=missing))
    info = view.info
    cells = cells_of(view.laps, at, _CELLS)
    of_version = colours([*(cell.version for cell in cells), *(one.version for one in view.older)])
    path = f"{base_of(request)}/instances/{quote(instance_id, safe='')}"
    tries = {one.name: one.attempt for one in info.pending_activities}
    is_current = view.lap is not None and view.lap.execution_id == info.execution_id
    spans = spans_of(view.events, tries if is_current else {})
    return render(
        request,
        principal,
        Page(
            "instance.html",
            at,
            values={
                "view": view,
                "info": info,
                "path": path,
                "is_current": is_current,
                "why": why_next(info),
                "acts": acts_on(info),
                "plain": plain_acts_on(info),
                "meanings": MEANINGS,
                "colours": of_version,
                "ribbon": ribbon(
                    cells,
                    of_version,
                    older=view.older,
                    is_held=info.hold is not None,
                    paused=view.paused,
                    link=f"{path}?lap=",
                ),
                "spans": spans,
                "timeline": timeline(spans, at),
                "trace": trace_link(request, view),
                "done": done,
                "form": form or {},
                "inputs": [(*key, fields) for key, fields in inputs_of(request, info).items()],
            },
            data={
                "instance": info,
                "laps": view.laps,
                "events": view.events,
                "boundaries": view.boundaries,
                "messages": view.messages,
                "streams": view.streams,
            },
            topics=(f"instance:{instance_id}",),
            error=error,
        ),
    )


_PLACE: Final = re.compile(r"\{(\w+)\}")


def trace_link(request: Request, view: InstanceView) -> str | None:
    """Return the address of the shown lap's trace: the application's template, filled in."""
    template: str | None = getattr(request.app.state, "trace_url", None)
    lap = view.lap
    if template is None or lap is None:
        return None
    began, ended = lap.started_at, lap.ended_at
    values: dict[str, Any] = {
        "instance_id": lap.instance_id,
        "execution_id": lap.execution_id,
        "name": lap.name,
        "version": lap.version,
        "from_ms": "" if began is None else int(began.timestamp() * 1000),
        "to_ms": "now" if ended is None else int(ended.timestamp() * 1000) + 1,
    }
    return _PLACE.sub(lambda found: quote(str(values.get(found[1], found[0])), safe=""), template)
