"""The list of instances, and acts on all that the filter finds."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from orchestra.client import Client
from orchestra.client.info import InstanceStatus
from orchestra.client.selections import OrderBy, Selection
from orchestra.client.summaries import SEARCHED
from orchestra.errors import OrchestraError
from orchestra.operations.bulk import Bulk
from orchestra.store.kinds import HoldKind
from orchestra.web.access import CurrentClient, CurrentPrincipal, Operator
from orchestra.web.dashboard.filters import LIVE, chosen_of, query_of, selection_of
from orchestra.web.dashboard.rendering import Page, render

__all__ = ["pages"]

_PAGE: Final = 50
_TABS: Final = (
    "",
    "live",
    *(status.value for status in InstanceStatus if status is not InstanceStatus.UNKNOWN),
)
_LIVE: Final = frozenset(status.value for status in LIVE)
_QUICK: Final = frozenset({"name", "version", "queue", "status"})
"""Conditions under which the numbers that the store keeps count by status."""
_ACTS: Final = tuple(act.value for act in Bulk)

pages: APIRouter = APIRouter(include_in_schema=False)


@pages.get("/instances")
async def instances(
    request: Request, client: CurrentClient, principal: CurrentPrincipal
) -> Response:
    """List instances: the URL is the filter."""
    query = request.query_params
    at = await client.now()
    try:
        order = query.get("order_by") or OrderBy.NEWEST.value
        page = await client.list_instances(
            selection_of(query),
            order_by=order,
            limit=_PAGE,
            page=query.get("page") or None,
            search_limit=SEARCHED,
        )
        counts = await _counts(client, chosen_of(query))
    except OrchestraError as error:
        return render(request, principal, Page("problem.html", at, error=error))
    return render(
        request,
        principal,
        Page(
            "instances.html",
            at,
            values={
                "page": page,
                "tabs": [(tab, counts.get(tab)) for tab in _TABS],
                "chosen": {
                    key: value for key, value in chosen_of(query).items() if key != "status"
                },
                "orders": [one.value for one in OrderBy],
                "kinds": [kind.value for kind in HoldKind],
                "acts": _ACTS,
            },
            data={"instances": page.items, "next_page": page.next_page, "counts": counts},
            topics=(f"list:{query_of(query, page=query.get('page'))}",),
        ),
    )


async def _counts(client: Client, chosen: dict[str, str]) -> dict[str, int]:
    """Return the numbers of the tabs that cost a bounded effort: those that the store keeps, if
    the filter needs no others.
    """
    if not chosen.keys() <= {"status"}:
        return {}
    summary = await client.summarize_store()
    return {
        "": summary.total,
        "live": summary.live,
        "held": summary.held,
        **{status: count for status, count in summary.ended.items() if status in _TABS},
    }


@pages.get("/counts")
async def counts(request: Request, client: CurrentClient, principal: CurrentPrincipal) -> Response:
    """Count the instances of a filter by their status, among the newest 100,000 where no index
    finds them: the page asks for it once it is shown.
    """
    at = await client.now()
    try:
        asked = selection_of({**request.query_params, "status": ""})
        counts = await client.count_instances(asked, group_by=("status",), search_limit=SEARCHED)
    except OrchestraError as error:
        return render(request, principal, Page("problem.html", at, error=error))
    found = dict.fromkeys((tab or "all" for tab in _TABS), 0)
    for group in counts.groups:
        status = str(group.values["status"])
        found[status] = group.count
        if status in _LIVE:
            found["live"] += group.count
    found["all"] = counts.total
    values = {"found": found, "searched": counts.searched}
    return render(
        request,
        principal,
        Page("counts.html", at, values, {"counts": found, "searched": counts.searched}),
    )


@pages.post("/instances")
async def act_on_many(
    request: Request, client: CurrentClient, principal: CurrentPrincipal, by: Operator
) -> Response:
    """Do what a form says to the selection of the URL: first only say what that would be."""
    form = {key: str(value) for key, value in (await request.form()).items()}
    chosen, at = form.get("act", ""), await client.now()
    if chosen not in _ACTS:
        raise HTTPException(422, f"{chosen!r} is nothing to do")
    try:
        report = await client.bulk(
            Bulk(chosen),
            _meant(request),
            dry_run=form.get("do") != "yes",
            reason=form.get("reason", ""),
            by=by,
            version=form.get("version") or None,
            request_id=form.get("request_id") or None,
        )
    except OrchestraError as error:
        return render(request, principal, Page("problem.html", at, error=error))
    values = {"report": report, "form": form, "chosen": chosen_of(request.query_params)}
    return render(request, principal, Page("bulk.html", at, values, {"report": report}))


def _meant(request: Request) -> Selection:
    return selection_of(request.query_params)
