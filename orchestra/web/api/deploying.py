"""Versions, policies, and what a deploy would do."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse

from orchestra.client.info import PolicyInfo
from orchestra.client.version_reports import VersionInfo
from orchestra.errors import InvalidArgument
from orchestra.operations.preflight import PreflightReport
from orchestra.registry import OrchestrationRegistry
from orchestra.versions import UnknownPolicy, policy_from_text
from orchestra.web.access import CurrentClient, Operator, Role
from orchestra.web.answers import Revision, Routes, answer, revision_of
from orchestra.web.forms import strict
from orchestra.web.paths import Name, id_of

__all__ = ["routes"]

routes: Routes = Routes("versions")


@strict
@dataclass
class NewPolicy:
    """A policy: ``latest``, ``exact:1.2.0``, or ``range:^1.2``."""

    policy: str
    reason: str = ""
    allow_missing: bool = False


@routes.route("GET", "/versions", tuple[VersionInfo, ...])
async def list_versions(client: CurrentClient, name: str | None = None) -> JSONResponse:
    """Say who needs each version, who has it, and which may be retired."""
    return answer(await client.version_report(name))


@routes.route("GET", "/policies/{name}", PolicyInfo)
async def get_policy(name: Name, client: CurrentClient) -> JSONResponse:
    """Return the policy of a name. Its revision is the ETag."""
    info = await client.get_version_policy(id_of(name))
    return answer(info, headers={"ETag": f'"{info.revision}"'})


@routes.route("PUT", "/policies/{name}", PolicyInfo, role=Role.ADMIN)
async def set_policy(
    name: Name, body: NewPolicy, client: CurrentClient, by: Operator, if_match: Revision = None
) -> JSONResponse:
    """Set the policy of a name; with If-Match only if it still has this revision."""
    policy = policy_from_text(body.policy)
    if isinstance(policy, UnknownPolicy):
        raise InvalidArgument(
            f"{body.policy!r} is no policy; write latest, exact:1.2.0, or range:^1.2"
        )
    info = await client.set_version_policy(
        id_of(name),
        policy,
        reason=body.reason,
        by=by,
        expected_revision=revision_of(if_match),
        allow_missing=body.allow_missing,
    )
    return answer(info, headers={"ETag": f'"{info.revision}"'})


@routes.route("GET", "/policies/{name}/history", tuple[PolicyInfo, ...])
async def list_policies(name: Name, client: CurrentClient) -> JSONResponse:
    """Return the policies that a name has and had, the newest first."""
    return answer(await client.list_version_policies(id_of(name)))


@routes.route("GET", "/preflight", PreflightReport)
async def preflight(
    request: Request, client: CurrentClient, name: str | None = None, *, replay: bool = False
) -> JSONResponse:
    """Judge the live instances by the code of this service."""
    registry: OrchestrationRegistry | None = request.app.state.registry
    if registry is None:
        raise HTTPException(404, "no registry is known here; give create_app a registry")
    return answer(await client.preflight(registry, name, replay=replay))
