"""Versions: which is taken, which drain, who has them, and which may be retired."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from orchestra.client import Client
from orchestra.errors import InvalidArgument, OrchestraError
from orchestra.versions import UnknownPolicy, policy_from_text
from orchestra.web.access import CurrentClient, CurrentPrincipal, Operator, Principal
from orchestra.web.dashboard.colours import colours
from orchestra.web.dashboard.lanes import lane_of, lanes
from orchestra.web.dashboard.rendering import Page, base_of, render

__all__ = ["pages"]

_NAMES: Final = 50
"""How many names have their policies shown at once."""
_HISTORY: Final = 10

pages: APIRouter = APIRouter(include_in_schema=False)


@pages.get("/versions")
async def versions(
    request: Request, client: CurrentClient, principal: CurrentPrincipal
) -> Response:
    """Show a lane for each version, and what keeps it."""
    return await _versions(request, client, principal)


async def _versions(
    request: Request, client: Client, principal: Principal, error: OrchestraError | None = None
) -> Response:
    at = await client.now()
    try:
        report = await client.version_report(request.query_params.get("name") or None)
    except OrchestraError as wrong:
        return render(request, principal, Page("problem.html", at, error=wrong))
    names = list(dict.fromkeys(version.name for version in report))
    policies = {name: await client.get_version_policy(name) for name in names[:_NAMES]}
    history = {
        name: (await client.list_version_policies(name))[:_HISTORY]
        for name, policy in policies.items()
        if policy.revision
    }
    of_version = colours(version.version for version in report)
    shown = [lane_of(version) for version in report]
    nodes = await client.list_nodes()
    return render(
        request,
        principal,
        Page(
            "versions.html",
            at,
            values={
                "report": list(zip(report, shown, strict=True)),
                "names": names,
                "colours": of_version,
                "lanes": lanes(shown, at, of_version),
                "policies": policies,
                "history": history,
                "nodes": [node for node in nodes if node.alive],
            },
            data={"versions": report, "policies": policies, "history": history, "nodes": nodes},
            topics=("versions",),
            error=error,
        ),
    )


@pages.post("/versions/policy")
async def set_policy(
    request: Request, client: CurrentClient, principal: CurrentPrincipal, by: Operator
) -> Response:
    """Set the policy of a name."""
    form = {key: str(value) for key, value in (await request.form()).items()}
    words, revision = form.get("policy", ""), form.get("revision", "")
    if revision and not revision.isdecimal():
        raise HTTPException(422, f"{revision!r} is no revision")
    try:
        policy = policy_from_text(words)
        if isinstance(policy, UnknownPolicy):
            raise InvalidArgument(
                f"{words!r} is no policy; write latest, exact:1.2.0, or range:^1.2"
            )
        await client.set_version_policy(
            form.get("name", ""),
            policy,
            reason=form.get("reason", ""),
            by=by,
            expected_revision=int(revision) if revision else None,
            allow_missing=form.get("allow_missing") == "yes",
        )
    except OrchestraError as error:
        return await _versions(request, client, principal, error)
    return RedirectResponse(f"{base_of(request)}/versions?said=policy", 303)
