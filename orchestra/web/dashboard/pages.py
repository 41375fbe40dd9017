"""The pages and what their forms do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from orchestra.client import Client
from orchestra.client.info import InstanceInfo, InstanceStatus
from orchestra.client.ribbon import cells_of
from orchestra.client.selections import OrderBy
from orchestra.errors import OrchestraError
from orchestra.operations.bulk import Bulk
from orchestra.store.kinds import HoldKind
from orchestra.web.access import CurrentClient, Operator
from orchestra.web.dashboard import pictures
from orchestra.web.dashboard.filters import FIELDS, selection_of
from orchestra.web.dashboard.rendering import now, render
from orchestra.web.dashboard.views import read_instance, read_overview
from orchestra.web.paths import Id, id_of

__all__ = ["pages"]

_PAGE: Final = 50
_TABS: Final = ("", *(status.value for status in InstanceStatus if status.value != "unknown"))
_ACTS: Final = (
    "hold",
    "release",
    "nudge",
    "cancel",
    "terminate",
    "pin",
    "unpin",
    "rewind",
    "delete",
)
_BULK: Final = ("hold", "release", "nudge", "cancel", "terminate", "unpin", "delete")

pages: APIRouter = APIRouter(include_in_schema=False)


@pages.get("/")
async def overview(request: Request, client: CurrentClient) -> Response:
    """Show what goes on: versions, what is held, what is due, nodes."""
    view = await read_overview(client, now())
    of_version = pictures.colours(version for _, counts in view.live for version in counts)
    return render(
        request,
        "overview.html",
        view=view,
        colours=of_version,
        bars=pictures.bars(view.live, of_version),
    )


@pages.get("/instances")
async def instances(request: Request, client: CurrentClient) -> Response:
    """List instances: the URL is the filter."""
    query = request.query_params
    try:
        selection = selection_of(query)
        order = query.get("order_by") or OrderBy.NEWEST.value
        page = await client.list_instances(
            selection, order_by=order, limit=_PAGE, page=query.get("page") or None
        )
        of_others = selection_of({**query, "status": ""})
        counts = await client.count_instances(of_others, group_by=("status",))
    except OrchestraError as error:
        return render(request, "problem.html", 422, error=error)
    return render(
        request,
        "instances.html",
        page=page,
        tabs=[(tab, counts.total if not tab else _count(counts.groups, tab)) for tab in _TABS],
        fields=FIELDS,
        orders=[one.value for one in OrderBy],
        kinds=[kind.value for kind in HoldKind],
        acts=_BULK,
        report=None,
    )


def _count(groups: Any, status: str) -> int:
    return sum(group.count for group in groups if group.values["status"] == status)


@pages.get("/instances/{instance_id}")
async def instance(instance_id: Id, request: Request, client: CurrentClient) -> Response:
    """Show an instance."""
    return await _instance(request, client, id_of(instance_id))


async def _instance(
    request: Request, client: Client, instance_id: str, error: OrchestraError | None = None
) -> Response:
    try:
        view = await read_instance(client, instance_id)
    except OrchestraError as missing:
        return render(request, "problem.html", 404, error=missing)
    at = now()
    cells = cells_of(view.laps, at, 200)
    of_version = pictures.colours(cell.version for cell in cells)
    return render(
        request,
        "instance.html",
        200 if error is None else 409,
        view=view,
        info=view.info,
        acts=_acts_on(view.info),
        colours=of_version,
        ribbon=pictures.ribbon(cells, of_version),
        timeline=pictures.timeline(pictures.spans_of(view.events), at),
        error=error,
    )


def _acts_on(info: InstanceInfo) -> tuple[str, ...]:
    if info.status.is_final:
        return ("rewind", "delete")
    return tuple(act for act in _ACTS if act != "delete")


@pages.post("/instances/{instance_id}/act")
async def act(instance_id: Id, request: Request, client: CurrentClient, by: Operator) -> Response:
    """Do what a form says to an instance, and show it again."""
    form = await request.form()
    chosen, reason = str(form.get("act", "")), str(form.get("reason", ""))
    known = id_of(instance_id)
    base: str = request.scope.get("root_path", "")
    if chosen not in _ACTS:
        raise HTTPException(422, f"{chosen!r} is nothing to do")
    try:
        await _DO[chosen](client, known, reason, by, {key: str(form[key]) for key in form})
    except OrchestraError as error:
        return await _instance(request, client, known, error)
    after = "/instances" if chosen == "delete" else f"/instances/{quote(known, safe='')}"
    return RedirectResponse(base + after, 303)


_Do = Callable[[Client, str, str, str, dict[str, str]], Awaitable[Any]]


async def _pin(client: Client, one: str, reason: str, by: str, form: dict[str, str]) -> None:
    await client.pin(one, form.get("version", ""), reason=reason, by=by)


async def _rewind(client: Client, one: str, reason: str, by: str, form: dict[str, str]) -> None:
    number = form.get("execution", "")
    if not number.isdecimal():
        raise HTTPException(422, "say which lap begins again")
    await client.rewind(one, int(number), form.get("version") or None, reason=reason, by=by)


_DO: Final[dict[str, _Do]] = {
    "cancel": lambda client, one, reason, by, _: client.cancel(one, reason, by=by),
    "terminate": lambda client, one, reason, by, _: client.terminate(one, reason, by=by),
    "hold": lambda client, one, reason, by, _: client.hold(one, reason=reason, by=by),
    "release": lambda client, one, reason, by, _: client.release(one, reason=reason, by=by),
    "nudge": lambda client, one, reason, by, _: client.nudge(one, reason=reason, by=by),
    "unpin": lambda client, one, reason, by, _: client.unpin(one, reason=reason, by=by),
    "delete": lambda client, one, reason, by, _: client.delete(one, reason=reason, by=by),
    "pin": _pin,
    "rewind": _rewind,
}


@pages.post("/instances")
async def act_on_many(request: Request, client: CurrentClient, by: Operator) -> Response:
    """Do what a form says to the selection of the URL: first only say what that would be."""
    form = await request.form()
    chosen = str(form.get("act", ""))
    if chosen not in _BULK:
        raise HTTPException(422, f"{chosen!r} is nothing to do")
    try:
        report = await client.bulk(
            Bulk(chosen),
            selection_of(request.query_params),
            dry_run=form.get("do") != "yes",
            reason=str(form.get("reason", "")),
            by=by,
        )
    except OrchestraError as error:
        return render(request, "problem.html", 422, error=error)
    return render(request, "bulk.html", report=report, reason=str(form.get("reason", "")))


@pages.get("/versions")
async def versions(request: Request, client: CurrentClient) -> Response:
    """Show a lane for each version: who needs it, who has it, and what keeps it."""
    report = await client.version_report()
    names = list(dict.fromkeys(version.name for version in report))
    return render(
        request,
        "versions.html",
        report=report,
        colours=pictures.colours(version.version for version in report),
        policies=[await client.get_version_policy(name) for name in names[:100]],
        nodes=await client.list_nodes(),
    )


@pages.get("/nodes")
async def nodes(request: Request, client: CurrentClient) -> Response:
    """Show the nodes, and what operators did."""
    return render(
        request,
        "nodes.html",
        nodes=await client.list_nodes(),
        operations=await client.list_operations(
            limit=_PAGE, page=request.query_params.get("page") or None
        ),
    )
